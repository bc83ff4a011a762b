"""How a TokenStream becomes one sequence of ids, and back.

What is unusual: nothing is lost and nothing is looped over. A *unit* is what one track says in one of its own ticks:
the begin marker of its modality, then its codes level by level, coarse first, so that a unit cut short is a coarser
state. Units stand in the order of time, in steps of `step_s`, and within a step in the order of `tracks`: words, then
what was seen, heard and felt, then the action that follows it. Where each unit and each level lies is computed for a
whole episode at once. A sequence gives back the codes that it holds: levels are told by their ids, tracks and ticks by
the clocks.

    <bos> | <tick> unit unit ... | <tick> unit ... | <eos>

    >>> layout = Layout.preset("video-only")
    >>> layout.keeps("video"), layout.keeps("audio")
    (True, False)
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from pantok.config import from_mapping
from pantok.errors import OptionError, TokenError
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Vocabulary

KINDS = ("control", "text", "code", "mode", "digit", "latent")
"""What an id is, as numbered in `TokenSequence.kind`."""
_LATENT = KINDS.index("latent")
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "coarse": {"levels": {"video": 5, "audio": 2, "numeric": 1}},
    "video-only": {"tracks": ("video*",)},
    "action-conditioned": {"tracks": ("video*", "proprio*", "imu*", "action*", "reward*")},
    "text-first": {"first": ("text*",)},
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """tracks: patterns of track names, in their order within a step; a track belongs to the first that matches, one
    that matches none is left out. first: patterns of tracks that stand before everything else, whatever their times.
    levels: how many levels to keep, by track name or modality; all where nothing is said. step_s: seconds of a step.
    latents: whether each unit ends with a placeholder id for each of its latents, which stand beside the ids.
    """

    tracks: tuple[str, ...] = ("text*", "video*", "audio*", "*", "action*", "reward*")
    first: tuple[str, ...] = ()
    levels: Mapping[str, int] = field(default_factory=dict)
    step_s: float = 0.2
    latents: bool = False

    def __post_init__(self) -> None:
        if not 1e-3 <= self.step_s <= 3600:
            raise OptionError("layout step_s", f"{self.step_s} is out of range", "choose 0.001 to 3600 seconds")
        if not self.tracks:
            raise OptionError("layout tracks", "names no track", 'e.g. tracks = ["video*", "action*"]')
        for name, count in self.levels.items():
            if count < 1:
                raise OptionError(f"layout levels {name}", f"{count} leaves nothing", "leave the track out of `tracks`")

    @classmethod
    def preset(cls, name: str) -> Layout:
        """One of PRESETS. Raises OptionError."""
        if name not in PRESETS:
            raise OptionError(f"layout {name}", "is no preset and no file", f"known: {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    @classmethod
    def of(cls, what: str | Path | Mapping[str, Any] | Layout) -> Layout:
        """A layout as it is, by its settings, by the name of a preset, or from a TOML file (which may name a `preset`
        that it changes). Raises OptionError."""
        if isinstance(what, Layout):
            return what
        if isinstance(what, (str, Path)) and not str(what).endswith(".toml"):
            return cls.preset(str(what))
        if isinstance(what, Mapping):
            settings = dict(what)
        else:
            try:
                settings = tomllib.loads(Path(what).read_text(encoding="utf-8"))
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise OptionError(f"layout {what}", f"cannot be read: {error}", "see `Layout`") from error
        base = settings.pop("preset", None)
        given = from_mapping(cls, {**PRESETS.get(base or "default", {}), **settings}, "layout")
        return given if base is None else replace(cls.preset(base), **{k: getattr(given, k) for k in settings})

    def place(self, track: str) -> int:
        """The track's place within a step; -1 if it is left out. `first` is asked before `tracks`; of several patterns
        the longest wins, then the first."""
        for patterns, base in ((self.first, len(self.tracks)), (self.tracks, 0)):
            fitting = [(len(p), -i) for i, p in enumerate(patterns) if fnmatchcase(track, p)]
            if fitting:
                return base - max(fitting)[1]
        return -1

    def keeps(self, track: str) -> bool:
        return self.place(track) >= 0

    def depth(self, track: TrackTokens) -> int:
        """Levels of the track that are kept."""
        said = self.levels.get(track.name, self.levels.get(track.modality))
        return len(track.levels) if said is None else min(said, len(track.levels))


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One episode as ids, all arrays of the same length N but for `latents`.

    ids: uint32. kind: uint8, index into KINDS. level: uint8, within the modality; 0 for control ids. track: uint8,
    index into `tracks`, 255 for ids of no track. time_ns: int64, when the unit of an id begins. latents: float16
    (M, D) for each track that has some, in the order of their placeholders.
    """

    ids: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    track: np.ndarray
    time_ns: np.ndarray
    tracks: tuple[str, ...]
    latents: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        return TokenSequence(ids, kind, level, track, time_ns, self.tracks, latents)


