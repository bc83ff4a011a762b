"""What the learned books do: which codes are used, what is left of them, quality and bits on runs held out.

What is unusual: more codes are learned than are kept. Those that a closed loop of coding asks for least are dropped,
so that the ids of a vocabulary stand for something that its recordings hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pantok.tokenizers.video_books import COARSE, COURSE, FINE, FRESH, INNER, LEVELS, MOVED, Books, levels_of
from pantok.tokenizers.video_choose import Drawn, residual
from pantok.tokenizers.video_course import Courses
from pantok.tokenizers.video_exact import Book
from pantok.tokenizers.video_fit import Run, code_run, trades
from pantok.tokenizers.video_grid import Grid
from pantok.tokenizers.video_groups import in_groups
from pantok.tokenizers.video_smooth import Smoothing, Tally
from pantok.tokenizers.video_tick import pack

Watch = Callable[[Run, np.ndarray, Drawn], None]
"""Receives a tick of a run: its sites, and what they were coded as."""

SPARE = 1.2
"""Codes that are learned for each that is kept."""
_FIRST_LEVEL = {"coarse": COARSE, "fresh": FRESH, "moved": MOVED, "fine": FINE, "inner": INNER}


def usage(runs: Sequence[Run], books: Books, lam: float, watch: Watch) -> list[np.ndarray]:
    """How often each code of each level is chosen, int64 (cardinality,), at the trades that the books serve."""
    counts = [np.zeros(size, np.int64) for size in books.cardinalities()]
    for run, trade in zip(runs, trades(lam), strict=False):
        for frames, drawn in zip(run.ticks, code_run(run, books, trade), strict=True):
            watch(run, frames, drawn)
            for count, codes in zip(counts, pack(drawn.plan), strict=True):
                count += np.bincount(codes, minlength=len(count))
    return counts


def pruned(books: Books, counts: Sequence[np.ndarray], size: int) -> tuple[Books, list[np.ndarray]]:
    """The `size` codes of each book that are used most, none that is not used at all, and their counts.

    Of patterns, of which the first means nothing and even ones are kept for any rate, none is dropped.
    """
    counts = list(counts)
    made: dict[str, Any] = {}
    for name, book in books.by_name.items():
        codes, starts = [], []
        for stage, old in enumerate(book.codes):
            level = _FIRST_LEVEL[name] + stage
            kept = _used_most(counts[level], size)
            order, begins = in_groups(old[kept])
            kept = kept[order]
            codes.append(old[kept])
            starts.append(begins)
            counts[level] = counts[level][kept]
        made[name] = Book(book.basis, tuple(codes), tuple(starts))
    if books.courses is not None:
        kept = _used_most(counts[COURSE], size)
        made["courses"], counts[COURSE] = Courses(books.courses.table[kept]), counts[COURSE][kept]
    return replace(books, **made), counts


def _used_most(counts: np.ndarray, size: int) -> np.ndarray:
    """int64, ascending: the `size` codes that are used most, none that is not used, but the first if none is."""
    most = np.argsort(-counts, kind="stable")[:size]
    kept = np.sort(most[counts[most] > 0])
    return kept if len(kept) else np.zeros(1, np.int64)


def measured(
    books: Books,
    counts: Sequence[np.ndarray],
    held: Sequence[Run],
    lam: float,
    apart: bool,
    smoothing: Smoothing | None = None,
) -> dict[str, Any]:
    """Quality and bits of the runs `held` at `lam`, and the share of each level's codes that is used there or, by
    `counts`, where the books were learned. apart: whether nothing was learned from `held`. With a smoothing, quality is
    with it, and `smoothing_db` what it adds."""
    sizes, named = books.cardinalities(), dict(zip(books.levels, levels_of(books), strict=True))
    used = [count > 0 for count in counts] or [np.zeros(size, bool) for size in sizes]
    bits, plain, error, area, frames_seen = np.zeros(LEVELS), 0.0, 0.0, 0, 0
    for run in held:
        tally = None if smoothing is None else Tally(smoothing)
        ticks = list(zip(run.ticks, code_run(run, books, lam), strict=True))
        for tick, (frames, drawn) in enumerate(ticks):
            for level, codes in enumerate(pack(drawn.plan)):
                used[level][codes] = True
                bits[level] += len(codes) * np.log2(sizes[level])
            if tally:
                originals = run.grid.to_frames(frames)
                tally.add(tally.look(tick, originals, drawn.end, partial(np.asarray, drawn.sites)))
            area += len(frames) * int(run.grid.inside.sum()) * 64
            frames_seen += len(frames)
        best = tally.best if tally else 0
        for frames, drawn in ticks:
            left = error_of(run.grid, frames, drawn.sites)
            plain += left
            if smoothing and best:
                left = error_of(run.grid, frames, smoothing.shown(run.grid, drawn.sites, best))
            error += left
    quality = [psnr_of(e / max(area, 1)) for e in (plain, error)]
    return {
        "held_out": apart,
        "psnr_db": round(quality[1], 3),
        **({} if smoothing is None else {"smoothing_db": round(quality[1] - quality[0], 3)}),
        "bits_per_pixel": {lv.name: round(float(bits[k]) / max(area, 1), 5) for k, lv in named.items()},
        "used": {lv.name: round(float(used[k].mean()), 4) for k, lv in named.items()},
        "frames": frames_seen,
    }


def error_of(grid: Grid, frames: np.ndarray, made: np.ndarray) -> float:
    """Weighted squared error of sites uint8 (n, N, 96), as far as they are within the picture."""
    gap = residual(frames, made)[:, grid.inside]
    return float(np.einsum("ijk,ijk->ij", gap, gap).astype(np.float64).sum())


def psnr_of(weighted_mse: float) -> float:
    """Decibels of RGB of a weighted squared error per pixel; a step of luma is 255/219 steps of RGB."""
    return float(10 * np.log10(255.0**2 / max(weighted_mse * (255 / 219) ** 2, 1e-3)))
