"""An episode's sequence under a vocabulary with compositions, of which any part can be had.

What is unusual: nothing is kept composed. The sequence is cut into spans at places where nothing is ever joined; how
many ids each span has once composed is counted when the episode is opened, and what a window needs is composed when it
is read, from the codes that are stored.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pantok.layout import COLUMNS, KINDS, Arranged, Columns, Sequenced, TokenSequence
from pantok.layout import write as write_plain

if TYPE_CHECKING:
    from pantok.evolve.compositions import Compositions
    from pantok.layout_columns import EpisodeColumns, Numbering

_SPAN = 512  # ids of a span, or a few more
_AT_ONCE = 1 << 20  # ids that are composed at a time while an episode is opened
_LATENT = KINDS.index("latent")


def arranged(
    columns: EpisodeColumns, numbering: Numbering, spans: tuple[np.ndarray, np.ndarray] | None = None
) -> Arranged | Composed:
    """An episode as its vocabulary writes it. spans: see `Composed`."""
    plain = Arranged(columns, numbering.layout, numbering.vocabulary, numbering)
    pairs = numbering.compositions
    return plain if pairs is None else Composed(plain, pairs, numbering.vocabulary.control("bos"), spans)


class Composed:
    """As `Arranged`, with ids composed."""

    address = 0
    """There is nothing that compiled loops could find by itself; see `write`."""

    def __init__(
        self, plain: Arranged, compositions: Compositions, bos: int, spans: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """spans: those of another object of the same episode and compositions, if there was one."""
        self.plain, self._compositions, self._bos = plain, compositions, bos
        self.tracks = plain.tracks
        self.spans = spans if spans is not None else self._counted()
        """int64 (S + 1,), twice: where each span begins, in ids of the layout and in composed ones."""
        self._firsts, self._owns = self.spans

    def _counted(self) -> tuple[np.ndarray, np.ndarray]:
        from pantok.evolve.compositions import joins_of

        plain, compositions, total = self.plain, self._compositions, len(self.plain)
        firsts, owns, own, at, size = [0], [0], 0, 0, _AT_ONCE
        while at < total:
            part = plain.cut(at, min(at + size, total))
            joins = joins_of(part, compositions.across)
            free = np.flatnonzero(~joins) + 1  # nothing reaches over these; the last one is the end of the part
            if at + len(part) < total:
                if len(free) == 1:
                    size *= 2  # all of it may be joined: its end is no place to cut
                    continue
                part, joins, free = part.cut(0, int(free[-2])), joins[: free[-2]], free[:-1]
            size = _AT_ONCE
            _, starts = compositions.read(part.ids, joins)
            wanted = np.searchsorted(free, np.arange(_SPAN, len(part) + _SPAN, _SPAN))
            marks = free[np.unique(wanted.clip(max=len(free) - 1))]
            firsts += (marks + at).tolist()
            owns += (np.searchsorted(starts, marks) + own).tolist()
            own, at = own + len(starts), at + len(part)
        return np.array(firsts), np.array(owns)

    def __len__(self) -> int:
        return int(self._owns[-1])

    @property
    def has_latents(self) -> bool:
        return self.plain.has_latents

    @property
    def nbytes(self) -> int:
        return self.plain.nbytes + self._firsts.nbytes + self._owns.nbytes

    def where(self, start: int, stop: int) -> tuple[int, int, int]:
        """(first and last + 1 id of the layout that hold the composed ids [start, stop); how many come before them)."""
        low = max(int(np.searchsorted(self._owns, start, "right")) - 1, 0)
        high = max(int(np.searchsorted(self._owns, stop, "left")), low)
        return int(self._firsts[low]), int(self._firsts[high]), start - int(self._owns[low])

    def cut(self, start: int = 0, stop: int | None = None) -> TokenSequence:
        """The ids [start, stop). Raises TokenError for a code that its level does not have."""
        stop = len(self) if stop is None else min(stop, len(self))
        start = min(max(start, 0), stop)
        first, last, before = self.where(start, stop)
        part = self._compositions.sequence(self.plain.cut(first, last))
        return part.cut(before, before + stop - start)

    def put(self, first: int, stop: int, at: int, names: np.ndarray, document: int, columns: Columns) -> TokenSequence:
        """The ids [first, stop) into columns from `at` on, as `layout.write` does."""
        part = self.cut(first, stop)
        here = slice(at, at + len(part))
        for column, said in (
            (columns.ids, part.ids), (columns.kind, part.kind), (columns.level, part.level),
            (columns.track, names[part.track]), (columns.role, part.role), (columns.time_ns, part.time_ns),
            (columns.loss_mask, (part.kind != _LATENT) & (part.ids != self._bos)), (columns.document, document),
        ):  # fmt: skip
            if len(column):
                column[here] = said
        return part


def write(
    parts: Sequence[Sequenced | Composed], places: np.ndarray, numbers: np.ndarray, columns: Columns
) -> list[tuple[int, int, np.ndarray]]:
    """As `layout.write`, of episodes that may be composed as they are read, all of them by one vocabulary."""
    composed = {k: part for k, part in enumerate(parts) if isinstance(part, Composed)}
    addressed = [part for part in parts if not isinstance(part, Composed)]
    if not composed:
        return write_plain(addressed, places, numbers, columns)
    plain = [k for k in range(len(parts)) if k not in composed]
    written = write_plain(addressed, places[plain], numbers, columns) if plain else []
    found = [(plain[k], track, values) for k, track, values in written]
    quick = [k for k, part in composed.items() if not part.has_latents]
    for k, part in composed.items():
        if part.has_latents:
            first, stop, at, row, document = places[k, 1:].tolist()
            put = part.put(first, stop, at, numbers[row], document, columns)
            found += [(k, part.tracks.index(name), values) for name, values in put.latents.items() if len(values)]
    if quick:
        _write_composed([composed[k] for k in quick], places[quick], numbers, columns)
    return sorted(found, key=lambda one: one[0])


def _write_composed(parts: Sequence[Composed], places: np.ndarray, numbers: np.ndarray, columns: Columns) -> None:
    """Ids of the layout of all parts into a scratch in one compiled call, and from there composed in another."""
    from pantok.evolve import compose_read_kernels as kernels

    bounds, before = np.empty((len(parts), 6), np.int64), np.empty((len(parts), 6), np.int64)
    at = 0
    for row, (part, place) in enumerate(zip(parts, places.tolist(), strict=True)):
        first, last, skip = part.where(place[1], place[2])
        bounds[row] = part.plain.address, first, last, at, place[4], place[5]
        before[row] = at, at + last - first, skip, place[2] - place[1], place[3], place[5]
        at += last - first
    c = columns
    also = [name for name in ("role", "loss_mask") if len(getattr(c, name))]
    s = scratch(at, (*JOINED_BY, *also))
    write_plain([part.plain for part in parts], bounds, numbers, s)
    compositions = parts[0]._compositions
    kernels.compose(
        before, s.ids, s.kind, s.level, s.track, s.role, s.time_ns, s.loss_mask, *compositions.reading,
        *compositions.rule, c.ids, c.kind, c.level, c.track, c.role, c.time_ns, c.loss_mask, c.document,
    )  # fmt: skip


JOINED_BY = ("ids", "kind", "level", "track", "time_ns")
"""Columns of the ids of a layout by which they are composed."""
_HELD = threading.local()


def scratch(ids: int, names: Sequence[str] = JOINED_BY) -> Columns:
    """Columns of these names of at least so many ids; each thread keeps its own."""
    held: dict[str, np.ndarray] | None = getattr(_HELD, "columns", None)
    if held is None:
        held = _HELD.columns = {}
    for name in names:
        if name not in held or len(held[name]) < ids:
            held[name] = np.empty(ids + ids // 8, COLUMNS[name])
    return Columns.of({name: held[name] for name in names})
