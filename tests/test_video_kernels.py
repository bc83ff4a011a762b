"""The compiled loops of the video tokenizer against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from llvmlite import binding
from numba import njit

from pantok.tokenizers import video_choose_kernels as choose
from pantok.tokenizers import video_kernels as pictures
from pantok.tokenizers import video_lanes
from pantok.tokenizers import video_motion_kernels as motion
from pantok.tokenizers import video_search_kernels as search
from pantok.tokenizers.video_choose import gaps_of, squared
from pantok.tokenizers.video_exact import Book, make_book
from pantok.tokenizers.video_grid import REACH, SITE, WEIGHTS, Grid, Reference
from pantok.tokenizers.video_groups import cut_in_groups
from pantok.tokenizers.video_lanes import KEPT, LANES, paired


def picture(grid: Grid, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (grid.sites, SITE)).astype(np.uint8)


def a_book(codes: int, stages: int = 2, seed: int = 0) -> Book:
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(SITE, 12)))[0].T
    return make_book(
        directions, [rng.normal(size=(codes, 12)) * np.geomspace(300, 20, 12) / (s + 1) for s in range(stages)]
    )


def vectors(count: int, seed: int) -> np.ndarray:
    x = np.rint(np.random.default_rng(seed).normal(size=(count, 12)) * np.geomspace(300, 20, 12)).astype(np.float32)
    return np.concatenate([x, np.ones((count, 1), np.float32)], 1)


def half_distance(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """int64 (n, K), less half of each vector's squared norm; as the tables have it, rounded down."""
    c = codes.astype(np.int64)
    return (c * c).sum(1) // 2 - x[:, : c.shape[1]].astype(np.int64) @ c.T


@pytest.mark.parametrize(("frames", "count"), [(3, 3), (3, 2), (1, 1)])
def test_coefficients_of_differences(frames: int, count: int) -> None:
    rng = np.random.default_rng(21)
    directions = np.linalg.qr(rng.normal(size=(frames * SITE, 12)))[0].T
    book = make_book(directions, [rng.normal(size=(20, 12)) * 200])
    a, b = rng.integers(0, 256, (2, count, 150, SITE)).astype(np.uint8)
    rows = np.sort(rng.choice(150, 131, replace=False))
    wanted = np.zeros((131, frames * SITE), np.float32)
    wanted[:, : count * SITE] = ((a.astype(np.float32) - b) * WEIGHTS)[:, rows].transpose(1, 0, 2).reshape(131, -1)
    assert np.array_equal(book.project_gaps(a, b, rows), book.project(wanted))


def test_all_codes_are_looked_at_where_groups_are_few() -> None:
    book, x = a_book(50), vectors(400, 1)
    assert len(book.starts[1]) - 1 <= KEPT
    codes, saved = book.search(1, x)
    score = half_distance(x, book.codes[1])
    assert np.array_equal(codes, score.argmin(1))
    assert np.array_equal(saved, -2.0 * book.unit**2 * score.min(1))


def test_the_nearest_code_of_the_nearest_groups_is_found() -> None:
    book, x = a_book(300), vectors(700, 2)
    groups = cut_in_groups(book.codes[0], book.starts[0])
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(300)) and max(map(len, groups)) <= LANES
    edges = set(book.starts[0].tolist())
    assert all(not edges & set(range(g[0] + 1, g[-1] + 1)) for g in groups), "no group is of two that were made"
    assert len(groups) > KEPT
    centres = np.array([np.floor((2 * book.codes[0][g].sum(0, dtype=int) + len(g)) / (2 * len(g))) for g in groups])
    near = np.argsort(half_distance(x, centres), 1, kind="stable")[:, :KEPT]
    score = half_distance(x, book.codes[0]).astype(np.float64)
    owner = np.empty(300, int)
    for c, group in enumerate(groups):
        owner[group] = c
    seen = (owner[None, :, None] == near[:, None, :]).any(2)
    codes, saved = book.search(0, x)
    expected = np.where(seen, score, np.inf).argmin(1)
    assert (codes == expected).mean() > 0.99  # the last of the groups may be another where two are as near
    assert np.array_equal(saved, -2.0 * book.unit**2 * score[np.arange(len(x)), codes])
    best = score.min(1)
    assert (score[np.arange(len(x)), codes] == best).mean() > 0.8  # and it is mostly the nearest of all


def test_the_search_does_not_depend_on_its_company() -> None:
    book, x = a_book(300), vectors(600, 3)
    whole = book.deepen(x, np.full(2, 1e4))
    parts = [book.deepen(x[i : i + 37], np.full(2, 1e4)) for i in range(0, 600, 37)]
    for k in range(2):
        assert np.array_equal(whole[k], np.concatenate([p[k] for p in parts], 1))


