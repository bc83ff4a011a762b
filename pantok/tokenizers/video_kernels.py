"""The inner loops of drawing and measuring pictures, compiled; all of them integers, so the same on every machine.

Letters: N sites, Q = N / 4 quads, K codes. Pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

# Sums of small integers have 64 bits in numba unless it is told otherwise at every step; 32 bits go twice as fast.


@njit(inline="always")
def _tap(a: int, b: int, c: int, d: int) -> int:
    """Half way between b and c by (-1, 5, 5, -1) / 8."""
    middle = int32(int32(int32(b) + int32(c)) * int32(5))
    return min(max(int32(int32(middle - int32(int32(a) + int32(d))) + int32(4)) >> int32(3), int32(0)), int32(255))


@njit(inline="always")
def _mean(a: int, b: int) -> int:
    return int32(int32(int32(a) + int32(b)) + int32(1)) >> int32(1)


@njit(inline="always")
def square(a: int, b: int) -> int:
    gap = int32(int32(a) - int32(b))
    return int32(gap * gap)


@njit(inline="always")
def _plus(pixel: int, eighths: int) -> int:
    """A pixel plus a sum of table entries, rounded and kept within 0 .. 255."""
    return min(max(int32(int32(pixel) + (int32(int32(eighths) + int32(4)) >> int32(3))), int32(0)), int32(255))


@njit(cache=True, nogil=True)
def half_samples(phases: np.ndarray, cphases: np.ndarray) -> None:
    """Fills the half-sample phases 1 .. 3 of (4, H, W) from phase 0: across, down, both. See `Reference`."""
    _, height, width = phases.shape
    for y in range(height):
        line, out = phases[0, y], phases[1, y]
        out[:] = line
        for x in range(1, width - 2):
            out[x] = _tap(line[x - 1], line[x], line[x + 1], line[x + 2])
    for k in range(2):
        source, goal = phases[k], phases[k + 2]
        for y in range(height):
            out = goal[y]
            if y < 1 or y >= height - 2:
                out[:] = source[y]
                continue
            a, b, c, d = source[y - 1], source[y], source[y + 1], source[y + 2]
            for x in range(width):
                out[x] = _tap(a[x], b[x], c[x], d[x])
    _, height, width = cphases.shape
    for y in range(height):
        line, out = cphases[0, y], cphases[1, y]
        for x in range(width - 2):
            out[x] = _mean(line[x], line[x + 2])
        out[width - 2 :] = line[width - 2 :]
    for k in range(2):
        for y in range(height):
            out, line = cphases[k + 2, y], cphases[k, y]
            if y == height - 1:
                out[:] = cphases[0, y]
                continue
            below = cphases[k, y + 1]
            for x in range(width):
                out[x] = _mean(line[x], below[x])


@njit(cache=True, nogil=True)
def fetch(
    phases: np.ndarray,
    cphases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    which: np.ndarray,
    out: np.ndarray,
) -> None:
    """Displaced quads into `out` (m, 4, 96). corners int64 (Q, 4): of each quad in luma and chroma, y, x, y, x.

    vectors int64 (m, 2) in half samples; which int64 (m,).
    """
    for i in range(len(which)):
        quad = which[i]
        y, x = vectors[i, 0], vectors[i, 1]
        phase = (y & 1) * 2 + (x & 1)
        top, left = corners[quad, 0] + (y >> 1), corners[quad, 1] + (x >> 1)
        y, x = y >> 1, x >> 1
        cphase = (y & 1) * 2 + (x & 1)
        ctop, cleft = corners[quad, 2] + (y >> 1), corners[quad, 3] + 2 * (x >> 1)
        for site in range(4):
            down, right = site // 2, site % 2 * 8
            for r in range(8):
                for c in range(8):
                    out[i, site, 8 * r + c] = phases[phase, top + 8 * down + r, left + right + c]
            for r in range(4):
                for c in range(8):
                    out[i, site, 64 + 8 * r + c] = cphases[cphase, ctop + 4 * down + r, cleft + right + c]


@njit(cache=True, nogil=True)
def energies(target: np.ndarray, base: np.ndarray, out: np.ndarray) -> None:
    """Weighted squared differences of sites (n, 96) into `out` int64 (n,); chroma counts four times."""
    for i in range(len(target)):
        a, b = target[i], base[i]
        luma, chroma = int32(0), int32(0)
        for k in range(64):
            luma = int32(luma + square(a[k], b[k]))
        for k in range(64, 96):
            chroma = int32(chroma + square(a[k], b[k]))
        out[i] = luma + 4 * chroma


@njit(cache=True, nogil=True)
def gaps(target: np.ndarray, base: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Weighted differences of the sites `rows` int64 (m,) of each frame (n, N, 96) into `out` float32 (m, n * 96)."""
    for k in range(len(target)):
        for i in range(len(rows)):
            a, b = target[k, rows[i]], base[k, rows[i]]
            goal = out[i, 96 * k : 96 * k + 96]
            for j in range(64):
                goal[j] = np.float32(int32(a[j]) - int32(b[j]))
            for j in range(64, 96):
                goal[j] = np.float32(int32(2) * (int32(a[j]) - int32(b[j])))


