"""How many codes a level has, told by those before: by tokenizers, to the switch, in simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pantok.encode import Codec
from pantok.experience import Clock, Track
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary
from pantok.layout import Layout
from pantok.loader import StreamDataset
from pantok.stream import TokenStream
from pantok.tokenizers.counts import Counts, among
from pantok.tokenizers.numeric import NumericOptions
from pantok.tokenizers.numeric_symbols import Alphabet
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.config import TrainConfig
from pantok.world_model.drawing import Drawer, SimulateConfig
from pantok.world_model.features import shapes_of
from pantok.world_model.grammar import Grammar
from pantok.world_model.inputs import inputs_of, level_keys
from pantok.world_model.model import WorldModel
from pantok.world_model.simulate import Simulation
from pantok.world_model.switch import Kinds

SMALL = BackboneConfig(width=16, layers=1, heads=2, kv_heads=1)
CONFIG = TrainConfig(length=96, batch=4, latents=0, align="none", hint=0, backbone=SMALL)


def test_what_is_told_is_what_the_encoders_wrote(store: Path) -> None:
    opened = Store.open(store)
    codec, asked, opens = Codec(opened.vocabulary), set(), set()
    for name in opened.episodes:
        for track in opened.read(name).tracks.values():
            tokenizer = codec.tokenizer(track.modality)
            if tokenizer.told_from is None:
                continue
            for tick in {*range(min(track.ticks, 12)), track.ticks - 1}:
                codes = [level.of_tick(tick) for level in track.levels]
                for k, mine in enumerate(codes):
                    more = tokenizer.due(track, tick, codes[:k])
                    for count in range(len(mine) + 1):
                        told = more(mine[:count].tolist())
                        if told is None:
                            opens.add((track.modality, k))
                            assert k < tokenizer.told_from or (k == tokenizer.told_from and not count)
                        else:
                            assert told == (count < len(mine)), (track.name, tick, k, count)
                            asked.add(track.modality)
    assert asked == {"video", "audio", "numeric"}
    assert opens <= {("video", 0), ("video", 1), ("audio", 0)}, opens


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=12), st.lists(st.sampled_from("-123r"), min_size=12))
def test_numbers_are_spelled_with_their_last_byte(values: list[int], kinds: list[str]) -> None:
    """kinds: which hole, or r for a sample kept verbatim."""
    alphabet, residuals = Alphabet(3), np.array([values])
    verbatim = np.arange(8 * len(values), dtype=np.uint8).reshape(1, -1, 8)
    kinds = kinds[: len(values)]
    holes, raw = np.array([["-123".find(k) for k in kinds]], np.int8).clip(0), np.array([[k == "r" for k in kinds]])
    symbols, _ = alphabet.runs(residuals, holes, raw, verbatim)
    for count in range(symbols.shape[1] + 1):
        whole = count == symbols.shape[1]
        assert alphabet.spelled(symbols[0, :count], len(values), 8) == whole
        if whole:
            found, empty, kept = alphabet.parse(symbols[0], 1, len(values), 8)
            assert np.array_equal(found, np.where(holes, 0, residuals)) and np.array_equal(empty, holes)
            assert kept == {(0, int(i)): verbatim[0, i].tobytes() for i in np.flatnonzero(raw)}


def test_options_of_a_tick() -> None:
    class Three:
        """Level 0 has none or two codes; level 1 as many as level 0's sum; level 2 any."""

        def due(self, tokens: object, tick: int, before: list[np.ndarray]) -> object:
            return [among(0, 2), among(int(before[0].sum()) if before else 0), lambda codes: None][len(before)]

    codes: list[list[int]] = [[], [], []]
    counts = Counts(Three(), None, 0, codes)  # type: ignore[arg-type]
    assert counts.options(0) == ([0, 2], True)
    codes[0].append(1)
    assert counts.options(0) == ([0], False)
    codes[0].append(2)
    assert counts.options(0) == ([1], False)
    codes[1] += [5, 5, 5]
    assert counts.options(1) == ([2], True)
    codes[0].clear(), codes[1].clear()
    assert counts.fit([(0, 1), (0, 0), (1, 7), (2, 7)]) and counts.fit([(2, 1), (2, 1)])
    assert not counts.fit([(0, 1), (1, 7)]) and not counts.fit([(0, 1), (0, 0), (1, 7), (1, 7)])
    assert not counts.fit([(1, 0)]) and codes == [[], [], []]
    codes[0] += [1, 2]
    codes[1] += [5, 5, 5]
    assert Counts(None, None, 0, codes).options(1) == ([1, 2], True)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(store: Path) -> StreamDataset:
    return StreamDataset(store, length=CONFIG.length, batch_size=4, seed=0, rank=0, world=1)


