"""A lapped transform whose results are the same to the last bit whatever the blocks, threads or machine.

What is unusual: samples, window and cosines are integers, so that every partial sum of the float64 matrix product is
an exact integer below 2^53 and no order of summation can change it. The hop is a fiftieth of a second at any sample
rate, so that bin k is the same 25 Hz at 8 kHz and at 48 kHz and one codebook serves all; nothing is resampled.

Frame i covers the samples [(i - 1) hop, (i + 1) hop) and sound of H hops has H + 1 frames: the samples of hop i come
from frames i and i + 1, never from an earlier one, so that decoding may begin anywhere.

    >>> lapped = Lapped(320)
    >>> sound = np.arange(640) * 1000.0
    >>> frames = lapped.forward(np.concatenate([np.zeros(320), sound, np.zeros(320)]))
    >>> frames.shape, int(np.abs(lapped.inverse(frames) - sound).max()) < 64    # of 2^23
    ((3, 320), True)

MDCT: J. Princen, A. Johnson, A. Bradley, ICASSP 1987. Window: Kaiser-Bessel derived, alpha 4, as in AAC.
Shapes: F frames, N hop, B bins.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

from pantok.errors import InputError

FRAMES_PER_SECOND = 50
TICK_FRAMES = 4
MOST_BINS = 800  # 20 kHz; what lies above is not heard and not coded
UNIT = float(1 << 23)
"""Samples are integers of 24 bits, sign included: 16-bit sound is multiplied by 256."""
_COSINE = float(1 << 15)
_WINDOW = float(1 << 20)
_LOUDEST = float(1 << 28)
"""No coefficient is larger: 2^28 sqrt(800) * 2^15 sqrt(800) < 2^53, the bound of the inverse product."""
LOWEST_HZ, HIGHEST_HZ = 2_000, 192_000


def hop_of(rate: Fraction) -> int:
    """Samples a frame: the nearest to a fiftieth of a second. Raises InputError outside 2 to 192 kHz."""
    if not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise InputError(
            "sound", f"has {float(rate):g} samples a second", f"{LOWEST_HZ} to {HIGHEST_HZ} are understood"
        )
    return int((rate / FRAMES_PER_SECOND + Fraction(1, 2)) // 1)


def to_integers(values: np.ndarray, at: int = 0) -> np.ndarray:
    """Samples (n, C) int16 or float as float64 integers of 24 bits, clipped. `at`: index of the first, for the error.

    Raises InputError for NaN and infinities, which have no place in sound.
    """
    if values.dtype == np.int16:
        return values.astype(np.float64) * 256.0
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError("sound", f"has samples of type {values.dtype}", "convert them to int16 or float32")
    bad = ~np.isfinite(values)
    if bad.any():
        where = at + int(np.argmax(bad.any(1)))
        raise InputError(f"sound sample {where}", "is NaN or infinite", "repair the recording or cut that part out")
    return np.rint(np.clip(values.astype(np.float64), -1.0, 1.0) * UNIT)


def from_integers(samples: np.ndarray, dtype: str) -> np.ndarray:
    """float64 samples of 24 bits as `int16`, or as `float32` in [-1, 1]."""
    if dtype == "int16":
        return np.clip(np.rint(samples / 256.0), -32768, 32767).astype(np.int16)
    return np.clip(samples / UNIT, -1.0, 1.0).astype(np.float32)


def to_mid_side(samples: np.ndarray) -> np.ndarray:
    """(n, C): channels 2i and 2i+1 become half their sum and half their difference; a last odd one stays."""
    out = samples.copy()
    for c in range(0, samples.shape[1] - 1, 2):
        out[:, c] = (samples[:, c] + samples[:, c + 1]) / 2
        out[:, c + 1] = (samples[:, c] - samples[:, c + 1]) / 2
    return out


def from_mid_side(samples: np.ndarray) -> np.ndarray:
    out = samples.copy()
    for c in range(0, samples.shape[1] - 1, 2):
        out[:, c] = samples[:, c] + samples[:, c + 1]
        out[:, c + 1] = samples[:, c] - samples[:, c + 1]
    return out


class Lapped:
    """The transform of one hop length. bins: coefficients kept of each frame."""

    def __init__(self, hop: int) -> None:
        self.hop, self.bins = hop, min(hop, MOST_BINS)
        rising = np.cumsum(np.kaiser(hop + 1, 4 * np.pi))
        rising = np.sqrt(rising[:hop] / rising[hop])
        self.window = np.rint(np.concatenate([rising, rising[::-1]]) * _WINDOW) / _WINDOW
        # c(n) is odd about the middle of the first half and even about that of the second: half the rows suffice.
        self._odd = np.arange(hop // 2)
        self._even = hop + np.arange((hop + 1) // 2)
        rows = np.concatenate([self._odd, self._even]) + 0.5 + hop / 2
        self._cosines = np.rint(np.cos(np.pi / hop * rows[:, None] * (np.arange(self.bins) + 0.5)) * _COSINE)
        self._scale = float(np.sqrt(2.0 / hop)) / _COSINE

    def forward(self, samples: np.ndarray) -> np.ndarray:
        """float64 integers (F, B) from samples ((F + 1) N,) of 24 bits."""
        halves = samples.reshape(-1, self.hop)
        frames = np.concatenate([halves[:-1], halves[1:]], axis=1) * self.window
        odd = frames[:, self._odd] - frames[:, self.hop - 1 - self._odd]
        even = frames[:, self._even] + frames[:, 3 * self.hop - 1 - self._even]
        if self.hop % 2:  # the middle of the second half has no partner
            even[:, -1] /= 2
        return np.rint(_product(np.rint(np.concatenate([odd, even], axis=1)), self._cosines) * self._scale)

    def inverse(self, frames: np.ndarray) -> np.ndarray:
        """float64 samples ((F - 1) N,) from F frames (F, B)."""
        sums = _product(np.rint(np.clip(frames, -_LOUDEST, _LOUDEST)), self._cosines.T) * self._scale
        half = self.hop // 2
        odd, even = sums[:, :half], sums[:, half:]
        out = np.zeros((len(frames), 2 * self.hop))
        out[:, self._odd], out[:, self.hop - 1 - self._odd] = odd, -odd
        out[:, self._even], out[:, 3 * self.hop - 1 - self._even] = even, even
        out *= self.window
        return (out[:-1, self.hop :] + out[1:, : self.hop]).reshape(-1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b by torch, so that `one_thread` holds for it as for the search of codes: the threads of two libraries that
    wait for each other's cores made encoding seven times as slow. The sums are exact integers, whoever adds them."""
    return torch.mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()


@lru_cache(maxsize=4)
def lapped(hop: int) -> Lapped:
    return Lapped(hop)
