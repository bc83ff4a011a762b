"""The choices of the encoder: which displacement, how deep, where, so that distortion + lambda * bits is least.

What is unusual: the cost of a code is log2 of its level's cardinality, always, so that the trade is a comparison of
integers and needs no model of probabilities. Distortion is measured on the coefficients of integer transforms
(`video_exact`), where the squared error that a code takes away is exact; every step looks only at sites whose whole
remaining energy could still pay for a code.

Source: rate-distortion optimised choice with a Lagrangian, Sullivan and Wiegand, IEEE Signal Processing Mag. 15 (1998).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pantok.tokenizers import video_choose_kernels as kernels
from pantok.tokenizers import video_course_kernels as ways
from pantok.tokenizers import video_kernels as pictures
from pantok.tokenizers.video_books import (
    BETWEEN,
    BETWEEN_PATTERN,
    COARSE,
    COURSE,
    FINE,
    FRESH,
    INNER,
    MOVED,
    PATTERN,
    TICK,
    Books,
)
from pantok.tokenizers.video_course import CANDIDATES
from pantok.tokenizers.video_grid import SITE, WEIGHTS, Grid, Reference
from pantok.tokenizers.video_motion import find_palette
from pantok.tokenizers.video_search_kernels import HOPE as STAGE_HOPE
from pantok.tokenizers.video_tick import Plan, draw_between, draw_end

Tap = Callable[[str, np.ndarray], None]
"""Receives the residuals that a Book was asked to describe (its name; float32 (n, V)), and "course" with what
`learned_courses` learns from; used to learn from them."""

GREY = np.full(1, 128, np.uint8)
KEY_TRADE, END_TRADE, INNER_TRADE = 0.25, 0.375, 1.5
"""Lambda of keys, of the last frames of other ticks and of the frames between, relative to the one given."""
HOPE, WIDE_HOPE, SITE_HOPE = 3.0, 2.5, 3.5
"""Squared error, in the bits of a code, that a quad, the first coefficients of a quad, and a site, have to have for a
code to be looked for."""
_COURSE_HOPE, _COURSE_APART = 4.0, 8.0
"""Likewise the frames between of a quad, in the bits of a course, and how far what both ends predict has to differ:
where they agree motion is known, and what is left over is not of its doing."""
_WORTH = 40.0
"""Bits that the detail of a 16x16 quad costs at the error where a further bit pays about lambda; shapes `_worth`."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A coded tick: its plan, its frames as sites uint8 (count, N, 96), and the reference for the next tick."""

    plan: Plan
    sites: np.ndarray
    end: Reference


@dataclass(frozen=True, eq=False)
class Ends:
    """A tick of which the last frame is coded; `lam` is that of the frames between."""

    plan: Plan
    frames: np.ndarray
    past: Reference | None
    end: Reference
    lam: float


