"""Groups of sixteen codes: all full, each code in one, of no more scatter than halving leaves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.tokenizers.video_groups import BRIEF, LONG, cut_in_groups, in_groups
from pantok.tokenizers.video_lanes import LANES


def scatter(codes: np.ndarray, order: np.ndarray, starts: np.ndarray) -> float:
    parts = [codes[order[a:b]].astype(float) for a, b in pairwise(starts)]
    return sum(float(((p - p.mean(0)) ** 2).sum()) for p in parts)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.integers(1, 5), st.integers(0, 99), st.sampled_from([0, BRIEF, LONG]))
def test_each_code_is_in_one_group_and_all_groups_are_full_but_the_last_codes(
    count: int, dims: int, seed: int, iterations: int
) -> None:
    codes = np.random.default_rng(seed).integers(-30, 30, (count, dims)).astype(np.int16)
    order, starts = in_groups(codes, iterations)
    sizes = np.diff(starts)
    assert np.array_equal(np.sort(order), np.arange(count)) and starts[0] == 0 and starts[-1] == count
    assert sizes.max() <= LANES and len(sizes) == -(-count // LANES)
    if count % LANES == 0:
        assert (sizes == LANES).all()
    assert all((np.diff(order[a:b]) > 0).all() for a, b in pairwise(starts))
    again = cut_in_groups(codes[order], starts)
    assert [len(g) for g in again] == sizes.tolist(), "what was made is not cut any more"


def test_sixteen_neighbours_that_stand_apart_from_all_others_are_a_group() -> None:
    rng = np.random.default_rng(1)
    centres = rng.integers(-1000, 1000, (12, 6))
    codes = (np.repeat(centres, LANES, 0) + rng.integers(-9, 9, (12 * LANES, 6))).astype(np.int16)
    shuffled = rng.permutation(len(codes))
    order, starts = in_groups(codes[shuffled])
    found = {frozenset((shuffled[order[a:b]] // LANES).tolist()) for a, b in pairwise(starts)}
    assert found == {frozenset([k]) for k in range(12)}


@pytest.mark.parametrize("count", [1024, 1000, 2500])
def test_improving_leaves_less_scatter_than_halving(count: int) -> None:
    rng = np.random.default_rng(count)
    codes = np.rint(rng.normal(size=(count, 8)) * 40 * rng.random((count, 1))).astype(np.int16)
    halved, brief, long = (scatter(codes, *in_groups(codes, k)) for k in (0, BRIEF, LONG))
    assert long < brief < halved and long < 0.95 * halved
