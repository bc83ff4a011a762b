"""The inner loops of looking ahead, compiled: where quads were in the picture before, and what they hand back to it.

Letters: Q quads of 16x16 in line, which are 8x8 at half size. Sums of floats are in one order, so the same everywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pantok.tokenizers.video_motion_kernels import square_of, squares


@njit(cache=True, nogil=True)
def look_back(
    now: np.ndarray, padded: np.ndarray, pad: int, vectors: np.ndarray, moves: np.ndarray, errors: np.ndarray
) -> None:
    """Where each 8x8 of `now` (h, w) was in the picture before, `moves` int64 (n, 2): where it is, or displaced as its
    16x16 block, `vectors` int64 (n / 4, 2); and the squared error of the better, `errors` int64 (n,).

    padded: the picture before with `pad` samples around it.
    """
    columns = now.shape[1] // 8
    here, there = np.empty(64, np.uint8), np.empty(64, np.uint8)
    for at in range(len(errors)):
        row, column = at // columns, at % columns
        block = row // 2 * (columns // 2) + column // 2
        square_of(now, 8 * row, 8 * column, 8, here)
        errors[at] = np.int64(1) << 60
        for y, x in ((0, 0), (vectors[block, 0], vectors[block, 1])):
            square_of(padded, pad + 8 * row + y, pad + 8 * column + x, 8, there)
            found = squares(here, there)
            if found < errors[at]:
                errors[at], moves[at, 0], moves[at, 1] = found, y, x


@njit(cache=True, nogil=True)
def hand_on(moves: np.ndarray, stays: np.ndarray, seen: np.ndarray, rows: int, columns: int, out: np.ndarray) -> None:
    """Adds to the quads of the tick before, `out` float64 (Q,), how often what they show is seen from this tick on:
    once here and `seen` float64 (Q,) times later, as far as it `stays` float64 (Q,).

    moves: int64 (Q, 2), where quads come from, in eighths of a quad; a quad has up to four parts there.
    """
    for r in range(rows):
        for c in range(columns):
            q = r * columns + c
            y = min(max(8 * r + moves[q, 0], 0), 8 * (rows - 1))
            x = min(max(8 * c + moves[q, 1], 0), 8 * (columns - 1))
            share = stays[q] * (1.0 + seen[q]) / 64.0
            down, right = y & 7, x & 7
            at = (y >> 3) * columns + (x >> 3)
            out[at] += share * ((8 - down) * (8 - right))
            if right:
                out[at + 1] += share * ((8 - down) * right)
            if down:
                out[at + columns] += share * (down * (8 - right))
            if down and right:
                out[at + columns + 1] += share * (down * right)
