"""Runs that go on under a vocabulary that grew: nothing jumps, what is new is learned, and what cannot be is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from pantok.commands import cli
from pantok.commands.train_wm_parent import Parent
from pantok.errors import VocabularyError
from pantok.evolve import codebooks
from pantok.evolve.compositions import Compositions, with_compositions
from pantok.evolve.lineage import translated
from pantok.formats.runs import RunFolder
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.loader import StreamDataset
from pantok.vocabulary import Vocabulary
from pantok.world_model import growth
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.config import TrainConfig
from pantok.world_model.inputs import Inputs, inputs_of, level_keys
from pantok.world_model.model import WorldModel
from pantok.world_model.observations import ObservationSpace
from pantok.world_model.trainer import Trainer

CONFIG = TrainConfig(
    length=96, batch=4, steps=40, warmup=3, latents=0, ema=0.9, learning_rate=5e-3,
    backbone=BackboneConfig(width=32, layers=2, heads=4, kv_heads=2),
)  # fmt: skip


def later(vocabulary: Vocabulary, seed: int = 0) -> Vocabulary:
    """Two levels with more codes, one of them twice."""
    rng = np.random.default_rng(seed)
    for modality, name, more in (("audio", "shape.1", 12), ("video", "coarse", 6), ("audio", "shape.1", 5)):
        state = vocabulary.states[modality]
        level = codebooks.level_of(state, name)
        tensor = np.asarray(state.tensors[codebooks.tensor_of(state, level) or ""])
        rows = tensor[rng.integers(0, len(tensor), more)][:, rng.permutation(tensor.shape[1])]
        others = {n: np.asarray(state.tensors[n])[:more] for n in codebooks.beside(state, level)}
        vocabulary = vocabulary.with_state(codebooks.appended(state, level, rows, 0, others))
    return vocabulary


def composed(vocabulary: Vocabulary, data: StreamDataset) -> Vocabulary:
    """The pairs of codes of a level that are met most often, and a pair made of one of them, as ids."""
    given = inputs_of(data.batch(0, list(range(len(data.windows)))), level_keys(data.vocabulary), {}, 0)
    keys, ids = level_keys(vocabulary), given.ids.flatten()
    pairs = torch.stack([ids[:-1], ids[1:]], 1)[(keys[ids[:-1]] == keys[ids[1:]]) & (keys[ids[:-1]] > 1)]
    found, counts = pairs.unique(dim=0, return_counts=True)
    parts = found[counts.argsort(descending=True)[:6]].numpy()
    named = np.arange(vocabulary.size, vocabulary.size + 7)
    parts = np.concatenate([parts, [[named[0], parts[0, 1]]]])
    return with_compositions(vocabulary, Compositions(named, parts, "level"))


@pytest.fixture(scope="module")
def data(store: Path) -> StreamDataset:
    return StreamDataset(store, length=CONFIG.length, batch_size=4, seed=0, rank=0, world=1)


@pytest.fixture(scope="module")
def trained(data: StreamDataset) -> Trainer:
    torch.manual_seed(0)
    trainer = Trainer(WorldModel(data.vocabulary, CONFIG), CONFIG, data)
    trainer.begin()
    for _ in range(12):
        trainer.advance()
    return trainer


def gone_on(trained: Trainer, store: Path, vocabulary: Vocabulary) -> Trainer:
    torch.manual_seed(1)
    data = StreamDataset(store, length=CONFIG.length, batch_size=4, vocabulary=vocabulary, seed=0, rank=0, world=1)
    trainer = Trainer(WorldModel(vocabulary, CONFIG), CONFIG, data)
    counts = trainer.begin()
    growth.go_on(trainer, counts, trained.model, trained.places, trained.tensors(), trained.step)
    return trainer


def met(model: WorldModel) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(model.vocabulary.size), np.ones(len(model.kinds.names))


def every(data: StreamDataset) -> Inputs:
    return inputs_of(data.batch(0, list(range(len(data.windows)))), level_keys(data.vocabulary), {}, 0)


def test_nothing_jumps(trained: Trainer, store: Path, data: StreamDataset) -> None:
    """To 1e-6: hidden states of old ids, codes given their kind, and the sum of a kind and its children."""
    old, given = trained.model, every(data)
    new = gone_on(trained, store, composed(later(data.vocabulary), data))
    assert new.step == 0 and new.before == trained.step
    kinds = len(old.kinds.names)
    names = [(e.modality, e.level) for e in new.model.vocabulary.extents]
    for before, after in ((old, new.model), (trained.averaged(), new.averaged())):
        before.eval(), after.eval()
        with torch.no_grad():
            a, b = before.hidden(given)[given.predict], after.hidden(given)[given.predict]
            assert torch.allclose(a, b, atol=1e-6)
            ids, of = given.ids[given.predict], before.kinds_of(given)[given.predict]
            assert torch.allclose(
                before.switch.log_prob(a, ids, of)[1], after.switch.log_prob(b, ids, of)[1], atol=2e-6
            )
            gate, now = before.switch.log_gate(a).exp(), after.switch.log_gate(b).exp()
            assert torch.allclose(now.sum(1), torch.ones(len(now)), atol=1e-5)
        counts = Trainer(WorldModel(new.model.vocabulary, CONFIG), CONFIG, new.feed.data).begin()
        parents = growth.Growth(old, new.model, *(c.numpy() for c in counts))._parents
        summed = now[:, :kinds].clone()
        for number, parent in enumerate(parents):
            summed[:, parent] += now[:, kinds + number]
        assert float((summed - gate).abs().max()) < 1e-6
        alone = [k for k in range(kinds) if k not in parents]
        assert float((now[:, alone] - gate[:, alone]).abs().max()) < 1e-6 and len(alone) < kinds
        grown = [k for k in range(kinds, len(names)) if names[k] in names[:kinds]]
        assert [names[parents[k - kinds]] for k in grown] == [names[k] for k in grown] and len(grown) == 3


def test_old_recordings_cost_what_they_did(trained: Trainer, store: Path, data: StreamDataset) -> None:
    """No new code is met in them, so their share is small: all bits together rise by less than a thousandth."""
    new = gone_on(trained, store, later(data.vocabulary))
    given = every(data)
    with torch.no_grad():
        before, after = (m.eval().log_probs(given)[given.predict].double() for m in (trained.model, new.model))
    assert 0 <= float(before.sum() - after.sum()) < 1e-3 * float(-before.sum())
    # With nothing new there is nothing to share: the same to the last bit, and so is the next step.
    same = gone_on(trained, store, data.vocabulary)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, same.model.state_dict()[name]), name


def test_new_rows_are_their_parents(trained: Trainer, store: Path, data: StreamDataset) -> None:
    vocabulary = composed(later(data.vocabulary), data)
    new = gone_on(trained, store, vocabulary)
    moved = growth.Growth(trained.model, new.model, *met(new.model)).moved
    out, size = new.model.switch.table().detach(), data.vocabulary.size
    assert torch.allclose(out[size:], out[torch.from_numpy(moved.parent)], atol=1e-6)
    table = new.model.embed().detach()
    for number, (ids, weights) in enumerate(moved.inputs):
        wanted = (table[torch.from_numpy(ids)] * torch.from_numpy(weights).float()[:, None]).sum(0)
        assert torch.allclose(table[size + number], wanted, atol=1e-6)
    states = [o.state_dict()["state"] for o in new._optimizers]
    place = {name: (k, p) for k, names in enumerate(new.places) for p, name in enumerate(names)}
    old = {name: (k, p) for k, names in enumerate(trained.places) for p, name in enumerate(names)}
    for name in ("switch.table.weight", "embed.weight", "switch.bias"):
        k, p = place[name]
        for moment in ("exp_avg", "exp_avg_sq"):
            found = states[k][p][moment]
            was = trained._optimizers[old[name][0]].state_dict()["state"][old[name][1]][moment]
            assert torch.equal(found[:size], was) and torch.equal(found[size:], found[torch.from_numpy(moved.parent)])
        assert float(states[k][p]["step"]) == trained.step


def test_training_goes_on(trained: Trainer, store: Path, data: StreamDataset) -> None:
    """The larger model keeps learning: ahead of one that starts anew after as many steps, and of itself as it was. All
    of the same batches, which differ in how hard they are."""
    vocabulary = composed(later(data.vocabulary), data)
    new, still = (gone_on(trained, store, vocabulary) for _ in range(2))
    still.config = replace(still.config, learning_rate=1e-12)
    torch.manual_seed(1)
    anew = Trainer(WorldModel(vocabulary, CONFIG), CONFIG, new.feed.data)
    anew.begin()
    curves = [[t.advance()["loss"] for _ in range(8)] for t in (new, anew, still)]
    assert np.mean(curves[0]) < 0.97 * np.mean(curves[1])
    assert np.mean(curves[0][4:]) < np.mean(curves[2][4:])


def test_ids_that_would_move_are_refused(trained: Trainer, store: Path, vocabulary: Path) -> None:
    mine = load_vocabulary(vocabulary)
    other = Vocabulary.build({m: s for m, s in mine.states.items() if m != "text"})
    model = WorldModel(other, replace(CONFIG, code_features=0))
    with pytest.raises(VocabularyError, match="does not begin"):
        growth.Growth(trained.model, model, *met(model))


TOML = """
length = 96
batch = 4
steps = 6
warmup = 2
latents = 0
evaluate_every = 3
evaluate_windows = 4
[backbone]
width = 16
layers = 1
heads = 2
kv_heads = 1
"""


def here(*args: object) -> Result:
    return CliRunner().invoke(cli.pantok, [str(a) for a in args])


def test_the_commands(store: Path, data: StreamDataset, tmp_path: Path) -> None:
    """An old store under a grown and composed vocabulary: goes on, resumes, is measured and simulates."""
    (tmp_path / "c.toml").write_text(TOML)
    done = here("train-wm", store, "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "--steps", 20, "-q")
    assert done.exit_code == 0, done.stderr
    vocabulary = composed(later(data.vocabulary), data)
    save_vocabulary(vocabulary, tmp_path / "later.vocab")
    more = ["--from-run", tmp_path / "run", "--vocab", tmp_path / "later.vocab"]
    go_on = ["train-wm", store, "-o", tmp_path / "run2", *more, "--steps", 6, "--json"]
    done = here(*go_on)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["vocabulary_id"] == vocabulary.id and document["from_run"]["step"] == 20
    first, second = (RunFolder(tmp_path / name) for name in ("run", "run2"))
    assert second.config["held_out"] == first.config["held_out"]
    assert list(second.metrics())[-1]["step"] == 6
    held, parent = set(first.config["held_out"]), Parent(tmp_path / "run")
    names = (*Store.open(store).episodes, "new-1", "new-2", "new-3")
    found = set(parent.held_out(names, 0.5))
    assert held and held <= found and found - held <= {"new-1", "new-2", "new-3"} and found - held
    assert here(*go_on).exit_code == 0, "the same command goes on"

    spec = f"{store}:film-01@0.4s"
    done = here("simulate", tmp_path / "run2", "--from", spec, "--for", "0.3s", "-o", tmp_path / "f.mp4", "-q")
    assert done.exit_code == 0, done.stderr
    done = here("eval", tmp_path / "run2", "--on", store, "--points", 1, "--horizon", 0.2, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    assert "composition.0.composed" in json.loads(done.stdout)["by_kind"]

    for wrong, message in (
        (["train-wm", store, "-o", tmp_path / "run2", "--from-run", tmp_path / "run3"], "does not go on from"),
        (["train-wm", store, "-o", tmp_path / "run", "--from-run", tmp_path / "run", "-f"], "name another -o"),
        (["train-wm", store, "-o", tmp_path / "x", *more, "--latents", 4], "train latents: is 0 in"),
        (["train-wm", store, "-o", tmp_path / "run", "--vocab", tmp_path / "later.vocab"], "--from-run"),
        (["train-wm", store, "-o", tmp_path / "x", "--from-run", tmp_path / "run2", "--vocab",
          tmp_path / "run" / "vocabulary"], "did not grow out of it"),
    ):  # fmt: skip
        failed = here(*wrong)
        assert failed.exit_code in (1, 2) and message in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr


def test_a_store_that_grew(store: Path, data: StreamDataset, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    shutil.copytree(store, tmp_path / "home.zarr")
    train = ["train-wm", tmp_path / "home.zarr", "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "-q"]
    assert here(*train).exit_code == 0
    opened = Store.open(tmp_path / "home.zarr")
    assert opened.extend(later(data.vocabulary), [])
    for failed in (here(*train), here("eval", tmp_path / "run", "--on", tmp_path / "home.zarr")):
        assert failed.exit_code == 1 and failed.stderr.count("\n") == 1
        assert "has grown to vocabulary" in failed.stderr and f"--from-run {tmp_path / 'run'}" in failed.stderr
    done = here(
        "train-wm", tmp_path / "home.zarr", "-o", tmp_path / "run2", "--from-run", tmp_path / "run", "--steps", 2
    )
    assert done.exit_code == 0, done.stderr
    assert "23 ids more" in done.stderr


def test_an_old_store_under_a_later_vocabulary(store: Path, data: StreamDataset, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TOML)
    save_vocabulary(later(data.vocabulary), tmp_path / "later.vocab")
    train = ["train-wm", store, "-o", tmp_path / "run", "--config", tmp_path / "c.toml", "--steps", 2, "-q"]
    assert here(*train, "--vocab", tmp_path / "later.vocab").exit_code == 0
    assert RunFolder(tmp_path / "run").vocabulary.id == later(data.vocabulary).id
    done = here(*train)
    assert done.exit_code == 0, "the run knows its vocabulary: " + done.stderr


def test_latents_and_modalities_that_are_new(data: StreamDataset) -> None:
    """Kinds of latents stay what they were; one that is new, and a modality that is, share with the control ids."""
    states = data.vocabulary.states
    small = Vocabulary.build({m: states[m] for m in ("text", "audio")})
    large = small.with_state(states["numeric"])
    torch.manual_seed(3)
    old = WorldModel(small, CONFIG, {"audio": 3})
    new = WorldModel(large, CONFIG, {"audio": 3, "numeric": 2})
    torch.nn.init.normal_(old.switch.gate.bias)
    counts = np.zeros(large.size), np.arange(len(new.kinds.names), dtype=np.float64)
    made = growth.Growth(old, new, *counts).state({k: v.numpy() for k, v in old.state_dict().items()})
    new.load_state_dict({k: torch.from_numpy(v) for k, v in made.items()})
    hidden = torch.randn(50, CONFIG.backbone.width)
    with torch.no_grad():
        before, after = old.switch.log_gate(hidden).exp(), new.switch.log_gate(hidden).exp()
    place = {name: k for k, name in enumerate(new.kinds.names)}
    control = old.kinds.names.index("control")
    for k, name in enumerate(old.kinds.names):
        if k != control:
            assert torch.allclose(after[:, place[name]], before[:, k], atol=1e-6), name
    added = [k for name, k in place.items() if name not in old.kinds.names]
    assert {new.kinds.names[k].partition(".")[0] for k in added} == {"numeric", "latent"}
    assert torch.allclose(after[:, [place["control"], *added]].sum(1), before[:, control], atol=1e-6)


def test_muon_goes_on(trained: Trainer, store: Path, data: StreamDataset) -> None:
    config = replace(CONFIG, optimizer="muon")
    torch.manual_seed(0)
    first = Trainer(WorldModel(data.vocabulary, config), config, data)
    first.begin()
    first.advance()
    vocabulary = later(data.vocabulary)
    more = StreamDataset(store, length=CONFIG.length, batch_size=4, vocabulary=vocabulary, seed=0, rank=0, world=1)
    second = Trainer(WorldModel(vocabulary, config), config, more)
    growth.go_on(second, second.begin(), first.model, first.places, first.tensors(), first.step)
    mine, its = (t._optimizers[0].state_dict()["state"] for t in (first, second))
    assert mine.keys() == its.keys() and mine
    for place, state in mine.items():
        assert torch.equal(state["momentum_buffer"], its[place]["momentum_buffer"])
    assert np.isfinite(second.advance()["loss"])


def test_tracks_of_another_sort_are_not_observed(data: StreamDataset, store: Path) -> None:
    """A track of the same name with other channels is as if it were not there; the others are as they were."""
    opened = Store.open(store)
    stream = opened.read("film-01")
    space = ObservationSpace.fit([stream], data.vocabulary)
    name = next(t.name for t in space.tracks if t.modality == "numeric")
    numbers = stream.tracks[name]
    more = replace(numbers, channels=(*numbers.channels, "another"))
    assert space.track(name).fits(numbers) and not space.track(name).fits(more)
    before = space.vectors(stream)
    after = space.vectors(replace(stream, tracks={**stream.tracks, name: more}))
    mine = space.names.index(name)
    assert before.present[:, mine].any() and not after.present[:, mine].any()
    others = [k for k in range(len(space.tracks)) if k != mine]
    assert others and np.array_equal(before.present[:, others], after.present[:, others])
    assert np.array_equal(before.values[:, space.of_track != mine], after.values[:, space.of_track != mine])


def test_codes_by_the_table_of_a_merge(data: StreamDataset, store: Path) -> None:
    """Under a vocabulary that took another one in, a stream is what the table makes of its codes; else it is itself."""
    stream, own = Store.open(store).read("film-01"), data.vocabulary
    assert translated(later(own), own, stream) is stream
    audio = own.states["audio"]
    other = replace(audio, config={**audio.config, "other": 1})
    rng = np.random.default_rng(0)
    tables = {lv.name: rng.permutation(lv.cardinality).astype(np.uint32) for lv in audio.levels}
    newest = Vocabulary({**own.states, "audio": other}, own.extents, {audio.digest: tables})
    found = translated(newest, own, stream)
    for name, track in found.tracks.items():
        for level, was, spec in zip(track.levels, stream.tracks[name].levels, own.levels(track.modality), strict=True):
            wanted = tables[spec.name][was.codes] if track.modality == "audio" else was.codes
            assert np.array_equal(level.codes, wanted) and level.splits is was.splits
    with pytest.raises(VocabularyError, match="not an ancestor"):
        translated(replace(newest, remaps={}), own, stream)
