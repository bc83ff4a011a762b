"""The inner loops of the search for displacements, compiled; all of them integers, so the same on every machine.

What is unusual: what is to be compared is first gathered, eight samples at a time, so that every comparison runs along
one line of memory. Letters: B blocks, Q quads of 16x16, N sites. All pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_cut_kernels import repeat_edges
from pantok.tokenizers.video_kernels import worth
from pantok.tokenizers.video_words import put_word, word_at


@njit(inline="always")
def squares(a: np.ndarray, b: np.ndarray) -> int:
    total = int32(0)
    for j in range(len(a)):
        gap = int32(int32(a[j]) - int32(b[j]))
        total = int32(total + int32(gap * gap))
    return total


@njit(inline="always")
def _differences(a: np.ndarray, b: np.ndarray) -> int:
    total = int32(0)
    for j in range(len(a)):
        total = int32(total + abs(int32(int32(a[j]) - int32(b[j]))))
    return total


@njit(inline="always")
def lines_of(frames: np.ndarray, frame: int, quad: int, step: int, out: np.ndarray) -> None:
    """Every `step`-th line of luma of a quad of sites `frames` (f, N, 96), 16 samples each, into `out`."""
    base, at = (frame * frames.shape[1] + 4 * quad) * 96, 0
    for r in range(0, 16, step):
        line = base + r // 8 * 192 + r % 8 * 8
        put_word(out, at, word_at(frames, line))
        put_word(out, at + 8, word_at(frames, line + 96))
        at += 16


@njit(inline="always")
def lines_there(phases: np.ndarray, corners: np.ndarray, quad: int, y: int, x: int, step: int, out: np.ndarray) -> None:
    """As `lines_of`, of the reference displaced by (y, x) half samples."""
    _, height, width = phases.shape
    top, left = corners[quad, 0] + (y >> 1), corners[quad, 1] + (x >> 1)
    line = (((y & 1) * 2 + (x & 1)) * height + top) * width + left
    for at in range(0, 256 // step, 16):
        put_word(out, at, word_at(phases, line))
        put_word(out, at + 8, word_at(phases, line + 8))
        line += step * width


@njit(cache=True, nogil=True)
def choose_moves(
    phases: np.ndarray,
    corners: np.ndarray,
    frames: np.ndarray,
    moves: np.ndarray,
    owner: np.ndarray,
    knee: float,
    price: float,
    kind: np.ndarray,
    split: np.ndarray,
) -> None:
    """One displacement for each block, or one for each of its quads where that is worth `price` more: `kind` int64
    (B, 4), `split` bool (B,).

    frames: sites uint8 (f, N, 96) over which the error is summed; moves int64 (f, m, 2): each displacement, as far as
    each frame is; owner int64 (B, 4): where to begin. A block tries what its quads own, and to stay; quads that are
    badly predicted try all displacements. Errors are of luma on every second row; the first wins a tie.
    """
    count = len(frames)
    scale = 2 // count
    here, there = np.empty((4, count, 128), np.uint8), np.empty(128, np.uint8)
    own, error, pick = np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int64)
    for b in range(len(owner)):
        for q in range(4):
            for f in range(count):
                lines_of(frames, f, 4 * b + q, 2, here[q, f])
        best, whole = np.inf, 0
        for number in range(5):
            choice = owner[b, number] if number < 4 else 0
            seen = False
            for k in range(number):
                seen |= owner[b, k] == choice
            if seen:
                continue
            total = 0.0
            for q in range(4):
                error[q] = 0
                for f in range(count):
                    lines_there(phases, corners, 4 * b + q, moves[f, choice, 0], moves[f, choice, 1], 2, there)
                    error[q] += scale * squares(here[q, f], there)
                if owner[b, q] == choice:
                    own[q] = error[q]
                total += worth(float(error[q]), knee)
            if total < best:
                best, whole = total, choice
        apart = 0.0
        for q in range(4):
            pick[q], least = owner[b, q], own[q]
            if least > knee / 2:
                for v in range(moves.shape[1]):
                    if v == owner[b, q]:
                        continue
                    found = 0
                    for f in range(count):
                        lines_there(phases, corners, 4 * b + q, moves[f, v, 0], moves[f, v, 1], 2, there)
                        found += scale * squares(here[q, f], there)
                        if found > least:
                            break
                    if found < least or (found == least and v < pick[q]):
                        least, pick[q] = found, v
            apart += worth(float(least), knee)
        split[b] = apart + price < best
        for q in range(4):
            kind[b, q] = pick[q] if split[b] else whole


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
    of `sites` (1, N, 96) that they own fit best; a quarter of the rows is enough to tell. which, owner: int64 (k,)."""
    around = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]])
    here, there = np.empty(64, np.uint8), np.empty(64, np.uint8)
    for step in (2, 1):
        errors = np.zeros((len(around), len(vectors)), np.int64)
        for i in range(len(which)):
            mine = owner[i]
            lines_of(sites, 0, which[i], 4, here)
            for k in range(len(around)):
                y = min(max(vectors[mine, 0] + step * around[k, 0], -limit), limit)
                x = min(max(vectors[mine, 1] + step * around[k, 1], -limit), limit)
                lines_there(phases, corners, which[i], y, x, 4, there)
                errors[k, mine] += squares(here, there)
        for v in range(1, len(vectors)):
            pick = 0
            for k in range(1, len(around)):
                if errors[k, v] < errors[pick, v]:
                    pick = k
            for axis in range(2):
                vectors[v, axis] = min(max(vectors[v, axis] + step * around[pick, axis], -limit), limit)


