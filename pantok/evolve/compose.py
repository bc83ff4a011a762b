"""Neighbouring ids as one id: merges that are kept only if they are worth it on recordings they were not learned from.

What is unusual: a merge is not kept because it is frequent. Merging does not take information away, so that it helps a
predictor only where its context is too short, and harms it where it splits one context into many: on a source where
each code depends on the one before, 4,096 frequent merges made sequences 2.35 times shorter and 45% harder to predict.
So merges are learned in the order of their counts, and then as many of them are kept as the objective says, which may
be none.

    bits     fewest held-out bits a second, the compositions' own among them
    length   fewest ids, at no more held-out bits a second than without
    rd       fewest held-out bits a second where each id costs `price` bits besides

A composition is a pair of ids, of which either may be a composition; expanding it gives exactly what it was made of.
Nothing is joined over a marker, the begin of a unit or an episode, nor with text. Codes stay what is stored: ids are
composed when a store is read.

    >>> pairs = Compositions(np.array([9, 10]), np.array([[1, 2], [9, 1]]))
    >>> ids, starts = pairs.apply(np.array([1, 2, 1, 1, 2]), np.ones(5, bool))
    >>> ids.tolist(), starts.tolist(), pairs.expand(ids)[0].tolist()
    ([10, 9], [0, 3], [1, 2, 1, 1, 2])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pantok.errors import InputError, OptionError, TokenError
from pantok.evolve.objective import LEAST_GROUPS, Cost, Passage, composition_bits, cost, held_out
from pantok.layout import KINDS, TokenSequence
from pantok.tokenizers.base import Report, silent
from pantok.vocabulary import Level, TokenizerState, Vocabulary

MODALITY = "composition"
LEVEL = "composed"
ACROSS = ("level", "unit", "track")
OBJECTIVES = ("bits", "length", "rd")
COMPOSABLE = np.array([kind in ("code", "mode", "digit") for kind in KINDS])
_DIGIT = KINDS.index("digit")
_ABOVE = 1 << 31  # any id


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How ids are composed.

    merges: the most that are learned. objective: one of OBJECTIVES. price: bits that an id costs besides its own, with
    `rd`. across: `level` joins ids of one level of one unit, `unit` also those of successive levels of it, `track`
    also those of different tracks where no marker stands between. longest: ids that a composition may spell. least:
    how often a pair must be met.
    """

    merges: int = 4096
    objective: str = "bits"
    price: float = 1.0
    across: str = "level"
    longest: int = 16
    least: int = 8

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise OptionError("compose objective", f"cannot be {self.objective}", f"known: {', '.join(OBJECTIVES)}")
        if self.across not in ACROSS:
            raise OptionError("compose across", f"cannot be {self.across}", f"known: {', '.join(ACROSS)}")
        if not 1 <= self.merges <= 1 << 20:
            raise OptionError("compose merges", f"{self.merges} is out of range", "choose 1 to 1048576")
        if not 2 <= self.longest <= 4096:
            raise OptionError("compose longest", f"{self.longest} is out of range", "choose 2 to 4096")
        if self.least < 2:
            raise OptionError("compose least", f"{self.least} is out of range", "choose 2 or more")
        if not self.price >= 0:
            raise OptionError("compose price", f"{self.price} is negative", "choose 0 or more")


