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

from pantok.tokenizers import video_kernels as kernels
from pantok.tokenizers.video_grid import SITE, WEIGHTS, Grid, Reference
from pantok.tokenizers.video_motion import find_palette
from pantok.tokenizers.video_tick import (
    AFRESH,
    BETWEEN,
    BETWEEN_PATTERN,
    COARSE,
    FINE,
    FRESH,
    INNER,
    MOVED,
    PATTERN,
    Books,
    Plan,
    added,
    coarse_pixels,
    draw_between,
    draw_end,
    ends_of,
    mixed,
)

Tap = Callable[[str, np.ndarray], None]
"""Receives the residuals that a Book was asked to describe (its name; float32 (n, V)); used to learn from them."""

GREY = np.full(1, 128, np.uint8)
KEY_TRADE, END_TRADE, INNER_TRADE = 0.25, 0.375, 1.5
"""Lambda of keys, of the last frames of other ticks and of the frames between, relative to the one given."""
HOPE, SITE_HOPE = 3.0, 3.5
"""Squared error, in the bits of a code, that a quad or a block, and a site, has to have for a code to be looked for."""
_NEVER = -1e12
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

    def __init__(self, grid: Grid, books: Books, tap: Tap | None = None) -> None:
        self.grid, self.books, self.tap = grid, books, tap
        self.bits = np.log2(books.born())  # what a code was worth stays so, however the books grow

    def code(self, frames: np.ndarray, past: Reference | None, before: np.ndarray, lam: float) -> Drawn:
        """frames: sites uint8 (count, N, 96). past: None on a key tick. before: last tick's displacements."""
        return self.fill(self.ends(frames, past, before, lam))

    def ends(self, frames: np.ndarray, past: Reference | None, before: np.ndarray, lam: float) -> Ends:
        """The last frame of a tick and all displacements: what the next tick needs. Arguments as of `code`."""
        plan = Plan.blank(self.grid, past is None)
        target, mine = frames[-1], (KEY_TRADE if past is None else END_TRADE) * lam
        if past is not None:
            self._move(plan, frames, past, before, mine)
        base, energy = self._refresh(plan, target, past, mine)
        self._detail(plan, target, base, energy, mine)
        end = Reference(self.grid, draw_end(plan, base, self.books))
        if len(frames) > 1 and past is None and not self._still(frames, mine):
            self._move_from_key(plan, frames, end, before, mine)
        return Ends(plan, frames, past, end, INNER_TRADE * lam)

    def fill(self, ends: Ends) -> Drawn:
        """The frames between. Nothing that comes later depends on them, so this may be done beside the next tick."""
        out = np.empty_like(ends.frames)
        out[-1] = ends.end.sites
        if len(out) > 1:
            out[:-1] = self._between(ends.plan, ends.frames, ends.past, ends.end, ends.lam)
        return Drawn(ends.plan, out, ends.end)

    def _still(self, frames: np.ndarray, lam: float) -> bool:
        return bool(squared(frames[0], frames[-1]).sum() < lam * 1000)

    def _move(self, plan: Plan, frames: np.ndarray, past: Reference, before: np.ndarray, lam: float) -> None:
        """Displacements of the tick and of each quad."""
        vectors, owner = find_palette(past, frames[-1], before, 60 * lam)
        if len(vectors) == 1:
            return
        plan.vectors = vectors
        b, count = self.grid.blocks, len(frames)
        # What moves truly also explains the frame half way there. A displacement that only happens to fit the last
        # frame would spoil those between.
        marks = [(count, frames[-1])]
        if count > 2:
            marks.append((count // 2, frames[count // 2 - 1]))

        scale = 2 // len(marks)

        def along(moves: np.ndarray, number: int) -> np.ndarray:
            """Displacements of the tick, as far as its frame `number` (from 1) is."""
            return (2 * moves * number + count) // (2 * count)

        def gaps(moves: np.ndarray, quads: np.ndarray) -> np.ndarray:
            """float64 (m,): squared luma error of `quads` under displacements (m, 2); half the rows stand for all."""
            total = np.zeros(len(quads))
            for number, sites in marks:
                total += past.luma_gaps(sites, along(moves, number), quads)
            return total * scale

        def errors(kind: np.ndarray, blocks: np.ndarray) -> np.ndarray:
            """float64 (m, 4): of the quads of `blocks` under one displacement each."""
            which = (blocks[:, None] * 4 + np.arange(4)).ravel()
            return gaps(np.repeat(vectors[kind], 4, 0), which).reshape(-1, 4)

        best_kind, best = np.zeros(b, np.int64), np.full(b, np.inf)
        own = np.full((b, 4), np.inf)
        for number, choice in enumerate((*owner.T, np.zeros(b, np.int64))):
            blocks = np.flatnonzero(choice != best_kind) if number else np.arange(b)
            if not len(blocks):
                continue
            error = errors(choice[blocks], blocks)
            own[blocks] = np.where(owner[blocks] == choice[blocks, None], error, own[blocks])
            total = self._worth(error, lam).sum(1)
            better = total < best[blocks]
            best[blocks[better]] = total[better]
            best_kind[blocks[better]] = choice[blocks[better]]
        # Every displacement is tried on the quads that are badly predicted.
        pick, left = owner.ravel().copy(), own.ravel()
        hard = np.flatnonzero(left > _WORTH * lam / 2)
        if len(hard):
            there = np.stack([along(vectors, number) for number, _ in marks])
            pictures = np.stack([sites for _, sites in marks])
            pick[hard], least = past.best_moves(pictures, there, hard, pick[hard], left[hard] / scale)
            left[hard] = least * scale
        plan.split = self._worth(left, lam).reshape(-1, 4).sum(1) + 24 * lam < best
        plan.kind = np.where(plan.split[:, None], pick.reshape(-1, 4), best_kind[:, None])

    def _worth(self, error: np.ndarray, lam: float) -> np.ndarray:
        """What an error before detail will cost in the end: itself while small, then as its root (a code halves it)."""
        knee = _WORTH * lam
        return np.where(error < knee, error, 2 * np.sqrt(error * knee) - knee)

    def _refresh(
        self, plan: Plan, target: np.ndarray, past: Reference | None, lam: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws quads afresh where that is better than to displace them.

        Returns the frame before detail uint8 (N, 96) and the energy that it leaves over, int64 (N,).
        """
        b = self.grid.blocks
        if past is None:
            blocks, moved = np.arange(b), None
            base = np.empty_like(target)
            energy = np.empty(len(target), np.int64)
        else:
            base = past.fetch(plan.moves)
            energy = squared(target, base)
            moved = energy.reshape(b, 4, 4).sum(2)
            blocks = np.flatnonzero(self._worth(moved, lam).sum(1) > 2 * _WORTH * lam)
            if not len(blocks):
                return base, energy
            base = base.copy() if np.may_share_memory(base, past.sites) else base  # another thread reads the past
        part = target.reshape(b, 16, SITE)[blocks]
        wanted = residual(part, GREY).reshape(len(blocks), -1)
        if self.tap:
            self.tap("coarse", wanted)
        codes, _ = self.books.coarse.search(0, self.books.coarse.project(wanted))
        drawn = coarse_pixels(self.books, codes)
        error = squared(part.reshape(-1, SITE), drawn.reshape(-1, SITE)).reshape(-1, 16)
        plan.coarse[blocks] = codes
        if moved is not None:
            fresh = self._worth(error.reshape(-1, 4, 4).sum(2), lam)
            old = self._worth(moved[blocks], lam)
            bits = self.bits[COARSE]
            whole = fresh.sum(1) + bits * lam
            some = np.minimum(fresh, old).sum(1) + (bits + 24) * lam
            keep = old.sum(1) + 24 * lam * plan.split[blocks]
            entire = (whole <= some) & (whole < keep)
            partly = (some < whole) & (some < keep)
            at = blocks[partly]
            plan.kind[at] = np.where((fresh < old)[partly], AFRESH, plan.kind[at])
            plan.kind[blocks[entire]] = AFRESH
            plan.split[at] = True
            plan.split &= ~(plan.kind == plan.kind[:, :1]).all(1)
            plan.coarse[~plan.afresh.any(1)] = 0
        anew = np.repeat(plan.afresh[blocks].ravel(), 4)
        sites = (blocks[:, None] * 16 + np.arange(16)).ravel()[anew]
        base[sites] = drawn.reshape(-1, SITE)[anew]
        energy[sites] = error.ravel()[anew]
        return base, energy

    def _detail(self, plan: Plan, target: np.ndarray, base: np.ndarray, energy: np.ndarray, lam: float) -> None:
        """Wide and fine codes of the last frame. base, energy: as of `_refresh`; energy is spoiled."""
        b = self.grid.blocks
        gain = np.zeros(4 * b)
        wide = np.zeros(4 * b, bool)
        better = base  # with what is wide added to it
        of_quad = energy.reshape(-1, 4).sum(1)
        for book, level, here in (
            (self.books.fresh, FRESH, plan.afresh.ravel()),
            (self.books.moved, MOVED, ~plan.afresh.ravel()),
        ):
            quads = np.flatnonzero(here & (of_quad > HOPE * self.bits[level] * lam))
            if not len(quads):
                continue
            sites = (quads[:, None] * 4 + np.arange(4)).ravel()
            wanted = gaps_of(target[None], base[None], sites).reshape(-1, 4 * SITE)
            if self.tap:
                self.tap("fresh" if level == FRESH else "moved", wanted)
            codes, saved = book.search(0, book.project(wanted))
            pays = saved > self.bits[level] * lam
            quads, codes = quads[pays], codes[pays]
            wide[quads], gain[quads] = True, saved[pays] - self.bits[level] * lam
            plan.quad.ravel()[quads] = codes
            sites = sites.reshape(-1, 4)[pays].ravel()
            better = better.copy() if better is base else better
            better[sites] = added(base[sites], book.pixels[0][codes].reshape(-1, SITE))
            energy[sites] = squared(target[sites], better[sites])
        gains = self._deepen("fine", FINE, target[None], better[None], energy, plan.fine, lam)
        pattern, fine_gain = best_patterns(gains, self.books.patterns, wide)
        cost = float(np.rint(self.bits[PATTERN] * lam))
        gain = (gain + fine_gain).reshape(b, 4)
        some = np.maximum(gain - cost, 0).sum(1)
        at_once = np.maximum(gain, 0).sum(1) - 4 * cost  # a block that is not split gives all quads a pattern, or none
        apart = some - 24 * lam
        none = (~plan.split) & (at_once <= 0) & (apart <= 0)
        split = plan.split | (~none & (apart > at_once))
        plan.detail = np.where(split[:, None], gain > cost, ~none[:, None])
        plan.split = split & ~_uniform(plan.kind, plan.detail)
        used = plan.detail & (gain > 0)
        plan.pattern = np.where(used, pattern.reshape(b, 4), 0)
        said = self.books.patterns[plan.pattern]
        plan.wide, plan.depth = said[..., 0] == 1, said[..., 1:]

    def _deepen(
        self,
        name: str,
        level: int,
        target: np.ndarray,
        base: np.ndarray,
        energy: np.ndarray,
        out: list[np.ndarray],
        lam: float,
    ) -> np.ndarray:
        """What each depth of each site gains over none: squared error less lambda * bits, float64 (N, stages + 1).

        Rounded to whole numbers, so that sums do not depend on their order. Depths that were not looked at, for want
        of hope, have a very negative gain. target, base: uint8 (frames, N, 96).
        """
        book = self.books.by_name[name]
        stages = len(book.codes)
        gains = np.full((len(energy), stages + 1), _NEVER)
        gains[:, 0] = 0
        active = np.flatnonzero((energy > SITE_HOPE * self.bits[level] * lam) & self.grid.inside)
        if not len(active):
            return gains
        if self.tap:
            self.tap(name, np.pad(gaps_of(target, base, active), ((0, 0), (0, book.width - SITE * len(target)))))
        cost = self.bits[level : level + stages] * lam
        found, saved = book.deepen(book.project_gaps(target, base, active), cost)
        total = np.zeros(len(active))
        for stage in range(stages):
            tried = found[stage] >= 0
            total += saved[stage] - cost[stage]
            out[stage][active] = np.maximum(found[stage], 0)
            gains[active[tried], stage + 1] = np.rint(total[tried])
        return gains

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

    def _between(
        self, plan: Plan, frames: np.ndarray, past: Reference | None, end: Reference, lam: float
    ) -> np.ndarray:
        """The frames between: where they come from, and their detail. uint8 (count - 1, N, 96)."""
        b, count, inner = self.grid.blocks, len(frames), frames[:-1]
        earlier, later = ends_of(plan, past, end, count)
        base = mixed(plan, earlier, later)
        energy = squared(inner, base)
        if earlier is not None:
            # Half of the sites, on the diagonals, are enough to tell where a block should come from.
            half = np.array([0, 3, 5, 6, 9, 10, 12, 15])
            mine = 2 * energy.reshape(count - 1, b, 16)[:, :, half].sum((0, 2))
            unsure = np.flatnonzero(mine > 2 * _WORTH * lam)
            sites = (unsure[:, None] * 16 + half).ravel()
            wanted = inner[:, sites]
            first, last = (
                2 * squared(wanted, e[:, sites]).reshape(count - 1, -1, len(half)).sum(2) for e in (earlier, later)
            )
            options = [first, last, np.concatenate([first[:1], last[1:]]), np.concatenate([first[:2], last[2:]])]
            costs = np.stack([mine[unsure], *(o.sum(0) + 7 * lam for o in options)])
            plan.source[unsure] = costs.argmin(0)
            if plan.source.any():
                base = mixed(plan, earlier, later)
                energy = squared(inner, base)
        gains = self._deepen("inner", INNER, inner, base, energy.sum(0), plan.inner, lam)
        pattern, gain = best_patterns(gains, self.books.inner_patterns)
        quads = gain.reshape(b, 4) - self.bits[BETWEEN_PATTERN] * lam
        more = np.maximum(quads, 0).sum(1) > self.bits[BETWEEN] * lam * (plan.source == 0)
        plan.inner_detail = (quads > 0) & more[:, None]
        plan.inner_pattern = np.where(plan.inner_detail, pattern.reshape(b, 4), 0)
        plan.inner_depth = self.books.inner_patterns[plan.inner_pattern]
        return draw_between(plan, base, self.books)


def best_patterns(
    gains: np.ndarray, patterns: np.ndarray, wide: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """For each quad the best entry of a table of patterns, int64 (Q,), and its gain, float64 (Q,).

    gains: whole float64 (4 Q, depths), see `Chooser._deepen`. wide: bool (Q,), which entries a quad may take;
    None where patterns are depths only. Sums of whole numbers are exact in any order.
    """
    if wide is None:
        patterns = np.concatenate([np.zeros((len(patterns), 1), patterns.dtype), patterns], 1)
        wide = np.zeros(len(gains) // 4, bool)
    chosen = np.zeros(len(gains) // 4, np.int64)
    best = np.zeros(len(chosen))
    kernels.best_patterns(gains, patterns, wide, chosen, best)
    return chosen, best


def residual(target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """float32 of target's shape: weighted differences, integers of at most 510."""
    gap = np.subtract(target, base, dtype=np.int16)
    gap *= WEIGHTS
    return gap.astype(np.float32)


def squared(target: np.ndarray, base: np.ndarray) -> np.ndarray:
    """int64 of the shape but for its last axis: weighted squared differences of sites uint8 (..., 96)."""
    out = np.empty(target.shape[:-1], np.int64)
    kernels.energies(target.reshape(-1, SITE), base.reshape(-1, SITE), out.reshape(-1))
    return out


def gaps_of(target: np.ndarray, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 (m, frames * 96): weighted differences of the sites `rows` of target and base, uint8 (frames, N, 96)."""
    out = np.empty((len(rows), len(target) * SITE), np.float32)
    kernels.gaps(target, base, rows, out)
    return out


def _uniform(kind: np.ndarray, detail: np.ndarray) -> np.ndarray:
    return (kind == kind[:, :1]).all(1) & (detail == detail[:, :1]).all(1)