@njit(cache=True, nogil=True)
def end_detail(
    base: np.ndarray,
    quads: np.ndarray,
    wide: np.ndarray,
    depth: np.ndarray,
    fine: np.ndarray,
    fresh: np.ndarray,
    fresh_table: np.ndarray,
    moved_table: np.ndarray,
    fine_tables: np.ndarray,
    out: np.ndarray,
) -> None:
    """Adds wide and fine codes to `base` (N, 96), into `out` of the same shape, which begins as its copy.

    quads int64 (Q,): code of a wide vector where `wide`; depth int64 (N,); fine int64 (S, N); fresh bool (Q,): which of
    the two wide tables, int16 (K, 4, 96); fine_tables int16 (S, K, 96). Tables hold eighths of a grey level.
    """
    total = np.empty(96, np.int16)
    for site in range(len(base)):
        quad = site // 4
        if not wide[quad] and depth[site] == 0:
            continue
        if wide[quad]:
            total[:] = fresh_table[quads[quad], site % 4] if fresh[quad] else moved_table[quads[quad], site % 4]
        else:
            total[:] = 0
        for k in range(depth[site]):
            line = fine_tables[k, fine[k, site]]
            for j in range(96):
                total[j] += line[j]
        mine, goal = base[site], out[site]
        for j in range(96):
            goal[j] = _plus(mine[j], total[j])


@njit(cache=True, nogil=True)
def inner_detail(base: np.ndarray, depth: np.ndarray, codes: np.ndarray, tables: np.ndarray, out: np.ndarray) -> None:
    """Adds the codes of the frames between to `base` (n, N, 96), into `out`, which begins as its copy.

    depth int64 (N,); codes int64 (S, N); tables int16 (S, K, 3, 96).
    """
    total = np.empty(96, np.int16)
    for site in range(len(depth)):
        if depth[site] == 0:
            continue
        for frame in range(len(base)):
            total[:] = 0
            for k in range(depth[site]):
                line = tables[k, codes[k, site], frame]
                for j in range(96):
                    total[j] += line[j]
            mine, goal = base[frame, site], out[frame, site]
            for j in range(96):
                goal[j] = _plus(mine[j], total[j])


@njit(cache=True, nogil=True)
def mix(earlier: np.ndarray, later: np.ndarray, source: np.ndarray, out: np.ndarray) -> None:
    """The frames between (n, N, 96) of what both ends predict, by each site's source int64 (N,): see `SOURCES`."""
    for frame in range(len(out)):
        for site in range(len(source)):
            a, b, goal = earlier[frame, site], later[frame, site], out[frame, site]
            said = source[site]
            if said == 0:
                for j in range(96):
                    goal[j] = _mean(a[j], b[j])
            elif said == 1 or (said == 3 and frame < 1) or (said == 4 and frame < 2):
                goal[:] = a
            else:
                goal[:] = b


@njit(cache=True, nogil=True)
def best_patterns(
    gains: np.ndarray,
    patterns: np.ndarray,
    wide: np.ndarray,
    chosen: np.ndarray,
    best: np.ndarray,
) -> None:
    """For each quad the pattern of most gain and that gain; the first on a tie.

    gains float64 (4 Q, depths); patterns int64 (P, 5): wide, then four depths; wide bool (Q,): which patterns it may
    take.
    """
    depths = gains.shape[1]
    for q in range(len(chosen)):
        deeper = False
        for k in range(4):
            for d in range(1, depths):
                deeper |= gains[4 * q + k, d] > 0
        if not (deeper or wide[q]):
            continue
        most, pick = -np.inf, 0
        a, b, c, d4 = gains[4 * q], gains[4 * q + 1], gains[4 * q + 2], gains[4 * q + 3]
        for p in range(len(patterns)):
            if (patterns[p, 0] == 1) != wide[q]:
                continue
            total = a[patterns[p, 1]] + b[patterns[p, 2]] + c[patterns[p, 3]] + d4[patterns[p, 4]]
            if total > most:
                most, pick = total, p
        chosen[q], best[q] = pick, most
