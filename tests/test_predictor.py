"""The n-gram: against dictionaries, as a probability, and where its tables grow."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError
from pantok.evolve.compose import ComposeConfig, Corpus, learn
from pantok.evolve.compositions import Compositions, with_more
from pantok.evolve.makeup import Makeup
from pantok.evolve.objective import Passage
from pantok.evolve.predictor import NGram


class Slow:
    """The same by dictionaries of contexts: none, the class of the id before, one id, two. made: compositions; what
    composing two ids' spelling would not leave as it is cannot follow."""

    def __init__(self, size: int, classes: list[int] | None, made: Compositions | None = None) -> None:
        self.size, self.classes = size, classes
        self.cannot = set() if made is None else {
            (u, v) for u in range(size) for v in range(size) if composed(made, [u, v]) != [u, v]
        }  # fmt: skip
        self.seams: dict[int, float] = {}
        self.after: dict[tuple, Counter[int]] = defaultdict(Counter)

    def contexts(self, ids: list[int], documents: list[int]) -> list[list[tuple]]:
        found = []
        for i in range(len(ids)):
            first = max(j for j in range(i + 1) if j == 0 or documents[j] != documents[j - 1])
            past = [-1, *ids[first:i]]
            mine: list[tuple] = [(n, *past[len(past) - n :]) for n in range(3) if n <= len(past)]
            if self.classes is not None:
                mine.insert(1, ("class", -1 if past[-1] < 0 else self.classes[past[-1]]))
            found.append(mine)
        return found

    def out(self, last: int, contexts: list[tuple]) -> float:
        return sum(self.p(w, contexts[:2]) for w in range(self.size) if (last, w) in self.cannot)

    def settle(self) -> None:
        """Of each class, how often what cannot follow did, over how often it would have by the class alone."""
        self.seams = {}
        for kind in set(self.classes or []):
            met = would = 0.0
            for u in range(self.size):
                if self.classes[u] == kind:
                    after = self.after[1, u]
                    met += sum(n for w, n in after.items() if (u, w) in self.cannot)
                    would += after.total() * self.out(u, [(0,), ("class", kind)])
            self.seams[kind] = min((met + 1) / (would + 2), 1)

    def p(self, word: int, contexts: list[tuple], last: int = -1) -> float:
        p = 1 / self.size
        for context in contexts:
            seen = self.after[context]
            if seen:
                times = [n for c, words in self.after.items() if c[0] == context[0] for n in words.values()]
                less = (times.count(1) + 1) / (times.count(1) + 2 * times.count(2) + 2)
                p = max(seen[word] - less, 0) / seen.total() + less * len(seen) / seen.total() * p
            if context[0] == "class" and last >= 0:
                out, share = self.out(last, contexts), self.seams.get(context[1], 1)
                if 0 < out < 1 - 1e-9:
                    p *= share if (last, word) in self.cannot else (1 - share * out) / (1 - out)
        return p

    def walk(self, ids: list[int], documents: list[int], learn: bool) -> list[float]:
        bits = []
        if self.cannot:
            self.settle()
        for i, (word, contexts) in enumerate(zip(ids, self.contexts(ids, documents), strict=True)):
            last = ids[i - 1] if i and documents[i] == documents[i - 1] else -1
            bits.append(-log2(self.p(word, contexts, last)))
            if learn:
                for context in contexts:
                    self.after[context][word] += 1
        return bits


def composed(made: Compositions, ids: list[int]) -> list[int]:
    """What the ids spell, composed with nothing between that cannot be joined."""
    spelled = made.expand(np.array(ids))[0]
    return made.apply(spelled, np.ones(len(spelled), bool))[0].tolist()


@st.composite
def makeups(draw: st.DrawFn) -> tuple[Makeup, Compositions]:
    """Compositions as they are learned from a few ids, and classes."""
    size = draw(st.integers(1, 4))
    ids = np.array(draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=60)))
    passage = Passage(ids, np.zeros(len(ids), np.int64), np.ones(1))
    config = ComposeConfig(merges=draw(st.integers(1, 8)), least=2, longest=draw(st.sampled_from([2, 3, 8])))
    made = learn(Corpus(passage, np.ones(len(ids), bool)), size, config)
    classes = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    return with_more(Makeup(np.array(classes, np.int32)), made), made


sequences = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        st.none() | st.lists(st.integers(0, 2), min_size=size, max_size=size),
        st.just(size),
        *(st.lists(st.tuples(st.integers(0, size - 1), st.booleans()), max_size=60) for _ in range(2)),
    )
)


