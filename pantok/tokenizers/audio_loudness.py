"""Loudness by band as codes: pooled over a tick first, then what that leaves over, pair by pair and frame by frame.

What is unusual: how far a tick is refined is chosen by what can be heard of the error, so that an even noise costs one
code; and a spectrum unlike any that was learned (a bell) is first corrected band by band, so that no sound is lost
for not having been in the recordings that the books were learned from.

Shapes: R rows (frames in the order tick, channel, frame), G bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pantok.quantizers.gated import Life, nearest_living
from pantok.tokenizers.audio_bands import LOUDEST, Bands
from pantok.tokenizers.audio_transform import TICK_FRAMES

DEPTHS = 4
ENOUGH = 36
"""Mean squared error of loudness that ends its coding: (2.3 dB)^2, about the least change that is heard."""
FAINT = 44
"""What stands out no further, such as even noise of -60 dB of full scale, is not followed from frame to frame."""
ODD = 60
"""A band that the tick's code misses by more (22 dB) has all bands of the tick corrected one by one."""
BAND_CODES, BAND_STEP = 64, 4
"""A correction is a multiple of 1.5 dB, from -48 to 46.5 dB."""


@dataclass(frozen=True)
class Part:
    """One level of loudness. group: `tick`, `band`, `pair` or `frame` share a code. depth: from which mode it is there.
    low, high: whether it covers the bands below and above 8 kHz."""

    name: str
    group: str
    depth: int
    low: bool = True
    high: bool = False

    def bands(self, bands: Bands) -> slice:
        return slice(0 if self.low else bands.low, bands.count if self.high else bands.low)


PARTS = (
    Part("gain.tick", "tick", 1),
    Part("high.tick", "tick", 1, low=False, high=True),
    Part("gain.band", "band", 4, high=True),
    Part("gain.pair", "pair", 2),
    Part("gain.frame", "frame", 2),
    Part("gain.fine", "frame", 3),
    Part("high.frame", "frame", 2, low=False, high=True),
)
LEARNED = tuple(part for part in PARTS if part.group != "band")


