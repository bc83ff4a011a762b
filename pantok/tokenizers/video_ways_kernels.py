"""The search of codes with patience: several ways through the stages of a book at once, and all codes of each.

What is unusual: going on with several ways costs little more than with one. What a vector has in common with each code
of a stage is asked once, whatever was taken away before; how much of that an earlier code has taken away already is a
product of two codes, which a table holds. So a way is a few rows of a table added up. Each depth keeps a way of its
own: the best that ends there need not lie on the way to the best that ends deeper.

Scores are half the squared error less half the vector's squared norm, whole numbers as in `video_search_kernels`.
Letters: n vectors, D coefficients, S stages, K codes, M ways.

Source: M-search of residual codebooks, B. Bhattacharya, W. LeBlanc, S. Mahmoud and V. Cuperman, "Tree searched
multi-stage vector quantization of LPC parameters for 4 kb/s speech coding", ICASSP 1992.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_SOME = 64  # vectors at a time, whose products stay in a core's cache
_WORST = np.int32(1 << 30)
_LANES = 16


@njit(cache=True, nogil=True)
def _kept(
    line: np.ndarray, first: int, stop: int, way: int, best: np.ndarray, ways: np.ndarray, codes: np.ndarray
) -> None:  # fmt: skip
    """Puts the least of line[first:stop], int32, among the least so far: `best` int32 (M,), ascending, with the way and
    the code of each. What was there first stands first among equals."""
    last = len(best) - 1
    for begin in range(first, stop, _LANES):
        end = min(begin + _LANES, stop)
        least = _WORST
        for k in range(begin, end):
            least = min(least, line[k])
        if least >= best[last]:
            continue
        for k in range(begin, end):
            score = line[k]
            if score >= best[last]:
                continue
            at = last
            while at > 0 and best[at - 1] > score:
                best[at], ways[at], codes[at] = best[at - 1], ways[at - 1], codes[at - 1]
                at -= 1
            best[at], ways[at], codes[at] = score, way, k


@njit(cache=True, nogil=True)
def deepen(
    x: np.ndarray,
    lines: np.ndarray,
    products: np.ndarray,
    edges: np.ndarray,
    thresholds: np.ndarray,
    first_dims: int,
    unit2: float,
    cost: np.ndarray,
    share: np.ndarray,
    many: int,
    found: np.ndarray,
    saved: np.ndarray,
) -> None:
    """Codes of residual stages by `many` ways, while what is left over could pay for one more.

    x float32 (n, D + 1), its last column ones. lines float32 (S, D + 1, K): minus the codes, then half their squared
    norms. products int32 (S (S - 1) / 2, K, K): of each code of stage j with each of stage s, at j + s (s - 1) / 2.
    edges int64 (S, B + 1): where blocks of codes begin and the last ends; thresholds float64 (S, B): the codes of a
    block are looked at where the best way is left further off than that by those before, squared. first_dims: in how
    many coefficients the codes of the first block are not nought; where those hold too little for a code, only one of a
    later block is taken. cost float64 (S,), share float64 (n,): as of `video_search_kernels.deepen`.

    found int64 (S, S, n): the codes of the best way of each depth, -1 where none was looked for. saved float64 (S, n):
    squared error that a depth takes away more than the one before it.
    """
    stages, dims, size = lines.shape
    base, line = np.empty(size, np.int32), np.empty(size, np.int32)
    part = np.empty((_SOME, dims), np.float32)
    active, energy, near = np.empty(_SOME, np.int64), np.empty(_SOME), np.empty(_SOME)
    score, codes = np.zeros((_SOME, many), np.int32), np.zeros((_SOME, many, stages), np.int64)
    count = np.empty(_SOME, np.int64)
    best, ways, chosen = np.empty(many, np.int32), np.empty(many, np.int64), np.empty(many, np.int64)
    before = np.empty((many, stages), np.int64)
    for first in range(0, len(x), _SOME):
        here = min(_SOME, len(x) - first)
        for i in range(here):
            active[i], count[i], score[i, 0] = i, 1, 0
            total = 0.0
            for d in range(dims - 1):
                if d == first_dims:
                    near[i] = total
                total += x[first + i, d] * x[first + i, d]
            energy[i] = total
            if first_dims >= dims - 1:
                near[i] = total
        for s in range(stages):
            kept = 0
            for i in range(here):
                price = cost[s] * share[first + active[i]]
                if unit2 * (energy[active[i]] + 2.0 * score[active[i], 0]) >= price:
                    active[kept] = active[i]
                    kept += 1
            here = kept
            if here == 0:
                break
            for i in range(here):
                part[i] = x[first + active[i]]
            product = np.dot(part[:here], lines[s])
            for i in range(here):
                row = active[i]
                late = unit2 * (near[row] + 2.0 * score[row, 0]) < cost[s] * share[first + row]
                for k in range(size):
                    base[k] = np.int32(product[i, k])
                best[:] = _WORST
                told = len(thresholds[s])
                for way in range(count[row]):
                    for k in range(size):
                        line[k] = base[k] + score[row, way]
                    for j in range(s):
                        shared = products[j + s * (s - 1) // 2, codes[row, way, j]]
                        for k in range(size):
                            line[k] += shared[k]
                    for b in range(told):
                        # What the best way may look at, all may: what is well described by it keeps its codes.
                        if way == 0 and energy[row] + 2.0 * best[0] <= thresholds[s, b]:
                            told = b
                            break
                        _kept(line, edges[s, b], edges[s, b + 1], way, best, ways, chosen)
                if chosen[0] >= edges[s, 1]:
                    near[row] = energy[row]
                elif late:
                    energy[row] = -np.inf  # nothing more is looked for
                    continue
                previous = score[row, 0]
                before[:] = codes[row]
                number = 0
                while number < many and best[number] < _WORST:
                    for j in range(s):
                        codes[row, number, j] = before[ways[number], j]
                    codes[row, number, s], score[row, number] = chosen[number], best[number]
                    number += 1
                count[row] = number
                saved[s, first + row] = -2.0 * unit2 * (float(score[row, 0]) - float(previous))
                for j in range(s + 1):
                    found[s, j, first + row] = codes[row, 0, j]