@settings(deadline=None)  # the first call compiles
@given(sequences)
def test_it_is_the_textbook_counted_with_dictionaries(case: tuple[list | None, int, list, list]) -> None:
    classes, size, *texts = case
    fast, slow = NGram(size, None if classes is None else Makeup(np.array(classes))), Slow(size, classes)
    for text in texts:
        ids = [w for w, _ in text]
        documents = np.cumsum([new for _, new in text], dtype=np.int64)
        got = fast.prequential(np.array(ids, np.int64), documents)
        np.testing.assert_allclose(got, slow.walk(ids, documents.tolist(), True), rtol=1e-12, atol=1e-12)
    again = fast.bits(np.array(ids, np.int64), documents)
    np.testing.assert_allclose(again, slow.walk(ids, documents.tolist(), False), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(makeups(), st.data())
def test_with_compositions_it_is_the_same_counted_with_dictionaries(
    case: tuple[Makeup, Compositions], data: st.DataObject
) -> None:
    """What cannot follow is told by composing; ids need not be as composing leaves them, as over seams they are not."""
    makeup, made = case
    fast, slow = NGram(len(makeup), makeup), Slow(len(makeup), makeup.classes.tolist(), made)
    ids = data.draw(st.lists(st.integers(0, len(makeup) - 1), max_size=40))
    documents = (np.arange(len(ids)) // 15).tolist()
    for learn_too in (True, False):
        walk = fast.prequential if learn_too else fast.bits
        got = walk(np.array(ids, np.int64), np.array(documents, np.int64))
        np.testing.assert_allclose(got, slow.walk(ids, documents, learn_too), rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(makeups())
def test_what_cannot_follow_is_what_composing_would_join(case: tuple[Makeup, Compositions]) -> None:
    makeup, made = case
    for u in range(len(makeup)):
        for v in range(len(makeup)):
            assert makeup.forbids(u, v) == (composed(made, [u, v]) != [u, v])


PAIRS = Compositions(np.array([6, 7, 8]), np.array([[0, 1], [6, 2], [2, 0]]))


@pytest.mark.parametrize(
    "makeup",
    [None, Makeup(np.arange(9) // 4), with_more(Makeup(np.arange(6) // 3), PAIRS)],
    ids=["none", "classes", "made"],
)
def test_probabilities_sum_to_one_after_every_context(makeup: Makeup | None) -> None:
    rng = np.random.default_rng(0)
    size = 9
    model = NGram(size, makeup).count(rng.integers(0, size - 2, 300))  # two ids are never seen
    for u in range(size):
        for v in range(size):
            rows = np.stack([np.full(size, u), np.full(size, v), np.arange(size)], 1)
            bits = model.bits(rows.ravel(), np.repeat(np.arange(size), 3)).reshape(size, 3)
            assert np.exp2(-bits[:, 2]).sum() == pytest.approx(1, abs=1e-12)


def test_tables_grow_and_parts_count_as_the_whole() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 500, 60_000)
    documents = np.arange(len(ids)) // 1000
    classes = np.arange(500) % 7
    whole = NGram(500, Makeup(classes)).count(ids, documents)
    assert whole.distinct[1] > 4096 and whole.distinct[2] > 8192  # both tables have grown
    parts = NGram(500, Makeup(classes))
    for k in range(0, len(ids), 7000):
        parts.count(ids[k : k + 7000], documents[k : k + 7000])
    assert parts.distinct[0] == whole.distinct[0]
    triples = {tuple(t) for k in range(60) for t in np.lib.stride_tricks.sliding_window_view(ids[1000 * k :][:1000], 3)}
    plain = NGram(500).count(ids, documents)
    assert plain.distinct == whole.distinct  # classes have places of their own
    assert whole.distinct[2] == len(triples) + 60  # the begin of a document and its first id are a context too
    # A document cut in the middle begins anew there: only cuts between documents change nothing.
    thirds = NGram(500, Makeup(classes))
    for k in range(0, len(ids), 20_000):
        thirds.count(ids[k : k + 20_000], documents[k : k + 20_000])
    np.testing.assert_array_equal(thirds.bits(ids[:5000]), whole.bits(ids[:5000]))


def test_a_repeated_sequence_costs_next_to_nothing_once_it_is_known() -> None:
    period = np.random.default_rng(2).permutation(64)
    bits = NGram(64).prequential(np.tile(period, 200))
    assert bits[:64].mean() > 5 and bits[-64:].mean() < 0.02


def test_classes_tell_what_comes_after_a_context_that_was_never_met() -> None:
    """Two books of 64 codes take turns, each code at random: six bits, which no pair of ids tells."""
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 64, 8000) + 64 * (np.arange(8000) % 2)
    books = Makeup(np.arange(128) // 64)
    told, untold = (NGram(128, m).count(ids[:4000]).bits(ids[4000:]).mean() for m in (books, None))
    assert 6 <= told < 6.4 < untold - 0.6


def test_what_compositions_are_made_of_saves_what_would_be_kept_for_what_cannot_follow() -> None:
    """Codes at random, joined: a twentieth of the probability would go to pairs that are one id."""
    rng = np.random.default_rng(4)
    codes = np.minimum(rng.geometric(0.1, 40_000), 64) - 1
    whole = Corpus(Passage(codes, np.zeros(len(codes), np.int64), np.ones(1)), np.ones(len(codes), bool))
    made = learn(whole, 64, ComposeConfig(merges=200))
    known = with_more(Makeup(np.zeros(64, np.int32)), made)
    parts = [made.apply(half, np.ones(20_000, bool))[0] for half in (codes[:20_000], codes[20_000:])]
    told, untold = (NGram(264, m).count(parts[0]).bits(parts[1]).sum() for m in (known, Makeup(known.classes)))
    assert told < 0.992 * untold
    # Over seams all may follow all: where they are many, what compositions say is not believed.
    seams = rng.permutation(parts[0])
    told, untold = (NGram(264, m).count(seams[:9000]).bits(seams[9000:]).sum() for m in (known, Makeup(known.classes)))
    assert told < 1.002 * untold


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(OptionError, match="position 1: id 7 is not below 4"):
        NGram(4).count(np.array([0, 7]))
    with pytest.raises(OptionError, match="cannot predict 0 ids"):
        NGram(0)
    assert len(NGram(4).prequential(np.zeros(0, np.uint32))) == 0
