"""What to learn from when there is too much: a part that is spread evenly, and falls into step with nothing.

Recordings come in a rhythm: two cameras an episode, eight parts a track. Every second, fourth, eighth part would be of
one camera, or of nothing but beginnings. So of each pair one is dropped by a coin, of pairs of what is left one again,
and so on: of each 2^k that follow one another exactly one is left after k halvings, and what is left after more was
left before. The coins are a function of the place alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def survives(number: int, halvings: int) -> bool:
    """Whether the part `number` is among those that are left after so many halvings."""
    return all((number >> level) & 1 == _coin(number >> (level + 1), level) for level in range(halvings))


def _coin(pair: int, level: int) -> int:
    """0 or 1. Source of the mixing: Steele, Lea and Flood, OOPSLA 2014 (SplitMix)."""
    x = (pair * 64 + level + 1) * 0x9E3779B97F4A7C15 & _WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _WORD
    return (x >> 33) & 1


_WORD = (1 << 64) - 1


def some(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, in their order, one from each of as many stretches of equal length."""
    if len(items) <= most:
        return list(items)
    rng = np.random.default_rng(most)
    edges = np.linspace(0, len(items), most + 1).astype(np.int64)
    return [items[int(rng.integers(first, last))] for first, last in pairwise(edges)]
