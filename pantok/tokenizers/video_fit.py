"""Learning the video books: a bounded sample of runs, coded in a closed loop, its residuals described by k-means.

What is unusual: no gradient and no wall clock. What bounds the work is the sample, so the same recordings, settings
and seed give the same books. Residuals are gathered while the encoder runs with the books learned so far, so that each
book is trained on what it will be asked to describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pantok.errors import InputError
from pantok.experience import Track
from pantok.quantizers.kmeans import kmeans
from pantok.tokenizers.base import Report
from pantok.tokenizers.video_choose import Chooser, residual
from pantok.tokenizers.video_exact import make_book
from pantok.tokenizers.video_grid import SITE, Grid, Reference
from pantok.tokenizers.video_tick import DEPTH, INNER_DEPTH, Books

TICK = 4
RUN = 6
"""Ticks of a run: a key and what follows it."""


@dataclass(frozen=True, eq=False)
class Run:
    """Consecutive frames of one track, as sites for each tick: uint8 (count, N, 96)."""

    grid: Grid
    ticks: tuple[np.ndarray, ...]


def sample_runs(tracks: Sequence[Track], sample_bytes: int, report: Report) -> list[Run]:
    """Runs spread evenly over all tracks, in one pass, within `sample_bytes`.

    When the bound is met every second run is dropped, and from then on only every second one is taken, and so on.
    """
    kept: list[tuple[int, Run]] = []
    every, number, size = 1, 0, 0
    for place, track in enumerate(tracks):
        grid = grid_of(track)
        for frames in _in_groups(track, RUN * TICK):
            if number % every == 0:
                ticks = tuple(grid.to_sites(frames[i : i + TICK]) for i in range(0, len(frames), TICK))
                kept.append((number, Run(grid, ticks)))
                size += sum(t.nbytes for t in ticks)
                while size > sample_bytes and len(kept) > 2:
                    every *= 2
                    kept = [(n, r) for n, r in kept if n % every == 0]
                    size = sum(t.nbytes for _, r in kept for t in r.ticks)
            number += 1
        report("reading video", (place + 1) / len(tracks))
    if not kept:
        raise InputError("video", "has no frames to learn from")
    return [r for _, r in kept]


def grid_of(track: Track) -> Grid:
    """Raises InputError if the track does not say its height and width."""
    try:
        height, width = int(track.info["height"]), int(track.info["width"])
    except KeyError as missing:
        raise InputError(
            track.name, f"does not say its {missing}", "a video track's info has height and width"
        ) from None
    if height < 1 or width < 1:
        raise InputError(track.name, f"has pictures of {width}x{height}")
    return Grid(height, width)


def _in_groups(track: Track, size: int) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = []
    count = 0
    for block in track.blocks(size):
        held.append(block.values)
        count += len(block)
        if count >= size:
            joined = np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)


class Pool:
    """A bounded, deterministic sample of the residuals that each book was asked to describe."""

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits
        self._parts: dict[str, list[np.ndarray]] = {}
        self._every: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def tap(self, name: str, rows: np.ndarray) -> None:
        every, seen = self._every.get(name, 1), self._seen.get(name, 0)
        picked = rows[-seen % every :: every].astype(np.int16)
        parts = self._parts.setdefault(name, [])
        parts.append(picked)
        self._seen[name] = seen + len(rows)
        if sum(map(len, parts)) > 2 * self._limits[name]:
            self._parts[name] = [np.concatenate(parts)[::2]]
            self._every[name] = every * 2

    def rows(self, name: str, width: int) -> np.ndarray:
        """int16 (n, V)"""
        parts = self._parts.get(name, [])
        return np.concatenate(parts) if parts else np.zeros((0, width), np.int16)


def directions(rows: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal float64 (count, V): the leading eigenvectors of the second moments of int16 rows (n, V)."""
    width = rows.shape[1]
    moments = torch.zeros(width, width, dtype=torch.float64)
    for at in range(0, len(rows), 4096):
        part = torch.from_numpy(rows[at : at + 4096].astype(np.float64))
        moments += part.T @ part  # sums of integers: exact
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the eigenvectors do not depend on the machine's load
    try:
        _, vectors = torch.linalg.eigh(moments)
    finally:
        torch.set_num_threads(threads)
    top = vectors[:, -count:].numpy().T[::-1]
    at = np.abs(top).argmax(1)
    return top * np.sign(top[np.arange(len(top)), at])[:, None]