@dataclass(frozen=True, eq=False)
class Compositions:
    """named: int64 (M,), the id of each, in the order in which they are made. parts: int64 (M, 2), its two ids, each
    either of a layout or named before. across: see `ComposeConfig`."""

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
    def reading(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(keys, ranks, named, base): what the loops of reading look merges up in."""
        from pantok.evolve import compose_read_kernels

        keys, ranks = compose_read_kernels.table(np.ascontiguousarray(self.parts, np.int64), _ABOVE)
        return keys, ranks, np.ascontiguousarray(self.named, np.int64), _ABOVE

    @cached_property
    def bridges(self) -> np.ndarray:
        """uint64 (W,): which neighbours may come to be one, see `compose_read_kernels.bridges`."""
        from pantok.evolve import compose_read_kernels

        return compose_read_kernels.bridges(
            np.ascontiguousarray(self.parts, np.int64), np.ascontiguousarray(self.named, np.int64), _ABOVE
        )

    def read(self, ids: np.ndarray, joins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `apply` of all merges, for ids of a layout: quicker where what may be joined comes in short runs."""
        from pantok.evolve import compose_read_kernels

        given = np.ascontiguousarray(ids, np.int64)
        keys, ranks, named, base = self.reading
        composed, starts = np.empty(len(given), np.int64), np.empty(len(given), np.int64)
        made = compose_read_kernels.starts_of(given, joins, keys, ranks, named, base, self.bridges, composed, starts)
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


@dataclass(frozen=True, eq=False)
class Corpus:
    """Episodes as one passage of ids, and where they may be joined. group: spans or episodes, see `Passage`."""

    passage: Passage
    joins: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[tuple[TokenSequence, float]], across: str) -> Corpus:
        """sequences: each with the seconds that it lasts. With fewer than LEAST_GROUPS episodes, each is cut into spans
        of time. Raises InputError if there is nothing in them."""
        total = sum(seconds for _, seconds in sequences)
        ids, group, joins, lengths, groups = [], [], [], list[float](), 0
        span = 0.0 if len(sequences) >= LEAST_GROUPS else max(total / (2 * LEAST_GROUPS), 1e-3)
        for sequence, seconds in sequences:
            if not len(sequence):
                continue
            count = max(1, round(seconds / span)) if span else 1
            since = (sequence.time_ns - sequence.time_ns.min()) / 1e9
            number = np.minimum((since * (count / max(seconds, 1e-9))).astype(np.int64), count - 1)
            # Times go up with the steps, but a unit may have begun before its step did: it is not cut.
            number = np.maximum.accumulate(number)
            ids.append(sequence.ids)
            group.append(number + groups)
            joins.append(joins_of(sequence, across))
            lengths += [seconds / count] * count
            groups += count
        if not ids:
            raise InputError("recordings", "hold nothing to compose", "give a store with episodes")
        together = np.concatenate(group)
        joined = np.concatenate(joins)
        joined[:-1] &= together[1:] == together[:-1]
        return cls(Passage(np.concatenate(ids).astype(np.int64), together, np.array(lengths)), joined)

    def taken(self, groups: np.ndarray) -> Corpus:
        return Corpus(self.passage.taken(groups), self.joins[groups[self.passage.group]])

    def composed(self, compositions: Compositions, first: int = 0) -> Corpus:
        """With merges from `first` on."""
        p = self.passage
        ids, starts = compositions.apply(p.ids, self.joins, first)
        ends = np.concatenate([starts[1:], [len(p.ids)]]) - 1
        return Corpus(Passage(ids, p.group[starts], p.seconds), self.joins[ends] if len(starts) else self.joins[:0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Composed:
    """What composing came to. learned: merges that were tried. tried: (merges, cost) of each number that was looked at,
    ascending, none first. kept: the number that the objective wants, 0 where none pays."""

    learned: Compositions
    tried: tuple[tuple[int, Cost], ...]
    kept: int

    def cost_of(self, merges: int) -> Cost:
        return dict(self.tried)[merges]

    def facts(self) -> list[dict[str, Any]]:
        """The figures as JSON."""
        without = self.tried[0][1]
        rows = []
        for merges, found in self.tried:
            gain, error = found.gain_over(without)
            rows.append(
                {
                    "merges": merges,
                    "ids_per_second": found.ids_per_second,
                    "id_bits_per_second": found.id_bits_per_second,
                    "dictionary_bits_per_second": found.dictionary_bits_per_second,
                    "bits_per_second": found.bits_per_second,
                    "gain": gain,
                    "gain_standard_error": error,
                }
            )
        return rows


def learn(corpus: Corpus, size: int, config: ComposeConfig) -> Compositions:
    """The most frequent pairs of a corpus, as ids from `size` on, one after another."""
    from pantok.evolve import compose_kernels

    ids = corpus.passage.ids.astype(np.int32)
    room = config.merges
    if size + room >= 1 << 31:
        raise OptionError("compose merges", f"would number ids beyond 2^31 ({size} are there)", "ask for fewer")
    lengths = np.ones(size + room, np.int64)
    merges, counts = np.zeros((room, 2), np.int64), np.zeros(room, np.int64)
    made = compose_kernels.learn(
        ids, np.ascontiguousarray(corpus.joins, np.bool_), size, lengths, config.longest, config.least, merges, counts
    )
    return Compositions(np.arange(size, size + made), merges[:made], config.across)


def compose(
    vocabulary: Vocabulary,
    sequences: Iterable[tuple[TokenSequence, float]],
    config: ComposeConfig | None = None,
    *,
    report: Report = silent,
) -> Composed:
    """Learns compositions from sequences of layouts (each with its seconds) and finds how many of them pay.

    What the vocabulary has composed before is composed first. Raises InputError, OptionError.
    """
    config = config or ComposeConfig()
    old = Compositions.of(vocabulary)
    if len(old) and old.across != config.across:
        raise OptionError(
            f"compose across {config.across}", f"the vocabulary's compositions are of --across {old.across}",
            "choose the same",
        )  # fmt: skip
    report("reading", 0.0)
    corpus = Corpus.of(list(sequences), config.across)
    held = held_out(len(corpus.passage.seconds))
    parts = [corpus.taken(~held).composed(old), corpus.taken(held).composed(old)]
    del corpus
    report("learning", 0.2)
    learned = learn(parts[0], vocabulary.size, config)
    tried = _Tried(parts, learned, vocabulary.size)
    report("judging", 0.4)
    total, steps = len(learned), 0

    def look(merges: int) -> Cost:
        nonlocal steps
        steps += 1
        report("judging", 0.4 + 0.6 * (1 - 0.8**steps))
        return tried.cost(merges)

    value = _value(config, look(0))
    sizes = sorted({min(n, total) for n in (0, *(64 * 4**k for k in range(10)))})
    values = {n: value(look(n)) for n in sizes}
    for _ in range(3):  # halve the gaps beside the best
        known = sorted(values)
        at = known.index(min(known, key=lambda n: (values[n], n)))
        for low, high in zip(known[max(at - 1, 0) : at + 1], known[max(at, 1) : at + 2], strict=False):
            middle = (low + high) // 2 if low else high // 2
            if low < middle < high and high - low > 8:
                values[middle] = value(look(middle))
    best = min(values, key=lambda n: (values[n], n))
    pays = best > 0 and _pays(config, tried.cost(best), tried.cost(0))
    found = tuple((n, tried.cost(n)) for n in sorted(values))
    return Composed(learned=learned, tried=found, kept=best if pays else 0)


def _value(config: ComposeConfig, without: Cost) -> Callable[[Cost], float]:
    """What the objective wants to be low."""
    if config.objective == "length":
        bound = without.bits_per_second
        return lambda c: c.ids_per_second if c.bits_per_second <= bound else 1e6 + c.bits_per_second / bound
    price = config.price if config.objective == "rd" else 0.0
    return lambda c: c.bits_per_second + price * c.ids_per_second


def _pays(config: ComposeConfig, found: Cost, without: Cost) -> bool:
    if config.objective == "length":
        return found.bits_per_second <= without.bits_per_second and found.ids.sum() < without.ids.sum()
    return found.pays_against(without, config.price if config.objective == "rd" else 0.0)


class _Tried:
    """Costs by number of merges. Merges are applied on top of the largest smaller number that is known."""

    def __init__(self, parts: Sequence[Corpus], learned: Compositions, size: int) -> None:
        self._learned, self._size = learned, size
        self._parts = {0: list(parts)}
        self._costs: dict[int, Cost] = {}

    def cost(self, merges: int) -> Cost:
        if merges not in self._costs:
            if merges not in self._parts:
                base = max(n for n in self._parts if n < merges)
                some = self._learned.first(merges)
                with ThreadPoolExecutor(2) as pool:
                    self._parts[merges] = list(pool.map(lambda c: c.composed(some, base), self._parts[base]))
            train, held = (c.passage for c in self._parts[merges])
            size = self._size + merges
            self._costs[merges] = cost(train, held, size, dictionary_bits=composition_bits(merges, size))
        return self._costs[merges]


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
