"""Integer transforms and codebooks whose float32 matrix products are exact, so that codes agree on every machine.

A residual of pixels is a vector of integers r; a basis is integer rows b of norm at most S; both are bounded, so by
Cauchy-Schwarz every partial sum of r.b stays below 2^24, the range in which float32 holds all integers. The same
holds for the search of the nearest code: coefficients are rounded to integers in a unit coarse enough for
|y| |c| + |c|^2 / 2 < 2^24. A product of such matrices is the same number in any order of summation.

Decoding needs no transform at all: a code is looked up in a table of pixels (int16, eighths of a grey level).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pantok.tokenizers.video_grid import SITE, WEIGHTS

EXACT = 1 << 24
FRACTION = 3
"""Pixel tables hold 1/8 grey levels."""
_SITE_NORM = 3534  # of the largest residual of a site: sqrt(64 * 255^2 + 32 * 510^2), rounded up
_CHUNK_ENTRIES = 1 << 19


@dataclass(frozen=True, eq=False)
class Book:
    """A transform and the codebooks of its residual stages.

    basis: int16 (D, V), rows nearly orthogonal and of norm `scale`; V = 96 times the sites of a vector.
    codes: for each stage int16 (K, D), in units of `unit` grey levels.
    """

    basis: np.ndarray
    codes: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        longest = self.reach * max(float(np.linalg.norm(row.astype(np.float64))) for row in self.basis)
        assert longest < EXACT, (longest, self.basis.shape)
        for stage, book in enumerate(self.codes):
            norms = np.linalg.norm(book.astype(np.float64), axis=1)
            # Coefficients are cut to `clip` along the way, see `project`.
            assert (self.clip * norms + norms**2 / 2 + 1).max() < EXACT, (stage, norms.max(), self.clip)

    @property
    def width(self) -> int:
        return self.basis.shape[1]

    @property
    def reach(self) -> float:
        """Norm of the largest residual."""
        return reach_of(self.width)

    @property
    def scale(self) -> int:
        return scale_of(self.width)

    @property
    def unit(self) -> int:
        return unit_of(self.width)

    @property
    def clip(self) -> float:
        return self.reach / self.unit * 1.02

    @cached_property
    def _forward(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.basis.T.astype(np.float32)))

    @cached_property
    def _search(self) -> tuple[torch.Tensor, ...]:
        """For each stage float32 (D + 1, K): minus the codes, and half their squared norms."""
        out = []
        for book in self.codes:
            c = book.astype(np.float64)
            out.append(
                torch.from_numpy(np.concatenate([-c, (c * c).sum(1, keepdims=True) // 2], 1).T.astype(np.float32))
            )
        return tuple(t.contiguous() for t in out)

    @cached_property
    def pixels(self) -> tuple[np.ndarray, ...]:
        """For each stage int16 (K, V / 96, 96): what a code adds to the picture, in 1/8 grey levels."""
        gain = self.unit * (1 << FRACTION) / self.scale
        weights = np.tile(WEIGHTS, self.width // SITE)
        # In float64 the products are exact integers and the division is one correctly rounded operation.
        return tuple(
            np.rint(book.astype(np.float64) @ self.basis.astype(np.float64) * gain / weights)
            .astype(np.int16)
            .reshape(len(book), -1, SITE)
            for book in self.codes
        )

    def project(self, residual: np.ndarray) -> np.ndarray:
        """float32 (n, D + 1) integers: the coefficients of `residual` float32 (n, V), and a last column of ones."""
        out = torch.empty(len(residual), len(self.basis) + 1)
        product = torch.mm(torch.from_numpy(residual), self._forward)
        product *= 1.0 / (self.scale * self.unit)
        torch.round(product, out=out[:, :-1])
        out[:, -1] = 1.0
        return out.numpy()

    def search(self, stage: int, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest code of each row, int64 (n,), and the squared error that it takes away, float64 (n,)."""
        table = self._search[stage]
        rows = max(_CHUNK_ENTRIES // table.shape[1], 1)
        scores = torch.empty(min(rows, len(coefficients)), table.shape[1])
        best, gain = np.empty(len(coefficients), np.int64), np.empty(len(coefficients))
        x = torch.from_numpy(coefficients)
        for at in range(0, len(coefficients), rows):
            score = torch.mm(x[at : at + rows], table, out=scores[: min(rows, len(x) - at)]).numpy()
            best[at : at + rows] = chosen = score.argmin(1)
            gain[at : at + rows] = score[np.arange(len(chosen)), chosen]
        gain *= -2.0 * self.unit**2
        return best, gain

    def without(self, stage: int, coefficients: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The coefficients that `codes` of `stage` leave over."""
        left = coefficients.copy()
        left[:, :-1] -= self.codes[stage][codes]
        return left


def reach_of(width: int) -> float:
    return _SITE_NORM * float(np.sqrt(width // SITE))


def scale_of(width: int) -> int:
    """The largest power of two that keeps products with a basis exact (rows may be 1 percent longer)."""
    return 1 << int(np.floor(np.log2(EXACT / reach_of(width) / 1.01)))


def unit_of(width: int) -> int:
    """Grey levels of one step of a coefficient: the least power of two that keeps the search exact for long codes."""
    return 1 << max(0, int(np.ceil(np.log2(reach_of(width) * 1.02 / 3700))))


def make_book(directions: np.ndarray, codes: list[np.ndarray]) -> Book:
    """A Book of orthonormal float `directions` (D, V) and float codebooks in grey levels, rounded and bounded."""
    width = directions.shape[1]
    basis = np.rint(directions * scale_of(width)).astype(np.int16)
    clip, rounded = reach_of(width) / unit_of(width) * 1.02, []
    longest = np.sqrt(clip * clip + 2.0 * (EXACT - 64)) - clip  # solves clip n + n^2 / 2 = 2^24
    for book in codes:
        c = book / unit_of(width)
        norms = np.linalg.norm(c, axis=1, keepdims=True)
        c = c * np.minimum(1.0, (longest - np.sqrt(len(directions))) / np.maximum(norms, 1e-9))
        rounded.append(np.rint(c).astype(np.int16))
    return Book(basis, tuple(rounded))
