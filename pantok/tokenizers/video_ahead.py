"""What of a picture the ticks after it will show again: it is worth more bits, as they are spent once.

What is unusual: nothing of it is said. It moves the encoder's trade of error against bits from quad to quad, so codes
mean what they meant, and any decoder reads them. What it is told by is the motion between last frames at half their
size, which the search for displacements begins with anyway.

Source: the macroblock tree of x264, J. Garrett-Glaser, "A novel macroblock-tree algorithm for high-performance
optimization of dependent video coding in H.264/AVC" (2009). Here a share of a quad is handed on by how well it is
foreseen, not by what it would cost without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from pantok.tokenizers import video_ahead_kernels as kernels
from pantok.tokenizers.video_beside import Beside
from pantok.tokenizers.video_books import TICK
from pantok.tokenizers.video_grid import SITE, Grid
from pantok.tokenizers.video_motion import AROUND, halved, matched, to_quads

_ROOM = 160_000_000  # bytes of frames that may wait for that
_ONCE, _AGAIN, _MOST = 0.5, 0.3, 2.0
"""What an error is worth that is seen in its tick alone, what each tick more adds, and the most that it can be."""
_FORESEEN = 1920.0
"""Squared luma error of a quad at half size at which half of it counts as seen again."""


@dataclass(frozen=True, eq=False)
class Glimpse:
    """A tick before it is coded: its last frame, and what of it was there in the tick before.

    last: uint8, luma at half size, as of `video_motion.halved`. moves: int64 (Q, 2), displacements of 16x16 quads in
    line, in samples of half size; stays: float64 (Q,), which share of a quad was there.
    """

    last: np.ndarray
    moves: np.ndarray
    stays: np.ndarray


def glimpsed(grid: Grid, sites: np.ndarray, before: Glimpse | None) -> Glimpse:
    """sites: uint8 (N, 96) of the last frame of a tick; before: the tick before it."""
    last, quads = halved(sites, grid, AROUND), 4 * grid.blocks
    moves, error = np.zeros((quads, 2), np.int64), np.zeros(quads, np.int64)
    if before is None:
        return Glimpse(last, moves, np.zeros(quads))
    now = np.ascontiguousarray(last[AROUND:-AROUND, AROUND:-AROUND])
    kernels.look_back(now, before.last, AROUND, matched(grid, now, before.last)[0], moves, error)
    return Glimpse(last, moves, 1.0 / (1.0 + error / _FORESEEN))


def weights(grid: Grid, later: Sequence[Glimpse]) -> np.ndarray:
    """What an error in the last frame of a tick is worth, float64 (Q,), by what of it the ticks `later` show again."""
    rows, columns = 2 * grid.rows, 2 * grid.columns
    seen = np.zeros(rows * columns)
    for tick in reversed(later):
        out = np.zeros_like(seen)
        kernels.hand_on(tick.moves, tick.stays, seen, rows, columns, out)
        seen = out
    return to_quads(np.minimum(_ONCE + _AGAIN * seen, _MOST), grid).reshape(-1)


@dataclass(frozen=True, eq=False)
class Waiting:
    """A tick that is to be coded. frames: uint8 (n, bytes); sites: they as uint8 (n, N, 96)."""

    frames: np.ndarray
    sites: np.ndarray
    glimpse: Glimpse


class Ahead:
    """Ticks in their order, each of which waits until some of those after it are there."""

    def __init__(self, grid: Grid, ticks: int, key_every: int) -> None:
        """ticks: how many, at most; fewer where pictures are so large that many would not fit into memory."""
        self._grid, self._key_every = grid, key_every
        self.ticks = min(ticks, max(1, _ROOM // (2 * TICK * SITE * grid.sites)))
        self._queue: deque[Beside[Waiting]] = deque()
        self._number = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, frames: np.ndarray, thread: ThreadPoolExecutor | None = None) -> None:
        """The next tick; with a thread it is cut and looked at beside."""
        before = self._queue[-1] if self._queue else None
        self._queue.append(Beside(thread, partial(self._looked, frames, before)))

    def take(self) -> tuple[Waiting, np.ndarray | None]:
        """The first tick that waits, and the `weights` of its last frame; None where nothing is looked at ahead."""
        first = self._queue[0].result()
        until_key = self._key_every - 1 - self._number % self._key_every
        self._queue.popleft()
        later = [tick.result().glimpse for tick in islice(self._queue, min(until_key, self.ticks))]
        self._number += 1
        return first, weights(self._grid, later) if self.ticks else None

    def _looked(self, frames: np.ndarray, before: Beside[Waiting] | None) -> Waiting:
        sites = self._grid.to_sites(frames)
        return Waiting(frames, sites, glimpsed(self._grid, sites[-1], before.result().glimpse if before else None))
