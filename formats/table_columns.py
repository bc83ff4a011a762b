"""Columns of CSV, Parquet, NPZ and NPY files as arrays: numbers, words, instants, each in its own dtype.

What is unusual: nothing goes missing without a word. What is neither numbers nor words is named; a row of a CSV that
has too few or too many cells (a recorder that was killed) costs that row alone; a column of numbers in which a word
stands is named with the row. A missing number is NaN. Cells that hold a PNG or JPEG whole are kept as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from pantok.errors import InputError
from pantok.formats.files import Problems, check_readable, decode_text, read_bytes
from pantok.formats.table_clock import RATE_NAMES

_NO_NUMBER = ["", "NaN", "nan", "-nan", "NA", "N/A", "null", "NULL", "None"]
_COMMA, _POINT = (re.compile(rf"(?m)(?:^|;)\s*[+-]?\d*{mark}\d+(?:[eE][+-]?\d+)?\s*(?:;|$)") for mark in (",", r"\."))
"""Cells that are a number with a decimal comma, a decimal point."""
_LISTED = 12  # names in a line
NEITHER = "neither numbers nor words"
_ENCODED = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP", re.DOTALL)
_COMMENT = re.compile(r"#\s*(\w+)\s*[:=]\s*([0-9./eE+-]+)\s*$")


@dataclass
class Columns:
    """numbers: (n, ...) by name. words: object arrays (n,) of str or None. instants: names of int64 nanoseconds.

    encoded: pictures, each as the file that it was. facts: single values that the file says beside them.
    said: words that hold from the first row to the last. left: why, by the name of what was left out.
    part: the episode within the file, where there are several.
    tracks: the column of each channel of each track, where pantok wrote the file.
    rows: int64, the rows of the table in which a column of lists or pictures holds something, where those are not all.
    channels: what the numbers of a row of a column are called, where something says so.
    count: how many rows a table has; None of arrays, which may differ, where nothing says it.
    grouped: whether columns lie in groups; then their names are paths: `obs/images/left`. What is large may stay in
    its file: it has the shape and dtype of its array, and gives rows when they are asked for (`rows.Rows`).
    """

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    words: dict[str, np.ndarray] = field(default_factory=dict)
    encoded: dict[str, Sequence[bytes]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    instants: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    tracks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    channels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    count: int | None = None
    left: dict[str, str] = field(default_factory=dict)
    part: str = ""
    grouped: bool = False

    def add(self, name: str, values: np.ndarray) -> None:
        """An array of any dtype, put where it belongs."""
        kind = values.dtype.kind
        if kind in "Mm":
            values = values.astype("M8[ns]" if kind == "M" else "m8[ns]")
            missing = np.isnat(values)
            whole = values.astype(np.int64)
            self.numbers[name] = np.where(missing, np.nan, whole.astype(np.float64)) if missing.any() else whole
            self.instants.add(name)
        elif kind in "biuf":
            if values.dtype.itemsize > 8:
                values = values.astype(np.float64)
            self.numbers[name] = values.astype(values.dtype.newbyteorder("="), copy=False)
        elif kind in "US" and values.ndim == 1:
            decoded = np.char.decode(values, "utf-8", "replace") if kind == "S" else values
            self.words[name] = np.array([str(v) for v in decoded], object)
        else:
            self.left[name] = NEITHER


def read_columns(path: Path, problems: Problems) -> Columns:
    """The columns of a table, by its suffix. Raises InputError; what was left out goes to `problems`."""
    check_readable(path)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        columns = _arrays(path)
    elif suffix == ".parquet":
        columns = columns_of(path, _parquet(path), problems)
    else:
        columns = _csv(path, problems)
    tell_left(path, columns, problems)
    return columns


def tell_left(path: Path, columns: Columns, problems: Problems) -> None:
    """A line for each reason for which columns were left out."""
    for why in dict.fromkeys(columns.left.values()):
        names = listed(n for n, w in columns.left.items() if w == why)
        problems(f"{path}: {names}: {why} (left out; the others are kept)")


def listed(names: Iterable[str]) -> str:
    """The first dozen, and how many there are if there are more."""
    every = list(names)
    return ", ".join(every[:_LISTED]) + (f", … ({len(every)} in all)" if len(every) > _LISTED else "")


def is_picture(cell: bytes) -> bool:
    """Whether bytes begin as a PNG, JPEG, GIF or WebP does."""
    return bool(_ENCODED.match(cell))


def _arrays(path: Path) -> Columns:
    columns = Columns()
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            found = {"values": content} if isinstance(content, np.ndarray) else {k: content[k] for k in content.files}
    except Exception as error:  # zipfile, zlib and tokenize raise their own kinds on damaged files
        pickled = str(error).startswith("Object arrays")
        why = "holds pickled objects, which can run code" if pickled else "is not a NumPy file, or is damaged"
        remedy = "save plain arrays (no dtype=object)" if pickled else "save it again with numpy.save or savez"
        raise InputError(path, why, remedy) from error
    for name, values in found.items():
        if values.dtype.names:
            for part in values.dtype.names:
                columns.add(part if path.suffix.lower() == ".npy" else f"{name}.{part}", values[part])
        elif name in RATE_NAMES and values.size == 1 and values.dtype.kind in "iufU":
            columns.facts[name] = values.reshape(()).item()
        elif values.ndim:
            columns.add(name, values)
    return columns


def _parquet(path: Path) -> pa.Table:
    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        table.validate(full=True)
        pa.default_memory_pool().release_unused()  # what decompressing took, more than the table itself
        return table
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(path, "is not a Parquet file, or is damaged", "write it again and close the writer") from error


def _csv(path: Path, problems: Problems) -> Columns:
    content = decode_text(path, read_bytes(path))
    facts: dict[str, Any] = {}
    at = 0
    while at < len(content):
        end = content.find("\n", at)
        line = content[at : end if end >= 0 else len(content)].strip()
        if line and not line.startswith("#"):
            break
        said = _COMMENT.match(line)
        if said:
            facts[said[1]] = said[2]
        at = end + 1 if end >= 0 else len(content)
    content = content[at:]
    if not content.strip():
        raise InputError(path, "holds no rows", "record it again, or remove it")
    head = content.split("\n", 1)[0].rstrip("\r")
    delimiter = "\t" if path.suffix.lower() == ".tsv" or "\t" in head else ","
    if ";" in head and all("," not in c or _is_number(c.replace(",", ".")) for c in head.split(";")):
        delimiter = ";"
    # Where cells end in semicolons, a number may have a comma where others have a point.
    point = "," if delimiter == ";" and _COMMA.search(content) and not _POINT.search(content) else "."
    cells = [c.strip().strip('"') for c in head.split(delimiter)]
    named = not all(_is_number(c.replace(point, ".")) for c in cells)
    names = distinct(cells if named else [f"c{i}" for i in range(len(cells))])
    ragged: list[Any] = []

    def skip(row: Any) -> str:
        ragged.append(row)
        return "skip"

    body = content.encode("utf-8", "replace")
    del content
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(body),
            # One thread: only so are the numbers of rows known.
            pyarrow.csv.ReadOptions(skip_rows=int(named), column_names=names, use_threads=False),
            pyarrow.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            pyarrow.csv.ConvertOptions(
                null_values=_NO_NUMBER, strings_can_be_null=False,
                decimal_point=point, true_values=["true", "True", "TRUE"], false_values=["false", "False", "FALSE"],
            ),
        )  # fmt: skip
    except pa.ArrowException as error:
        raise InputError(path, f"is not a table: {str(error).splitlines()[0]}", "save it as CSV again") from error
    if ragged:
        first = ragged[0]
        where = f"row {first.number - int(named)}" if first.number is not None else "a row"
        said_cells = f"{where} has {first.actual_columns} cells, the first line {first.expected_columns}"
        if len(ragged) > max(1, table.num_rows):
            raise InputError(path, f"is not a table: {said_cells}", "every row needs as many cells")
        problems(f"{path}: {said_cells} ({len(ragged)} such left out; the other rows are kept)")
    del body
    # A line that ends in a comma makes a column of no name that holds nothing.
    hollow = [n for n, c in zip(names, cells, strict=True) if not c and pa.types.is_null(table.schema.field(n).type)]
    columns = columns_of(path, table.drop_columns(hollow), problems)
    columns.facts |= facts
    return columns


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in ("true", "false")
    return True


def distinct(names: list[str]) -> list[str]:
    """The same names, empty ones called c0, c1, ..., and repeated ones told apart: a, a.2, a.3."""
    taken: dict[str, int] = {}
    out = []
    for number, name in enumerate(names):
        name = name or f"c{number}"
        taken[name] = taken.get(name, 0) + 1
        out.append(name if taken[name] == 1 else f"{name}.{taken[name]}")
    return out if len(set(out)) == len(out) else [f"{n}.{i}" for i, n in enumerate(out)]


def columns_of(path: Path, table: pa.Table, problems: Problems) -> Columns:
    """The columns of an Arrow table that was read from `path`; what is neither numbers nor words is in `left`."""
    columns = Columns(count=table.num_rows)
    while any(pa.types.is_struct(f.type) for f in table.schema):
        table = table.flatten()
    schema, waiting = table.schema, table.columns[::-1]
    del table  # a column is let go of when it has become an array
    for name in distinct(list(schema.names)):
        _add(columns, path, name, waiting.pop(), problems)
    pa.default_memory_pool().release_unused()
    for name in [n for n in columns.encoded if n.endswith(".bytes")]:  # {bytes, path}, as datasets have it
        short = name.removesuffix(".bytes")
        columns.encoded[short] = columns.encoded.pop(name)
        if name in columns.rows:
            columns.rows[short] = columns.rows.pop(name)
        for beside in (columns.words, columns.numbers):
            beside.pop(f"{short}.path", None)
    metadata = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in (schema.metadata or {}).items()}
    columns.facts = {k: v for k, v in metadata.items() if k in RATE_NAMES}
    columns.tracks = _written_tracks(metadata.get("tracks"), columns)
    return columns


def _written_tracks(said: str | None, columns: Columns) -> Mapping[str, Mapping[str, str]]:
    """What pantok's own writer says of its columns; nothing if that is not so of this file."""
    try:
        tracks = json.loads(said or "{}")
        whole = all(
            channels and all(columns.numbers[column].ndim == 1 for column in channels.values())
            for channels in tracks.values()
        )
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}
    return tracks if whole else {}


