"""How a TokenStream becomes one sequence of ids, and back.

What is unusual: nothing is lost and nothing is looped over in Python. A *unit* is what one track says in one of its own
ticks: the begin marker of its modality, then its codes level by level, coarse first, so that a unit cut short is a
coarser state. Units stand in the order of time, in steps of `step_s`, and within a step in the order of `tracks`:
words, then what was seen, heard and felt, then the action that follows it. Any part of a sequence can be had without
the rest; only its codes are read. A sequence gives back the codes that it holds: levels are told by their ids, tracks
and ticks by the clocks.

    <bos> | <tick> unit unit ... | <tick> unit ... | <eos>

    >>> layout = Layout.preset("video-only")
    >>> layout.keeps("video"), layout.keeps("audio")
    (True, False)

The grammar is in `layout_grammar`, the loops are in `layout_kernels`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pantok.errors import TokenError
from pantok.layout_grammar import KINDS, MARKS, PRESETS, ROLES, Layout
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pantok.layout_columns import EpisodeColumns, Numbering

__all__ = ["KINDS", "MARKS", "PRESETS", "ROLES", "Arranged", "Layout", "TokenSequence", "arrange", "restore"]
_LATENT = KINDS.index("latent")
_SPACING = 4096
_CHECKPOINTS = 16_384
"""Checkpoints of a walk stand about so many ids apart, and are at most about so many: a few megabytes an episode."""


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One episode as ids, all arrays of the same length N but for `latents`.

    ids: uint32. kind: uint8, index into KINDS. level: uint8, within the modality; 0 for control ids. track: uint8,
    index into `tracks`, 255 for ids of no track. time_ns: int64, when the unit of an id begins. latents: float16 (M, D)
    for each track that has some, in the order of their placeholders. role: uint8, index into ROLES; empty if not given.
    """

    ids: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    track: np.ndarray
    time_ns: np.ndarray
    tracks: tuple[str, ...]
    latents: Mapping[str, np.ndarray] = field(default_factory=dict)
    role: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, start: int, stop: int) -> TokenSequence:
        """The ids [start, stop) with their latents."""
        latents = {}
        if self.latents:
            latent = self.kind == _LATENT
            for number, name in enumerate(self.tracks):
                if name in self.latents:
                    mine = latent & (self.track == number)
                    latents[name] = self.latents[name][int(mine[:start].sum()) : int(mine[:stop].sum())]
        ids, kind, level, track, time_ns = (
            column[start:stop] for column in (self.ids, self.kind, self.level, self.track, self.time_ns)
        )
        return TokenSequence(ids, kind, level, track, time_ns, self.tracks, latents, self.role[start:stop])


COLUMNS: Mapping[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in (
        ("ids", np.int64), ("time_ns", np.int64), ("document", np.int32), ("kind", np.uint8), ("level", np.uint8),
        ("track", np.uint8), ("role", np.uint8), ("loss_mask", np.bool_),
    )
}  # fmt: skip
"""What can be said of every id, see `Columns`; the widest first, so that in one piece of memory each is aligned."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What is said of N ids, each (N,) and of the dtype in COLUMNS, or (0,) where it is not wanted: that is neither
    computed nor written. loss_mask: whether an id is to be predicted (not <bos> and latent placeholders)."""

    ids: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    track: np.ndarray
    role: np.ndarray
    time_ns: np.ndarray
    loss_mask: np.ndarray
    document: np.ndarray

    @classmethod
    def of(cls, wanted: Mapping[str, np.ndarray]) -> Columns:
        """Those of `wanted`, and no others."""
        return cls(**{name: wanted[name] if name in wanted else np.empty(0, t) for name, t in COLUMNS.items()})

    @classmethod
    def empty(cls, n: int, names: Iterable[str] = COLUMNS) -> Columns:
        return cls.of({name: np.empty(n, COLUMNS[name]) for name in names})

    @property
    def size(self) -> int:
        """N."""
        return min((len(column) for column in vars(self).values() if len(column)), default=0)