def staged(rows: np.ndarray, basis: np.ndarray, sizes: Sequence[int], least: float, seed: int) -> list[np.ndarray]:
    """Codebooks in grey levels: each describes what is left over where that is more than `least` in squared norm."""
    left = np.concatenate(
        [rows[i : i + 8192] @ basis.T for i in range(0, len(rows), 8192)] or [np.zeros((0, len(basis)))]
    )
    left = np.rint(left)
    books = []
    for stage, size in enumerate(sizes):
        alive = left[(left**2).sum(1) > least]
        if len(alive) < size // 4 and len(alive) < len(left):
            alive = left
        if not len(alive):
            books.append(np.zeros((1, len(basis))))
            continue
        book = np.rint(kmeans(alive, size, seed=seed + stage, iterations=10))
        books.append(book)
        if stage + 1 < len(sizes):
            from pantok.quantizers.kmeans import nearest

            codes, _ = nearest(alive.astype(np.float32), book)
            left = alive - book[codes]
    return books


def learn(
    runs: Sequence[Run],
    size: int,
    dims: dict[str, int],
    lam: float,
    rounds: int,
    most: dict[str, int],
    seed: int,
    report: Report,
) -> Books:
    """The books of `runs`, improved over `rounds` of closed-loop coding."""
    pool = Pool(most)
    _open_loop(runs, pool)
    books = _books(pool, None, size, dims, lam, seed, lambda f: report("first books", f))
    for k in range(rounds):
        pool = Pool(most)
        for n, (run, part) in enumerate(zip(runs, _trades(lam), strict=False)):
            for _ in code_run(run, books, part, pool.tap):
                pass
            report(f"round {k + 1}: coding", (n + 1) / len(runs))
        books = _books(pool, books, size, dims, lam, seed, lambda f, k=k: report(f"round {k + 1}: books", f))
    return books


def _trades(lam: float) -> Iterator[float]:
    """Lambdas of successive runs: books should serve finer and coarser rates too."""
    while True:
        yield lam
        yield lam / 2
        yield lam
        yield lam * 2


def code_run(run: Run, books: Books, lam: float, tap: Callable | None = None) -> Iterator:
    """The ticks of a run as Drawn, in a closed loop."""
    chooser = Chooser(run.grid, books, tap)
    past: Reference | None = None
    before = np.zeros((0, 2), np.int64)
    for frames in run.ticks:
        drawn = chooser.code(frames, past, before, lam)
        past, before = drawn.end, drawn.plan.vectors[1:]
        yield drawn


def _open_loop(runs: Iterable[Run], pool: Pool) -> None:
    """A first guess of every residual, from the pictures themselves."""
    for run in runs:
        b = run.grid.blocks
        for number, frames in enumerate(run.ticks):
            end = frames[-1]
            pool.tap("coarse", residual(end, np.uint8(128)).reshape(b, -1))
            if number:
                pool.tap("moved", residual(end, run.ticks[number - 1][-1]).reshape(4 * b, -1))
            inner = np.zeros((len(end), 3, SITE), np.float32)
            inner[:, : len(frames) - 1] = residual(frames[:-1], end).transpose(1, 0, 2)
            pool.tap("inner", inner.reshape(len(end), -1))


def _books(
    pool: Pool,
    before: Books | None,
    size: int,
    dims: dict[str, int],
    lam: float,
    seed: int,
    done: Callable[[float], None],
) -> Books:
    least = lam * np.log2(size)
    made: dict[str, object] = {}
    widths = {"coarse": 16, "fresh": 4, "moved": 4, "fine": 1, "inner": 3}
    stages = {"coarse": 1, "fresh": 1, "moved": 1, "fine": DEPTH, "inner": INNER_DEPTH}
    for step, name in enumerate(Books.NAMES):
        width = widths[name] * SITE
        rows = pool.rows(name, width)
        if before is None and name == "fresh":
            rows = _after_coarse(pool, made["coarse"])
        if before is None and name == "fine":
            rows = np.concatenate([_after_coarse(pool, made["coarse"]), pool.rows("moved", 384)]).reshape(-1, SITE)[::4]
        if before is not None and len(rows) < size:
            made[name] = before.by_name[name]  # too little was asked of it to learn anew
        else:
            if not len(rows):
                rows = np.zeros((1, width), np.int16)
            basis = directions(rows, dims[name])
            made[name] = make_book(basis, staged(rows, basis, [size] * stages[name], least, seed + 10 * step))
        done((step + 1) / len(Books.NAMES))
    return Books(**made)  # type: ignore[arg-type]


def _after_coarse(pool: Pool, coarse) -> np.ndarray:
    rows = pool.rows("coarse", 16 * SITE)
    codes, _ = coarse.search(0, coarse.project(rows.astype(np.float32)))
    drawn = coarse.pixels[0][codes].reshape(len(rows), -1).astype(np.int32)
    weights = np.tile(np.repeat([1, 2], (64, 32)), 16)
    return (rows - ((drawn + 4) >> 3) * weights).reshape(-1, 4 * SITE).astype(np.int16)
