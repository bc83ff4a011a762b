"""Numbers on a grid within a guaranteed error, and the digits that refine it (Theorem 1 of Xing et al. 2025).

What differs from the paper and from the textbook: the plain rule (cells of side 2E, value at the centre) is *false*
in floating point, where the reconstruction is rounded once more (x = 0, E = 0.1, float32 breaks it). Here the grid is
a trifle finer than 2E, every sample is checked in its output dtype at every number of digits, and the few that fail
are kept verbatim by the caller. Digits are balanced (-(M-1)/2 .. (M-1)/2) and most significant first, so that leaving
out the last k of them leaves a bound of E * M^k.

    >>> grid = Grid(bound=0.01, digits=2, base=15)
    >>> whole, digits = grid.split(grid.quantise(np.array([0.5])))
    >>> bool(abs(grid.value(grid.join(whole, digits), np.dtype("float64"))[0] - 0.5) <= 0.01)
    True
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MARGIN = 2.0**-20
"""By how much the grid is finer than 2E: more than float64 loses in quantising, less than one code in a million."""
LARGEST = 2**40
"""Grid indices beyond it are kept verbatim: below, index and index * M^digits are exact in float64 and int64."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """bound: E > 0, the guaranteed error with all digits. digits: k. base: M, odd.

    The finest step is just below 2E / parts: with several parts there are as many points within E of a value, or one
    more, and `band` says which; a grid with digits has one part.
    """

    bound: float
    digits: int
    base: int
    parts: int = 1

    def __post_init__(self) -> None:
        assert self.bound > 0 and self.base % 2 == 1 and self.digits >= 0, self
        assert self.parts >= 1 and (self.parts == 1 or self.digits == 0), self
        assert self.base**self.digits < 2**20, "digits and the largest index must fit int64 together"

    @property
    def step(self) -> float:
        return 2 * self.bound * (1 - MARGIN) / self.parts

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """Index int64 of the finest cell of each value; 0 for what is not finite or lies beyond the grid."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(values.astype(np.float64) / self.step)
            return np.where(np.abs(scaled) <= LARGEST, scaled, 0.0).astype(np.int64)

    def split(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whole part int64 (...) on the coarse grid; digits int64 (..., k), 0 .. base - 1, most significant first."""
        half = (self.base - 1) // 2
        digits = np.empty((*index.shape, self.digits), np.int64)
        for place in range(self.digits - 1, -1, -1):
            # index = base * next + digit, digit in -half .. half
            index, digit = np.divmod(index + half, self.base)
            digits[..., place] = digit
        return index, digits

    def join(self, whole: np.ndarray, digits: np.ndarray) -> np.ndarray:
        """Index on the finest grid; digits left out (fewer than k columns) count as 0. Wraps around beyond int64."""
        half = (self.base - 1) // 2
        index = whole.astype(np.int64)
        with np.errstate(over="ignore"):
            for place in range(self.digits):
                digit = digits[..., place].astype(np.int64) - half if place < digits.shape[-1] else 0
                index = index * self.base + digit
        return index

    def value(self, index: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The centres of cells in the output dtype, finite whatever the index."""
        with np.errstate(over="ignore", invalid="ignore"):
            return finite(index.astype(np.float64) * self.step, dtype)

    def band(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest index within the bound, and how many are, one after another; both int64, 0 of them if none is.

        Each is checked in the dtype of `values`. The difference of two float64 is exact where they are near to each
        other and else off by 2^-53 of itself, so a bound smaller by 2^-40 of itself is safe.
        """
        centre = self.quantise(values)
        exact = widened(values)
        limit = self.bound * (1 - 2.0**-40)
        low = centre.copy()
        count = np.zeros(values.shape, np.int64)
        open_below = np.ones(values.shape, bool)
        open_above = np.ones(values.shape, bool)
        # Outwards from the centre, so that what is found has no hole.
        with np.errstate(over="ignore", invalid="ignore"):
            for offset in [0] + [o * sign for o in range(1, self.parts // 2 + 2) for sign in (-1, 1)]:
                good = np.abs(self.value(centre + offset, values.dtype).astype(np.float64) - exact) <= limit
                good &= np.isfinite(exact)
                if offset <= 0:
                    open_below &= good
                    low -= open_below & (offset < 0)
                    count += open_below
                    if offset == 0:
                        open_above &= good
                else:
                    open_above &= good
                    count += open_above
        return low, np.minimum(count, self.parts + 1)

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Whether each value comes back within the bound, with all digits and with any number of them left out."""
        index = self.quantise(values)
        whole, digits = self.split(index)
        exact = widened(values)
        good = np.isfinite(exact)
        with np.errstate(over="ignore", invalid="ignore"):
            for kept in range(self.digits + 1):
                rebuilt = self.value(self.join(whole, digits[..., :kept]), values.dtype).astype(np.float64)
                good &= np.abs(rebuilt - exact) <= self.bound * float(self.base ** (self.digits - kept))
        return good


def widened(values: np.ndarray) -> np.ndarray:
    """float64 of numbers of any dtype. A NaN that signals does so when it is widened; here it is a NaN like others."""
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


def finite(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 values in a floating dtype, the nearest finite one."""
    most = float(np.finfo(dtype).max)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.clip(np.nan_to_num(values, nan=0.0, posinf=most, neginf=-most), -most, most).astype(dtype)


def digits_for(coarse: float, bound: float, base: int, most: int) -> int:
    """How many digits take the error from about `coarse` to `bound`: the coarse bound becomes bound * base^digits,
    at most `coarse`; 0 if `bound` is not the tighter. At most `most`.
    """
    count = 0
    while count < most and bound * base ** (count + 1) <= coarse:
        count += 1
    return count


def theorem_digits(steps: int, dims: int, radius: float, eps: float, base: int) -> int:
    """Digits for each coordinate by Theorem 1: the least d with base^d >= sqrt(T D) * K / eps, by an integer loop.

    steps: T; dims: D; radius: K, the width of the range of a coordinate; eps: l2 distance that must be told apart.
    The paper's count of tokens is T * D times this. (A floating logarithm is off by one at exact powers.)
    """
    assert steps > 0 and dims > 0 and radius > 0 and eps > 0 and base > 1
    # base^(2d) * eps^2 >= T * D * K^2, in exact integers: floats are fractions.
    e_num, e_den = float(eps).as_integer_ratio()
    k_num, k_den = float(radius).as_integer_ratio()
    left, right = (e_num * k_den) ** 2, steps * dims * (k_num * e_den) ** 2
    count = 0
    while left < right:
        left *= base * base
        count += 1
    return count
