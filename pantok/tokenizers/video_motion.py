"""Few displacements that explain a picture: a palette for each tick, found coarse to fine.

What is unusual: there is no motion vector per block. A tick states a short list of displacements and each block
names one of them with a few bits; the search is dense only over that list. All sums are integers.

Sources: block matching over a pyramid (Bierling, SPIE 1001, 1988); a shared list instead of one vector a block is
ours, because codes here have a fixed cost and pay log2 of their cardinality whatever they say.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from pantok.tokenizers import video_motion_kernels as kernels
from pantok.tokenizers.video_grid import BLOCK, Grid, Reference

PALETTE = 29
"""Most displacements of a tick, the zero displacement not counted."""
_STEP = 4  # the candidates' grid is 2 luma samples = 4 half samples
_COARSE = 4  # the coarse search reaches 4 samples of 1/8 size: 32 luma samples
AROUND = 32
"""Samples about a picture of half size: as far as displacements reach."""
_NEAR = np.array([(0, 0), (-1, 0), (0, -1), (0, 1), (1, 0)])
_DENSE = np.array(sorted(product(range(-_COARSE, _COARSE + 1), repeat=2), key=lambda v: (v[0] ** 2 + v[1] ** 2, v)))


def find_palette(
    reference: Reference, sites: np.ndarray, before: np.ndarray, least_gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements int64 (m, 2) in half samples, (y, x), the first of them (0, 0); and each 16x16 block's, (B, 4).

    sites: uint8 (N, 96) of the picture to explain. before: the palette of the previous tick, (k, 2).
    least_gain: squared luma error that a displacement must save to be worth stating.
    """
    grid = reference.grid
    now2, then2 = halved(sites, grid, 0), halved(reference.sites, grid, AROUND)
    best = _errors(now2, then2, np.zeros((1, 2), np.int64))[0]
    # Halving averages noise away; the sum over a block of 64 stands for 256 samples.
    if 4 * int(best.sum()) < least_gain:
        return np.zeros((1, 2), np.int64), np.zeros((grid.blocks, 4), np.int64)
    candidates = _candidates(grid, now2, then2, before)
    errors = _errors(now2, then2, candidates)
    chosen, owner = np.empty(PALETTE, np.int64), np.zeros(best.size, np.int64)
    least = -(-int(np.ceil(least_gain)) // 4)
    taken = kernels.choose_palette(best.copy(), errors, PALETTE, least, chosen, owner)
    vectors = np.concatenate([np.zeros((1, 2), np.int64), candidates[chosen[:taken]]])
    return _refined(reference, sites, vectors, to_quads(owner, grid))


def _candidates(grid: Grid, now2: np.ndarray, then2: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Displacements worth a look, int64 (c, 2) half samples, multiples of 4: each block's own best, by popularity."""
    vectors, zero = matched(grid, now2, then2)
    rounded = np.clip((before + 2) // _STEP, -15, 15)
    out = np.empty((18, 2), np.int64)
    return _STEP * out[: kernels.popular(np.clip(vectors, -15, 15), zero + 16, rounded, 14, out)]


def matched(grid: Grid, now2: np.ndarray, then2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each 32x32 block's best displacement in samples of half size, int64 (B, 2), and how much it differs from what was
    at its place, at an eighth of its size, int64 (B,). now2, then2: as of `halved`, then2 with AROUND samples about."""
    now4, then4 = _halved(now2, 0, 0), _halved(then2, AROUND, 2 * _COARSE)
    now8, then8 = _halved(now4, 0, 0), _halved(then4, 2 * _COARSE, _COARSE)
    vectors, zero = np.zeros((grid.blocks, 2), np.int64), np.zeros(grid.blocks, np.int64)
    kernels.match_all(now8, then8, _COARSE, _DENSE, vectors, zero)
    for now, then, pad, size in ((now4, then4, 2 * _COARSE, 8), (now2, then2, AROUND, 16)):
        reach, found = size // 4 * _COARSE, np.empty_like(vectors)
        kernels.match_blocks(now, then, pad, size, 2 * vectors, _NEAR, reach, size, found, np.empty_like(zero))
        vectors = found
    return vectors, zero


def _errors(now2: np.ndarray, then2: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Squared error int64 (c, 4 B) of 16x16 blocks at half size, for displacements that are multiples of 4."""
    out = np.empty((len(vectors), now2.size // 64), np.int64)
    kernels.plane_gaps(now2, then2, AROUND, vectors // _STEP, out)
    return out


def _refined(
    reference: Reference, sites: np.ndarray, vectors: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each displacement moved to the best half sample for the blocks that it owns; zero stays. owner: (B, 4)."""
    which = np.flatnonzero(owner.ravel() > 0)
    if not len(which):
        return vectors[:1], owner
    vectors = reference.refined(sites, vectors, which, owner.ravel()[which])
    return vectors[: kernels.merge_equal(vectors, owner)], owner


def to_quads(raster: np.ndarray, grid: Grid) -> np.ndarray:
    """(B, 4) of values on the raster of 16x16 blocks, (4 B,)."""
    quads = raster.reshape(grid.rows, 2, grid.columns, 2).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(quads).reshape(grid.blocks, 4)


def halved(sites: np.ndarray, grid: Grid, pad: int) -> np.ndarray:
    """Luma at half size, its edges repeated `pad` times around it."""
    out = np.empty((grid.rows * BLOCK // 2 + 2 * pad, grid.columns * BLOCK // 2 + 2 * pad), np.uint8)
    kernels.halved_sites(sites, grid.columns, pad, out)
    return out


def _halved(plane: np.ndarray, around: int, pad: int) -> np.ndarray:
    """Half size of a plane that has `around` samples about it, with `pad` of its own."""
    h, w = plane.shape
    out = np.empty(((h - 2 * around) // 2 + 2 * pad, (w - 2 * around) // 2 + 2 * pad), np.uint8)
    kernels.halved(plane, around, pad, out)
    return out