_OF_A_SEQUENCE = ("ids", "kind", "level", "track", "role", "time_ns")
AS_THEY_ARE = np.arange(256, dtype=np.uint8)[None]
"""`numbers` of `write`, for one episode alone."""
ReadRows = Callable[[int, int], np.ndarray]
"""The vectors [first, last) of a track, float16 (last - first, D)."""


class Sequenced(ABC):
    """An episode as a sequence of ids of which compiled loops write any part. tracks: names. vectors: of each, what
    reads rows of its latents, None where none stand in it. loops: the module whose `write` finds it by its address, as
    long as it lives."""

    tracks: tuple[str, ...]
    vectors: tuple[ReadRows | None, ...]
    loops: ModuleType
    address: int

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that it holds besides what lies in mapped files."""

    @cached_property
    def has_latents(self) -> bool:
        return any(read is not None for read in self.vectors)

    def cut(self, start: int = 0, stop: int | None = None) -> TokenSequence:
        """The ids [start, stop). Raises TokenError for a code that its level does not have."""
        total = len(self)
        stop = total if stop is None else min(stop, total)
        start = min(max(start, 0), stop)
        columns = Columns.empty(stop - start, _OF_A_SEQUENCE)
        found = write([self], np.array([[self.address, start, stop, 0, 0, 0]]), AS_THEY_ARE, columns)
        return TokenSequence(
            columns.ids.astype(np.uint32), columns.kind, columns.level, columns.track, columns.time_ns, self.tracks,
            {self.tracks[track]: values for _, track, values in found}, columns.role,
        )  # fmt: skip

    def latents(self, track: int, rows: np.ndarray) -> np.ndarray:
        """float16 (len(rows), D), vectors of a track; rows ascend."""
        read = self.vectors[track]
        assert read is not None
        return read(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]

    def complain(self, level: int, at: int) -> NoReturn:
        """Says which code of a level (counted over all tracks), from `at` on, it is that the level does not have."""
        raise AssertionError((level, at))  # only where codes are read can one be missing


class Arranged(Sequenced):
    """An episode as a sequence of ids of which any part can be had; only that part's codes are read."""

    def __init__(
        self, episode: TokenStream | EpisodeColumns, layout: Layout, vocabulary: Vocabulary,
        numbering: Numbering | None = None,
    ) -> None:  # fmt: skip
        """numbering: of this layout and vocabulary, where many episodes share it.

        Raises TokenError if the counts of a track do not add up to its codes.
        """
        # numba takes a third of a second to import, and not everything that knows layouts arranges one.
        from pantok import layout_columns, layout_kernels

        self.loops = layout_kernels
        self._numbering = numbering or layout_columns.Numbering(layout, vocabulary)
        columns = episode
        if isinstance(episode, TokenStream):
            columns = layout_columns.EpisodeColumns.of(episode, self._numbering)
        assert isinstance(columns, layout_columns.EpisodeColumns)
        self._packed = packed = layout_columns.Packed(columns, self._numbering)
        codes = sum(column.rows for track in packed.columns for column in track.levels)
        self._sheet = packed.sheet(max(_SPACING, codes // _CHECKPOINTS))
        self.tracks = tuple(track.name for track in packed.columns)
        self.vectors = tuple(track.latents for track in packed.columns)
        self.address = layout_columns.address_of(self._sheet)

    def __len__(self) -> int:
        return int(self._packed.facts[self.loops.TOTAL])

    @property
    def nbytes(self) -> int:
        return int(self._sheet.nbytes + self._packed.nbytes)

    def units(self) -> np.ndarray:
        """int64 (U, 5), every unit in order: track, tick, step, place of its first id, ids."""
        packed = self._packed
        out = np.empty((sum(track.ticks for track in packed.columns), 5), np.int64)
        return out[: self.loops.list_units(packed.tracks, packed.levels, packed.facts, out)]

    def complain(self, level: int, at: int) -> NoReturn:
        for track in self._packed.columns:
            if level < len(track.levels):
                codes = track.levels[level].read(at, track.levels[level].rows)
                self._numbering.vocabulary.ids(track.modality, level, codes)
            level -= len(track.levels)
        raise AssertionError((level, at))


def write(
    parts: Sequence[Sequenced], places: np.ndarray, numbers: np.ndarray, columns: Columns
) -> list[tuple[int, int, np.ndarray]]:
    """The ids of several parts of episodes into flat columns, those that are wanted, in one compiled call that holds no
    lock (one for each kind of sequence among them).

    places: int64 (P, 6), of each part the address of its episode, first and last + 1 of its ids, where they go in the
    columns, row of `numbers`, number of its document. numbers: uint8 (Q, 256), what `columns.track` says of each of an
    episode's tracks. Returns (part, track, its latents there) for parts that hold some, in the order of parts.
    Raises TokenError for a code that its level does not have, where ids are wanted; without, no code is read.
    """
    found = []
    kinds = list(dict.fromkeys([part.loops for part in parts]))
    for loops in kinds:
        mine = [k for k, part in enumerate(parts) if part.loops is loops] if len(kinds) > 1 else range(len(parts))
        some = places[mine] if len(kinds) > 1 else places
        rows = rows_of([parts[k] for k in mine], loops, some, numbers, columns)
        if len(rows):
            # Those of a part and track lie apart where tracks take turns: bring them together, keeping their order.
            rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
            edges = np.flatnonzero(np.any(rows[1:, :2] != rows[:-1, :2], axis=1)) + 1
            for r in np.split(rows, edges):
                part, track = mine[int(r[0, 0])], int(r[0, 1])
                found.append((part, track, parts[part].latents(track, r[:, 2])))
    return sorted(found, key=lambda one: one[0])


def rows_of(
    parts: Sequence[Sequenced], loops: ModuleType, places: np.ndarray, numbers: np.ndarray, columns: Columns
) -> np.ndarray:
    """As `write`, of parts of one kind; int64 (M, 3), part, track and row of the vector of each placeholder."""
    many = any(part.has_latents for part in parts)
    rows = np.empty((int((places[:, 2] - places[:, 1]).sum()) if many else 0, 3), np.int64)
    found, bad, level, begin = loops.write(
        places, numbers, columns.size, columns.ids, columns.kind, columns.level, columns.track, columns.role,
        columns.time_ns, columns.loss_mask, columns.document, rows,
    )  # fmt: skip
    assert level >= 0, (places[bad], len(parts[bad]), columns.size)
    if bad >= 0:
        parts[bad].complain(level, begin)
    return rows[:found]


def arrange(stream: TokenStream, layout: Layout, vocabulary: Vocabulary) -> TokenSequence:
    """The whole sequence of an episode."""
    return Arranged(stream, layout, vocabulary).cut()


def restore(ids: np.ndarray, like: TokenStream, layout: Layout, vocabulary: Vocabulary) -> TokenStream:
    """The stream whose sequence `ids` is, given the clocks and headers of `like`, whose codes are not looked at; with
    `marks = "none"` the counts of its ticks are.

    What the layout does not keep comes back empty: levels, and what budgets cut away. Tracks that it leaves out are
    missing. Raises TokenError if the ids are not a whole sequence of such an episode.
    """
    ids = np.asarray(ids, np.int64)
    arranged = Arranged(like, layout, vocabulary)
    units = arranged.units()
    tracks = [like.tracks[name] for name in arranged.tracks]
    marks = np.array([vocabulary.control(f"level_{k}") for k in range(16)])
    if layout.marks == "none":
        place, level_of = _told_by_counts(ids, like, arranged, units)
    else:
        place = _told_by_marks(ids, like, layout, vocabulary, tracks, units)
        # The last level mark at or before each place; a mark holds within its unit, where it is not overtaken.
        is_mark = (ids >= marks[0]) & (ids <= marks[-1])
        last = np.maximum.accumulate(np.where(is_mark, np.arange(len(ids)), -1))
        level_of = np.where(last >= 0, ids[np.maximum(last, 0)] - marks[0], -1)
    of_unit = place >= 0
    owner = np.where(of_unit, units[np.maximum(place, 0), 0], -1) if len(units) else np.full(len(ids), -1)
    tick = units[np.maximum(place, 0), 1] if len(units) else place
    made = {}
    for number, track in enumerate(tracks):
        levels = []
        for k, spec in enumerate(vocabulary.levels(track.modality)):
            table = vocabulary.table(track.modality, k).astype(np.int64)
            order = np.argsort(table, kind="stable")
            code = order[np.minimum(np.searchsorted(table, ids, sorter=order), len(table) - 1)]
            here = (owner == number) & (table[code] == ids)
            if spec.role == "digit":
                here &= level_of == k
            codes = code[here].astype(track.levels[k].codes.dtype)
            levels.append(LevelCodes.of_counts(codes, np.bincount(tick[here], minlength=track.ticks)))
        made[track.name] = replace(track, levels=tuple(levels), latents=track.latents if layout.latents else None)
    return replace(like, tracks={name: made[name] for name in like.tracks if name in made})


def _told_by_counts(
    ids: np.ndarray, like: TokenStream, arranged: Arranged, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each id its unit (-1: of none) and level."""
    if len(ids) != len(arranged):
        raise TokenError(
            like.id, f"its sequence has {len(ids)} ids, its counts say {len(arranged)}",
            "give the whole sequence, and the layout that made it",
        )  # fmt: skip
    place = np.full(len(ids), -1)
    place[1:-1] = np.repeat(np.arange(len(units)), units[:, 4])
    return place, arranged.cut().level.astype(np.int64)


def _told_by_marks(
    ids: np.ndarray, like: TokenStream, layout: Layout, vocabulary: Vocabulary, tracks: list[TrackTokens],
    units: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Of each id its unit, -1: of none."""
    names = ("video", "audio", "numeric", "text")
    modality = np.full(len(ids), -1)
    for number, name in enumerate(names):
        modality[ids == vocabulary.control(f"{name}_begin")] = number
    is_begin = modality >= 0
    for number, name in enumerate(names):
        for k, spec in enumerate(vocabulary.levels(name) if name in vocabulary.states else ()):
            if spec.role != "digit":
                modality[np.isin(ids, vocabulary.table(name, k))] = number
    outside = np.isin(ids, [vocabulary.control(c) for c in ("bos", "eos", "tick")])
    # Level marks, digits and placeholders are of the unit that they stand in.
    known = np.maximum.accumulate(np.where((modality >= 0) | outside, np.arange(len(ids)), 0))
    modality = modality[known] if len(ids) else modality
    starts = is_begin | (modality != np.concatenate([[-1], modality[:-1]]))
    starts &= ~outside & (modality >= 0)
    ticks = np.cumsum(ids == vocabulary.control("tick"))
    steps, step_of = np.unique(units[:, 2], return_inverse=True)
    # Steps stand in the order of their numbers, the one before everything else first.
    held = np.bincount(step_of, minlength=len(steps))
    found = np.bincount(ticks[starts], minlength=len(steps) + 1)[1:]
    whole = int(ticks[-1]) == len(steps) if len(ids) else False
    if not whole or not (np.all(found <= held) if layout.step_ids else np.array_equal(found, held)):
        raise TokenError(
            like.id, f"its sequence has {int(starts.sum())} units, its clocks say {len(units)}",
            "give the whole sequence, and the layout that made it",
        )  # fmt: skip
    first = np.cumsum(held) - held
    before = np.cumsum(found) - found
    unit = np.cumsum(starts) - 1
    step = np.maximum(ticks - 1, 0)
    place = np.where((unit >= 0) & ~outside & (ticks > 0), unit - before[step] + first[step], -1) if len(steps) else (
        np.full(len(ids), -1)
    )  # fmt: skip
    expected: Any = np.array([names.index(t.modality) for t in tracks] or [0])
    if len(units) and not np.array_equal(modality[starts], expected[units[place[starts], 0]]):
        raise TokenError(like.id, "its units are of other modalities than its clocks say", "check the layout")
    return place
