"""What a world model is measured against: at each step a short vector of what was seen, heard and felt, in closed form.

What is unusual: nothing is learned by gradient, and everything can be undone. An observation belongs to the state that
says it: a step holds the ticks that begin in it, as in the sequence of ids (`pantok.layout`), and its observation is
what these ticks decode to. So the vector of step k is g(s_k), a function of the ids up to the end of the step and of
none after it; predictors that see vectors and models that see ids know the same. Pictures are principal components
whose inverse is kept, in one unit for all of them, so that squared errors of vectors are squared errors of pixels.

    video    the last frame of the step, RGB, resized by area to `lines` lines: up to `dims` principal components
    audio    for each channel the power in `bands` bands, in dB
    numeric  for each channel its last value and its mean; what is not a number is as before
    text     nothing

Beside the vector a step of video has what it moves by: the components of the picture that comes if what moves goes on
moving until the next step that says one (`pantok.world_model.motion`), less those of its last. It is a function of the
same ids, and for predictors to know, not to foretell.

    space = ObservationSpace.fit(streams, vocabulary, layout)
    seen = space.vectors(stream)            # steps x width, with what was there and when
    space.frames(seen.values, "video")      # and back: uint8 pictures

A track that says nothing in a step is as it was before, and marked as not present.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pantok.config import from_mapping, to_mapping
from pantok.errors import InputError, OptionError
from pantok.layout import Layout
from pantok.stream import TokenStream, TrackTokens
from pantok.tokenizers import Tokenizer, load
from pantok.vocabulary import Vocabulary
from pantok.world_model import senses
from pantok.world_model.components import Thinned, components
from pantok.world_model.motion import carried
from pantok.world_model.step_grid import StepGrid

FORMAT = 2
"""1: without motion."""


@dataclass(frozen=True, kw_only=True)
class ObservationConfig:
    """lines: of the small picture. dims: most principal components of a picture. samples: most steps of a track that
    they are learned from. bands: of a channel of sound, from `low_hz` to half its sample rate, evenly on the mel scale.
    motion: pictures are carried on.
    """

    lines: int = 32
    dims: int = 128
    samples: int = 1500
    bands: int = 24
    low_hz: float = 60.0
    motion: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (("lines", 4, 512), ("dims", 1, 1024), ("samples", 8, 20_000), ("bands", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"observations {name}", f"{getattr(self, name)} is out of range", f"{low} to {high}")
        if not 0 < self.low_hz < 1e5:
            raise OptionError("observations low_hz", f"{self.low_hz} is out of range", "above 0")


@dataclass(frozen=True, eq=False)
class Observations:
    """The observations of an episode, S steps.

    values: float32 (S, width), all tracks side by side, in units of the space. present: bool (S, tracks). times_ns:
    int64 (S,), when each step begins. pictures: for each track of video that is there uint8 (S, lines, columns, 3), the
    small pictures themselves, not their components; empty where they were not asked for. moved: float32 (S,
    space.moved_width), what each track of video moves by until the next picture. carried: like pictures, carried on.
    """

    id: str
    values: np.ndarray
    present: np.ndarray
    times_ns: np.ndarray
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    moved: np.ndarray | None = None
    carried: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TrackSpace:
    """One track's part of the vector. centre, scale: float32 (D,). basis: float32 (D, pixels), orthonormal rows, video
    only. shape: of a small picture (lines, columns), video only. edges_hz: float64 (bands + 1,), audio only."""

    name: str
    modality: str
    centre: np.ndarray
    scale: np.ndarray
    basis: np.ndarray | None = None
    mean: np.ndarray | None = None
    shape: tuple[int, int] = (0, 0)
    edges_hz: np.ndarray | None = None

    @property
    def width(self) -> int:
        return len(self.centre)

    def fits(self, track: TrackTokens) -> bool:
        """Whether the track has as many features as the part was made of; pictures of any size do."""
        each = {"audio": len(self.edges_hz) - 1 if self.edges_hz is not None else 0, "numeric": 2}
        return track.modality == self.modality and (
            self.modality == "video" or self.width == each[self.modality] * max(1, len(track.channels))
        )

    def standard(self, raw: np.ndarray) -> np.ndarray:
        """float32 (n, D) of raw features: components of the picture, dB, or values."""
        if self.basis is not None and self.mean is not None:
            raw = (raw - self.mean) @ self.basis.T
        return ((raw - self.centre) / self.scale).astype(np.float32)

    def raw(self, values: np.ndarray) -> np.ndarray:
        """float32 (n, features): the inverse of `standard`, where it has one; of pictures the nearest there is."""
        raw = np.asarray(values, np.float32) * self.scale + self.centre
        return raw if self.basis is None or self.mean is None else raw @ self.basis + self.mean


class ObservationSpace:
    """See the module. Make one with `fit` or `from_arrays`."""

    def __init__(
        self, config: ObservationConfig, layout: Layout, vocabulary: Vocabulary, tracks: Sequence[TrackSpace]
    ) -> None:
        self.config, self.layout, self.vocabulary, self.tracks = config, layout, vocabulary, tuple(tracks)
        self._tokenizers: dict[str, Tokenizer] = {}

    # ------------------------------------------------------------------ the vector
    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each track's part of the vector is."""
        ends = np.cumsum([t.width for t in self.tracks]).tolist()
        return {t.name: slice(e - t.width, e) for t, e in zip(self.tracks, ends, strict=True)}

    @property
    def width(self) -> int:
        return sum(t.width for t in self.tracks)

    @cached_property
    def moves(self) -> dict[str, slice]:
        """Of each track whose pictures are carried on, where its part of `moved` is."""
        parts = [t for t in self.tracks if t.modality == "video" and self.config.motion]
        ends = np.cumsum([t.width for t in parts]).tolist()
        return {t.name: slice(e - t.width, e) for t, e in zip(parts, ends, strict=True)}

    @property
    def moved_width(self) -> int:
        return max((s.stop for s in self.moves.values()), default=0)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tracks)

    def track(self, name: str) -> TrackSpace:
        """Raises OptionError."""
        if name not in self.names:
            raise OptionError(f"track {name}", "is not among the observations", f"known: {', '.join(self.names)}")
        return self.tracks[self.names.index(name)]

    @cached_property
    def of_track(self) -> np.ndarray:
        """int64 (width,): the number of the track that each dimension is of."""
        return np.repeat(np.arange(len(self.tracks)), [t.width for t in self.tracks])

    # ------------------------------------------------------------------ fit
    @classmethod
    def fit(
        cls, streams: Iterable[TokenStream], vocabulary: Vocabulary, layout: Layout | None = None,
        config: ObservationConfig | None = None,
    ) -> ObservationSpace:  # fmt: skip
        """One pass over the episodes, in memory bounded by `config.samples`. Of tracks of one name that differ in their
        channels (sound in stereo here and in mono there) those that say most are observed, the others count as ids
        alone. Raises InputError if there is nothing to observe."""
        config, layout = config or ObservationConfig(), layout or Layout.preset("default")
        space = cls(config, layout, vocabulary, ())
        sorts: dict[tuple[str, str, int], tuple[TrackSpace, Thinned]] = {}
        for stream in streams:
            steps = StepGrid.of(stream, layout)
            for track in space._observed(stream):
                sort = (track.name, track.modality, 0 if track.modality == "video" else len(track.channels))
                if sort not in sorts:
                    sorts[sort] = space._opened(track), Thinned(config.samples)
                part, rows = sorts[sort]
                for _, raw in space._raw(track, part, steps, range(track.ticks)):
                    rows.add(raw)
        if not sorts:
            raise InputError("observations", "no episode has a track that can be observed", "video, sound or numbers")
        most: dict[str, tuple[TrackSpace, Thinned]] = {}
        for (name, *_), found in sorts.items():
            if name not in most or found[1].met > most[name][1].met:
                most[name] = found
        order = sorted(most, key=lambda name: (layout.place(name), name))
        parts = [_closed(most[name][0], most[name][1].rows(), config) for name in order if most[name][1].met]
        return cls(config, layout, vocabulary, parts)

    def _observed(self, stream: TokenStream) -> Iterator[TrackTokens]:
        for track in stream.tracks.values():
            if track.modality != "text" and self.layout.keeps(track.name) and track.clock.count:
                yield track

    def _opened(self, track: TrackTokens) -> TrackSpace:
        """What is known of a track before its samples are."""
        none = np.zeros(0, np.float32)
        if track.modality == "video":
            height, width = int(track.header["height"]), int(track.header["width"])
            lines = min(self.config.lines, height)
            return TrackSpace(track.name, "video", none, none, shape=(lines, max(1, round(width * lines / height))))
        if track.modality == "audio":
            top = senses.sample_rate(track) / 2
            mel = np.linspace(senses.mel(min(self.config.low_hz, top / 2)), senses.mel(top), self.config.bands + 1)
            return TrackSpace(track.name, "audio", none, none, edges_hz=700 * (10 ** (mel / 2595) - 1))
        return TrackSpace(track.name, "numeric", none, none)

    # ------------------------------------------------------------------ an episode
    def vectors(
        self, stream: TokenStream, *, pictures: bool = False, first: int = 0, last: int | None = None,
        only: Collection[str] | None = None,
    ) -> Observations:  # fmt: skip
        """The observations of an episode, of its steps [first, last); holds one tick of it at a time besides them. Only
        what they need is decoded; with `only` the others' dimensions are 0. (A channel that is not a number where
        decoding begins is 0 there, not as before.)"""
        steps = StepGrid.of(stream, self.layout)
        last = steps.count if last is None else min(last, steps.count)
        first = min(first, last)
        count = last - first
        values = np.zeros((count, self.width), np.float32)
        moved = np.zeros((count, self.moved_width), np.float32)
        present = np.zeros((count, len(self.tracks)), bool)
        shown: dict[str, np.ndarray] = {}
        onward: dict[str, np.ndarray] = {}
        for number, part in enumerate(self.tracks):
            track = stream.tracks.get(part.name) if only is None or part.name in only else None
            # Row 0 is what was said before the first step, if it says nothing.
            mine = np.zeros((count + 1, part.width), np.float32)
            shows = part.modality == "video" and pictures
            small = np.zeros((2, count + 1, *part.shape, 3), np.uint8) if shows else None
            moves = np.zeros_like(mine) if part.name in self.moves else None
            at = np.full(count + 1, -1)
            if track is not None and track.clock.count and part.fits(track) and count:
                ticks = _ticks(steps.of_ticks(track), first, last)
                for step, raw in self._raw(track, part, steps, ticks, motion=moves is not None):
                    row = max(step - first + 1, 0)
                    said = part.standard(raw)
                    mine[row], at[row] = said[0], row
                    if moves is not None:
                        moves[row] = said[1] - said[0]
                    if small is not None:
                        small[:, row] = np.rint(raw).clip(0, 255).reshape(-1, *small.shape[2:])
            # What is not said is as it was before; before everything else it is what comes first.
            if (at >= 0).any():
                present[:, number] = at[1:] >= 0
                before = np.maximum.accumulate(at)
                if moves is not None:
                    moved[:, self.moves[part.name]] = moves[before[1:]] * (before[1:, None] >= 0)
                before = np.where(before < 0, int(np.argmax(at >= 0)), before)[1:]
                values[:, self.slices[part.name]] = mine[before]
                if small is not None:
                    shown[part.name] = small[0, before]
                if small is not None and moves is not None:
                    onward[part.name] = small[1, before]
        return Observations(stream.id, values, present, steps.times_ns[first:last], shown, moved, onward)

    def frames(self, values: np.ndarray, name: str | None = None) -> np.ndarray:
        """uint8 (S, lines, columns, 3): the pictures that vectors say. values: (S, width), or (S, D) of the one track.
        name: of the track, the first one of video if None. Raises OptionError."""
        return np.rint(self.pictured(values, name)).clip(0, 255).astype(np.uint8)

    def pictured(self, values: np.ndarray, name: str | None = None) -> np.ndarray:
        """`frames` before they are rounded and cut to what can be shown: float32."""
        if name is None:
            name = next((t.name for t in self.tracks if t.modality == "video"), "video")
        part = self.track(name)
        if part.modality != "video":
            raise OptionError(f"track {name}", "is no video", "frames are of video")
        values = np.asarray(values, np.float32)
        mine = values[:, self.slices[name]] if values.shape[1] == self.width else values
        return part.raw(mine).reshape(-1, *part.shape, 3)

    def _raw(
        self, track: TrackTokens, part: TrackSpace, steps: StepGrid, ticks: range, motion: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(step, float32 (1, features)) of each step in which one of the ticks begins, in order; with motion, of
        video, (2, features): the last picture and what comes of it."""
        tokenizer, step = self._tokenizer(track.modality), steps.of_ticks(track)
        if part.modality == "video":
            until = steps.until_next(track)
            for tick, (before, last) in senses.seen(track, tokenizer, part.shape, step, ticks):
                shown = [last, carried(before, last, int(until[tick]))] if motion else [last]
                yield int(step[tick]), np.stack(shown).reshape(len(shown), -1)
            return
        if part.edges_hz is not None:
            said = senses.heard(track, tokenizer, part.edges_hz, step, ticks)
        else:
            said = senses.felt(track, tokenizer, step, ticks)
        for number, features in said:
            yield number, features[None]

    def _tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self._tokenizers:
            self._tokenizers[modality] = load(self.vocabulary.states[modality])
        return self._tokenizers[modality]

    # ------------------------------------------------------------------ keep
    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) that `from_arrays` takes."""
        arrays, facts = {}, []
        for number, part in enumerate(self.tracks):
            for name in ("centre", "scale", "basis", "mean", "edges_hz"):
                if getattr(part, name) is not None:
                    arrays[f"{number}.{name}"] = getattr(part, name)
            facts.append({"name": part.name, "modality": part.modality, "shape": list(part.shape)})
        return arrays, {"format": FORMAT, "config": to_mapping(self.config), "tracks": facts}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], vocabulary: Vocabulary, layout: Layout
    ) -> ObservationSpace:
        """Raises InputError for a format that this version does not know."""
        if facts.get("format") not in (1, FORMAT):
            raise InputError("observations", f"format {facts.get('format')} is not known", "train again")
        tracks = [
            TrackSpace(
                fact["name"], fact["modality"], arrays[f"{k}.centre"], arrays[f"{k}.scale"], arrays.get(f"{k}.basis"),
                arrays.get(f"{k}.mean"), (int(fact["shape"][0]), int(fact["shape"][1])), arrays.get(f"{k}.edges_hz"),
            )
            for k, fact in enumerate(facts["tracks"])
        ]  # fmt: skip
        config = dict(facts["config"]) | ({"motion": False} if facts["format"] == 1 else {})
        return cls(from_mapping(ObservationConfig, config, "observations"), layout, vocabulary, tracks)


