"""The cheapest integer path inside a band, compiled; integers only, so the same on every machine.

What is unusual: a sample that may be off by E need not be rounded to the nearest point of a grid. All points within E
will do, and of all paths through them this finds one that the fewest pieces spell: dynamic programming from the end of
a group over (position, where in the band the last one or two points lie), each state walking the trie of pieces.

Letters: n samples, W points a band at most, S = W ** order states.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _predicted(order: int, since: int, last: int, before: int) -> int:
    """What is expected of the sample `since` rows after the start of its group, from the two points before it."""
    if order == 0 or since == 0:
        return 0
    if order == 1 or since == 1:
        return last
    return 2 * last - before


@njit(cache=True, nogil=True)
def _escaped(residual: int, wide: int) -> int:
    """Codes of a residual that is no symbol: two if its zigzag is below `wide`, else a marker and its bytes."""
    zigzag = 2 * residual if residual >= 0 else -2 * residual - 1
    if zigzag < wide:
        return 2
    codes = 1
    while zigzag > 0:
        codes += 1
        zigzag >>= 8
    return codes


@njit(cache=True, nogil=True)
def cheapest_path(
    low: np.ndarray,
    count: np.ndarray,
    cut: np.ndarray,
    trie: np.ndarray,
    edges: np.ndarray,
    symbols: np.ndarray,
    starts: np.ndarray,
    longest: int,
    order: int,
    width: int,
    reach: int,
    wide: int,
    group: int,
    path: np.ndarray,
) -> int:
    """Fills `path` int64 (n,) with low <= path < low + count; returns the codes that spell it.

    low: int64 (n,). count: int64 (n,), 1 .. width. cut: bool (n,), no piece may reach over the start of this sample.
    trie, edges: of `bpe.Pieces`, residuals -reach .. reach only. wide: see `_escaped`. symbols, starts: what codes
    spell. Prediction begins anew every `group` samples. Among equals the longest piece first, then the lowest code.
    """
    states = width**order
    total_codes = 0
    cost = np.zeros((min(group, len(low)) + 1, states), np.int64)
    piece = np.zeros((min(group, len(low)) + 1, states), np.int64)
    # What a piece that ends within so many samples must cost at least: a branch that cannot reach lower is not walked.
    floor, hope = np.zeros(len(cost), np.int64), np.zeros(longest + 1, np.int64)
    deep = longest * width + 1
    nodes, lasts = np.zeros(deep, np.int64), np.zeros(deep, np.int64)
    befores, depths = np.zeros(deep, np.int64), np.zeros(deep, np.int64)
    for first in range(0, len(low), group):
        size = min(group, len(low) - first)
        cost[size] = floor[size] = 0
        stop = size
        for p in range(size - 1, -1, -1):
            if p + 1 == size or cut[first + p + 1]:
                stop = p + 1
            hope[0] = np.int64(1) << 60
            for k in range(1, min(longest, stop - p) + 1):
                hope[k] = min(hope[k - 1], 1 + floor[p + k])
            floor[p] = np.int64(1) << 60
            for state in range(states):
                last_at, before_at = state % width, state // width
                last = before = 0
                if order >= 1 and p >= 1:
                    if last_at >= count[first + p - 1]:
                        continue
                    last = low[first + p - 1] + last_at
                elif last_at > 0:
                    continue
                if order == 2 and p >= 2:
                    if before_at >= count[first + p - 2]:
                        continue
                    before = low[first + p - 2] + before_at
                elif before_at > 0:
                    continue
                best, best_length, best_piece = 1 << 60, 0, 0
                nodes[0], lasts[0], befores[0], depths[0] = 1, last, before, 0
                filled = 1
                while filled:
                    filled -= 1
                    node, a, b, depth = nodes[filled], lasts[filled], befores[filled], depths[filled]
                    at = p + depth
                    expected = _predicted(order, at, a, b)
                    shift = 0
                    if order == 2 and at >= 1:
                        shift = width * (a - low[first + at - 1])
                    least, span, edge = trie[node, 0], trie[node, 1], trie[node, 2]
                    for j in range(count[first + at]):
                        point = low[first + at] + j
                        residual = point - expected
                        to = j + shift if order else 0
                        if depth == 0 and (residual > reach or residual < -reach):
                            total = _escaped(residual, wide) + cost[at + 1, to]
                            if total < best:
                                best, best_length, best_piece = total, 0, -1 - j
                            continue
                        if residual < least or residual >= least + span:
                            continue
                        place = edge + residual - least
                        follow, code = edges[place, 0], edges[place, 1]
                        if follow == 0:
                            continue
                        if code >= 0:
                            total = 1 + cost[at + 1, to]
                            if (
                                total < best
                                or (total == best and depth + 1 > best_length)
                                or (total == best and depth + 1 == best_length and code < best_piece)
                            ):
                                best, best_length, best_piece = total, depth + 1, code
                        further = min(edges[place, 2], stop - at - 1)
                        if further > 0 and hope[depth + 1 + further] <= best:
                            nodes[filled], lasts[filled], befores[filled] = follow, point, a
                            depths[filled] = depth + 1
                            filled += 1
                cost[p, state] = best
                floor[p] = min(floor[p], best)
                piece[p, state] = best_piece
        total_codes += cost[0, 0]
        state = p = last = before = 0
        while p < size:
            code = piece[p, state]
            length = starts[code + 1] - starts[code] if code >= 0 else 1
            for k in range(length):
                if code >= 0:
                    point = _predicted(order, p, last, before) + symbols[starts[code] + k] - reach
                else:
                    point = low[first + p] - 1 - code
                path[first + p] = point
                offset = point - low[first + p]
                if order == 1:
                    state = offset
                elif order == 2:
                    state = offset + (width * (last - low[first + p - 1]) if p else 0)
                last, before = point, last
                p += 1
    return total_codes
