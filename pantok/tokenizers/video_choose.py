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

from pantok.tokenizers.video_exact import Book
from pantok.tokenizers.video_grid import SITE, WEIGHTS, Grid, Reference
from pantok.tokenizers.video_motion import find_palette
from pantok.tokenizers.video_tick import (
    AFRESH,
    COARSE,
    DEPTH,
    FINE,
    FRESH,
    INNER,
    INNER_DEPTH,
    MOVED,
    Books,
    Plan,
    base_of,
    coarse_pixels,
    draw_between,
    draw_end,
    ends_of,
    mixed,
)

Tap = Callable[[str, np.ndarray], None]
"""Receives the residuals that a Book was asked to describe (its name; float32 (n, V)); used to learn from them."""

_WORTH = 40.0
"""Bits that the detail of a 16x16 quad costs at the error where a further bit pays about lambda; shapes `_worth`."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A coded tick: its plan, its frames as sites uint8 (count, N, 96), and the reference for the next tick."""

    plan: Plan
    sites: np.ndarray
    end: Reference


class Chooser:
    """Codes one tick after another against what the decoder will have."""

    def __init__(self, grid: Grid, books: Books, tap: Tap | None = None) -> None:
        self.grid, self.books, self.tap = grid, books, tap
        self.bits = np.log2(books.cardinalities())

    def code(self, frames: np.ndarray, past: Reference | None, before: np.ndarray, lam: float) -> Drawn:
        """frames: sites uint8 (count, N, 96). past: None on a key tick. before: last tick's displacements."""
        plan = Plan.blank(self.grid, past is None)
        target, count = frames[-1], len(frames)
        if past is not None:
            self._move(plan, target, past, before, lam)
        self._refresh(plan, target, past, lam)
        base = base_of(plan, self.books, past, self.grid)
        self._detail(plan, target, base, lam)
        end = Reference(self.grid, draw_end(plan, base, self.books))
        out = np.empty_like(frames)
        out[-1] = end.sites
        if count > 1:
            if past is None and not self._still(frames, lam):
                self._move_from_key(plan, frames, end, before, lam)
            between = self._between(plan, frames, past, end, lam)
            out[:-1] = between.transpose(1, 0, 2)
        return Drawn(plan, out, end)

    def _still(self, frames: np.ndarray, lam: float) -> bool:
        return bool(_squared(residual(frames[0], frames[-1])).sum() < lam * 1000)

    def _move(self, plan: Plan, target: np.ndarray, past: Reference, before: np.ndarray, lam: float) -> None:
        """Displacements of the tick and of each quad."""
        vectors, owner = find_palette(past, target, before, 60 * lam)
        if len(vectors) == 1:
            return
        plan.vectors = vectors
        b = self.grid.blocks
        luma = target[:, :64].astype(np.int16)

        def errors(kind: np.ndarray, blocks: np.ndarray) -> np.ndarray:
            """float64 (m, 4): of the quads of `blocks` under one displacement each."""
            which = (blocks[:, None] * 16 + np.arange(16)).ravel()
            gap = past.fetch_luma(np.repeat(vectors[kind], 16, 0), which) - luma[which]
            return np.einsum("ij,ij->i", gap, gap, dtype=np.int64).reshape(-1, 4, 4).sum(2).astype(np.float64)

        best_kind, best = np.zeros(b, np.int64), np.full(b, np.inf)
        own = np.full((b, 4), np.inf)
        everywhere = np.arange(b)
        for choice in (*owner.T, np.zeros(b, np.int64)):
            fresh = everywhere if choice is owner.T[0] else None
            blocks = everywhere if fresh is not None else np.flatnonzero(choice != best_kind)
            if not len(blocks):
                continue
            error = errors(choice[blocks], blocks)
            own[blocks] = np.where(owner[blocks] == choice[blocks, None], error, own[blocks])
            total = self._worth(error, lam).sum(1)
            better = total < best[blocks]
            best[blocks[better]] = total[better]
            best_kind[blocks[better]] = choice[blocks[better]]
        split = self._worth(np.where(np.isfinite(own), own, 1e12), lam).sum(1) + 24 * lam < best
        plan.split = split
        plan.kind = np.where(split[:, None], owner, best_kind[:, None])

    def _worth(self, error: np.ndarray, lam: float) -> np.ndarray:
        """What an error before detail will cost in the end: itself while small, then as its root (a code halves it)."""
        knee = _WORTH * lam
        return np.where(error < knee, error, 2 * np.sqrt(error * knee) - knee)

    def _refresh(self, plan: Plan, target: np.ndarray, past: Reference | None, lam: float) -> None:
        """Quads that are better drawn afresh than displaced."""
        b = self.grid.blocks
        if past is None:
            blocks, moved = np.arange(b), None
        else:
            gap = residual(target, past.fetch(plan.moves))
            moved = _squared(gap).reshape(b, 4, 4).sum(2)
            blocks = np.flatnonzero(self._worth(moved, lam).sum(1) > 2 * _WORTH * lam)
            if not len(blocks):
                return
        wanted = residual(target.reshape(b, 16, SITE)[blocks], np.uint8(128)).reshape(len(blocks), -1)
        if self.tap:
            self.tap("coarse", wanted)
        codes, _ = self.books.coarse.search(0, self.books.coarse.project(wanted))
        plan.coarse[blocks] = codes
        if moved is None:
            return
        drawn = coarse_pixels(self.books, codes)
        gap = residual(target.reshape(b, 16, SITE)[blocks], drawn)
        fresh = self._worth(_squared(gap.reshape(-1, SITE)).reshape(-1, 4, 4).sum(2), lam)
        old = self._worth(moved[blocks], lam)
        bits = self.bits[COARSE]
        whole = fresh.sum(1) + bits * lam
        some = np.minimum(fresh, old).sum(1) + (bits + 24) * lam
        keep = old.sum(1) + 24 * lam * plan.split[blocks]
        entire = (whole <= some) & (whole < keep)
        partly = (some < whole) & (some < keep)
        plan.split[blocks[entire]] = False
        plan.kind[blocks[entire]] = AFRESH
        plan.split[blocks[partly]] = True
        at = blocks[partly]
        plan.kind[at] = np.where((fresh < old)[partly], AFRESH, plan.kind[at])
        same = (plan.kind == plan.kind[:, :1]).all(1)
        plan.split &= ~same
        plan.coarse[~plan.afresh.any(1)] = 0

    def _detail(self, plan: Plan, target: np.ndarray, base: np.ndarray, lam: float) -> None:
        """Wide and fine codes of the last frame."""
        b = self.grid.blocks
        left = residual(target, base)
        gain = np.zeros(4 * b)
        wide = np.zeros(4 * b, bool)
        energy = _squared(left).reshape(-1, 4).sum(1)
        tables = np.zeros((0,))
        for book, level, here in (
            (self.books.fresh, FRESH, plan.afresh.ravel()),
            (self.books.moved, MOVED, ~plan.afresh.ravel()),
        ):
            quads = np.flatnonzero(here & (energy > self.bits[level] * lam))
            if not len(quads):
                continue
            wanted = left.reshape(-1, 4 * SITE)[quads]
            if self.tap:
                self.tap("fresh" if level == FRESH else "moved", wanted)
            codes, saved = book.search(0, book.project(wanted))
            pays = saved > self.bits[level] * lam
            quads, codes = quads[pays], codes[pays]
            wide[quads], gain[quads] = True, saved[pays] - self.bits[level] * lam
            plan.quad.ravel()[quads] = codes
            sites = (quads[:, None] * 4 + np.arange(4)).ravel()
            tables = book.pixels[0][codes].reshape(-1, SITE)
            plan_base = base[sites].astype(np.int16) + ((tables + 4) >> 3)
            left[sites] = residual(target[sites], np.clip(plan_base, 0, 255))
        depth, fine_gain = self._deepen("fine", self.books.fine, FINE, DEPTH, left, plan.fine, lam)
        gain += fine_gain.reshape(-1, 4).sum(1)
        gain = gain.reshape(b, 4) - 9 * lam
        some = np.maximum(gain, 0).sum(1)
        at_once = np.maximum(gain, -9 * lam).sum(1)  # a block that is not split gives all quads a pattern, or none
        apart = some - 24 * lam
        none = (~plan.split) & (at_once <= 0) & (apart <= 0)
        split = plan.split | (~none & (apart > at_once))
        plan.detail = np.where(split[:, None], gain > 0, ~none[:, None])
        plan.split = split & ~_uniform(plan.kind, plan.detail)
        used = gain > -9 * lam
        plan.wide = wide.reshape(b, 4) & plan.detail & used
        plan.depth = depth.reshape(b, 4, 4) * (plan.detail & used)[:, :, None]

    def _deepen(
        self,
        name: str,
        book: Book,
        level: int,
        stages: int,
        left: np.ndarray,
        out: list[np.ndarray],
        lam: float,
        skip: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth (N,) of each site and what it gains over none, in squared error less lambda * bits."""
        n = len(left)
        depth, gain = np.zeros(n, np.int64), np.zeros(n)
        energy = np.zeros(n)
        width = left.shape[1] // SITE
        for k in range(width):
            energy += _squared(left[:, k * SITE : (k + 1) * SITE]) if width > 1 else _squared(left)
        open_ = (energy > self.bits[level] * lam) & self.grid.inside
        if skip is not None:
            open_ &= ~skip
        active = np.flatnonzero(open_)
        if not len(active):
            return depth, gain
        wanted = left[active]
        if self.tap:
            self.tap(name, wanted)
        y = book.project(wanted)
        total = np.zeros(len(active))
        for stage in range(stages):
            cost = self.bits[level + stage] * lam
            norms = _squared(y[:, :-1]) * float(book.unit**2)
            alive = np.flatnonzero(norms > cost)
            active, y, total = active[alive], y[alive], total[alive]
            if not len(active):
                break
            codes, saved = book.search(stage, y)
            out[stage][active] = codes
            total = total + saved - cost
            better = total > gain[active]
            depth[active[better]] = stage + 1
            gain[active[better]] = total[better]
            if stage + 1 < stages:
                y = book.without(stage, y, codes)
        return depth, gain

    def _move_from_key(self, plan: Plan, frames: np.ndarray, end: Reference, before: np.ndarray, lam: float) -> None:
        """On a key tick the frames between come from its own end, displaced backwards: found from its first frame."""
        vectors, owner = find_palette(end, frames[0], before, 30 * lam)
        if len(vectors) == 1:
            return
        # The first frame lies (count - 1) / count of a tick before the end.
        n = len(frames)
        scaled = -(2 * vectors * n + (n - 1)) // (2 * (n - 1))
        plan.vectors = np.clip(scaled, -60, 60)
        common = np.sort(owner, 1)[:, 1]
        same = (owner == common[:, None]).sum(1)
        whole = same >= 3
        kind = np.where(whole[:, None], common[:, None], owner)
        uniform = (kind == kind[:, :1]).all(1)
        plan.kind = kind
        # Quads of one block that differ only in detail were split for that; keep what was chosen.
        plan.split |= ~uniform

    def _between(
        self, plan: Plan, frames: np.ndarray, past: Reference | None, end: Reference, lam: float
    ) -> np.ndarray:
        """The frames between: where they come from, and their detail. uint8 (N, count - 1, 96)."""
        b, count = self.grid.blocks, len(frames)
        inner = np.ascontiguousarray(frames[:-1].transpose(1, 0, 2))
        earlier, later = ends_of(plan, past, end, count)
        if earlier is not None:
            per_frame = [
                [_squared(residual(inner[:, k], e[:, k])).reshape(b, 16).sum(1) for k in range(count - 1)]
                for e in (earlier, later)
            ]
            first, last = np.array(per_frame)
            both = mixed(plan, earlier, later)
            errors = [_squared(residual(inner[:, k], both[:, k])).reshape(b, 16).sum(1) for k in range(count - 1)]
            options = np.stack(
                [
                    np.sum(errors, 0),
                    first.sum(0) + 7 * lam,
                    last.sum(0) + 7 * lam,
                    first[:1].sum(0) + last[1:].sum(0) + 7 * lam,
                    first[:2].sum(0) + last[2:].sum(0) + 7 * lam,
                ]
            )
            plan.source = options.argmin(0)
            base = mixed(plan, earlier, later) if plan.source.any() else both
        else:
            base = later
        left = np.zeros((self.grid.sites, 3, SITE), np.float32)
        left[:, : count - 1] = residual(inner, base)
        left = left.reshape(self.grid.sites, -1)
        depth, gain = self._deepen("inner", self.books.inner, INNER, INNER_DEPTH, left, plan.inner, lam)
        quads = gain.reshape(b, 4, 4).sum(2) - np.log2(81) * lam
        more = np.maximum(quads, 0).sum(1) > 6.4 * lam * (plan.source == 0)
        plan.inner_detail = (quads > 0) & more[:, None]
        plan.inner_depth = depth.reshape(b, 4, 4) * plan.inner_detail[:, :, None]
        return draw_between(plan, base, self.books)


def residual(target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """float32 of target's shape: weighted differences, integers of at most 510."""
    gap = np.subtract(target, base, dtype=np.int16)
    gap *= WEIGHTS
    return gap.astype(np.float32)


def _squared(rows: np.ndarray) -> np.ndarray:
    """float64 (n,): squared norms of rows of integers. Exact in float32 for one site, so in any order of summation."""
    flat = rows.reshape(-1, rows.shape[-1])
    return np.einsum("ij,ij->i", flat, flat).astype(np.float64)


def _uniform(kind: np.ndarray, detail: np.ndarray) -> np.ndarray:
    return (kind == kind[:, :1]).all(1) & (detail == detail[:, :1]).all(1)
