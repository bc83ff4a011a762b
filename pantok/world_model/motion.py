"""The picture that comes next if what moves goes on moving: from the last two frames alone, in closed form.

What is unusual: no motion is decided on. Every displacement up to REACH pixels is a hypothesis, as likely at a place as
the last two frames agree along it and as the picture moves so elsewhere (shares by expectation maximisation), and the
picture is the mean over all hypotheses: sharp where one explains what was seen, the more of a blur the less is known.
A hypothesis is judged where it comes from, not where it leads to, so what is moved over something covers it.

    carried(before, last, ahead=4)          # (lines, columns, 3): four frames after the last

Deterministic: one thread, sums in one order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

REACH = 8
"""Pixels of the small picture that something may move, down or across, until the picture comes; at most a quarter of
its lines."""
HALF = 3
"""Frames are compared in blocks of 2 HALF + 1 pixels a side."""
NOISE = 10.0
"""Squared grey levels by which blocks differ for nothing."""
DOUBT = 4.0
"""By how much more, for each squared grey level by which the best hypothesis is wrong: where none fits, all are apt to
be."""
STILL = 0.1
"""How much less likely, in nats, a displacement is at first for each pixel of its length."""
ROUNDS = 2
"""Of learning how much of the picture moves in which way."""
CELL = 2
"""Pixels a side that have their displacement in common."""
LUMA = (np.float32(0.299), np.float32(0.587), np.float32(0.114))


def carried(before: np.ndarray, last: np.ndarray, ahead: int) -> np.ndarray:
    """float32 (lines, columns, 3): what is shown `ahead` frames after `last`, which came one after `before`; both like
    it, of any number type, in grey levels."""
    before, last = (np.ascontiguousarray(p, np.float32) for p in (before, last))
    reach = min(REACH, max(1, last.shape[0] // 4))
    fits = _misfits(_luma(before), _luma(last), ahead, reach, HALF, CELL)
    return _mixed(fits, last, reach, np.float32(NOISE), np.float32(DOUBT), np.float32(STILL), ROUNDS, CELL)


def _luma(picture: np.ndarray) -> np.ndarray:
    """float32 (lines, columns); no product of matrices, whose last bit depends on where the picture lies in memory."""
    return np.asarray(picture[..., 0] * LUMA[0] + picture[..., 1] * LUMA[1] + picture[..., 2] * LUMA[2])


@njit(cache=True, nogil=True)
def _misfits(before: np.ndarray, last: np.ndarray, ahead: int, reach: int, half: int, cell: int) -> np.ndarray:
    """float32 (cells down, cells across, hypotheses): the mean squared difference of the blocks that each hypothesis
    would bring to the middle of a cell. before, last: float32 (lines, columns), luma."""
    lines, columns = last.shape
    down, across, side = -(-lines // cell), -(-columns // cell), 2 * reach + 1
    found = np.empty((down, across, side * side), np.float32)
    sums = np.zeros((lines + 1, columns + 1), np.float64)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            # Where the last picture's pixels were a frame before, between pixels and within the picture.
            for i in range(lines):
                y = min(max(i - dy / ahead, 0.0), lines - 1.0)
                top = min(int(y), max(lines - 2, 0))
                below, low = min(top + 1, lines - 1), np.float32(y - top)
                row = 0.0
                for j in range(columns):
                    x = min(max(j - dx / ahead, 0.0), columns - 1.0)
                    left = min(int(x), max(columns - 2, 0))
                    right, far = min(left + 1, columns - 1), np.float32(x - left)
                    upper = before[top, left] + far * (before[top, right] - before[top, left])
                    lower = before[below, left] + far * (before[below, right] - before[below, left])
                    gap = last[i, j] - (upper + low * (lower - upper))
                    row += gap * gap
                    sums[i + 1, j + 1] = sums[i, j + 1] + row
            for a in range(down):
                y0 = min(max(a * cell + cell // 2 - dy, 0), lines - 1)
                first, end = max(y0 - half, 0), min(y0 + half + 1, lines)
                for b in range(across):
                    x0 = min(max(b * cell + cell // 2 - dx, 0), columns - 1)
                    start, stop = max(x0 - half, 0), min(x0 + half + 1, columns)
                    total = sums[end, stop] - sums[first, stop] - sums[end, start] + sums[first, start]
                    found[a, b, (dy + reach) * side + dx + reach] = total / ((end - first) * (stop - start))
    return found


@njit(cache=True, nogil=True)
def _mixed(
    misfits: np.ndarray, last: np.ndarray, reach: int, noise: float, doubt: float, still: float, rounds: int, cell: int
) -> np.ndarray:
    """float32, like last (lines, columns, 3): the mean of what the hypotheses bring to each pixel."""
    down, across, count = misfits.shape
    lines, columns, _ = last.shape
    side = 2 * reach + 1
    prior = np.empty(count, np.float32)
    for d in range(count):
        prior[d] = -still * np.sqrt((d // side - reach) ** 2 + (d % side - reach) ** 2)
    share = np.empty((down, across, count), np.float32)
    for turn in range(rounds + 1):
        total = np.zeros(count, np.float64)
        for a in range(down):
            for b in range(across):
                least = misfits[a, b, 0]
                for d in range(count):
                    least = min(least, misfits[a, b, d])
                sharp = np.float32(1) / (noise + doubt * least)
                best = np.float32(-np.inf)
                for d in range(count):
                    share[a, b, d] = prior[d] - sharp * misfits[a, b, d]
                    best = max(best, share[a, b, d])
                whole = np.float32(0)
                for d in range(count):
                    near = share[a, b, d] - best
                    share[a, b, d] = np.exp(near) if near > -15 else np.float32(0)
                    whole += share[a, b, d]
                for d in range(count):
                    share[a, b, d] /= whole
                    total[d] += share[a, b, d]
        if turn < rounds:
            for d in range(count):
                prior[d] = np.log(total[d] / (down * across) + 1e-5)
    found = np.zeros_like(last)
    for i in range(lines):
        for j in range(columns):
            kept = np.float32(0)
            for d in range(count):
                much = share[i // cell, j // cell, d]
                if much > 1e-4:
                    kept += much
                    y = min(max(i - (d // side - reach), 0), lines - 1)
                    x = min(max(j - (d % side - reach), 0), columns - 1)
                    for c in range(3):
                        found[i, j, c] += much * last[y, x, c]
            for c in range(3):
                found[i, j, c] /= kept
    return found
