"""Compositions: against a slow reference, reversible, refused where they do not pay, kept where they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError, VocabularyError
from pantok.evolve import compose_kernels, lineage
from pantok.evolve.compose import ComposeConfig, Corpus, _between, _sample, _Tried, compose, learn
from pantok.evolve.compositions import Compositions, joins_of, makeup_of, with_compositions, with_more
from pantok.evolve.dictionary import composition_bits
from pantok.evolve.makeup import Makeup
from pantok.evolve.merge import join, with_text
from pantok.evolve.objective import Passage, held_out
from pantok.layout import KINDS, TokenSequence
from pantok.vocabulary import Level, TokenizerState, Vocabulary, merge

CODE, DIGIT, CONTROL, TEXT = (KINDS.index(k) for k in ("code", "digit", "control", "text"))


def slow(ids: list[int], joins: list[bool], first: int, most: int, longest: int, least: int) -> tuple[list, list[int]]:
    """The most frequent pair, counted anew each time; then every occurrence, from the left."""
    merges: list[tuple[int, int]] = []
    length = dict.fromkeys(ids, 1)
    while len(merges) < most:
        pairs = Counter(
            pair for i, pair in enumerate(pairwise(ids))
            if joins[i] and length[pair[0]] + length[pair[1]] <= longest
        )  # fmt: skip
        if not pairs or max(pairs.values()) < least:
            break
        pair = min(pairs, key=lambda p: (-pairs[p], max(p), p))
        name = first + len(merges)
        merges.append(pair)
        length[name] = length[pair[0]] + length[pair[1]]
        out, joined, i = [], [], 0
        while i < len(ids):
            step = 2 if i + 1 < len(ids) and joins[i] and (ids[i], ids[i + 1]) == pair else 1
            out.append(name if step == 2 else ids[i])
            joined.append(joins[i + step - 1])
            i += step
        ids, joins = out, joined
    return merges, ids


cases = st.integers(1, 4).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.tuples(st.integers(0, size - 1), st.sampled_from([True, True, True, False])), max_size=60),
        st.integers(1, 20),
        st.sampled_from([2, 3, 8, 99]),
        st.integers(2, 3),
    )
)


@settings(deadline=None, max_examples=200)
@given(cases)
def test_learning_and_applying_are_the_slow_reference(case: tuple) -> None:
    size, items, most, longest, least = case
    ids, joins = [i for i, _ in items], [j for _, j in items]
    corpus = Corpus(Passage(np.array(ids, np.int64), np.zeros(len(ids), np.int64), np.ones(1)), np.array(joins, bool))
    got = learn(corpus, size, ComposeConfig(merges=most, longest=longest, least=least))
    merges, left = slow(ids, joins, size, most, longest, least)
    assert got.parts.tolist() == [list(m) for m in merges]
    composed, starts = got.apply(corpus.passage.ids, corpus.joins)
    assert composed.tolist() == left
    expanded, counts = got.expand(composed)
    assert expanded.tolist() == ids
    assert starts.tolist() == (np.cumsum(counts) - counts).tolist()
    # Nothing reaches over a barrier, and merges in two steps are the same as in one.
    assert all(all(joins[s : s + c - 1]) for s, c in zip(starts, counts, strict=True))
    some = got.first(len(got) // 2).apply(corpus.passage.ids, corpus.joins)
    ends = np.concatenate([some[1][1:], [len(ids)]]).astype(int) - 1
    rest = got.apply(some[0], corpus.joins[ends] if len(ids) else corpus.joins, len(got) // 2)
    assert rest[0].tolist() == left


def test_a_hand_computed_case() -> None:
    """a b a b a b: (a, b) three times becomes X, then (X, X), which overlaps itself, from the left."""
    ids, joins = np.array([0, 1, 0, 1, 0, 1], np.int32), np.ones(6, bool)
    merges, counts, lengths = np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.ones(4, np.int64)
    made = compose_kernels.learn(ids, joins, 2, lengths, 8, 2, merges, counts)
    assert made == 2 and merges.tolist() == [[0, 1], [2, 2]] and counts.tolist() == [3, 2]
    assert ids[ids >= 0].tolist() == [3, 2] and lengths.tolist() == [1, 1, 2, 4]


def sequence(ids: np.ndarray, kind: np.ndarray | int = CODE, **columns: np.ndarray) -> TokenSequence:
    n = len(ids)
    zeros = np.zeros(n, np.uint8)
    return TokenSequence(
        ids.astype(np.uint32), np.broadcast_to(np.uint8(kind), n) if np.isscalar(kind) else kind,
        columns.get("level", zeros), columns.get("track", zeros), columns.get("time_ns", np.zeros(n, np.int64)), ("a",),
    )  # fmt: skip


def test_what_may_be_joined() -> None:
    kind = np.array([CONTROL, CODE, CODE, CODE, DIGIT, DIGIT, DIGIT, TEXT, TEXT, CODE, CODE, CODE], np.uint8)
    level = np.array([0, 0, 0, 1, 2, 2, 3, 0, 0, 0, 0, 0], np.uint8)
    track = np.array([255, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3], np.uint8)
    time_ns = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7])
    said = sequence(np.arange(12), kind, level=level, track=track, time_ns=time_ns)
    assert np.flatnonzero(joins_of(said, "level")).tolist() == [1, 4]
    assert np.flatnonzero(joins_of(said, "unit")).tolist() == [1, 2, 4]
    assert np.flatnonzero(joins_of(said, "track")).tolist() == [1, 2, 4, 9, 10]


def vocabulary(size: int = 64) -> Vocabulary:
    return Vocabulary.build({"audio": TokenizerState("audio", {}, (Level("a", size),), {})})


def episodes(codes: np.ndarray, count: int = 40) -> list[tuple[TokenSequence, float]]:
    """A source's codes as so many episodes of a minute, each of one unit."""
    first = int(vocabulary().table("audio", 0)[0])
    return [(sequence(part + first), 60.0) for part in np.array_split(codes, count)]


