"""Columns that lie in groups with times of their own, as one table for each clock.

What is unusual: a file that holds groups may be several tables. Where a group has a time of its own
(`imu/timestamp` beside `imu/acc`), what lies in it is read by that time. What lies in none goes with the group that
has as many rows, if there is one, else by the rate of the file. Groups that have the very same times are one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats.files import Problems
from pantok.formats.table_clock import TIME_NAME, is_flat, tells_time
from pantok.formats.table_columns import Columns
from pantok.formats.tables import tracks_of

_BY_NAME = ("numbers", "words", "encoded", "rows")
"""What of Columns goes by the names of columns."""


def tracks_by_clock(
    path: Path,
    columns: Columns,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks of each table that the columns are; one whose time is unknown is left out if others are known.

    Else as `tracks_of`. Raises InputError if the time of none is known.
    """
    tables = by_clock(columns, rules)
    tracks: dict[str, Track] = {}
    failed: list[InputError] = []
    for group, table in tables.items():
        own = {n for names in (table.numbers, table.encoded) for n in names}
        others = {n for t in tables.values() if t is not table for names in (t.numbers, t.encoded) for n in names}
        mine = {
            key: [n for n in value if n in own or n not in others] if key in ("actions", "pictures") else value
            for key, value in rules.items()
        }
        try:
            made = tracks_of(path, table, mine, problems, size=size, fps=fps)
        except InputError as error:
            failed.append(error)
            continue
        for track in made:
            name = track.name
            if name in tracks:
                name = ".".join([track.kind, *group.split("/"), *track.name.split(".")[1:]])
            tracks[name] = track.named(name)
    if not tracks:
        raise failed[0]
    for fault in failed:
        problems(f"{fault}; what goes by that time is left out")
    return list(tracks.values())


def by_clock(columns: Columns, rules: Mapping[str, Any]) -> dict[str, Columns]:
    """The tables that `columns` are, by the group whose time they go by; "" is what goes by the time or rate of all.

    rules: what episode.toml says; a time or a rate there is that of all.
    """
    timed = {} if rules.get("time") or rules.get("rate_hz") else _timed(columns.numbers)
    if not timed or set(timed) == {""}:
        return {"": columns}
    same: dict[bytes, str] = {}
    stands_for = {group: same.setdefault(_key(columns.numbers[name]), group) for group, name in timed.items()}
    for group, name in timed.items():
        if stands_for[group] != group:
            del columns.numbers[name]  # the same times once more
    names = [name for kind in _BY_NAME for name in getattr(columns, kind)]
    home = {name: _home(name, timed) for name in names}
    if "" not in timed:
        held = [(n, len(v)) for kind in _BY_NAME[:3] for n, v in getattr(columns, kind).items()]
        rest = Counter(count for n, count in held if home[n] == "" and n not in columns.rows)
        if columns.count is not None and columns.count in rest:  # the rows of actions, whatever else there is
            rest = Counter({n: rest[n] for n in (columns.count, columns.count - 1)})
        rows = {g: len(columns.numbers[t]) for g, t in timed.items() if stands_for[g] == g}
        near = max(rows, key=lambda g: rest[rows[g]] + rest[rows[g] - 1])
        stands_for[""] = near if 2 * (rest[rows[near]] + rest[rows[near] - 1]) >= rest.total() > 0 else ""
    out: dict[str, Columns] = {}
    for group in dict.fromkeys(stands_for[g] for g in ("", *timed)):
        table = replace(columns, said={} if out else columns.said)  # words for the whole are said once
        for kind in _BY_NAME:
            setattr(table, kind, {n: v for n, v in getattr(columns, kind).items() if stands_for[home[n]] == group})
        if any(getattr(table, kind) for kind in _BY_NAME):
            out[group] = table
    return out


def _timed(numbers: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The name of the time of each group that has one, outer groups first."""
    found: dict[str, str] = {}
    for name in sorted(numbers, key=lambda name: name.count("/")):
        group, _, last = name.rpartition("/")
        if TIME_NAME.match(last) and group not in found and is_flat(numbers[name]) and tells_time(name, numbers[name]):
            found[group] = name
    return found


def _home(name: str, timed: Mapping[str, str]) -> str:
    """The innermost group with a time that a column lies in; "" if there is none."""
    group = name
    while group:
        group = group.rpartition("/")[0]
        if group in timed:
            return group
    return ""


def _key(times: np.ndarray) -> bytes:
    return str(times.dtype).encode() + times.tobytes()
