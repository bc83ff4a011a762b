"""From frames of coefficients to codes and back: loudness first, then shapes as deep as they are heard.

What is unusual: one rule gives the depth of every shape, and nothing of it is sent. Each code of a shape book knows
how much of the signal it leaves over (`left`, learned beside it); loudness + left - mask is how far the remaining
error stands out, and whoever stands out above the tick's water level gets the next stage. Encoder and decoder
derive the same from the levels before. Stages beyond the levels given are simply not there: any prefix decodes.

Levels, coarse first (a tick is 4 frames, 80 ms; a cell is one channel of one tick):

    mode         one a cell: 0 silent, else 1 + 3 * water + (depth - 1); none in a tick that is silent throughout
    gain.tick    one a cell: mean loudness of the bands below 8 kHz
    gain.pair    depth >= 2: what that leaves over, one for two frames
    gain.frame   depth >= 2: ... one for each frame
    gain.fine    depth = 3: ... one more for each frame
    high.tick    one a cell of recordings above 16 kHz: mean loudness from 8 to 20 kHz
    high.frame   depth >= 2: ... one for each frame
    shape.1-6    8 bins each of the spectrum divided by its loudness, in residual stages

Shapes: R rows (frames in the order tick, channel, frame), U units, G bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pantok.quantizers.kmeans import nearest
from pantok.stream import LevelCodes, smallest_dtype
from pantok.tokenizers.audio_bands import AMPLITUDES, LOUDEST, UNIT_BINS, Bands, noise
from pantok.tokenizers.audio_transform import TICK_FRAMES
from pantok.vocabulary import Level

STAGES = 6
DEPTHS = 3
ENOUGH = 36
"""Mean squared error of loudness that ends its coding: (2.3 dB)^2, about the least change that is heard."""
FAINT = 44
"""What stands out no further, such as even noise of -60 dB of full scale, is not followed from frame to frame."""
WATERS = 40
WATER_STEP = 4  # eighths of an octave: 1.5 dB
WATER_LOWEST = -32
GAINS = ("tick", "pair", "frame", "fine")
HIGHS = ("tick", "frame")
NAMES = ("mode", *(f"gain.{g}" for g in GAINS), *(f"high.{h}" for h in HIGHS)) + tuple(
    f"shape.{s + 1}" for s in range(STAGES)
)
SHAPE = NAMES.index("shape.1")
SHAPE_UNIT = 256.0  # a shape vector's own root mean square, on the integer grid of `nearest`
WIDEST, LONGEST = 1300.0, 2000.0  # a vector's entries, a code's norm: 1300 sqrt(8) * 2100 < 2^23, what `nearest` asks


@dataclass(frozen=True, eq=False)
class Books:
    """What is learned. Integer-valued float32, so that nearest codes are exact.

    gain, high: by name (K, bands). shape: STAGES of (K, 8). left: STAGES of int64 (K,), eighths of an octave, what a
    code leaves over on average, in energy, relative to the loudness. mask: int64 (25, 25), 256ths: loudness @ mask
    is what covers a band's error. tilt: int64 (25,), 256ths, added. fill: the amplitude of noise in place of shapes
    that are not coded, by the number of stages coded (STAGES + 1,).
    rates: int64 (WATERS,), bits a second that a channel of the sound learned from costs at each water level.
    latent_mean, latent_basis: int64 (38,) and
    (38, D) in 4096ths: decorrelated loudness of both halves of a tick, see `latents`.
    """

    gain: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]
    shape: Sequence[np.ndarray]
    left: Sequence[np.ndarray]
    mask: np.ndarray
    tilt: np.ndarray
    fill: np.ndarray
    rates: np.ndarray
    latent_mean: np.ndarray
    latent_basis: np.ndarray

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        sizes = [1 + WATERS * DEPTHS]
        sizes += [len(self.gain[g]) for g in GAINS] + [len(self.high[h]) for h in HIGHS]
        sizes += [len(book) for book in self.shape]
        return tuple(Level(n, s, "mode" if n == "mode" else "code") for n, s in zip(NAMES, sizes, strict=True))

    @cached_property
    def costs(self) -> np.ndarray:
        """int64 (levels,): bits of a code of each level, in 256ths."""
        return np.rint(256 * np.log2([lv.cardinality for lv in self.levels])).astype(np.int64)

    def need(self, loudness: np.ndarray) -> np.ndarray:
        """int64 (R, G): how far each band stands out, in eighths of an octave."""
        g = loudness.shape[1]
        return loudness - ((loudness @ self.mask[:g, :g] + self.tilt[:g]) >> 8)


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


def latents(books: Books, loudness: np.ndarray, rows: Rows) -> np.ndarray:
    """float16 (cells, D): principal components, of unit variance where it was learned, of the loudness (R, G) below
    8 kHz of the two halves of each cell. Integer products: the same on any machine."""
    cells = rows.ticks * rows.channels
    halves = means(loudness, rows.pair, 2 * cells).reshape(cells, 2, -1)
    lone = np.bincount(rows.pair, minlength=2 * cells).reshape(cells, 2)[:, 1] == 0  # a last tick of one or two frames
    halves[lone, 1] = halves[lone, 0]
    width = len(books.latent_mean) // 2
    x = np.pad(halves, ((0, 0), (0, 0), (0, width - halves.shape[2])), mode="edge").reshape(cells, -1)
    return (((x - books.latent_mean) @ books.latent_basis) / 4096).astype(np.float16)


def means(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """int64 (groups, G): mean of the rows of each group, rounded half up; 0 where there is none."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))  # rows of a group stand together
    sums = np.zeros((groups, values.shape[1]), np.int64)
    if len(starts):
        sums[group[starts]] = np.add.reduceat(values, starts, axis=0)
    counts = np.maximum(np.bincount(group, minlength=groups), 1)[:, None]
    return (2 * sums + counts) // (2 * counts)