def _add(columns: Columns, path: Path, name: str, column: pa.ChunkedArray, problems: Problems) -> None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
        to = pa.timestamp("ns", getattr(kind, "tz", None)) if pa.types.is_timestamp(kind) else pa.duration("ns")
        column = column.cast(pa.time64("ns") if pa.types.is_time(kind) else to, safe=False).cast(pa.int64())
        columns.instants.add(name)
        columns.numbers[name] = _numbers(column)
    elif isinstance(kind, pa.FixedShapeTensorType):
        add_lists(columns, name, pa.chunked_array([c.storage for c in column.chunks], kind.storage_type), kind.shape)
    elif _is_list(kind):
        add_lists(columns, name, column)
    elif _is_numeric(kind):
        columns.numbers[name] = _numbers(column)
    elif pa.types.is_null(kind):
        columns.numbers[name] = np.full(len(column), np.nan)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        _add_encoded(columns, name, column.to_pylist())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _add_words(columns, path, name, column, problems)
    else:
        columns.left[name] = NEITHER


def _add_encoded(columns: Columns, name: str, cells: list[bytes | None]) -> None:
    filled = [number for number, cell in enumerate(cells) if cell]
    held = [cell for cell in cells if cell]
    if not held or not is_picture(held[0]):
        columns.left[name] = NEITHER
        return
    columns.encoded[name] = held
    if len(held) < len(cells):
        columns.rows[name] = np.array(filled)


