"""How many codes a level of a tick has: most of it is told by the levels before.

What is unusual: hierarchical codes have a grammar. A pattern says how deep each site is, a mode how far loudness is
refined, a piece how many residuals it spells. Who predicts or draws codes one by one need not guess what is certain:

    more = tokenizer.due(tokens, tick, before)     # before: the codes of the levels so far
    more(codes)                                    # True: another code of this level comes; False: none; None: open
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pantok.stream import TrackTokens

if TYPE_CHECKING:
    from pantok.tokenizers.base import Tokenizer

More = Callable[[Sequence[int]], bool | None]
"""Given the codes of a level so far, whether another one of that level follows; None where both may be."""


def unknown(codes: Sequence[int]) -> bool | None:
    """A level of which nothing is told."""
    return None


_UNKNOWN: More = unknown


def among(*counts: int) -> More:
    """A level that has one of these numbers of codes."""

    def more(codes: Sequence[int]) -> bool | None:
        if len(codes) >= max(counts):
            return False
        return None if len(codes) in counts else True

    return more


class Counts:
    """What may come next in one tick, while its codes are drawn. codes: a list a level, to which the caller appends.
    tokenizer: None where its counts do not hold; then anything may come."""

    def __init__(
        self, tokenizer: Tokenizer | None, tokens: TrackTokens, tick: int, codes: Sequence[list[int]]
    ) -> None:  # fmt: skip
        self._tokenizer, self._tokens, self._tick, self._codes = tokenizer, tokens, tick, codes
        self._level, self._more = -1, _UNKNOWN

    def options(self, level: int) -> tuple[list[int], bool]:
        """The levels of which the next code may be, from `level` on, where the last one was; and whether the tick may
        end here. Levels after one that may end are asked as if it had ended."""
        found: list[int] = []
        while level < len(self._codes):
            if level != self._level and self._tokenizer is not None:
                before = [np.asarray(codes, np.int64) for codes in self._codes[:level]]
                self._level, self._more = level, self._tokenizer.due(self._tokens, self._tick, before)
            another = self._more(self._codes[level])
            if another is not False:
                found.append(level)
            if another:
                return found, False
            level += 1
        return found, True

    def fit(self, spelled: Sequence[tuple[int, int]]) -> bool:
        """Whether these (level, code) may come next, one after another. The lists stay as they are."""
        before = [len(codes) for codes in self._codes]
        try:
            for level, code in spelled:
                reached = max((k for k, codes in enumerate(self._codes) if codes), default=0)
                if level < reached or level not in self.options(reached)[0]:
                    return False
                self._codes[level].append(code)
            return True
        finally:
            for codes, count in zip(self._codes, before, strict=True):
                del codes[count:]
            self._level = -1
