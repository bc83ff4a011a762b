"""The n-gram: against dictionaries, as a probability, and where its tables grow."""

from __future__ import annotations

from collections import Counter, defaultdict
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError
from pantok.evolve.predictor import NGram


class Slow:
    """The same by dictionaries of contexts: none, the class of the id before, one id, two."""

    def __init__(self, size: int, classes: list[int] | None) -> None:
        self.size, self.classes = size, classes
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

    def p(self, word: int, contexts: list[tuple]) -> float:
        p = 1 / self.size
        for context in contexts:
            seen = self.after[context]
            if seen:
                times = [n for c, words in self.after.items() if c[0] == context[0] for n in words.values()]
                less = (times.count(1) + 1) / (times.count(1) + 2 * times.count(2) + 2)
                p = max(seen[word] - less, 0) / seen.total() + less * len(seen) / seen.total() * p
        return p

    def walk(self, ids: list[int], documents: list[int], learn: bool) -> list[float]:
        bits = []
        for word, contexts in zip(ids, self.contexts(ids, documents), strict=True):
            bits.append(-log2(self.p(word, contexts)))
            if learn:
                for context in contexts:
                    self.after[context][word] += 1
        return bits


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
    fast, slow = NGram(size, None if classes is None else np.array(classes)), Slow(size, classes)
    for text in texts:
        ids = [w for w, _ in text]
        documents = np.cumsum([new for _, new in text], dtype=np.int64)
        got = fast.prequential(np.array(ids, np.int64), documents)
        np.testing.assert_allclose(got, slow.walk(ids, documents.tolist(), True), rtol=1e-12, atol=1e-12)
    again = fast.bits(np.array(ids, np.int64), documents)
    np.testing.assert_allclose(again, slow.walk(ids, documents.tolist(), False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [None, np.arange(9) // 4])
def test_probabilities_sum_to_one_after_every_context(classes: np.ndarray | None) -> None:
    rng = np.random.default_rng(0)
    size = 9
    model = NGram(size, classes).count(rng.integers(0, size - 2, 300))  # two ids are never seen
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
    whole = NGram(500, classes).count(ids, documents)
    assert whole.distinct[1] > 4096 and whole.distinct[2] > 8192  # both tables have grown
    parts = NGram(500, classes)
    for k in range(0, len(ids), 7000):
        parts.count(ids[k : k + 7000], documents[k : k + 7000])
    assert parts.distinct[0] == whole.distinct[0]
    triples = {tuple(t) for k in range(60) for t in np.lib.stride_tricks.sliding_window_view(ids[1000 * k :][:1000], 3)}
    plain = NGram(500).count(ids, documents)
    assert plain.distinct == whole.distinct  # classes have places of their own
    assert whole.distinct[2] == len(triples) + 60  # the begin of a document and its first id are a context too
    # A document cut in the middle begins anew there: only cuts between documents change nothing.
    thirds = NGram(500, classes)
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
    told, untold = (NGram(128, c).count(ids[:4000]).bits(ids[4000:]).mean() for c in (np.arange(128) // 64, None))
    assert 6 <= told < 6.4 < untold - 0.6


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(OptionError, match="position 1: id 7 is not below 4"):
        NGram(4).count(np.array([0, 7]))
    with pytest.raises(OptionError, match="cannot predict 0 ids"):
        NGram(0)
    assert len(NGram(4).prequential(np.zeros(0, np.uint32))) == 0