@njit(cache=True, nogil=True)
def halved_sites(sites: np.ndarray, columns: int, pad: int, out: np.ndarray) -> None:
    """Luma of sites (N, 96) at half size, `columns` blocks wide, in the middle of `out` (H/2 + 2 pad, W/2 + 2 pad)."""
    for i in range(len(sites)):
        block, quad, small = i // 16, i % 16 // 4, i % 4
        y = block // columns * 16 + quad // 2 * 8 + small // 2 * 4 + pad
        x = block % columns * 16 + quad % 2 * 8 + small % 2 * 4 + pad
        site = sites[i]
        for r in range(4):
            for c in range(4):
                at = 16 * r + 2 * c
                rows = int32(site[at]) + int32(site[at + 1]) + int32(site[at + 8]) + int32(site[at + 9])
                out[y + r, x + c] = (rows + 2) >> 2
    repeat_edges(out, pad, pad, 1)


@njit(cache=True, nogil=True)
def halved(plane: np.ndarray, around: int, pad: int, out: np.ndarray) -> None:
    """Means of 2x2, rounded, of the middle of `plane`, that has `around` samples about it, in the middle of `out`."""
    height, width = out.shape[0] - 2 * pad, out.shape[1] - 2 * pad
    for y in range(height):
        above, below = plane[around + 2 * y, around:], plane[around + 2 * y + 1, around:]
        goal = out[pad + y, pad:]
        for x in range(width):
            rows = int32(above[2 * x]) + int32(above[2 * x + 1]) + int32(below[2 * x]) + int32(below[2 * x + 1])
            goal[x] = (rows + 2) >> 2
    repeat_edges(out, pad, pad, 1)


