"""HDF5 files of robot learning as tracks: one episode a file, or many, each in a group of its own.

What is unusual: nothing is asked about the layout. robomimic, robosuite, LIBERO, ManiSkill, ALOHA, DROID and plain
files are all groups of arrays of which most have the same number of rows. Which groups are episodes is told by their
names (`hdf5_parts`), what the arrays are by what the columns of other tables are told by (`tables`). Pictures stay in
the file and are read some rows at a time, each time from a file that is opened anew: an hour of them takes no memory,
and a worker process needs nothing of this one. The file is never locked: it may lie where locks cannot be had.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats.files import Problems, check_readable
from pantok.formats.hdf5_parts import Parts, find_parts, natural
from pantok.formats.hdf5_said import said_by, single
from pantok.formats.rows import FAULTS, Cells, Rows, bytes_of, stays_in_file
from pantok.formats.table_clock import RATE_NAMES
from pantok.formats.table_columns import NEITHER, Columns, add_lists, is_picture, tell_left
from pantok.formats.table_groups import tracks_by_clock
from pantok.formats.table_names import kind_of

_LOOKED = 1024  # cells that may be empty before the first picture
_TOLD = re.compile(r"eof = (\d+).*stored_eof = (\d+)")


def parts_of(path: Path) -> tuple[str, ...]:
    """The names of the episodes in a file, in natural order; ("",) if the whole file is one (`hdf5_parts`).

    Opens no dataset's contents. Raises InputError for what is no HDF5 file, or cannot be opened.
    """
    return tuple(_parts(path).groups) or ("",)


def holds(path: Path, part: str) -> bool:
    """Whether a file has an episode of that name. Raises InputError as `parts_of` does."""
    return part in _parts(path).groups


def read_part(
    path: Path,
    part: str,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks of one episode. part: its name, as `parts_of` gives it. rules: what episode.toml says of the file.

    size, fps: of pictures. Lines to `problems` about what every episode of the file has name no episode.
    Raises InputError for a file that cannot be read, an episode that is not there or holds no rows, an unknown time.
    """
    parts = _parts(path)
    where = parts.groups.get(part, "" if not part and not parts.groups else None)
    if where is None:
        raise InputError(path, f"holds no episode {part!r}", f"it has {', '.join([*parts.groups][:12]) or 'one alone'}")
    if parts.beside and part == next(iter(parts.groups)):
        problems(f"{path}: {', '.join(parts.beside)}: in none of its episodes (left out; the episodes are kept)")
    try:
        columns = _columns(path, where)
        columns.part = part
        tell_left(path, columns, problems)
        return tracks_by_clock(path, columns, rules, problems, size=size, fps=fps)
    except InputError as error:
        if not part or not error.thing.startswith(str(path)):
            raise
        thing = f"{path} {part}{error.thing.removeprefix(str(path))}"
        raise InputError(thing, error.problem, error.remedy) from error


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError(path, "needs h5py", 'pip install "pantok[robots]"') from error
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401  filters that HDF5 does not come with, where somebody installed them
    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open for reading, without a lock where the library can do without."""
    check_readable(path)
    h5py = _h5py(path)
    try:
        try:
            file = h5py.File(path, "r", locking=False)
        except (TypeError, ValueError):  # a library that is older than that choice
            file = h5py.File(path, "r")
    except OSError as error:
        raise _refused(path, str(error)) from error
    with file:
        yield file


def _refused(path: Path, said: str) -> InputError:
    if cut := _TOLD.search(said):
        return InputError(path, f"is cut short: {cut[1]} of {cut[2]} bytes are there", "copy or record it again")
    if "already open for write" in said or "unable to lock" in said:
        remedy = f"close the program that writes it; if that is gone: h5clear -s {path.name}"
        return InputError(path, "is still open for writing", remedy)
    if "signature" in said:
        return InputError(path, "is not an HDF5 file", "check what it is")
    return InputError(path, "is an HDF5 file that is damaged or was not closed", "copy or record it again")


def _parts(path: Path) -> Parts:
    check_readable(path)
    facts = path.stat()
    return _parts_once(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=256)
def _parts_once(path: Path, size: int, mtime_ns: int) -> Parts:
    with _opened(path) as file, _damage_named(path):
        return find_parts(file)


def _gives_a_row(item: Any) -> bool:
    """Whether a dataset can be read: a filter that is not there may be one that its writer had not either."""
    try:
        return item[:1] is not None
    except FAULTS:
        return False


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FAULTS as error:
        raise _refused(path, "") from error


def _columns(path: Path, where: str) -> Columns:
    """What lies in the group `where` of the file, "" for all, and what is said of it there and above."""
    columns = Columns(grouped=True)
    with _opened(path) as file:
        with _damage_named(path):
            group = file[where or "/"]
            above = [file, *(file["/".join(where.split("/")[:n])] for n in range(1, where.count("/") + 1))]
        if not hasattr(group, "keys"):
            raise InputError(path, f"has no group {where}", "its link leads nowhere: mend it")
        reader = _Reader(path, _h5py(path), f"{where}/" if where else "", columns)
        with _damage_named(path):
            said = [said_by(o.attrs) for o in ([group] if not where else [group, *reversed(above)])]
            reader.read(group)
    facts = next((s.rate for s in said if s.rate), {})
    columns.count = _count(columns)
    columns.facts = columns.facts or facts or reader.rate_below()
    if task := next((s.task for s in said if s.task), None):
        columns.said.setdefault("task", task)
    lengths = {len(v) for v in columns.numbers.values()}
    for name in [n for n, words in columns.words.items() if len(words) == 1 and max(lengths, default=1) > 1]:
        columns.said[name] = columns.words.pop(name)[0]
    columns.said = {name: text for name, text in columns.said.items() if text.strip()}
    return columns


def _lengths(columns: Columns) -> Counter[int]:
    tables = (columns.numbers, columns.words, columns.encoded)
    return Counter(len(v) for table in tables for name, v in table.items() if name not in columns.rows)


def _count(columns: Columns) -> int | None:
    """How many rows an episode has that holds actions: as many as they, or one more where something was seen after the
    last of them. None if there are none, or of different numbers: then as many as most have."""
    acted = {len(v) for name, v in columns.numbers.items() if kind_of(name, path=True) == "action"}
    if len(acted) != 1 or not max(acted):
        return None
    count = acted.pop()
    return count + (count + 1 in _lengths(columns))


class _Reader:
    """Puts what lies in a group, and in those within it, where it belongs in `columns`."""

    def __init__(self, path: Path, h5py: Any, prefix: str, columns: Columns) -> None:
        self._path, self._h5py, self._prefix, self._columns = path, h5py, prefix, columns
        self._rates: list[tuple[int | None, dict[str, Any]]] = []  # rows of a dataset, None of a group

    def rate_below(self) -> dict[str, Any]:
        """The rate that groups within say, or datasets of as many rows as most have; none where they disagree."""
        lengths = _lengths(self._columns)
        most = self._columns.count or max(lengths, key=lambda n: (lengths[n], n), default=0)
        said = [rate for rows, rate in self._rates if rows is None or abs(rows - most) <= 1]
        return said[0] if said and all(rate == said[0] for rate in said) else {}

    def read(self, group: Any, below: str = "", seen: tuple[Any, ...] = ()) -> None:
        left = self._columns.left
        names = sorted((name for name in group if isinstance(name, str)), key=natural)
        left |= {below + repr(name): "a name that is not UTF-8" for name in group if not isinstance(name, str)}
        for name in names:
            path = below + name
            if name.startswith("next_") and name[5:] in names:
                continue  # the same, a step later
            try:
                item = group[name]
            except FAULTS:
                link = group.get(name, getlink=True)
                leads = not isinstance(link, self._h5py.HardLink)
                left[path] = "a link to what is not there" if leads else "damaged"
                continue
            if isinstance(item, self._h5py.Group):
                if item in (*seen, group):
                    left[path] = "a link back to a group that it lies in"
                    continue
                if rate := said_by(item.attrs).rate:
                    self._rates.append((None, rate))
                self.read(item, f"{path}/", (*seen, group))
            elif isinstance(item, self._h5py.Dataset) and not (why := self._unreadable(item)):
                try:
                    self._add(path, name, item)
                except (*FAULTS, TypeError, pa.ArrowException):
                    left[path] = "cannot be read: damaged, or of a type that has no array"
            elif isinstance(item, self._h5py.Dataset):
                left[path] = why

    def _unreadable(self, item: Any) -> str:
        """Why a dataset cannot be read, told before it is; "" if nothing speaks against it."""
        try:
            plan = item.id.get_create_plist()
            for number in range(plan.get_nfilters()):
                code, _, _, label = plan.get_filter(number)
                if not self._h5py.h5z.filter_avail(code) and not _gives_a_row(item):
                    label = label.decode("utf-8", "replace").split(" ")[0] or "filter"
                    return f"compressed by {label} ({code}), which is not there: pip install hdf5plugin"
            if item.is_virtual:
                for source in item.virtual_sources():
                    if source.file_name != "." and "%" not in source.file_name:
                        file = self._path.parent / source.file_name
                        if not (file.exists() or os.path.exists(source.file_name)):
                            return f"made of {source.file_name}, which is not there"
        except FAULTS:
            return "damaged"
        return ""

    def _add(self, path: str, name: str, item: Any) -> None:
        columns, dtype, shape = self._columns, item.dtype, item.shape
        if shape is None or 0 in shape[1:]:
            columns.left[path] = "holds nothing"
            return
        if rate := said_by(item.attrs).rate:
            self._rates.append((shape[0] if shape else 0, rate))
        strings = self._h5py.check_string_dtype(dtype)
        low = name.lower()
        if math.prod(shape) == 1 and low in RATE_NAMES:
            columns.facts.setdefault(low, single(item[()]))
        elif not shape:
            if strings is not None:
                self._say(path, item[()])
        elif low == "compress_len":
            pass  # how long ALOHA's pictures are, which they say themselves
        elif len(shape) == 1 and (strings is not None or (dtype.kind == "V" and not (dtype.names or dtype.subdtype))):
            if not self._encoded(path, item):
                if strings is None:
                    columns.left[path] = NEITHER
                    return
                words = columns.words[path] = np.empty(len(item), object)
                words[:] = [bytes_of(cell).decode("utf-8", "replace") for cell in item[()]]
        elif (inner := self._h5py.check_vlen_dtype(dtype)) is not None and len(shape) == 1:
            if not (np.dtype(inner).itemsize == 1 and self._encoded(path, item)):
                lists = pa.array([np.asarray(cell) for cell in item[()]], pa.list_(pa.from_numpy_dtype(inner)))
                add_lists(columns, path, pa.chunked_array([lists]))
        elif dtype.names:
            values = item[()]
            for part in dtype.names:
                columns.add(f"{path}/{part}", values[part])
        elif dtype == np.uint8 and len(shape) == 2 and shape[1] >= 32 and self._encoded(path, item):
            pass
        elif dtype.kind in "biuf" and stays_in_file(shape):
            columns.numbers[path] = cast(np.ndarray, self._rows(path, item))
        else:
            columns.add(path, item[()])

    def _rows(self, path: str, item: Any) -> Rows:
        file = self._path
        return Rows(lambda: _opened(file), self._prefix + path, item)

    def _say(self, path: str, said: Any) -> None:
        try:
            self._columns.said[path] = said.decode() if isinstance(said, bytes) else str(said)
        except UnicodeDecodeError:
            self._columns.left[path] = NEITHER

    def _encoded(self, path: str, item: Any) -> bool:
        """Takes pictures that were kept as files, one a row, for what they are; says whether it did."""
        rows = self._rows(path, item)
        if item.ndim == 2:
            filled = np.flatnonzero(item[:, 0])
        else:
            first = next((cell for n, cell in enumerate(rows) if len(bytes_of(cell)) or n >= _LOOKED), b"")
            if not is_picture(bytes_of(first)):
                return False
            filled = np.array([n for n, cell in enumerate(rows) if len(bytes_of(cell))], np.int64)
        if not len(filled) or not is_picture(bytes_of(rows[int(filled[0])])):
            return False
        self._columns.encoded[path] = Cells(rows, filled if len(filled) < len(rows) else None)
        if len(filled) < len(rows):
            self._columns.rows[path] = filled
        return True