class Chooser:
    """Codes one tick after another against what the decoder will have."""

    def __init__(self, grid: Grid, books: Books, tap: Tap | None = None, effort: int = 1) -> None:
        """effort: see `VideoOptions`."""
        self.grid, self.books, self.tap, self.effort = grid, books, tap, effort
        self.bits = np.log2(books.born())  # what a code was worth stays so, however the books grow
        self._even = np.ones(4 * grid.blocks)

    def code(
        self,
        frames: np.ndarray,
        past: Reference | None,
        before: np.ndarray,
        lam: float,
        weight: np.ndarray | None = None,
    ) -> Drawn:
        """frames: sites uint8 (count, N, 96). past: None on a key tick. before: last tick's displacements. weight:
        float64 (4 B,), what errors in quads of the last frame are worth, `video_ahead.weights`; one each if not
        given."""
        ends = self.ends(frames, past, before, lam, weight)
        out = np.empty_like(frames)
        out[-1] = ends.end.sites
        if len(out) > 1:
            out[:-1] = draw_between(ends.plan, self.fill(ends), self.books)
        return Drawn(ends.plan, out, ends.end)

    def ends(
        self,
        frames: np.ndarray,
        past: Reference | None,
        before: np.ndarray,
        lam: float,
        weight: np.ndarray | None = None,
    ) -> Ends:
        """The last frame of a tick and all displacements: what the next tick needs. Arguments as of `code`."""
        plan = Plan.blank(self.grid, past is None)
        target, mine = frames[-1], (KEY_TRADE if past is None else END_TRADE) * lam
        if past is not None:
            self._move(plan, frames, past, before, mine)
        base, energy = self._refresh(plan, target, past, mine)
        self._detail(plan, target, base, energy, mine, self._even if weight is None else weight)
        end = Reference(self.grid, draw_end(plan, base, self.books))
        if len(frames) > 1 and past is None and not self._still(frames, mine):
            self._move_from_key(plan, frames, end, before, mine)
        return Ends(plan, frames, past, end, INNER_TRADE * lam)

    def fill(self, ends: Ends) -> np.ndarray:
        """Completes the plan with what the frames between are; returns them before detail, uint8 (count - 1, N, 96).

        Nothing that comes later depends on them, so this may be done beside the next tick.
        """
        plan, frames, lam = ends.plan, ends.frames, ends.lam
        base, left = np.empty_like(frames[1:]), np.empty(self.grid.sites, np.int64)
        if not len(base):
            return base
        past = ends.end if ends.past is None else ends.past
        kernels.between(
            past.sites, *past.shifted[:2], ends.end.sites, *ends.end.shifted, plan.vectors, plan.kind, plan.key,
            frames, _WORTH * lam, 7 * lam, plan.source, base, left,
        )  # fmt: skip
        if not plan.key and len(frames) == TICK:
            self._turn(plan, frames, past, ends.end, base, left, lam)
        gain, chosen = self._deepen("inner", INNER, frames[:-1], base, left, plan.inner, lam, None, self._even)
        cost, price = self.bits[BETWEEN_PATTERN] * lam, self.bits[BETWEEN] * lam
        stated = plan.source + plan.course.any(1)
        kernels.settle_between(
            gain, chosen, cost, price, stated, self.books.inner_numbered[0], plan.inner_detail, plan.inner_pattern,
            plan.inner_depth,
        )  # fmt: skip
        return base

    def _turn(
        self,
        plan: Plan,
        frames: np.ndarray,
        past: Reference,
        end: Reference,
        base: np.ndarray,
        left: np.ndarray,
        lam: float,
    ) -> None:
        """Courses of quads that the straight line between both ends serves badly. base, left: as of `fill`, changed."""
        inside, courses = self.grid.inside[::4], self.books.courses
        phases, end_phases = past.shifted[0], end.shifted[0]
        if courses is None:
            quads = np.flatnonzero((left.reshape(-1, 4).sum(1) >= 30 * lam) & inside)
            if self.tap and len(quads):
                errors = np.empty((len(quads), len(frames) - 1, len(CANDIDATES)), np.int32)
                ways.measure_steps(
                    phases, end_phases, self.grid.corners, plan.vectors, plan.kind, frames, quads, CANDIDATES, errors
                )
                self.tap("course", errors.reshape(len(quads), -1))
            return
        bits = float(np.rint(self.bits[COURSE] * lam))
        ways.choose_courses(
            *past.shifted[:2], *end.shifted, plan.vectors, plan.kind, frames, inside, *courses.steps, _WORTH * lam,
            bits, self.bits[BETWEEN] * lam, _COURSE_HOPE * bits, _COURSE_APART * bits, plan.source, plan.course,
            base, left,
        )  # fmt: skip

    def _still(self, frames: np.ndarray, lam: float) -> bool:
        return bool(squared(frames[0], frames[-1]).sum() < lam * 1000)

    def _move(self, plan: Plan, frames: np.ndarray, past: Reference, before: np.ndarray, lam: float) -> None:
        """Displacements of the tick and of each quad."""
        vectors, owner = find_palette(past, frames[-1], before, 60 * lam)
        if len(vectors) == 1:
            return
        plan.vectors, count = vectors, len(frames)
        # What moves truly also explains the frame half way there. A displacement that only happens to fit the last
        # frame would spoil those between.
        marks = [count, count // 2] if count > 2 else [count]
        along = np.stack([(2 * vectors * number + count) // (2 * count) for number in marks])
        pictures = frames[[number - 1 for number in marks]]
        plan.kind, plan.split = past.chosen(pictures, along, owner, _WORTH * lam, 24 * lam)

    def _refresh(
        self, plan: Plan, target: np.ndarray, past: Reference | None, lam: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws quads afresh where that is better than to displace them.

        Returns the frame before detail uint8 (N, 96) and the energy that it leaves over, int64 (N,).
        """
        knee, book = _WORTH * lam, self.books.coarse
        base, left = np.empty_like(target), np.empty(len(target), np.int64)
        hard = np.ones(self.grid.blocks, bool)
        if past is not None:
            kernels.predict(past.sites, *past.shifted, plan.vectors, plan.kind, target, knee, base, left, hard)
        blocks = np.flatnonzero(hard)
        if len(blocks):
            codes, _ = self._asked("coarse", target, self.grid.grey, blocks, 0.0, np.ones(len(blocks)))
            kernels.draw_afresh(
                blocks, codes, book.pixels[0], target, past is None, knee, self.bits[COARSE] * lam, 24 * lam,
                base, left, plan.kind, plan.split, plan.coarse,
            )  # fmt: skip
        return base, left

    def _asked(
        self, name: str, target: np.ndarray, base: np.ndarray, rows: np.ndarray, least: float, share: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes of a book of one stage for the vectors `rows` of sites (N, 96), and what they save: as of
        `Book.deepen`. None is looked for where the first coefficients hold less of squared error than
        `least`, times a row's `share`."""
        book = self.books.by_name[name]
        target, base = target.reshape(1, -1, book.width), base.reshape(1, -1, book.width)
        if self.tap:
            self.tap(name, gaps_of(target, base, rows))
        found, saved = book.described(target, base, rows, np.array([least / STAGE_HOPE]), share)
        return found[0], saved[0]

    def _detail(
        self, plan: Plan, target: np.ndarray, base: np.ndarray, left: np.ndarray, lam: float, weight: np.ndarray
    ) -> None:
        """Wide and fine codes of the last frame. base, left: as of `_refresh`, left is spoiled; weight: of `code`."""
        b = self.grid.blocks
        gain, wide = np.zeros(4 * b), np.zeros(4 * b, bool)
        better = base  # with what is wide added to it
        of_quad, afresh = left.reshape(-1, 4).sum(1), plan.afresh.ravel()
        for name, level, here in (("fresh", FRESH, afresh), ("moved", MOVED, ~afresh)):
            book, cost = self.books.by_name[name], self.bits[level] * lam
            quads = np.flatnonzero(here & (weight * of_quad > HOPE * cost))
            if len(quads):
                codes, saved = self._asked(name, target, base, quads, WIDE_HOPE * cost, 1.0 / weight[quads])
                better = base.copy() if better is base else better
                kernels.widen(
                    quads, codes, saved, weight, cost, book.pixels[0], target, base, better, left, gain, wide,
                    plan.quad.ravel(),
                )  # fmt: skip
        fine_gain, chosen = self._deepen("fine", FINE, target[None], better[None], left, plan.fine, lam, wide, weight)
        gain, cost = gain.reshape(b, 4) + fine_gain, float(np.rint(self.bits[PATTERN] * lam))
        kernels.settle_detail(
            gain, chosen, cost, 24 * lam, plan.kind, plan.split, self.books.patterns, plan.detail, plan.pattern,
            plan.wide, plan.depth,
        )  # fmt: skip

    def _deepen(
        self,
        name: str,
        level: int,
        target: np.ndarray,
        base: np.ndarray,
        left: np.ndarray,
        out: np.ndarray,
        lam: float,
        wide: np.ndarray | None,
        weight: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the best pattern of each quad gains, in squared error less lambda * bits of its codes, float64 (B, 4) of
        whole numbers, so that sums do not depend on their order, and which that is, int64 (B, 4).

        target, base: uint8 (frames, N, 96). left: the energy of their difference. out int64 (S, N): receives the codes
        of the sites that were looked at. wide: bool (Q,), which patterns a quad may take, if patterns differ in that.
        weight: as of `code`.
        """
        book, b = self.books.by_name[name], self.grid.blocks
        patterns = self.books.inner_numbered if wide is None else self.books.numbered
        gain, chosen = np.zeros((b, 4)), np.zeros((b, 4), np.int64)
        of_site = np.repeat(weight, 4)
        active = np.flatnonzero((of_site * left > SITE_HOPE * self.bits[level] * lam) & self.grid.inside)
        share = 1.0 / of_site[active]
        cost = self.bits[level : level + len(book.codes)] * lam
        if self.tap and len(active):
            self.tap(name, np.pad(gaps_of(target, base, active), ((0, 0), (0, book.width - SITE * len(target)))))
        if self.effort > 1:
            found, saved = book.by_many_ways(target, base, active, cost, share, self.effort)
        else:
            one_way, saved = book.described(target, base, active, cost, share)
            found = one_way[None]
        wide = np.zeros(4 * b, bool) if wide is None else wide
        kernels.best_patterns(
            active, found, saved, weight, cost, *patterns, wide, out, chosen.reshape(-1), gain.reshape(-1)
        )
        return gain, chosen

    def _move_from_key(self, plan: Plan, frames: np.ndarray, end: Reference, before: np.ndarray, lam: float) -> None:
        """On a key tick the frames between come from its own end, displaced backwards: found from its first frame."""
        vectors, owner = find_palette(end, frames[0], before, 30 * lam)
        if len(vectors) == 1:
            return
        # The first frame lies (count - 1) / count of a tick before the end.
        n = len(frames)
        scaled = -((2 * vectors * n + (n - 1)) // (2 * (n - 1)))
        plan.vectors = np.clip(scaled, -60, 60)
        common = np.sort(owner, 1)[:, 1]
        same = (owner == common[:, None]).sum(1)
        whole = same >= 3
        kind = np.where(whole[:, None], common[:, None], owner)
        uniform = (kind == kind[:, :1]).all(1)
        plan.kind = kind
        # Quads of one block that differ only in detail were split for that; keep what was chosen.
        plan.split |= ~uniform


def residual(target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """float32 of target's shape: weighted differences, integers of at most 510."""
    gap = np.subtract(target, base, dtype=np.int16)
    gap *= WEIGHTS
    return gap.astype(np.float32)


def squared(target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """int64 of the shape but for its last axis: weighted squared differences of sites uint8 (..., 96)."""
    out = np.empty(target.shape[:-1], np.int64)
    pictures.energies(target.reshape(-1, SITE), base.reshape(-1, SITE), out.reshape(-1))
    return out


def gaps_of(target: np.ndarray, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 (m, frames * W): weighted differences of the `rows` of target and base, uint8 (frames, R, W)."""
    out = np.empty((len(rows), len(target) * target.shape[2]), np.float32)
    pictures.gaps(target, base, rows, out)
    return out
