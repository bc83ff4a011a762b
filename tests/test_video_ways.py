"""The patient search of codes, against one that looks at everything with plain numpy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pantok.quantizers.gated import Life
from pantok.tokenizers import video_ways_kernels as kernels
from pantok.tokenizers.video_exact import Book, make_book

DIMS, STAGES = 7, 3


def a_book(size: int = 20, seed: int = 0) -> Book:
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(96, DIMS)))[0].T
    return make_book(directions, [rng.normal(size=(size, DIMS)) * 300 / 2**s for s in range(STAGES)])


def vectors(count: int, seed: int) -> np.ndarray:
    x = np.rint(np.random.default_rng(seed).normal(size=(count, DIMS + 1)) * 400).astype(np.float32)
    x[:, -1] = 1
    return x


def searched(
    book: Book, x: np.ndarray, cost: float, many: int, share: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    found, saved = np.full((STAGES, STAGES, len(x)), -1, np.int64), np.zeros((STAGES, len(x)))
    kernels.deepen(
        x,
        *book._ways,
        book._unit2,
        np.full(STAGES, cost),
        np.ones(len(x)) if share is None else share,
        many,
        found,
        saved,
    )
    return found, saved


def test_a_share_of_the_cost_is_a_cost_of_that_share() -> None:
    book, x = a_book(), vectors(150, 2)
    share = np.random.default_rng(3).choice([0.25, 1.0, 3.0], 150)
    found, saved = searched(book, x, 2e5, 3, share)
    for part in (0.25, 1.0, 3.0):
        alone = searched(book, x[share == part], 2e5 * part, 3)
        assert np.array_equal(found[:, :, share == part], alone[0]) and np.array_equal(
            saved[:, share == part], alone[1]
        )
    assert not np.array_equal(found, searched(book, x, 2e5, 3)[0])


def left_by(book: Book, x: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Squared errors (S, n) that the ways to each depth leave, where there is one; in the book's units."""
    out = np.full((STAGES, len(x)), np.nan)
    for depth in range(STAGES):
        there = found[depth, 0] >= 0
        made = sum(book.codes[k][found[depth, k, there]].astype(float) for k in range(depth + 1))
        out[depth, there] = ((x[there, :-1] - made) ** 2).sum(1)
    return out


def slowly(book: Book, row: np.ndarray, many: int) -> list[float]:
    """The least error at each depth, by keeping the `many` best ways."""
    ways, least = [(np.asarray(row, float),)], []
    for codes in book.codes:
        further = [(way[0] - code,) for way in ways for code in codes.astype(float)]
        ways = sorted(further, key=lambda way: float((way[0] ** 2).sum()))[:many]
        least.append(float((ways[0][0] ** 2).sum()))
    return least


@pytest.mark.parametrize("many", [1, 2, 5])
def test_it_finds_what_keeping_the_best_ways_finds(many: int) -> None:
    book, x = a_book(), vectors(150, 1)
    found, saved = searched(book, x, 0.0, many)
    left = left_by(book, x, found)
    wanted = np.array([slowly(book, row[:-1], many) for row in x]).T
    # Halves of squared norms are cut to whole numbers, so that ways that differ by as little may be taken for equal.
    assert np.abs(left - wanted).max() <= 2 * STAGES
    energy = (x[:, :-1].astype(float) ** 2).sum(1)
    assert np.abs(book._unit2 * (energy - left) - np.cumsum(saved, 0)).max() <= STAGES * book._unit2


def test_more_ways_leave_less_and_all_of_them_leave_least() -> None:
    book, x = a_book(12), vectors(200, 2)
    by_ways = [np.nansum(left_by(book, x, searched(book, x, 0.0, many)[0]), 1) for many in (1, 2, 4, 12**2)]
    assert all(a[0] == by_ways[0][0] for a in by_ways), "of one code there is one best"
    for fewer, more in pairwise(by_ways):
        assert (more[1:] < fewer[1:]).all()
    every = [b.astype(float) for b in book.codes]
    sums = (every[0][:, None, None] + every[1][None, :, None] + every[2]).reshape(-1, DIMS)
    best = np.array([((row[:-1] - sums) ** 2).sum(1).min() for row in x])
    assert abs(best.sum() - by_ways[-1][2]) <= 2 * STAGES * len(x)


def test_no_code_is_looked_for_where_none_could_pay() -> None:
    book, x = a_book(), vectors(200, 3)
    cost = 2e5
    found, saved = searched(book, x, cost, 3)
    left = np.concatenate([(x[:, :-1].astype(float) ** 2).sum(1)[None], left_by(book, x, found)])
    for stage in range(STAGES):
        tried = found[stage, 0] >= 0
        before = np.nan_to_num(left[stage], nan=-1.0) * book._unit2
        assert np.array_equal(tried, before >= cost) or np.abs(before - cost)[tried != (before >= cost)].max() < 8
        assert not saved[stage, ~tried].any()
    assert 0 < (found[2, 0] >= 0).sum() < len(x)


def test_each_vector_is_searched_by_itself() -> None:
    book, x = a_book(), vectors(300, 4)
    whole = searched(book, x, 5e4, 3)
    for some in (slice(0, 1), slice(37, 180), slice(120, 300)):
        part = searched(book, x[some], 5e4, 3)
        assert np.array_equal(part[0], whole[0][..., some]) and np.array_equal(part[1], whole[1][..., some])


def test_codes_that_came_later_are_for_what_was_badly_described() -> None:
    book, x = a_book(), vectors(400, 5)
    more = np.random.default_rng(6).normal(size=(9, DIMS)) * 500
    threshold = 500_000
    lives = (Life().grown(20, threshold), Life(), Life())
    grown = replace(book, codes=(np.concatenate([book.codes[0], more.astype(np.int16)]), *book.codes[1:]), lives=lives)
    before, after = searched(book, x, 0.0, 3)[0], searched(grown, x, 0.0, 3)[0]
    first = left_by(book, x, before)[0]
    well = first <= threshold
    assert 20 < well.sum() < 380 and np.array_equal(before[..., well], after[..., well])
    assert (after[0, 0, ~well] >= 20).any() and np.nansum(left_by(grown, x, after)[2]) < np.nansum(
        left_by(book, x, before)[2]
    )
    gone = np.unique(before[0, 0])[:4]
    retired = replace(book, lives=(Life().without(gone, np.zeros(4, np.uint32)), Life(), Life()))
    assert not np.isin(searched(retired, x, 0.0, 3)[0][:, 0], gone).any()
