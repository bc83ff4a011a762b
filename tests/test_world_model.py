"""The world model: causality, caches, packing, probabilities, and runs that go on as if never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pantok.commands import cli
from pantok.errors import DivergedError, OptionError
from pantok.formats.runs import RunFolder
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary
from pantok.layout import ROLES
from pantok.loader import StreamDataset
from pantok.world_model.backbone import Backbone, BackboneConfig, Cache
from pantok.world_model.config import PRESETS, TrainConfig
from pantok.world_model.inputs import Inputs, concatenated, inputs_of, level_keys, ordinals
from pantok.world_model.measure import measure
from pantok.world_model.model import WorldModel
from pantok.world_model.trainer import Feed, Share, Trainer, learning_rate, steps_left
from tests.conftest import Outcome

SMALL = BackboneConfig(width=32, layers=2, heads=4, kv_heads=2)
CONFIG = TrainConfig(
    length=96, batch=4, steps=30, warmup=3, latents=0, evaluate_every=10, evaluate_windows=8, backbone=SMALL
)
TOML = """
length = 64
batch = 4
steps = 12
warmup = 2
latents = 0
evaluate_every = 4
evaluate_windows = 4
[backbone]
width = 16
layers = 1
heads = 2
kv_heads = 1
"""


@pytest.fixture(scope="module")
def data(store: Path) -> StreamDataset:
    return StreamDataset(store, length=CONFIG.length, batch_size=4, seed=0, rank=0, world=1)


@pytest.fixture(scope="module")
def model(data: StreamDataset) -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(data.vocabulary, CONFIG).eval()


def inputs(data: StreamDataset, windows: list[int], epoch: int = 0) -> Inputs:
    return inputs_of(data.batch(epoch, windows), level_keys(data.vocabulary), {}, 0)


def times(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.arange(length).expand(batch, -1)
    return index, index.double() * 0.03 + 2000.0


@pytest.mark.parametrize("parts", [[1] * 24, [24], [7, 1, 9, 1, 6]])
def test_cached_is_uncached(parts: list[int]) -> None:
    torch.manual_seed(1)
    backbone, x, (index, time_s) = Backbone(SMALL).eval(), torch.randn(3, 24, 32), times(3, 24)
    whole = backbone(x, index, time_s)
    cache, at, found = Cache(SMALL, 3, 24, x), 0, []
    for count in parts:
        span = slice(at, at + count)
        found.append(backbone(x[:, span], index[:, span], time_s[:, span], cache=cache))
        at += count
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)
    with pytest.raises(ValueError, match="cache"):
        backbone(x[:, :1], index[:, :1], time_s[:, :1], cache=cache)


def test_a_cache_forgets_and_repeats() -> None:
    torch.manual_seed(2)
    backbone, x, (index, time_s) = Backbone(SMALL).eval(), torch.randn(2, 12, 32), times(2, 12)
    cache = Cache(SMALL, 2, 12, x)
    backbone(x, index, time_s, cache=cache)
    cache.rewind(8)
    again = backbone(x[:, 8:], index[:, 8:], time_s[:, 8:], cache=cache)
    assert torch.allclose(again, backbone(x, index, time_s)[:, 8:], atol=1e-5)
    cache.rewind(8)
    three = cache.repeated(3)
    rows = [t[:, 8:].repeat_interleave(3, 0) for t in (x, index, time_s)]
    assert torch.allclose(backbone(*rows, cache=three), again.repeat_interleave(3, 0), atol=1e-5)


def test_the_future_leaves_the_past_as_it_was(data: StreamDataset, model: WorldModel) -> None:
    given = inputs(data, [0, 1, 2])
    with torch.no_grad():
        before = model.hidden(given)
        ids = given.ids.clone()
        ids[:, 60:] = ids[:, 60:].flip(1)
        after = model.hidden(Inputs(**{**vars(given), "ids": ids}))
    assert torch.equal(before[:, :60], after[:, :60])
    assert not torch.equal(before[:, 60:], after[:, 60:])


def test_packed_is_apart(data: StreamDataset, model: WorldModel) -> None:
    """Two documents in one window get the hidden states that each gets alone."""
    given = inputs(data, [0])
    cut = 40
    index, time_s, document = given.index.clone(), given.time_s.clone(), given.document.clone()
    index[:, cut:] -= index[:, cut : cut + 1].clone()
    time_s[:, cut:] -= time_s[:, cut : cut + 1].clone()
    document[:, :cut], document[:, cut:] = 0, 1
    packed = Inputs(**{**vars(given), "index": index, "time_s": time_s, "document": document})
    with torch.no_grad():
        both = model.hidden(packed)
        for span in (slice(0, cut), slice(cut, None)):
            alone = {k: v[:, span] for k, v in vars(packed).items() if torch.is_tensor(v) and v.ndim == 2}
            apart = model.hidden(Inputs(**alone, latents={}, window=given.window))
            assert torch.allclose(both[:, span], apart, atol=1e-5)


def test_probabilities_sum_to_one(data: StreamDataset, model: WorldModel) -> None:
    hidden = model.hidden(inputs(data, [0]))[0, 5:7]
    every = torch.arange(data.vocabulary.size)
    with torch.no_grad():
        for row in hidden:
            total = sum(model.switch.log_prob(row.expand(len(every), -1), every, model.kind_of[every])).exp().sum()
            assert abs(float(total) - 1) < 1e-4


def test_what_is_predicted(data: StreamDataset) -> None:
    total = list(range(len(data.windows)))
    given, batch = inputs(data, total), data.batch(0, total)
    keys = level_keys(data.vocabulary)
    action = given.role == ROLES.index("action")
    assert action.any() and not given.predict[action].any()
    assert not given.predict[:, 0].any() and not given.predict[given.document < 0].any()
    first = given.index == 0
    assert torch.equal(given.predict, ~action & ~first & batch["loss_mask"])
    cloning = inputs_of(batch, keys, {}, 0, action_loss=True)
    assert cloning.predict[action & ~first].all()
    hidden = inputs_of(batch, keys, {}, 0, action_dropout=1.0, hidden_id=data.vocabulary.control("gap"))
    assert (hidden.ids[action] == data.vocabulary.control("gap")).any()
    assert torch.equal(hidden.ids[~action], given.ids[~action])
    both = concatenated([given.rows(0, 1), given.rows(1, len(total))])
    others = ("latents", "ends", "foretold", "track", "tracks")
    assert all(torch.equal(getattr(both, k), v) for k, v in vars(given).items() if k not in others)


@pytest.fixture(scope="module")
def spoken(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory, pantok) -> Path:
    """Sentences that say what comes next: after `up` always `down`, after `left` always `right`."""
    folder, rng = tmp_path_factory.mktemp("words"), np.random.default_rng(0)
    for name in ("one", "two"):
        said = [("it goes up and then down. ", "it goes left and then right. ")[k] for k in rng.integers(0, 2, 300)]
        (folder / f"{name}.txt").write_text("".join(said))
    done = pantok("encode", folder, "--vocab", vocabulary, "-o", folder / "words.zarr")
    assert done.code == 0, done.err
    return folder / "words.zarr"


@pytest.fixture(scope="module")
def words(spoken: Path) -> StreamDataset:
    return StreamDataset(spoken, length=96, batch_size=4, rank=0, world=1)


def test_ordinals() -> None:
    keys = torch.tensor([[3, 3, 3, 5, 3, 3, 0, 0]])
    assert ordinals(keys).tolist() == [[0, 1, 2, 0, 0, 1, 0, 1]]


def test_training_learns(words: StreamDataset) -> None:
    """Far below the frequencies of codes, where it starts; what it knows is their order, so shuffled ones cost more."""
    torch.manual_seed(0)
    config = replace(CONFIG, steps=100, ema=0.9)
    trainer = Trainer(WorldModel(words.vocabulary, config), config, words)
    trainer.begin()
    windows = [inputs(words, list(range(8)))]
    start = measure(trainer.model, windows)
    for _ in steps_left(trainer):
        pass
    learned = measure(trainer.averaged(), windows)
    rng = np.random.default_rng(0)
    ids = windows[0].ids.clone()
    for row in range(len(ids)):
        where = torch.nonzero(windows[0].predict[row])[:, 0].numpy()
        ids[row, where] = ids[row, rng.permutation(where)]
    shuffled = measure(trainer.averaged(), [Inputs(**{**vars(windows[0]), "ids": ids})])
    assert learned.bits < 0.5 * start.bits
    assert learned.bits < 0.4 * shuffled.bits


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_bit_for_bit(data: StreamDataset, optimizer: str, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=6, optimizer=optimizer)

    def trainer() -> Trainer:
        torch.manual_seed(0)
        return Trainer(WorldModel(data.vocabulary, config), config, data)

    whole, first = trainer(), trainer()
    curve = [whole.advance()["loss"] for _ in range(6)]
    again = [first.advance()["loss"] for _ in range(3)]
    folder = RunFolder(tmp_path / "run")
    folder.create({}, data.vocabulary)
    folder.save(first.step, first.tensors(), {}, best=True)
    second = trainer()
    tensors, state = folder.load("best", ("model", "optimizer", "average"))
    second.load(tensors, state["step"])
    again += [second.advance()["loss"] for _ in range(3)]
    assert again == curve
    for name, value in whole.tensors()["average"].items():
        assert np.array_equal(value, second.tensors()["average"][name]), name


def test_parts_and_ranks_change_nothing(data: StreamDataset) -> None:
    """The windows of two ranks are together those of one; a batch in two parts gives the same step."""
    torch.manual_seed(0)
    model = WorldModel(data.vocabulary, CONFIG)
    alone = Feed(data, model, CONFIG, Share()).step(5)
    ranks = [Feed(data, model, CONFIG, Share(r, 2)).step(5) for r in (0, 1)]
    assert sorted(alone.window.tolist()) == sorted(w for f in ranks for w in f.window.tolist())
    curves = []
    for accumulate in (1, 2):
        config = replace(CONFIG, accumulate=accumulate)
        torch.manual_seed(0)
        trainer = Trainer(WorldModel(data.vocabulary, config), config, data)
        curves.append([trainer.advance()["loss"] for _ in range(4)])
    assert np.allclose(*curves, atol=1e-4)
    with pytest.raises(OptionError, match="divide"):
        Trainer(model, replace(CONFIG, accumulate=3), data)


def test_the_rate_of_learning() -> None:
    config = TrainConfig(steps=100, warmup=10, decay=0.2, learning_rate=1.0)
    rates = [learning_rate(k, config) for k in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[79] == 1.0 and rates[99] == pytest.approx(0.05)


def test_settings(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    config = TrainConfig.of("small", tmp_path / "c.toml", steps=7, seed=None)
    assert (config.steps, config.length, config.backbone.width) == (7, 64, 16)
    assert config.ema == PRESETS["small"].ema and config.backbone.rope_base == 10_000
    nan = float("nan")
    for wrong, message in (
        ({"steps": 0}, "too small"), ({"latents": 64}, "0 to 32"), ({"optimizer": "sgd"}, "adamw"),
        ({"learning_rate": -1.0}, "above 0"), ({"learning_rate": nan}, "above 0"), ({"flow": nan}, "0 or more"),
        ({"seed": -1}, "at least 0"), ({"evaluate_windows": 0}, "at least 1"), ({"warmup": -4}, "at least 0"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=message):
            TrainConfig.of("tiny", None, **wrong)
    with pytest.raises(OptionError, match="at least 1"):
        BackboneConfig(layers=0)
    with pytest.raises(OptionError, match="tiny, small"):
        TrainConfig.of("huge")


def losses(run: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r.get("loss", r.get("bits_per_second"))) for r in lines]


def test_killed_and_shared_runs_give_the_same_curve(store: Path, tmp_path: Path, pantok) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    options = ["--config", tmp_path / "c.toml", "-q"]
    done = pantok("train-wm", store, "-o", tmp_path / "whole", *options, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["step"] == 12 and document["held_out_measured"]["bits_per_second"] > 0
    assert not set(document["held_out"]) - set(Store.open(store).episodes) and document["held_out"]

    command = [sys.executable, "-m", "pantok", "train-wm", store, "-o", tmp_path / "killed", *options]
    process = subprocess.Popen([str(c) for c in command])
    while not (tmp_path / "killed" / "last").exists():
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pantok("train-wm", store, "-o", tmp_path / "killed", *options).code == 0
    whole, killed = (tmp_path / name / "last" / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29533"]
    shared = [*torchrun, "-m", "pantok", "train-wm", store, "-o", tmp_path / "shared", *options]
    subprocess.run([str(c) for c in shared], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    for (step, alone), (same, two) in zip(losses(tmp_path / "whole"), losses(tmp_path / "shared"), strict=True):
        assert step == same and two == pytest.approx(alone, rel=1e-4)


def here(*args: object) -> Outcome:
    """The command line in this process."""
    done = CliRunner().invoke(cli.pantok, [str(a) for a in args])
    return Outcome(done.exit_code, done.stdout, done.stderr)


def test_a_run_says_what_is_wrong(store: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    run = ["train-wm", store, "-o", tmp_path / "run", "--config", tmp_path / "c.toml"]
    done = here(*run, "-n", "--json")
    assert done.code == 0 and json.loads(done.out)["parameters"] > 0 and not (tmp_path / "run").exists()
    assert here(*run, "--steps", 2, "-q").code == 0
    shutil.rmtree(tmp_path / "run" / "observations")  # as of a run that was killed when it had hardly begun
    (tmp_path / "run" / "last").unlink()
    assert here(*run, "--steps", 2, "-q").code == 0 and (tmp_path / "run" / "observations").is_dir()
    other = here(*run, "--steps", 3, "-q")
    assert other.code == 2 and "steps: is 2 in the run that is there, not 3" in other.err
    nowhere = here("train-wm", tmp_path / "none.zarr", "-o", tmp_path / "x")
    assert nowhere.code == 1 and nowhere.err.startswith("Error: ") and nowhere.err.count("\n") == 1
    for device in ("gpu9", "meta", "cuda:99"):
        wrong = here(*run, "-f", "--device", device)
        assert wrong.code == 2 and "no such device" in wrong.err


def kept(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_force_replaces_a_run_alone(store: Path, vocabulary: Path, tmp_path: Path) -> None:
    """A store has a `vocabulary`, a language model a `config.json`: neither is a run. And what was asked for has to be
    there before the run that is there goes."""
    (tmp_path / "c.toml").write_text(TOML)
    options = ["--config", tmp_path / "c.toml", "--steps", 1, "-q"]
    shutil.copytree(store, tmp_path / "s.zarr")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"model_type": "llama"}')
    for name in ("s.zarr", "llm"):
        before = kept(tmp_path / name)
        done = here("train-wm", store, "-o", tmp_path / name, *options, "-f")
        assert done.code == 1 and "is not a run, so it is not replaced" in done.err
        assert kept(tmp_path / name) == before
    folder = RunFolder(tmp_path / "run")
    folder.create({}, load_vocabulary(vocabulary))
    before = kept(folder.path)
    for wrong in ([tmp_path / "none.zarr"], [store, "--vocab", tmp_path / "none.vocab"], [store, "--layout", "none"]):
        assert here("train-wm", *wrong, "-o", folder.path, *options, "-f").code != 0
    assert kept(folder.path) == before
    (folder.path / "config.json").unlink()  # as a kill leaves one that was being begun
    folder.clear()
    assert not kept(folder.path)


def test_words_without_times_cost_no_bits_a_second(spoken: Path, tmp_path: Path) -> None:
    """No time passes in text without times: bits an id are said, and nothing is divided by nought seconds."""
    (tmp_path / "c.toml").write_text(TOML)
    done = here("train-wm", spoken, "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "--steps", 2, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["held_out_measured"]
    low, high = found["bits_per_element_95"]
    assert found["bits_per_second"] is None and low <= found["bits_per_element"] <= high
    said = here("eval", tmp_path / "run", "--points", 0)
    assert said.code == 0 and "bits an id (95%" in said.err and "bits a second of experience" not in said.err
    shown = here("info", tmp_path / "run")
    assert shown.code == 0 and "a run of train-wm" in shown.out and "step-00000002" in shown.out
    assert json.loads(here("info", tmp_path / "run", "--json").out)["checkpoints"] == ["step-00000002"]
    score = here("vocab", "score", spoken / "vocabulary", "--on", spoken)
    assert score.code == 1 and "last no time, so they have no bits a second" in score.err
    done = here("vocab", "compose", spoken / "vocabulary", "--on", spoken, "-o", tmp_path / "c.vocab", "--force")
    assert done.code == 1 and "words stay as their text model has them" in done.err


def test_a_training_that_diverges_says_so(data: StreamDataset) -> None:
    trainer = Trainer(WorldModel(data.vocabulary, CONFIG), replace(CONFIG, learning_rate=1e30, warmup=0), data)
    with pytest.raises(DivergedError, match=r"step \d: the loss is no longer finite"):
        list(steps_left(trainer))