def first_order(n: int) -> np.ndarray:
    """Each code depends on the one before it and on nothing else; 8 of 64 may follow, unevenly."""
    rng = np.random.default_rng(0)
    follow = np.stack([rng.permutation(64)[:8] for _ in range(64)])
    draws = rng.choice(8, n, p=np.arange(8, 0, -1) / 36)
    out = np.zeros(n, np.int64)
    for i in range(1, n):
        out[i] = follow[out[i - 1], draws[i]]
    return out


def motifs(n: int) -> np.ndarray:
    """40 words of 3 to 8 codes, spelled with noise between them."""
    rng = np.random.default_rng(1)
    words = [rng.integers(0, 64, rng.integers(3, 9)) for _ in range(40)]
    parts = [p for _ in range(n // 5) for p in (words[rng.integers(40)], rng.integers(0, 64, rng.integers(0, 2)))]
    return np.concatenate(parts)[:n]


def test_frequent_merges_of_a_first_order_source_are_refused() -> None:
    found = compose(vocabulary(), episodes(first_order(60_000)), ComposeConfig(merges=1024))
    without, most = found.tried[0][1], found.tried[-1][1]
    assert len(found.learned) > 500  # there are frequent pairs, and they shorten it
    assert most.ids_per_second < 0.5 * without.ids_per_second
    assert most.id_bits_per_second > 1.1 * without.id_bits_per_second  # which makes it worse to predict
    assert found.kept == 0


def test_merges_of_motifs_pay_and_are_kept() -> None:
    found = compose(vocabulary(), episodes(motifs(60_000)), ComposeConfig(merges=1024, objective="bits"))
    without, kept = found.tried[0][1], found.cost_of(found.kept)
    assert found.kept >= 40
    assert kept.bits_per_second < 0.9 * without.bits_per_second
    assert kept.ids_per_second < 0.5 * without.ids_per_second


def test_objectives_want_what_they_say() -> None:
    source = episodes(motifs(40_000))
    by_bits = compose(vocabulary(), source, ComposeConfig(merges=512, objective="bits"))
    by_length = compose(vocabulary(), source, ComposeConfig(merges=512, objective="length"))
    by_price = compose(vocabulary(), source, ComposeConfig(merges=512, objective="rd", price=8.0))
    without = by_bits.tried[0][1]
    bits, length, price = (f.cost_of(f.kept) for f in (by_bits, by_length, by_price))
    assert length.ids_per_second <= price.ids_per_second <= bits.ids_per_second < without.ids_per_second
    assert bits.bits_per_second <= price.bits_per_second and length.bits_per_second <= without.bits_per_second


def told_slowly(parts: list[tuple[int, int]], classes: list[int], known: int) -> float:
    """Bits of a table whose pairs make the ids from `known` on: run by run, each over all orders of its pairs."""
    kinds = max(classes) + 1
    runs: list[list[tuple[int, int]]] = []
    for at, pair in enumerate(parts):
        begin = known + sum(len(r) for r in runs[:-1])
        if not at or (max(parts[at - 1]), parts[at - 1]) >= (max(pair), pair) or max(pair) >= begin:
            runs.append([])
        runs[-1].append(pair)
    told: list[tuple[int, int]] = []
    bits = 0.0
    for run in runs:
        there = classes[: known + len(told)]
        total = 0.0
        for order in permutations(run):
            before, p = list(told), 1.0
            for left, right in order:
                a, b = classes[left], classes[right]
                lefts = [x for x, _ in before if classes[x] == a]
                both = [x for x, y in before if (classes[x], classes[y]) == (a, b)]
                p *= (len(lefts) + 1) / (len(before) + kinds) * (len(both) + 1) / (len(lefts) + kinds)
                seen = [i for pair in before for i in pair]
                for part in (left, right):
                    alike = [i for i in seen if classes[i] == classes[part]]
                    p *= (alike.count(part) + 0.5) / (len(alike) + 0.5 * there.count(classes[part]))
                    seen.append(part)
                before.append((left, right))
            total += p
        told += run
        bits += 2 * int(np.log2(len(run))) + 1 - np.log2(total)
    return 1 + min(bits, told_one_by_one(parts, classes, known))


def told_one_by_one(parts: list[tuple[int, int]], classes: list[int], known: int) -> float:
    """The class of each id of a pair by those before, and which of the ids of its class that are there by then."""
    kinds, bits = max(classes) + 1, 0.0
    there, met = Counter(classes[:known]), Counter[tuple[int, ...]]()
    for at, (left, right) in enumerate(parts):
        a, b = classes[left], classes[right]
        bits -= np.log2((met[a,] + 1) / (at + kinds) * (met[a, b] + 1) / (met[a,] + kinds))
        bits += np.log2(there[a] * there[b])
        met.update([(a,), (a, b)])
        there[classes[known + at]] += 1
    return bits


def tables(known: int, count: int) -> Iterator[list[tuple[int, int]]]:
    """All tables of so many different pairs."""
    if not count:
        yield []
        return
    for table in tables(known, count - 1):
        ids = range(known + count - 1)
        yield from ([*table, pair] for pair in product(ids, ids) if pair not in table)


def test_numbers_of_merges_are_judged_the_same_in_any_order_and_few_are_remembered() -> None:
    own, source = vocabulary(), episodes(motifs(20_000))
    found = compose(own, source, ComposeConfig(merges=512, objective="bits"))
    corpus = Corpus.of(source, "unit")
    held = held_out(len(corpus.passage.seconds))
    tried = _Tried(
        [corpus.taken(~held), corpus.taken(held)], found.learned, makeup_of(own), corpus.passage.seconds.sum()
    )
    for number, cost in reversed(found.tried):
        again = tried.cost(number)
        assert np.array_equal(again.bits, cost.bits) and np.array_equal(again.ids, cost.ids)
        assert again.dictionary_bits == cost.dictionary_bits
        assert 0 in tried._parts and len(tried._parts) <= 4
    assert len(found.tried) > 6
    values = {0: 5.0, 64: 3.0, 256: 4.0}
    assert _between(values, is_bound=False) == [32, 160] and _between(values, is_bound=True) == [128, 192]
    assert _between({0: 5.0, 64: 3.0}, is_bound=True) == [] and _between({0: 1.0, 8: 3.0}, is_bound=False) == []


def test_the_bits_of_compositions_are_those_of_a_code() -> None:
    """Of all tables that there are the probabilities add up to no more than one (Kraft), and each is what telling its
    runs as sets comes to."""
    classes = [0, 0, 1]
    for count, least in ((1, 0.49), (2, 0.4), (3, 0.35)):  # half is for a table that is told as sets
        total = 0.0
        for number, table in enumerate(tables(3, count)):
            parts = np.array(table)
            made = Compositions(np.arange(3, 3 + count), parts)
            kinds = with_more(Makeup(np.array(classes, np.int32)), made).classes
            bits = composition_bits(made, kinds)
            total += 2.0 ** -bits[-1]
            if number % 7 == 0:
                assert bits[-1] == pytest.approx(
                    max(told_slowly(table[:n], kinds.tolist(), 3) for n in range(1, count + 1))
                )
        assert least < total <= 1 + 1e-9, (count, total)


def test_learned_pairs_are_told_as_sets_for_less_than_one_by_one() -> None:
    """Of a source that there is something to learn of, and of noise, in which pairs are alike; and any number of the
    first of them for no more than that and the bit that says so."""
    for codes in (motifs(30_000), np.random.default_rng(3).integers(0, 64, 30_000)):
        own, source = vocabulary(), episodes(codes)
        learned = learn(Corpus.of(source, "level"), own.size, ComposeConfig())
        bits = composition_bits(learned, with_more(makeup_of(own), learned).classes)
        assert bits[0] == 0 and (np.diff(bits) >= 0).all()
        for count in (1, 2, 100, len(learned)):
            some = learned.first(count)
            classes = with_more(makeup_of(own), some).classes
            assert composition_bits(some, classes)[-1] == pytest.approx(bits[count])
            plain = told_one_by_one(some.parts.tolist(), classes.tolist(), own.size)
            assert bits[count] <= plain + 1 + 1e-6, count
        assert bits[-1] < 0.7 * plain


def test_what_compositions_weigh_is_spread_over_the_recordings_that_they_serve() -> None:
    source = episodes(motifs(20_000))
    few, many = (compose(vocabulary(), source, ComposeConfig(merges=64, serves=s)) for s in (None, 86_400.0))
    assert len(few.learned) == len(many.learned) == 64
    (one, two) = (f.cost_of(64) for f in (few, many))
    assert two.dictionary_bits_per_second == pytest.approx(one.dictionary_bits / 86_400)
    assert one.id_bits_per_second == two.id_bits_per_second and one.dictionary_bits_per_second == pytest.approx(
        one.dictionary_bits / 2400
    )


def test_of_many_ids_some_episodes_are_looked_at() -> None:
    source = episodes(motifs(20_000), count=400)
    some, count, seconds = _sample(iter(source), 6_000)
    assert count == 400 and seconds == sum(s for _, s in source)
    assert sum(len(s) for s, _ in some) <= 6_000 and 60 <= len(some) < 200
    names = [id(s) for s, _ in source]
    places = [names.index(id(s)) for s, _ in some]
    assert places == sorted(places) and places == [names.index(id(s)) for s, _ in _sample(source, 6_000)[0]]
    assert max(np.diff(places)) > min(np.diff(places)), "by chance, not every so many"
    assert len(_sample(source[:30], 10)[0]) == 30, "too few to choose from"
    assert 8 <= len(_sample(source, 10)[0]) < 32
    found = compose(vocabulary(), source, ComposeConfig(merges=64, most_ids=6_000))
    assert found.looked_at == (len(some), 400) and found.kept
    # What compositions weigh is spread over all of it nevertheless.
    cost = found.cost_of(found.kept)
    assert cost.served_seconds == seconds and cost.seconds.sum() < sum(s for _, s in some)
    assert compose(vocabulary(), source, ComposeConfig(merges=64)).looked_at == (400, 400)


def test_a_vocabulary_composes_again_and_no_id_moves() -> None:
    old = vocabulary()
    source = episodes(motifs(40_000))
    found = compose(old, source, ComposeConfig(merges=64, across="level"))
    once = with_compositions(old, found.learned.first(64))
    grown = once.with_state(
        TokenizerState("video", {}, (Level("v", 9),), {})  # something else is learned in between
    )
    again = compose(grown, source, ComposeConfig(merges=32))  # joins what was joined before
    twice = with_compositions(grown, again.learned)
    assert twice.extents[: len(grown.extents)] == grown.extents and twice.reads(grown) and twice.decodes(old)
    assert twice.size == grown.size + len(again.learned) > grown.size
    here = Compositions.of(twice)
    assert len(here) == 64 + len(again.learned)
    for said, _ in source[:3]:
        composed = here.sequence(said)
        assert len(composed) < len(said) and int(composed.ids.max()) < twice.size
        np.testing.assert_array_equal(here.expand(composed.ids)[0], said.ids)
    with pytest.raises(OptionError, match="are of --across level"):
        compose(twice, source, ComposeConfig(across="unit"))


def test_options_are_checked() -> None:
    for wrong in (
        {"objective": "size"},
        {"across": "time"},
        {"merges": 0},
        {"longest": 1},
        {"least": 1},
        {"price": -1},
        {"serves": 0},
    ):
        with pytest.raises(OptionError):
            ComposeConfig(**wrong)


def test_another_text_model_moves_compositions_along() -> None:
    """Ids move, what is composed of what does not; also where something was learned after composing."""
    old, source = vocabulary(), episodes(motifs(40_000))
    once = with_compositions(old, compose(old, source, ComposeConfig(merges=64)).learned.first(64))
    grown = once.with_state(TokenizerState("video", {}, (Level("v", 9),), {}))
    text = TokenizerState("text", {}, (Level("text", 300, "text"),), {})
    new = with_text(grown, text)
    assert new.states["text"] is text and new.table("text", 0).tolist() == list(range(300)) and new.decodes(old)
    assert lineage.related(new, grown)
    to = lineage.ids(new, grown)
    here, there = Compositions.of(grown), Compositions.of(new)
    assert len(there) == 64 and int(to.max()) == new.size - 1
    for said, _ in source[:3]:
        moved = replace(said, ids=to[said.ids].astype(said.ids.dtype))
        composed = there.sequence(moved)
        np.testing.assert_array_equal(composed.ids, to[here.sequence(said).ids])
        np.testing.assert_array_equal(there.expand(composed.ids)[0], moved.ids)
    assert with_text(new, text).id == new.id and with_text(old, text).id == merge([old], text).id


def test_compositions_of_words_do_not_outlive_their_text_model() -> None:
    words = Vocabulary.build({"text": TokenizerState("text", {}, (Level("text", 300, "text"),), {})})
    composed = with_compositions(words, Compositions(np.array([words.size]), np.array([[5, 6]])))
    with pytest.raises(VocabularyError, match="compose again"):
        with_text(composed, TokenizerState("text", {}, (Level("text", 200, "text"),), {}))
    lab = vocabulary()
    joined, _ = join(lab, composed)
    assert "composition" not in joined.states, "it names ids of the other"
    assert join(words, composed)[0].id == composed.id


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 400), st.booleans())
def test_reading_gives_what_applying_the_merges_one_by_one_gives(seed, alphabet, n, is_long):
    """Short runs are searched, long ones (over 96) kept in a heap."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, alphabet, n).astype(np.int64)
    joins = rng.random(n) < (0.999 if is_long else 0.8)
    joins[-1] = False
    passage = Passage(ids, np.zeros(n, np.int64), np.ones(1))
    pairs = learn(Corpus(passage, joins), 1000, ComposeConfig(merges=30, least=2, longest=int(rng.integers(2, 40))))
    want, begins = pairs.apply(ids, joins)
    got, starts = pairs.read(ids, joins)
    assert got.tolist() == want.tolist() and starts.tolist() == begins.tolist()
