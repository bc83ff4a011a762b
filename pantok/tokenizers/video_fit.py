"""Learning the video books: a bounded sample of runs, coded in a closed loop, its residuals described by k-means.

What is unusual: no gradient and no wall clock. What bounds the work is the sample, so the same recordings, settings
and seed give the same books. Residuals are gathered while the encoder runs with the books learned so far, so that each
book is trained on what it will be asked to describe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch

from pantok.errors import InputError, NothingToLearnError
from pantok.experience import Track
from pantok.quantizers.kmeans import kmeans, nearest, shrunk
from pantok.tokenizers.base import Report
from pantok.tokenizers.spread import Thinned, groups, some
from pantok.tokenizers.video_books import DEPTH, INNER_DEPTH, TICK, Books
from pantok.tokenizers.video_choose import END_TRADE, GREY, HOPE, INNER_TRADE, KEY_TRADE, Chooser, residual
from pantok.tokenizers.video_course import CANDIDATES, Courses, learned_courses
from pantok.tokenizers.video_exact import Book, make_book
from pantok.tokenizers.video_grid import SITE, Grid, Reference

PATTERNS, INNER_PATTERNS = 256, 32
_EVERY = 2 * (1 + max(DEPTH, INNER_DEPTH)) ** 4  # patterns that there could be
ROWS_PER_CODE = 4
LAST = 4
"""How many times as many residuals the last round learns from: what it makes is kept."""
DIRECTIONS = {"coarse": 2.4, "fresh": 2.0, "moved": 2.0, "fine": 1.2, "inner": 1.0}
"""How many coefficients the vectors of each book have, in parts of what is asked for: large ones need more."""
_MOMENTS = 40_000  # rows that the directions of a transform are learned from
_BEGIN = 16  # vectors a code that a book begins with, and is then improved over all
_TRACKS = 16  # that are read at least
_THROUGH = 40
"""How many times what there is room for is read through."""
_SPARSE = 4  # a track of which more than one frame of so many would be looked at is read through as well
RUN = 6
"""Ticks of a run: a key and what follows it."""


@dataclass(frozen=True, eq=False)
class Run:
    """Consecutive frames of one track, as sites for each tick: uint8 (count, N, 96)."""

    grid: Grid
    ticks: tuple[np.ndarray, ...]


def sample_runs(tracks: Sequence[Track], sample_bytes: int, report: Report) -> list[Run]:
    """Runs spread evenly over all tracks, in one pass, within `sample_bytes`.

    When the bound is met one run of two is dropped, and of those that follow, and so on (`spread.survives`). Of more
    tracks than twice the runs that there is room for, as many are read; and where all of them together are many times
    what there is room for, long ones are not read through, but looked into here and there.
    """
    kept: Thinned[Run] = Thinned(sample_bytes, least=2)

    def run_of(grid: Grid, frames: np.ndarray) -> tuple[Run, int]:
        ticks = tuple(grid.to_sites(frames[i : i + TICK]) for i in range(0, len(frames), TICK))
        return Run(grid, ticks), sum(t.nbytes for t in ticks)

    chosen = _chosen(tracks, sample_bytes)
    for place, (track, grid, glances) in enumerate(chosen):
        through = groups(track.blocks(RUN * TICK), RUN * TICK) if glances is None else _glanced(track, glances, place)
        for frames in through:
            kept.offer(partial(run_of, grid, frames))
        report("reading video", (place + 1) / len(chosen))
    if not kept.numbered:
        raise NothingToLearnError("video", "has no frames to learn from")
    return [run for _, run in kept.numbered]


def _chosen(tracks: Sequence[Track], sample_bytes: int) -> list[tuple[Track, Grid, int | None]]:
    """Which tracks to read, and how often to look into one that is not to be read through."""
    grids = [grid_of(track) for track in tracks]
    frames = [SITE * grid.sites for grid in grids]  # bytes
    room = sample_bytes / max(RUN * TICK * sum(frames) / max(len(frames), 1), 1)  # runs
    found = some(list(zip(tracks, grids, frames, strict=True)), max(_TRACKS, round(2 * room)))
    told = [track.told_s * float(track.rate or 25) if track.glance and track.told_s else 0.0 for track, _, _ in found]
    whole = sum(count * size for count, (_, _, size) in zip(told, found, strict=True))
    if whole <= _THROUGH * sample_bytes:
        return [(track, grid, None) for track, grid, _ in found]
    out: list[tuple[Track, Grid, int | None]] = []
    due = 0.0
    for count, (track, grid, size) in zip(told, found, strict=True):
        before, due = round(due), due + room * count * size / whole
        glances = round(due) - before
        sparse = count > 0 and glances * RUN * TICK * _SPARSE < count
        out.append((track, grid, glances if sparse else None))
    return out


def _glanced(track: Track, count: int, seed: int) -> Iterator[np.ndarray]:
    """Frames of a run from one place in each of `count` stretches of a track."""
    assert track.glance is not None
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield from islice(groups(track.glance((number + rng.random()) / count), RUN * TICK), 1)


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


class Pool:
    """A bounded, deterministic sample of the residuals that each book was asked to describe."""

    def __init__(self, limits: dict[str, int]) -> None:
        self._limits = limits
        self._parts: dict[str, list[np.ndarray]] = {}
        self._every: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def tap(self, name: str, rows: np.ndarray) -> None:
        if name not in self._limits:
            return
        every, seen = self._every.get(name, 1), self._seen.get(name, 0)
        picked = rows[-seen % every :: every].astype(np.int32 if name == "course" else np.int16)
        parts = self._parts.setdefault(name, [])
        parts.append(picked)
        self._seen[name] = seen + len(rows)
        if sum(map(len, parts)) > 2 * self._limits[name]:
            self._parts[name] = [np.concatenate(parts)[::2]]
            self._every[name] = every * 2

    def rows(self, name: str, width: int) -> np.ndarray:
        """int16 (n, V); int32 of what courses are learned from"""
        parts = self._parts.get(name, [])
        return np.concatenate(parts) if parts else np.zeros((0, width), np.int16)


def directions(rows: np.ndarray, count: int) -> np.ndarray:
    """Orthonormal float64 (count, V): the leading eigenvectors of the second moments of int16 rows (n, V)."""
    width = rows.shape[1]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that the eigenvectors do not depend on how the work is shared
    try:
        if len(rows) < width:  # few rows: the eigenvectors of their products with one another, turned back
            x = torch.from_numpy(rows.astype(np.float64))
            _, inner = torch.linalg.eigh(x @ x.T)
            found = x.T @ inner[:, -count:].flip(1)
            # What is missing where rows are fewer than directions is made up; QR keeps the order of the columns.
            vectors = torch.linalg.qr(torch.cat([found, torch.eye(width, count, dtype=torch.float64)], 1))[0][:, :count]
        else:
            moments = torch.zeros(width, width, dtype=torch.float64)
            for at in range(0, len(rows), 4096):
                part = torch.from_numpy(rows[at : at + 4096].astype(np.float64))
                moments += part.T @ part  # sums of integers: exact
            vectors = torch.linalg.eigh(moments)[1][:, -count:].flip(1)
    finally:
        torch.set_num_threads(threads)
    top = vectors.T.numpy()
    at_most = np.abs(top).argmax(1)
    return top * np.sign(top[np.arange(len(top)), at_most])[:, None]


def staged(rows: np.ndarray, basis: np.ndarray, sizes: Sequence[int], least: float, seed: int) -> list[np.ndarray]:
    """Codebooks in grey levels of int16 rows (n, V) in the space of `basis` (D, V), each for what is left over.

    least: squared error that a code must take away. A stage learns from the rows that have more than that left, first
    some of them, then those whose code pays: the others will not be given one. Codes are means of few rows; they are
    `shrunk` for that. A stage with little to learn from has fewer codes.
    """
    parts = [rows[i : i + 8192] @ basis.T for i in range(0, len(rows), 8192)]
    left = np.rint(np.concatenate([*parts, np.zeros((0, len(basis)))]))
    books = []
    for stage, size in enumerate(sizes):
        alive = left[(left**2).sum(1) > HOPE * least]
        if len(alive) < ROWS_PER_CODE * 4:
            alive = left
        if not len(alive):
            books.append(np.zeros((1, len(basis))))
            continue
        room = 1 << max(0, (len(alive) // ROWS_PER_CODE).bit_length() - 1)
        energy = (alive**2).sum(1)
        some = alive[:: max(1, len(alive) // (size * _BEGIN))]
        book = np.rint(kmeans(some, min(size, room), seed=seed + stage, iterations=5))
        for _ in range(2):
            _, pays = _served(alive, energy, book, least)
            if pays.sum() < ROWS_PER_CODE * len(book):
                break
            book = np.rint(kmeans(alive[pays], len(book), seed=seed + stage, iterations=2, start=book))
        codes, pays = _served(alive, energy, book, least)
        book = np.rint(shrunk(book, alive[pays], codes[pays]))
        books.append(book)
        codes, _ = nearest(alive.astype(np.float32), book)
        left = alive - book[codes]
    return books


def _served(rows: np.ndarray, energy: np.ndarray, book: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest code of each row, and whether it takes away more than `least` of the row's `energy` (n,)."""
    codes, error = nearest(rows.astype(np.float32), book)
    return codes, energy - error > least


