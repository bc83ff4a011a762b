"""Random orders without memory: a number in, the number that stands in its place out.

What is unusual: no list is shuffled and no library draws numbers, so an order of any size costs nothing to keep and is
the same for ever, on every machine. A Feistel network is a bijection of the numbers of 2h bits; those that it sends
outside [0, n) are sent through it again until they come to lie inside (cycle walking).

Sources: M. Luby and C. Rackoff, SIAM J. Comput. 17 (1988); J. Black and P. Rogaway, CT-RSA 2002, method 2; the round
function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROUNDS = 6


@njit(cache=True, nogil=True)
def mix(word: np.uint64) -> np.uint64:
    """A bijection of 64-bit words that leaves no pattern."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True, nogil=True)
def place(index: int, n: int, key: np.uint64) -> int:
    """Which of 0 .. n - 1 stands in place `index` of the order that `key` names."""
    half = 1
    while (1 << (2 * half)) < n:
        half += 1
    mask = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    word = np.uint64(index)
    while True:
        left, right = word >> shift, word & mask
        for number in range(ROUNDS):
            left, right = right, left ^ (mix(right + key + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)) & mask)
        word = (left << shift) | right
        if word < np.uint64(n):
            return int(word)


# Types are said, so that importing this loads what is compiled, and the first batch does not wait for that.
@njit("int64[::1](int64, uint64)", cache=True, nogil=True)
def order(n: int, key: np.uint64) -> np.ndarray:
    """int64 (n,): the whole order."""
    out = np.empty(n, np.int64)
    for index in range(n):
        out[index] = place(index, n, key)
    return out


@njit(
    "int64(int64[::1], int64, int64, uint64, boolean, int64[::1], int64[::1], int64[::1], int64[:,::1])",
    cache=True, nogil=True,
)  # fmt: skip
def parts(
    indices: np.ndarray, length: int, span: int, key: np.uint64, shuffle: bool, row: np.ndarray, ends: np.ndarray,
    lengths: np.ndarray, out: np.ndarray,
) -> int:  # fmt: skip
    """What windows are made of: rows of `out` (M, 4), window's number in `indices`, episode, first and last + 1 id.

    row, ends: episodes in their order and where each ends; key: of the epoch's windows. Returns how many, or -1 if
    `out` is too short.
    """
    total = ends[-1]
    windows = -(-total // length)
    made = 0
    for number in range(len(indices)):
        index = indices[number]
        if shuffle:
            block = index // span
            size = min(span, windows - block * span)
            index = block * span + place(index - block * span, size, mix(key + np.uint64(block)))
        at = index * length
        stop = min(at + length, total)
        low, high = 0, len(ends) - 1
        while low < high:  # the first that ends behind `at`
            middle = (low + high) // 2
            if ends[middle] > at:
                high = middle
            else:
                low = middle + 1
        while at < stop:
            end = min(ends[low], stop)
            if end > at:
                if made == len(out):
                    return -1
                begin = ends[low] - lengths[row[low]]
                out[made, 0], out[made, 1], out[made, 2], out[made, 3] = number, row[low], at - begin, end - begin
                made += 1
            at, low = end, low + 1
    return made


@njit("int64(int64[:,::1], int64, int64[:,::1], int32[::1])", cache=True, nogil=True)
def lay_out(parts: np.ndarray, length: int, places: np.ndarray, bounds: np.ndarray) -> int:
    """Where parts go in a batch of rows of `length`.

    parts (P, 5), in the order of the rows that they begin with, then first and last + 1 id. Fills columns 1, 2, 3 and 5
    of places (see `layout.write`) and bounds, where each part and each row's padding ends; returns how many.
    """
    row, at, document, made = 0, 0, 0, 1
    bounds[0] = 0
    for number in range(len(parts)):
        while row < parts[number, 0]:
            if at < length:
                bounds[made] = (row + 1) * length
                made += 1
            row, at, document = row + 1, 0, 0
        size = parts[number, 2] - parts[number, 1]
        places[number, 1], places[number, 2] = parts[number, 1], parts[number, 2]
        places[number, 3], places[number, 5] = row * length + at, document
        at += size
        document += 1
        bounds[made] = row * length + at
        made += 1
    if at < length:
        bounds[made] = (row + 1) * length
        made += 1
    return made
