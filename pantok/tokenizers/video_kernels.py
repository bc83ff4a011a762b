"""The inner loops of the video tokenizer, compiled; all of them integers, so the same on every machine.

What is unusual: the search of a code does not look at all codes. A codebook is kept in clusters of neighbours; a vector
is compared with the clusters' centres and then with the codes of the nearest few. Which code is found is fixed by the
book alone, and what it takes away is exact. Sums are kept in float32 where they are integers below 2^24 (see
`video_exact`), so that eight of them fit a vector register.

Letters: N sites, Q = N / 4 quads, D coefficients, K codes, C clusters. Pictures are uint8.

Source: search by clusters, the inverted file of Jégou, Douze and Schmid, IEEE TPAMI 33 (2011), §IV.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

PROBES = 4
"""Clusters that are looked into."""
_ROWS = 256  # vectors of one matrix product: what it makes stays in a core's cache


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
def _square(a: int, b: int) -> int:
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
                total = int32(total + _square(phases[phase, top + r, left + c], sites[site, at + c]))
            for c in range(8):
                total = int32(total + _square(phases[phase, top + r, left + 8 + c], sites[site + 1, at + c]))
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
                        total = int32(total + _square(a, b))
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


@njit(cache=True, nogil=True)
def energies(target: np.ndarray, base: np.ndarray, out: np.ndarray) -> None:
    """Weighted squared differences of sites (n, 96) into `out` int64 (n,); chroma counts four times."""
    for i in range(len(target)):
        a, b = target[i], base[i]
        luma, chroma = int32(0), int32(0)
        for k in range(64):
            luma = int32(luma + _square(a[k], b[k]))
        for k in range(64, 96):
            chroma = int32(chroma + _square(a[k], b[k]))
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


@njit(cache=True, nogil=True, fastmath={"reassoc", "nnan", "nsz"})
def _least(values: np.ndarray) -> tuple[int, float]:
    """Place and value of the least, the first on a tie; in two passes, of which the first fills registers."""
    least = values[0]
    for j in range(1, len(values)):
        least = min(least, values[j])
    at = 0
    while values[at] != least:
        at += 1
    return at, least


@njit(cache=True, nogil=True)
def nearest(
    x: np.ndarray, table: np.ndarray, centres: np.ndarray, starts: np.ndarray, found: np.ndarray, least: np.ndarray
) -> None:
    """The nearest code of each vector among the nearest clusters. A tie goes to the lowest code.

    x: float32 (n, D + 1), each vector and a one. table: float32 ((D + 1) * K,), for one cluster after another the array
    (D + 1, its size) of minus its codes and half their squared norms; centres (D + 1, C) likewise; starts int64
    (C + 1,): where each cluster's codes begin. found: int64 (n,); least: float32 (n,), half the squared distance less
    half the vector's squared norm.

    Vectors are gathered by cluster, so that the work is done by matrix products.
    """
    dims, clusters = centres.shape
    count, probes = len(x), min(PROBES, clusters)
    chosen = np.zeros((count, probes), np.int64)
    if clusters > 1:
        near = np.dot(x, centres)
        for i in range(count):
            for p in range(probes):
                best, _ = _least(near[i])
                chosen[i, p] = best
                near[i, best] = np.float32(np.inf)
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
    found[:] = -1
    least[:] = np.inf
    gathered = np.empty((_ROWS, dims), np.float32)
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
                at, score = _least(scores[i])
                v, at = rows[i], at + start
                if score < least[v] or (score == least[v] and at < found[v]):
                    least[v], found[v] = score, at


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # sums are exact in any order
def deepen(
    x: np.ndarray,
    table: np.ndarray,
    centres: np.ndarray,
    starts: np.ndarray,
    codes: np.ndarray,
    unit2: float,
    hope: np.ndarray,
    found: np.ndarray,
    saved: np.ndarray,
) -> None:
    """Codes of residual stages, one after another while there is hope.

    x float32 (n, D + 1), spoiled. As in `nearest` for each of S stages: table (S, (D + 1) * K), centres (S, D + 1, C),
    starts (S, C + 1); codes int16 (S, K, D). hope (S,): squared error that must be left for a stage to be tried.
    found int64 (S, n): the codes, -1 where not tried; saved float64 (S, n): squared error that each takes away.
    """
    active = np.arange(len(x))
    dims = codes.shape[2]
    for s in range(len(table)):
        kept = 0
        for i in range(len(active)):
            row, norm = x[i], np.float32(0)
            for d in range(dims):
                norm += row[d] * row[d]
            if unit2 * norm > hope[s]:
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
            saved[s, active[i]] = -2.0 * unit2 * score[i]
            row, code = x[i], codes[s, mine[i]]
            for d in range(dims):
                row[d] -= code[d]


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
