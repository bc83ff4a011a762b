"""Loudness by band, and who is heard: the integer arithmetic from which every depth of coding is derived.

What is unusual: there is no logarithm and no floating-point decision. Energies are int64, their logarithms come from
tables of exact integer roots, and what masks what is an integer matrix applied to *decoded* loudness, so that encoder
and decoder derive the same allocation on any machine and none of it is sent.

Loudness q counts eighths of an octave of energy (0.376 dB) above 2^12 (about -102 dB of full scale a bin), 0 to 320.

    >>> loudness_of(np.array([1 << 12, 1 << 13, 0]))
    array([0, 8, 0])
    >>> Bands(160).low, Bands(320).low, Bands(800).high     # 8, 16 and 48 kHz
    (14, 19, 6)

Shapes: F frames, B bins, U units (of 8 bins), G bands.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import numpy as np

UNIT_BINS = 8  # a shape vector: 200 Hz of one frame
LOW_UNITS = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4, 5, 5)
"""Widths of the bands below 8 kHz, about those of the Bark scale from 1 kHz on."""
HIGH_UNITS = (6, 8, 10, 12, 12, 12)
"""Widths of the bands from 8 to 20 kHz, which only recordings above 16 kHz have."""
OCTAVE = 8
FLOOR_OCTAVE = 12
LOUDEST = 40 * OCTAVE


def _root16(power: int) -> int:
    """floor(2^(power/16)), exactly."""
    return isqrt(isqrt(isqrt(isqrt(1 << power))))


_EDGES = np.array([_root16(2 * q - 1 + 16 * FLOOR_OCTAVE) for q in range(1, LOUDEST + 1)], np.int64)
AMPLITUDES = np.array([_root16(q + 16 * 20) for q in range(LOUDEST + 1)], np.float64) * 2.0 ** (FLOOR_OCTAVE // 2 - 20)
"""float64 (321,): the amplitude of a bin at each loudness."""

LEAST_LEFT, MOST_LEFT = -16 * OCTAVE, 5 * OCTAVE
RATIOS = np.array([_root16(q + 16 * 20) for q in range(LEAST_LEFT, MOST_LEFT + 1)], np.float64) * 2.0**-20
"""float64 (169,): the ratio of amplitudes for each ratio of energies from LEAST_LEFT to MOST_LEFT."""


def loudness_of(energy: np.ndarray) -> np.ndarray:
    """int64 loudness of energies a bin (int64), any shape."""
    return np.searchsorted(_EDGES, energy, side="right")


class Bands:
    """How the bins of one sample rate fall into bands.

    low, high: bands present below and above 8 kHz. units: shape vectors a frame. band_U: the band of each unit.
    """

    def __init__(self, bins: int) -> None:
        self.bins, self.units = bins, -(-bins // UNIT_BINS)
        widths = LOW_UNITS + HIGH_UNITS
        self.band_U = np.repeat(np.arange(len(widths)), widths)[: self.units]
        self.count = int(self.band_U[-1]) + 1
        self.low = min(self.count, len(LOW_UNITS))
        self.high = self.count - self.low
        self._starts = UNIT_BINS * np.flatnonzero(np.diff(self.band_U, prepend=-1))
        self._widths = np.diff(np.append(self._starts, bins))

    def loudness(self, frames: np.ndarray) -> np.ndarray:
        """int64 (F, G) from coefficients (F, B)."""
        whole = np.minimum(np.abs(frames), 1 << 28).astype(np.int64)
        return loudness_of(np.add.reduceat(whole * whole, self._starts, axis=1) // self._widths)

    def to_units(self, frames: np.ndarray) -> np.ndarray:
        """(F, U, 8) from (F, B), zeros beyond the last bin."""
        padded = np.zeros((len(frames), self.units * UNIT_BINS))
        padded[:, : self.bins] = frames
        return padded.reshape(len(frames), self.units, UNIT_BINS)

    def to_bins(self, units: np.ndarray) -> np.ndarray:
        return units.reshape(len(units), -1)[:, : self.bins]


@lru_cache(maxsize=8)
def bands_of(bins: int) -> Bands:
    return Bands(bins)


def noise(frames: np.ndarray, stream: np.ndarray, units: int) -> np.ndarray:
    """float64 (F, U, 8), uniform with variance 1: the same for frame i of a stream wherever decoding begins.

    frames: int64 (F,), index of each frame in its track. stream: int64 (F,), its channel.
    """
    bins = np.arange(units * UNIT_BINS, dtype=np.uint64)
    row = (frames.astype(np.uint64) << np.uint64(20)) + (stream.astype(np.uint64) << np.uint64(12))
    z = (row[:, None] + bins) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64: G. Steele et al., OOPSLA 2014
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    uniform = (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    return (uniform * np.sqrt(3.0)).reshape(len(frames), units, UNIT_BINS)
