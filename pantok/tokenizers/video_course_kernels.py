"""The inner loops of courses, compiled: how a quad gets from one end of a tick to the other, see `video_course`.

What is unusual: a course is three steps, one for each frame between, and all courses share few steps. A quad measures
each step once; what a course costs is then a sum of three numbers from a table. Sums are of integers.

Letters: B blocks of 32x32, Q quads of 16x16, N sites, S steps, K courses. Pictures are uint8.
"""

from __future__ import annotations

import numpy as np
from numba import int32, njit

from pantok.tokenizers.video_kernels import SITE, energy, fetch_quad, on_line, worth
from pantok.tokenizers.video_motion_kernels import lines_of, lines_there, squares
from pantok.tokenizers.video_words import mean_of_words, put_word, word_at

_BOTH, _PAST, _END = 0, 1, 2  # as in `video_course`
_AFRESH = 31  # as in `video_books`
_REACH = 63  # as in `video_grid`


@njit(inline="always")
def _within(place: int) -> int:
    return min(max(place, -_REACH), _REACH)


@njit(inline="always")
def _step(
    phases: np.ndarray,
    cphases: np.ndarray,
    end_phases: np.ndarray,
    end_cphases: np.ndarray,
    corners: np.ndarray,
    quad: int,
    mode: int,
    y: int,
    x: int,
    move_y: int,
    move_x: int,
    other: np.ndarray,
    out: np.ndarray,
    goal: int,
) -> None:
    """A quad of a frame between, (y, x) from its place in the past, into the contiguous `out` from byte `goal` on.
    other: (4, 96), spoiled."""
    if mode != _END:
        fetch_quad(phases, cphases, corners, quad, y, x, out, goal)
    if mode != _PAST:
        v, u = _within(y - move_y), _within(x - move_x)
        if mode == _END:
            fetch_quad(end_phases, end_cphases, corners, quad, v, u, out, goal)
        else:
            fetch_quad(end_phases, end_cphases, corners, quad, v, u, other, 0)
            for k in range(0, 4 * SITE, 8):
                put_word(out, goal + k, mean_of_words(word_at(out, goal + k), word_at(other, k)))


@njit(cache=True, nogil=True)
def follow(
    phases: np.ndarray,
    cphases: np.ndarray,
    end_phases: np.ndarray,
    end_cphases: np.ndarray,
    corners: np.ndarray,
    moves: np.ndarray,
    key: bool,
    course: np.ndarray,
    table: np.ndarray,
    out: np.ndarray,
) -> None:
    """Draws the quads that have a course, `course` int64 (Q,) of 1 + its number, into the frames between, `out` (n - 1,
    N, 96). moves int64 (Q, 2); table: int64 (K, 3, 3). key: there is no past, all is of the end."""
    count = len(out) + 1
    other = np.empty((4, SITE), np.uint8)
    for quad in range(len(course)):
        if course[quad] == 0:
            continue
        for k in range(len(out)):
            step = table[course[quad] - 1, k]
            y = _within(on_line(moves[quad, 0], k, count) + step[1])
            x = _within(on_line(moves[quad, 1], k, count) + step[2])
            _step(
                phases, cphases, end_phases, end_cphases, corners, quad, _END if key else step[0], y, x,
                moves[quad, 0], moves[quad, 1], other, out, (k * out.shape[1] + 4 * quad) * SITE,
            )  # fmt: skip


@njit(inline="always")
def _apart(
    phases: np.ndarray,
    end_phases: np.ndarray,
    corners: np.ndarray,
    inner: int,
    quad: int,
    move_y: int,
    move_x: int,
    there: np.ndarray,
    other: np.ndarray,
) -> np.int64:
    """Squared difference of luma between what both ends predict along the straight line, summed over the `inner` frames
    between. there, other: (128,), spoiled."""
    total = np.int64(0)
    for k in range(inner):
        y, x = on_line(move_y, k, inner + 1), on_line(move_x, k, inner + 1)
        lines_there(phases, corners, quad, y, x, 2, there)
        lines_there(end_phases, corners, quad, y - move_y, x - move_x, 2, other)
        total += 2 * squares(there, other)
    return total


