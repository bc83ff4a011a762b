"""Courses: what they draw, which are chosen, how they are learned, and vocabularies from before they were there."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pantok import pixels
from pantok.errors import VocabularyError
from pantok.experience import Clock, Track
from pantok.tokenizers import video_course_kernels as kernels
from pantok.tokenizers.video import VideoConfig, VideoOptions, VideoTokenizer
from pantok.tokenizers.video_books import SHALLOW, Books
from pantok.tokenizers.video_choose import Chooser, squared
from pantok.tokenizers.video_control import lambda_of
from pantok.tokenizers.video_course import CANDIDATES, END, PAST, Courses, learned_courses
from pantok.tokenizers.video_grid import REACH, SITE, Grid, Reference
from pantok.tokenizers.video_kernels import worth
from pantok.tokenizers.video_tick import pack

GRID = Grid(64, 96)


def shaken(count: int, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """uint8 frames of a texture that jerks to and fro: where it is half way says nothing of where it is between."""
    rng = np.random.default_rng(seed)
    big = rng.normal(size=(height + 40, width + 40, 3))
    for k in range(3):
        for axis in (0, 1):
            big = big + np.roll(big, 1 << k, axis)
    big = np.clip(128 + 45 * big / big.std(), 0, 255).astype(np.uint8)
    places = [(int(y), int(x)) for y, x in rng.integers(0, 6, (count, 2))]
    return pixels.from_rgb(np.stack([big[y : y + height, x : x + width] for y, x in places]))


def track_of(frames: np.ndarray) -> Track:
    info = {"height": 64, "width": 96}
    return Track.of_array("video.test", frames, Clock.regular(Fraction(25), len(frames)), info=info)


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    config = VideoConfig(size=32, vectors=8000, sample_megabytes=8, rounds=1, dims=16)
    return VideoTokenizer.fit([track_of(shaken(72))], config)


def references(seed: int) -> tuple[Reference, Reference]:
    sites = GRID.to_sites(shaken(2, seed=seed))
    return Reference(GRID, sites[0]), Reference(GRID, sites[1])


def stepped(past: Reference, end: Reference, step: np.ndarray, move: np.ndarray, number: int, count: int) -> np.ndarray:
    """uint8 (Q, 4, 96): all quads of frame `number` along one step from the straight line of `move` (2,)."""
    line = np.floor((2 * move * (number + 1) + count) / (2 * count)).astype(int)
    place = np.clip(line + step[1:], -REACH, REACH)
    quads = np.ones((4 * GRID.blocks, 1), int)
    early = past.fetch(place * quads).reshape(-1, 4, SITE)
    late = end.fetch(np.clip(place - move, -REACH, REACH) * quads).reshape(-1, 4, SITE)
    both = ((early.astype(int) + late + 1) // 2).astype(np.uint8)
    return early if step[0] == PAST else late if step[0] == END else both


def test_a_course_is_three_steps_off_the_straight_line() -> None:
    rng = np.random.default_rng(0)
    past, end = references(1)
    table = np.concatenate([rng.integers(0, 3, (9, 3, 1)), rng.integers(-12, 13, (9, 3, 2))], 2)
    course = rng.integers(0, 10, (GRID.blocks, 4))
    moves = rng.integers(-REACH, REACH + 1, (4 * GRID.blocks, 2))
    base = rng.integers(0, 256, (3, GRID.sites, SITE)).astype(np.uint8)
    for start in (past, None):
        drawn = Courses(table).followed(course, moves, start, end, base).reshape(3, -1, 4, SITE)
        for quad, mine in enumerate(course.ravel()):
            for k in range(3):
                wanted = base.reshape(3, -1, 4, SITE)[k, quad]
                if mine:
                    step = table[mine - 1, k]
                    mode = step[0] if start else END
                    wanted = stepped(past, end, np.array([mode, *step[1:]]), moves[quad], k, 4)[quad]
                assert np.array_equal(drawn[k, quad], wanted)


def test_the_course_of_least_error_is_chosen_where_it_pays() -> None:
    rng = np.random.default_rng(3)
    past, end = references(2)
    table = np.concatenate([rng.integers(0, 3, (12, 3, 1)), rng.integers(-9, 10, (12, 3, 2))], 2)
    courses, move = Courses(table), np.array([5, -3])
    steps, numbers = courses.steps
    assert np.array_equal(steps[numbers.T], table)
    by_course = np.stack([[stepped(past, end, table[c, k], move, k, 4) for k in range(3)] for c in range(12)])
    taken = rng.integers(0, 12, 4 * GRID.blocks)
    frames = np.concatenate(
        [by_course[taken, :, np.arange(len(taken))].transpose(1, 0, 2, 3), end.sites.reshape(1, -1, 4, SITE)]
    )
    frames = np.clip(frames + rng.integers(-2, 3, frames.shape), 0, 255).astype(np.uint8).reshape(4, -1, SITE)
    plain = np.stack([stepped(past, end, np.zeros(3, int), move, k, 4) for k in range(3)]).reshape(3, -1, SITE)
    base = plain.copy()
    source = np.arange(GRID.blocks) % 2 * PAST  # every second block has a source of its own
    for b in np.flatnonzero(source):
        for k in range(3):
            base[k, 16 * b : 16 * b + 16] = stepped(past, end, np.array([PAST, 0, 0]), move, k, 4).reshape(-1, SITE)[
                16 * b : 16 * b + 16
            ]
    left = squared(frames[:3], base).sum(0)
    course, kind, vectors = np.zeros((GRID.blocks, 4), int), np.ones((GRID.blocks, 4), int), np.stack([0 * move, move])
    knee, bits, price, before = 4000.0, 900.0, 500.0, left.copy()
    kernels.choose_courses(
        *past.shifted[:2], *end.shifted, vectors, kind, frames, GRID.inside[::4], steps, numbers, knee, bits, price,
        0.0, 0.0, source, course, base, left,
    )  # fmt: skip
    drawn = courses.followed(course, np.tile(move, (4 * GRID.blocks, 1)), past, end, plain)
    some = course.any(1)
    assert some.sum() > GRID.blocks // 2 and not source[some].any()
    mine = np.repeat(some, 16)
    assert np.array_equal(base[:, mine], drawn[:, mine])
    assert np.array_equal(left, squared(frames[:3], base).sum(0))
    told = course.ravel() > 0
    assert np.array_equal(course.ravel()[told] - 1, taken[told]) and told.mean() > 0.5
    of = lambda energy: np.array([[worth(float(e), knee) for e in row] for row in energy.reshape(-1, 4, 4).sum(2)])  # noqa: E731
    was, now = of(before).sum(1), (of(left) + bits * (course > 0)).sum(1)
    stated = np.arange(GRID.blocks) % 2 == 1
    assert (now + price * (some & ~stated) <= was)[some].all()


def test_courses_are_learned_from_what_they_leave_over() -> None:
    rng = np.random.default_rng(5)
    wanted = np.sort(rng.choice(len(CANDIDATES), (6, 3), replace=False), 0)
    owner = rng.integers(0, 6, 300)
    errors = rng.integers(5_000, 9_000, (300, 3, len(CANDIDATES))).astype(np.int32)
    np.put_along_axis(errors, wanted[owner][..., None], rng.integers(0, 50, (300, 3, 1)).astype(np.int32), 2)
    made = learned_courses(errors.reshape(300, -1), 24, 0)
    steps = {tuple(map(tuple, course)) for course in made.table}
    assert {tuple(map(tuple, CANDIDATES[c])) for c in wanted} <= steps and len(made) <= 24
    assert np.array_equal(made.table, learned_courses(errors.reshape(300, -1), 24, 0).table)
    assert len(learned_courses(np.zeros((0, 3 * len(CANDIDATES)), np.int32), 24, 0)) == 1


def test_uneven_motion_costs_less_with_courses(tokenizer: VideoTokenizer) -> None:
    film, none = shaken(48, seed=0), np.zeros((0, 2), np.int64)
    ticks, error, bits = [GRID.to_sites(film[i : i + 4]) for i in range(0, 48, 4)], [], []
    assert tokenizer.books.courses is not None and len(tokenizer.books.courses) > 8
    for books in (tokenizer.books, replace(tokenizer.books, courses=None)):
        chooser, past, total, spent = Chooser(GRID, books), None, 0, 0.0
        for sites in ticks:
            drawn = chooser.code(sites, past, none, lambda_of(3))
            total += int(squared(sites, drawn.sites).sum())
            spent += sum(len(c) * b for c, b in zip(pack(drawn.plan), chooser.bits, strict=True))
            past = drawn.end
        error.append(total)
        bits.append(spent)
    assert error[0] < 0.9 * error[1] and bits[0] < bits[1]


def before_it_was_deeper(books: Books) -> Books:
    """Books of four and three stages, as formats 2 and 3 have them."""
    fine, inner = (
        replace(book, codes=book.codes[:stages], starts=book.starts[:stages])
        for book, stages in zip((books.fine, books.inner), SHALLOW, strict=True)
    )
    patterns, inner_patterns = np.minimum(books.patterns, 4), np.minimum(books.inner_patterns, 3)
    return replace(books, fine=fine, inner=inner, patterns=patterns, inner_patterns=inner_patterns)


@pytest.mark.parametrize("courses", [False, True])
def test_vocabularies_of_before_go_on_as_they_were(tokenizer: VideoTokenizer, courses: bool) -> None:
    """The same levels, cardinalities and states as before there were courses (format 2), and more stages (format 3)."""
    books = before_it_was_deeper(tokenizer.books)
    old = VideoTokenizer(books if courses else replace(books, courses=None), tokenizer.config)
    sizes = {lv.name: lv.cardinality for lv in old.levels}
    assert ("course" in sizes) == courses and sizes["between"] == (320 if courses else 80)
    assert len(sizes) == 16 + courses and not {"fine5", "between4"} & set(sizes)
    state = old.state()
    assert state.config["format"] == 2 + courses and ("courses" in state.tensors) == courses
    again = VideoTokenizer.from_state(state)
    assert again.state().digest == state.digest
    film = shaken(22)
    tokens = again.encode(track_of(film), VideoOptions(quality=4))
    assert len(tokens.levels) == len(sizes)
    decoded = again.decoded(tokens)
    assert np.mean((decoded.astype(float) - film) ** 2) < np.var(film) / 2
    assert np.array_equal(again.decoded(tokens, levels=7), again.decoded(tokens.with_levels(7)))
    for name in ("courses", "fine.5"):
        lacking = {k: v for k, v in tokenizer.state().tensors.items() if k != name}
        with pytest.raises(VocabularyError, match=name):
            VideoTokenizer.from_state(replace(tokenizer.state(), tensors=lacking))
