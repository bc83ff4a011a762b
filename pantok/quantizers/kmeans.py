"""Exact nearest codes, k-means and residual k-means, reproducible to the last bit on every machine.

What differs from the textbook: vectors are put on an integer grid fine enough for their spread and coarse enough
that every product and partial sum of a float32 matrix product is an exact integer below 2^24. The result then does
not depend on how the product is blocked, threaded or batched, and ties go to the lowest code. Distances are never
held for more than a chunk of vectors. Codes that describe nothing are moved to the vectors described worst.

    >>> codebook = kmeans(np.array([[0.0], [0.1], [5.0], [5.1]]), 2, seed=0)
    >>> sorted(np.round(codebook[:, 0], 2).tolist())
    [0.05, 5.05]

Sources: Lloyd, IEEE Trans. IT 28 (1982); seeding in rounds by squared distance as in k-means||, Bahmani et al.,
VLDB 2012, eq. 1, without its re-clustering step (Lloyd follows at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch

from pantok.quantizers.threads import one_thread

_CHUNK_ENTRIES = 1 << 19  # of the score matrix: 2 MiB of float32, which stays in a core's cache
_GRID = 4000.0  # norm of the longest vector on the integer grid: 4000 * 4000 < 2^24
_SEED_ROUNDS = 16


@one_thread()
def nearest(vectors: Any, codebook: Any) -> tuple[np.ndarray, np.ndarray]:
    """The nearest code of each vector by squared distance; the lowest code on a tie.

    vectors: (N, D), codebook: (K, D), numpy or torch, any floating or integer dtype (a torch device is used).
    Returns codes int64 (N,) and squared_distance float32 (N,).

    Exact, whatever the chunks and threads, where the vectors and codes are integers with |x| |c| and |c|^2 / 2
    below 2^23; elsewhere equal to float32 rounding, on vectors centred by the codebook's mean (uncentred float32
    picks wrong codes far from the origin). On the CPU it takes one thread, see `threads`: a second gained nothing on
    two idle cores, and cost a factor of 20 on busy ones.
    """
    x, c = _tensor(vectors), _tensor(codebook)
    assert x.ndim == 2 and c.ndim == 2 and x.shape[1] == c.shape[1] and len(c), (x.shape, c.shape)
    c = c.to(x.device)
    centre = torch.round(c.double().mean(0)).float()  # rounded: integers stay integers
    c = c - centre
    half, steep = (c * c).sum(1) / 2, c.T.contiguous()
    rows = max(1, _CHUNK_ENTRIES // len(c))
    scores = torch.empty(min(rows, len(x)), len(c), device=x.device)
    codes, distance = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
    for at in range(0, len(x), rows):
        part = x[at : at + rows] - centre
        score = torch.mm(part, steep, out=scores[: len(part)])
        torch.sub(half, score, out=score)
        # numpy's argmin uses vector instructions and is about ten times as fast as torch's on a CPU.
        best = score.numpy().argmin(1) if x.device.type == "cpu" else score.argmin(1).cpu().numpy()
        codes[at : at + rows] = best
        gap = part - c[torch.from_numpy(best).to(c.device)]
        distance[at : at + rows] = (gap * gap).sum(1).cpu().numpy()
    return codes, distance


def kmeans(
    vectors: Any,
    size: int,
    *,
    seed: int,
    iterations: int = 10,
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """A codebook (size, D) float64 of `vectors` (N, D); fewer codes if there are fewer distinct vectors.

    weights: non-negative (N,), the count of each vector; one each by default.
    start: a codebook (size, D) to improve, in place of random seeds.
    Every code is the nearest one of at least one vector unless vectors coincide on the integer grid.
    """
    assert size > 0 and iterations >= 0, (size, iterations)
    x = _numpy(vectors)
    assert x.ndim == 2 and len(x), x.shape
    mass = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    x, mass = x[mass > 0], mass[mass > 0]
    centre = x.mean(0)
    scale = _GRID / max(float(np.sqrt(((x - centre) ** 2).sum(1).max())), 1e-30)
    grid = np.rint((x - centre) * scale)
    if len(grid) <= 4 * size:  # small enough to look for copies, which would become codes that nothing uses
        _, first, inverse = np.unique(grid, axis=0, return_index=True, return_inverse=True)
        mass = np.bincount(inverse.ravel(), mass).astype(np.float64)
        grid = grid[first]
    if len(grid) <= size:
        return grid / scale + centre
    points = torch.from_numpy(grid.astype(np.float32))
    rng = np.random.default_rng(seed)
    book = _seeds(points, mass, size, rng) if start is None else np.rint((np.asarray(start) - centre) * scale)
    for _ in range(iterations):
        codes, distance = nearest(points, np.rint(book))
        book = _centroids(grid, mass, codes, distance, book)
    for _ in range(8):  # the last move may have emptied a code
        codes, distance = nearest(points, np.rint(book))
        dead = np.bincount(codes, minlength=len(book)) == 0
        if not dead.any() or not distance.any():
            break
        book = _reseeded(grid, mass, distance, book, dead)
    return book / scale + centre


def residual_kmeans(
    vectors: Any, sizes: Sequence[int], *, seed: int, iterations: int = 10, weights: np.ndarray | None = None
) -> list[np.ndarray]:
    """Codebooks of which each describes what those before it leave over, chosen greedily. Each (size, D) float64."""
    left, books = _numpy(vectors).copy(), []
    for stage, size in enumerate(sizes):
        book = kmeans(left, size, seed=seed + stage, iterations=iterations, weights=weights)
        codes, _ = nearest(left.astype(np.float32), book)
        left -= book[codes]
        books.append(book)
    return books


def shrunk(book: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float64 (K, D): codes (K, D), means of `rows` (n, D) by their `codes` int (n,), drawn towards zero by what of
    them is chance.

    A mean of m rows is off by the rows' own scatter over m. In each direction the scatter of the means is that of what
    they stand for and of this error; a code keeps the share that is not error, less where few rows made it. A code of
    no row stays as it is. Source: Efron and Morris, JASA 68 (1973), with a variance for each direction.
    """
    count = np.bincount(codes, minlength=len(book))[:, None]
    scatter = ((rows - book[codes]) ** 2).sum(0) / max(len(rows) - len(book), 1)
    seen = count[:, 0] > 0
    if not seen.any():
        return book.astype(np.float64)
    chance = scatter / np.maximum(count, 1)
    true = np.maximum((book[seen].astype(np.float64) ** 2 - chance[seen]).mean(0), 0.0)
    return np.where(count > 0, book * (true / np.maximum(true + chance, 1e-12)), book)


