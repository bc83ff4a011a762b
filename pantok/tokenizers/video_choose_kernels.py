"""The encoder's choices, block by block, compiled: what a block is predicted from, and which detail it is given.

What is unusual: a block is fetched, measured and decided on while its pixels are in a core's cache, so that a picture
goes once through memory and no step waits for the interpreter. Sums are of integers, or of few numbers in a fixed
order, so that choices are the same on every machine.

Letters: B blocks of 32x32, Q quads of 16x16, N sites of 8x8. Pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pantok.tokenizers.video_kernels import SITE, blend, copy_quad, energy, fetch_quad, on_line, plus, worth

_AFRESH = 31  # as in `video_books`
_OWN = 0.7
"""A block may be drawn afresh where a quad is predicted with more than this of its own energy about its means."""


@njit(cache=True, nogil=True)
def predict(
    past: np.ndarray,
    phases: np.ndarray,
    cphases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    kind: np.ndarray,
    target: np.ndarray,
    knee: float,
    base: np.ndarray,
    left: np.ndarray,
    hard: np.ndarray,
) -> None:
    """The last frame as displacements give it, `base` (N, 96), the energy that they leave, `left` int64 (N,), and
    whether a block might better be drawn afresh, `hard` bool (B,): it costs a lot, and some quad is hardly predicted.

    past: sites (N, 96) of what phases, cphases, corners displace; kind int64 (B, 4) into vectors int64 (m, 2).
    """
    for b in range(len(hard)):
        total = 0.0
        for q in range(4):
            y, x, quad = vectors[kind[b, q], 0], vectors[kind[b, q], 1], 4 * b + q
            if y == 0 and x == 0:
                copy_quad(past, quad, base, quad * 4 * SITE)
            else:
                fetch_quad(phases, cphases, corners, quad, y, x, base, quad * 4 * SITE)
            error = np.int64(0)
            for site in range(4 * quad, 4 * quad + 4):
                left[site] = energy(target[site], base[site])
                error += left[site]
            total += worth(float(error), knee)
        hard[b] = False
        if total > 2 * knee:
            for q in range(4):
                error = left[16 * b + 4 * q : 16 * b + 4 * q + 4].sum()
                hard[b] |= 256 * error > _OWN * _variance(target, 4 * b + q)


@njit(inline="always")
def _variance(sites: np.ndarray, quad: int) -> np.int64:
    """256 times the `energy` of a quad against its means."""
    luma, squares = np.int64(0), np.int64(0)
    u, v, more = np.int64(0), np.int64(0), np.int64(0)
    for site in range(4 * quad, 4 * quad + 4):
        line = sites[site]
        for k in range(64):
            luma += line[k]
            squares += np.int32(line[k]) * np.int32(line[k])
        for k in range(64, SITE, 2):
            u += line[k]
            v += line[k + 1]
            more += np.int32(line[k]) * np.int32(line[k]) + np.int32(line[k + 1]) * np.int32(line[k + 1])
    return 256 * squares - luma * luma + 16 * (64 * more - u * u - v * v)


@njit(cache=True, nogil=True)
def draw_afresh(
    blocks: np.ndarray,
    codes: np.ndarray,
    table: np.ndarray,
    target: np.ndarray,
    key: bool,
    knee: float,
    bits: float,
    price: float,
    base: np.ndarray,
    left: np.ndarray,
    kind: np.ndarray,
    split: np.ndarray,
    coarse: np.ndarray,
) -> None:
    """Draws quads of `blocks` with their coarse codes where that is better than to displace them, all of them on a key.

    table int16 (K, 16, 96): what codes add to grey. bits, price: squared error that a code, and quads with a word of
    their own, have to be worth. base, left, kind, split: as of `predict`, changed; coarse int64 (B,): codes in use.
    """
    drawn, error = np.empty((16, SITE), np.uint8), np.empty(16, np.int64)
    fresh, old, grey = np.empty(4), np.empty(4), np.uint8(128)
    for i in range(len(blocks)):
        b = blocks[i]
        for s in range(16):
            line, goal = table[codes[i], s], drawn[s]
            for j in range(SITE):
                goal[j] = plus(grey, line[j])
            error[s] = energy(target[16 * b + s], goal)
        all_fresh, all_old, mixed = 0.0, 0.0, 0.0
        for q in range(4):
            fresh[q] = worth(float(error[4 * q : 4 * q + 4].sum()), knee)
            all_fresh += fresh[q]
            if not key:
                old[q] = worth(float(left[16 * b + 4 * q : 16 * b + 4 * q + 4].sum()), knee)
                all_old += old[q]
                mixed += min(fresh[q], old[q])
        entire, partly = key, False
        if not key:
            whole, some, keep = all_fresh + bits, mixed + (bits + price), all_old + price * split[b]
            entire, partly = whole <= some and whole < keep, some < whole and some < keep
        for q in range(4):
            if entire or (partly and fresh[q] < old[q]):
                kind[b, q] = kind[b, q] if key else _AFRESH
                coarse[b] = codes[i]
                for s in range(4 * q, 4 * q + 4):
                    base[16 * b + s], left[16 * b + s] = drawn[s], error[s]
        split[b] |= partly
    if not key:
        for b in range(len(split)):
            split[b] &= not _same(kind[b])


@njit(inline="always")
def _same(row: np.ndarray) -> bool:
    return row[0] == row[1] and row[0] == row[2] and row[0] == row[3]


@njit(cache=True, nogil=True)
def widen(
    quads: np.ndarray,
    codes: np.ndarray,
    saved: np.ndarray,
    weight: np.ndarray,
    cost: float,
    table: np.ndarray,
    target: np.ndarray,
    base: np.ndarray,
    better: np.ndarray,
    left: np.ndarray,
    gain: np.ndarray,
    wide: np.ndarray,
    said: np.ndarray,
) -> None:
    """Gives the `quads` int64 (m,) whose code takes away what is worth more than `cost` that code.

    codes, saved: int64, float64 (m,). weight float64 (Q,): what taking an error away is worth. table int16 (K, 4, 96).
    base: sites before detail; better: with it; left int64 (N,): energy left, brought up to date. gain float64, wide
    bool, said int64 (Q,): what it gains, whether, the code.
    """
    for i in range(len(quads)):
        q = quads[i]
        if not weight[q] * saved[i] > cost:
            continue
        wide[q], gain[q], said[q] = True, weight[q] * saved[i] - cost, codes[i]
        for s in range(4):
            site, line = 4 * q + s, table[codes[i], s]
            mine, goal = base[site], better[site]
            for j in range(SITE):
                goal[j] = plus(mine[j], line[j])
            left[site] = energy(target[site], goal)


@njit(cache=True, nogil=True)
def best_patterns(
    active: np.ndarray,
    found: np.ndarray,
    saved: np.ndarray,
    weight: np.ndarray,
    cost: np.ndarray,
    patterns: np.ndarray,
    numbers: np.ndarray,
    wide: np.ndarray,
    codes: np.ndarray,
    chosen: np.ndarray,
    best: np.ndarray,
) -> None:
    """For each quad the pattern of depths of most gain, and that gain in whole numbers; the first on a tie.

    active int64 (m,): the sites that were looked at; found, saved: as of `Book.by_many_ways`, (S, S, m) and (S, m), or
    found (1, S, m) where all depths are on one way; weight float64 (Q,): as of `widen`. patterns int64 (P, 5): wide,
    then four depths; numbers int64 (2, S + 1, S + 1, S + 1, S + 1): the place of each of them, -1 if there is none.
    wide bool (Q,): which patterns a quad may take; codes int64 (S, N): receives those of the pattern; chosen int64,
    best float64 (Q,), nought where nothing gains.
    """
    stages, at = len(saved), 0
    gains, depth, place_of = np.zeros((4, stages + 1)), np.zeros(4, np.int64), np.zeros(4, np.int64)
    for q in range(len(wide)):
        depth[:] = 0
        hopeful = False
        while at < len(active) and active[at] < 4 * q + 4:
            site, total = active[at] - 4 * q, 0.0
            place_of[site] = at
            for k in range(stages):
                if found[min(k, len(found) - 1), k, at] < 0:
                    break
                total += weight[q] * saved[k, at] - cost[k]
                depth[site], gains[site, k + 1] = k + 1, np.rint(total)
                hopeful |= gains[site, k + 1] > 0
            at += 1
        if not (hopeful or wide[q]):
            continue
        most, pick = -np.inf, -1
        table = numbers[1 if wide[q] else 0]
        if (depth[0] + 1) * (depth[1] + 1) * (depth[2] + 1) * (depth[3] + 1) <= len(patterns):
            for a in range(depth[0] + 1):
                for b in range(depth[1] + 1):
                    for c in range(depth[2] + 1):
                        for d in range(depth[3] + 1):
                            total = gains[0, a] + gains[1, b] + gains[2, c] + gains[3, d]
                            place = table[a, b, c, d]
                            if place >= 0 and (total > most or (total == most and place < pick)):
                                most, pick = total, place
        else:
            for p in range(len(patterns)):
                row = patterns[p]
                if (row[0] == 1) != wide[q]:
                    continue
                if row[1] > depth[0] or row[2] > depth[1] or row[3] > depth[2] or row[4] > depth[3]:
                    continue
                total = gains[0, row[1]] + gains[1, row[2]] + gains[2, row[3]] + gains[3, row[4]]
                if total > most:
                    most, pick = total, p
        if pick >= 0:
            chosen[q], best[q] = pick, most
            for site in range(4):
                deep = patterns[pick, 1 + site]
                for k in range(deep):
                    codes[k, 4 * q + site] = found[min(deep, len(found)) - 1, k, place_of[site]]


@njit(cache=True, nogil=True)
def settle_detail(
    gain: np.ndarray,
    chosen: np.ndarray,
    cost: float,
    price: float,
    kind: np.ndarray,
    split: np.ndarray,
    patterns: np.ndarray,
    detail: np.ndarray,
    pattern: np.ndarray,
    wide: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Which quads of the last frame get a pattern: `detail` bool, `pattern` int64 (B, 4), and what these patterns say:
    `wide` bool (B, 4), `depth` int64 (B, 4, 4).

    gain float64 (B, 4): of the quads with their patterns `chosen` int64 (B, 4); cost: squared error that a pattern has
    to be worth; price: what it costs to name the quads of a block one by one, `split` bool (B,), brought up to date.
    """
    for b in range(len(gain)):
        some, at_once = 0.0, 0.0
        for q in range(4):
            some += max(gain[b, q] - cost, 0.0)
            at_once += max(gain[b, q], 0.0)
        at_once -= 4 * cost  # a block that is not split gives all quads a pattern, or none
        apart = some - price
        none = not split[b] and at_once <= 0 and apart <= 0
        one_by_one = split[b] or (not none and apart > at_once)
        for q in range(4):
            detail[b, q] = gain[b, q] > cost if one_by_one else not none
            pattern[b, q] = chosen[b, q] if detail[b, q] and gain[b, q] > 0 else 0
            said = patterns[pattern[b, q]]
            wide[b, q], depth[b, q] = said[0] == 1, said[1:]
        split[b] = one_by_one and not (_same(kind[b]) and _same(detail[b]))