@dataclass(frozen=True, eq=False)
class Rows:
    """Which tick, channel and frame each row is. Rows of a cell stand together, cells of a tick too.

    tick: counted from the first of this run. pair: which of the run's half cells. frame: index in the track.
    """

    ticks: int
    channels: int
    cell: np.ndarray
    pair: np.ndarray
    frame: np.ndarray

    @classmethod
    def of(cls, first_tick: int, ticks: int, channels: int, frames: int) -> Rows:
        """The rows of ticks [first_tick, first_tick + ticks) that hold `frames` frames a channel: 4 a tick, of which
        the last may have 1 to 5."""
        tick = np.minimum(np.arange(frames) // TICK_FRAMES, ticks - 1)
        cells = tick * channels + np.arange(channels)[:, None]
        order = np.argsort(cells, axis=None, kind="stable")
        tick, frame, channel = (
            np.tile(tick, channels)[order],
            np.tile(np.arange(frames), channels)[order],
            np.repeat(np.arange(channels), frames)[order],
        )
        cell = tick * channels + channel
        pair = 2 * cell + np.minimum((frame - TICK_FRAMES * tick) // 2, 1)
        return cls(ticks, channels, cell, pair, frame + first_tick * TICK_FRAMES)

    @property
    def channel(self) -> np.ndarray:
        return self.cell % self.channels

    @property
    def tick(self) -> np.ndarray:
        return self.cell // self.channels

    def group(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Which group each row is in, and the cell of each group."""
        if name == "tick":
            return self.cell, np.arange(self.ticks * self.channels)
        if name == "pair":
            pairs, group = np.unique(self.pair, return_inverse=True)
            return group, pairs // 2
        return np.arange(len(self.cell)), self.cell


def means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """int64 (groups, G): mean of the rows of each group, rounded half up; 0 where there is none."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))  # rows of a group stand together
    sums = np.zeros((groups, values.shape[1]), np.int64)
    if len(starts):
        sums[group[starts]] = np.add.reduceat(values, starts, axis=0)
    counts = np.maximum(np.bincount(group, minlength=groups), 1)[:, None]
    return (2 * sums + counts) // (2 * counts)


def refined(
    book: np.ndarray, left: np.ndarray, group: np.ndarray, groups: int, life: Life | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (groups,) of the groups' means of `left` (R, G), and what they add to each row (R, G)."""
    book = np.ascontiguousarray(book[:, : left.shape[1]])
    codes, _ = nearest_living(means(left, group, groups).astype(np.float32), book, life)
    return codes, book.astype(np.int64)[codes][group]


@dataclass(frozen=True, eq=False)
class Spoken:
    """Loudness as codes. codes: by part, for each group (and band, for `gain.band`). depths: (cells,). known: (R, G)
    int64, what the codes up to each cell's depth decode to."""

    codes: Mapping[str, np.ndarray]
    depths: np.ndarray
    known: np.ndarray


Need = Callable[[np.ndarray], np.ndarray]


def encode_loudness(
    books: Mapping[str, np.ndarray],
    need: Need,
    bands: Bands,
    rows: Rows,
    loudness: np.ndarray,
    *,
    deepest: bool = False,
    lives: Mapping[str, Life] = MappingProxyType({}),
) -> Spoken:
    """The codes of loudness (R, G). deepest: refine all ticks as far as can be. lives: of the books that have grown."""
    cells = rows.ticks * rows.channels
    codes: dict[str, np.ndarray] = {}
    known = np.zeros_like(loudness)
    after: dict[str, np.ndarray] = {}
    odd = np.zeros(cells, bool)
    for part in PARTS:
        at = part.bands(bands)
        if at.start >= at.stop:
            continue
        group, cell_of_group = rows.group(part.group)
        if part.group == "band":
            missed = means(loudness - known, rows.cell, cells)
            plain = (need(loudness) > FAINT) | (need(known) > FAINT)
            heard = np.zeros((cells, bands.count), bool)
            np.logical_or.at(heard, rows.cell, plain)
            odd = (heard & (np.abs(missed) > ODD)).any(1)
            low = -BAND_CODES // 2
            steps = np.clip((missed + BAND_STEP // 2) // BAND_STEP, low, low + BAND_CODES - 1)
            codes[part.name] = steps - low
            known = known + (BAND_STEP * steps * odd[:, None])[rows.cell]
        else:
            codes[part.name], step = refined(
                books[part.name], (loudness - known)[:, at], group, len(cell_of_group), lives.get(part.name)
            )
            known = known.copy()
            known[:, at] += step
        after[part.name] = known

    plain = (need(loudness) > FAINT) | (need(after["gain.tick"]) > FAINT)
    size = np.maximum(np.bincount(rows.cell, minlength=cells) * bands.count, 1)

    def enough(known: np.ndarray) -> np.ndarray:
        return np.bincount(rows.cell, (plain * (loudness - known) ** 2).sum(1), cells) // size <= ENOUGH

    # Levels are decoded as far as the depth says; those above 8 kHz come last here but belong to depth 2.
    tick = after.get("high.tick", after["gain.tick"])
    frame = after["gain.frame"].copy()
    frame[:, bands.low :] = known[:, bands.low :]
    depths = np.where(enough(tick), 1, np.where(enough(frame), 2, 3))
    depths[odd] = DEPTHS
    if deepest:
        depths = np.maximum(depths, 3)
    depth_R = depths[rows.cell][:, None]
    reached = np.where(depth_R == 1, tick, np.where(depth_R == 2, frame, known))
    return Spoken(codes, depths, np.clip(reached, 0, LOUDEST))


Take = Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(level, tick of each slot) -> codes, and which of them the stream has"""


def decode_loudness(
    books: Mapping[str, np.ndarray], bands: Bands, rows: Rows, depths: np.ndarray, sounding: np.ndarray, take: Take
) -> np.ndarray:
    """int64 (R, G) from codes; what is not there adds nothing. depths, sounding: (cells,)."""
    known = np.zeros((len(rows.cell), bands.count), np.int64)
    for part in PARTS:
        at = part.bands(bands)
        if at.start >= at.stop:
            continue
        group, cell_of_group = rows.group(part.group if part.group != "band" else "tick")
        wanted = np.flatnonzero(sounding[cell_of_group] & (depths[cell_of_group] >= part.depth))
        ticks = cell_of_group[wanted] // rows.channels
        step = np.zeros((len(cell_of_group), at.stop - at.start), np.int64)
        if part.group == "band":
            codes, there = take(part.name, np.repeat(ticks, bands.count))
            step[wanted] = (BAND_STEP * np.where(there, codes - BAND_CODES // 2, 0)).reshape(-1, bands.count)
        else:
            codes, there = take(part.name, ticks)
            step[wanted] = np.where(there[:, None], books[part.name].astype(np.int64)[codes, : step.shape[1]], 0)
        known[:, at] += step[group]
    return np.clip(known, 0, LOUDEST)


def latents(mean: np.ndarray, basis: np.ndarray, loudness: np.ndarray, rows: Rows) -> np.ndarray:
    """float16 (cells, D): principal components, of unit variance where it was learned, of the loudness (R, G) below
    8 kHz of the two halves of each cell. Integer products: the same on any machine."""
    cells = rows.ticks * rows.channels
    halves = means(loudness, rows.pair, 2 * cells).reshape(cells, 2, -1)
    lone = np.bincount(rows.pair, minlength=2 * cells).reshape(cells, 2)[:, 1] == 0  # a last tick of one or two frames
    halves[lone, 1] = halves[lone, 0]
    width = len(mean) // 2
    x = np.pad(halves, ((0, 0), (0, 0), (0, width - halves.shape[2])), mode="edge").reshape(cells, -1)
    return (((x - mean) @ basis) / 4096).astype(np.float16)