def _ticks(step: np.ndarray, first: int, last: int) -> range:
    """The ticks that say steps [first, last): those in them, and of the last step before if the first has none. step:
    int64 (ticks,), ascending."""
    start = int(np.searchsorted(step, first, "left"))
    if start and (start == len(step) or step[start] > first):
        start = int(np.searchsorted(step, step[start - 1], "left"))
    return range(start, int(np.searchsorted(step, last, "left")))


def _closed(part: TrackSpace, rows: np.ndarray, config: ObservationConfig) -> TrackSpace:
    """The track's part of the space, from a sample of its raw features (n, features)."""
    if part.modality == "video":
        mean, basis, variance = components(rows, config.dims)
        # One unit for all components: errors of vectors are errors of pixels.
        unit = np.float32(max(np.sqrt(variance.mean()), 1e-3))
        zero = np.zeros(len(basis), np.float32)
        return TrackSpace(
            part.name, part.modality, zero, np.full(len(basis), unit, np.float32), basis, mean, part.shape
        )
    least = 1.0 if part.modality == "audio" else 1e-6
    spread = rows.std(0)
    spread = np.maximum(spread, max(least, 1e-3 * float(spread.max(initial=0.0))) if len(spread) else least)
    centre = rows.mean(0).astype(np.float32)
    return TrackSpace(part.name, part.modality, centre, spread.astype(np.float32), edges_hz=part.edges_hz)