def _seeds(points: torch.Tensor, mass: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rounds of draws in proportion to the squared distance from the codes so far."""
    grid = points.numpy()
    book = grid[rng.choice(len(grid), 1, p=mass / mass.sum())]
    distance = ((grid - book[0]) ** 2).sum(1)
    while len(book) < size:
        want = min(size - len(book), max(size // _SEED_ROUNDS, 1))
        odds = mass * distance
        total = odds.sum()
        if total <= 0:
            break
        picked = rng.choice(len(grid), min(want, int((odds > 0).sum())), replace=False, p=odds / total)
        fresh = grid[np.sort(picked)]
        book = np.concatenate([book, fresh])
        distance = np.minimum(distance, nearest(points, fresh)[1])
    return book.astype(np.float64)


def _centroids(
    grid: np.ndarray, mass: np.ndarray, codes: np.ndarray, distance: np.ndarray, book: np.ndarray
) -> np.ndarray:
    """Means of what each code describes; codes that describe nothing go where the error is largest."""
    shape = (len(book), len(grid))
    by_code = scipy.sparse.csr_matrix((mass, (codes, np.arange(len(grid)))), shape=shape)
    weight = np.bincount(codes, mass, minlength=len(book))
    moved = (by_code @ grid) / np.maximum(weight, 1e-300)[:, None]
    dead = weight == 0
    return _reseeded(grid, mass, distance, moved, dead) if dead.any() else moved


def _reseeded(
    grid: np.ndarray, mass: np.ndarray, distance: np.ndarray, book: np.ndarray, dead: np.ndarray
) -> np.ndarray:
    """`book` with its dead codes at the distinct vectors that weigh most in the error."""
    worst = np.argsort(-(mass * distance), kind="stable")[: 4 * int(dead.sum())]
    _, first = np.unique(grid[worst], axis=0, return_index=True)
    chosen = worst[np.sort(first)][: int(dead.sum())]
    book = book.copy()
    book[np.flatnonzero(dead)[: len(chosen)]] = grid[chosen]
    return book


def _numpy(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)


def _tensor(values: Any) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        values = torch.from_numpy(np.ascontiguousarray(values))
    return values.detach().to(torch.float32).contiguous()
