"""The search of codes, compiled: exact on every machine, and never a look at all codes.

What is unusual: a codebook is kept in groups of neighbours (`video_groups`); a vector is compared with the groups'
centres and then with the codes of the nearest few. Which code is found is fixed by the book alone, and what it takes
away is exact. Coefficients are whole numbers, two in an int32 (`video_lanes`), and compared with sixteen codes at a
time; a score and its place are then packed into one integer, whose minimum is found in one pass without a branch.

Letters: D coefficients, P pairs of them, K codes, C groups.

Source: search by clusters: the inverted file of Jégou, Douze and Schmid, IEEE TPAMI 33 (2011), §IV.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pantok.tokenizers.video_kernels import gaps
from pantok.tokenizers.video_lanes import KEPT, LANES, best_lanes, least_keys

LEAD, HOPE, DEBT = 24, 3.2, 0.5
"""A further code is looked for where the first LEAD coefficients hold HOPE times what it has to take away. If the codes
before it fell short of what they had to take away by more than DEBT times that, they have to hold twice as much."""


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
def in_pairs(x: np.ndarray, dims: int) -> np.ndarray:
    """int32 (n, P): the first `dims` coefficients of float32 x (n, D + 1), as of `video_lanes.paired`."""
    out = np.zeros((len(x), dims + dims % 2), np.int16)
    for i in range(len(x)):
        row, goal = x[i], out[i]
        for d in range(dims):
            goal[d] = np.int16(row[d])
    return out.view(np.int32)


@njit(cache=True, nogil=True)
def nearest_groups(pairs: np.ndarray, centres: np.ndarray, chosen: np.ndarray) -> None:
    """The groups of nearest centres of each vector, in order: `chosen` int64 (n, p). pairs int32 (n, P) of the vectors;
    centres: as of `nearest`."""
    count, width = centres.shape
    bits = 1
    while count > 1 << bits:
        bits += 1
    lanes, keys = np.zeros((width - 1, LANES), np.int32), np.empty((KEPT, LANES), np.int32)
    for begin in range(0, len(pairs), LANES):
        some = min(LANES, len(pairs) - begin)
        for i in range(some):
            row = pairs[begin + i]
            for p in range(width - 1):
                lanes[p, i] = row[p]
        least_keys(centres, lanes, bits, max(bits - 6, 0), keys)
        for i in range(some):
            for p in range(chosen.shape[1]):
                chosen[begin + i, p] = keys[p, i] & ((1 << bits) - 1)


@njit(cache=True, nogil=True)
def nearest(
    x: np.ndarray, table: np.ndarray, numbers: np.ndarray, centres: np.ndarray, found: np.ndarray, least: np.ndarray
) -> None:
    """The nearest code of each vector among the nearest groups. A tie goes to the lowest code.

    x: float32 (n, D + 1), whole numbers below 2^15, of which the last column is not looked at. table: int32
    (C, P + 1, 16): of each group half the squared norms of its codes, then minus their coefficients in pairs; numbers
    int64 (C, 16): which codes they are. centres int32 (C', P + 1): likewise of the groups, C' a multiple of 4. Both are
    filled up with what is never nearest.
    found: int64 (n,); least: float32 (n,), half the squared distance less half the vector's squared norm.

    Vectors are gathered by group, whose codes then stay in a core's cache. Scores are integers below 2^24.
    """
    groups, lines, _ = table.shape
    count, probes, pairs = len(x), min(KEPT, groups), in_pairs(x, x.shape[1] - 1)
    chosen = np.zeros((count, probes), np.int64)
    if groups > 1:
        nearest_groups(pairs, centres, chosen)
    begin = np.zeros(groups + 1, np.int64)
    for i in range(count):
        for p in range(probes):
            begin[chosen[i, p] + 1] += 1
    for c in range(groups):
        begin[c + 1] += begin[c]
    place = begin.copy()
    order = np.empty(count * probes, np.int64)
    for i in range(count):
        for p in range(probes):
            order[place[chosen[i, p]]] = i
            place[chosen[i, p]] += 1
    best = np.full(count, np.int64(1) << 62)
    rows, keys = np.empty(4, np.int64), np.empty(4, np.int32)
    for c in range(groups):
        for first in range(begin[c], begin[c + 1], 4):
            some = min(4, begin[c + 1] - first)
            for k in range(4):
                rows[k] = order[first + min(k, some - 1)]
            best_lanes(pairs, rows, table, c * lines, lines - 1, keys)
            for k in range(some):
                key = (np.int64(keys[k] >> 4) << 32) | numbers[c, keys[k] & 15]
                best[rows[k]] = min(best[rows[k]], key)
    for i in range(count):
        found[i], least[i] = best[i] & 0xFFFFFFFF, best[i] >> 32


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # sums are exact in any order
def deepen(
    x: np.ndarray,
    table: np.ndarray,
    numbers: np.ndarray,
    centres: np.ndarray,
    codes: np.ndarray,
    unit2: float,
    cost: np.ndarray,
    share: np.ndarray,
    found: np.ndarray,
    saved: np.ndarray,
) -> None:
    """Codes of residual stages, one after another while there is hope: enough is left in the first coefficients, those
    that a code can describe, and the codes so far have nearly paid for themselves.

    x float32 (n, D + 1), spoiled. As in `nearest` for each of S stages: table (S, C, P + 1, 16), numbers (S, C, 16),
    centres (S, C', P + 1); codes int16 (S, K, D). cost float64 (S,): squared error that a code of a stage has to
    take away, times `share` float64 (n,) of its vector. found int64 (S, n): the codes, -1 where not tried; saved
    float64 (S, n): squared error that each takes away.
    """
    active, gained = np.arange(len(x)), np.zeros(len(x))
    dims = codes.shape[2]
    for s in range(len(table)):
        kept = 0
        for i in range(len(active)):
            row, norm = x[i], np.float32(0)
            for d in range(min(dims, LEAD)):
                norm += row[d] * row[d]
            price = cost[s] * share[active[i]]
            energy, least = unit2 * norm, HOPE * price
            if energy >= least and (gained[active[i]] >= -DEBT * price or energy >= 2 * least):
                active[kept] = active[i]
                if kept < i:
                    x[kept] = row
                kept += 1
        if kept == 0:
            break
        active = active[:kept]
        mine, score = np.empty(kept, np.int64), np.empty(kept, np.float32)
        nearest(x[:kept], table[s], numbers[s], centres[s], mine, score)
        for i in range(kept):
            found[s, active[i]] = mine[i]
            saved[s, active[i]] = taken = -2.0 * unit2 * score[i]
            gained[active[i]] += taken - cost[s] * share[active[i]]
            row, code = x[i], codes[s, mine[i]]
            for d in range(dims):
                row[d] -= code[d]


@njit(cache=True, nogil=True)
def describe(
    target: np.ndarray,
    base: np.ndarray,
    rows: np.ndarray,
    forward: np.ndarray,
    gain: float,
    table: np.ndarray,
    numbers: np.ndarray,
    centres: np.ndarray,
    codes: np.ndarray,
    unit2: float,
    cost: np.ndarray,
    share: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """`deepen` of what `project` gives: found and saved."""
    x = np.empty((len(rows), forward.shape[1] + 1), np.float32)
    project(target, base, rows, forward, gain, x)
    found, saved = np.full((len(table), len(rows)), -1, np.int64), np.zeros((len(table), len(rows)))
    deepen(x, table, numbers, centres, codes, unit2, cost, share, found, saved)
    return found, saved
