"""What to learn from when there is too much: a part that is spread evenly, and falls into step with nothing.

Recordings come in a rhythm: two cameras an episode, eight parts a track. Every second, fourth, eighth part would be of
one camera, or of nothing but beginnings. So of each pair one is dropped by a coin, of pairs of what is left one again,
and so on: of each 2^k that follow one another exactly one is left after k halvings, and what is left after more was
left before. The coins are a function of the place alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from pantok.experience import Block

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


class Thinned(Generic[T]):
    """Parts in their order; when they are larger than `most` together, and more than `least`, one of two is dropped,
    and of those that follow, and so on."""

    def __init__(self, most: int, least: int = 1) -> None:
        self._most, self._least = most, least
        self._halvings, self._seen = 0, 0
        self._kept: list[tuple[int, T, int]] = []

    def offer(self, make: Callable[[], tuple[T, int]]) -> None:
        """make: gives the next part and its size; it is not called for a part that is not kept."""
        number, self._seen = self._seen, self._seen + 1
        if not survives(number, self._halvings):
            return
        self._kept.append((number, *make()))
        while sum(size for _, _, size in self._kept) > self._most and len(self._kept) > self._least:
            self._halvings += 1
            self._kept = [kept for kept in self._kept if survives(kept[0], self._halvings)]

    @property
    def numbered(self) -> list[tuple[int, T]]:
        """What is kept, and the places at which it was offered."""
        return [(number, part) for number, part, _ in self._kept]


def groups(blocks: Iterable[Block], size: int) -> Iterator[np.ndarray]:
    """The values of consecutive blocks, `size` samples at a time, and what is left at the end."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block.values)
        count += len(block)
        while count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)


def some(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, in their order, one from each of as many stretches of equal length."""
    if len(items) <= most:
        return list(items)
    rng = np.random.default_rng(most)
    edges = np.arange(most + 1) * len(items) // most  # in integers: 13 * 189 / 39 is 63, and 62.99 in floats
    return [items[int(rng.integers(first, last))] for first, last in pairwise(edges)]
