"""Compositions in simulation: which of them may come next within a unit, and what each spells.

What is unusual: a future is drawn as the ids that a model was trained on and kept as the codes that they spell, so that
it decodes like any other stream. Of the compositions those alone may be drawn that go on in the unit at hand: codes of
its modality, from the level on that it has reached.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pantok.errors import OptionError
from pantok.evolve.compositions import MODALITY, Compositions
from pantok.layout import KINDS, TokenSequence
from pantok.vocabulary import Vocabulary


class Composer:
    """Of a vocabulary that has compositions. Raises OptionError for those that reach over tracks."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._pairs = Compositions.of(vocabulary)
        if self._pairs.across == "track":
            raise OptionError(
                f"vocabulary {vocabulary.id[:12]}", "composes ids of several tracks, a future is drawn track by track",
                "train under one made by `pantok vocab compose --across level` or `unit`",
            )  # fmt: skip
        spelled, counts = self._pairs.expand(self._pairs.named)
        ends = np.cumsum(counts)
        self._codes = {
            int(number): tuple(vocabulary.locate(i) for i in spelled[end - count : end].tolist())
            for number, count, end in zip(self._pairs.named, counts, ends, strict=True)
        }
        self._first = np.full(vocabulary.size, -1)
        self._last = np.full(vocabulary.size, -1)
        self._of = np.full(vocabulary.size, "", dtype=object)
        for number, codes in self._codes.items():
            owners, levels = {m for m, _, _ in codes}, [level for _, level, _ in codes]
            if len(owners) == 1 and levels == sorted(levels):
                (self._of[number],) = owners
                self._first[number], self._last[number] = levels[0], levels[-1]

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Composer | None:
        return cls(vocabulary) if MODALITY in vocabulary.states else None

    def sequence(self, plain: TokenSequence) -> TokenSequence:
        return self._pairs.sequence(plain)

    def permitted(self, start: int, stop: int, modality: str, levels: Sequence[int], depth: int) -> np.ndarray:
        """bool (stop - start,): the ids that may come in a unit of the modality whose next code is of one of the
        levels."""
        mine = slice(start, stop)
        return (self._of[mine] == modality) & np.isin(self._first[mine], levels) & (self._last[mine] < depth)

    def codes(self, number: int) -> list[tuple[int, int]]:
        """(level, code) of each that a composition spells; empty for any other id."""
        return [(level, code) for _, level, code in self._codes.get(number, ())]

    def unit(self, ids: Sequence[int], kinds: Sequence[str], levels: Sequence[int]) -> list[int]:
        """The ids of one unit, composed. kinds: of each, of `pantok.layout.KINDS`."""
        n = len(ids)
        plain = TokenSequence(
            np.array(ids, np.uint32), np.array([KINDS.index(k) for k in kinds], np.uint8), np.array(levels, np.uint8),
            np.zeros(n, np.uint8), np.zeros(n, np.int64), ("",), {}, np.zeros(n, np.uint8),
        )  # fmt: skip
        return [int(i) for i in self._pairs.sequence(plain).ids]