@dataclass(frozen=True, eq=False)
class _Units:
    """Every unit of an episode in the order of the sequence. track, tick: which; time_ns; opens: whether it is the
    first of its step."""

    tracks: tuple[TrackTokens, ...]
    track: np.ndarray
    tick: np.ndarray
    time_ns: np.ndarray
    opens: np.ndarray


class Arranged:
    """An episode as a sequence of ids of which any part can be had; only that part's codes are read."""

    def __init__(self, stream: TokenStream, layout: Layout, vocabulary: Vocabulary) -> None:
        self._layout, self._vocabulary, self._units = layout, vocabulary, _units(stream, layout)
        sizes = np.zeros(len(self._units.track), np.int64)
        for number, track in enumerate(self._units.tracks):
            mine = self._units.track == number
            sizes[mine] = _unit_sizes(track, layout, vocabulary)[self._units.tick[mine]]
        self._tables: dict[tuple[str, int], np.ndarray] = {}
        # Places in the sequence; bos is at 0. A <tick> belongs to the unit that opens its step.
        self._ends = 1 + np.cumsum(sizes + self._units.opens)
        self._starts = self._ends - sizes

    def __len__(self) -> int:
        return (int(self._ends[-1]) if len(self._ends) else 1) + 1

    def cut(self, start: int = 0, stop: int | None = None) -> TokenSequence:
        """The ids [start, stop). Raises TokenError for a code that its level does not have."""
        total = len(self)
        stop = total if stop is None else min(stop, total)
        start = min(max(start, 0), stop)
        begins = self._starts - self._units.opens
        lo, hi = int(np.searchsorted(self._ends, start, "right")), int(np.searchsorted(begins, stop, "left"))
        hi = max(lo, hi)
        # Whole units, with bos where they begin the sequence and eos where they end it; then what was asked for.
        first = 0 if lo == 0 else int(begins[lo]) if lo < len(begins) else total - 1
        last = total if hi == len(begins) else int(begins[hi])
        return self._whole(lo, hi, first, last).cut(start - first, stop - first)

    def _whole(self, lo: int, hi: int, first: int, last: int) -> TokenSequence:
        """The units [lo, hi), which fill the places [first, last) but for bos and eos."""
        units, vocabulary, length = self._units, self._vocabulary, last - first
        ids, kind, level, owner = (np.zeros(length, t) for t in (np.uint32, np.uint8, np.uint8, np.uint8))
        owner[:] = 255
        time_ns = np.zeros(length, np.int64)
        when = units.time_ns[lo:hi]
        if len(when):
            spans = self._ends[lo:hi] - self._starts[lo:hi] + units.opens[lo:hi]
            begin = int(self._starts[lo] - units.opens[lo]) - first
            end = begin + int(spans.sum())
            time_ns[begin:end] = np.repeat(when, spans)
            time_ns[:begin], time_ns[end:] = when[0], when[-1]
            ids[self._starts[lo:hi][units.opens[lo:hi]] - 1 - first] = vocabulary.control("tick")
        if first == 0:
            ids[0] = vocabulary.control("bos")
        if last == len(self):
            ids[-1] = vocabulary.control("eos")
        latents = {}
        for number, track in enumerate(units.tracks):
            mine = lo + np.flatnonzero(units.track[lo:hi] == number)
            if not len(mine):
                continue
            begin, end = int(units.tick[mine[0]]), int(units.tick[mine[-1]]) + 1  # a track's ticks are in order
            at = self._starts[mine] - first
            ids[at] = vocabulary.control(f"{track.modality}_begin")
            owner[at] = number
            at = at + 1
            specs = vocabulary.levels(track.modality)[: self._layout.depth(track)]
            for k, (codes, spec) in enumerate(zip(track.levels, specs, strict=False)):
                splits = codes.splits[begin : end + 1]
                if splits[0] == splits[-1]:
                    continue
                counts = splits[1:] - splits[:-1]
                if spec.role == "digit":
                    some = counts > 0
                    ids[at[some]] = vocabulary.control(f"level_{k}")
                    owner[at[some]] = number
                    at = at + some
                where = np.repeat(at - splits[:-1], counts) + np.arange(splits[0], splits[-1])
                ids[where] = self._ids(track.modality, k, codes.codes[splits[0] : splits[-1]])
                kind[where], level[where], owner[where] = KINDS.index(spec.role), k, number
                at = at + counts
            if self._layout.latents and track.latents is not None:
                splits = track.latents.splits[begin : end + 1]
                where = np.repeat(at - splits[:-1], np.diff(splits)) + np.arange(splits[0], splits[-1])
                ids[where], kind[where], owner[where] = vocabulary.control("latent"), _LATENT, number
                latents[track.name] = track.latents.values[splits[0] : splits[-1]]
        return TokenSequence(ids, kind, level, owner, time_ns, tuple(t.name for t in units.tracks), latents)

    def _ids(self, modality: str, level: int, codes: np.ndarray) -> np.ndarray:
        table = self._tables.get((modality, level))
        if table is None:
            table = self._tables[modality, level] = self._vocabulary.table(modality, level)
        if int(codes.max()) >= len(table):
            return self._vocabulary.ids(modality, level, codes)  # says which code it is
        return table[codes]


