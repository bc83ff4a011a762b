"""Compositions: pairs of ids that are read as one id, and what may be joined at all.

What is unusual: a composition is a pair of ids, of which either may be a composition, and expanding it gives exactly
what it was made of. Nothing is joined over a marker, the begin of a unit or an episode, nor with text. Codes stay what
is stored: ids are composed when a store is read. Which pairs are worth it is found in `compose`.

    >>> pairs = Compositions(np.array([9, 10]), np.array([[1, 2], [9, 1]]))
    >>> ids, starts = pairs.apply(np.array([1, 2, 1, 1, 2]), np.ones(5, bool))
    >>> ids.tolist(), starts.tolist(), pairs.expand(ids)[0].tolist()
    ([10, 9], [0, 3], [1, 2, 1, 1, 2])
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pantok.errors import TokenError
from pantok.evolve.makeup import Makeup
from pantok.layout import KINDS, TokenSequence
from pantok.vocabulary import Level, TokenizerState, Vocabulary

MODALITY = "composition"
LEVEL = "composed"
ACROSS = ("level", "unit", "track")
COMPOSABLE = np.array([kind in ("code", "mode", "digit") for kind in KINDS])
_DIGIT = KINDS.index("digit")
_ABOVE = 1 << 31  # any id


@dataclass(frozen=True, eq=False)
class Compositions:
    """named: int64 (M,), the id of each, in the order in which they are made. parts: int64 (M, 2), its two ids, each
    either of a layout or named before. across: see `compose.ComposeConfig`."""

    named: np.ndarray
    parts: np.ndarray
    across: str = "level"

    def __post_init__(self) -> None:
        assert self.parts.shape == (len(self.named), 2), (self.named.shape, self.parts.shape)

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Compositions:
        """Those of a vocabulary; none where it has none."""
        if MODALITY not in vocabulary.states:
            return cls(np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
        state = vocabulary.states[MODALITY]
        parts = np.stack([state.tensors["left"], state.tensors["right"]], 1).astype(np.int64)
        return cls(vocabulary.table(MODALITY, 0).astype(np.int64), parts, state.config.get("across", "level"))

    def __len__(self) -> int:
        return len(self.named)

    def first(self, count: int) -> Compositions:
        """The first `count` of them."""
        return Compositions(self.named[:count], self.parts[:count], self.across)

    @cached_property
    def _base(self) -> int:
        """Above all ids that occur in them."""
        return int(max(self.named.max(initial=0), self.parts.max(initial=0))) + 1

    def apply(self, ids: np.ndarray, joins: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """ids, integers (N,), composed: int64 (n,), and int64 (n,) where each of them began.

        joins: bool (N,), whether an id may be one with the id behind it, see `joins_of`. first: merges before this one
        have been applied.
        """
        from pantok.evolve import compose_kernels

        given = np.asarray(ids)
        out = given.astype(np.int32)
        starts = np.empty(len(out), np.int64)
        base = max(self._base, int(given.max(initial=0)) + 1)
        parts, named = np.ascontiguousarray(self.parts[first:]), np.ascontiguousarray(self.named[first:])
        left = compose_kernels.apply(out, np.ascontiguousarray(joins, np.bool_), parts, named, base, starts)
        return out[:left].astype(np.int64), starts[:left]

    @cached_property
    def reading(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]:
        """(keys, ranks, named, base, bits): what the loops of reading look merges up in, and uint64 (W,), which
        neighbours may come to be one; see `compose_read_kernels.table` and `bridges`."""
        from pantok.evolve import compose_read_kernels as kernels

        parts, named = np.ascontiguousarray(self.parts, np.int64), np.ascontiguousarray(self.named, np.int64)
        return *kernels.table(parts, _ABOVE), named, _ABOVE, kernels.bridges(parts, named, _ABOVE)

    @property
    def rule(self) -> tuple[np.ndarray, int, int]:
        """(may, digit, across): what the loops of reading ask whether ids may be joined, see `joins_of`."""
        return COMPOSABLE, _DIGIT, ACROSS.index(self.across)

    def read(self, ids: np.ndarray, joins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `apply` of all merges, for ids of a layout: quicker where what may be joined comes in short runs."""
        from pantok.evolve import compose_read_kernels

        given = np.ascontiguousarray(ids, np.int64)
        composed, starts = np.empty(len(given), np.int64), np.empty(len(given), np.int64)
        made = compose_read_kernels.starts_of(given, joins, *self.reading, composed, starts)
        return composed[:made], starts[:made]

    def sequence(self, sequence: TokenSequence) -> TokenSequence:
        """The sequence with its ids composed; kind, level, track, time and role of a composition are its first id's."""
        if not len(self):
            return sequence
        ids, at = self.apply(sequence.ids, joins_of(sequence, self.across))
        role = sequence.role[at] if len(sequence.role) else sequence.role
        return TokenSequence(
            ids.astype(np.uint32), sequence.kind[at], sequence.level[at], sequence.track[at], sequence.time_ns[at],
            sequence.tracks, sequence.latents, role,
        )  # fmt: skip

    def expand(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(int64 (N,), the ids of a layout that these, integers (n,), spell; int64 (n,), how many each gave).

        Raises TokenError for a negative id.
        """
        ids = np.asarray(ids, np.int64)
        if len(ids) and int(ids.min()) < 0:
            raise TokenError(f"position {int(np.argmin(ids))}", f"id {ids.min()} is negative")
        spelled, starts = self._expansions
        index = np.full(max(self._base, int(ids.max(initial=0)) + 1), -1, np.int64)
        index[self.named] = np.arange(len(self))
        own = index[ids]
        counts = np.where(own >= 0, np.diff(starts)[np.maximum(own, 0)] if len(self) else 1, 1)
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(ids)), counts)
        offset = np.arange(len(owner)) - (ends - counts)[owner]
        out = ids[owner]
        composed = own[owner] >= 0
        out[composed] = spelled[starts[own[owner[composed]]] + offset[composed]]
        return out, counts

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (M,): ids that each spells."""
        return np.diff(self._expansions[1])

    @cached_property
    def _expansions(self) -> tuple[np.ndarray, np.ndarray]:
        """What they spell, one after another, and where each begins, int64 (M + 1,)."""
        spelled: dict[int, tuple[int, ...]] = {}
        for name, (left, right) in zip(self.named.tolist(), self.parts.tolist(), strict=True):
            spelled[name] = spelled.get(left, (left,)) + spelled.get(right, (right,))
        rows = [spelled[name] for name in self.named.tolist()]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        return np.fromiter((i for row in rows for i in row), np.int64, int(starts[-1])), starts


def joins_of(sequence: TokenSequence, across: str) -> np.ndarray:
    """bool (N,): whether an id of a layout may be one with the id behind it.

    Never text, control ids and placeholders; digits, which all levels share, only within their level.
    """
    joins = np.zeros(len(sequence), np.bool_)
    if len(sequence) < 2:
        return joins
    one, two = slice(None, -1), slice(1, None)
    may = COMPOSABLE[sequence.kind]
    same = may[one] & may[two]
    level = sequence.level[one] == sequence.level[two]
    if across == "level":
        same &= level
    if across != "track":
        same &= (sequence.track[one] == sequence.track[two]) & (sequence.time_ns[one] == sequence.time_ns[two])
    digit = sequence.kind == _DIGIT
    same &= level | ~(digit[one] | digit[two])
    joins[one] = same
    return joins


def makeup_of(vocabulary: Vocabulary) -> Makeup:
    """What a predictor knows of its ids: of each a number for the level that it is of, of a composition for that of its
    last part; and what compositions are made of."""
    classes = np.zeros(vocabulary.size, np.int32)
    numbers: dict[tuple[str, str, int], int] = {}
    for e in vocabulary.extents:
        classes[e.start : e.stop] = numbers.setdefault((e.kind, e.modality, e.level), len(numbers))
    return with_more(Makeup(classes), Compositions.of(vocabulary))


def with_more(makeup: Makeup, more: Compositions) -> Makeup:
    """With more compositions, each of the class of its last part, in their places; longer where they are new."""
    if not len(more):
        return makeup
    room = max(int(more.named.max()) + 1 - len(makeup), 0)
    classes = np.concatenate([makeup.classes, np.zeros(room, np.int32)])
    for name, last in zip(more.named.tolist(), more.parts[:, 1].tolist(), strict=True):
        classes[name] = classes[last]
    named = np.concatenate([makeup.named, more.named.astype(np.int64)])
    return Makeup(classes, named, np.concatenate([makeup.parts, more.parts.astype(np.int64)]))


def with_compositions(vocabulary: Vocabulary, more: Compositions) -> Vocabulary:
    """The vocabulary with compositions behind its own; `more` are numbered from its size on. No id moves."""
    if not len(more):
        return vocabulary
    assert int(more.named[0]) == vocabulary.size, (more.named[:1], vocabulary.size)
    left, right = more.parts.T.astype(np.uint32)
    old = vocabulary.states.get(MODALITY)
    if old is None:
        state = TokenizerState(
            MODALITY, {"across": more.across}, (Level(LEVEL, len(left)),), {"left": left, "right": right}
        )
    else:
        tensors = {
            **old.tensors,
            "left": np.concatenate([old.tensors["left"], left]),
            "right": np.concatenate([old.tensors["right"], right]),
        }
        (level,) = old.levels
        state = replace(old, levels=(replace(level, cardinality=level.cardinality + len(left)),), tensors=tensors)
    return vocabulary.with_state(state)
