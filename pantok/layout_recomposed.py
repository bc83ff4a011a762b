"""An episode's composed ids as columns of their own, so that it is read like one that was never composed.

What is unusual: composing is done once, when an episode is first met under a vocabulary, and what is kept is not a
sequence. A composition takes the place of its first id, in that id's track, tick and level; so the composed episode has
the same grammar as the plain one, with other codes and fewer of them. The loops that read columns of codes read these,
at no more than the plain price.

The code of such a column is the id itself, less the lowest that the level can have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pantok.layout import KINDS, Arranged
from pantok.layout_columns import Column, EpisodeColumns, Numbering, TrackColumns
from pantok.layout_composed import scratch

_AT_ONCE = 1 << 16
"""Ids of the layout that are composed at a time: what is said of them stays in the processor's cache."""
_FULL = 1 << 32


def can_recompose(numbering: Numbering) -> bool:
    """Whether episodes of this layout can be: there are compositions, none reaches over units, none is cut away."""
    layout, compositions = numbering.layout, numbering.compositions
    return compositions is not None and compositions.across != "track" and not layout.max_ids and not layout.step_ids


class Recomposed(Numbering):
    """Of columns that hold composed ids. `plain` is that of the stored codes, and has compositions."""

    def __init__(self, plain: Numbering) -> None:
        super().__init__(plain.layout, plain.vocabulary, plain.in_use)
        self.plain = plain
        self.spans, self._variants = {}, {}
        self._bounds: dict[str, np.ndarray] = {}

    def of_codes(self, written: object) -> Numbering:
        return self

    @property
    def compositions(self) -> None:  # type: ignore[override]
        """None: columns hold them already."""
        return None

    def bounds(self, modality: str) -> np.ndarray:
        """int64 (levels, 2): lowest and highest id that stands in a column of each level."""
        found = self._bounds.get(modality)
        if found is None:
            pairs = self.plain.compositions
            assert pairs is not None
            named = pairs.named
            rows = []
            for k in range(len(self.vocabulary.levels(modality))):
                table = self.plain.table(modality, k)
                both = np.concatenate([table, named]) if modality != "text" else table
                rows.append((int(both.min(initial=_FULL)), int(both.max(initial=0))))
            found = self._bounds[modality] = np.array(rows, np.int64).reshape(-1, 2)
        return found

    def levels(self, modality: str) -> np.ndarray:
        from pantok import layout_kernels as kernels

        found = self._levels.get(modality)
        if found is None:
            found = self._levels[modality] = self.plain.levels(modality).copy()
            bounds = self.bounds(modality)
            found[:, kernels.LINEAR] = bounds[:, 0]
            found[:, kernels.CARDINALITY] = bounds[:, 1] - bounds[:, 0] + 1
        return found

    def dtype(self, modality: str, level: int) -> np.dtype:
        """Unsigned, of a column of the level."""
        low, high = self.bounds(modality)[level].tolist()
        return np.min_scalar_type(max(high - low, 0))


def recompose(plain: Arranged, numbering: Recomposed) -> EpisodeColumns:
    """The columns of an episode, composed. plain: the episode under `numbering.plain`.

    Raises TokenError for a code that its level does not have.
    """
    from pantok.evolve import compose_read_kernels as kernels
    from pantok.evolve.compositions import ACROSS, COMPOSABLE
    from pantok.layout import write

    pairs = numbering.plain.compositions
    assert pairs is not None
    tracks, units = plain.columns.tracks, plain.units()
    keys, ranks, named, base = pairs.reading
    # Columns are numbered through all tracks: of track p, level k it is first[p] + k. Counts lie likewise.
    depths = [len(track.levels) for track in tracks]
    first = np.cumsum([0, *depths])
    low = np.concatenate([numbering.bounds(t.modality)[: len(t.levels), 0] for t in tracks] or [np.zeros(0, np.int64)])
    dtypes = [numbering.dtype(track.modality, k) for track in tracks for k in range(len(track.levels))]
    places = np.cumsum([0, *(track.ticks * depth for track, depth in zip(tracks, depths, strict=True))])
    counts = np.zeros(places[-1], np.uint32)
    pieces: list[list[np.ndarray]] = [[] for _ in dtypes]
    total, at, size, unit = len(plain), 0, _AT_ONCE, 0
    as_they_are = np.arange(256, dtype=np.uint8)[None]
    while at < total:
        stop = min(at + size, total)
        c = scratch(stop - at)
        write([plain], np.array([[plain.address, at, stop, 0, 0, 0]]), as_they_are, c)
        out, bounds = np.empty(stop - at, np.uint32), np.empty(len(low) + 1, np.int64)
        taken, unit = kernels.into_columns(
            at, stop == total, c.ids[: stop - at], c.kind, c.level, c.track, c.time_ns, keys, ranks, named, base,
            pairs.bridges, COMPOSABLE, KINDS.index("digit"), ACROSS.index(pairs.across), KINDS.index("control"),
            KINDS.index("latent"), units, unit, first, low, places, np.array(depths, np.int64), counts, out, bounds,
        )  # fmt: skip
        if taken == 0:
            size *= 2  # all of it may be joined: its end is no place to cut
            continue
        size, at = _AT_ONCE, at + taken
        for column, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            if begin < end:
                pieces[column].append(out[begin:end].astype(dtypes[column]))
    made = []
    for p, track in enumerate(tracks):
        columns = []
        for k in range(depths[p]):
            mine = pieces[first[p] + k]
            codes = np.concatenate(mine) if mine else np.zeros(0, dtypes[first[p] + k])
            columns.append(Column((codes,), len(codes), held=codes.nbytes) if len(codes) else Column((), 0))
        count = counts[places[p] : places[p + 1]].reshape(track.ticks, depths[p])
        made.append(track_of(track, columns, count))
    return EpisodeColumns(plain.columns.id, made)


def track_of(plain: TrackColumns, levels: Sequence[Column], counts: np.ndarray) -> TrackColumns:
    """A track with other codes. counts: unsigned (ticks, levels), how many of them each tick has."""
    depth = len(plain.levels)
    latent, spread = plain.latent_spread, plain.latent_spread
    if plain.latents is not None and latent[0] >= 0:
        assert plain.counts is not None
        counts = np.concatenate([counts, plain.counts[:, latent[0] : latent[0] + 1]], 1)
        spread = (depth, 0)
    counts = np.ascontiguousarray(counts, np.min_scalar_type(int(counts.max(initial=0))))
    if counts.dtype not in (np.uint8, np.uint16, np.uint32):
        counts = counts.astype(np.uint32)
    return replace(
        plain, levels=tuple(levels), counts=counts, spread=tuple((k, 0) for k in range(depth)), latent_spread=spread
    )  # fmt: skip
