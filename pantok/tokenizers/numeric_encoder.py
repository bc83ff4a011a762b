"""Rows of numbers into codes: channels planned, their residuals spelled in pieces, digits where a bound asks for them.

What is unusual: it holds a track's rows until `finish`: which grid and order a channel takes is told from the whole of
it. Beside the rows it holds 3 or 4 bytes a number, whatever the length, as channels are planned one after another and
runs spelled some at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pantok.errors import InputError
from pantok.experience import Block, Clock, Track
from pantok.stream import LevelCodes, TrackTokens, smallest_dtype
from pantok.tokenizers.base import Encoder
from pantok.tokenizers.numeric_channel import Planned, plan_channels

if TYPE_CHECKING:
    from pantok.tokenizers.numeric import NumericOptions, NumericTokenizer

_AT_ONCE = 1 << 19
"""Numbers whose runs are spelled together."""


class NumericEncoder(Encoder):
    def __init__(self, tokenizer: NumericTokenizer, track: Track, options: NumericOptions) -> None:
        self._tokenizer, self._track, self._options = tokenizer, track, options
        self._values: list[np.ndarray] = []
        self._times: list[np.ndarray] = []

    def push(self, block: Block) -> None:
        values = np.asarray(block.values)
        if values.dtype.kind not in "biuf":
            raise InputError(self._track.name, f"holds {values.dtype}, not numbers", "leave the column out")
        self._values.append(values.reshape(len(values), -1).copy())
        if block.times_ns is not None:
            self._times.append(block.times_ns)

    def finish(self) -> TrackTokens:
        made, config = self._tokenizer, self._tokenizer.config
        channels = self._track.channels
        names = channel_names(channels, self._values[0].shape[1] if self._values else len(channels))
        dtype = self._values[0].dtype if self._values else np.dtype(str(self._track.info.get("dtype", "float64")))
        values = np.empty(
            (sum(map(len, self._values)), len(names)), np.result_type(dtype, *{v.dtype for v in self._values})
        )
        end = len(values)
        while self._values:  # from the end, so that memory is given back as it is taken
            block = self._values.pop()
            values[end - len(block) : end] = block
            end -= len(block)
        ranges = [made.ranges.get(f"{self._track.name}/{n}") for n in names]
        plans = plan_channels(
            values, names, ranges, [self._options.bound(self._track.name, n) for n in names],
            self._options.max_error_relative, config.digits, config.base, made.search, made.alphabet.holes,
        )  # fmt: skip
        parts = [self._told(values, plans, *part) for part in self._parts(*values.shape)]
        kinds = (smallest_dtype(made.pieces.size), *[smallest_dtype(config.base)] * config.digits)
        levels = tuple(
            LevelCodes.of_counts(
                np.concatenate([np.zeros(0, kind), *(part[place][0] for part in parts)]),
                np.concatenate([np.zeros(0, np.int64), *(part[place][1] for part in parts)]),
            )
            for place, kind in enumerate(kinds)
        )
        header = {
            "dtype": values.dtype.str,
            "key_every": config.key_ticks,
            "base": config.base,
            "channels": [plan.channel.header() for plan in plans],
        }
        if any(plan.channel.digits for plan in plans) and any(plan.holes.any() for plan in plans):
            header["digits"] = "of numbers"  # none where the pieces say that there is no number
        return TrackTokens(
            self._track.name, "numeric", self._clock(len(values)), config.tick, levels, header,
            dict(self._track.info), names, self._track.units,
        )  # fmt: skip

    def _clock(self, count: int) -> Clock:
        if self._track.clock is not None and self._track.clock.count == count:
            return self._track.clock
        if self._times:
            return Clock.of_times(np.concatenate(self._times), self._track.rate)
        start = self._track.clock.start_ns if self._track.clock else 0
        return Clock.regular(self._track.rate or 1, count, start)

    def _parts(self, rows: int, channels: int) -> Iterator[tuple[slice, int, int]]:
        """(rows, ticks, rows a tick) that are spelled together: a bounded number of whole ticks, and the short one at
        the end alone, for a run must not know of rows that are not there."""
        tick = self._tokenizer.config.tick
        whole, some = rows // tick, max(1, _AT_ONCE // max(tick * channels, 1))
        for first in range(0, whole, some):
            last = min(first + some, whole)
            yield slice(first * tick, last * tick), last - first, tick
        if rows % tick:
            yield slice(whole * tick, rows), 1, rows % tick

    def _told(
        self, values: np.ndarray, plans: Sequence[Planned], rows: slice, ticks: int, length: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each level the codes of some ticks, and how many each has: per tick the runs of its channels, one after
        another, then per tick and channel the digits of its samples but holes."""
        made = self._tokenizer

        def by_run(columns: Sequence[np.ndarray], dtype: type) -> np.ndarray:
            """(ticks, channels, length)"""
            stacked = np.stack([column[rows] for column in columns], 1) if columns else np.zeros((ticks * length, 0))
            return stacked.astype(dtype, copy=False).reshape(ticks, length, -1).transpose(0, 2, 1)

        size = values.dtype.itemsize
        verbatim = np.ascontiguousarray(values[rows]).view(np.uint8).reshape(ticks, length, len(plans), size)
        holes = by_run([plan.holes for plan in plans], np.int8)
        symbols, _ = made.alphabet.runs(
            by_run([plan.residuals for plan in plans], np.int64).reshape(-1, length), holes.reshape(-1, length),
            by_run([plan.verbatim for plan in plans], bool).reshape(-1, length),
            verbatim.transpose(0, 2, 1, 3).reshape(-1, length, size),
        )  # fmt: skip
        codes, counts = made.pieces.segment(symbols)
        told = [(codes.astype(smallest_dtype(made.pieces.size)), counts.reshape(ticks, len(plans)).sum(1))]
        for place in range(made.config.digits):
            having = [c for c, plan in enumerate(plans) if plan.channel.digits > place]
            numbers = holes[:, having] == 0
            digits = by_run([plans[c].digits[:, place] for c in having], np.uint8)
            told.append((digits[numbers].astype(smallest_dtype(made.config.base)), numbers.sum((1, 2))))
        return told


def channel_names(channels: tuple[str, ...], count: int) -> tuple[str, ...]:
    return channels if len(channels) == count else tuple(str(i) for i in range(count))
