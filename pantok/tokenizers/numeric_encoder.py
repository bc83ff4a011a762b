"""Rows of numbers into codes: channels planned, their residuals spelled in pieces, digits where a bound asks for them.

What is unusual: it holds a track's rows until `finish`. Which grid and order a channel takes is told from the whole of
it, and numbers are small (an hour of 50 channels at 100 Hz is 144 MB).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pantok.errors import InputError
from pantok.experience import Block, Clock, Track
from pantok.stream import LevelCodes, TrackTokens, smallest_dtype
from pantok.tokenizers.base import Encoder
from pantok.tokenizers.numeric_band import differences, held
from pantok.tokenizers.numeric_channel import Channel, plan_channels
from pantok.tokenizers.numeric_symbols import holes_of

if TYPE_CHECKING:
    from pantok.tokenizers.numeric import NumericOptions, NumericTokenizer


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
        names = channel_names(self._track, self._values[0].shape[1] if self._values else len(self._track.channels))
        dtype = self._values[0].dtype if self._values else np.dtype(str(self._track.info.get("dtype", "float64")))
        values = np.concatenate(self._values) if self._values else np.zeros((0, len(names)), dtype)
        ranges = [made.ranges.get(f"{self._track.name}/{n}") for n in names]
        channels, index, digits, raw = plan_channels(
            values, names, ranges, [self._options.bound(self._track.name, n) for n in names],
            self._options.max_error_relative, config.digits, config.base, config.tick * config.key_ticks, made.search,
        )  # fmt: skip
        holes = holes_of(values) * (raw & made.alphabet.holes)
        group = config.tick * config.key_ticks
        residuals = np.empty_like(index)
        for c, channel in enumerate(channels):
            residuals[:, c] = differences(held(index[:, c], holes[:, c] > 0, group), channel.order, group)
        levels = (
            self._pieces(residuals, holes, raw & (holes == 0), values),
            *self._digit_levels(channels, digits, holes),
        )
        header = {
            "dtype": values.dtype.str,
            "key_every": config.key_ticks,
            "base": config.base,
            "channels": [ch.header() for ch in channels],
        }
        if holes.any() and any(ch.digits for ch in channels):
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

    def _pieces(self, residuals: np.ndarray, holes: np.ndarray, raw: np.ndarray, values: np.ndarray) -> LevelCodes:
        """Level 0: per tick the runs of its channels, one after another."""
        made, tick = self._tokenizer, self._tokenizer.config.tick
        rows, channels = residuals.shape
        ticks = -(-rows // tick)
        itemsize = values.dtype.itemsize
        verbatim = np.ascontiguousarray(values).view(np.uint8).reshape(rows, channels, itemsize)
        codes, counts = [], np.zeros(ticks, np.int64)
        whole = rows // tick
        # Whole ticks together, then the short one at the end: a run must not know of rows that are not there.
        for first, last, length in ((0, whole, tick), (whole, ticks, rows - whole * tick)):
            if first == last or not channels:
                continue
            part = slice(first * tick, first * tick + (last - first) * length)
            shape = (last - first, length, channels)
            by_run, holes_run, raw_run = (
                a[part].reshape(shape).transpose(0, 2, 1).reshape(-1, length) for a in (residuals, holes, raw)
            )
            bytes_run = verbatim[part].reshape(*shape, itemsize).transpose(0, 2, 1, 3).reshape(-1, length, itemsize)
            symbols, _ = made.alphabet.runs(by_run, holes_run, raw_run, bytes_run)
            found, per_run = made.pieces.segment(symbols)
            codes.append(found)
            counts[first:last] = per_run.reshape(last - first, channels).sum(1)
        flat = np.concatenate(codes) if codes else np.zeros(0, np.int32)
        return LevelCodes.of_counts(flat.astype(smallest_dtype(made.pieces.size)), counts)

    def _digit_levels(self, channels: list[Channel], digits: list[np.ndarray], holes: np.ndarray) -> list[LevelCodes]:
        """Per tick and channel the digits of its samples but holes int8 (rows, C), as of `holes_of`."""
        config = self._tokenizer.config
        ticks = -(-len(holes) // config.tick)
        parts = [slice(i * config.tick, (i + 1) * config.tick) for i in range(ticks)]
        levels = []
        for place in range(config.digits):
            having = [c for c, ch in enumerate(channels) if ch.digits > place]
            codes = [[digits[c][part, place][holes[part, c] == 0] for c in having] for part in parts]
            flat = np.concatenate([column for tick in codes for column in tick]) if having and ticks else np.zeros(0)
            counts = np.array([sum(map(len, tick)) for tick in codes], np.int64)
            levels.append(LevelCodes.of_counts(flat.astype(smallest_dtype(config.base)), counts))
        return levels


def channel_names(track: Track, count: int) -> tuple[str, ...]:
    return track.channels if len(track.channels) == count else tuple(str(i) for i in range(count))
