"""An episode's sequence laid out: its ids one after another, and what is said of them by runs.

What is unusual: `Arranged` makes ids from codes wherever a window wants them, from as many places as there are tracks
and levels; here that was done once, and a window is copied from one place. What is said of an id takes no room of its
own, see `layout_laid_kernels`, so a sequence takes 2 bytes an id (4 in a vocabulary of more than 65,536) and 16 bytes a
run: about what the codes take that it was made of. Ids may be composed as they are laid out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pantok import layout_laid_kernels as kernels
from pantok.layout import AS_THEY_ARE, KINDS, Arranged, Columns, ReadRows, Sequenced, rows_of
from pantok.layout_columns import Numbering, address_of
from pantok.layout_composed import scratch

if TYPE_CHECKING:
    from pantok.evolve.compositions import Compositions

_AT_ONCE = 1 << 16
"""Ids of the layout that are laid out at a time: what is said of them stays in the processor's cache."""
_LATENT = KINDS.index("latent")
_MOST = 1 << 32
"""Ids of a sequence, so that a place in it takes four bytes."""
_SAID = ("ids", "kind", "level", "track", "role", "time_ns", "loss_mask")


class Laid(Sequenced):
    """ids: uint16 or uint32 (N,), a latent's row in the place of its id. runs: int64 (R, 2). marks: int32, see the
    loops. vectors: see `Sequenced`.

    Raises ValueError if they do not fit together.
    """

    loops = kernels

    def __init__(
        self, ids: np.ndarray, runs: np.ndarray, marks: np.ndarray, tracks: tuple[str, ...],
        vectors: tuple[ReadRows | None, ...], latent_id: int, held: int | None = None,
    ) -> None:  # fmt: skip
        """held: bytes that it holds besides mapped files; all of it if None."""
        if not len(runs) or len(marks) != len(ids) // kernels.EVERY + 1 or ids.itemsize not in (2, 4):
            raise ValueError(f"{len(ids)} ids of {ids.itemsize} bytes, {len(runs)} runs, {len(marks)} marks")
        self.ids, self.runs, self.marks, self.tracks, self.vectors = ids, runs, marks, tracks, vectors
        self._sheet = np.zeros(kernels.FIELDS, np.int64)
        self._sheet[kernels.IDS], self._sheet[kernels.WIDTH] = address_of(ids), ids.itemsize
        self._sheet[kernels.RUNS], self._sheet[kernels.COUNT] = address_of(runs), len(runs)
        self._sheet[kernels.MARKS], self._sheet[kernels.TOTAL] = address_of(marks), len(ids)
        self._sheet[kernels.LATENT_ID] = latent_id
        self.address = address_of(self._sheet)
        self._held = ids.nbytes + runs.nbytes + marks.nbytes if held is None else held

    @property
    def nbytes(self) -> int:
        return self._held

    def __len__(self) -> int:
        return len(self.ids)


def lay_out(plain: Arranged, numbering: Numbering) -> Laid | None:
    """An episode laid out, its ids composed if the vocabulary has compositions. numbering: that of `plain`. None if it
    is too long to be.

    Raises TokenError for a code that its level does not have.
    """
    total, pairs, at, size, made, longest = len(plain), numbering.compositions, 0, _AT_ONCE, 0, 0
    if total >= _MOST:
        return None
    pieces: list[np.ndarray] = []
    runs = np.empty((1024, 2), np.int64)
    count = 0
    while at < total:
        stop = min(at + size, total)
        c = scratch(stop - at, _SAID)
        rows = rows_of([plain], plain.loops, np.array([[plain.address, at, stop, 0, 0, 0]]), AS_THEY_ARE, c)
        ids, starts, taken = c.ids[: stop - at], np.arange(stop - at), stop - at
        if len(rows):
            ids[c.kind[: stop - at] == _LATENT] = rows[:, 2]
            longest = max(longest, int(rows[:, 2].max()) + 1)
        if pairs is not None:
            ids, starts, taken = _composed(pairs, stop == total, stop - at, c)
        if taken == 0:
            size *= 2  # all of it may be joined: its end is no place to cut
            continue
        if len(runs) < count + len(ids):
            runs = np.concatenate([runs, np.empty((max(len(ids), len(runs)), 2), np.int64)])
        count = kernels.runs_of(made, starts, c.kind, c.level, c.track, c.role, c.time_ns, c.loss_mask, runs, count)
        pieces.append(ids.astype(np.uint32))
        size, at, made = _AT_ONCE, at + taken, made + len(ids)
    width = np.uint16 if max(numbering.vocabulary.size, longest) <= 1 << 16 else np.uint32
    marks = np.empty(made // kernels.EVERY + 1, np.int32)
    kernels.mark(runs[:count], marks)
    return Laid(
        np.concatenate(pieces).astype(width), runs[:count].copy(), marks, plain.tracks, plain.vectors,
        numbering.vocabulary.control("latent"),
    )  # fmt: skip


def _composed(pairs: Compositions, is_last: bool, n: int, c: Columns) -> tuple[np.ndarray, np.ndarray, int]:
    """The n ids of a scratch composed: ids, where each began, and how many of the n were taken."""
    from pantok.evolve import compose_read_kernels

    composed, starts = np.empty(n, np.int64), np.empty(n, np.int64)
    taken, made = compose_read_kernels.compose_block(
        is_last, c.ids[:n], c.kind, c.level, c.track, c.time_ns, *pairs.reading, *pairs.rule, composed, starts
    )
    return composed[:made], starts[:made], taken
