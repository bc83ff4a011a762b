"""Training in stages: which steps are whose, what moves in each, and a run of all of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pantok.errors import OptionError
from pantok.formats.runs import RunFolder
from pantok.loader import StreamDataset
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.config import TrainConfig
from pantok.world_model.model import WorldModel
from pantok.world_model.stages import APART, NAMES, Stage, stages_of
from pantok.world_model.trainer import Trainer
from tests.conftest import run_pantok

SMALL = BackboneConfig(width=16, layers=1, heads=2, kv_heads=1)


@given(
    st.dictionaries(st.sampled_from(NAMES), st.floats(0, 5)),
    st.integers(1, 1000),
    st.fixed_dictionaries({"text": st.booleans(), "latents": st.booleans()}),
)
def test_every_step_is_of_one_stage(shares: dict[str, float], steps: int, having: dict[str, bool]) -> None:
    if shares and sum(shares.values()) <= 0:
        with pytest.raises(OptionError, match="no shares"):
            stages_of(shares, steps, having)
        return
    found = stages_of(shares, steps, having)
    assert found[0].first == 0 and found[-1].stop == steps
    assert all(a.stop == b.first and NAMES.index(a.name) < NAMES.index(b.name) for a, b in pairwise(found))
    assert not [s for s in found if not having.get(s.name, True)]


def test_shares_that_are_none_are_refused() -> None:
    with pytest.raises(OptionError, match="known: text, levels"):
        TrainConfig(stages={"words": 1.0})
    with pytest.raises(OptionError, match="no shares"):
        TrainConfig(stages={"levels": -1.0, "joint": 2.0})
    assert stages_of({}, 7, {}) == (Stage("joint", 0, 7),)
    assert [(s.name, s.stop) for s in stages_of(APART, 100, {"text": False})] == [
        ("levels", 39), ("latents", 50), ("joint", 100),
    ]  # fmt: skip


def test_a_stage_moves_its_part_alone(store: Path) -> None:
    data = StreamDataset(store, "default", length=64, batch_size=4, rank=0, world=1)
    words = StreamDataset(store, {"tracks": ("text",)}, length=64, batch_size=4, rank=0, world=1)
    config = TrainConfig(
        length=64, batch=4, steps=4, align="none", hint=0, backbone=SMALL, stages=dict.fromkeys(NAMES, 1.0)
    )
    torch.manual_seed(0)
    model = WorldModel(data.vocabulary, config, {"video": 4}, {"video": "video"})
    trainer = Trainer(model, config, data, words=words)
    trainer.begin()
    moved = {}
    for name in NAMES:
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        record = trainer.advance()
        assert record["stage"] == name
        moved[name] = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    trainer.close()
    assert not any(n.startswith("flows.") for n in moved["text"] | moved["levels"])
    assert any(n.startswith("backbone.") for n in moved["text"]) and any(
        n.startswith("switch.") for n in moved["levels"]
    )
    assert all(n.startswith("flows.") for n in moved["latents"])


def test_one_command_runs_all_stages_and_goes_on(store: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        "length = 64\nbatch = 4\nwarmup = 2\nlatents = 0\nevaluate_every = 5\nevaluate_windows = 2\n"
        "[stages]\ntext = 0.2\nlevels = 0.4\njoint = 0.4\n[backbone]\nwidth = 16\nlayers = 1\nheads = 2\nkv_heads = 1\n"
    )
    line = ["train-wm", store, "-o", tmp_path / "run", "--config", config, "--steps", 10]
    done = run_pantok(*line)
    assert done.code == 0, done.err
    assert "text to step 2, levels to step 6, joint to step 10" in done.err
    assert {r["stage"] for r in RunFolder(tmp_path / "run").metrics() if "stage" in r} == {"joint"}
    other = run_pantok(*line, "--staged")
    assert other.code and "stages" in other.err
