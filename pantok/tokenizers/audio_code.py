"""From frames of coefficients to codes and back: loudness first, then shapes as deep as they are heard.

What is unusual: one rule gives the depth of every shape, and nothing of it is sent. Each code of a shape book knows
how much of the signal it leaves over (`left`, learned beside it); loudness + left - mask is how far the remaining
error stands out, and whoever stands out above the tick's water level gets the next stage, scaled to what is left.
Encoder and decoder derive the same from the levels before. Stages beyond the levels given are simply not there: any
prefix decodes.

Levels, coarse first (a tick is 4 frames, 80 ms; a cell is one channel of one tick):

    mode         one a cell: 0 silent, else 1 + 4 * water + (depth - 1); none in a tick that is silent throughout
    gain.tick    one a cell: mean loudness of the bands below 8 kHz
    high.tick    one a cell of recordings above 16 kHz: mean loudness from 8 to 20 kHz
    gain.band    depth 4: one for each band of a cell, a correction in steps of 1.5 dB
    gain.pair    depth 2 and more: what is left of the loudness below 8 kHz, one for two frames
    gain.frame   depth 2 and more: ... one for each frame
    gain.fine    depth 3 and more: ... one more for each frame
    high.frame   depth 2 and more: what is left from 8 to 20 kHz, one for each frame
    shape.1-6    8 bins each of the spectrum divided by its loudness; then of what is left divided by what
                 the codes before leave on average

Shapes: R rows (frames in the order tick, channel, frame), U units, G bands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pantok.quantizers.gated import Life, nearest_living
from pantok.stream import LevelCodes, smallest_dtype
from pantok.tokenizers.audio_bands import AMPLITUDES, LEAST_LEFT, RATIOS, UNIT_BINS, Bands, noise
from pantok.tokenizers.audio_loudness import BAND_CODES, DEPTHS, PARTS, Rows, decode_loudness, encode_loudness
from pantok.vocabulary import Level

STAGES = 6
WATERS = 40
WATER_STEP = 4  # eighths of an octave: 1.5 dB
WATER_LOWEST = -32
NAMES = ("mode", *(part.name for part in PARTS), *(f"shape.{s + 1}" for s in range(STAGES)))
SHAPE = NAMES.index("shape.1")
SHAPE_UNIT = 128.0  # a shape vector's own root mean square, on the integer grid of `nearest`
WIDEST, LONGEST = 1300.0, 2000.0  # a vector's entries, a code's norm: 1300 sqrt(8) * 2100 < 2^23, what `nearest` asks


@dataclass(frozen=True, eq=False)
class Books:
    """What is learned. Integer-valued float32, so that nearest codes are exact.

    loudness: by level (K, bands). shape: STAGES of (K, 8). left: STAGES of int64 (K,), eighths of an octave, what a
    code leaves over on average, in energy, relative to the unit of its stage. mask: int64 (25, 25), 256ths:
    loudness @ mask is what covers a band's error. tilt: int64 (25,), 256ths, added.
    fill: (STAGES + 1,), the amplitude of the noise added to a shape, by the number of its stages that are coded.
    rates: int64 (WATERS,), bits a second that a channel of the sound learned from costs at each water level.
    latent_mean, latent_basis: int64 (38,) and
    (38, D) in 4096ths: decorrelated loudness of both halves of a tick, see `latents`.
    lives: by level, of the books that have grown or lost codes since they were learned.
    """

    loudness: Mapping[str, np.ndarray]
    shape: Sequence[np.ndarray]
    left: Sequence[np.ndarray]
    mask: np.ndarray
    tilt: np.ndarray
    fill: np.ndarray
    rates: np.ndarray
    latent_mean: np.ndarray
    latent_basis: np.ndarray
    lives: Mapping[str, Life] = field(default_factory=dict)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        sizes = [1 + WATERS * DEPTHS]
        sizes += [BAND_CODES if part.group == "band" else len(self.loudness[part.name]) for part in PARTS]
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

    said = encode_loudness(books.loudness, books.need, bands, rows, loudness, lives=books.lives)
    depths, known = said.depths, said.known
    heard = sounding[rows.cell]
    for part in PARTS:
        if part.name in said.codes:
            _, cell = rows.group("tick" if part.group == "band" else part.group)
            kept = sounding[cell] & (depths[cell] >= part.depth)
            codes, ticks = said.codes[part.name][kept], cell[kept] // rows.channels
            sink.put(NAMES.index(part.name), codes.reshape(-1), np.repeat(ticks, codes.size // max(len(codes), 1)))

    need = books.need(known)[:, bands.band_U]
    need[~heard] = -(1 << 20)
    waters = water(need, rows, (books.costs[1:SHAPE, None] * sink.counts[1:SHAPE]).sum(0))
    modes = np.where(sounding, 1 + DEPTHS * waters + depths - 1, 0)
    sink.put(0, modes[spoken], tick_of_cell[spoken])

    level_R = WATER_LOWEST + WATER_STEP * waters[rows.cell]
    r, u = np.nonzero(need > level_R[:, None])
    units = bands.to_units(frames)[r, u] / AMPLITUDES[known[r, bands.band_U[u]]][:, None]
    left = units * SHAPE_UNIT
    base = need[r, u]
    for s in range(STAGES):
        if not len(r):
            break
        life = books.lives.get(NAMES[SHAPE + s])
        chosen, _ = nearest_living(np.clip(np.rint(left), -WIDEST, WIDEST).astype(np.float32), books.shape[s], life)
        sink.put(SHAPE + s, chosen, rows.tick[r])
        over = books.left[s][chosen]
        base = base + over
        keep = base > level_R[r]
        left = ((left - books.shape[s][chosen]) / RATIOS[over - LEAST_LEFT][:, None])[keep]
        r, base = r[keep], base[keep]
    return sink.codes, sink.counts


def decode_rows(
    books: Books, bands: Bands, rows: Rows, levels: Sequence[LevelCodes], first_tick: int,
    asked: dict[str, int] | None = None,
) -> np.ndarray:  # fmt: skip
    """Coefficients (R, B) of the rows from the codes of ticks first_tick onwards, whatever these codes are. asked:
    takes for each level how many codes it should have, given those of the levels before."""
    cells = rows.ticks * rows.channels
    tick_of_cell = np.arange(cells) // rows.channels

    def take(level: str, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes for slots in the ticks given, and whether the stream has them."""
        if asked is not None:
            asked[level] = len(ticks)
        lv = levels[NAMES.index(level)]
        lo = lv.splits[first_tick : first_tick + rows.ticks]
        counts = np.diff(lv.splits[first_tick : first_tick + rows.ticks + 1])
        rank = np.arange(len(ticks)) - np.searchsorted(ticks, ticks, side="left")
        there = rank < counts[ticks]
        codes = np.zeros(len(ticks), np.int64)
        codes[there] = lv.codes[(lo[ticks] + rank)[there]]
        return codes, there

    modes, _ = take("mode", tick_of_cell)
    sounding = modes > 0
    waters, depths = np.divmod(np.maximum(modes - 1, 0), DEPTHS)
    depths += 1
    heard = sounding[rows.cell]

    known = decode_loudness(books.loudness, bands, rows, depths, sounding, take)
    need = books.need(known)[:, bands.band_U]
    need[~heard] = -(1 << 20)
    level_R = WATER_LOWEST + WATER_STEP * waters[rows.cell]
    shape = np.zeros((len(rows.cell), bands.units, UNIT_BINS))
    stages = np.zeros((len(rows.cell), bands.units), np.int64)
    r, u = np.nonzero(need > level_R[:, None])
    base = need[r, u]
    scale = np.full(len(r), 1 / SHAPE_UNIT)
    for s in range(STAGES):
        codes, there = take(NAMES[SHAPE + s], rows.tick[r])
        r, u, base, scale, codes = r[there], u[there], base[there], scale[there], codes[there]
        if not len(r):
            break
        shape[r, u] += books.shape[s].astype(np.float64)[codes] * scale[:, None]
        stages[r, u] = s + 1
        over = books.left[s][codes]
        base, scale = base + over, scale * RATIOS[over - LEAST_LEFT]
        keep = base > level_R[r]
        r, u, base, scale = r[keep], u[keep], base[keep], scale[keep]
    shape += noise(rows.frame, rows.channel, bands.units) * books.fill[stages][..., None]
    shape *= AMPLITUDES[known[:, bands.band_U]][..., None]
    shape[~heard] = 0
    return bands.to_bins(shape)