def test_the_switch_is_not_asked_what_is_told(data: StreamDataset) -> None:
    torch.manual_seed(0)
    model = WorldModel(data.vocabulary, CONFIG)
    inputs = inputs_of(data.batch(0, list(range(min(16, len(data.windows))))), level_keys(data.vocabulary), {}, 0)
    admitted, chosen = model.admitted(inputs), inputs.predict[:, 1:]
    kinds = model.kinds_of(inputs)[:, 1:][chosen]
    assert admitted is not None
    assert admitted.gather(1, kinds[:, None]).all()  # what came could come
    lone = admitted.sum(1) == 1
    assert 0.3 < lone.float().mean() < 1
    hidden = torch.randn(len(kinds), SMALL.width)
    gate = model.switch.log_gate(hidden, admitted)
    assert torch.allclose(gate.exp().sum(1), torch.ones(len(gate)), atol=1e-5)
    assert torch.equal(gate.exp() > 0, admitted)
    assert (gate.gather(1, kinds[:, None])[lone] == 0).all()
    losses = model(inputs)
    losses.mean(model.counts(inputs)).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_at_temperature_0_the_code_of_least_error_is_taken(data: StreamDataset) -> None:
    model = WorldModel(data.vocabulary, CONFIG)
    drawer = Drawer(model, SimulateConfig(temperature=0))
    names, kinds = model.kinds.names, model.kinds
    shapeless = next(k for k, n in enumerate(names) if n.startswith("video.1."))
    logits = torch.arange(kinds.stops[shapeless] - kinds.starts[shapeless]).float()
    assert drawer._plainest(shapeless, logits) == len(logits) - 1
    shaped = next(k for k, n in enumerate(names) if n.startswith("video.8."))
    shapes = shapes_of(data.vocabulary, kinds.starts[shaped])
    assert shapes is not None and len(shapes) == kinds.stops[shaped] - kinds.starts[shaped]
    for logits in (
        torch.zeros(len(shapes)),
        torch.randn(len(shapes)),
        50 * torch.nn.functional.one_hot(torch.tensor(3), len(shapes)),
    ):
        p = torch.softmax(logits.float(), -1)
        expected = (p[None] * torch.cdist(shapes.double(), shapes.double()).square()).sum(1)
        found = drawer._plainest(shaped, logits.float())
        assert float(expected[found]) <= float(expected.min()) * (1 + 1e-4) + 1e-6
    assert found == 3


def test_marks_and_whole_ticks_are_needed(data: StreamDataset) -> None:
    kinds = Kinds.of(data.vocabulary, {})
    assert Grammar.of(data.vocabulary, kinds, Layout.of("default")) is not None
    assert Grammar.of(data.vocabulary, kinds, Layout.of("coarse")) is not None
    assert Grammar.of(data.vocabulary, kinds, Layout(step_ids=8)) is None
    assert Grammar.of(data.vocabulary, kinds, Layout(marks="none")) is None


def test_a_simulated_tick_has_the_codes_that_it_calls_for(store: Path, data: StreamDataset) -> None:
    torch.manual_seed(1)
    model, opened = WorldModel(data.vocabulary, CONFIG), Store.open(store)
    codes = torch.tensor(["." in name for name in model.kinds.names])
    model.switch.gate.bias.data[codes] += 6  # otherwise most ticks have no codes at all
    name = next(n for n in opened.episodes if "video" in {t.modality for t in opened.read(n).tracks.values()})
    stream = opened.read(name)
    start = stream.tracks["video"].clock.start_ns + 10**8
    simulation = Simulation(
        model, Layout.of("default"), stream, start, start + 10**9, config=SimulateConfig(longest=1000.0)
    )
    assert simulation.steps and sum(step.drawn for step in simulation) > 0
    codec, seen = Codec(opened.vocabulary), 0
    for track in simulation.stream.tracks.values():
        tokenizer = codec.tokenizer(track.modality)
        for tick in range(track.ticks if tokenizer.told_from is not None else 0):
            codes = [level.of_tick(tick) for level in track.levels]
            if any(len(c) for c in codes):
                for k, mine in enumerate(codes):
                    assert tokenizer.due(track, tick, codes[:k])(mine.tolist()) is not True, (track.name, tick, k)
                seen += 1
    assert seen


def test_digits_of_a_guaranteed_bound_are_drawn_too(vocabulary: Path) -> None:
    mine = load_vocabulary(vocabulary)
    values = np.cumsum(np.random.default_rng(0).normal(size=(200, 2)), 0)
    track = Track.of_array("proprio", values, Clock.regular(50, 200), channels=("x", "y"))
    tokens = Codec(mine).tokenizer("numeric").encode(track, NumericOptions(max_error=1e-4))
    assert len(tokens.levels[1].codes)
    stream = TokenStream("walk", {"proprio": tokens}, mine.id)
    torch.manual_seed(0)
    simulation = Simulation(
        WorldModel(mine, CONFIG), Layout.of("default"), stream, 2 * 10**9, 3 * 10**9, config=SimulateConfig(longest=1e3)
    )
    assert sum(step.drawn for step in simulation) > 0
    found = simulation.stream.tracks["proprio"]
    for tick in range(found.ticks):
        codes = [level.of_tick(tick) for level in found.levels]
        assert len(codes[1]) == len(tokens.levels[1].of_tick(tick)) > 0
    assert Codec(mine).tokenizer("numeric").decoded(found).shape == (found.clock.count, 2)
