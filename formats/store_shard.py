"""One shard file of a token store: its chunks as views of the mapped file, or unpacked one by one.

What is unusual: a *packed* shard is plain Zarr too (Blosc with zstd in the place of nothing between the bytes and
their CRC-32C), but the zarr library is not asked: it would read the missing as fill value, and the chunks that
a window needs are fewer than it would decode. The last chunks unpacked are kept, so that windows in order unpack once.
And what is mapped can be read instead (`pread`), range by range: over a network file system a map that cannot be served
ends the process, a read that fails is an error with a name.

Chunks are cut along the first axis. C rows of an inner chunk, D width of a row.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store_disk import crc32c, present, reason

MAP_FROM_BYTES = 1 << 18
"""Smaller files are read instead of mapped: quicker, and many episodes stay below the kernel's 65,530 maps."""
IO = ("mmap", "pread")
"""How large files are looked into: mapped, or read where and when they are wanted."""
REMEDY = "`pantok verify` names all that is damaged; `pantok encode --force` mends those episodes"
_KEPT_CHUNKS = 4
_LEVEL = 5


def packing(dtype: np.dtype) -> dict[str, Any]:
    """The Zarr codec that packs arrays of `dtype`: zstd over the bytes of each weight together."""
    facts = {"cname": "zstd", "clevel": _LEVEL, "blocksize": 0, "typesize": dtype.itemsize}
    return {"name": "blosc", "configuration": {**facts, "shuffle": "noshuffle" if dtype.itemsize == 1 else "shuffle"}}


def pack(chunk: np.ndarray) -> bytes:
    """The bytes of `packing(chunk.dtype)`; `chunk` is contiguous."""
    from numcodecs import blosc

    shuffle = blosc.NOSHUFFLE if chunk.dtype.itemsize == 1 else blosc.SHUFFLE
    return blosc.compress(chunk.reshape(-1), b"zstd", _LEVEL, shuffle, 0)


@dataclass(frozen=True)
class Fault:
    """Rows [first, last) of an array that cannot be trusted, and why. `file` is the object that holds them."""

    file: Path
    problem: str
    first: int
    last: int


