"""Numbers from CSV, Parquet, NPZ and NPY: one or more tracks, each with its own dtype, channels and clock.

How a table says its time, in this order:
1. what `episode.toml` says for the file: `time`, `unit`, `rate_hz`, `offset_s`;
2. a column (or array) named t, time, timestamp, stamp, ts, optionally with _s, _ms, _us or _ns, which is its unit;
   without one, floats are seconds, and integers are taken by their size (above 1e17 ns, 1e14 us, 1e11 ms);
3. a rate named fps, hz, rate, rate_hz, control_hz, frequency or sample_rate: a scalar array of an .npz, Parquet
   metadata, or `# rate_hz: 50` in a comment line at the top of a CSV.
Else an InputError says how to give it.

How columns become tracks: a column that begins with `action` or `cmd` belongs to `action`, one that begins with
`reward` to `reward`, all others to `proprio`; list columns and the arrays of an .npz are tracks of their own
(`proprio.qpos`). Columns of one track that differ in type (boolean, integer, float) are split, so that each keeps its
own: `proprio`, `proprio.flags`, `proprio.counts`. Columns of words are left out, and named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats.files import read_bytes, replaced

SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".npz", ".npy"})
RATE_NAMES = ("rate_hz", "fps", "hz", "rate", "control_hz", "frequency", "frequency_hz", "sample_rate")
_TIME = re.compile(r"^(?:t|time|times|timestamp|timestamps|stamp|ts)(?:_(s|sec|ms|us|ns))?$", re.IGNORECASE)
_UNIT_NS = {"s": NS, "sec": NS, "ms": 1_000_000, "us": 1000, "ns": 1}
_GROUPS = (("action", ("action", "cmd")), ("reward", ("reward",)))
_FLAVOUR = {"b": ".flags", "i": ".counts", "u": ".counts", "f": ""}
Problems = Callable[[str], None]


def read_table(
    path: Path, rules: Mapping[str, Any] | None = None, problems: Problems = lambda line: None
) -> list[Track]:
    """The tracks of a table. rules: what episode.toml says of the file. Raises InputError."""
    rules = rules or {}
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        columns, facts = _arrays(path)
    elif suffix == ".parquet":
        columns, facts = _columns(path, _parquet(path), problems)
    else:
        columns, facts = _csv(path, problems)
    clock, columns = _clock(path, columns, facts, rules)
    tracks = _tracks(columns, clock, rules)
    if not tracks:
        raise InputError(path, "holds no numbers", "check its columns")
    return tracks


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        content = np.load(path, allow_pickle=False)
        found = {k: content[k] for k in content.files} if path.suffix.lower() == ".npz" else {"values": content}
    except (ValueError, OSError, EOFError, KeyError) as error:
        pickled = "pickle" in str(error)
        why = "holds pickled objects, which can run code" if pickled else "is not a NumPy file, or is cut off"
        remedy = "save plain arrays (no dtype=object)" if pickled else "save it again with numpy.save or savez"
        raise InputError(path, why, remedy) from error
    except Exception as error:  # zipfile raises its own kinds
        raise InputError(path, "is not a NumPy file, or is cut off", "save it again with numpy.savez") from error
    facts = {k: v.item() for k, v in found.items() if v.ndim == 0 and v.dtype.kind in "iuf"}
    return {k: v for k, v in found.items() if v.ndim >= 1 and v.dtype.kind in "biuf"}, facts


def _parquet(path: Path) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(path, "is not a Parquet file, or is cut off", "write it again and close the writer") from error


def _csv(path: Path, problems: Problems) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    content = read_bytes(path)
    if not content.strip():
        raise InputError(path, "is empty", "record it again, or remove it")
    facts, comments = {}, 0
    for line in content.splitlines():
        if not line.lstrip().startswith(b"#"):
            break
        comments += 1
        said = re.match(rb"#\s*(\w+)\s*[:=]\s*([0-9./]+)", line.lstrip())
        if said:
            facts[said[1].decode()] = said[2].decode()
    head = content.splitlines()[comments : comments + 1]
    delimiter = "\t" if path.suffix.lower() == ".tsv" or (head and b"\t" in head[0]) else ","
    if head and b";" in head[0] and b"," not in head[0]:
        delimiter = ";"
    cells = [c.strip().strip('"') for c in (head[0].decode("utf-8", "replace") if head else "").split(delimiter)]
    named = not all(_is_number(c) for c in cells)
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            pyarrow.csv.ReadOptions(
                skip_rows=comments, column_names=None if named else [f"c{i}" for i in range(len(cells))]
            ),
            pyarrow.csv.ParseOptions(delimiter=delimiter),
            pyarrow.csv.ConvertOptions(
                null_values=["", "NaN", "nan", "NA", "null", "None"], strings_can_be_null=False,
                true_values=["true", "True", "TRUE"], false_values=["false", "False", "FALSE"],
            ),
        )  # fmt: skip
    except pa.ArrowException as error:
        raise InputError(
            path, f"is not a table: {str(error).splitlines()[0]}", "every row needs as many cells"
        ) from error
    columns, more = _columns(path, table, problems)
    return columns, {**more, **facts}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lower() in ("true", "false")
    return True


def _columns(path: Path, table: pa.Table, problems: Problems) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns as arrays: numbers (n,), lists of numbers (n, k), instants as int64 ns; the rest is named and left."""
    columns, left = {}, []
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        kind = column.type
        if pa.types.is_timestamp(kind):
            instants = column.cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy(False)
            columns[f"{name}_ns" if _TIME.match(name) else name] = instants
        elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
            width = len(column[0]) if len(column) else 0
            flat = column.flatten()
            if column.null_count or len(flat) != width * len(column) or not _is_numeric(flat.type):
                left.append(name)
            else:
                columns[name] = flat.to_numpy(False).reshape(len(column), width)
        elif _is_numeric(kind):
            if column.null_count:  # a missing number is NaN, in a float wide enough for the others
                wide = pa.float64() if not pa.types.is_floating(kind) else kind
                column = column.cast(wide).fill_null(float("nan"))
            columns[name] = column.to_numpy(False)
        elif not pa.types.is_null(kind):
            left.append(name)
    if left:
        problems(f"{path}: columns {', '.join(left)} are not numbers (left out; the others are kept)")
    metadata = {k.decode(): v.decode("utf-8", "replace") for k, v in (table.schema.metadata or {}).items()}
    return columns, {k: v for k, v in metadata.items() if k in RATE_NAMES}


