"""One tick of video as codes: what each code means, and how a tick is drawn from them.

What is unusual: a tick of n frames is its last frame, predicted from the last frame of the tick before, and then the
frames between, predicted from both ends along the same displacements, or along courses that were learned
(`video_course`). Drawing is look-ups in tables of pixels and integer additions. Whatever codes are given, in whatever
number, something is drawn: a missing choice is zero, a missing entry of a codebook adds nothing, what is too much is
ignored.

Levels, coarse first (`B` blocks of 32x32, quads of 16x16, sites of 8x8):

    motion          displacements of the tick: y, x, y, x, ... in half samples, 64 is zero
    block           per block: 4 kind + 2 detail + between; kind < 30 names a displacement (0 is none), 30 means that
                    the quads differ, 31 that the block is drawn afresh. No block codes at all: nothing has changed
    quad            per quad of a kind-30 block: 2 kind + detail
    between         per block with that bit: 16 source + which quads have detail; see SOURCES. A source of 5 or more
                    is 4 + which quads have a course
    course          per quad that has one: an entry of a learned table of ways from one end to the other. Vocabularies
                    of format 2 lack this level
    coarse          per block that is afresh or holds a quad that is
    pattern         per quad with detail: an entry of a learned table of (wide, depth of each site), where wide says
                    that the quad has a code of its own and depth how many fine codes a site has
    fresh, moved    per quad with a wide code: of quads drawn afresh, of displaced ones
    fine1..4        per site, as deep as its pattern says
    between_pattern per quad with detail there: an entry of a learned table of depths
    between1..3     per site, as deep as its pattern says

Sources: prediction from both ends in the direct mode of H.264 (ITU-T H.264, 8.4.1.2); residual quantisation in
stages, Juang and Gray, ICASSP 1982.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pantok.tokenizers import video_kernels as kernels
from pantok.tokenizers import video_living as living
from pantok.tokenizers.video_course import Courses
from pantok.tokenizers.video_exact import FRACTION, Book
from pantok.tokenizers.video_grid import REACH, SITE, Grid, Reference
from pantok.tokenizers.video_motion import PALETTE
from pantok.vocabulary import Level

DEPTH, INNER_DEPTH = 4, 3
MOTION, BLOCK, QUAD, BETWEEN, COURSE, COARSE, PATTERN, FRESH, MOVED, FINE = range(10)
BETWEEN_PATTERN = FINE + DEPTH
INNER = BETWEEN_PATTERN + 1
LEVELS = INNER + INNER_DEPTH
SPLIT, AFRESH = 30, 31
TICK = 4
"""Frames of a tick."""
CENTRE = 64
CARDINALITY = {MOTION: 128, BLOCK: 128, QUAD: 64}
SOURCES = ("both ends", "past", "end", "one from the past", "two from the past")
_FLAGS = 2 ** np.arange(4)


@dataclass(eq=False)
class Plan:
    """What a tick's codes say, in arrays of fixed shape; entries that are not meant are zero."""

    key: bool
    vectors: np.ndarray  # int64 (m, 2), the first (0, 0)
    kind: np.ndarray  # (B, 4): of the quads, never SPLIT
    split: np.ndarray  # bool (B,)
    pattern: np.ndarray  # (B, 4)
    wide: np.ndarray  # bool (B, 4): as the pattern says, and so is `depth`
    depth: np.ndarray  # (B, 4, 4)
    detail: np.ndarray  # bool (B, 4): a pattern code is given
    coarse: np.ndarray  # (B,)
    quad: np.ndarray  # (B, 4): code of `fresh` or `moved`
    fine: np.ndarray  # (DEPTH, N)
    source: np.ndarray  # (B,)
    course: np.ndarray  # (B, 4): 1 + the course of a quad, 0 for none
    inner_detail: np.ndarray  # bool (B, 4)
    inner_pattern: np.ndarray  # (B, 4)
    inner_depth: np.ndarray  # (B, 4, 4)
    inner: np.ndarray  # (INNER_DEPTH, N)

    @classmethod
    def blank(cls, grid: Grid, key: bool) -> Plan:
        b = grid.blocks

        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, np.int64)

        def no(*shape: int) -> np.ndarray:
            return np.zeros(shape, bool)

        return cls(
            key,
            zeros(1, 2),
            zeros(b, 4),
            no(b),
            zeros(b, 4),
            no(b, 4),
            zeros(b, 4, 4),
            no(b, 4),
            zeros(b),
            zeros(b, 4),
            zeros(DEPTH, 16 * b),
            zeros(b),
            zeros(b, 4),
            no(b, 4),
            zeros(b, 4),
            zeros(b, 4, 4),
            zeros(INNER_DEPTH, 16 * b),
        )

    @property
    def afresh(self) -> np.ndarray:
        """bool (B, 4): quads whose last frame is drawn without the past (all of a key tick)"""
        return np.ones_like(self.detail) if self.key else self.kind == AFRESH

    @property
    def moves(self) -> np.ndarray:
        """int64 (4 B, 2): the displacement of each quad; zero where drawn afresh within a tick that has a past."""
        return self.vectors[np.where(self.kind < len(self.vectors), self.kind, 0).ravel()]

    @property
    def between(self) -> np.ndarray:
        """bool (B,): blocks that say more about the frames between than the default."""
        return (self.source > 0) | self.course.any(1) | self.inner_detail.any(1)


