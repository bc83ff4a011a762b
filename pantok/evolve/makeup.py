"""What the n-gram knows of ids beside their numbers: the class of each, and what its compositions are made of.

What is unusual: of two neighbours it knows which cannot be. Where (a, b) is one id, b does not follow a, and neither
does a composition that b begins, unless what was joined in it was joined earlier; and so on for the last part of a and
the last part of that. A predictor that does not know it keeps a share of its probability for such neighbours, the
larger the more is composed: 6 to 8% of it on film, behind a class. That was most of what composing seemed to cost.

Two neighbours cannot be if composing what they spell gives something else. That is so if and only if there is a merge
of (y, x), y at the end of the one and x at the begin of the other, that comes before y is joined in the one and not
after x is joined in the other (occurrences are joined from the left). Neighbours may stand so nevertheless where
nothing may be joined between them, over a *seam*, such as the begin of a unit; how often they do is counted.

Ids form a tree by their left parts. What cannot follow an id is then a few ids with those of their branches that came
late enough, so that the probability of all of it is a sum of a few sums.

    >>> made = Makeup(np.zeros(6, np.int32), np.array([4, 5]), np.array([[0, 1], [1, 2]]))  # 4: 0 1, 5: 1 2
    >>> [[w for w in range(6) if made.forbids(v, w)] for v in range(6)]
    [[1, 5], [2], [], [], [], []]

Sources: M. Berglund and B. van der Merwe, "Formalizing BPE tokenization", NCMA 2023, for which sequences byte-pair
encoding can give; T. Vieira et al., "Language models over canonical byte-pair encodings", ICML 2025, where what it
cannot give is taken out of a model that is trained; here out of one that is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

NEVER = 1 << 40
"""The number of a merge that is not there."""


class Tree(NamedTuple):
    """Compositions as the loops of `makeup_kernels` read them: V ids, M merges. Empty arrays where there are none.

    left, right: int64 (V,), the parts, -1 of an id of a layout. made: int64 (V,), the number of the merge that
    made it, NEVER of an id of a layout. start: int64 (V + 1,), behind: int64 (M,), the merges that an id is the left
    part of, in their order. named: int64 (M,), their ids. keys, ranks: see `compose_read_kernels.table`.
    """

    left: np.ndarray
    right: np.ndarray
    made: np.ndarray
    start: np.ndarray
    behind: np.ndarray
    named: np.ndarray
    keys: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True, eq=False)
class Makeup:
    """classes: int32 (V,), the class of each id, 0 and up. named: int64 (M,), the ids that are compositions, in the
    order in which they are made; parts: int64 (M, 2), the two ids of each, each of a layout or named before."""

    classes: np.ndarray
    named: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    parts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def __post_init__(self) -> None:
        assert self.parts.shape == (len(self.named), 2), (self.named.shape, self.parts.shape)
        assert int(self.named.max(initial=-1)) < len(self.classes), (self.named.max(initial=-1), self.classes.shape)

    def __len__(self) -> int:
        """V."""
        return len(self.classes)

    @cached_property
    def tree(self) -> Tree:
        none = np.zeros(0, np.int64)
        if not len(self.named):
            return Tree(none, none, none, none, none, none, none, np.zeros(0, np.int32))
        from pantok.evolve import compose_read_kernels

        size, parts = len(self), np.ascontiguousarray(self.parts, np.int64)
        left, right, made = np.full(size, -1, np.int64), np.full(size, -1, np.int64), np.full(size, NEVER, np.int64)
        left[self.named], right[self.named] = parts.T
        made[self.named] = np.arange(len(parts))
        behind = np.argsort(parts[:, 0], kind="stable")
        start = np.searchsorted(parts[behind, 0], np.arange(size + 1))
        keys, ranks = compose_read_kernels.table(parts, size)
        return Tree(left, right, made, start, behind, np.ascontiguousarray(self.named, np.int64), keys, ranks)

    def forbids(self, one: int, other: int) -> bool:
        """Whether `other` cannot stand behind `one` where they may be joined."""
        from pantok.evolve import makeup_kernels

        return bool(len(self.named)) and bool(makeup_kernels.forbids(self.tree, one, other))
