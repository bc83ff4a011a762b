"""One tick of video as codes: how they state it, and how it is drawn from them.

What is unusual: a tick of n frames is its last frame, predicted from the last frame of the tick before, and then the
frames between, predicted from both ends along the same displacements, or along courses that were learned
(`video_course`). Drawing is look-ups in tables of pixels and integer additions. Whatever codes are given, in whatever
number, something is drawn: a missing choice is zero, a missing entry of a codebook adds nothing, what is too much is
ignored.

What the codes of each level mean: see `video_books`.

Sources: prediction from both ends in the direct mode of H.264 (ITU-T H.264, 8.4.1.2); residual quantisation in
stages, Juang and Gray, ICASSP 1982.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pantok.tokenizers import video_kernels as kernels
from pantok.tokenizers.video_books import (
    AFRESH,
    BETWEEN,
    BETWEEN_PATTERN,
    BLOCK,
    CENTRE,
    COARSE,
    COURSE,
    DEPTH,
    FINE,
    FRESH,
    INNER,
    INNER_DEPTH,
    MOTION,
    MOVED,
    PATTERN,
    QUAD,
    SPLIT,
    Books,
    said_between,
    words_between,
)
from pantok.tokenizers.video_exact import FRACTION
from pantok.tokenizers.video_grid import REACH, SITE, Grid, Reference
from pantok.tokenizers.video_motion import PALETTE


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
    return [
        (plan.vectors[1:] + CENTRE).ravel(),
        block,
        (2 * plan.kind + plan.detail)[plan.split].ravel(),
        words_between(plan.source, turned, plan.inner_detail)[between],
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
    plan.source, turned, plan.inner_detail = said_between(between)
    plan.course = 1 + _placed(given[COURSE], turned, -1)
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