def test_differences_are_described_in_one_go() -> None:
    rng = np.random.default_rng(23)
    book = a_book(300)
    a = rng.integers(0, 256, (1, 90, SITE)).astype(np.uint8)
    b = np.clip(a + rng.normal(size=a.shape) * 30, 0, 255).astype(np.uint8)
    rows, cost, share = np.arange(3, 80), np.array([2e3, 1e3]), rng.uniform(0.2, 2.0, 77)
    once, apart = book.described(a, b, rows, cost, share), book.deepen(book.project_gaps(a, b, rows), cost, share)
    assert all(np.array_equal(x, y) for x, y in zip(once, apart, strict=True)) and (once[0] >= 0).any()


def test_a_share_of_the_cost_is_a_cost_of_that_share() -> None:
    book, x, cost = a_book(300), vectors(400, 5), np.array([2e4, 3e4])
    share = np.random.default_rng(6).choice([0.125, 0.5, 1.0, 2.0], 400)
    found, saved = book.deepen(x, cost, share)
    for part in np.unique(share):
        mine = share == part
        alone = book.deepen(x[mine], cost * part)
        assert np.array_equal(found[:, mine], alone[0]) and np.array_equal(saved[:, mine], alone[1])
    assert not np.array_equal(found, book.deepen(x, cost)[0])


def test_codes_as_deep_as_sites_are() -> None:
    rng = np.random.default_rng(24)
    codes, depth = rng.integers(0, 99, (3, 40)), rng.integers(0, 4, 40)
    out, counts = np.empty_like(codes), np.zeros(3, np.int64)
    pictures.as_deep(codes, depth, out, counts)
    for k in range(3):
        assert np.array_equal(out[k, : counts[k]], codes[k][depth > k])


def test_stages_go_on_while_there_is_hope() -> None:
    book, x = a_book(50), vectors(200, 4)
    cost = np.array([2e4, 3e4])
    found, saved = book.deepen(x, cost)
    energy = book.unit**2 * (x[:, :-1].astype(np.float64) ** 2).sum(1)
    assert np.array_equal(found[0] >= 0, energy >= search.HOPE * cost[0])
    first = found[0] >= 0
    left = x[:, :-1] - np.where(first[:, None], book.codes[0][np.maximum(found[0], 0)], 0)
    again = book.unit**2 * (left.astype(np.float64) ** 2).sum(1)
    paid = saved[0] - cost[0] >= -search.DEBT * cost[1]
    rich = again >= 2 * search.HOPE * cost[1]
    assert np.array_equal(found[1] >= 0, first & (again >= search.HOPE * cost[1]) & (paid | rich))
    assert (first & ~paid & ~rich & (again >= search.HOPE * cost[1])).any(), "all cases are met"
    assert first.any() and not first.all() and (saved[found < 0] == 0).all()


def interpolated(plane: np.ndarray, y: int, x: int) -> np.ndarray:
    """A plane moved by (y, x) half samples, by the definition, in the middle of it."""
    p = plane.astype(np.int64)

    def half(a: np.ndarray, axis: int) -> np.ndarray:
        b, c, d, e = (np.roll(a, shift, axis) for shift in (1, 0, -1, -2))
        return np.clip((5 * (c + d) - b - e + 4) >> 3, 0, 255)

    if x & 1:
        p = half(p, 1)
    if y & 1:
        p = half(p, 0)
    return np.roll(p, (-(y >> 1), -(x >> 1)), (0, 1))


@pytest.mark.parametrize("move", [(0, 0), (1, 0), (0, 1), (1, 1), (-7, 5), (8, -12), (-15, -15)])
def test_displaced_pictures(move: tuple[int, int]) -> None:
    grid = Grid(128, 128)
    reference = Reference(grid, picture(grid, 5))
    moves = np.tile(np.array(move), (4 * grid.blocks, 1))
    luma, chroma = (plane[0] for plane in grid.to_planes(reference.fetch(moves)[None]))
    middle = slice(24, 104)
    assert np.array_equal(luma[middle, middle], interpolated(reference.luma, *move)[middle, middle])
    # Chroma: means of neighbours, at displacements rounded down to half chroma samples.
    y, x = move[0] >> 1, move[1] >> 1
    pairs = grid.to_planes(reference.sites[None])[1][0].reshape(64, 64, 2).astype(np.int64)
    if x & 1:
        pairs = (pairs + np.roll(pairs, -1, 1) + 1) >> 1
    if y & 1:
        pairs = (pairs + np.roll(pairs, -1, 0) + 1) >> 1
    pairs = np.roll(pairs, (-(y >> 1), -(x >> 1)), (0, 1))
    middle = slice(12, 52)
    assert np.array_equal(chroma.reshape(64, 64, 2)[middle, middle], pairs[middle, middle])