def _is_numeric(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _clock(
    path: Path, columns: dict[str, np.ndarray], facts: Mapping[str, Any], rules: Mapping[str, Any]
) -> tuple[Clock, dict[str, np.ndarray]]:
    """The table's clock, and its columns without the one that told it."""
    lengths = {len(v) for v in columns.values()}
    offset_ns = int(rules.get("offset_ns", 0)) + round(Fraction(str(rules.get("offset_s", 0))) * NS)
    named = rules.get("time")
    if named is not None and named not in columns:
        raise InputError(path, f"has no column {named}, which episode.toml names", f"it has {', '.join(columns)}")
    time = named or next((n for n in columns if _TIME.match(n) and columns[n].ndim == 1), None)
    if time is not None and len(columns[time]):
        rest = {n: v for n, v in columns.items() if n != time}
        wrong = [n for n, v in rest.items() if len(v) != len(columns[time])]
        if wrong:
            raise InputError(path, f"{wrong[0]} has {len(rest[wrong[0]])} rows, {time} has {len(columns[time])}")
        return _from_column(path, time, columns[time], rules.get("unit"), offset_ns), rest
    rate = rules.get("rate_hz")
    for name in RATE_NAMES:
        rate = rate if rate is not None else facts.get(name)
    if not lengths or max(lengths) == 0:
        raise InputError(path, "holds no rows", "record it again, or remove it")
    if rate is None:
        raise InputError(
            path,
            "says neither when its rows were taken nor at what rate",
            f'add a column time_s, or to episode.toml: [files."{path.name}"] rate_hz = 50',
        )
    if len(lengths) > 1:
        raise InputError(path, f"its arrays have {sorted(lengths)} rows", "arrays of one file share one clock")
    try:
        exact = Fraction(str(rate)).limit_denominator(1_000_000)
        assert exact > 0
    except (ValueError, ZeroDivisionError, AssertionError) as error:
        raise InputError(path, f"its rate is {rate!r}", "a rate is a positive number of rows a second") from error
    return Clock.regular(exact, lengths.pop(), offset_ns), columns


def _from_column(path: Path, name: str, values: np.ndarray, unit: str | None, offset_ns: int) -> Clock:
    if unit is not None and unit not in _UNIT_NS:
        raise InputError(path, f"its unit of time is {unit!r}", f"one of {', '.join(_UNIT_NS)}")
    said = _TIME.match(name)
    unit = unit or (said[1].lower() if said and said[1] else None)
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(f"{path} row {bad[0] + 1}", f"its time {name} is {values[bad[0]]}", "remove the row")
        scale = _UNIT_NS[unit or "s"]
        whole = np.floor(values.astype(np.float64))  # the fraction alone is rounded: no digit of a large time is lost
        times = whole.astype(np.int64) * scale + np.rint((values.astype(np.float64) - whole) * scale).astype(np.int64)
    else:
        largest = int(np.abs(values.astype(np.int64)).max())
        guess = "ns" if largest > 10**17 else "us" if largest > 10**14 else "ms" if largest > 10**11 else None
        if (unit or guess) is None:
            raise InputError(path, f"its time {name} is whole numbers of an unknown unit", f"name it {name}_ms, say")
        times = values.astype(np.int64) * _UNIT_NS[unit or guess or "ns"]
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        at = int(back[0]) + 2
        raise InputError(f"{path} row {at}", f"its time {name} does not advance", "sort the rows, or remove the row")
    times = times + offset_ns
    if len(times) > 2:  # an even clock within what its digits can say is regular
        step = Fraction(int(times[-1] - times[0]), len(times) - 1)
        rate = (Fraction(NS) / step).limit_denominator(1001)
        return Clock.of_times(times, rate, tolerance_ns=1)
    return Clock.irregular(times)


def _tracks(columns: Mapping[str, np.ndarray], clock: Clock, rules: Mapping[str, Any]) -> list[Track]:
    """Scalar columns gathered by kind and type, wide ones on their own."""
    actions = set(rules.get("actions", ()))
    gathered: dict[str, list[tuple[str, np.ndarray]]] = {}
    wide: dict[str, np.ndarray] = {}
    kinds = {name: "action" if name in actions else _kind(name) for name in columns}
    flavours: dict[str, set[str]] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flavours.setdefault(kinds[name], set()).add(_FLAVOUR[values.dtype.kind])
    for name, values in columns.items():
        kind = kinds[name]
        if values.ndim == 1:
            flavour = _FLAVOUR[values.dtype.kind] if len(flavours[kind]) > 1 else ""
            gathered.setdefault(kind + flavour, []).append((name, values))
        else:
            label = name if name.split(".")[0] != kind else name.split(".", 1)[-1]
            wide[f"{kind}.{label}" if label != kind else kind] = values.reshape(len(values), -1)
    tracks = []
    for name, parts in gathered.items():
        values = np.stack([v for _, v in parts], 1)
        tracks.append(_track(name, values, clock, tuple(n for n, _ in parts)))
    tracks += [_track(n, v, clock, tuple(f"{i}" for i in range(v.shape[1]))) for n, v in wide.items()]
    return tracks


def _kind(name: str) -> str:
    low = name.lower().replace("observation.", "")
    return next((kind for kind, starts in _GROUPS if low.startswith(starts)), "proprio")


def _track(name: str, values: np.ndarray, clock: Clock, channels: tuple[str, ...]) -> Track:
    values = np.ascontiguousarray(values)
    return Track.of_array(name, values, clock, channels=channels, info={"dtype": str(values.dtype)})


def write_parquet(path: Path, clock: Clock, tracks: Mapping[str, tuple[np.ndarray, tuple[str, ...]]]) -> None:
    """Tracks of one clock as one table: `time_ns` exact, then a column for each channel, its dtype kept.

    tracks: values (n, C) and channel names by track name. The metadata says which columns are which track's.
    """
    columns: dict[str, Any] = {"time_ns": clock.times_ns}
    map_: dict[str, list[str]] = {}
    for name, (values, channels) in tracks.items():
        names = [c if c not in columns and len(tracks) == 1 else f"{name}.{c}" for c in channels]
        map_[name] = names
        for i, column in enumerate(names):
            columns[column] = np.ascontiguousarray(values[:, i])
    metadata = {"tracks": json.dumps(map_)} | ({"rate_hz": str(clock.rate)} if clock.rate else {})
    with replaced(path) as temporary:
        pyarrow.parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)
