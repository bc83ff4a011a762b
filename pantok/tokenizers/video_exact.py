"""Integer transforms and codebooks whose float32 matrix products are exact, so that codes agree on every machine.

A residual of pixels is a vector of integers r; a basis is integer rows b of norm at most S; both are bounded, so by
Cauchy-Schwarz every partial sum of r.b stays below 2^24, the range in which float32 holds all integers. The same
holds for the search of the nearest code: coefficients are rounded to integers in a unit coarse enough for
|y| |c| + |c|^2 / 2 < 2^24. A product of such matrices is the same number in any order of summation. Where codes are
searched in groups, coefficients are int16 and sums int32, which are the same numbers.

Decoding needs no transform at all: a code is looked up in a table of pixels (int16, eighths of a grey level).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from pantok.quantizers.gated import Life
from pantok.tokenizers import video_living as living
from pantok.tokenizers import video_search_kernels as kernels
from pantok.tokenizers import video_ways_kernels as ways
from pantok.tokenizers.video_grid import SITE, WEIGHTS
from pantok.tokenizers.video_groups import BRIEF, cut_in_groups, in_groups
from pantok.tokenizers.video_lanes import LANES, paired

EXACT = 1 << 24
FRACTION = 3
"""Pixel tables hold 1/8 grey levels."""
_SITE_NORM = 3534  # of the largest residual of a site: sqrt(64 * 255^2 + 32 * 510^2), rounded up


@dataclass(frozen=True, eq=False)
class Book:
    """A transform and the codebooks of its residual stages.

    basis: int16 (D, V), rows nearly orthogonal and of norm `scale`; V = 96 times the sites of a vector.
    codes: for each stage int16 (K, D), in units of `unit` grey levels; neighbours stand together, in groups.
    starts: for each stage int64 (C + 1,): where each group begins, and K (as it was born, if the book has grown).
    lives: for each stage, of a book that has grown or lost codes since; else empty. See `video_living`.
    """

    basis: np.ndarray
    codes: tuple[np.ndarray, ...]
    starts: tuple[np.ndarray, ...]
    lives: tuple[Life, ...] = ()
    first_dims: int = 0
    """Directions that it was born with, where it has got more since: codes of that time are zero in the others."""

    def __post_init__(self) -> None:
        longest = self.reach * max(float(np.linalg.norm(row.astype(np.float64))) for row in self.basis)
        assert longest < EXACT, (longest, self.basis.shape)
        reached = self.clip
        for stage, (book, starts) in enumerate(zip(self.codes, self.starts, strict=True)):
            size = self.lives[stage].born(len(book)) if self.lives else len(book)
            assert starts[0] == 0 and starts[-1] == size and (np.diff(starts) > 0).all(), (stage, starts)
            norms = np.linalg.norm(book.astype(np.float64), axis=1)
            # Coefficients are cut to `clip` along the way, see `project`.
            assert (self.clip * norms + norms**2 / 2 + 1).max() < EXACT, (stage, norms.max(), self.clip)
            reached += float(norms.max())
        assert reached < 1 << 15, reached  # what coefficients come to, however badly codes fit: see `video_lanes`

    @property
    def width(self) -> int:
        return self.basis.shape[1]

    @property
    def born_dims(self) -> int:
        return self.first_dims or len(self.basis)

    @cached_property
    def reach(self) -> float:
        """Norm of the largest residual."""
        return reach_of(self.width)

    @cached_property
    def scale(self) -> int:
        return scale_of(self.width)

    @cached_property
    def unit(self) -> int:
        return unit_of(self.width)

    @cached_property
    def clip(self) -> float:
        return self.reach / self.unit * 1.02

    @cached_property
    def _forward(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.basis.T.astype(np.float32)))

    @cached_property
    def _gain(self) -> np.float32:
        return np.float32(1.0 / (self.scale * self.unit))

    @cached_property
    def _unit2(self) -> float:
        return float(self.unit**2)

    @cached_property
    def _columns(self) -> np.ndarray:
        return self._forward.numpy()

    @cached_property
    def _first(self) -> tuple[Book, tuple[np.ndarray, ...]]:
        codes, starts, numbers = living.first_codes(self)
        return Book(self.basis, codes, starts), numbers

    @cached_property
    def later(self) -> tuple[tuple[tuple[int, np.ndarray, np.ndarray], ...], ...]:
        """For each stage the blocks of codes that came later: squared threshold, which codes they are, their lines."""
        return tuple(
            tuple((at, among, _lines(codes[among])) for at, among in list(life.parts(len(codes)))[1:])
            for codes, life in zip(self.codes, self.lives, strict=True)
        )

    @cached_property
    def _stages(self) -> tuple[np.ndarray, ...]:
        """What `deepen` takes: tables, numbers, centres, codes; filled up with what is never nearest."""
        split = [cut_in_groups(book, starts) for book, starts in zip(self.codes, self.starts, strict=True)]
        stages, dims = len(self.codes), len(self.basis)
        most, many, pairs = max(map(len, self.codes)), max(map(len, split)), (dims + 1) // 2
        table, numbers = (
            np.zeros((stages, many, pairs + 1, LANES), np.int32),
            np.zeros((stages, many, LANES), np.int64),
        )
        centres = np.zeros((stages, -(-many // 4) * 4, pairs + 1), np.int32)
        table[:, :, 0], centres[:, :, 0] = EXACT - 1, EXACT - 1
        codes = np.zeros((stages, most, dims), np.int16)
        for s, (book, groups) in enumerate(zip(self.codes, split, strict=True)):
            codes[s, : len(book)] = book
            for c, group in enumerate(groups):
                part = book[group].astype(np.int64)
                numbers[s, c, : len(group)] = group
                centre = (2 * part.sum(0) + len(group)) // (2 * len(group))
                table[s, c, 0, : len(group)] = (part * part).sum(1) // 2
                table[s, c, 1:, : len(group)] = paired(-part).T
                centres[s, c, 0], centres[s, c, 1:] = (centre * centre).sum() // 2, paired(-centre)
        return table, numbers, centres, codes

    @cached_property
    def _ways(self) -> tuple[Any, ...]:
        """What `video_ways_kernels.deepen` takes: lines, products, edges, thresholds, first_dims."""
        stages, dims, most = len(self.codes), len(self.basis), max(map(len, self.codes))
        lives = self.lives or (Life(),) * stages
        blocks = 1 + max(len(life.blocks) for life in lives)
        lines = np.zeros((stages, dims + 1, most), np.float32)
        lines[:, dims] = EXACT - 1
        edges, thresholds = np.empty((stages, blocks + 1), np.int64), np.full((stages, blocks), -1.0)
        for s, (book, life) in enumerate(zip(self.codes, lives, strict=True)):
            lines[s, :, : len(book)] = _lines(book)
            lines[s, dims, life.retired[:, 0].astype(np.int64)] = EXACT - 1
            edges[s] = len(book)
            edges[s, : 1 + len(life.blocks)] = 0, *life.blocks[:, 0]
            thresholds[s, 1 : 1 + len(life.blocks)] = life.blocks[:, 1]
        products = np.zeros((stages * (stages - 1) // 2, most, most), np.int32)
        for s, later in enumerate(self.codes):
            for j, book in enumerate(self.codes[:s]):
                shared = book.astype(np.float32) @ later.astype(np.float32).T
                products[j + s * (s - 1) // 2, : len(book), : len(later)] = shared
        return lines, products, edges, thresholds, self.born_dims

    @cached_property
    def tables(self) -> np.ndarray:
        """int16 (stages, K, 96) or (stages, K, V / 96, 96): `pixels` of all stages in one array."""
        most = max(map(len, self.codes))
        out = np.zeros((len(self.codes), most, self.width // SITE, SITE), np.int16)
        for stage, table in enumerate(self.pixels):
            out[stage, : len(table)] = table
        return out[:, :, 0].copy() if self.width == SITE else out

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

    def bearable(self, rows: np.ndarray) -> np.ndarray:
        """Rows float (n, D) of coefficients as whole numbers, shortened to what the search can bear."""
        longest = _longest(self.clip) - np.sqrt(rows.shape[1])
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.rint(rows * np.minimum(1.0, longest / np.maximum(norms, 1e-9)))

    def project(self, residual: np.ndarray) -> np.ndarray:
        """float32 (n, D + 1) integers: the coefficients of `residual` float32 (n, V), and a last column of ones."""
        out = torch.empty(len(residual), len(self.basis) + 1)
        product = torch.mm(torch.from_numpy(residual), self._forward)
        product *= 1.0 / (self.scale * self.unit)
        torch.round(product, out=out[:, :-1])
        out[:, -1] = 1.0
        return out.numpy()

    def project_gaps(self, target: np.ndarray, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`project` of the weighted differences of the `rows` int64 (m,) of target and base, uint8 (f, R, W), W = 96
        times some sites; frames that are missing do not differ."""
        out = np.empty((len(rows), len(self.basis) + 1), np.float32)
        kernels.project(target, base, rows, self._columns[: len(target) * target.shape[2]], self._gain, out)
        return out

    def described(
        self, target: np.ndarray, base: np.ndarray, rows: np.ndarray, cost: np.ndarray, share: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`deepen` of `project_gaps`."""
        if self.lives:
            return self.deepen(self.project_gaps(target, base, rows), cost, share)
        forward = self._columns[: len(target) * target.shape[2]]
        return kernels.describe(target, base, rows, forward, self._gain, *self._stages, self._unit2, cost, share)

    def by_many_ways(
        self, target: np.ndarray, base: np.ndarray, rows: np.ndarray, cost: np.ndarray, share: np.ndarray, many: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `described`, by `many` ways at once: codes int64 (S, S, n) of the best way to each depth, and what each
        depth takes away more than the one before it, float64 (S, n)."""
        x = self.project_gaps(target, base, rows)
        found, saved = np.full((len(cost), len(cost), len(x)), -1, np.int64), np.zeros((len(cost), len(x)))
        ways.deepen(x, *self._ways, self._unit2, cost, share, many, found, saved)
        return found, saved

    def search(self, stage: int, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A near code of each row, int64 (n,), and the squared error that it takes away, float64 (n,)."""
        found, saved = self._run(slice(stage, stage + 1), coefficients.copy(), np.zeros(1), None)
        return found[0], saved[0]

    def deepen(
        self, coefficients: np.ndarray, cost: np.ndarray, share: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Stage after stage, while it may take away more than `cost` float64 (S,) of squared error, or for each row
        its `share` float64 (n,) of that.

        Returns codes int64 (S, n), -1 where a stage was not tried, and what each takes away, float64 (S, n).
        """
        return self._run(slice(None), coefficients.copy(), cost, share)

    def _run(
        self, stages: slice, coefficients: np.ndarray, cost: np.ndarray, share: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Spoils the coefficients."""
        share = np.ones(len(coefficients)) if share is None else share
        if self.lives:
            which = range(*stages.indices(len(self.codes)))
            return living.deepen(self, *self._first, which, coefficients, cost, share)
        table, numbers, centres, codes = self._stages
        found = np.full((len(table[stages]), len(coefficients)), -1, np.int64)
        saved = np.zeros(found.shape)
        kernels.deepen(
            coefficients, table[stages], numbers[stages], centres[stages], codes[stages], self._unit2, cost,
            share, found, saved,
        )  # fmt: skip
        return found, saved


def _lines(codes: np.ndarray) -> np.ndarray:
    """float32 (D + 1, K) of codes (K, D): minus their coefficients, then half of each one's squared norm, so that the
    product with a vector and a one is half the squared distance less half the vector's squared norm."""
    whole = codes.astype(np.int64)
    return np.concatenate([-whole.T, (whole * whole).sum(1)[None] // 2]).astype(np.float32)


def reach_of(width: int) -> float:
    return _SITE_NORM * float(np.sqrt(width // SITE))


def scale_of(width: int) -> int:
    """The largest power of two that keeps products with a basis exact (rows may be 1 percent longer)."""
    return 1 << int(np.floor(np.log2(EXACT / reach_of(width) / 1.01)))


def unit_of(width: int) -> int:
    """Grey levels of one step of a coefficient: the least power of two that keeps the search exact for long codes."""
    return 1 << max(0, int(np.ceil(np.log2(reach_of(width) * 1.02 / 3700))))


def _longest(clip: float) -> float:
    """The longest code that can be searched for: solves clip n + n^2 / 2 = 2^24."""
    return float(np.sqrt(clip * clip + 2.0 * (EXACT - 64)) - clip)


def make_book(directions: np.ndarray, codes: list[np.ndarray]) -> Book:
    """A Book of orthonormal float `directions` (D, V) and float codebooks in grey levels, rounded and bounded."""
    width = directions.shape[1]
    basis = np.rint(directions * scale_of(width)).astype(np.int16)
    clip, rounded, starts = reach_of(width) / unit_of(width) * 1.02, [], []
    longest = _longest(clip)
    for book in codes:
        c = book / unit_of(width)
        norms = np.linalg.norm(c, axis=1, keepdims=True)
        c = c * np.minimum(1.0, (longest - np.sqrt(len(directions))) / np.maximum(norms, 1e-9))
        whole = np.rint(c).astype(np.int16)
        order, begins = in_groups(whole, BRIEF)
        rounded.append(whole[order])
        starts.append(begins)
    return Book(basis, tuple(rounded), tuple(starts))
