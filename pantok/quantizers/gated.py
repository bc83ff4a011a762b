"""Nearest codes in a book that has lived: codes that came later are looked at only where the earlier ones are far off.

What is unusual: growth changes nothing for what was well described. A block of codes that was appended is eligible
only for vectors whose nearest earlier code is further than the block's threshold, so a recording all of whose vectors
lie within it gets the same codes as before, by construction and not by luck. Retired codes are never found.

    >>> book = np.array([[0.0], [10.0], [14.0]], np.float32)
    >>> life = Life(blocks=np.array([[2, 8]]))              # 14 came later, for what is off by more than 8, squared
    >>> nearest_living(np.array([[12.5], [13.0]], np.float32), book, life)[0].tolist()
    [1, 2]

Shapes: N vectors, K codes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from pantok.quantizers.kmeans import nearest
from pantok.vocabulary import LIFE, NOTHING, TokenizerState


@dataclass(frozen=True, eq=False)
class Life:
    """What became of a level's codes since it was born. See `TokenizerState` for both tables.

    blocks: int64 (n, 2), first code and squared threshold. retired: uint32 (m, 2), code and what stands for it.
    """

    blocks: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    retired: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint32))

    def __bool__(self) -> bool:
        return bool(len(self.blocks) or len(self.retired))

    @cached_property
    def _gone(self) -> np.ndarray:
        return self.retired[:, 0].astype(np.int64)

    def born(self, cardinality: int) -> int:
        """How many codes the level had at first."""
        return int(self.blocks[0, 0]) if len(self.blocks) else cardinality

    def parts(self, cardinality: int) -> Iterator[tuple[int, np.ndarray]]:
        """For each block, the first one included, its squared threshold (-1 for the first) and its codes in use."""
        alive = np.ones(cardinality, bool)
        alive[self._gone] = False
        edges = [0, *self.blocks[:, 0].tolist(), cardinality]
        for number, (lo, hi) in enumerate(pairwise(edges)):
            yield (-1 if number == 0 else int(self.blocks[number - 1, 1])), lo + np.flatnonzero(alive[lo:hi])

    def grown(self, first: int, threshold: int) -> Life:
        """One block more, which begins at code `first`."""
        return replace(self, blocks=np.concatenate([self.blocks, np.array([[first, threshold]], np.int64)]))

    def without(self, codes: np.ndarray, stand_ins: np.ndarray) -> Life:
        """Codes retired, with what stands for each (NOTHING where nothing does)."""
        more = np.stack([np.asarray(codes, np.uint32), np.asarray(stand_ins, np.uint32)], 1)
        table = np.concatenate([self.retired, more])
        return replace(self, retired=table[np.argsort(table[:, 0], kind="stable")])


def lives_of(state: TokenizerState) -> dict[str, Life]:
    """The lives of the levels that have changed, by name."""
    lives = {}
    for level in state.levels:
        blocks = state.tensors.get(f"{LIFE}{level.name}.blocks")
        retired = state.tensors.get(f"{LIFE}{level.name}.retired")
        if blocks is not None or retired is not None:
            life = Life()
            lives[level.name] = Life(
                life.blocks if blocks is None else np.asarray(blocks, np.int64),
                life.retired if retired is None else np.asarray(retired, np.uint32),
            )
    return lives


def tensors_of(lives: Mapping[str, Life]) -> dict[str, np.ndarray]:
    """The tensors of a state that tell these lives; none for a level that has not changed."""
    tensors = {}
    for name, life in lives.items():
        if len(life.blocks):
            tensors[f"{LIFE}{name}.blocks"] = life.blocks
        if len(life.retired):
            tensors[f"{LIFE}{name}.retired"] = life.retired
    return tensors


def nearest_living(vectors: np.ndarray, book: np.ndarray, life: Life | None) -> tuple[np.ndarray, np.ndarray]:
    """As `kmeans.nearest`, among the codes in use, later blocks only beyond their thresholds.

    vectors float32 (N, D), book float32 (K, D). Returns codes int64 (N,) and squared distance float64 (N,), which is
    exact where entries are integers. The earlier code wins a tie.
    """
    if not life:
        codes, near = nearest(vectors, book)
        return codes, near.astype(np.float64)
    codes, distance = np.zeros(len(vectors), np.int64), np.full(len(vectors), np.inf)
    for threshold, among in life.parts(len(book)):
        far = np.flatnonzero(distance > threshold)
        if not len(far) or not len(among):
            continue
        found, _ = nearest(vectors[far], book[among])
        gap = vectors[far].astype(np.float64) - book[among[found]]
        near = (gap * gap).sum(1)
        better = near < distance[far]
        codes[far[better]], distance[far[better]] = among[found[better]], near[better]
    return codes, distance


def stands_in(codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`codes` with those that have a stand-in in `table` uint32 (K,) replaced; NOTHING stands for itself."""
    to = np.where(table == NOTHING, np.arange(len(table), dtype=np.uint32), table)
    return to[codes].astype(codes.dtype)
