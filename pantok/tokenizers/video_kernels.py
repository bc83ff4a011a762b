"""The inner loops of drawing and measuring pictures, compiled; all of them integers, so the same on every machine.

Letters: N sites, Q = N / 4 quads, K codes. Pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_words import mean_of_words, put_word, word_at

SITE = 96
"""Bytes of a site: 64 luma, 32 chroma."""
_WEIGHTS = np.repeat(np.array([1, 2], np.int16), (64, 32))  # as in `video_grid`

# Sums of small integers have 64 bits in numba unless it is told otherwise at every step; 32 bits go twice as fast.


@njit(inline="always")
def plus(pixel: int, eighths: int) -> int:
    """A pixel plus a sum of table entries, rounded and kept within 0 .. 255."""
    return min(max(int32(int32(pixel) + (int32(int32(eighths) + int32(4)) >> int32(3))), int32(0)), int32(255))


@njit(inline="always")
def on_line(move: int, number: int, count: int) -> int:
    """How far a displacement is along the axis at frame `number` of a tick of `count`, in half samples, rounded."""
    return (2 * move * (number + 1) + count) // (2 * count)


@njit(inline="always")
def fetch_quad(
    phases: np.ndarray, cphases: np.ndarray, corners: np.ndarray, quad: int, y: int, x: int, out: np.ndarray, goal: int
) -> None:
    """A quad displaced by (y, x) half samples, 384 bytes, into the contiguous `out` from its byte `goal` on.

    phases, cphases: of a `Reference`. corners int64 (Q, 4): of each quad in luma and chroma, y, x, y, x.
    """
    _, tall, wide = phases.shape
    line = (((y & 1) * 2 + (x & 1)) * tall + corners[quad, 0] + (y >> 1)) * wide + corners[quad, 1] + (x >> 1)
    y, x = y >> 1, x >> 1
    _, tall, cwide = cphases.shape
    cline = (((y & 1) * 2 + (x & 1)) * tall + corners[quad, 2] + (y >> 1)) * cwide + corners[quad, 3] + 2 * (x >> 1)
    for site in range(4):
        at = line + site // 2 * 8 * wide + site % 2 * 8
        for r in range(8):
            put_word(out, goal + 8 * r, word_at(phases, at + r * wide))
        at = cline + site // 2 * 4 * cwide + site % 2 * 8
        for r in range(4):
            put_word(out, goal + 64 + 8 * r, word_at(cphases, at + r * cwide))
        goal += SITE


@njit(inline="always")
def copy_quad(sites: np.ndarray, quad: int, out: np.ndarray, goal: int) -> None:
    """As `fetch_quad`, of a quad of `sites` (N, 96) that stays where it is."""
    for k in range(0, 4 * SITE, 8):
        put_word(out, goal + k, word_at(sites, quad * 4 * SITE + k))


@njit(cache=True, nogil=True)
def fetch(
    phases: np.ndarray,
    cphases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    which: np.ndarray,
    out: np.ndarray,
) -> None:
    """Displaced quads into `out` (m, 4, 96). vectors int64 (m, 2) in half samples; which int64 (m,)."""
    for i in range(len(which)):
        fetch_quad(phases, cphases, corners, which[i], vectors[i, 0], vectors[i, 1], out, i * 4 * SITE)


@njit(inline="always")
def energy(a: np.ndarray, b: np.ndarray) -> int:
    """Weighted squared difference of two sites (96,); chroma counts four times."""
    total = int32(0)
    for k in range(SITE):
        gap = np.int16(np.int16(np.int16(a[k]) - np.int16(b[k])) * _WEIGHTS[k])
        total = int32(total + int32(int32(gap) * int32(gap)))
    return total


@njit(cache=True, nogil=True)
def energies(target: np.ndarray, base: np.ndarray, out: np.ndarray) -> None:
    """`energy` of sites (n, 96) into `out` int64 (n,)."""
    for i in range(len(target)):
        out[i] = energy(target[i], base[i])


@njit(inline="always")
def worth(error: float, knee: float) -> float:
    """What an error before detail will cost in the end: itself while small, then as its root (a code halves it)."""
    return error if error < knee else 2 * np.sqrt(error * knee) - knee


@njit(cache=True, nogil=True)
def gaps(target: np.ndarray, base: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    """Weighted differences of the `rows` int64 (m,) of each frame, (f, R, W) of whole sites in line, into `out` float32
    (m, f * W)."""
    width = target.shape[2]
    for k in range(len(target)):
        for i in range(len(rows)):
            a, b, goal = target[k, rows[i]], base[k, rows[i]], out[i, width * k : width * k + width]
            for at in range(0, width, SITE):
                x, y, z = a[at : at + SITE], b[at : at + SITE], goal[at : at + SITE]
                for j in range(SITE):
                    gap = np.int16(np.int16(np.int16(x[j]) - np.int16(y[j])) * _WEIGHTS[j])
                    z[j] = np.float32(int32(gap))


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
            goal[j] = plus(mine[j], total[j])


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
                goal[j] = plus(mine[j], total[j])


@njit(inline="always")
def blend(earlier: np.ndarray, later: np.ndarray, at: int, source: int, frame: int, out: np.ndarray, goal: int) -> None:
    """A site of the frame between number `frame`, by one of `SOURCES`: from byte `at` of what both ends predict into
    `out` from byte `goal` on. All are contiguous."""
    if source == 0:
        for k in range(0, SITE, 8):
            put_word(out, goal + k, mean_of_words(word_at(earlier, at + k), word_at(later, at + k)))
    elif source == 1 or (source == 3 and frame < 1) or (source == 4 and frame < 2):
        for k in range(0, SITE, 8):
            put_word(out, goal + k, word_at(earlier, at + k))
    else:
        for k in range(0, SITE, 8):
            put_word(out, goal + k, word_at(later, at + k))


@njit(cache=True, nogil=True)
def mix(earlier: np.ndarray, later: np.ndarray, source: np.ndarray, out: np.ndarray) -> None:
    """The frames between (n, N, 96) of what both ends predict, by each site's source int64 (N,): see `SOURCES`."""
    for frame in range(len(out)):
        for site in range(len(source)):
            at = (frame * len(source) + site) * SITE
            blend(earlier, later, at, source[site], frame, out, at)


@njit(cache=True, nogil=True)
def as_deep(codes: np.ndarray, depth: np.ndarray, out: np.ndarray, counts: np.ndarray) -> None:
    """Of each stage the codes of the sites that are deeper, in order, into `out` (S, N), and how many, `counts` (S,).

    codes int64 (S, N), depth int64 (N,).
    """
    for site in range(len(depth)):
        for k in range(depth[site]):
            out[k, counts[k]] = codes[k, site]
            counts[k] += 1