def test_the_farthest_displacements_stay_inside() -> None:
    grid = Grid(40, 70)
    reference = Reference(grid, picture(grid, 6))
    for y in (-REACH, REACH):
        for x in (-REACH, REACH):
            assert reference.fetch(np.tile(np.array([y, x]), (4 * grid.blocks, 1))).shape == (grid.sites, SITE)


def luma_gaps(
    reference: Reference, target: np.ndarray, moves: np.ndarray, which: np.ndarray, step: int = 2
) -> np.ndarray:
    """int64 (m,): squared luma error of the quads `which` of `target` if they are displaced by `moves` (m, 2), on every
    `step`-th of their rows."""
    gap = reference.fetch(moves, which)[:, :64].astype(np.int64).reshape(-1, 4, 8, 8)
    gap -= target[:, :64].reshape(-1, 4, 8, 8)[which]
    return (gap[:, :, ::step] ** 2).sum((1, 2, 3))


def test_weighted_differences() -> None:
    a, b = np.random.default_rng(10).integers(0, 256, (2, 3, 50, SITE)).astype(np.uint8)
    weighted = (a.astype(np.int64) - b) * WEIGHTS
    assert np.array_equal(squared(a, b), (weighted**2).sum(2))
    rows = np.array([4, 0, 49, 7])
    assert np.array_equal(gaps_of(a, b, rows), weighted[:, rows].transpose(1, 0, 2).reshape(4, -1))


def test_blocks_find_their_displacement() -> None:
    rng = np.random.default_rng(11)
    then = rng.integers(0, 256, (64, 96)).astype(np.uint8)
    now = np.roll(then, (-2, 3), (0, 1))
    offsets = np.array([(0, 0), *((y, x) for y in range(-4, 5) for x in range(-4, 5))])
    out, still = np.empty((96, 2), np.int64), np.empty(96, np.int64)
    start = np.zeros((96, 2), np.int64)
    motion.match_blocks(now, np.pad(then, 4, "edge"), 4, 8, start, offsets, 4, 0, out, still)
    inner = out.reshape(8, 12, 2)[1:-1, 1:-1]
    assert (inner == (2, -3)).all()
    assert np.array_equal(still.reshape(8, 12), np.abs(now.astype(int) - then).reshape(8, 8, 12, 8).sum((1, 3)))


def test_a_palette_is_greedy() -> None:
    rng = np.random.default_rng(12)
    errors = rng.integers(0, 1000, (9, 40))
    best = rng.integers(0, 1000, 40)
    chosen, owner = np.empty(5, np.int64), np.zeros(40, np.int64)
    left, expected = best.copy(), []
    while len(expected) < 5:
        gains = np.maximum(left - errors, 0).sum(1)
        if gains.max() < 600:
            break
        expected.append(int(gains.argmax()))
        left = np.minimum(left, errors[expected[-1]])
    now = best.copy()
    taken = motion.choose_palette(now, errors, 5, 600, chosen, owner)
    assert chosen[:taken].tolist() == expected and taken >= 2 and np.array_equal(now, left)
    every = np.concatenate([best[None], errors[expected]])
    assert np.array_equal(every[owner, np.arange(40)], left)


