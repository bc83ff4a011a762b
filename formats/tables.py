"""Numbers from CSV, Parquet, NPZ and NPY: one or more tracks, each with its own dtype, channels and clock.

How a table says its time, in this order (the first that there is):
1. `time`, or else `rate_hz`, that `episode.toml` says for the file, with `unit`, `offset_s` or `offset_ns`;
2. a column (or array) named t, time, timestamp, stamp, ts, optionally with _s, _ms, _us or _ns, which is its unit;
   without one, floats are seconds, and integers are taken by their size (above 1e17 ns, 1e14 us, 1e11 ms);
   dates and times of day, as ISO 8601 has them, are known as such;
3. a rate named fps, hz, rate, rate_hz, control_hz, control_freq, frequency or sample_rate: a single value in an
   .npz, Parquet metadata, or `# rate_hz: 50` in a comment line at the top of a CSV.
Else an InputError says how to give it.

How columns become tracks: a column that begins with `action` or `cmd` belongs to `action`, one that begins with
`reward` to `reward`, all others to `proprio`; list columns and the arrays of an .npz are tracks of their own
(`proprio.qpos`), and pictures are video (`images`). Columns of one track that differ in type (boolean, integer, float)
are split, so that each keeps its own: `proprio`, `proprio.flags`, `proprio.counts`; where two integer or two float
types meet, each is called by its name: `proprio.float32`. A list column with empty rows has a clock of its own, the
instants of the rows that hold a list. A column of words is a text track, one span for each
stretch of rows that say the same. A Parquet that pantok wrote gives back the very tracks that it was written from.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pantok.errors import InputError
from pantok.experience import Clock, Track
from pantok.formats.files import Problems, replaced
from pantok.formats.table_clock import UNIT_NS, clock_of_column, clock_of_stamps, offset_of, rate_of, time_name
from pantok.formats.table_columns import Columns, listed, read_columns
from pantok.formats.table_names import kind_of, labels

SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".npz", ".npy"})
_FLAVOUR = {"b": ".flags", "i": ".counts", "u": ".counts", "f": ""}
_PICTURES = {"video", "image", "images", "rgb", "frames", "pixels", "values"}
"""Names of arrays of pictures that say no more than that they are pictures."""
_ROWS = 1 << 18  # of a row group that is written
Shown = Callable[..., Track]
"""Makes the video track of what a table holds under some name, given the track's name and its `clock`."""