def add_lists(columns: Columns, name: str, column: pa.ChunkedArray, shape: Sequence[int] = ()) -> None:
    """Lists of numbers, or of lists of them as pictures are. Where a row holds none, its sensor had nothing to say.

    shape: of what one list holds, where its type tells."""
    joined = column.combine_chunks()
    filled = pyarrow.compute.fill_null(pyarrow.compute.greater(pyarrow.compute.list_value_length(joined), 0), False)
    rows = np.flatnonzero(filled.to_numpy(zero_copy_only=False))
    if not len(rows):
        columns.left[name] = "lists that hold nothing"
        return
    inner, widths = joined if len(rows) == len(joined) else joined.filter(filled), [len(rows)]
    while _is_list(inner.type):
        lengths = pyarrow.compute.list_value_length(inner)
        width = lengths[0].as_py() if len(lengths) else None
        if not width or inner.null_count or not pyarrow.compute.all(pyarrow.compute.equal(lengths, width)).as_py():
            columns.left[name] = "lists of different lengths"
            return
        inner = inner.flatten()
        widths.append(width)
    if not _is_numeric(inner.type):
        columns.left[name] = "lists of what is no number"
        return
    columns.numbers[name] = _numbers(inner).reshape([len(rows), *shape] if shape else widths)
    if len(rows) < len(column):
        columns.rows[name] = rows


def _add_words(columns: Columns, path: Path, name: str, column: pa.ChunkedArray, problems: Problems) -> None:
    words = np.array(column.to_pylist(), object)
    filled = [w for w in words if w]
    numeric = sum(_is_number(w) for w in filled)
    if filled and numeric * 2 >= len(filled):
        row = next(i for i, w in enumerate(words, 1) if w and not _is_number(w)) if numeric < len(filled) else 0
        what = f"row {row} of {name} holds {words[row - 1]!r}, which is no number" if row else f"{name} mixes kinds"
        problems(f"{path}: {what} (the column is left out; mend the cell, or leave it empty)")
    else:
        columns.words[name] = words


def _numbers(column: Any) -> np.ndarray:
    """Numbers as an array in their own dtype; where some are missing, floats with NaN."""
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if joined.null_count:
        missing = joined.is_null().to_numpy(zero_copy_only=False)
        wide = joined.type if pa.types.is_floating(joined.type) else pa.float64()
        present = joined.drop_null().to_numpy(zero_copy_only=False)
        values = np.full(len(joined), np.nan, np.dtype(wide.to_pandas_dtype()))
        values[~missing] = present
        return values
    return np.ascontiguousarray(joined.to_numpy(zero_copy_only=False))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
