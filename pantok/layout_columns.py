"""An episode as the compiled loops of layouts take it: columns of codes by their addresses, and what each id means.

What is unusual: codes are never gathered. A column is the list of the chunks that it lies in, mapped files mostly; what
a loop is given is where each begins. `Column` and its kin hold the arrays, so that the addresses stay good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pantok import layout_kernels as kernels
from pantok.errors import TokenError
from pantok.experience import Clock
from pantok.layout_grammar import KINDS, MARKS, ROLES, Layout
from pantok.stream import TokenStream, TrackTokens
from pantok.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pantok.evolve.compositions import Compositions
    from pantok.evolve.respell import Respelling

MODALITIES = ("video", "audio", "numeric", "text")
WHOLE = 1 << 62


@dataclass(frozen=True, eq=False)
class Column:
    """Codes that lie in one or more arrays, one after another. pieces: unsigned (n,) each, contiguous; all but the
    first and the last hold chunk_rows codes, and the first lacks `offset` codes at its beginning. held: bytes of memory
    that they take; 0 where they lie in mapped files."""

    pieces: tuple[np.ndarray, ...]
    rows: int
    offset: int = 0
    chunk_rows: int = WHOLE
    held: int = 0

    @classmethod
    def of(cls, codes: np.ndarray) -> Column:
        """Of codes that are in memory, of any integer dtype."""
        if codes.dtype not in (np.uint8, np.uint16, np.uint32):
            codes = codes.astype(np.uint32)
        return cls((np.ascontiguousarray(codes),), len(codes))

    @property
    def itemsize(self) -> int:
        return self.pieces[0].itemsize if self.pieces else 1

    @property
    def addresses(self) -> list[int]:
        """Where each chunk begins; of the first, where it would begin if it were whole."""
        starts = [address_of(piece) for piece in self.pieces]
        return [starts[0] - self.offset * self.itemsize, *starts[1:]] if starts else []

    def read(self, first: int, last: int) -> np.ndarray:
        return np.concatenate(self.pieces)[first:last]


@dataclass(frozen=True, eq=False)
class TrackColumns:
    """One track. levels: those that are kept. counts: unsigned (ticks, columns), how many codes a tick has, for those
    levels that have a column there. spread: for each level (column, 0) or (-1, count of every tick). latents: gives
    the vectors [first, last), float16 (n, D); latent_spread, latent_rows: as for a level."""

    name: str
    modality: str
    clock: Clock
    tick: int
    levels: tuple[Column, ...]
    counts: np.ndarray | None
    spread: tuple[tuple[int, int], ...]
    latents: Callable[[int, int], np.ndarray] | None = None
    latent_spread: tuple[int, int] = (-1, 0)
    latent_rows: int = 0

    @property
    def ticks(self) -> int:
        return -(-self.clock.count // self.tick)

    @classmethod
    def of(cls, track: TrackTokens, depth: int, latents: bool) -> TrackColumns:
        splits = [level.splits for level in track.levels[:depth]]
        taken = track.latents if latents else None
        if taken is not None:
            splits.append(taken.splits)
        counts = np.stack([np.diff(s) for s in splits], 1).astype(np.uint32) if splits else None
        return cls(
            track.name, track.modality, track.clock, track.tick,
            tuple(Column.of(level.codes) for level in track.levels[:depth]),
            counts, tuple((k, 0) for k in range(depth)),
            None if taken is None else lambda lo, hi: taken.values[lo:hi],
            (-1, 0) if taken is None else (depth, 0), 0 if taken is None else len(taken.values),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class EpisodeColumns:
    """An episode: the tracks that a layout keeps, in any order."""

    id: str
    tracks: Sequence[TrackColumns]

    @classmethod
    def of(cls, stream: TokenStream, numbering: Numbering) -> EpisodeColumns:
        layout = numbering.layout
        return cls(
            stream.id,
            [
                TrackColumns.of(t, numbering.depth(t), layout.latents)
                for t in stream.tracks.values()
                if layout.keeps(t.name)
            ],
        )


class Numbering:
    """A layout under a vocabulary: what every episode of a store has in common.

    in_use: for a code that was retired, the id of what stands for it now.
    written: what the codes were written under; `vocabulary` itself, or one that it grew out of, if None.
    """

    def __init__(
        self, layout: Layout, vocabulary: Vocabulary, in_use: bool = False, written: Vocabulary | None = None
    ) -> None:
        self.layout, self.vocabulary, self.in_use, self._written = layout, vocabulary, in_use, written
        self._variants: dict[str, Numbering] = {}
        self.spans: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
        """Of episodes that were composed before, by segment and row: see `layout_composed.Composed`."""
        self._levels: dict[str, np.ndarray] = {}
        self._tables: list[np.ndarray] = []

    def of_codes(self, written: Vocabulary) -> Numbering:
        """For codes that were written under `written`: this, if they mean the same here. Else ids by the tables that a
        merge left, and `levels` raises VocabularyError for a modality that is not related."""
        if written.id == self.vocabulary.id:
            return self
        if written.id not in self._variants:
            same = self.vocabulary.decodes(written)
            self._variants[written.id] = self if same else Numbering(self.layout, self.vocabulary, self.in_use, written)
        return self._variants[written.id]

    @cached_property
    def respelling(self) -> Respelling | None:
        """What text is to be spelled by before it is handed over; None where its codes mean the same here."""
        from pantok.evolve.respell import respelling

        return None if self._written is None else respelling(self.vocabulary, self._written)

    def table(self, modality: str, level: int) -> np.ndarray:
        """int64: the id of each code of a level."""
        if self._written is None or (modality == "text" and self.respelling is not None):
            return self.vocabulary.table(modality, level, in_use=self.in_use).astype(np.int64)
        from pantok.evolve.lineage import table

        return table(self.vocabulary, self._written, modality, level, in_use=self.in_use).astype(np.int64)

    def depth(self, track: TrackTokens | TrackColumns) -> int:
        """Levels of the track that are kept."""
        return self.layout.depth(track, self.vocabulary.levels(track.modality))

    def depth_of(self, name: str, modality: str, levels: Sequence[object]) -> int:
        """Levels kept of a track of this name that has `levels`."""
        return self.layout.depth(_Track(name, modality, levels), self.vocabulary.levels(modality))

    def levels(self, modality: str) -> np.ndarray:
        """int64 (levels, LEVEL_FIELDS): what is the same for all tracks of a modality."""
        found = self._levels.get(modality)
        if found is None:
            specs = self.vocabulary.levels(modality)
            found = self._levels[modality] = np.zeros((len(specs), kernels.LEVEL_FIELDS), np.int64)
            for k, spec in enumerate(specs):
                table = self.table(modality, k)
                in_a_row = bool((np.diff(table) == 1).all())
                found[k, kernels.LINEAR] = table[0] if in_a_row else -1
                if not in_a_row:
                    found[k, kernels.TABLE] = address_of(table)
                    self._tables.append(table)
                found[k, kernels.CARDINALITY] = len(table)
                found[k, kernels.KIND], found[k, kernels.NUMBER] = KINDS.index(spec.role), k
                marked = spec.role == "digit" and self.layout.marks != "none"
                found[k, kernels.MARK] = self.vocabulary.control(f"level_{k}") if marked else -1
        return found

    @cached_property
    def compositions(self) -> Compositions | None:
        """Those of the vocabulary, None where it has none."""
        from pantok.evolve.compositions import MODALITY, Compositions

        return Compositions.of(self.vocabulary) if MODALITY in self.vocabulary.states else None

    @cached_property
    def facts(self) -> np.ndarray:
        """int64 (FACTS,): what is the same for all episodes."""
        facts, control = np.zeros(kernels.FACTS, np.int64), self.vocabulary.control
        facts[kernels.WIDTH] = round(self.layout.step_s * 1e9)
        facts[kernels.MARKS] = MARKS.index(str(self.layout.marks))
        facts[kernels.TICK_ID], facts[kernels.LATENT_ID] = control("tick"), control("latent")
        facts[kernels.STEP_IDS], facts[kernels.BOS], facts[kernels.EOS] = (
            self.layout.step_ids, control("bos"), control("eos"),
        )  # fmt: skip
        facts[kernels.NO_ROLE] = ROLES.index("control")
        return facts

    @cached_property
    def begins(self) -> dict[str, int]:
        return {m: self.vocabulary.control(f"{m}_begin") for m in MODALITIES}

    def ordered(self, tracks: Sequence[TrackColumns]) -> list[TrackColumns]:
        """Those that are kept and not empty, in their order within a step."""
        kept = [t for t in tracks if self.layout.keeps(t.name) and t.ticks]
        return sorted(kept, key=lambda t: (self.layout.place(t.name), t.name))


@dataclass(frozen=True)
class _Track:
    name: str
    modality: str
    levels: Sequence[object]


class Packed:
    """An episode's columns as integers. tracks (T, TRACK_FIELDS), levels (N, LEVEL_FIELDS), chunks, facts: int64."""

    def __init__(self, episode: EpisodeColumns, numbering: Numbering) -> None:
        self.episode, self.numbering = episode, numbering
        self.columns = numbering.ordered(episode.tracks)
        layout = numbering.layout
        self.tracks = np.zeros((len(self.columns), kernels.TRACK_FIELDS), np.int64)
        self.facts = numbering.facts.copy()
        self._held: list[np.ndarray] = []
        chunks: list[int] = []
        levels: list[np.ndarray] = []
        at = 0
        for p, track in enumerate(self.columns):
            row, clock = self.tracks[p], track.clock
            row[kernels.START], row[kernels.SAMPLES], row[kernels.TICKS] = clock.start_ns, track.tick, track.ticks
            if clock.irregular_ns is None:
                assert clock.rate is not None
                row[kernels.NUM], row[kernels.DEN] = clock.rate.numerator, clock.rate.denominator
            else:
                times = np.ascontiguousarray(clock.irregular_ns, np.int64)
                row[kernels.TIMES], row[kernels.TIMES_STRIDE] = self._address(times), 8 * track.tick
            if track.counts is not None:
                counts = track.counts if track.counts.flags.c_contiguous else np.ascontiguousarray(track.counts)
                row[kernels.COUNTS], row[kernels.COUNTS_SIZE] = self._address(counts), counts.itemsize
                row[kernels.COUNTS_STRIDE] = counts.strides[0]
            row[kernels.BEGIN], row[kernels.EARLY] = numbering.begins[track.modality], layout.is_early(track.name)
            row[kernels.LATENT_COLUMN], row[kernels.LATENT_COUNT] = track.latent_spread
            row[kernels.MODALITY], row[kernels.MOST] = MODALITIES.index(track.modality), layout.most(track)
            row[kernels.ROLE] = ROLES.index(layout.role(track.name))
            row[kernels.FIRST_LEVEL], row[kernels.LAST_LEVEL] = at, at + len(track.levels)
            at += len(track.levels)
            mine = numbering.levels(track.modality)[: len(track.levels)].copy()
            for k, column in enumerate(track.levels):
                mine[k, kernels.COLUMN], mine[k, kernels.COUNT] = track.spread[k]
                mine[k, kernels.CHUNK], mine[k, kernels.ROWS] = len(chunks), column.chunk_rows
                mine[k, kernels.OFFSET], mine[k, kernels.SIZE] = column.offset, column.itemsize
                chunks += column.addresses
            levels.append(mine)
        self.levels = np.concatenate(levels) if levels else np.zeros((0, kernels.LEVEL_FIELDS), np.int64)
        self.chunks = np.array(chunks, np.int64)
        if self.columns:
            self.facts[kernels.FIRST_NS] = min(int(t.clock.at(np.array(0))) for t in self.columns)

    def survey(self, spacing: int) -> np.ndarray:
        """int64 (M, state): checkpoints about every `spacing` ids; fills the facts that were open.

        Raises TokenError where the counts of a track do not add up to the codes that it has.
        """
        count, number = len(self.tracks), len(self.levels)
        ids = sum(column.rows for t in self.columns for column in t.levels) + 8 * sum(t.ticks for t in self.columns)
        points = np.zeros((ids // spacing + 2, kernels.HEAD + 3 * count + number), np.int64)
        totals = np.zeros(number + count, np.int64)
        made = kernels.survey(self.tracks, self.levels, self.facts, spacing, points, totals)
        if made == 0:
            kernels.begin(self.tracks, self.facts, points[0])
            made = 1
        held = [column.rows for t in self.columns for column in t.levels] + [t.latent_rows for t in self.columns]
        if not np.array_equal(totals, held):
            at = int(np.argmax(totals != held))
            names = [f"{t.name} level {k}" for t in self.columns for k in range(len(t.levels))]
            name = [*names, *(f"{t.name} latents" for t in self.columns)][at]
            raise TokenError(
                f"episode {self.episode.id} {name}", f"holds {held[at]}, its ticks say {totals[at]}", "pantok verify"
            )
        return points[:made].copy()

    def sheet(self, spacing: int) -> np.ndarray:
        """int64, all of this and the checkpoints in one row: what the loops take. Valid as long as this object."""
        points = self.survey(spacing)
        sizes = (len(self.tracks), len(self.levels), len(self.chunks), len(points))
        self.facts[kernels.SIZE_TRACKS : kernels.SIZE_POINTS + 1] = sizes
        return np.concatenate([part.ravel() for part in (self.facts, self.tracks, self.levels, self.chunks, points)])

    def _address(self, array: np.ndarray) -> int:
        self._held.append(array)
        return address_of(array)

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds, without columns that lie in mapped files."""
        codes = sum(column.held for track in self.columns for column in track.levels)
        return codes + sum(array.nbytes for array in (self.tracks, self.levels, self.chunks, *self._held))


def address_of(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