def read_table(
    path: Path,
    rules: Mapping[str, Any] | None = None,
    problems: Problems = lambda line: None,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks of a table. rules: what episode.toml says of the file. size, fps: of arrays of pictures.

    Raises InputError for a file that is no table, holds no rows, or whose time is unknown or does not advance.
    problems: called with one line for each thing that was left out.
    """
    return tracks_of(path, read_columns(path, problems), rules or {}, problems, size=size, fps=fps)


def tracks_of(
    path: Path,
    columns: Columns,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks that `columns` make, whatever file `path` they were read from; else as `read_table`. Empties them."""
    clock = _clock(path, columns, rules, problems)
    actions = set(rules.get("actions", ()))
    for key, what in (("actions", "an action"), ("pictures", "pictures")):
        unknown = sorted(set(rules.get(key, ())) - set(columns.numbers) - set(columns.encoded))
        if unknown:
            raise InputError(path, f"has no column {unknown[0]}, {what} by episode.toml", _there_are(columns.numbers))
    shown = _shown(path, columns, rules.get("pictures"), problems, size, fps)
    tracks = _written(columns, clock) or _tracks(columns, clock, actions, shown, problems)
    names = labels(dict.fromkeys([*columns.words, *columns.said], ""), ()) if columns.grouped else {}
    tracks += [t for name, words in columns.words.items() for t in spoken(names.get(name, name), words, clock)]
    end_ns = clock.start_ns + clock.duration_ns
    tracks += [_spans(names.get(name, name), [text], [clock.start_ns], [end_ns]) for name, text in columns.said.items()]
    if not tracks:
        raise InputError(path, "holds neither numbers nor words beside its time", "check its columns")
    return tracks


def _there_are(names: Iterable[str]) -> str:
    return f"it has {listed(names)}"


def _clock(path: Path, columns: Columns, rules: Mapping[str, Any], problems: Problems) -> Clock:
    """The table's clock; takes the column that told it, and arrays that do not go with it, out of `columns`."""
    numbers = columns.numbers
    whole = [(n, v) for table in (numbers, columns.words, columns.encoded) for n, v in table.items()]
    counts = [len(v) for n, v in whole if n not in columns.rows] or [len(v) for _, v in whole]
    if max(counts, default=0) == 0:
        raise InputError(path, "holds no rows", "record it again, or remove it")
    offset_ns = offset_of(rules)
    named, unit = rules.get("time"), rules.get("unit")
    if named is not None and named not in numbers:
        what = "holds words" if named in columns.words else f"has no column {named}"
        raise InputError(path, f"{what} where episode.toml says time = {named!r}", _there_are(numbers))
    if unit is not None and unit not in UNIT_NS:
        raise InputError(path, f"its unit of time is {unit!r}", f"one of {', '.join(UNIT_NS)}")
    time = named or time_name({n: v for n, v in numbers.items() if n not in columns.rows})
    rate = rate_of(path, {"rate_hz": rules.get("rate_hz")})
    if time is None and rate is None and rate_of(path, columns.facts) is None:
        time = time_name(numbers, doubtful=True)  # whose fault will be named, if it has one
    if time is not None and (named is not None or rate is None):
        values = numbers.pop(time)
        if values.ndim > 1 and values.size != len(values):
            raise InputError(path, f"its time {time} has {values.shape[1]} columns", "time is one number a row")
        unit = "ns" if time in columns.instants else unit
        told = rate_of(path, columns.facts) if columns.tracks else None
        clock = clock_of_column(path, time, values, unit, () if told is None else (told,))
    else:
        if time is not None:
            del numbers[time]  # episode.toml gives a rate in its stead
        rate = rate or rate_of(path, columns.facts)
        if rate is None:
            raise InputError(
                path,
                "says neither when its rows were taken nor at what rate",
                f'add a column time_s, or to episode.toml: [files."{path.name}"] rate_hz = 50',
            )
        clock = Clock.regular(rate, _rows(path, counts) if columns.count is None else columns.count)
    _leave_out_others(path, columns, clock.count, problems)
    if not offset_ns:
        return clock
    if clock.rate is not None:
        return Clock.regular(clock.rate, clock.count, clock.start_ns + offset_ns)
    return Clock.irregular(clock.times_ns + offset_ns)


def _rows(path: Path, lengths: Sequence[int]) -> int:
    """How many rows most arrays have; actions may be one fewer than what was seen before and after them."""
    votes = {n: sum(length in (n, n - 1) for length in lengths) for n in lengths if n}
    most = [n for n, v in votes.items() if v == max(votes.values())]
    if len(most) > 1:
        raise InputError(path, f"its arrays have {sorted(set(lengths))} rows", "add an array time_s with their times")
    return most[0]


def _leave_out_others(path: Path, columns: Columns, count: int, problems: Problems) -> None:
    where = f"{path} {columns.part}".rstrip()
    others: dict[int, list[str]] = {}
    tables: tuple[dict[str, Any], ...] = (columns.numbers, columns.words, columns.encoded)
    for table in tables:
        for name, values in list(table.items()):
            rows = columns.rows.get(name)
            if len(values) in (count, count - 1) if rows is None else rows[-1] < count:
                continue
            others.setdefault(len(values) if rows is None else int(rows[-1]) + 1, []).append(name)
            del table[name]
    for length, names in others.items():
        have = f"{listed(names)} {'has' if len(names) == 1 else 'have'} {length} rows"
        problems(f"{where}: {have}, not {count} (left out; the others are kept)")


def _shown(
    path: Path, columns: Columns, said: Sequence[str] | None, problems: Problems, size: int | None, fps: Fraction | None
) -> dict[str, Shown]:
    """What is video, by name: the arrays that episode.toml says are pictures, or else those that are, and the pictures
    of files. Large arrays that are none, as it seems, are named: they cost a channel a number."""
    found: dict[str, Shown] = {}
    for name, values in list(columns.numbers.items()):
        if values.ndim < 3:
            continue
        from pantok.formats.images import MANY, are_pictures, pictures_track, scale_of

        asked = said is not None and name in said
        try:
            scale = scale_of(values, asked or are_pictures(name)) if said is None or asked else None
        except InputError as error:  # it lies in the file still, and not all of it can be read
            problems(f"{error}; it is left out")
            del columns.numbers[name]
            continue
        if scale is not None:
            found[name] = partial(pictures_track, values=values, scale=scale, problems=problems, size=size, fps=fps)
        elif asked:
            raise InputError(
                path, f"its {name}, pictures by episode.toml, are {values.dtype} {values.shape}",
                "pictures are (rows, height, width), or with 1, 3 or 4 channels, of 0 to 1 or 0 to 255, none missing",
            )  # fmt: skip
        elif said is None and (count := math.prod(values.shape[1:])) >= MANY:
            problems(
                f"{path}: {name} is not read as pictures but as {count} channels of numbers (if it is pictures, say so "
                f'in episode.toml: [files."{path.name}"] pictures = ["{name}"]; if not, pictures = [])'
            )
    for name, cells in columns.encoded.items():
        from pantok.formats.images import encoded_track

        found[name] = partial(encoded_track, cells=cells, problems=problems, size=size, fps=fps)
    return found


def _tracks(
    columns: Columns, clock: Clock, actions: set[str], shown: Mapping[str, Shown], problems: Problems
) -> list[Track]:
    """Scalar columns gathered by kind and type, wide ones on their own, pictures as video."""
    every = (*columns.numbers, *columns.encoded)
    kinds = {name: "action" if name in actions else kind_of(name, columns.grouped) for name in every}
    called = labels(kinds, shown) if columns.grouped else {name: name for name in every}
    flat = {n: columns.numbers.pop(n) for n in [n for n, v in columns.numbers.items() if v.ndim == 1]}
    types: dict[str, set[np.dtype]] = {}
    lengths: dict[tuple[str, np.dtype], set[int]] = {}
    for name, values in flat.items():
        types.setdefault(kinds[name], set()).add(values.dtype)
        lengths.setdefault((kinds[name], values.dtype), set()).add(len(values))
    suffixes = {kind: flavours(mates) for kind, mates in types.items()}
    gathered: dict[str, dict[str, np.ndarray]] = {}
    for name in list(flat):
        values = flat.pop(name)
        mixed = len(lengths[kinds[name], values.dtype]) > 1
        short = ".steps" if mixed and len(values) != clock.count else ""  # of what led from one row to the next
        beside = gathered.setdefault(kinds[name] + suffixes[kinds[name]][values.dtype] + short, {})
        channel = called[name].removeprefix(f"{kinds[name]}.") if called[name] != name else name
        beside[name if channel in beside else channel] = values
    tracks = []
    for name, parts in gathered.items():
        channels = tuple(parts)
        tracks.append(numeric_track(name, side_by_side(parts), clock, channels))
    for name in (*columns.numbers, *columns.encoded):
        rows, wide = columns.rows.get(name), columns.numbers.get(name)
        count = len(columns.encoded[name] if wide is None else wide)
        mine = clock.cut(0, count) if rows is None else clock_of_stamps(clock.times_ns[rows], 1)
        if name in shown:
            try:
                tracks.append(shown[name](video_name(called[name]), clock=mine))
            except InputError as error:
                problems(f"{error}; it is left out")
        elif wide is not None and wide.size:
            kind = kinds[name]
            label = called[name]
            label = label if label.split(".")[0] != kind else label.split(".", 1)[-1]
            if label == f"{kind}s" and kind not in gathered and kind not in called.values():
                label = kind  # `actions`, as most files of demonstrations have it
            wide = np.asarray(wide).reshape(count, -1)
            said = columns.channels.get(name, ())
            channels = said if len(set(said)) == wide.shape[1] else tuple(str(i) for i in range(wide.shape[1]))
            tracks.append(numeric_track(f"{kind}.{label}" if label != kind else kind, wide, mine, channels))
    return tracks


def video_name(name: str) -> str:
    """The track of the pictures that a table or dataset has under a name."""
    return "video" if name in _PICTURES else name if name.startswith("video.") else f"video.{name}"


def flavours(types: Iterable[np.dtype]) -> dict[np.dtype, str]:
    """What the name of a track is followed by for each type of its columns, where there are several."""
    mates = set(types)
    kinds = Counter(_FLAVOUR[mate.kind] for mate in mates)
    plain = {mate: _FLAVOUR[mate.kind] if len(mates) > 1 else "" for mate in mates}
    return {mate: f".{mate}" if kinds[_FLAVOUR[mate.kind]] > 1 else plain[mate] for mate in mates}


def side_by_side(parts: dict[str, np.ndarray]) -> np.ndarray:
    """(n, C), column after column, each let go of when it is in."""
    first = next(iter(parts.values()))
    values = np.empty((len(first), len(parts)), first.dtype)
    for c, name in enumerate(list(parts)):
        values[:, c] = parts.pop(name)
    del first
    pa.default_memory_pool().release_unused()
    return values


def numeric_track(
    name: str, values: np.ndarray, clock: Clock, channels: tuple[str, ...], units: tuple[str, ...] = (), **info: Any
) -> Track:
    """A track in memory. values: (n, C) of one type; they may be fewer than the instants of the clock."""
    values = np.ascontiguousarray(values)
    facts = {"dtype": str(values.dtype), **info}
    return Track.of_array(name, values, clock.cut(0, len(values)), channels=channels, units=units, info=facts)


def _written(columns: Columns, clock: Clock) -> list[Track]:
    """The tracks of a file that `write_parquet` wrote."""
    return [
        numeric_track(name, side_by_side({c: columns.numbers[c] for c in parts.values()}), clock, tuple(parts))
        for name, parts in columns.tracks.items()
    ]


def spoken(name: str, words: np.ndarray, clock: Clock) -> list[Track]:
    """A text track: one span for each stretch of rows that say the same; rows that say nothing are none."""
    plain = ["" if w is None else str(w) for w in words]
    begins = [i for i, w in enumerate(plain) if w and (i == 0 or plain[i - 1] != w)]
    if not begins:
        return []
    times = [*clock.times_ns.tolist(), clock.start_ns + clock.duration_ns]
    ends = [next((j for j in range(i, len(plain)) if plain[j] != plain[i]), len(plain)) for i in begins]
    return [_spans(name, [plain[i] for i in begins], [times[i] for i in begins], [times[j] for j in ends])]


def _spans(name: str, said: list[str], begins_ns: list[int], ends_ns: list[int]) -> Track:
    texts = np.empty(len(said), object)
    texts[:] = said
    at = Clock.irregular(np.array(begins_ns, np.int64))
    return Track.of_array("text" if name == "text" else f"text.{name}", texts, at, info={"ends_ns": ends_ns})


def write_parquet(path: Path, clock: Clock, tracks: Mapping[str, tuple[np.ndarray, tuple[str, ...]]]) -> None:
    """Tracks of one clock as one table: `time_ns` exact, then a column for each channel, its dtype kept.

    tracks: values (n, C) and channel names by track name. The metadata says which column is which channel, and the
    rate of a regular clock, so that `read_table` gives back the same tracks. Raises OutputError.
    """
    columns: dict[str, np.ndarray] = {"time_ns": clock.times_ns}
    map_: dict[str, dict[str, str]] = {}
    for name, (values, channels) in tracks.items():
        assert len(set(channels)) == len(channels) == values.shape[1], (name, channels, values.shape)
        alone = len(tracks) == 1 and "time_ns" not in channels
        map_[name] = {c: c if alone else f"{name}.{c}" for c in channels}
        columns |= {column: values[:, i] for i, column in enumerate(map_[name].values())}
    metadata = {"tracks": json.dumps(map_)} | ({"rate_hz": str(clock.rate)} if clock.rate else {})
    types = {column: pa.from_numpy_dtype(values.dtype) for column, values in columns.items()}
    schema = pa.schema(types, metadata)
    with replaced(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for first in range(0, max(clock.count, 1), _ROWS):  # no more than some rows are there twice
            part = [np.ascontiguousarray(values[first : first + _ROWS]) for values in columns.values()]
            writer.write_table(
                pa.table([pa.array(v, t) for v, t in zip(part, types.values(), strict=True)], schema=schema)
            )