def pack(plan: Plan) -> list[np.ndarray]:
    """The codes of a tick, for each level int64 (count,), also of one that the vocabulary lacks. Nothing at all where
    nothing has changed."""
    whole = plan.kind[:, 0]
    kind = np.where(plan.split, SPLIT, whole)
    detail = plan.detail.any(1) & ~plan.split
    block = 4 * kind + 2 * detail + plan.between
    if not block.any():
        block = block[:0]
    between, turned = plan.between, plan.course > 0
    source = np.where(turned.any(1), len(SOURCES) - 1 + turned @ _FLAGS, plan.source)
    return [
        (plan.vectors[1:] + CENTRE).ravel(),
        block,
        (2 * plan.kind + plan.detail)[plan.split].ravel(),
        (16 * source + plan.inner_detail @ _FLAGS)[between],
        plan.course[turned] - 1,
        plan.coarse[plan.afresh.any(1)],
        plan.pattern[plan.detail],
        plan.quad[plan.wide & plan.afresh],
        plan.quad[plan.wide & ~plan.afresh],
        *_as_deep(plan.fine, plan.depth),
        plan.inner_pattern[plan.inner_detail],
        *_as_deep(plan.inner, plan.inner_depth),
    ]


def _as_deep(codes: np.ndarray, depth: np.ndarray) -> list[np.ndarray]:
    """For each stage of codes int64 (S, N) those of the sites that are deeper."""
    out, counts = np.empty_like(codes), np.zeros(len(codes), np.int64)
    kernels.as_deep(codes, depth.ravel(), out, counts)
    return [line[:count] for line, count in zip(out, counts, strict=True)]


