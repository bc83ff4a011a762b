"""Arrays that stay in their file (HDF5, Zarr) until rows of them are asked for."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, overload
from zipfile import BadZipFile

import numpy as np

from pantok.errors import InputError

_LEAST = 192  # numbers a row
_ROWS, _BYTES = 32, 1 << 26  # read at a time, at most
FAULTS = (OSError, RuntimeError, KeyError, ValueError, BadZipFile, zlib.error)
"""What the library raises for a file that is damaged."""
Opener = Callable[[], AbstractContextManager[Any]]
"""Opens the file anew, and closes it."""


def stays_in_file(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is left where it lies: what may be pictures, of 8 x 8 pixels or more."""
    return len(shape) > 2 and math.prod(shape[1:]) >= _LEAST


class _DamagedError(InputError):
    """The file is there, and does not give some of its rows."""


class Rows:
    """An array (n, ...) in a file: its shape and dtype, its rows by number, and no more of them at once than some.

    A row that is damaged is None; all else raises InputError for what cannot be read.
    """

    def __init__(self, opened: Opener, where: str, dataset: Any, span: tuple[int, int] | None = None) -> None:
        """opened: opens the file, in which the dataset is at `where`. span: which of its rows these are, or all."""
        self._opened, self._where = opened, where
        self._first, last = span or (0, dataset.shape[0])
        self.shape: tuple[int, ...] = (last - self._first, *dataset.shape[1:])
        self.dtype = dataset.dtype if dataset.dtype.hasobject else dataset.dtype.newbyteorder("=")
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        row = max(self.dtype.itemsize * math.prod(self.shape[1:]), 1)
        chunk = dataset.chunks[0] if dataset.chunks else 1  # which is decompressed whole, whatever is read of it
        self._step = max(1, min(-(-_ROWS // chunk) * chunk, _BYTES // row))
        self._held: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            return self._read(first, last)[::step]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number = index % len(self)
        held = self._held
        if held is None or not held[0] <= number < held[0] + len(held[1]):
            first = number // self._step * self._step
            try:
                held = first, self._read(first, min(first + self._step, len(self)))
            except _DamagedError:
                try:
                    held = number, self._read(number, number + 1)  # it may be another of those that is damaged
                except _DamagedError:
                    return None
            self._held = held
        return held[1][number - held[0]]

    def __iter__(self) -> Iterator[Any]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._read(0, len(self)).astype(dtype or self.dtype, copy=False)

    def min(self) -> Any:
        """NaN if there is one, as of any array."""
        return np.min([block.min() for block in self._blocks()])

    def max(self) -> Any:
        return np.max([block.max() for block in self._blocks()])

    def _blocks(self) -> Iterator[np.ndarray]:
        return (self[first : first + self._step] for first in range(0, len(self), self._step))

    def _read(self, first: int, last: int) -> np.ndarray:
        with self._opened() as file:
            try:
                rows = file[self._where][self._first + first : self._first + last]
            except FAULTS as error:
                where = f"its {self._where} cannot be read from row {self._first + first + 1} on"
                name = getattr(file, "filename", None) or getattr(file.store, "root", None) or file.store.path
                raise _DamagedError(name, where, "the file is damaged: copy or record it again") from error
        return rows.astype(self.dtype, copy=False)


class Cells(Sequence[bytes]):
    """The bytes in the cells of a column: lists of bytes, strings, or rows of bytes that end in zeros.

    numbers: the rows that hold something, where those are not all.
    """

    def __init__(self, rows: Rows, numbers: np.ndarray | None = None) -> None:
        self._rows, self._numbers = rows, numbers

    def __len__(self) -> int:
        return len(self._rows) if self._numbers is None else len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return bytes_of(self._rows[index if self._numbers is None else int(self._numbers[index])])


def bytes_of(cell: Any) -> bytes:
    """What a cell holds; the zeros that it was filled up with may go or stay. Of a damaged one, nothing."""
    if cell is None:
        return b""
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogateescape")
    return cell if isinstance(cell, bytes) else np.asarray(cell).tobytes().rstrip(b"\0")
