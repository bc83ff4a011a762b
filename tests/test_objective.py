"""The objective: its minimum is at the truth, its parts are what they say, gains are weighed against their scatter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantok.errors import InputError
from pantok.evolve.objective import Cost, Passage, codebook_bits, cost, digit_bits, held_out, lowest
from pantok.quantizers.kmeans import kmeans, nearest

EPS, SPREAD, RATE = 0.05, 0.08, 30.0


def source(centres: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n vectors about centres that follow each other at random, and the centre of each."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, len(centres), n)
    return centres[of] + rng.normal(0, SPREAD, (n, centres.shape[1])), of


def j_of(book: np.ndarray, train: np.ndarray, held: np.ndarray) -> float:
    """J of a codebook, bits a second, of vectors that come 30 a second; 100 of them are a group."""
    passages, residual = [], held
    for x in (train, held):
        codes, _ = nearest(x.astype(np.float32), book.astype(np.float32))
        group = np.arange(len(x)) // 100
        passages.append(Passage(codes, group, np.bincount(group) / RATE))
        residual = x - book[codes]
    groups = len(passages[1].seconds)
    digits = np.bincount(passages[1].group, digit_bits(residual, EPS), groups)
    span = float(np.ptp(train))
    dictionary = codebook_bits(len(book), book.shape[1], span, EPS)
    return cost(*passages, len(book), dictionary_bits=dictionary, more_bits=digits).bits_per_second


CENTRES = np.random.default_rng(3).uniform(-4, 4, (80, 4))


def test_the_minimum_over_sizes_is_at_the_64_clusters_that_there_are() -> None:
    train, of = source(CENTRES[:64], 24_000, 0)
    held, _ = source(CENTRES[:64], 8_000, 1)
    # One code for each cluster; fewer: the nearest clusters share one; more: the largest clusters have two.
    means = np.stack([train[of == k].mean(0) for k in range(64)])
    costs = []
    for size in (32, 48, 56, 60, 64, 68, 72, 96, 128):
        start = means[:size] if size < 64 else np.concatenate([means, train[: size - 64]])
        costs.append((size, j_of(kmeans(train, size, seed=0, iterations=8, start=start), train, held)))
    assert lowest(costs) == 64, costs


def test_after_16_novel_clusters_the_minimum_is_at_80() -> None:
    old, of = source(CENTRES[:64], 24_000, 0)
    means = np.stack([old[of == k].mean(0) for k in range(64)])
    train, of = source(CENTRES, 30_000, 4)
    held, _ = source(CENTRES, 10_000, 5)
    novel = np.stack([train[of == k].mean(0) for k in range(64, 80)])
    far = train[of >= 64]
    costs = []
    for more in (0, 8, 12, 16, 20, 24, 32):
        start = novel[:more] if more <= 16 else np.concatenate([novel, far[: more - 16]])
        grown = kmeans(far, more, seed=0, iterations=8, start=start) if more else means[:0]
        costs.append((64 + more, j_of(np.concatenate([means, grown]), train, held)))
    assert lowest(costs) == 80, costs


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40))
def test_digits_tell_every_step(steps: list[int]) -> None:
    """Their bits are those of a prefix code: never fewer than the sign and the digits that cannot be left out."""
    residual = np.array(steps, np.float64)[:, None] * 2 * EPS
    bits = digit_bits(residual, EPS)
    assert (bits >= [abs(s).bit_length() for s in steps]).all()
    assert digit_bits(residual * 0, EPS).sum() == pytest.approx(0)  # where all is within eps nothing need be said


def test_digits_cost_what_their_scatter_is_worth() -> None:
    """Of normal residuals about their entropy: twice the width is a bit more in each coordinate."""
    noise = np.random.default_rng(0).normal(0, 1, (20_000, 3))
    one, two = (digit_bits(noise * width, EPS).mean() / 3 for width in (1.0, 2.0))
    entropy = np.log2(np.sqrt(2 * np.pi * np.e) / (2 * EPS))
    assert entropy < one < entropy + 0.35
    assert two - one == pytest.approx(1, abs=0.05)


def test_gains_are_weighed_against_their_scatter() -> None:
    def made(bits: np.ndarray, dictionary: float = 0.0) -> Cost:
        n = len(bits)
        return Cost(bits=bits, ids=np.full(n, 10), seconds=np.ones(n), dictionary_bits=dictionary, served_seconds=100.0)

    noise = np.random.default_rng(0).normal(0, 5, 50)
    base = made(np.full(50, 100.0))
    steady, shaky = made(np.full(50, 99.0)), made(99.7 + noise - noise.mean())
    assert steady.pays_against(base) and not shaky.pays_against(base)
    assert steady.gain_over(base) == (pytest.approx(1.0), pytest.approx(0.0))
    assert not made(np.full(50, 99.0), dictionary=200.0).pays_against(base)  # 2 bits a second of dictionary
    gain, error = shaky.gain_over(base)
    assert gain == pytest.approx(0.3) and error == pytest.approx(noise.std() / np.sqrt(50), rel=0.15)


def test_a_quarter_is_held_out_and_groups_stay_whole() -> None:
    assert held_out(8).tolist() == [False] * 3 + [True] + [False] * 3 + [True]
    assert held_out(2).tolist() == [False, True]
    with pytest.raises(InputError, match="too short"):
        held_out(1)
    said = Passage(np.arange(6), np.array([0, 0, 1, 2, 2, 2]), np.array([1.0, 2.0, 3.0]))
    taken = said.taken(np.array([True, False, True]))
    assert taken.ids.tolist() == [0, 1, 3, 4, 5] and taken.group.tolist() == [0, 0, 1, 1, 1]
    assert taken.seconds.tolist() == [1.0, 3.0]