@njit(inline="always")
def _measure(
    phases: np.ndarray,
    end_phases: np.ndarray,
    corners: np.ndarray,
    frames: np.ndarray,
    quad: int,
    move_y: int,
    move_x: int,
    steps: np.ndarray,
    here: np.ndarray,
    there: np.ndarray,
    other: np.ndarray,
    errors: np.ndarray,
) -> None:
    """Squared error of luma of a quad, on every second row, by each step: `errors` int32 (n - 1, S). steps int64 (S,
    3). here, there, other: (128,), spoiled."""
    count = len(frames)
    for k in range(count - 1):
        lines_of(frames, k, quad, 2, here)
        line_y, line_x = on_line(move_y, k, count), on_line(move_x, k, count)
        for s in range(len(steps)):
            mode, y, x = steps[s, 0], _within(line_y + steps[s, 1]), _within(line_x + steps[s, 2])
            if mode != _END:
                lines_there(phases, corners, quad, y, x, 2, there)
            if mode == _END:
                lines_there(end_phases, corners, quad, _within(y - move_y), _within(x - move_x), 2, there)
            elif mode == _BOTH:
                lines_there(end_phases, corners, quad, _within(y - move_y), _within(x - move_x), 2, other)
                for j in range(0, 128, 8):
                    put_word(there, j, mean_of_words(word_at(there, j), word_at(other, j)))
            errors[k, s] = squares(here, there)


