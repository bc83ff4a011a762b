"""The search of codes, compiled: exact on every machine, and never a look at all codes.

What is unusual: a codebook is kept in clusters of neighbours; a vector is compared with the clusters' centres and then
with the codes of the nearest few. Which code is found is fixed by the book alone, and what it takes away is exact.
Products are float32 whose sums are integers below 2^24 (see `video_exact`), so that eight of them fit a vector
register; a score and its place are then packed into one integer, whose minimum is found in one pass without a branch.

Letters: D coefficients, K codes, C clusters.

Source: search by clusters, the inverted file of Jégou, Douze and Schmid, IEEE TPAMI 33 (2011), §IV.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_kernels import gaps

PROBES = 4
"""Clusters that are looked into."""
LEAD, HOPE, DEBT = 24, 3.2, 0.5
"""A further code is looked for where the first LEAD coefficients hold HOPE times what it has to take away. If the codes
before it fell short of what they had to take away by more than DEBT times that, they have to hold twice as much."""
_ROWS = 256  # vectors of one matrix product: what it makes stays in a core's cache
_SHIFT, _WIDE = 6, 64  # a score and a place among _WIDE share 32 bits


@njit(cache=True, nogil=True)
def project(
    target: np.ndarray, base: np.ndarray, rows: np.ndarray, forward: np.ndarray, gain: float, out: np.ndarray
) -> None:
    """Coefficients of the differences of the `rows` int64 (m,) of target and base, uint8 (f, R, W): `out` float32
    (m, D + 1), and a last column of ones.

    forward: float32 (f * W, D). gain: a power of two, float32. A few rows at a time, which stay in a core's cache.
    """
    some, dims = 64, forward.shape[1]
    wanted = np.empty((some, forward.shape[0]), np.float32)
    for first in range(0, len(rows), some):
        here = rows[first : first + some]
        gaps(target, base, here, wanted)
        product = np.dot(wanted[: len(here)], forward)
        for i in range(len(here)):
            line, goal = product[i], out[first + i]
            for d in range(dims):
                goal[d] = np.rint(line[d] * gain)
            goal[dims] = np.float32(1)


@njit(cache=True, nogil=True)
def _least_key(scores: np.ndarray, numbers: np.ndarray, shift: int) -> np.int32:
    """The least of whole `scores` float32 (m,) and its place, the first on a tie, as score << shift | place.

    numbers: int32 0, 1, 2 ... below 1 << shift, at least m of them. One pass, eight at a time.
    """
    least = np.int32(2147483647)
    for j in range(len(scores)):
        least = min(least, int32(int32(int32(scores[j]) << int32(shift)) | numbers[j]))
    return least


@njit(cache=True, nogil=True)
def _probe(scores: np.ndarray, keys: np.ndarray, chosen: np.ndarray) -> None:
    """The places of the least of whole `scores` float32 (C,): `chosen` int64 (p,). keys: int64 (C,), spoiled."""
    for j in range(len(scores)):
        keys[j] = (np.int64(scores[j]) << 32) | j
    last = np.int64(-1) << 62
    for p in range(len(chosen)):
        least = np.int64(1) << 62
        for j in range(len(keys)):
            key = keys[j] if keys[j] > last else np.int64(1) << 62
            least = min(least, key)
        chosen[p], last = least & 0xFFFFFFFF, least


@njit(cache=True, nogil=True)
def _probe_few(scores: np.ndarray, keys: np.ndarray, chosen: np.ndarray) -> None:
    """As `_probe`, of at most 64, with keys of 32 bits."""
    for j in range(len(scores)):
        keys[j] = int32(int32(int32(scores[j]) << int32(6)) | int32(j))
    last = np.int32(-2147483648)
    for p in range(len(chosen)):
        least = np.int32(2147483647)
        for j in range(len(keys)):
            key = keys[j] if keys[j] > last else np.int32(2147483647)
            least = min(least, key)
        chosen[p], last = least & 63, least


@njit(cache=True, nogil=True)
def nearest(
    x: np.ndarray, table: np.ndarray, centres: np.ndarray, starts: np.ndarray, found: np.ndarray, least: np.ndarray
) -> None:
    """The nearest code of each vector among the nearest clusters. A tie goes to the lowest code.

    x: float32 (n, D + 1), each vector and a one. table: float32 ((D + 1) * K,), for one cluster after another the array
    (D + 1, its size) of minus its codes and half their squared norms; centres (D + 1, C) likewise; starts int64
    (C + 1,): where each cluster's codes begin. found: int64 (n,); least: float32 (n,), half the squared distance less
    half the vector's squared norm.

    Vectors are gathered by cluster, so that the work is done by matrix products. Scores are integers below 2^24.
    """
    dims, clusters = centres.shape
    count, probes = len(x), min(PROBES, clusters)
    chosen = np.zeros((count, probes), np.int64)
    if clusters > 1:
        near = np.dot(x, centres)
        if clusters <= 64:
            few = np.empty(clusters, np.int32)
            for i in range(count):
                _probe_few(near[i], few, chosen[i])
        else:
            many = np.empty(clusters, np.int64)
            for i in range(count):
                _probe(near[i], many, chosen[i])
    begin = np.zeros(clusters + 1, np.int64)
    for i in range(count):
        for p in range(probes):
            begin[chosen[i, p] + 1] += 1
    for c in range(clusters):
        begin[c + 1] += begin[c]
    place = begin.copy()
    order = np.empty(count * probes, np.int64)
    for i in range(count):
        for p in range(probes):
            order[place[chosen[i, p]]] = i
            place[chosen[i, p]] += 1
    best = np.full(count, np.int64(1) << 62)
    gathered, numbers = np.empty((_ROWS, dims), np.float32), np.arange(_WIDE, dtype=np.int32)
    for c in range(clusters):
        start, size = starts[c], starts[c + 1] - starts[c]
        if size == 0:
            continue
        block = table[dims * start : dims * (start + size)].reshape(dims, size)
        for first in range(begin[c], begin[c + 1], _ROWS):
            rows = order[first : min(first + _ROWS, begin[c + 1])]
            for i in range(len(rows)):
                gathered[i] = x[rows[i]]
            scores = np.dot(gathered[: len(rows)], block)
            for i in range(len(rows)):
                for left in range(0, size, _WIDE):
                    key = np.int64(_least_key(scores[i, left : left + _WIDE], numbers, _SHIFT))
                    full = ((key >> _SHIFT) << 32) | (start + left + (key & (_WIDE - 1)))
                    best[rows[i]] = min(best[rows[i]], full)
    for i in range(count):
        found[i], least[i] = best[i] & 0xFFFFFFFF, best[i] >> 32


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # sums are exact in any order
def deepen(
    x: np.ndarray,
    table: np.ndarray,
    centres: np.ndarray,
    starts: np.ndarray,
    codes: np.ndarray,
    unit2: float,
    cost: np.ndarray,
    found: np.ndarray,
    saved: np.ndarray,
) -> None:
    """Codes of residual stages, one after another while there is hope: enough is left in the first coefficients, those
    that a code can describe, and the codes so far have nearly paid for themselves.

    x float32 (n, D + 1), spoiled. As in `nearest` for each of S stages: table (S, (D + 1) * K), centres (S, D + 1, C),
    starts (S, C + 1); codes int16 (S, K, D). cost float64 (S,): squared error that a code of a stage has to take away.
    found int64 (S, n): the codes, -1 where not tried; saved float64 (S, n): squared error that each takes away.
    """
    active, gained = np.arange(len(x)), np.zeros(len(x))
    dims = codes.shape[2]
    for s in range(len(table)):
        kept = 0
        for i in range(len(active)):
            row, norm = x[i], np.float32(0)
            for d in range(min(dims, LEAD)):
                norm += row[d] * row[d]
            energy, least = unit2 * norm, HOPE * cost[s]
            if energy >= least and (gained[active[i]] >= -DEBT * cost[s] or energy >= 2 * least):
                active[kept] = active[i]
                if kept < i:
                    x[kept] = row
                kept += 1
        if kept == 0:
            break
        active = active[:kept]
        mine, score = np.empty(kept, np.int64), np.empty(kept, np.float32)
        nearest(x[:kept], table[s], centres[s], starts[s], mine, score)
        for i in range(kept):
            found[s, active[i]] = mine[i]
            saved[s, active[i]] = taken = -2.0 * unit2 * score[i]
            gained[active[i]] += taken - cost[s]
            row, code = x[i], codes[s, mine[i]]
            for d in range(dims):
                row[d] -= code[d]
