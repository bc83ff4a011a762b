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


@njit(cache=True, nogil=True)
def order(n: int, key: np.uint64) -> np.ndarray:
    """int64 (n,): the whole order."""
    out = np.empty(n, np.int64)
    for index in range(n):
        out[index] = place(index, n, key)
    return out
