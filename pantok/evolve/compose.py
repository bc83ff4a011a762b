"""Neighbouring ids as one id: merges that are kept only if they are worth it on recordings they were not learned from.

What is unusual: a merge is not kept because it is frequent. Merging does not take information away, so that it helps a
predictor only where its context is too short, and harms it where it splits one context into many: on a source where
each code depends on the one before, 4,096 frequent merges made sequences 2.35 times shorter and 45% harder to predict.
So merges are learned in the order of their counts, and then as many of them are kept as the objective says, which may
be none.

    bits     fewest held-out bits a second, the compositions' own among them
    length   fewest ids, at no more held-out bits a second than without
    rd       fewest held-out bits a second where each id costs `price` bits besides
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np

from pantok.errors import InputError, OptionError
from pantok.evolve.compositions import ACROSS, Compositions, joins_of, makeup_of, with_more
from pantok.evolve.dictionary import composition_bits
from pantok.evolve.makeup import Makeup
from pantok.evolve.objective import LEAST_GROUPS, Cost, Passage, cost, held_out
from pantok.layout import TokenSequence
from pantok.tokenizers.base import Report, silent
from pantok.vocabulary import Vocabulary

OBJECTIVES = ("bits", "length", "rd")
_ACROSS = "unit"
_REMEMBERED = 3


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """How ids are composed.

    merges: the most that are learned. objective: one of OBJECTIVES. price: bits that an id costs besides its own, with
    `rd`. across: `level` joins ids of one level of one unit, `unit` also those of successive levels of it, `track`
    also those of different tracks where no marker stands between; None is what the vocabulary's own compositions join,
    `unit` if it has none. longest: ids that a composition may spell. least: how often a pair must be met. serves:
    seconds that the compositions' own bits are spread over; all that was given if None. most_ids: with more, and many
    episodes, some of them are looked at.
    """

    merges: int = 131_072
    objective: str = "length"
    price: float = 1.0
    across: str | None = None
    longest: int = 16
    least: int = 2
    serves: float | None = None
    most_ids: int = 16_000_000

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise OptionError("compose objective", f"cannot be {self.objective}", f"known: {', '.join(OBJECTIVES)}")
        if self.across is not None and self.across not in ACROSS:
            raise OptionError("compose across", f"cannot be {self.across}", f"known: {', '.join(ACROSS)}")
        if not 1 <= self.merges <= 1 << 20:
            raise OptionError("compose merges", f"{self.merges} is out of range", "choose 1 to 1048576")
        if not 2 <= self.longest <= 4096:
            raise OptionError("compose longest", f"{self.longest} is out of range", "choose 2 to 4096")
        if self.least < 2:
            raise OptionError("compose least", f"{self.least} is out of range", "choose 2 or more")
        if self.serves is not None and not self.serves > 0:
            raise OptionError("compose serves", "has to be positive", "give the hours of recordings that there will be")
        if self.most_ids < 1:
            raise OptionError("compose most_ids", f"is {self.most_ids}", "choose 1 or more")
        if not self.price >= 0:
            raise OptionError("compose price", f"{self.price} is negative", "choose 0 or more")


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
    ascending, none first. kept: the number that the objective wants, 0 where none pays. looked_at: of so many episodes,
    out of how many."""

    learned: Compositions
    tried: tuple[tuple[int, Cost], ...]
    kept: int
    looked_at: tuple[int, int]

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
    return Compositions(np.arange(size, size + made), merges[:made], config.across or _ACROSS)


