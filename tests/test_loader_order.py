"""Orders, mixtures, stages and splits: pure functions that lose and repeat nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import loader_kernels as kernels
from pantok.errors import OptionError
from pantok.loader_splits import SPLITS, group_of, split_of
from pantok.loader_windows import Curriculum, Order, Schedule, Stage, Windows, key_of, whole_weights


def feistel(index: int, n: int, key: int) -> int:
    """The order of `loader_kernels.place` in Python's integers."""

    def mix(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        return word ^ (word >> 31)

    half = max(1, -(-(n - 1).bit_length() // 2))
    mask = 2**half - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(kernels.ROUNDS):
            left, right = right, left ^ (mix((right + key + number * 0x9E3779B97F4A7C15) % 2**64) & mask)
        index = left << half | right
        if index < n:
            return index


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 600), key=st.integers(0, 2**64 - 1))
def test_an_order_holds_every_number_once(n: int, key: int) -> None:
    order = kernels.order(n, np.uint64(key))
    assert sorted(order.tolist()) == list(range(n))
    assert order.tolist()[:20] == [feistel(i, n, key) for i in range(min(n, 20))]


def test_orders_are_mixed_well() -> None:
    """Over many keys every number stands in every place about equally often, and neighbours part."""
    n, keys = 12, 6000
    table = np.array([kernels.order(n, key_of(k)) for k in range(keys)])
    counts = np.array([np.bincount(column, minlength=n) for column in table.T])
    expected = keys / n
    # Chi-square with (n - 1)^2 = 121 degrees of freedom: 200 is beyond one in a hundred thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 200
    gaps = np.abs(np.diff(kernels.order(10_000, key_of(3))))
    assert gaps.mean() == pytest.approx(10_000 / 3, rel=0.05)


def test_an_order_stays_what_it_is() -> None:
    """Jobs resume across versions: these are for ever."""
    assert kernels.order(7, key_of(1, 2)).tolist() == [feistel(i, 7, int(key_of(1, 2))) for i in range(7)]
    whole = Windows([100, 50, 3], 16, 5, True)
    text = repr([whole.parts(2, i) for i in range(len(whole))])
    assert hashlib.sha256(text.encode()).hexdigest()[:12] == "8e38d0dabe32"


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=6), start=st.integers(0, 10**15), n=st.integers(1, 300)
)
def test_a_schedule_draws_in_proportion_and_in_turn(weights: list[int], start: int, n: int) -> None:
    schedule = Schedule(tuple(weights))
    before = [0] * len(weights)
    for index in range(n):  # from the start: who is drawn is drawn once more than before
        who, count = schedule.draw(index)
        assert count == before[who]
        before[who] += 1
        share = (index + 1) * weights[who] / sum(weights)
        assert abs(before[who] - share) <= 1 + np.log2(len(weights))
    # Far away: over any whole period each is drawn as often as its weight says, and counts go on.
    period = sum(weights)
    first = start - start % period
    drawn = [schedule.draw(index) for index in range(first, first + period)]
    assert [sum(who == k for who, _ in drawn) for k in range(len(weights))] == weights
    assert all(count // weights[who] == first // period for who, count in drawn)


def test_weights_become_integers() -> None:
    assert whole_weights([3.0, 1.0]) == (3, 1)
    assert whole_weights([0.1, 0.2, 0.7]) == (1, 2, 7)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="weight"):
            whole_weights([1.0, wrong])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weights=st.none() | st.lists(st.integers(1, 9), min_size=4, max_size=4),
    epochs=st.integers(1, 5),
)
def test_a_mixture_takes_each_store_through_whole_epochs(
    sizes: list[int], weights: list[int] | None, epochs: int
) -> None:
    sources = [Windows([size * 8], 8, 0, True) for size in sizes]
    order = Order(sources, None if weights is None else weights[: len(sizes)])
    assert len(order) == sum(sizes)
    drawn = [order.draw(epoch, index) for epoch in range(epochs) for index in range(len(order))]
    for source, size in enumerate(sizes):
        mine = [(d.epoch, d.window) for d in drawn if d.source == source]
        assert mine == [divmod(k, size) for k in range(len(mine))]  # in turn: nothing lost, nothing twice
        if weights is None:
            assert len(mine) == epochs * size


def test_stages_follow_each_other() -> None:
    orders = [Order([Windows([n * 4], 4, 0, False)]) for n in (10, 20, 30)]
    stages = [Stage(epochs=1.5), Stage(windows=45), Stage()]
    curriculum = Curriculum(orders, stages)
    assert [curriculum.stage(e) for e in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    assert [curriculum.size(e) for e in range(7)] == [10, 5, 20, 20, 5, 30, 30]
    stage, drawn = curriculum.draw(3, 7)
    assert (stage, drawn.epoch, drawn.window) == (1, 1, 7)
    for wrong in ({"epochs": 1.0, "windows": 3}, {"epochs": 0.0}, {"windows": -1}):
        with pytest.raises(OptionError, match="curriculum"):
            Stage(**wrong)


def test_splits_are_about_their_shares_and_stay() -> None:
    groups = [f"group-{k}" for k in range(20_000)]
    found = Counter(split_of(g) for g in groups)
    for name, share in SPLITS.items():
        assert found[name] / len(groups) == pytest.approx(share, abs=0.006)
    # Training may take from valid; the test split stays as it was.
    other = {"train": 0.7, "valid": 0.25, "test": 0.05}
    assert all(split_of(g, other) == "test" for g in groups if split_of(g) == "test")
    assert split_of("kitchen") == "train"  # a pure function of the name: for ever


def test_groups_are_what_was_recorded() -> None:
    def file(path: str, sha256: str = "") -> SimpleNamespace:
        return SimpleNamespace(path=path, sha256=sha256)

    assert group_of("a", [file("x.mp4", "12ab")]) == group_of("b", [file("copy.mp4", "12ab"), file("y")]) == "12ab"
    assert group_of("a", [file("x.mp4")]) == "x.mp4" and group_of("a", []) == "a"
    assert group_of("a", [file("x.mp4")], "episode") == "a"
    assert group_of("kitchen-03", [], r"^(.+)-\d+$") == group_of("kitchen-11", [], r"^(.+)-\d+$") == "kitchen"
    assert group_of("hall", [], r"^(.+)-\d+$") == "hall"
    with pytest.raises(OptionError, match="regular expression"):
        group_of("a", [], "(")
    with pytest.raises(OptionError, match="shares"):
        split_of("a", {"train": -1.0})
