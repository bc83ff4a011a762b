"""The clock of a table: from a column, from a rate, from `episode.toml`; or an error that says how to give it.

What is unusual: a column of stamps is read by the digits that it holds. Stamps are decimals that somebody rounded:
`0.033` stands for 1/30 s, and as float32 `0.02` is 0.0199999996. So each column has a *rounding*, the distance between
neighbouring values that it could hold (its last decimal, or three times the spacing of its largest float where that is
wider; 2 ns at least), and it is taken for a regular clock if and only if some regular clock, rounded so, gives exactly
these stamps. The largest deviation from the clock that is kept stays below the rounding; rounding coarser than a
sixteenth of the step proves nothing, and such stamps (0, 1, 3 s) stay as they are. An irregular clock keeps every
stamp.

    >>> clock_of_stamps(np.array([0.0, 0.033, 0.067, 0.1, 0.133]), NS).rate
    Fraction(30, 1)
    >>> clock_of_stamps(np.array([0.0, 0.033, 0.069, 0.1, 0.133]), NS).rate is None
    True
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Clock

RATE_NAMES = ("rate_hz", "fps", "hz", "rate", "control_hz", "control_freq", "frequency", "frequency_hz", "sample_rate")
TIME_NAME = re.compile(r"^(?:t|time|times|timestamp|timestamps|stamp|ts)(?:_(s|sec|ms|us|ns))?$", re.IGNORECASE)
UNIT_NS = {"s": NS, "sec": NS, "ms": 1_000_000, "us": 1000, "ns": 1}
_FINE = 16  # roundings that a step has to hold before rounded stamps may be taken for a regular clock
_LARGEST_NS = 2**62  # the year 2116; beyond it sums of times could overflow
_SIZES = ((10**17, "ns"), (10**14, "us"), (10**11, "ms"))  # integers above these are instants since 1970 in that unit


def time_name(columns: Mapping[str, np.ndarray], doubtful: bool = False) -> str | None:
    """The column that is time by its name: one number a row that is no truth value.

    Of a name with slashes the last word counts (`obs/time`), the one in the fewest groups first, if its numbers could
    be times; doubtful: even if they could not. Where none is so called, it is what rises in a group that is: of DROID's
    `observation/timestamp/robot_state/read_start` and the many beside it, when the robot was read, and when that began.
    """
    flat = [n for n, v in columns.items() if is_flat(v)]
    named = [name for name in flat if TIME_NAME.match(name.rsplit("/", 1)[-1])]
    named = [name for name in named if doubtful or "/" not in name or tells_time(name, columns[name])]
    if named:
        return min(named, key=lambda name: name.count("/"))
    within = [n for n in flat if any(map(TIME_NAME.match, n.split("/")[:-1])) and tells_time(n, columns[n])]
    return min(within, key=lambda name: ("robot" not in name, not name.endswith("start")), default=None)


def is_flat(values: np.ndarray) -> bool:
    """Whether it is one number a row, and no truth value."""
    return values.dtype.kind != "b" and (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1))


def tells_time(name: str, values: np.ndarray) -> bool:
    """Whether numbers, one a row, could be times: each after the one before, of a unit that is known."""
    flat = values.reshape(len(values))
    if not len(flat) or not np.isfinite(flat).all() or not (flat[1:] > flat[:-1]).all():
        return False
    said = TIME_NAME.match(name.rsplit("/", 1)[-1])
    return flat.dtype.kind == "f" or float(flat[-1]) > _SIZES[-1][0] or bool(said and said[1])


def rate_of(path: Path, facts: Mapping[str, Any]) -> Fraction | None:
    """Rows a second that a file says, exact (`30000/1001` stays so). Raises InputError if it is no rate."""
    for name in RATE_NAMES:
        if facts.get(name) is not None:
            said = facts[name]
            try:
                rate = Fraction(str(said)).limit_denominator(1_000_000)
            except (ValueError, ZeroDivisionError):
                rate = Fraction(0)
            if isinstance(said, bool) or not Fraction(1, 1_000_000) <= rate <= NS:
                raise InputError(path, f"its {name} is {said!r}", "a rate is a positive number of rows a second")
            return rate
    return None


def offset_of(rules: Mapping[str, Any]) -> int:
    """Nanoseconds that episode.toml adds to the times of a file."""
    return int(rules.get("offset_ns", 0)) + round(Fraction(str(rules.get("offset_s", 0))) * NS)


def clock_of_column(
    path: Path, name: str, values: np.ndarray, unit: str | None, hints: Iterable[Fraction] = ()
) -> Clock:
    """The clock that the column `name` tells. values: (n,) integers or floats, n > 0. Raises InputError.

    unit: s, ms, us or ns; None: what the name says; else floats are seconds and integers go by their size.
    """
    said = TIME_NAME.match(name.rsplit("/", 1)[-1])
    unit = unit or (said[1].lower() if said and said[1] else None)
    values = values.reshape(len(values))
    if values.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(f"{path} row {bad[0] + 1}", f"its time {name} is {values[bad[0]]}", "remove the row")
    largest = max(abs(float(values.max())), abs(float(values.min())))
    if unit is None and values.dtype.kind != "f":
        unit = next((u for size, u in _SIZES if largest > size), None)
        if unit is None:
            raise InputError(
                path,
                f"its time {name} is whole numbers of an unknown unit",
                f'name it {name}_ms, say, or in episode.toml: [files."{path.name}"] unit = "ms"',
            )
    scale = UNIT_NS[unit or "s"]
    if largest * scale > _LARGEST_NS:
        raise InputError(path, f"its time {name} reaches {largest:g} {unit or 's'}", "check its unit")
    times, _ = _instants(values, scale)
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        row = int(back[0]) + 2
        goes = "jumps back" if times[row - 1] < times[row - 2] else "stands still"
        raise InputError(
            f"{path} row {row}",
            f"its time {name} {goes} ({values[row - 2]} then {values[row - 1]})",
            "sort or remove rows, or give rate_hz in episode.toml instead",
        )
    return clock_of_stamps(values, scale, hints)


def clock_of_stamps(values: np.ndarray, scale_ns: int, hints: Iterable[Fraction] = ()) -> Clock:
    """Regular if the stamps are those of a regular clock but for their rounding, else irregular.

    values: (n,) integers or floats that rise, in units of `scale_ns`. hints: rates that are tried first.
    """
    times, rounding = _instants(values, scale_ns)
    count = len(times)
    steps = np.diff(times)
    if count > 2 and (steps == steps[0]).all() and int(steps[0]) < NS * 1000:
        return Clock.regular(Fraction(NS, int(steps[0])), count, int(times[0]))
    span = int(times[-1] - times[0]) if count else 0
    for rate in (*hints, *(_rates(count, span, rounding) if count > 2 else ())):
        clock = Clock.regular(rate, count, int(times[0]) if count else 0)
        away = times - clock.times_ns
        if not away.any():
            return clock
        # The clock, or the same clock a little earlier or later, is within half a rounding of every stamp.
        fits = 2 * int(np.abs(away).max()) <= rounding + 2 or int(away.max() - away.min()) < rounding
        if count > 2 and rounding * _FINE * rate <= NS and fits:
            return clock
    return Clock.irregular(times)


def _instants(values: np.ndarray, scale_ns: int) -> tuple[np.ndarray, int]:
    """Nanoseconds of stamps, int64 (n,), and their rounding."""
    if values.dtype.kind != "f":
        times = values.astype(np.int64) * scale_ns
        unit = 1
        while unit < 1000 * NS and len(times) and times.any() and not (times % (unit * 10)).any():
            unit *= 10
        return times, max(unit, 2)
    exact = values.astype(np.float64)
    spacing = float(np.spacing(np.abs(values).max(initial=0)))
    digits = 0
    while 10**digits <= scale_ns and len(values):
        if 10.0**-digits < 2 * spacing:
            break  # the floats are coarser than this decimal, which would therefore always fit
        decimals = np.rint(exact * 10.0**digits)
        if np.abs(decimals).max() < 2**53 and ((decimals / 10.0**digits).astype(values.dtype) == values).all():
            unit = scale_ns // 10**digits
            return decimals.astype(np.int64) * unit, max(unit, 2)
        digits += 1
    whole = np.floor(exact)  # the fraction alone is rounded: no digit of a large time is lost
    times = whole.astype(np.int64) * scale_ns + np.rint((exact - whole) * scale_ns).astype(np.int64)
    # The nearest float is half a spacing off; a decimal that was rounded before, or the step that the count was
    # multiplied with, one more.
    return times, max(math.ceil(3 * spacing * scale_ns), 2)


def _rates(count: int, span_ns: int, off_ns: int) -> Iterator[Fraction]:
    """Rates at which `count` samples take `span_ns`, give or take `off_ns`; the likeliest first."""
    if span_ns <= off_ns:
        return
    low, high = Fraction((count - 1) * NS, span_ns + off_ns), Fraction((count - 1) * NS, span_ns - off_ns)
    middle = Fraction((count - 1) * NS, span_ns)
    for rate in (Fraction(round(middle)), Fraction(round(middle * Fraction(1001, 1000)) * 1000, 1001)):
        if rate > 0 and low <= rate <= high:
            yield rate
    simplest = _simplest(low, high)
    if simplest.numerator <= NS and simplest.denominator <= NS:
        yield simplest


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """The fraction of the smallest denominator in [low, high], 0 < low <= high (continued fractions)."""
    whole = low.numerator // low.denominator
    if low == whole:
        return Fraction(whole)
    if whole + 1 <= high:
        return Fraction(whole + 1)
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))
