"""The inner loops of the search for displacements, compiled; all of them integers, so the same on every machine.

Letters: B blocks, Q quads of 16x16. Pictures are uint8, or int16 where they were halved.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_kernels import square


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
        quad = which[i]
        y, x = vectors[i, 0], vectors[i, 1]
        phase = (y & 1) * 2 + (x & 1)
        top, left = corners[quad, 0] + (y >> 1), corners[quad, 1] + (x >> 1)
        total = int32(0)
        for r in range(0, 16, step):
            site, at = 4 * quad + r // 8 * 2, r % 8 * 8
            for c in range(8):
                total = int32(total + square(phases[phase, top + r, left + c], sites[site, at + c]))
            for c in range(8):
                total = int32(total + square(phases[phase, top + r, left + 8 + c], sites[site + 1, at + c]))
        out[i] += total


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