@njit(cache=True, nogil=True)
def match_all(
    now: np.ndarray, padded: np.ndarray, pad: int, offsets: np.ndarray, out: np.ndarray, still: np.ndarray
) -> None:
    """As `match_blocks`, of 4x4 blocks that all try the same offsets: rows of blocks at a time.

    now: (4 rows, 4 columns); the rest as there, but that to stay is not preferred.
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
                    sums[c] += np.int16(abs(np.int16(np.int16(a[c]) - np.int16(b[c]))))
            for bx in range(columns):
                total = int32(0)
                for c in range(4):
                    total = int32(total + int32(sums[4 * bx + c]))
                if k == 0:
                    still[by * columns + bx] = total
                if total < least[bx]:
                    least[bx] = total
                    out[by * columns + bx, 0], out[by * columns + bx, 1] = dy, dx


@njit(inline="always")
def square_of(plane: np.ndarray, top: int, left: int, size: int, out: np.ndarray) -> None:
    """Samples of a square of `plane`, a multiple of 8 wide, into `out`."""
    at = 0
    for r in range(size):
        line = (top + r) * plane.shape[1] + left
        for c in range(0, size, 8):
            put_word(out, at, word_at(plane, line + c))
            at += 8


@njit(cache=True, nogil=True)
def plane_gaps(now: np.ndarray, padded: np.ndarray, pad: int, vectors: np.ndarray, out: np.ndarray) -> None:
    """Squared error of each 8x8 of `now` (h, w) under displacements int64 (c, 2) in whole samples: `out` int64
    (c, h / 8 * w / 8).

    padded: the other picture with `pad` samples around it.
    """
    columns = now.shape[1] // 8
    here, there = np.empty(64, np.uint8), np.empty(64, np.uint8)
    for block in range(out.shape[1]):
        top, left = block // columns * 8, block % columns * 8
        square_of(now, top, left, 8, here)
        for i in range(len(vectors)):
            square_of(padded, pad + top + vectors[i, 0], pad + left + vectors[i, 1], 8, there)
            out[i, block] = squares(here, there)


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

    now: (rows * size, columns * size), size a multiple of 8; padded: the other picture with `pad` samples around it.
    """
    columns = now.shape[1] // size
    here, there = np.empty(size * size, np.uint8), np.empty(size * size, np.uint8)
    for block in range(len(start)):
        top, left = block // columns * size, block % columns * size
        square_of(now, top, left, size, here)
        least = np.int64(1) << 60
        for k in range(len(offsets)):
            dy = min(max(start[block, 0] + offsets[k, 0], -limit), limit)
            dx = min(max(start[block, 1] + offsets[k, 1], -limit), limit)
            square_of(padded, pad + top + dy, pad + left + dx, size, there)
            total = np.int64(_differences(here, there))
            if k == 0:
                still[block] = total
                total -= stay
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
def popular(vectors: np.ndarray, weight: np.ndarray, before: np.ndarray, most: int, out: np.ndarray) -> int:
    """The `most` displacements that have most weight, the first in order on a tie, then those of `before`, none twice
    and none zero, into `out` int64 (k, 2) as far as there is room. Returns how many.

    vectors int64 (B, 2), before int64 (n, 2): of at most 15 along an axis; weight int64 (B,).
    """
    votes, seen = np.zeros((31, 31), np.int64), np.zeros((31, 31), np.bool_)
    seen[15, 15] = True
    for b in range(len(vectors)):
        votes[vectors[b, 0] + 15, vectors[b, 1] + 15] += weight[b]
    count = 0
    for number in range(most + len(before)):
        if number < most:
            place = votes.argmax()
            y, x = place // 31, place % 31
            if votes[y, x] == 0:
                continue
            votes[y, x] = 0
        else:
            y, x = before[number - most, 0] + 15, before[number - most, 1] + 15
        if not seen[y, x] and count < len(out):
            seen[y, x] = True
            out[count, 0], out[count, 1] = y - 15, x - 15
            count += 1
    return count


@njit(cache=True, nogil=True)
def merge_equal(vectors: np.ndarray, owner: np.ndarray) -> int:
    """Moves the displacements of `vectors` int64 (m, 2) that are in use, and the first, to its front, one of each, and
    brings `owner` int64 (...), which counts them, up to date. Returns how many are left."""
    place, used = np.arange(len(vectors)), np.zeros(len(vectors), np.bool_)
    for v in range(len(vectors)):
        for earlier in range(v):
            if vectors[earlier, 0] == vectors[v, 0] and vectors[earlier, 1] == vectors[v, 1]:
                place[v] = earlier
                break
    flat = owner.reshape(-1)
    for i in range(len(flat)):
        flat[i] = place[flat[i]]
        used[flat[i]] = True
    used[0], count = True, 0
    for v in range(len(vectors)):
        if used[v]:
            vectors[count], place[v] = vectors[v], count
            count += 1
    for i in range(len(flat)):
        flat[i] = place[flat[i]]
    return count
