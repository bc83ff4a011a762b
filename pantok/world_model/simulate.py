"""Simulation: what the model expects to see, hear and feel next, step by step, under given actions.

What is unusual: the times are not guessed. Which track speaks when is told by the clocks, so a future is a walk over
the units of its layout: the markers and the actions are given, everything else is drawn, each unit until the switch
ends it. The result is a TokenStream like any other, which the tokenizers decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pantok.errors import OptionError
from pantok.layout import KINDS, ROLES, Arranged, Layout
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.tokenizers import Tokenizer, load
from pantok.tokenizers.counts import Counts
from pantok.world_model.backbone import Cache
from pantok.world_model.composing import Composer
from pantok.world_model.drawing import Drawer, SimulateConfig
from pantok.world_model.foretelling import Foreteller
from pantok.world_model.futures import extended, first_tick, latents_of, place_of
from pantok.world_model.grammar import counted
from pantok.world_model.inputs import PLACES, Inputs
from pantok.world_model.model import WorldModel

_LATENT = KINDS.index("latent")


@dataclass(frozen=True, eq=False)
class Step:
    """What a step of the layout brought: its time, and the ids that were drawn and given."""

    time_ns: int
    drawn: int
    given: int


@dataclass(eq=False)
class _Element:
    number: int
    role: int
    track: int
    time_ns: int
    latent: np.ndarray | None = None
    ordinal: int = 0
    told: int | None = None


@dataclass(eq=False)
class _Unit:
    track: int
    tick: int
    time_ns: int
    opens: bool


@dataclass(eq=False)
class _Made:
    """Codes of one track by level and tick, and its latents."""

    levels: list[dict[int, list[int]]]
    latents: dict[int, list[np.ndarray]] = field(default_factory=dict)


class Simulation:
    """One future of one episode. Iterate over its steps, then ask for `stream`.

    stream: the episode so far (and its recorded future, whose actions and clocks are used). start_ns, stop_ns: what is
    simulated. actions: encoded action tracks by name, whose ticks count from start_ns; recorded ones where None, and
    the last one again where there is nothing more. words: ids of text that is said at start_ns.
    context: elements that the model looks back on. Raises OptionError.
    """

    def __init__(
        self, model: WorldModel, layout: Layout, stream: TokenStream, start_ns: int, stop_ns: int, *,
        actions: Mapping[str, TrackTokens] | None = None, words: np.ndarray | None = None,
        config: SimulateConfig | None = None, context: int = 0,
    ) -> None:  # fmt: skip
        if stop_ns <= start_ns:
            raise OptionError("simulate", "ends before it begins", "--for takes a number of seconds")
        config = config or SimulateConfig()
        self._model, self._layout, self._config = model.eval(), layout, config
        self._vocabulary = model.vocabulary
        self._actions, self._words = dict(actions or {}), words
        self._like = extended(stream, layout, start_ns, stop_ns)
        if not self._like.tracks:
            raise OptionError(stream.id, "has no track that the layout keeps", "choose another episode or layout")
        arranged = Arranged(stream, layout, self._vocabulary)
        past = arranged.cut(0, place_of(arranged, stream, start_ns))
        self._composer = Composer.of(self._vocabulary)
        self._past = past if self._composer is None else self._composer.sequence(past)
        self._stream, self._start, self._stop = stream, start_ns, stop_ns
        self._capacity = context or model.config.length
        self._drawer = Drawer(model, config)
        self._device = next(model.parameters()).device
        self.tracks = tuple(Arranged(self._like, layout, self._vocabulary).tracks)
        self._made = {name: _Made([{} for _ in self._like.tracks[name].levels]) for name in self.tracks}
        self._longest = self._longest_units(arranged, stream)
        self._elements: list[_Element] = []
        self._keys = model.keys.tolist()
        self._counted = counted(layout)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._foreteller: Foreteller | None = None
        if model.hint is not None and model.grounding is not None:
            self._foreteller = Foreteller(model.grounding.space, lambda: self.stream)

    @property
    def steps(self) -> int:
        """How many steps of the layout are simulated."""
        return sum(u.opens for u in self._units())

    def __iter__(self) -> Iterator[Step]:
        with torch.no_grad():
            self._read_past()
            drawn = given = 0
            at: int | None = None
            for unit in self._units():
                if unit.opens:
                    if at is not None:
                        yield Step(at, drawn, given)
                    at, drawn, given = unit.time_ns, 0, 0
                name = self.tracks[unit.track]
                track = self._like.tracks[name]
                if unit.opens and self._layout.marks != "none":
                    self._feed(self._vocabulary.control("tick"), "control", unit.time_ns)
                role = self._layout.role(name)
                if role == "action":
                    given += self._act(unit, track, role)
                else:
                    drawn += self._draw_unit(unit, track, role)
            if at is not None:
                yield Step(at, drawn, given)

    @property
    def stream(self) -> TokenStream:
        """The past as it was recorded, and the future as far as it has been simulated."""
        tracks = {}
        for name, made in self._made.items():
            track, old = self._like.tracks[name], self._stream.tracks[name]
            first = first_tick(track, self._start)
            latents = latents_of(old, made.latents, track.ticks, first)
            levels = []
            for k, level in enumerate(track.levels):
                codes = [old.levels[k].codes[: old.levels[k].splits[min(first, old.ticks)]]]
                counts = np.zeros(track.ticks, np.int64)
                counts[: min(first, old.ticks)] = np.diff(old.levels[k].splits)[:first]
                for tick in range(first, track.ticks):
                    found = made.levels[k].get(tick, [])
                    counts[tick] = len(found)
                    codes.append(np.array(found, level.codes.dtype))
                levels.append(LevelCodes.of_counts(np.concatenate(codes), counts))
            tracks[name] = replace(track, levels=tuple(levels), latents=latents)
        return replace(self._like, tracks=tracks)

    def _units(self) -> list[_Unit]:
        """Every unit that begins within the simulated time, in order."""
        found = Arranged(self._like, self._layout, self._vocabulary).units()
        units: list[_Unit] = []
        before = None
        for track, tick, step, *_ in found.tolist():
            tokens = self._like.tracks[self.tracks[track]]
            time_ns = int(tokens.clock.at(np.array([tick * tokens.tick]))[0])
            if self._start <= time_ns < self._stop:
                units.append(_Unit(track, tick, time_ns, step != before))
                before = step
        return units

    def _longest_units(self, arranged: Arranged, stream: TokenStream) -> dict[str, int]:
        units = arranged.units()
        longest = dict.fromkeys(self.tracks, 8)
        for number, name in enumerate(arranged.tracks):
            mine = units[units[:, 0] == number]
            if len(mine):
                longest[name] = max(8, int(mine[:, 4].max() * self._config.longest))
        return longest

    def _read_past(self) -> None:
        past = self._past
        latents = {name: iter(values) for name, values in past.latents.items()}
        for i in range(len(past)):
            value = None
            if past.kind[i] == _LATENT:
                value = np.asarray(next(latents[past.tracks[int(past.track[i])]]), np.float32)
            self._append(int(past.ids[i]), int(past.role[i]), int(past.track[i]), int(past.time_ns[i]), value)
        if self._words is not None and len(self._words):
            begin = self._vocabulary.control("text_begin")
            for number in (begin, *self._words.tolist()):
                self._append(int(number), ROLES.index("text"), 254, self._start)
        if not self._elements:
            self._append(self._vocabulary.control("bos"), ROLES.index("control"), 255, self._start)
        self._restart(self._capacity - self._capacity // 4)

    def _append(self, number: int, role: int, track: int, time_ns: int, latent: np.ndarray | None = None) -> _Element:
        told = None if self._foreteller is None else self._foreteller.step(role, time_ns)
        element = _Element(number, role, track, time_ns, latent, told=told)
        if self._elements:
            last = self._elements[-1]
            element.ordinal = last.ordinal + 1 if self._same(last, element) else 0
        self._elements.append(element)
        return element

    def _same(self, before: _Element, element: _Element) -> bool:
        """Whether both are codes of one level of a unit."""
        return before.track == element.track and self._keys[before.number] == self._keys[element.number]

    def _restart(self, keep: int) -> None:
        """Runs the last `keep` elements through the backbone into a new cache: memory stays constant."""
        self._elements = self._elements[-keep:]
        told = [e.told for e in self._elements if e.told is not None]
        if self._foreteller is not None and told:
            self._foreteller.forget(min(told))
        # As in training: where a window begins, nothing before it is known.
        self._elements[0].ordinal = 0
        for before, element in pairwise(self._elements):
            element.ordinal = before.ordinal + 1 if self._same(before, element) else 0
        self._first_ns = self._elements[0].time_ns
        self._cache = Cache(self._model.config.backbone, 1, self._capacity, self._model.embed.weight)
        self._hidden = self._run(self._elements, 0)

    def _feed(self, number: int, role: str, time_ns: int, track: int = 255, latent: np.ndarray | None = None) -> None:
        element = self._append(number, ROLES.index(role), track, time_ns, latent)
        if self._cache.length == self._capacity:
            self._restart(self._capacity // 2)
        else:
            self._hidden = self._run([element], self._cache.length)

    def _run(self, elements: Sequence[_Element], at: int) -> Tensor:
        """The hidden vector (1, width) after the last element."""
        count = len(elements)
        row = torch.tensor([[(e.number, e.role, e.time_ns, e.ordinal) for e in elements]], dtype=torch.int64)
        found: dict[str, list[tuple[int, np.ndarray]]] = {}
        for place, element in enumerate(elements):
            if element.latent is not None:
                found.setdefault(self._modality_of(element), []).append((place, element.latent))
        latents = {}
        for modality, many in found.items():
            values = np.stack([v[: self._model.latent_dims[modality]] for _, v in many])
            latents[modality] = (torch.from_numpy(values), torch.tensor([p for p, _ in many]))
        inputs = Inputs(
            ids=row[..., 0], role=row[..., 1], time_s=(row[..., 2] - self._first_ns).double() / 1e9,
            ordinal=row[..., 3].clamp_max(PLACES - 1), index=torch.arange(at, at + count)[None],
            document=torch.zeros(1, count, dtype=torch.int64), predict=torch.zeros(1, count, dtype=torch.bool),
            window=torch.zeros(1, dtype=torch.int64), latents=latents,
            foretold=None if self._foreteller is None else self._foreteller.foretold([e.told for e in elements]),
        ).to(self._device)  # fmt: skip
        return self._model.hidden(inputs, self._cache)[:, -1]

    def _modality_of(self, element: _Element) -> str:
        return self._like.tracks[self.tracks[element.track]].modality

    def _marker(self, unit: _Unit, track: TrackTokens, role: str) -> None:
        if self._layout.marks != "none":
            self._feed(self._vocabulary.control(f"{track.modality}_begin"), role, unit.time_ns, unit.track)

    def _act(self, unit: _Unit, track: TrackTokens, role: str) -> int:
        """Feeds the codes of an action's unit: those given, else those recorded, else the last ones again."""
        self._marker(unit, track, role)
        given = self._actions.get(track.name)
        source, tick = self._stream.tracks[track.name], unit.tick
        if given is not None:
            source, tick = given, unit.tick - first_tick(track, self._start)
        tick = min(max(tick, 0), source.ticks - 1)
        vocabulary, ids, kinds, levels = self._vocabulary, list[int](), list[str](), list[int]()
        for k in range(self._layout.depth(track, vocabulary.levels(track.modality))):
            codes = source.levels[k].of_tick(tick)
            if not len(codes):
                continue
            kind = vocabulary.levels(track.modality)[k].role
            mark = [vocabulary.control(f"level_{k}")] if kind == "digit" else []
            ids += [*mark, *vocabulary.ids(track.modality, k, codes).tolist()]
            kinds += ["control"] * len(mark) + [kind] * len(codes)
            levels += [k] * (len(mark) + len(codes))
            self._made[track.name].levels[k][unit.tick] = codes.tolist()
        for number in ids if self._composer is None else self._composer.unit(ids, kinds, levels):
            self._feed(number, role, unit.time_ns, unit.track)
        return len(kinds) - kinds.count("control")

    def _draw_unit(self, unit: _Unit, track: TrackTokens, role: str) -> int:
        """Draws codes, coarse to fine: as many as those before them call for, and where they leave it open until the
        switch ends the unit; then its latents."""
        self._marker(unit, track, role)
        vocabulary, modality, names = self._vocabulary, track.modality, self._model.kinds.names
        specs = vocabulary.levels(modality)
        depth = self._layout.depth(track, specs)
        places = {kind: p for kind, n in enumerate(names) if (p := _level_of(n, modality)) is not None and p < depth}
        codes: list[list[int]] = [[] for _ in range(depth)]
        tokenizer = self._tokenizer(modality) if self._counted else None
        counts = Counts(tokenizer, self._like.tracks[track.name], unit.tick, codes)
        level, drawn = 0, 0
        made = self._made[track.name]
        while drawn < self._longest[track.name]:
            levels, may_end = counts.options(level)
            if levels and not may_end and specs[levels[0]].role == "digit":
                level = levels[0]
                self._draw_digit(unit, role, level, specs[level].cardinality, codes[level])
                drawn += 1
                continue
            allowed: dict[int, Tensor | None] = {kind: None for kind, place in places.items() if place in levels}
            if self._composer is not None:
                for kind in (k for k, name in enumerate(names) if name.startswith("composition.")):
                    span = self._model.kinds.starts[kind], self._model.kinds.stops[kind]
                    allowed[kind] = torch.from_numpy(self._composer.permitted(*span, modality, levels, depth))
            number = self._drawer.within(self._hidden, allowed, may_end)
            if number is None:
                break
            where, k, code = vocabulary.locate(number)
            spelled = [(k, code)]
            if self._composer is not None and where != modality:
                spelled = self._composer.codes(number)
                if not counts.fit(spelled):  # more of a level than there can be: a plain code instead
                    plain = {kind: which for kind, which in allowed.items() if which is None}
                    number = self._drawer.within(self._hidden, plain, False)
                    if number is None:
                        break
                    spelled = [vocabulary.locate(number)[1:]]
            for level, code in spelled:
                codes[level].append(code)
            self._feed(number, role, unit.time_ns, unit.track)
            drawn += len(spelled)
        for level, found in enumerate(codes):
            if found:
                made.levels[level][unit.tick] = found
        latent = f"latent.{modality}"
        if self._layout.latents and latent in names and track.latents is not None:
            count = int(np.diff(track.latents.splits).max(initial=0))
            for _ in range(count):
                value = self._model.draw_latent(modality, self._hidden, self._config.flow_steps, self._drawer.generator)
                whole = np.zeros(track.latents.values.shape[1], np.float32)
                whole[: value.shape[1]] = value[0].cpu().numpy()
                self._feed(vocabulary.control("latent"), role, unit.time_ns, unit.track, whole)
                made.latents.setdefault(unit.tick, []).append(whole)
        return drawn

    def _draw_digit(self, unit: _Unit, role: str, level: int, base: int, found: list[int]) -> None:
        """A digit that refines what the pieces said. All levels share their ids; a mark says which one it is."""
        if not found:
            self._feed(self._vocabulary.control(f"level_{level}"), role, unit.time_ns, unit.track)
        kind = self._model.kinds.names.index("digit")
        first, stop = self._model.kinds.starts[kind], self._model.kinds.stops[kind]
        number = self._drawer.code(self._hidden, kind, torch.arange(stop - first) < base)
        found.append(number - first)
        self._feed(number, role, unit.time_ns, unit.track)

    def _tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self._tokenizers:
            self._tokenizers[modality] = load(self._vocabulary.states[modality])
        return self._tokenizers[modality]


def _level_of(kind: str, modality: str) -> int | None:
    """The level that a kind of the switch is of, if it is one of the modality's."""
    if kind == modality == "text":
        return 0
    owner, _, rest = kind.partition(".")
    return int(rest.split(".")[0]) if owner == modality and rest[:1].isdigit() else None
