"""What is foretold of a state is the same in training and in a simulation, knows nothing of the state, and is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pantok.errors import OptionError
from pantok.formats.store import Store
from pantok.layout import Layout
from pantok.loader import StreamDataset
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.collapse import collapse_of
from pantok.world_model.config import TrainConfig
from pantok.world_model.drawing import SimulateConfig
from pantok.world_model.foretelling import Foreteller
from pantok.world_model.grounding import FORETOLD, Grounding, Steps
from pantok.world_model.inputs import Foretold, Inputs, concatenated, joined
from pantok.world_model.measure import measure
from pantok.world_model.model import WorldModel
from pantok.world_model.simulate import Simulation
from pantok.world_model.trainer import Feed, Share, Trainer

CONFIG = TrainConfig(
    length=384, batch=2, steps=2, latents=0, action_dropout=0.0, hint=16,
    backbone=BackboneConfig(width=16, layers=1, heads=2, kv_heads=1),
)  # fmt: skip
LAYOUT = replace(Layout(), tracks=("text*", "action*", "video*", "audio*", "*"))


@pytest.fixture(scope="module")
def opened(store: Path) -> Store:
    return Store.open(store)


@pytest.fixture(scope="module")
def grounding(opened: Store) -> Grounding:
    def streams():
        return iter([opened.read("film-01")])

    return Grounding.fit(streams, streams, opened.vocabulary, LAYOUT)


@pytest.fixture(scope="module")
def model(opened: Store, grounding: Grounding) -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(opened.vocabulary, CONFIG, grounding=grounding).eval()
    assert made.hint is not None
    torch.nn.init.normal_(made.hint.out.weight, std=0.5)
    return made


@pytest.fixture(scope="module")
def feed(opened: Store, grounding: Grounding, model: WorldModel) -> Feed:
    data = StreamDataset(
        opened.path, LAYOUT, length=CONFIG.length, batch_size=2, episodes=("film-01",), shuffle=False, rank=0, world=1
    )
    steps = Steps(grounding, [opened.read("film-01")], data.episodes)
    return Feed(data, model, CONFIG, Share(), steps)


def told(inputs: Inputs) -> Foretold:
    assert inputs.foretold is not None
    return inputs.foretold


def test_training_and_simulation_foretell_the_same(opened: Store, grounding: Grounding, feed: Feed) -> None:
    stream = opened.read("film-01")
    foreteller = Foreteller(grounding.space, lambda: stream)
    found = 0
    for window in range(len(feed.data.windows)):
        batch = feed.data.batch(0, [window])
        given = told(feed.inputs(0, [window]))
        inside = batch["document"][0] >= 0
        pairs = zip(batch["role"][0][inside].tolist(), batch["time_ns"][0][inside].tolist(), strict=True)
        steps = [foreteller.step(role, time_ns) for role, time_ns in pairs]
        alone = foreteller.foretold(steps)
        assert torch.equal(alone.row[0] >= 0, given.row[0][inside] >= 0)
        for mine, its in zip(alone.row[0].tolist(), given.row[0][inside].tolist(), strict=True):
            if mine >= 0:
                assert torch.equal(alone.inputs[mine], given.inputs[its])
                found += 1
    assert found > 100


def test_nothing_of_the_state_itself_is_in_it(opened: Store, grounding: Grounding) -> None:
    stream = opened.read("film-01")
    video = stream.tracks["video"]
    step = 2
    first = int(
        np.searchsorted(video.clock.at(np.arange(video.ticks) * video.tick), grounding.space.layout.step_s * 2e9)
    )
    levels = list(video.levels)
    changed = levels[-1].codes.copy()
    changed[levels[-1].splits[first] :] = 0
    levels[-1] = replace(levels[-1], codes=changed)
    other = replace(stream, tracks={**stream.tracks, "video": replace(video, levels=tuple(levels))})
    one, two = (Foreteller(grounding.space, lambda s=s: s).foretold([step]) for s in (stream, other))
    assert torch.equal(one.inputs, two.inputs)


@pytest.fixture(scope="module")
def two(feed: Feed) -> list[int]:
    """Windows well after the first step."""
    last = len(feed.data.windows) - 1
    return [last - 2, last - 1]


def test_it_goes_into_the_elements_that_say_the_state(feed: Feed, model: WorldModel, two: list[int]) -> None:
    given = feed.inputs(0, two)
    assert model.hint is not None and bool((told(given).row >= 0).any())
    with torch.no_grad():
        with_it = model.elements(given)
        without = model.elements(Inputs(**{**vars(given), "foretold": None}))
    moved = (with_it != without).any(-1)
    assert torch.equal(moved, told(given).row >= 0)
    assert set(given.role[moved].unique().tolist()) <= set(FORETOLD)


def test_batches_of_it(feed: Feed, model: WorldModel, two: list[int]) -> None:
    both = feed.inputs(0, two)
    joined = concatenated([feed.inputs(0, [k]) for k in two])
    with torch.no_grad():
        expected = model.elements(both)
        assert torch.allclose(model.elements(joined), expected, atol=1e-6)
        assert torch.allclose(model.elements(both.rows(1, 2)), expected[1:], atol=1e-6)
    blind = told(both).without_actions(torch.tensor([True, False]))
    rows = [blind.row[k][blind.row[k] >= 0] for k in (0, 1)]
    assert not blind.inputs[rows[0]][:, blind.actions].any()
    assert torch.equal(blind.inputs[rows[1]], told(both).inputs[rows[1]])


def test_a_simulation_uses_it(opened: Store, model: WorldModel) -> None:
    stream, drawn = opened.read("film-01"), 0
    for seed in range(6):  # the switch of a model that has learned nothing ends most units at once
        config = SimulateConfig(temperature=0, seed=seed)
        made = Simulation(model, LAYOUT, stream, 400_000_000, 1_000_000_000, config=config, context=128)
        steps = list(made)
        assert len(steps) == made.steps and any(e.told is not None for e in made._elements)
        drawn += sum(s.drawn for s in steps)
    assert drawn


@pytest.mark.parametrize("objective", ["latent", "ema", "vicreg", "sigreg"])
def test_the_family_of_latent_objectives(opened: Store, grounding: Grounding, feed: Feed, objective: str) -> None:
    """Only the prediction of codes moves the backbone; what decodes looks on; collapse is measured; runs go on."""
    torch.manual_seed(0)
    config = replace(CONFIG, objective=objective, length=384, batch=4, learning_rate=3e-3, warmup=1)
    model = WorldModel(opened.vocabulary, config, grounding=grounding)
    trainer = Trainer(model, config, feed.data, steps=feed.steps)
    found = []
    for _ in range(3):
        found.append(trainer.advance())
    assert all(np.isfinite(f["latent_loss"]) for f in found) and found[0]["latent_loss"] != found[1]["latent_loss"]
    with_ends = feed.inputs(0, range(len(feed.data.windows)))
    model.zero_grad()
    losses = model(with_ends, seed=(0, 1))
    (losses.nll + losses.ground).backward(retain_graph=True)
    assert model.backbone.blocks[0].up.weight.grad is None and model.switch.gate.weight.grad is not None
    losses.latent.backward()
    assert model.backbone.blocks[0].up.weight.grad is not None
    states: list = []
    measure(model, [with_ends], states)
    report = collapse_of(model, *joined(states))
    assert 0 <= report["effective_rank"] <= report["of"] and report["probe_r2_now"] <= 1
    again = WorldModel(opened.vocabulary, config, grounding=grounding)
    later = Trainer(again, config, feed.data, steps=feed.steps)
    later.load(trainer.tensors(), trainer.step)
    one, two = trainer.advance(), later.advance()
    assert one == two
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    trainer.feed.close(), later.feed.close()


def test_a_latent_objective_needs_observations(opened: Store) -> None:
    with pytest.raises(OptionError, match="there are none"):
        WorldModel(opened.vocabulary, replace(CONFIG, objective="latent"))
    with pytest.raises(OptionError, match="generative"):
        replace(CONFIG, objective="jepa")


@pytest.mark.parametrize("align", ["frozen", "joint"])
def test_what_the_loss_of_observations_moves(
    opened: Store, grounding: Grounding, feed: Feed, two: list[int], align: str
) -> None:
    torch.manual_seed(0)
    model = WorldModel(opened.vocabulary, replace(CONFIG, align=align), grounding=grounding)
    assert model.grounded is not None
    torch.nn.init.normal_(model.grounded.outer.weight)  # nought at first: nothing comes through it
    model(feed.inputs(0, two)).ground.backward()
    assert float(model.grounded.outer.weight.grad.abs().sum()) > 0
    moved = [p.grad is not None and bool(p.grad.any()) for p in model.backbone.parameters()]
    assert any(moved) == (align == "joint")