def table_of(seen: np.ndarray, most: int, depth: int, wide: bool) -> np.ndarray:
    """The `most` patterns that serve best, int64 (P, 4 or 5), all zero first.

    seen: patterns in use (n, 4 or 5). A pattern counts with its three mirror images; even patterns, which any rate
    may need, are always there; what room is left goes to shallow ones.
    """
    bases = ([2] if wide else []) + [depth + 1] * 4
    every = np.stack(np.meshgrid(*(np.arange(b) for b in bases), indexing="ij"), -1).reshape(-1, len(bases))
    place = np.array([int(np.prod(bases[i + 1 :])) for i in range(len(bases))])
    count = np.zeros(len(every))
    first = len(bases) - 4
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]):
        mirrored = np.concatenate([seen[:, :first], seen[:, first:][:, order]], 1)
        count += np.bincount(mirrored @ place, minlength=len(every))
    even = (every[:, first:] == every[:, first : first + 1]).all(1)
    worth = count + np.where(even, 1e12, 0) - every.sum(1) * 1e-3
    kept = np.sort(np.argsort(-worth, kind="stable")[:most])
    return every[kept].astype(np.int64)


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
        is_last = k == rounds - 1
        pool = Pool({n: limit * LAST if is_last else limit for n, limit in most.items()})
        seen, inner_seen = [np.zeros((0, 5), np.int64)], [np.zeros((0, 4), np.int64)]
        for n, (run, part) in enumerate(zip(runs, trades(lam), strict=False)):
            for drawn in code_run(run, books, part, pool.tap):
                plan = drawn.plan
                seen.append(books.patterns[plan.pattern[plan.detail]])
                inner_seen.append(books.inner_patterns[plan.inner_pattern[plan.inner_detail]])
            report(f"round {k + 1}: coding", (n + 1) / len(runs))
        name = f"round {k + 1}: books"
        books = _books(pool, books, size, dims, lam, seed, partial(report, name))
        if books.courses is None:
            books = replace(books, courses=learned_courses(pool.rows("course", 3 * len(CANDIDATES)), size, seed))
        if is_last:
            patterns = table_of(np.concatenate(seen), PATTERNS, DEPTH, True)
            books = replace(
                books,
                patterns=patterns,
                inner_patterns=table_of(np.concatenate(inner_seen), INNER_PATTERNS, INNER_DEPTH, False),
            )
    return books if books.courses else replace(books, courses=Courses.plain())