def compose(
    vocabulary: Vocabulary,
    sequences: Iterable[tuple[TokenSequence, float]],
    config: ComposeConfig | None = None,
    *,
    report: Report = silent,
) -> Composed:
    """Learns compositions from sequences of layouts (each with its seconds) and finds how many of them pay.

    What the vocabulary has composed before is composed first. Of more than `most_ids` ids some episodes are looked at,
    by chance but the same ones each time: judging takes about 210 bytes an id. Raises InputError, OptionError.
    """
    config = config or ComposeConfig()
    old = Compositions.of(vocabulary)
    across = config.across or (old.across if len(old) else _ACROSS)
    if len(old) and old.across != across:
        raise OptionError(
            f"compose across {across}", f"the vocabulary's compositions are of --across {old.across}",
            "choose the same",
        )  # fmt: skip
    report("reading", 0.0)
    some, episodes, seconds = _sample(sequences, config.most_ids)
    looked_at = len(some), episodes
    corpus = Corpus.of(some, across)
    del some
    if not corpus.joins.any():
        raise InputError(
            "recordings", "hold no two ids that could be one: words stay as their text model has them",
            "give a store of video, sound or numbers",
        )  # fmt: skip
    held = held_out(len(corpus.passage.seconds))
    parts = [corpus.taken(~held).composed(old), corpus.taken(held).composed(old)]
    del corpus
    report("learning", 0.2)
    learned = learn(parts[0], vocabulary.size, replace(config, across=across))
    tried = _Tried(parts, learned, makeup_of(vocabulary), config.serves or seconds)
    report("judging", 0.4)
    total, looked = len(learned), 0

    def look(merges: int) -> Cost:
        nonlocal looked
        found = tried.cost(merges)
        looked += 1
        report("judging", 0.4 + 0.6 * (1 - 0.8**looked))
        return found

    value = _value(config, look(0))
    with ThreadPoolExecutor(2) as pool:
        sizes = sorted({min(n, total) for n in (0, *(64 * 4**k for k in range(10)))})
        values = {n: value(c) for n, c in zip(sizes, pool.map(look, sizes), strict=True)}
        for _ in range(3):
            between = _between(values, config.objective == "length")
            values |= {n: value(c) for n, c in zip(between, pool.map(look, between), strict=True)}
    # The best may be within its error of none where fewer are not.
    sound = [n for n in values if n == 0 or _pays(config, tried.cost(n), tried.cost(0))]
    kept = min(sound, key=lambda n: (values[n], n))
    found = tuple((n, tried.cost(n)) for n in sorted(values))
    return Composed(learned=learned, tried=found, kept=kept, looked_at=looked_at)


def _sample(
    sequences: Iterable[tuple[TokenSequence, float]], most: int
) -> tuple[list[tuple[TokenSequence, float]], int, float]:
    """Sequences that hold `most` ids at most, if there are enough of them to choose from; how many there were, and
    their seconds. Each has a number by chance, and those below a limit stay, which is halved when they are too many."""
    kept: list[tuple[int, tuple[TokenSequence, float]]] = []
    limit, count, total, ids = 1 << 62, 0, 0.0, 0
    for count, given in enumerate(sequences, 1):
        total += given[1]
        draw = int(np.random.default_rng(count).integers(1 << 62))
        if draw >= limit:
            continue
        kept.append((draw, given))
        ids += len(given[0])
        while ids > most and len(kept) >= 2 * LEAST_GROUPS:
            limit //= 2
            kept = [k for k in kept if k[0] < limit]
            ids = sum(len(sequence) for _, (sequence, _) in kept)
    return [given for _, given in kept], count, total


def _between(values: dict[int, float], is_bound: bool) -> list[int]:
    """Numbers of merges to look at beside the best. is_bound: more of them are better up to an edge, which lies above
    the best; else the best may lie on both sides."""
    known = sorted(values)
    at = known.index(min(known, key=lambda n: (values[n], n)))
    gaps = list(pairwise(known[at if is_bound else max(at - 1, 0) : at + 2]))
    parts = 3 if is_bound else 2
    return [low + (high - low) * k // parts for low, high in gaps if high - low > 8 for k in range(1, parts)]


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
    """Costs by number of merges; may be asked from several threads. Merges are applied on top of the largest smaller
    number that is there: none, and the last few, as ids of hours are gigabytes."""

    def __init__(
        self, parts: Sequence[Corpus], learned: Compositions, makeup: Makeup, serves: float
    ) -> None:  # fmt: skip
        """makeup: of the ids of the vocabulary. serves: seconds, see `ComposeConfig`."""
        self._learned, self._makeup, self._serves = learned, makeup, serves
        self._dictionary = composition_bits(learned, with_more(makeup, learned).classes)
        self._parts = {0: list(parts)}
        self._costs: dict[int, Cost] = {}
        self._lock = Lock()

    def cost(self, merges: int) -> Cost:
        if merges not in self._costs:
            with self._lock:
                train, held = (c.passage for c in self._composed(merges))
            makeup = with_more(self._makeup, self._learned.first(merges))
            dictionary = float(self._dictionary[merges])
            found = cost(train, held, len(makeup), makeup=makeup, dictionary_bits=dictionary)
            self._costs[merges] = replace(found, served_seconds=self._serves)
        return self._costs[merges]

    def _composed(self, merges: int) -> list[Corpus]:
        if merges not in self._parts:
            base = max(n for n in self._parts if n < merges)
            some = self._learned.first(merges)
            with ThreadPoolExecutor(2) as pool:
                self._parts[merges] = list(pool.map(lambda c: c.composed(some, base), self._parts[base]))
        if merges:  # the one that was asked for last is forgotten last
            self._parts[merges] = self._parts.pop(merges)
        for old in [n for n in self._parts if n][:-_REMEMBERED]:
            del self._parts[old]
        return self._parts[merges]