@pytest.mark.parametrize("table", [40, 3])
@pytest.mark.parametrize("ways", [1, 3])
def test_patterns_of_most_gain(table: int, ways: int) -> None:
    """A table is looked through, or, where they are fewer, the depths that were looked at."""
    rng = np.random.default_rng(13)
    patterns = np.concatenate(
        [np.zeros((1, 5), np.int64), np.c_[rng.integers(0, 2, table), rng.integers(0, 4, (table, 4))]]
    )
    patterns[1] = (1, 0, 0, 0, 0)
    numbers = np.full((2, 4, 4, 4, 4), -1)
    for place in range(len(patterns) - 1, -1, -1):
        numbers[tuple(patterns[place])] = place
    depth = rng.integers(0, 4, 4 * 60)
    depth[: 4 * 10] = 0
    active = np.flatnonzero(depth > 0)
    cost, weight = np.array([100.0, 90.0, 80.0]), rng.choice([0.5, 1.0, 2.5], 60)
    saved = np.round(rng.exponential(80, (3, len(active))), 2)
    found = np.where(np.arange(3)[:, None] < depth[active], 10 * np.arange(ways)[:, None, None] + 7, -1)
    gains = np.full((4 * 60, 4), -1e12)
    gains[:, 0] = 0
    for k in range(3):
        rows = active[found[0, k] >= 0]
        gains[rows, k + 1] = np.rint(np.cumsum(weight[active // 4] * saved - cost[:, None], 0)[k, found[0, k] >= 0])
    wide = rng.random(60) < 0.5
    chosen, best = np.zeros(60, np.int64), np.zeros(60)
    codes = np.zeros((3, 4 * 60), np.int64)
    choose.best_patterns(active, found, saved, weight, cost, patterns, numbers, wide, codes, chosen, best)
    deep = patterns[chosen, 1:].ravel()
    of_way = 10 * np.minimum(deep - 1, ways - 1) + 7  # the way to the depth that was chosen
    assert np.array_equal(codes, np.where(np.arange(3)[:, None] < deep, of_way, 0))
    for q in range(60):
        total = np.array([sum(gains[4 * q + k, p[1 + k]] for k in range(4)) for p in patterns])
        total[(patterns[:, 0] == 1) != wide[q]] = -np.inf
        if (gains[4 * q : 4 * q + 4, 1:] > 0).any() or wide[q]:
            assert chosen[q] == total.argmax() and best[q] == total.max()
        else:
            assert chosen[q] == 0 and best[q] == 0
    assert (best > 0).any()


HOST = binding.get_host_cpu_features()
KNOWN = [(parts, name) for feature, parts, name in video_lanes._INSTRUCTIONS if HOST.get(feature)]


@pytest.mark.parametrize("how", [*KNOWN, (1, ""), (4, "")])
def test_products_of_pairs_are_those_of_whole_numbers(how: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a processor multiplies them with; of numbers as large as there may be, an odd count."""
    monkeypatch.setattr(video_lanes, "_HOW", how)

    @njit
    def best(x: np.ndarray, rows: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
        video_lanes.best_lanes(x, rows, table, 0, x.shape[1], out)

    @njit
    def least(codes: np.ndarray, lanes: np.ndarray, out: np.ndarray) -> None:
        video_lanes.least_keys(codes, lanes, 3, 0, out)

    rng = np.random.default_rng(how[0])
    x, codes = rng.integers(-900, 900, (6, 5)), rng.integers(-900, 900, (LANES, 5))
    x[1], codes[3], codes[4] = 0, 0, [-(2**15) + 1, 0, 0, 0, 2**15 - 1]
    start = rng.integers(0, 1 << 20, LANES)
    table, rows, out = np.concatenate([start[None].astype(np.int32), paired(codes).T]), np.array([5, 1, 0, 2]), None
    out = np.zeros(4, np.int32)
    best(paired(x), rows, np.ascontiguousarray(table), out)
    scores = start + x[rows] @ codes.T
    assert np.array_equal(out >> 4, scores.min(1)) and np.array_equal(out & 15, scores.argmin(1))
    lines = np.concatenate([start[:8, None].astype(np.int32), paired(codes[:8])], 1)
    keys = np.zeros((KEPT, LANES), np.int32)
    least(lines, np.ascontiguousarray(paired(np.resize(x, (LANES, 5))).T), keys)
    every = start[:8] + np.resize(x, (LANES, 5)) @ codes[:8].T
    assert np.array_equal(keys[:8].T & 7, np.argsort(every, 1, kind="stable"))
    assert np.array_equal(keys[0] >> 3, every.min(1))


@pytest.mark.parametrize("count", [4, 8, 64, 68, 300])
def test_the_nearest_groups_are_the_nearest_groups(count: int) -> None:
    rng = np.random.default_rng(count)
    centres = rng.integers(-50, 50, (count, 8))
    centres[:, 0] = rng.permutation(count) * 16_000  # far enough apart for the few bits that a score keeps of many
    centres[count // 2, 0] = (1 << 24) - 1
    x = rng.integers(-9, 9, (37, 7))
    chosen = np.full((37, min(KEPT, count)), -1, np.int64)
    lines = np.concatenate([centres[:, :1].astype(np.int32), paired(centres[:, 1:])], 1)
    search.nearest_groups(search.in_pairs(np.pad(x, ((0, 0), (0, 1))).astype(np.float32), 7), lines, chosen)
    scores = centres[:, 0] + x @ centres[:, 1:].T
    assert np.array_equal(chosen, np.argsort(scores, 1, kind="stable")[:, :KEPT])


def test_a_cluster_may_be_large() -> None:
    book = a_book(300)
    whole = Book(book.basis, book.codes, tuple(np.array([0, len(c)]) for c in book.codes))
    x = vectors(100, 5)
    codes, _ = whole.search(0, x)
    assert (codes == half_distance(x, book.codes[0]).argmin(1)).mean() > 0.8


@pytest.mark.parametrize("marks", [1, 2])
def test_displacements_of_blocks_and_of_their_quads(marks: int) -> None:
    grid = Grid(96, 160)
    reference, frames = Reference(grid, picture(grid, 14)), np.stack([picture(grid, 15 + f) for f in range(marks)])
    rng = np.random.default_rng(17)
    moves = rng.integers(-20, 21, (marks, 9, 2))
    moves[:, 0] = 0
    moves[:, 5] = moves[:, 2]  # a tie
    owner = rng.integers(0, 9, (grid.blocks, 4))
    for b, v in enumerate(rng.integers(1, 9, 8)):  # eight blocks that move, of which four as a whole
        for f in range(marks):
            there = reference.fetch(np.tile(moves[f, v], (4 * grid.blocks, 1))).reshape(grid.blocks, 4, 4, SITE)
            frames[f].reshape(there.shape)[b, : 4 if b < 4 else 2] = there[b, : 4 if b < 4 else 2]
    quads = np.arange(4 * grid.blocks)
    error = np.stack(
        [
            sum(
                luma_gaps(reference, f, np.tile(m[v], (len(quads), 1)), quads)
                for f, m in zip(frames, moves, strict=True)
            )
            for v in range(9)
        ]
    ).reshape(9, grid.blocks, 4) * (2 // marks)
    knee, price = 9e5, 4e5
    worth = np.where(error < knee, error, 2 * np.sqrt(error * knee) - knee)
    kind, split = reference.chosen(frames, moves, owner, knee, price)
    for b in range(grid.blocks):
        order = [*owner[b], 0]
        whole = order[int(np.argmin([worth[v, b].sum() for v in order]))]
        own = error[owner[b], b, range(4)]
        pick = np.where(own > knee / 2, error[:, b].argmin(0), owner[b])
        apart = worth[pick, b, range(4)].sum() + price < worth[whole, b].sum()
        assert split[b] == apart and np.array_equal(kind[b], pick if apart else np.full(4, whole)), b
    assert split.any() and not split.all()


def test_displacements_are_refined_by_what_they_own() -> None:
    grid = Grid(64, 96)
    reference, target = Reference(grid, picture(grid, 18)), picture(grid, 19)
    which = np.arange(4 * grid.blocks)
    owner = which % 4
    begin = np.array([[0, 0], [59, -60], [8, 4], [-12, 20]])
    refined = begin.copy()
    for step in (2, 1):
        tried = np.clip(refined + step * np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])[:, None], -60, 60)
        errors = [[luma_gaps(reference, target, t[owner], which, 4)[owner == v].sum() for v in range(4)] for t in tried]
        pick = np.argmin(errors, 0)
        pick[0] = 0
        refined = tried[pick, np.arange(4)]
    assert np.array_equal(reference.refined(target, begin, which, owner), refined)
    assert (refined[1:] != begin[1:]).any()


def test_all_blocks_try_the_same_offsets() -> None:
    rng = np.random.default_rng(20)
    now, then = (np.rint(rng.integers(0, 256, (24, 40)) / s).astype(np.uint8) for s in (1, 2))
    offsets = np.array([(0, 0), *((y, x) for y in range(-4, 5) for x in range(-4, 5))])
    out, still = np.empty((60, 2), np.int64), np.empty(60, np.int64)
    padded = np.pad(then, 4, "edge")
    motion.match_all(now, padded, 4, offsets, out, still)
    gaps = np.stack([np.abs(now.astype(int) - padded[4 + y : 28 + y, 4 + x : 44 + x]) for y, x in offsets])
    sums = gaps.reshape(-1, 6, 4, 10, 4).sum((2, 4)).reshape(-1, 60)
    assert np.array_equal(out, offsets[sums.argmin(0)]) and np.array_equal(still, sums[0])


def test_pictures_of_half_size() -> None:
    grid = Grid(64, 96)
    sites = picture(grid, 22)
    luma = grid.to_planes(sites[None])[0][0].astype(int)
    half = (luma.reshape(32, 2, 48, 2).sum((1, 3)) + 2) >> 2
    out, again = np.empty((36, 52), np.uint8), np.empty((22, 30), np.uint8)
    motion.halved_sites(sites, grid.columns, 2, out)
    assert np.array_equal(out, np.pad(half, 2, "edge"))
    motion.halved(out, 2, 3, again)
    assert np.array_equal(again, np.pad((half.reshape(16, 2, 24, 2).sum((1, 3)) + 2) >> 2, 3, "edge"))