class Shard:
    """A shard file, its index checked. Raises StoreError for what is missing or damaged."""

    def __init__(
        self, file: Path, first: int, rows: int, chunk: tuple[int, ...], dtype: np.dtype, slots: int, is_packed: bool,
        io: str = "mmap",
    ) -> None:  # fmt: skip
        """first: the array's row that it begins with. rows: how many it holds. chunk: shape of an inner chunk.

        slots: entries of its index, of which the first `ceil(rows / C)` are in use. io: one of IO.
        """
        self.file, self.first, self.rows = file, first, rows
        self._chunk, self._dtype, self._is_packed = chunk, dtype, is_packed
        self._chunk_bytes = int(np.prod(chunk, dtype=np.int64)) * dtype.itemsize
        self._unpacked: dict[int, np.ndarray] = {}
        self._buffer: memoryview | Ranges = contents(file) if io == "mmap" else Ranges(file)
        self.is_mapped = io == "mmap" and not is_packed
        size = len(self._buffer)
        tail = 16 * slots + 4
        index_bytes = self._buffer[max(size - tail, 0) : max(size - 4, 0)]
        stored = bytes(self._buffer[max(size - 4, 0) :])
        if size < tail or crc32c(index_bytes) != int.from_bytes(stored, "little"):
            raise StoreError(file, f"is cut short or its index is damaged ({size} bytes)", REMEDY)
        index = np.frombuffer(index_bytes, "<u8").reshape(slots, 2)
        chunks = -(-rows // chunk[0])
        whole = np.uint64(self._chunk_bytes + 4)
        self._offsets, self._sizes = index[:chunks, 0], index[:chunks, 1]
        room = np.uint64(max(size - tail, 0))
        fits = (self._offsets <= room) & (self._sizes <= room) & (self._sizes > 4)
        fits &= np.where(fits, self._offsets, 0) + np.where(fits, self._sizes, 0) <= room
        if not is_packed:
            fits &= self._sizes == whole
        if not fits.all():
            raise StoreError(file, f"lacks its chunk {int(np.argmin(fits))}", REMEDY)
        self.view: np.ndarray | None = None
        """(chunks, C, ...) of the mapped file, where its chunks stand in order and are not packed."""
        if self.is_mapped and np.array_equal(self._offsets, np.arange(chunks, dtype=np.uint64) * whole):
            self.view = self._strided(0, chunks)

    def _strided(self, offset: int, chunks: int) -> np.ndarray:
        assert isinstance(self._buffer, memoryview)
        strides = (self._chunk_bytes + 4, *_c_strides(self._chunk, self._dtype.itemsize))
        return np.ndarray((chunks, *self._chunk), self._dtype, self._buffer, offset, strides)

    def _of(self, k: int) -> np.ndarray:
        """Chunk k (C, ...), read-only; packed ones have their checksum compared."""
        if self.view is not None:
            return self.view[k]
        if self.is_mapped:
            return self._strided(int(self._offsets[k]), 1)[0]
        if k not in self._unpacked:
            while len(self._unpacked) >= _KEPT_CHUNKS:
                self._unpacked.pop(next(iter(self._unpacked)), None)
            for fault in self.faults(k * self._chunk[0], k * self._chunk[0] + 1):
                raise StoreError(fault.file, f"{fault.problem}: rows {fault.first} to {fault.last - 1}", REMEDY)
            self._unpacked[k] = self._unpack(k)
        return self._unpacked[k]

    def _unpack(self, k: int) -> np.ndarray:
        from numcodecs import blosc

        at, size = int(self._offsets[k]), int(self._sizes[k])
        try:
            data = blosc.decompress(bytes(self._buffer[at : at + size - 4]))
        except RuntimeError as error:
            raise StoreError(self.file, f"its chunk {k} cannot be unpacked: {error}", REMEDY) from error
        if len(data) != self._chunk_bytes:
            raise StoreError(self.file, f"its chunk {k} has {len(data)} bytes, not {self._chunk_bytes}", REMEDY)
        return np.frombuffer(data, self._dtype).reshape(self._chunk)

    def pieces(self, first: int, last: int) -> list[np.ndarray]:
        """The rows [first, last) of this shard, one array for each chunk; read-only views where it is mapped."""
        rows = self._chunk[0]
        return [
            self._rows(k, max(first - k * rows, 0), min(last - k * rows, rows))
            for k in range(first // rows, -(-last // rows))
        ]

    def _rows(self, k: int, first: int, last: int) -> np.ndarray:
        """Rows of chunk k. Of what is not mapped a copy, so that a few rows do not keep a whole chunk in memory."""
        if self.is_mapped:
            return self._of(k)[first:last]
        if self._is_packed:
            return self._of(k)[first:last].copy()
        row_bytes = self._chunk_bytes // self._chunk[0]
        at = int(self._offsets[k])
        data = self._buffer[at + first * row_bytes : at + last * row_bytes]
        return np.frombuffer(data, self._dtype).reshape(last - first, *self._chunk[1:])

    def faults(self, first: int, last: int) -> Iterator[Fault]:
        """The chunks that hold the rows [first, last) of this shard and whose checksum differs."""
        rows = self._chunk[0]
        for k in range(first // rows, -(-last // rows)):
            at = int(self._offsets[k])
            stop = at + int(self._sizes[k]) - 4
            stored = int.from_bytes(bytes(self._buffer[stop : stop + 4]), "little")
            if crc32c(self._buffer[at:stop]) != stored:
                lo, hi = self.first + k * rows, self.first + min((k + 1) * rows, self.rows)
                yield Fault(self.file, f"the checksum of its chunk {k} differs", lo, hi)

    def run_of(self, row: int) -> tuple[int, int]:
        """(byte of the file where row `row` of this shard begins, rows from there that follow without a gap)."""
        k, within = divmod(row, self._chunk[0])
        row_bytes = self._chunk_bytes // self._chunk[0]
        return int(self._offsets[k]) + within * row_bytes, min(self._chunk[0] - within, self.rows - row)


class Ranges:
    """A file of which slices are read when they are asked for. Raises StoreError.

    It is opened for each: a process may have fewer files open than a store has shards.
    """

    def __init__(self, file: Path) -> None:
        present(file)
        self._file, self._size = file, 0
        with _opened(file) as handle:
            self._size = os.fstat(handle).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> memoryview:
        first, last, _ = where.indices(self._size)
        wanted = max(last - first, 0)
        data = bytearray(wanted)
        view, got = memoryview(data), 0
        with _opened(self._file) as handle:
            while got < wanted and (n := os.preadv(handle, [view[got:]], first + got)):
                got += n
        if got < wanted:
            raise StoreError(self._file, f"is cut short: {got} of {wanted} bytes at {first}", REMEDY)
        return view


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    """A descriptor. Raises StoreError, also for what goes wrong while it is open."""
    handle = -1
    try:
        handle = os.open(file, os.O_RDONLY)
        yield handle
    except FileNotFoundError as error:
        raise StoreError(file, "is missing", REMEDY) from error
    except OSError as error:
        raise StoreError(file, f"cannot be read: {reason(error)}", "check its permissions") from error
    finally:
        if handle >= 0:
            os.close(handle)


def contents(file: Path) -> memoryview:
    """A file, mapped if it is large. Raises StoreError."""
    present(file)
    try:
        with open(file, "rb") as handle:
            if os.fstat(handle.fileno()).st_size < MAP_FROM_BYTES:
                return memoryview(handle.read())
            return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as error:
        raise StoreError(file, "is missing", REMEDY) from error
    except OSError as error:
        raise StoreError(file, f"cannot be read: {reason(error)}", "check its permissions") from error


def _c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for n in reversed(shape[1:]):
        strides.insert(0, strides[0] * n)
    return tuple(strides)