Chooser = Callable[[np.ndarray, Rows, np.ndarray], np.ndarray]
"""(need (R, U), rows, bits in 256ths spent on loudness by tick) -> the water level of each cell"""


class _Sink:
    """Codes of one run of ticks, level by level."""

    def __init__(self, books: Books, ticks: int) -> None:
        self.counts = np.zeros((len(NAMES), ticks), np.int64)
        self.codes = [np.zeros(0, smallest_dtype(lv.cardinality)) for lv in books.levels]

    def put(self, level: int, codes: np.ndarray, ticks: np.ndarray) -> None:
        self.codes[level] = codes.astype(self.codes[level].dtype)
        self.counts[level] = np.bincount(ticks, minlength=self.counts.shape[1])


def encode_rows(
    books: Books, bands: Bands, rows: Rows, frames: np.ndarray, water: Chooser
) -> tuple[list[np.ndarray], np.ndarray]:
    """Codes of each level, and how many each tick has (levels, ticks). frames: coefficients (R, B)."""
    sink = _Sink(books, rows.ticks)
    loudness = bands.loudness(frames)
    cells = rows.ticks * rows.channels
    sounding = np.zeros(cells, bool)
    sounding[rows.cell[loudness.any(1)]] = True
    tick_of_cell = np.arange(cells) // rows.channels
    spoken = np.repeat(sounding.reshape(rows.ticks, -1).any(1), rows.channels)

    low, high = loudness[:, : bands.low], loudness[:, bands.low :]
    codes, decoded = gain_codes(books.gain, GAINS, rows, low)
    depths = _depths(books, low, decoded, rows, cells)
    high_codes, high_decoded = gain_codes(books.high, HIGHS, rows, high) if bands.high else ({}, [])
    heard = sounding[rows.cell]
    pairs = np.unique(rows.pair)
    pair_cell = pairs // 2
    deep_row, deep_pair = depths[rows.cell] >= 2, depths[pair_cell] >= 2
    kept_pair = sounding[pair_cell] & deep_pair
    sink.put(1, codes["tick"][sounding], tick_of_cell[sounding])
    sink.put(2, codes["pair"][pairs][kept_pair], pair_cell[kept_pair] // rows.channels)
    sink.put(3, codes["frame"][heard & deep_row], rows.tick[heard & deep_row])
    fine = heard & (depths[rows.cell] == 3)
    sink.put(4, codes["fine"][fine], rows.tick[fine])
    if bands.high:
        sink.put(5, high_codes["tick"][sounding], tick_of_cell[sounding])
        sink.put(6, high_codes["frame"][heard & deep_row], rows.tick[heard & deep_row])
    known = at_depth(decoded, depths[rows.cell], bands.low)
    if bands.high:
        known = np.concatenate([known, at_depth(high_decoded, np.minimum(depths, 2)[rows.cell], bands.high)], axis=1)
    known = np.clip(known, 0, LOUDEST)

    need = books.need(known)[:, bands.band_U]
    need[~heard] = -(1 << 20)
    waters = water(need, rows, (books.costs[1:SHAPE, None] * sink.counts[1:SHAPE]).sum(0))
    modes = np.where(sounding, 1 + DEPTHS * waters + depths - 1, 0)
    sink.put(0, modes[spoken], tick_of_cell[spoken])

    level_R = WATER_LOWEST + WATER_STEP * waters[rows.cell]
    r, u = np.nonzero(need > level_R[:, None])
    units = bands.to_units(frames)[r, u] / AMPLITUDES[known[r, bands.band_U[u]]][:, None]
    left = np.clip(np.rint(units * SHAPE_UNIT), -WIDEST, WIDEST)
    base = need[r, u]
    for s in range(STAGES):
        if not len(r):
            break
        chosen, _ = nearest(left.astype(np.float32), books.shape[s])
        sink.put(SHAPE + s, chosen, rows.tick[r])
        keep = base + books.left[s][chosen] > level_R[r]
        left = np.clip(left - books.shape[s][chosen], -WIDEST, WIDEST)[keep]
        r, base = r[keep], base[keep]
    return sink.codes, sink.counts


def grouped(rows: Rows, name: str) -> tuple[np.ndarray, int]:
    """Which group of rows shares a loudness code of this name, for each row, and how many groups there may be."""
    cells = rows.ticks * rows.channels
    if name == "tick":
        return rows.cell, cells
    if name == "pair":
        return rows.pair, 2 * cells
    return np.arange(len(rows.cell)), len(rows.cell)


def gain_codes(
    books: Mapping[str, np.ndarray], names: Sequence[str], rows: Rows, loudness: np.ndarray
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Codes by name (one for each group, see `grouped`), and the loudness (R, G) decoded after each."""
    codes, decoded = {}, []
    known = np.zeros_like(loudness)
    for name in names:
        book = np.ascontiguousarray(books[name][:, : loudness.shape[1]])
        group, count = grouped(rows, name)
        codes[name], _ = nearest(means(loudness - known, group, count).astype(np.float32), book)
        known = known + book.astype(np.int64)[codes[name]][group]
        decoded.append(known)
    return codes, decoded


def _depths(books: Books, loudness: np.ndarray, decoded: Sequence[np.ndarray], rows: Rows, cells: int) -> np.ndarray:
    """int64 (cells,): 1 where the tick's code says enough of what is not faint, 2 where the frames' do, else 3."""
    plain = (books.need(loudness) > FAINT) | (books.need(decoded[0]) > FAINT)
    size = np.maximum(np.bincount(rows.cell, minlength=cells) * loudness.shape[1], 1)

    def error(known: np.ndarray) -> np.ndarray:
        return np.bincount(rows.cell, (plain * (loudness - known) ** 2).sum(1), cells) // size

    return np.where(error(decoded[0]) <= ENOUGH, 1, np.where(error(decoded[2]) <= ENOUGH, 2, 3))


def at_depth(decoded: Sequence[np.ndarray], depth_R: np.ndarray, bands: int) -> np.ndarray:
    """(R, G): the loudness that a row's depth gives; depth 1 is the first, depth d the last but (deepest - d)."""
    out = decoded[0].copy()
    last = len(decoded) - 1
    deepest = 3 if len(decoded) == len(GAINS) else 2
    for d in range(2, deepest + 1):
        out = np.where((depth_R >= d)[:, None], decoded[last - (deepest - d)], out)
    return out


def decode_rows(books: Books, bands: Bands, rows: Rows, levels: Sequence[LevelCodes], first_tick: int) -> np.ndarray:
    """Coefficients (R, B) of the rows from the codes of ticks first_tick onwards, whatever these codes are."""
    cells = rows.ticks * rows.channels
    tick_of_cell = np.arange(cells) // rows.channels

    def take(level: int, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes for slots in the ticks given, and whether the stream has them."""
        lv = levels[level]
        lo = lv.splits[first_tick : first_tick + rows.ticks]
        counts = np.diff(lv.splits[first_tick : first_tick + rows.ticks + 1])
        rank = np.arange(len(ticks)) - np.searchsorted(ticks, ticks, side="left")
        there = rank < counts[ticks]
        codes = np.zeros(len(ticks), np.int64)
        codes[there] = lv.codes[(lo[ticks] + rank)[there]]
        return codes, there

    modes, _ = take(0, tick_of_cell)
    sounding = modes > 0
    waters, depths = np.divmod(np.maximum(modes - 1, 0), DEPTHS)
    depths += 1
    heard = sounding[rows.cell]

    def gains(book: Mapping[str, np.ndarray], names: Sequence[str], first_level: int, count: int) -> np.ndarray:
        known = np.zeros((len(rows.cell), count), np.int64)
        pairs, pair_R = np.unique(rows.pair, return_inverse=True)
        every = np.arange(len(rows.cell))
        for k, name in enumerate(names):
            group = {"tick": rows.cell, "pair": pair_R}.get(name, every)
            owner = {"tick": np.arange(cells), "pair": pairs // 2}.get(name, rows.cell)
            wanted = sounding[owner] & (depths[owner] >= {"tick": 1, "fine": 3}.get(name, 2))
            codes, there = take(first_level + k, owner[wanted] // rows.channels)
            step = np.zeros((len(owner), count), np.int64)
            step[wanted] = np.where(there[:, None], book[name].astype(np.int64)[codes, :count], 0)
            known += step[group]
        return known

    known = gains(books.gain, GAINS, 1, bands.low)
    if bands.high:
        known = np.concatenate([known, gains(books.high, HIGHS, 5, bands.high)], axis=1)
    known = np.clip(known, 0, LOUDEST)

    need = books.need(known)[:, bands.band_U]
    need[~heard] = -(1 << 20)
    level_R = WATER_LOWEST + WATER_STEP * waters[rows.cell]
    shape = np.zeros((len(rows.cell), bands.units, UNIT_BINS))
    stages = np.zeros((len(rows.cell), bands.units), np.int64)
    r, u = np.nonzero(need > level_R[:, None])
    base = need[r, u]
    for s in range(STAGES):
        codes, there = take(SHAPE + s, rows.tick[r])
        r, u, base, codes = r[there], u[there], base[there], codes[there]
        if not len(r):
            break
        shape[r, u] += books.shape[s][codes]
        stages[r, u] = s + 1
        keep = base + books.left[s][codes] > level_R[r]
        r, u, base = r[keep], u[keep], base[keep]
    shape /= SHAPE_UNIT
    shape += noise(rows.frame, rows.channel, bands.units) * books.fill[stages][..., None]
    shape *= AMPLITUDES[known[:, bands.band_U]][..., None]
    shape[~heard] = 0
    return bands.to_bins(shape)
