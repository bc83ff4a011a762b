"""An episode's sequence under a vocabulary with compositions, of which any part can be had.

What is unusual: nothing is kept composed. The sequence is cut into spans at places where nothing is ever joined; how
many ids each span has once composed is counted when the episode is opened, and what a window needs is composed when it
is read, from the codes that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pantok.layout import KINDS, Arranged, Columns, TokenSequence
from pantok.layout import write as write_plain

if TYPE_CHECKING:
    from pantok.evolve.compose import Compositions
    from pantok.layout_columns import EpisodeColumns, Numbering

_SPAN = 2048  # ids of a span, or a few more
_AT_ONCE = 1 << 20  # ids that are composed at a time while an episode is opened
_LATENT = KINDS.index("latent")


def compositions_of(numbering: Numbering) -> Compositions | None:
    """The compositions of its vocabulary, None where it has none."""
    from pantok.evolve.compose import MODALITY, Compositions

    return Compositions.of(numbering.vocabulary) if MODALITY in numbering.vocabulary.states else None


def arranged(columns: EpisodeColumns, numbering: Numbering) -> Arranged | Composed:
    """An episode as its vocabulary writes it."""
    plain = Arranged(columns, numbering.layout, numbering.vocabulary, numbering)
    pairs = compositions_of(numbering)
    return plain if pairs is None else Composed(plain, pairs, numbering.vocabulary.control("bos"))


class Composed:
    """As `Arranged`, with ids composed."""

    address = 0
    """There is nothing that compiled loops could find by itself; see `write`."""

    def __init__(self, plain: Arranged, compositions: Compositions, bos: int) -> None:
        from pantok.evolve.compose import joins_of

        self._plain, self._compositions, self._bos = plain, compositions, bos
        self.tracks = plain.tracks
        total = len(plain)
        # Where each span begins, in ids of the layout and in composed ones.
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
            _, starts = compositions.apply(part.ids, joins)
            wanted = np.searchsorted(free, np.arange(_SPAN, len(part) + _SPAN, _SPAN))
            marks = free[np.unique(wanted.clip(max=len(free) - 1))]
            firsts += (marks + at).tolist()
            owns += (np.searchsorted(starts, marks) + own).tolist()
            own, at = own + len(starts), at + len(part)
        self._firsts, self._owns = np.array(firsts), np.array(owns)

    def __len__(self) -> int:
        return int(self._owns[-1])

    @property
    def nbytes(self) -> int:
        return self._plain.nbytes + self._firsts.nbytes + self._owns.nbytes

    def cut(self, start: int = 0, stop: int | None = None) -> TokenSequence:
        """The ids [start, stop). Raises TokenError for a code that its level does not have."""
        stop = len(self) if stop is None else min(stop, len(self))
        start = min(max(start, 0), stop)
        low = max(int(np.searchsorted(self._owns, start, "right")) - 1, 0)
        high = max(int(np.searchsorted(self._owns, stop, "left")), low)
        part = self._compositions.sequence(self._plain.cut(int(self._firsts[low]), int(self._firsts[high])))
        begin = int(self._owns[low])
        return part.cut(start - begin, stop - begin)

    def put(self, first: int, stop: int, at: int, names: np.ndarray, document: int, columns: Columns) -> TokenSequence:
        """The ids [first, stop) into columns from `at` on, as `layout.write` does."""
        part = self.cut(first, stop)
        here = slice(at, at + len(part))
        columns.ids[here], columns.kind[here], columns.level[here] = part.ids, part.kind, part.level
        columns.track[here], columns.role[here], columns.time_ns[here] = names[part.track], part.role, part.time_ns
        columns.mask[here] = (part.kind != _LATENT) & (part.ids != self._bos)
        columns.document[here] = document
        return part


def write(
    parts: Sequence[Arranged | Composed], places: np.ndarray, numbers: np.ndarray, columns: Columns
) -> list[tuple[int, int, np.ndarray]]:
    """As `layout.write`, of episodes that may be composed."""
    found: list[tuple[int, int, np.ndarray]] = []
    for k, part in enumerate(parts):
        if isinstance(part, Arranged):
            found += [
                (k, track, values) for _, track, values in write_plain([part], places[k : k + 1], numbers, columns)
            ]
            continue
        first, stop, at, row, document = places[k, 1:].tolist()
        written = part.put(first, stop, at, numbers[row], document, columns)
        found += [(k, part.tracks.index(name), values) for name, values in written.latents.items() if len(values)]
    return found