def arrange(stream: TokenStream, layout: Layout, vocabulary: Vocabulary) -> TokenSequence:
    """The whole sequence of an episode."""
    return Arranged(stream, layout, vocabulary).cut()


def restore(ids: np.ndarray, like: TokenStream, layout: Layout, vocabulary: Vocabulary) -> TokenStream:
    """The stream whose sequence `ids` is, given the clocks and headers of `like` (whose codes are not looked at).

    Levels that the layout does not keep come back empty, tracks that it leaves out are missing.
    Raises TokenError if the ids are not a whole sequence of such an episode.
    """
    ids = np.asarray(ids, np.int64)
    units = _units(like, layout)
    control = {name: vocabulary.control(name) for name in ("bos", "eos", "tick", "latent")}
    begins = [vocabulary.control(f"{m}_begin") for m in ("video", "audio", "numeric", "text")]
    is_begin = np.isin(ids, begins)
    unit = np.cumsum(is_begin) - 1
    if int(is_begin.sum()) != len(units.track):
        raise TokenError(
            like.id, f"its sequence has {int(is_begin.sum())} units, its clocks say {len(units.track)}",
            "give the whole sequence, and the layout that made it",
        )  # fmt: skip
    expected = np.array([vocabulary.control(f"{t.modality}_begin") for t in units.tracks] or [0])[units.track]
    if len(expected) and not np.array_equal(ids[is_begin], expected):
        raise TokenError(like.id, "its units are of other modalities than its clocks say", "check the layout")
    marks = np.array([vocabulary.control(f"level_{k}") for k in range(16)])
    inside = (unit >= 0) & ~is_begin & ~np.isin(ids, list(control.values()))
    is_mark = inside & (ids >= marks[0]) & (ids <= marks[-1])
    # The last level mark at or before each place; a mark holds within its unit, where it is not overtaken.
    last = np.maximum.accumulate(np.where(is_mark, np.arange(len(ids)), -1))
    marked = np.where(last >= 0, ids[np.maximum(last, 0)] - marks[0], -1)
    of_code = inside & ~is_mark
    made = {}
    for number, track in enumerate(units.tracks):
        mine = of_code & (units.track[np.maximum(unit, 0)] == number if len(units.track) else of_code)
        tick = units.tick[np.maximum(unit, 0)] if len(units.tick) else unit
        levels = []
        for k, spec in enumerate(vocabulary.levels(track.modality)):
            table = vocabulary.table(track.modality, k)
            here = mine & (ids >= int(table[0])) & (ids <= int(table[-1]))
            if spec.role == "digit":
                here &= marked == k
            codes = (ids[here] - int(table[0])).astype(track.levels[k].codes.dtype)
            levels.append(LevelCodes.of_counts(codes, np.bincount(tick[here], minlength=track.ticks)))
        made[track.name] = replace(track, levels=tuple(levels), latents=track.latents if layout.latents else None)
    return replace(like, tracks={name: made[name] for name in like.tracks if name in made})


def _units(stream: TokenStream, layout: Layout) -> _Units:
    kept = [t for t in stream.tracks.values() if layout.keeps(t.name) and t.ticks]
    tracks = tuple(sorted(kept, key=lambda t: (layout.place(t.name), t.name)))
    if not tracks:
        none = np.zeros(0, np.int64)
        return _Units((), none, none, none, none.astype(bool))
    times = [t.clock.at(np.arange(t.ticks, dtype=np.int64) * t.tick) for t in tracks]
    first = min(int(t[0]) for t in times)
    width = round(layout.step_s * 1e9)
    early = len(layout.tracks)
    step = [
        np.full(len(when), -1) if layout.place(t.name) >= early else (when - first) // width
        for t, when in zip(tracks, times, strict=True)
    ]
    track = np.repeat(np.arange(len(tracks)), [len(w) for w in times])
    tick = np.concatenate([np.arange(len(w)) for w in times])
    order = np.lexsort((tick, track, np.concatenate(step)))
    steps = np.concatenate(step)[order]
    opens = np.concatenate([[True], steps[1:] != steps[:-1]])
    return _Units(tracks, track[order], tick[order], np.concatenate(times)[order], opens)


def _unit_sizes(track: TrackTokens, layout: Layout, vocabulary: Vocabulary) -> np.ndarray:
    """int64 (ticks,): ids of each unit: its marker, codes, marks of digit levels, placeholders."""
    sizes = np.ones(track.ticks, np.int64)
    for codes, spec in zip(track.levels[: layout.depth(track)], vocabulary.levels(track.modality), strict=False):
        counts = np.diff(codes.splits)
        sizes += counts
        if spec.role == "digit":
            sizes += counts > 0
    if layout.latents and track.latents is not None:
        sizes += np.diff(track.latents.splits)
    return sizes