def unpack(codes: Sequence[np.ndarray], books: Books, grid: Grid, key: bool, levels: int) -> Plan:
    """The plan that the first `levels` levels of `codes`, which the vocabulary has, state. Total: see the module's
    docstring."""
    plan = Plan.blank(grid, key)
    given = books.placed(codes[:levels])
    pairs = given[MOTION][: len(given[MOTION]) // 2 * 2][: 2 * PALETTE].reshape(-1, 2)
    plan.vectors = np.concatenate([plan.vectors, np.clip(pairs - CENTRE, -REACH, REACH)])
    block = _placed(given[BLOCK], np.ones(grid.blocks, bool))
    kind = block // 4
    plan.split = np.asarray(kind == SPLIT)
    plan.kind[:] = np.where(plan.split, 0, kind)[:, None]
    plan.detail[:] = (block // 2 % 2 == 1)[:, None] & ~plan.split[:, None]
    quads = _placed(given[QUAD], np.repeat(plan.split[:, None], 4, 1))
    sub = np.where(quads // 2 == SPLIT, 0, quads // 2)
    plan.kind = np.where(plan.split[:, None], sub, plan.kind)
    plan.detail |= plan.split[:, None] & (quads % 2 == 1)
    plan.coarse = _placed(given[COARSE], plan.afresh.any(1), -1)
    plan.pattern = _placed(given[PATTERN], plan.detail)
    said = books.patterns[plan.pattern] * plan.detail[..., None]
    plan.wide, plan.depth = said[..., 0] == 1, said[..., 1:]
    fresh = _placed(given[FRESH], plan.wide & plan.afresh, -1)
    moved = _placed(given[MOVED], plan.wide & ~plan.afresh, -1)
    plan.quad = np.maximum(np.where(plan.afresh, fresh, moved), 0)
    plan.wide = np.maximum(fresh, moved) >= 0
    plan.depth = _as_deep_as_given(plan.depth, plan.fine, given[FINE : FINE + DEPTH])
    between = _placed(given[BETWEEN], np.asarray(block % 2 == 1))
    flags = np.maximum(between // 16 - len(SOURCES) + 1, 0)
    plan.source = np.where(flags > 0, 0, between // 16)
    plan.course = 1 + _placed(given[COURSE], flags[:, None] // _FLAGS % 2 == 1, -1)
    plan.inner_detail = between[:, None] // _FLAGS % 2 == 1
    plan.inner_pattern = _placed(given[BETWEEN_PATTERN], plan.inner_detail)
    said = books.inner_patterns[plan.inner_pattern] * plan.inner_detail[..., None]
    plan.inner_depth = _as_deep_as_given(said, plan.inner, given[INNER : INNER + INNER_DEPTH])
    return plan


def _placed(codes: np.ndarray, where: Any, missing: int = 0) -> np.ndarray:
    """int64 of where.shape: the codes in order at the true places, zero elsewhere, `missing` where codes run out."""
    out = np.zeros(where.shape, np.int64) if missing == 0 else np.full(where.shape, missing, np.int64)
    places = np.flatnonzero(where)[: len(codes)]
    out.ravel()[places] = codes[: len(places)]
    return out


def _as_deep_as_given(depth: np.ndarray, stages: np.ndarray, given: Sequence[np.ndarray]) -> np.ndarray:
    """The depths, cut where codes are missing; fills `stages` in place with the codes of each stage."""
    said = depth.ravel()
    cut = said.copy()
    for k, codes in enumerate(given):
        placed = _placed(codes, said > k, -1)
        cut[(placed < 0) & (cut > k)] = k
        stages[k] = np.maximum(placed, 0)
    return cut.reshape(depth.shape)


@dataclass(frozen=True, eq=False)
class Books:
    """The learned part: a Book for each kind of vector.

    coarse: 32x32, afresh. fresh: 16x16 after coarse. moved: 16x16 after displacement. fine: 8x8, DEPTH stages.
    inner: three frames of 8x8 between, INNER_DEPTH stages.
    patterns: int64 (P, 5), wide and the depths of four sites; inner_patterns: int64 (Q, 4). Their first is all zero.
    courses: None in vocabularies of format 2, which have no such level.
    """

    coarse: Book
    fresh: Book
    moved: Book
    fine: Book
    inner: Book
    patterns: np.ndarray
    inner_patterns: np.ndarray
    courses: Courses | None = None
    by_name: Mapping[str, Book] = field(init=False, repr=False)

    NAMES = ("coarse", "fresh", "moved", "fine", "inner")
    STAGES = (1, 1, 1, DEPTH, INNER_DEPTH)
    SITES = (16, 4, 4, 1, 3)

    def __post_init__(self) -> None:
        assert not self.patterns[0].any() and not self.inner_patterns[0].any()
        assert self.patterns.max() <= DEPTH and self.inner_patterns.max() <= INNER_DEPTH
        object.__setattr__(self, "by_name", {n: getattr(self, n) for n in self.NAMES})

    @cached_property
    def numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """`patterns`, and int64 (2, 5, 5, 5, 5): the place of each of them there, -1 where there is none."""
        return self.patterns, _places(self.patterns, DEPTH)

    @cached_property
    def inner_numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """As `numbered`, of `inner_patterns` as if none of them were wide: int64 (Q, 5), (2, 4, 4, 4, 4)."""
        narrow = np.pad(self.inner_patterns, ((0, 0), (1, 0)))
        return narrow, _places(narrow, INNER_DEPTH)

    @property
    def levels(self) -> tuple[int, ...]:
        """Which levels the vocabulary has, in order."""
        return tuple(k for k in range(LEVELS) if k != COURSE or self.courses is not None)

    def placed(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The codes of the first of its levels as int64 for each level that there is, none for all others."""
        out = [np.zeros(0, np.int64)] * LEVELS
        for level, given in zip(self.levels, codes, strict=False):
            out[level] = np.asarray(given, np.int64)
        return out

    def cardinalities(self) -> tuple[int, ...]:
        """Of each level; 1 of one that the vocabulary lacks."""
        return self._sizes({name: tuple(map(len, book.codes)) for name, book in self.by_name.items()})

    def born(self) -> tuple[int, ...]:
        """The cardinalities that the levels had at first, before any grew."""
        return self._sizes({name: living.born(book) for name, book in self.by_name.items()})

    def _sizes(self, of: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        sizes = dict(CARDINALITY)
        sizes[COURSE] = 1 if self.courses is None else len(self.courses)
        sizes[BETWEEN] = 16 * (len(SOURCES) if self.courses is None else len(SOURCES) + 15)
        sizes[COARSE], sizes[FRESH], sizes[MOVED] = of["coarse"][0], of["fresh"][0], of["moved"][0]
        sizes[PATTERN], sizes[BETWEEN_PATTERN] = len(self.patterns), len(self.inner_patterns)
        sizes |= {FINE + k: n for k, n in enumerate(of["fine"])} | {INNER + k: n for k, n in enumerate(of["inner"])}
        return tuple(sizes[k] for k in range(LEVELS))


def _places(patterns: np.ndarray, depth: int) -> np.ndarray:
    places = np.full((2, *[depth + 1] * 4), -1, np.int64)
    for place, pattern in reversed(list(enumerate(patterns))):  # of equal ones the first
        places[tuple(pattern)] = place
    return places


def levels_of(books: Books) -> tuple[Level, ...]:
    """Names, cardinalities, kinds and strides (frames, rows, columns) of the levels that the vocabulary has."""
    names: dict[int, tuple[str, str, tuple[int, ...]]] = {
        MOTION: ("motion", "mode", (TICK, 0, 0)),
        BLOCK: ("block", "mode", (TICK, 32, 32)),
        QUAD: ("quad", "mode", (TICK, 16, 16)),
        COARSE: ("coarse", "code", (TICK, 32, 32)),
        PATTERN: ("pattern", "mode", (TICK, 16, 16)),
        FRESH: ("fresh", "code", (TICK, 16, 16)),
        MOVED: ("moved", "code", (TICK, 16, 16)),
        BETWEEN: ("between", "mode", (TICK, 32, 32)),
        COURSE: ("course", "mode", (TICK, 16, 16)),
        BETWEEN_PATTERN: ("between_pattern", "mode", (TICK, 16, 16)),
    }
    names |= {FINE + k: (f"fine{k + 1}", "code", (TICK, 8, 8)) for k in range(DEPTH)}
    names |= {INNER + k: (f"between{k + 1}", "code", (TICK, 8, 8)) for k in range(INNER_DEPTH)}
    sizes = books.cardinalities()
    return tuple(Level(names[k][0], sizes[k], names[k][1], names[k][2]) for k in books.levels)


def base_of(plan: Plan, books: Books, past: Reference | None, grid: Grid) -> np.ndarray:
    """uint8 (N, 96): the last frame before detail: displaced past, or the coarse code where drawn afresh."""
    afresh = plan.afresh.ravel()
    if not afresh.any():
        assert past is not None
        return past.fetch(plan.moves)
    out = np.empty((len(afresh), 4, SITE), np.uint8)
    if not afresh.all():
        assert past is not None
        moved = np.flatnonzero(~afresh)
        out[moved] = past.fetch(plan.moves[moved], moved).reshape(-1, 4, SITE)
    blocks = np.flatnonzero(plan.afresh.any(1))
    drawn = coarse_pixels(books, plan.coarse[blocks]).reshape(-1, 4, SITE)
    out[afresh] = drawn[plan.afresh[blocks].ravel()]
    return out.reshape(grid.sites, SITE)


def coarse_pixels(books: Books, codes: np.ndarray) -> np.ndarray:
    """uint8 (n, 16, 96) of coarse codes (n,), around mid grey; -1 is mid grey."""
    eighths = books.coarse.pixels[0][codes]
    if (codes < 0).any():
        eighths[codes < 0] = 0
    return added(np.full((len(codes), 16, SITE), 128, np.uint8), eighths)


def added(base: np.ndarray, eighths: np.ndarray) -> np.ndarray:
    """uint8: base plus an int16 sum of table entries, rounded and kept within 0 .. 255."""
    total = eighths + (1 << (FRACTION - 1))
    total >>= FRACTION
    total += base
    return np.clip(total, 0, 255, out=total).astype(np.uint8)


def draw_end(plan: Plan, base: np.ndarray, books: Books) -> np.ndarray:
    """uint8 (N, 96): the last frame of the tick."""
    wide, depth = plan.wide.ravel(), plan.depth.ravel()
    if not wide.any() and not depth.any():
        return base
    out = base.copy()
    fresh, moved = books.fresh.pixels[0], books.moved.pixels[0]
    kernels.end_detail(
        base, plan.quad.ravel(), wide, depth, plan.fine, plan.afresh.ravel(), fresh, moved,
        books.fine.tables, out,
    )  # fmt: skip
    return out


def ends_of(plan: Plan, past: Reference | None, end: Reference, count: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The frames between as each end predicts them: uint8 (count - 1, N, 96) from the past (None on a key), the end."""
    moves = plan.moves
    later = np.empty((count - 1, end.grid.sites, SITE), np.uint8)
    earlier = None if past is None or plan.key else np.empty_like(later)
    for k in range(count - 1):
        step = (2 * moves * (k + 1) + count) // (2 * count)
        if earlier is not None and past is not None:
            earlier[k] = past.fetch(step)
        later[k] = end.fetch(step - moves)
    return earlier, later


def mixed(plan: Plan, earlier: np.ndarray | None, later: np.ndarray) -> np.ndarray:
    """uint8 (count - 1, N, 96): the frames between before detail."""
    if earlier is None:
        return later
    out = np.empty_like(later)
    kernels.mix(earlier, later, default_source(plan), out)
    return out


def default_source(plan: Plan) -> np.ndarray:
    """(N,): index into SOURCES of each site. A quad that is drawn afresh takes the end unless its block says else."""
    source = np.repeat(plan.source[:, None], 4, 1)
    source = np.where((source == 0) & plan.afresh, 2, source)
    return np.repeat(source.ravel(), 4)


def draw_between(plan: Plan, base: np.ndarray, books: Books) -> np.ndarray:
    """uint8 (count - 1, N, 96): the frames between, with their detail."""
    depth = plan.inner_depth.ravel()
    if not depth.any():
        return base
    out = base.copy()
    kernels.inner_detail(base, depth, plan.inner, books.inner.tables, out)
    return out


def draw(plan: Plan, books: Books, past: Reference | None, grid: Grid, count: int) -> tuple[np.ndarray, Reference]:
    """Sites uint8 (count, N, 96) of a tick's frames, and the reference for the next tick."""
    end = Reference(grid, draw_end(plan, base_of(plan, books, past, grid), books))
    out = np.empty((count, grid.sites, SITE), np.uint8)
    out[-1] = end.sites
    if count > 1:
        base = mixed(plan, *ends_of(plan, past, end, count))
        if books.courses is not None:
            base = books.courses.followed(plan.course, plan.moves, None if plan.key else past, end, base)
        out[:-1] = draw_between(plan, base, books)
    return out, end
