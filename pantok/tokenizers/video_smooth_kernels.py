"""The loops of smoothing (`video_smooth`), compiled: integers of eight and sixteen bits, so the same on every machine.

What is unusual: sums of four neighbours that are no further than 31 from the middle differ from four times the middle
by at most 124. So they are right in eight bits although the sum itself overflows, and a register holds 32 of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

SHIFT = 9
"""A weight of 1 << SHIFT is one."""
EDGE = 3
"""How far the widest ring reaches."""
_HALF = np.int16(1 << (SHIFT - 1))
_SHIFT = np.int16(SHIFT)
_PART = 2048  # pixels at a time


@njit(inline="always")
def _four(
    middle: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, limit: int, out: np.ndarray
) -> None:
    """Of each pixel how far four neighbours are above it, none by more than `limit` either way, into `out` int8."""
    top = np.uint8(255)
    for x in range(len(out)):
        mine = middle[x]
        least = np.uint8(mine - min(mine, limit))
        most = np.uint8(mine + min(np.uint8(top - mine), limit))
        total = np.uint8(min(max(a[x], least), most) + min(max(b[x], least), most))
        total = np.uint8(total + min(max(c[x], least), most))
        total = np.uint8(total + min(max(d[x], least), most))
        out[x] = np.int8(np.uint8(total - np.uint8(mine << np.uint8(2))))


@njit(inline="always")
def _sums(flat: np.ndarray, at: int, wide: int, limits: np.ndarray, out: np.ndarray) -> None:
    """`_four` for each of `video_smooth.FOURS` of the pixels from place `at` on, into `out` int8 (7, n).

    flat: uint8, lines of `wide` pixels one after another, with EDGE pixels and more around those that are meant.
    limits: uint8 (7,).
    """
    end, one, two, three = at + out.shape[1], wide, 2 * wide, 3 * wide
    m = flat[at:end]
    u, d = flat[at - one : end - one], flat[at + one : end + one]
    _four(m, u, d, flat[at - 1 : end - 1], flat[at + 1 : end + 1], limits[0], out[0])
    ul, ur = flat[at - one - 1 : end - one - 1], flat[at - one + 1 : end - one + 1]
    _four(m, ul, ur, flat[at + one - 1 : end + one - 1], flat[at + one + 1 : end + one + 1], limits[1], out[1])
    u, d = flat[at - two : end - two], flat[at + two : end + two]
    _four(m, u, d, flat[at - 2 : end - 2], flat[at + 2 : end + 2], limits[2], out[2])
    ul, ur = flat[at - one - 2 : end - one - 2], flat[at - one + 2 : end - one + 2]
    _four(m, ul, ur, flat[at + one - 2 : end + one - 2], flat[at + one + 2 : end + one + 2], limits[3], out[3])
    ul, ur = flat[at - two - 1 : end - two - 1], flat[at - two + 1 : end - two + 1]
    _four(m, ul, ur, flat[at + two - 1 : end + two - 1], flat[at + two + 1 : end + two + 1], limits[4], out[4])
    ul, ur = flat[at - two - 2 : end - two - 2], flat[at - two + 2 : end - two + 2]
    _four(m, ul, ur, flat[at + two - 2 : end + two - 2], flat[at + two + 2 : end + two + 2], limits[5], out[5])
    u, d = flat[at - three : end - three], flat[at + three : end + three]
    _four(m, u, d, flat[at - 3 : end - 3], flat[at + 3 : end + 3], limits[6], out[6])


@njit(inline="always")
def _pulled(pixels: np.ndarray, sums: np.ndarray, weights: np.ndarray, total: np.ndarray, out: np.ndarray) -> None:
    """Pixels (n,) moved by their `_sums` (7, n) times the weights, into `out`. total: int16 (n,), used meanwhile."""
    a, b, c, d = sums[0], sums[1], sums[2], sums[3]
    for x in range(len(out)):
        first = np.int16(np.int16(weights[0] * np.int16(a[x])) + np.int16(weights[1] * np.int16(b[x])))
        then = np.int16(np.int16(weights[2] * np.int16(c[x])) + np.int16(weights[3] * np.int16(d[x])))
        total[x] = np.int16(np.int16(first + then) + _HALF)
    a, b, c = sums[4], sums[5], sums[6]
    for x in range(len(out)):
        first = np.int16(np.int16(weights[4] * np.int16(a[x])) + np.int16(weights[5] * np.int16(b[x])))
        every = np.int16(np.int16(total[x] + first) + np.int16(weights[6] * np.int16(c[x])))
        pixel = np.int16(np.int16(pixels[x]) + np.int16(every >> _SHIFT))
        out[x] = np.uint8(min(max(pixel, np.int16(0)), np.int16(255)))


@njit(inline="always")
def _copy(line: np.ndarray, out: np.ndarray) -> None:
    """What an assignment of slices does, which looks first whether they overlap, and then goes pixel by pixel."""
    for x in range(len(out)):
        out[x] = line[x]


@njit(inline="always")
def _smooth(
    plane: np.ndarray,
    wide: int,
    limits: np.ndarray,
    weights: np.ndarray,
    flat: np.ndarray,
    made: np.ndarray,
    sums: np.ndarray,
    total: np.ndarray,
) -> None:
    """Smooths a plane in place: lines of `wide` pixels one after another, the outermost pixels repeated beyond them.
    limits uint8 (7,), weights int16 (7,); the others are room to work in.

    Lines with what is repeated go through as one long one: of lines by themselves the rest that fills no register costs
    most in small pictures.
    """
    tall, line = len(plane) // wide, wide + 2 * EDGE
    for y in range(tall + 2 * EDGE):
        at, goal = min(max(y - EDGE, 0), tall - 1) * wide, y * line
        for k in range(EDGE):
            flat[goal + k] = plane[at]
            flat[goal + EDGE + wide + k] = plane[at + wide - 1]
        _copy(plane[at : at + wide], flat[goal + EDGE : goal + EDGE + wide])
    first, count = EDGE * line + EDGE, (tall - 1) * line + wide
    for at in range(0, count, _PART):
        some = min(_PART, count - at)
        here = sums if some == _PART else np.empty((7, some), np.int8)
        _sums(flat, first + at, line, limits, here)
        _pulled(flat[first + at : first + at + some], here, weights, total, made[at : at + some])
    for y in range(tall):
        _copy(made[y * line : y * line + wide], plane[y * wide : y * wide + wide])


@njit(cache=True, nogil=True)
def smooth(frames: np.ndarray, height: int, width: int, limits: np.ndarray, weights: np.ndarray) -> None:
    """Smooths planar YUV 4:2:0 frames (n, frame_bytes) in place. limits uint8 (2, 7), weights int16 (2, 7): luma,
    chroma."""
    w2 = (width + 1) // 2
    luma, chroma = height * width, (height + 1) // 2 * w2
    flat = np.empty((height + 2 * EDGE) * (width + 2 * EDGE), np.uint8)
    made = np.empty(len(flat), np.uint8)
    sums, total = np.empty((7, _PART), np.int8), np.empty(_PART, np.int16)
    # One place where a plane is smoothed: what is inlined there takes seconds to compile.
    for k in range(3 * len(frames)):
        frame, plane = frames[k // 3], k % 3
        if plane == 0:
            first, last, wide, kind = 0, luma, width, 0
        else:
            first, last, wide, kind = luma + (plane - 1) * chroma, luma + plane * chroma, w2, 1
        _smooth(frame[first:last], wide, limits[kind], weights[kind], flat, made, sums, total)


@njit(cache=True, nogil=True)
def tally(
    lines: np.ndarray, margin: int, target: np.ndarray, first: int, step: int, limits: np.ndarray, out: np.ndarray
) -> None:
    """Adds to `out` int64 (8, 8), above its diagonal, the products of what `_sums` gives and, last, of what is missing
    to `target` (h, w), summed over every `step`-th line from `first` on.

    lines: the picture within a contiguous one that has `margin` pixels and more around it. limits: uint8 (7,).
    """
    h, w = target.shape
    flat, wide = lines.ravel(), lines.shape[1]
    sums, left = np.empty((7, w), np.int8), np.empty(w, np.int16)
    for y in range(first, h, step):
        at, wanted = (y + margin) * wide + margin, target[y]
        _sums(flat, at, wide, limits, sums)
        mine = flat[at : at + w]
        for x in range(w):
            left[x] = np.int16(np.int16(wanted[x]) - np.int16(mine[x]))
        for i in range(7):
            a = sums[i]
            for j in range(i, 7):
                out[i, j] += _dot(a, sums[j])
            out[i, 7] += _dot(a, left)
        out[7, 7] += _dot(left, left)


@njit(cache=True, nogil=True)
def columns(
    lines: np.ndarray, margin: int, target: np.ndarray, first: int, step: int, limits: np.ndarray, out: np.ndarray
) -> None:
    """What `tally` multiplies, for each of several `limits` uint8 (m,) that are the same of all fours, into `out`
    float64 (7 m + 1, lines, w)."""
    w = target.shape[1]
    flat, wide = lines.ravel(), lines.shape[1]
    sums, same = np.empty((7, w), np.int8), np.empty(7, np.uint8)
    for k in range(out.shape[1]):
        y = first + k * step
        at = (y + margin) * wide + margin
        for m in range(len(limits)):
            same[:] = limits[m]
            _sums(flat, at, wide, same, sums)
            for i in range(7):
                for x in range(w):
                    out[7 * m + i, k, x] = sums[i, x]
        for x in range(w):
            out[7 * len(limits), k, x] = np.float64(target[y, x]) - np.float64(flat[at + x])


@njit(inline="always")
def _dot(a: np.ndarray, b: np.ndarray) -> int:
    """The sum of products; parts of it in 32 bits, which hold those of 2^15 pixels."""
    whole = 0
    for at in range(0, len(a), 32768):
        mine, other = a[at : at + 32768], b[at : at + 32768]
        part: Any = np.int32(0)
        for x in range(len(mine)):
            part = np.int32(part + np.int32(np.int32(mine[x]) * np.int32(other[x])))
        whole += part
    return whole