@njit(cache=True, nogil=True)
def between(
    past: np.ndarray,
    phases: np.ndarray,
    cphases: np.ndarray,
    end: np.ndarray,
    end_phases: np.ndarray,
    end_cphases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    kind: np.ndarray,
    key: bool,
    frames: np.ndarray,
    knee: float,
    price: float,
    source: np.ndarray,
    base: np.ndarray,
    left: np.ndarray,
) -> None:
    """The frames between as a tick's ends give them, `base` (n - 1, N, 96), from the best `source` int64 (B,) of each
    block, and the energy that is left, `left` int64 (N,), summed over them.

    past, end: sites (N, 96) of both ends, the rest as of `predict`; kind may be beyond `vectors`, which means that a
    quad stays. key: there is no past, all is of the end. frames (n, N, 96): the tick. price: squared error that a
    source has to be worth.
    """
    count, inner = len(frames), len(frames) - 1
    earlier, later = np.empty((inner, 16, SITE), np.uint8), np.empty((inner, 16, SITE), np.uint8)
    usual, cost = np.empty(4, np.int64), np.empty(5)
    for b in range(len(source)):
        for q in range(4):
            known, quad = kind[b, q] < len(vectors), 4 * b + q
            usual[q] = 2 if key or kind[b, q] == _AFRESH else 0
            move_y, move_x = (vectors[kind[b, q], 0], vectors[kind[b, q], 1]) if known else (0, 0)
            for k in range(inner):
                y, x = on_line(move_y, k, count), on_line(move_x, k, count)
                at = (k * 16 + 4 * q) * SITE
                if not key:
                    if y == 0 and x == 0:
                        copy_quad(past, quad, earlier, at)
                    else:
                        fetch_quad(phases, cphases, corners, quad, y, x, earlier, at)
                if y == move_y and x == move_x:
                    copy_quad(end, quad, later, at)
                else:
                    fetch_quad(end_phases, end_cphases, corners, quad, y - move_y, x - move_x, later, at)
        sample = np.int64(0)
        for s in range(16):
            left[16 * b + s] = _blended(earlier, later, frames, b, s, usual[s // 4], base)
            sample += left[16 * b + s] if _seen(s) else 0
        if key or 2 * sample <= 2 * knee:
            continue
        cost[:] = price
        cost[0] = 2 * sample
        for s in range(16):
            if not _seen(s):
                continue
            for k in range(inner):
                first = 2.0 * energy(frames[k, 16 * b + s], earlier[k, s])
                last = 2.0 * energy(frames[k, 16 * b + s], later[k, s])
                cost[1] += first
                cost[2] += last
                cost[3] += first if k < 1 else last
                cost[4] += first if k < 2 else last
        pick = cost.argmin()
        source[b] = pick
        if pick == 0:
            continue
        for s in range(16):
            left[16 * b + s] = _blended(earlier, later, frames, b, s, pick, base)


@njit(inline="always")
def _blended(
    earlier: np.ndarray, later: np.ndarray, frames: np.ndarray, b: int, s: int, source: int, base: np.ndarray
) -> np.int64:
    """Site `s` of block `b` of the frames between, from `source`, into `base`; the energy that is left, over them all.

    earlier, later (n - 1, 16, 96): the block as both ends give it.
    """
    site, total = 16 * b + s, np.int64(0)
    for k in range(len(base)):
        blend(earlier, later, (k * 16 + s) * SITE, source, k, base, (k * base.shape[1] + site) * SITE)
        total += energy(frames[k, site], base[k, site])
    return total


@njit(inline="always")
def _seen(site: int) -> bool:
    """Half of the sites of a block, on the diagonals of its quads, are enough to tell where it should come from."""
    return site % 4 in (0, 3) if site // 4 in (0, 3) else site % 4 in (1, 2)


@njit(cache=True, nogil=True)
def settle_between(
    gain: np.ndarray,
    chosen: np.ndarray,
    cost: float,
    price: float,
    source: np.ndarray,
    patterns: np.ndarray,
    detail: np.ndarray,
    pattern: np.ndarray,
    depth: np.ndarray,
) -> None:
    """Which quads of the frames between get a pattern: as of `settle_detail`.

    gain, chosen, cost: as of `settle_detail`. price: squared error that a block's word has to be worth, unless it says
    another `source` int64 (B,), or courses, anyway.
    """
    for b in range(len(gain)):
        total = 0.0
        for q in range(4):
            total += max(gain[b, q] - cost, 0.0)
        more = total > (price if source[b] == 0 else 0.0)
        for q in range(4):
            detail[b, q] = more and gain[b, q] > cost
            pattern[b, q] = chosen[b, q] if detail[b, q] else 0
            depth[b, q] = patterns[pattern[b, q], 1:]
