"""The inner loops of the search for displacements, compiled; all of them integers, so the same on every machine.

Letters: B blocks, Q quads of 16x16. Pictures are uint8, or int16 where they were halved.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_kernels import square


@njit(inline="always")
def _gap(
    phases: np.ndarray,
    corners: np.ndarray,
    sites: np.ndarray,
    quad: int,
    y: int,
    x: int,
    first: int,
    last: int,
    step: int,
) -> int:
    """Squared luma error of the rows first, first + step ... below `last` of a quad under a displacement."""
    plane = phases[(y & 1) * 2 + (x & 1)]
    top, left = corners[quad, 0] + (y >> 1), corners[quad, 1] + (x >> 1)
    total = int32(0)
    for r in range(first, last, step):
        site, at = 4 * quad + r // 8 * 2, r % 8 * 8
        line, a, b = plane[top + r, left : left + 16], sites[site, at : at + 8], sites[site + 1, at : at + 8]
        for c in range(8):
            total = int32(total + square(line[c], a[c]))
        for c in range(8):
            total = int32(total + square(line[8 + c], b[c]))
    return total


@njit(cache=True, nogil=True)
def luma_gaps(
    phases: np.ndarray,
    corners: np.ndarray,
    sites: np.ndarray,
    vectors: np.ndarray,
    which: np.ndarray,
    step: int,
    out: np.ndarray,
) -> None:
    """Adds to `out` int64 (m,) the squared luma error of quads of `sites` (N, 96) under displacements, on every
    `step`-th row (2 or 4)."""
    for i in range(len(which)):
        out[i] += _gap(phases, corners, sites, which[i], vectors[i, 0], vectors[i, 1], 0, 16, step)


@njit(cache=True, nogil=True)
def best_moves(
    phases: np.ndarray,
    corners: np.ndarray,
    frames: np.ndarray,
    moves: np.ndarray,
    which: np.ndarray,
    kind: np.ndarray,
    error: np.ndarray,
) -> None:
    """Of each quad the displacement of least squared luma error on every second row, the first on a tie.

    frames: sites uint8 (f, N, 96) over which the error is summed; moves int64 (f, m, 2): each displacement, as far as
    each frame is; which int64 (k,). kind int64 (k,): a displacement to begin with, replaced by the best; error int64
    (k,): its error, likewise. A displacement is given up as soon as it is worse.
    """
    for i in range(len(which)):
        quad, least, pick = which[i], error[i], kind[i]
        for v in range(moves.shape[1]):
            if v == kind[i]:
                continue
            total = np.int64(0)
            for f in range(len(frames)):
                y, x = moves[f, v, 0], moves[f, v, 1]
                for first in range(0, 16, 4):
                    total += _gap(phases, corners, frames[f], quad, y, x, first, first + 4, 2)
                    if total > least:
                        break
                if total > least:
                    break
            if total < least or (total == least and v < pick):
                least, pick = total, v
        error[i], kind[i] = least, pick


@njit(cache=True, nogil=True)
def refine_moves(
    phases: np.ndarray,
    corners: np.ndarray,
    sites: np.ndarray,
    which: np.ndarray,
    owner: np.ndarray,
    limit: int,
    vectors: np.ndarray,
) -> None:
    """Moves `vectors` int64 (m, 2), all but the first, by whole samples and then by half samples to where the quads
    that they own fit best; a quarter of the rows is enough to tell. which, owner: int64 (k,)."""
    around = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    for step in (2, 1):
        errors = np.zeros((len(around), len(vectors)), np.int64)
        for i in range(len(which)):
            mine = owner[i]
            for k in range(len(around)):
                y = min(max(vectors[mine, 0] + step * around[k, 0], -limit), limit)
                x = min(max(vectors[mine, 1] + step * around[k, 1], -limit), limit)
                errors[k, mine] += _gap(phases, corners, sites, which[i], y, x, 0, 16, 4)
        for v in range(1, len(vectors)):
            pick = 0
            for k in range(1, len(around)):
                if errors[k, v] < errors[pick, v]:
                    pick = k
            for axis in range(2):
                vectors[v, axis] = min(max(vectors[v, axis] + step * around[pick, axis], -limit), limit)


@njit(cache=True, nogil=True)
def match_all(
    now: np.ndarray, padded: np.ndarray, pad: int, offsets: np.ndarray, out: np.ndarray, still: np.ndarray
) -> None:
    """As `match_blocks`, of 4x4 blocks that all try the same offsets: rows of blocks at a time.

    now: int16 (4 rows, 4 columns), of means of pixels; the rest as there.
    """
    rows, columns = now.shape[0] // 4, now.shape[1] // 4
    sums, least = np.empty(4 * columns, np.int16), np.empty(columns, np.int32)
    for by in range(rows):
        least[:] = 1 << 30
        for k in range(len(offsets)):
            dy, dx = offsets[k, 0], offsets[k, 1]
            sums[:] = 0
            for r in range(4):
                a, b = now[4 * by + r], padded[pad + 4 * by + r + dy, pad + dx : pad + dx + 4 * columns]
                for c in range(4 * columns):
                    sums[c] += np.int16(abs(np.int16(a[c] - b[c])))
            for bx in range(columns):
                total = int32(0)
                for c in range(4):
                    total = int32(total + int32(sums[4 * bx + c]))
                if k == 0:
                    still[by * columns + bx] = total
                if total < least[bx]:
                    least[bx] = total
                    out[by * columns + bx, 0], out[by * columns + bx, 1] = dy, dx


@njit(cache=True, nogil=True)
def plane_gaps(now: np.ndarray, padded: np.ndarray, pad: int, vectors: np.ndarray, out: np.ndarray) -> None:
    """Squared error of each 8x8 of `now` int16 (h, w) under displacements in whole samples: `out` int64 (c, h/8, w/8).

    padded: int16, the other picture with `pad` samples around it.
    """
    rows, columns = now.shape[0] // 8, now.shape[1] // 8
    for i in range(len(vectors)):
        y, x = pad + vectors[i, 0], pad + vectors[i, 1]
        for by in range(rows):
            for bx in range(columns):
                total = int32(0)
                for r in range(8):
                    for c in range(8):
                        a, b = now[8 * by + r, 8 * bx + c], padded[y + 8 * by + r, x + 8 * bx + c]
                        total = int32(total + square(a, b))
                out[i, by, bx] = total


@njit(cache=True, nogil=True)
def match_blocks(
    now: np.ndarray,
    padded: np.ndarray,
    pad: int,
    size: int,
    start: np.ndarray,
    offsets: np.ndarray,
    limit: int,
    stay: int,
    out: np.ndarray,
    still: np.ndarray,
) -> None:
    """Each block's displacement of least absolute difference, of those at `offsets` int64 (k, 2) from its own `start`
    int64 (B, 2), cut to -limit .. limit: `out` int64 (B, 2), the first on a tie. `still` int64 (B,): the difference of
    the first offset, which is preferred by `stay`.

    now: int16 (rows * size, columns * size); padded: int16, the other picture with `pad` samples around it.
    """
    columns = now.shape[1] // size
    for block in range(len(start)):
        top, left = block // columns * size, block % columns * size
        least = np.int64(1) << 60
        for k in range(len(offsets)):
            dy = min(max(start[block, 0] + offsets[k, 0], -limit), limit)
            dx = min(max(start[block, 1] + offsets[k, 1], -limit), limit)
            total = int32(0)
            for r in range(size):
                for c in range(size):
                    gap = int32(int32(now[top + r, left + c]) - int32(padded[pad + top + dy + r, pad + left + dx + c]))
                    total = int32(total + abs(gap))
            if k == 0:
                still[block] = total
                total = int32(total - stay)
            if total < least:
                least = total
                out[block, 0], out[block, 1] = dy, dx


@njit(cache=True, nogil=True)
def choose_palette(
    best: np.ndarray, errors: np.ndarray, most: int, least_gain: int, chosen: np.ndarray, owner: np.ndarray
) -> int:
    """Greedily takes the displacement that saves most over those taken so far, while it saves `least_gain`.

    best int64 (n,): error of each block, brought up to date; errors int64 (c, n): under each displacement. chosen int64
    (most,): those taken, in order; owner int64 (n,): 1 + the place in `chosen` that serves a block best, 0 for none.
    Returns how many were taken.
    """
    taken = 0
    while taken < most:
        gain, pick = np.int64(-1), -1
        for c in range(len(errors)):
            total = np.int64(0)
            for i in range(len(best)):
                total += max(best[i] - errors[c, i], 0)
            if total > gain:
                gain, pick = total, c
        if pick < 0 or gain < least_gain or gain == 0:
            break
        chosen[taken] = pick
        taken += 1
        for i in range(len(best)):
            if errors[pick, i] < best[i]:
                best[i], owner[i] = errors[pick, i], taken
    return taken
