"""Pictures cut into sites and laid out as planes again, compiled; whole words wherever eight samples lie in a line.

Letters: n frames, N sites; a picture has R x C blocks of 32x32. All pictures are uint8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pantok.tokenizers.video_words import put_word, word_at

_ONE, _THREE, _FIVE = np.int16(1), np.int16(3), np.int16(5)


@njit(inline="always")
def _apart(word: Any) -> Any:
    """The last four bytes of a word, each followed by a zero."""
    x = word >> np.uint64(32)
    x = (x | (x << np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return (x | (x << np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)


@njit(cache=True, nogil=True)
def cut(frames: np.ndarray, height: int, width: int, columns: int, out: np.ndarray) -> None:
    """Planar YUV 4:2:0 `frames` (n, frame_bytes) as sites (n, N, 96), the last row and column repeated beyond."""
    h2, w2 = (height + 1) // 2, (width + 1) // 2
    size, sites = frames.shape[1], out.shape[1]
    for k in range(len(frames)):
        frame = frames[k]
        for site in range(sites):
            block, quad, small = site // 16, site % 16 // 4, site % 4
            y = block // columns * 32 + quad // 2 * 16 + small // 2 * 8
            x = block % columns * 32 + quad % 2 * 16 + small % 2 * 8
            goal = (k * sites + site) * 96
            for r in range(8):
                line = min(y + r, height - 1) * width
                if x + 8 <= width:
                    put_word(out, goal + 8 * r, word_at(frames, k * size + line + x))
                else:
                    for c in range(8):
                        out[k, site, 8 * r + c] = frame[line + min(x + c, width - 1)]
            y, x = y // 2, x // 2
            for r in range(4):
                line = height * width + min(y + r, h2 - 1) * w2
                if x + 4 <= w2:
                    u = _apart(word_at(frames, k * size + line + x - 4))
                    v = _apart(word_at(frames, k * size + line + x - 4 + h2 * w2))
                    put_word(out, goal + 64 + 8 * r, u | (v << np.uint64(8)))
                    continue
                for c in range(4):
                    at = line + min(x + c, w2 - 1)
                    out[k, site, 64 + 8 * r + 2 * c] = frame[at]
                    out[k, site, 65 + 8 * r + 2 * c] = frame[at + h2 * w2]


@njit(cache=True, nogil=True)
def spread(sites: np.ndarray, columns: int, phases: np.ndarray, pad: int, cphases: np.ndarray, cpad: int) -> None:
    """Sites (N, 96) as planes into the middle of phases[0] (4, H + 2 pad, W + 2 pad) and of cphases[0] (4, H / 2 + 2
    cpad, W + 4 cpad), whose pairs are U, V; edges repeated around."""
    wide, cwide = phases.shape[2], cphases.shape[2]
    for site in range(len(sites)):
        block, quad, small = site // 16, site % 16 // 4, site % 4
        y = block // columns * 32 + quad // 2 * 16 + small // 2 * 8
        x = block % columns * 32 + quad % 2 * 16 + small % 2 * 8
        for r in range(8):
            put_word(phases, (y + r + pad) * wide + x + pad, word_at(sites, site * 96 + 8 * r))
        for r in range(4):
            put_word(cphases, (y // 2 + r + cpad) * cwide + x + 2 * cpad, word_at(sites, site * 96 + 64 + 8 * r))
    repeat_edges(phases[0], pad, pad, 1)
    repeat_edges(cphases[0], cpad, 2 * cpad, 2)


@njit(cache=True, nogil=True)
def repeat_edges(plane: np.ndarray, above: int, beside: int, each: int) -> None:
    """Fills `above` rows at the top and bottom of `plane` (H, W), and `beside` columns at the left and right, with the
    samples at the edge of the middle; a sample is `each` columns wide."""
    height, width = plane.shape
    for y in range(above, height - above):
        line = plane[y]
        for x in range(beside):
            line[x] = line[beside + x % each]
            line[width - beside + x] = line[width - beside - each + x % each]
    for y in range(above):
        plane[y] = plane[above]
        plane[height - 1 - y] = plane[height - 1 - above]


@njit(inline="always")
def _tap(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Half way between b and c by (-1, 5, 5, -1) / 8. In 16 bits, of which a register holds most."""
    middle = np.int16(np.int16(np.int16(b) + np.int16(c)) * _FIVE)
    middle = np.int16(middle - np.int16(np.int16(a) + np.int16(d)))
    return min(max(np.int16(np.int16(middle + np.int16(4)) >> _THREE), np.int16(0)), np.int16(255))


@njit(inline="always")
def _mean(a: Any, b: Any) -> Any:
    """Rounded up at the half."""
    return np.int16(np.int16(np.int16(a) + np.int16(b)) + _ONE) >> _ONE


@njit(cache=True, nogil=True)
def half_samples(phases: np.ndarray, cphases: np.ndarray) -> None:
    """Fills the half-sample phases 1 .. 3 of (4, H, W) from phase 0: across, down, both. See `Reference`."""
    _, height, width = phases.shape
    for y in range(height):
        line, out = phases[0, y], phases[1, y]
        out[0], out[width - 2 :] = line[0], line[width - 2 :]
        a, b, c, d, goal = line[:-3], line[1:-2], line[2:-1], line[3:], out[1:-2]
        for x in range(len(goal)):
            goal[x] = _tap(a[x], b[x], c[x], d[x])
    for k in range(2):
        source, down = phases[k], phases[k + 2]
        for y in range(height):
            out = down[y]
            if y < 1 or y >= height - 2:
                out[:] = source[y]
                continue
            a, b, c, d = source[y - 1], source[y], source[y + 1], source[y + 2]
            for x in range(width):
                out[x] = _tap(a[x], b[x], c[x], d[x])
    _, height, width = cphases.shape
    for y in range(height):
        line, out = cphases[0, y], cphases[1, y]
        beside = line[2:]
        for x in range(len(beside)):
            out[x] = _mean(line[x], beside[x])
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