def trades(lam: float) -> Iterator[float]:
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
            pool.tap("coarse", residual(end, GREY).reshape(b, -1))
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
    trade_of = dict(zip(Books.NAMES, (KEY_TRADE, KEY_TRADE, END_TRADE, END_TRADE, INNER_TRADE), strict=True))
    made: dict[str, Book] = {}
    for step, (name, stages, sites) in enumerate(zip(Books.NAMES, Books.STAGES, Books.SITES, strict=True)):
        rows = pool.rows(name, sites * SITE)
        if before is None and name == "fresh":
            rows = _after_coarse(pool, made["coarse"])
        if before is None and name == "fine":
            rows = np.concatenate([_after_coarse(pool, made["coarse"]), pool.rows("moved", 384)]).reshape(-1, SITE)[::4]
        if before is not None and len(rows) < ROWS_PER_CODE * len(before.by_name[name].codes[0]):
            made[name] = before.by_name[name]  # too little was asked of it to learn anew
        else:
            if not len(rows):
                rows = np.zeros((1, sites * SITE), np.int16)
            basis = directions(rows[:: max(1, len(rows) // _MOMENTS)], min(dims[name], sites * SITE))
            least = trade_of[name] * lam * np.log2(size)
            made[name] = make_book(basis, staged(rows, basis, [size] * stages, least, seed + 10 * step))
        done((step + 1) / len(Books.NAMES))
    none = np.zeros((0, 5), np.int64)
    tables = (
        (table_of(none, _EVERY, DEPTH, True), table_of(none[:, 1:], _EVERY, INNER_DEPTH, False))
        if before is None
        else (before.patterns, before.inner_patterns)
    )
    return Books(**made, patterns=tables[0], inner_patterns=tables[1], courses=before.courses if before else None)


def _after_coarse(pool: Pool, coarse: Book) -> np.ndarray:
    rows = pool.rows("coarse", 16 * SITE)
    codes, _ = coarse.search(0, coarse.project(rows.astype(np.float32)))
    drawn = coarse.pixels[0][codes].reshape(len(rows), -1).astype(np.int32)
    weights = np.tile(np.repeat([1, 2], (64, 32)), 16)
    return (rows - ((drawn + 4) >> 3) * weights).reshape(-1, 4 * SITE).astype(np.int16)