@njit(cache=True, nogil=True)
def measure_steps(
    phases: np.ndarray,
    end_phases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    kind: np.ndarray,
    frames: np.ndarray,
    quads: np.ndarray,
    steps: np.ndarray,
    out: np.ndarray,
) -> None:
    """Squared error of luma of the `quads` int64 (m,), on every second row, by each of `steps` int64 (S, 3) in each
    frame between: `out` int32 (m, n - 1, S). frames (n, N, 96): the tick; vectors, kind: as of `choose_courses`."""
    here, there, other = np.empty(128, np.uint8), np.empty(128, np.uint8), np.empty(128, np.uint8)
    for i in range(len(quads)):
        name = kind[quads[i] // 4, quads[i] % 4]
        y, x = (vectors[name, 0], vectors[name, 1]) if name < len(vectors) else (0, 0)
        _measure(phases, end_phases, corners, frames, quads[i], y, x, steps, here, there, other, out[i])


@njit(inline="always")
def _least(errors: np.ndarray, numbers: np.ndarray) -> int:
    """The course of least error, the first on a tie. errors: int32 (3, S); numbers: int16 (3, K)."""
    fewest, place = int32(0x7FFFFFFF), 0
    early, middle, late = errors[0], errors[1], errors[2]
    first, second, third = numbers[0], numbers[1], numbers[2]
    for c in range(len(first)):
        gap = int32(int32(early[first[c]] + middle[second[c]]) + late[third[c]])
        if gap < fewest:
            fewest, place = gap, c
    return place


@njit(cache=True, nogil=True)
def choose_courses(
    phases: np.ndarray,
    cphases: np.ndarray,
    end_phases: np.ndarray,
    end_cphases: np.ndarray,
    corners: np.ndarray,
    vectors: np.ndarray,
    kind: np.ndarray,
    frames: np.ndarray,
    inside: np.ndarray,
    steps: np.ndarray,
    numbers: np.ndarray,
    knee: float,
    bits: float,
    price: float,
    least: float,
    apart: float,
    source: np.ndarray,
    course: np.ndarray,
    base: np.ndarray,
    left: np.ndarray,
) -> None:
    """Gives quads a course where that is worth it: `course` int64 (B, 4), 1 + its number. A block in which one has a
    course has no `source` int64 (B,) of its own; `base` and `left` are as of `video_choose_kernels.between`, changed.

    frames (n, N, 96): the tick. phases to corners: of both ends as of `video_kernels.fetch`. vectors int64 (m, 2), kind
    int64 (B, 4) into them. inside bool (Q,): quads that hold some of the picture. steps int64 (S, 3); numbers int16
    (3, K): the steps of each course. bits, price: squared error that a course, and a block's word, have to be
    worth; least: what a quad has to have to be looked at, apart: how far both ends have to differ about it.
    """
    count, inner = len(frames), len(frames) - 1
    here, there, other = np.empty(128, np.uint8), np.empty(128, np.uint8), np.empty(128, np.uint8)
    errors, second = np.empty((inner, len(steps)), np.int32), np.empty((4, SITE), np.uint8)
    plain, drawn = np.empty((inner, 16, SITE), np.uint8), np.empty((inner, 16, SITE), np.uint8)
    rest, new = np.empty(16, np.int64), np.empty(16, np.int64)
    pick, looked = np.empty(4, np.int64), np.empty(4, np.bool_)
    for b in range(len(source)):
        stated, total, some = source[b] > 0, 0.0, False
        for q in range(4):
            quad = 4 * b + q
            mine = float(left[4 * quad : 4 * quad + 4].sum())
            total += worth(mine, knee)
            known = kind[b, q] < len(vectors)
            move_y, move_x = (vectors[kind[b, q], 0], vectors[kind[b, q], 1]) if known else (0, 0)
            looked[q] = mine >= least and inside[quad]
            if looked[q]:
                looked[q] = _apart(phases, end_phases, corners, inner, quad, move_y, move_x, there, other) >= apart
            some |= looked[q]
        if not some:
            continue
        better = price * (not stated)
        for q in range(4):
            quad = 4 * b + q
            known = kind[b, q] < len(vectors)
            move_y, move_x = (vectors[kind[b, q], 0], vectors[kind[b, q], 1]) if known else (0, 0)
            usual, pick[q] = np.int64(0), 0
            if stated:  # as the block would be without a source of its own
                for k in range(inner):
                    _step(
                        phases, cphases, end_phases, end_cphases, corners, quad,
                        _END if kind[b, q] == _AFRESH else _BOTH, on_line(move_y, k, count),
                        on_line(move_x, k, count), move_y, move_x, second, plain, (k * 16 + 4 * q) * SITE,
                    )  # fmt: skip
            for s in range(4 * q, 4 * q + 4):
                rest[s] = left[16 * b + s]
                if stated:
                    rest[s] = 0
                    for k in range(inner):
                        rest[s] += energy(frames[k, 16 * b + s], plain[k, s])
                usual += rest[s]
            now = worth(float(usual), knee)
            if looked[q]:
                _measure(phases, end_phases, corners, frames, quad, move_y, move_x, steps, here, there, other, errors)
                pick[q] = 1 + _least(errors, numbers)
                found = np.int64(0)
                for k in range(inner):
                    step = steps[numbers[k, pick[q] - 1]]
                    _step(
                        phases, cphases, end_phases, end_cphases, corners, quad, step[0],
                        _within(on_line(move_y, k, count) + step[1]), _within(on_line(move_x, k, count) + step[2]),
                        move_y, move_x, second, drawn, (k * 16 + 4 * q) * SITE,
                    )  # fmt: skip
                for s in range(4 * q, 4 * q + 4):
                    new[s] = 0
                    for k in range(inner):
                        new[s] += energy(frames[k, 16 * b + s], drawn[k, s])
                    found += new[s]
                then = worth(float(found), knee) + bits
                if then < now:
                    now = then
                else:
                    pick[q] = 0
            better += now
        if pick.max() == 0 or not better < total:
            continue
        source[b] = 0
        for q in range(4):
            course[b, q] = pick[q]
            if pick[q] == 0 and not stated:
                continue
            for s in range(4 * q, 4 * q + 4):
                left[16 * b + s] = new[s] if pick[q] > 0 else rest[s]
                for k in range(inner):
                    base[k, 16 * b + s] = drawn[k, s] if pick[q] > 0 else plain[k, s]


@njit(cache=True, nogil=True)
def nearest_courses(errors: np.ndarray, numbers: np.ndarray, found: np.ndarray, least: np.ndarray) -> None:
    """The course of least error of each quad, `found` int64 (m,), the first on a tie, and that error, `least` int64
    (m,). errors: int32 (m, 3, S); numbers int64 (K, 3)."""
    for i in range(len(errors)):
        fewest = np.int64(1) << 62
        for c in range(len(numbers)):
            gap = np.int64(0)
            for k in range(errors.shape[1]):
                gap += errors[i, k, numbers[c, k]]
            if gap < fewest:
                fewest, found[i] = gap, c
        least[i] = fewest
