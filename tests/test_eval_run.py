"""`pantok eval RUN`: bits a second, futures beside what came, what actions tell; as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from pantok.commands.cli import pantok
from pantok.formats.runs import RunFolder
from pantok.formats.store import Store
from pantok.loader import StreamDataset
from pantok.world_model.config import TrainConfig
from pantok.world_model.foresight import Foreseen, action_information, points, psnr
from pantok.world_model.inputs import inputs_of
from pantok.world_model.model import WorldModel

TOML = """
length = 96
batch = 2
steps = 3
latents = 0
evaluate_windows = 2
[backbone]
width = 16
layers = 1
heads = 2
kv_heads = 1
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(pantok, [str(a) for a in args])


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval-run")
    (folder / "c.toml").write_text(TOML)
    done = run("train-wm", store, "-o", folder / "run", "--config", folder / "c.toml", "-q")
    assert done.exit_code == 0, done.stderr
    return folder / "run"


def test_the_command(trained: Path, store: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    done = run("eval", trained, "--on", store, "--points", 2, "--horizon", 0.25, "--html", page, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    low, high = found["bits_per_second_95"]
    assert low <= found["bits_per_second"] <= high
    assert sum(v["bits_per_second"] for v in found["by_kind"].values()) == pytest.approx(found["bits_per_second"])
    assert sum(v["share"] for v in found["by_role"].values()) == pytest.approx(1)
    for rival in ("xz", "ngram"):
        low, high = found["baselines"][f"{rival}_bits_per_second_95"]
        assert 0 < low <= found["baselines"][f"{rival}_bits_per_second"] <= high
    assert found["next_step"]["video"]["unit"] == "dB" and found["next_step"]["audio"]["unit"] == "nmse"
    for values in found["next_step"].values():
        assert {"model", "ridge", "copy_last", "without_backbone"} < set(values) and set(values["gain_95"]) == {
            "copy_last", "ridge",
        }  # fmt: skip
    assert found["foresight"]["points"] == 2 and 3 < found["foresight"]["psnr_copy_last"] < 99
    assert {"recorded", "without", "shuffled"} < set(found["actions"])
    for values, name in ((found["actions"], "information"), (found["actions"], "misled"),
                         (found["switch"], "calibration_error")):  # fmt: skip
        assert values[f"{name}_95"][0] <= values[name] <= values[f"{name}_95"][1]
    html = page.read_text()
    assert html.count("data:image/png") >= 8 and "the last frame, repeated" in html
    again = run("eval", trained, "--points", 0, "--html", page)
    assert again.exit_code == 0 and "held out of" in again.stderr and "control" in again.stdout


def test_what_is_wrong_is_said(trained: Path, store: Path, tmp_path: Path, recordings: Path) -> None:
    assert run("eval", trained, "--horizon", 0).exit_code == 2
    assert run("eval", trained, "--checkpoint", "step-7").exit_code == 1
    assert "did you mean film-01" in run("eval", trained, "--on", store, "--episode", "film-1").stderr


def test_latents_all_the_way(recordings: Path, vocabulary: Path, tmp_path: Path) -> None:
    """Encoded, trained on, measured in bits, simulated: with vectors beside the codes."""
    (tmp_path / "c.toml").write_text(TOML.replace("latents = 0", "latents = 6"))
    store, folder = tmp_path / "mixed.zarr", tmp_path / "run"
    assert run("encode", recordings, "--vocab", vocabulary, "-o", store, "--latents", "all", "-q").exit_code == 0
    done = run("train-wm", store, "-o", folder, "--config", tmp_path / "c.toml", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    trained = json.loads(done.stdout)
    assert trained["latent_dims"] == {"video": 6, "audio": 6}
    found = json.loads(run("eval", folder, "--on", store, "--points", 1, "--horizon", 0.25, "--json", "-q").stdout)
    for modality in ("video", "audio"):
        # 8.05 bits say a value of unit deviation to a 64th of it; what is held out of two episodes may lie far off.
        assert 4 < found["latents"][modality]["bits_per_value"] < 40
    assert found["switch"]["entropy_bits"] > 0 and 0 <= found["switch"]["calibration_error"] <= 1
    assert 0 < sum(v["share"] for k, v in found["by_kind"].items() if k.startswith("latent.")) < 0.5
    out = tmp_path / "future.mp4"
    asked = ("simulate", folder, "--from", f"{store}:film-01@0.4", "--for", "0.3s", "-o", out, "-q")
    assert run(*asked).exit_code == 0 and out.exists()


def test_psnr_of_a_point() -> None:
    came = np.full((3, 4, 4, 3), 100, np.uint8)
    found = Foreseen("e", 0, came, came + 10, came[0], 12.0).psnr()
    assert found["simulated"] == pytest.approx(20 * np.log10(25.5)) and found["copy_last"] == 99
    assert psnr(came, came + 51) == pytest.approx(20 * np.log10(5))


def test_points_lie_within(store: Path) -> None:
    opened = Store.open(store)
    streams = {name: opened.read(name) for name in opened.episodes}
    found = points(streams, 9, 100_000_000, seed=3)
    assert found == points(streams, 9, 100_000_000, seed=3) and len(found) == 9
    for name, start_ns in found:
        clock = streams[name].tracks["video"].clock
        assert clock.start_ns < start_ns <= clock.start_ns + clock.duration_ns - 100_000_000


def test_a_model_that_hears_nothing_learns_nothing_from_actions(store: Path) -> None:
    """With embeddings of actions at nought, other actions change nothing; as it is, they do."""
    # So long that something stands after the actions in their window.
    data = StreamDataset(store, length=700, batch_size=1, rank=0, world=1)
    torch.manual_seed(0)
    model = WorldModel(data.vocabulary, TrainConfig(latents=0, length=700))
    batches = [inputs_of(data.batch(0, list(range(len(data.windows)))), model.keys, {}, 0)]
    gap = data.vocabulary.control("gap")
    heard = action_information(model, batches, gap)
    assert heard["recorded"] != heard["shuffled"]
    low, high = heard["misled_95"]
    assert heard["misled"] == pytest.approx(heard["shuffled"] - heard["recorded"]) and low <= heard["misled"] <= high
    with torch.no_grad():
        ids = torch.cat([batches[0].ids[batches[0].role == 1].unique(), torch.tensor([gap])])
        model.embed.weight[ids] = 0.0
    deaf = action_information(model, batches, gap)
    assert deaf["recorded"] == pytest.approx(deaf["shuffled"]) == pytest.approx(deaf["without"])


def test_a_vocabulary_is_scored_by_a_model_beside_the_ngram(trained: Path, store: Path) -> None:
    own = trained / "vocabulary"
    args = ("vocab", "score", own, "--on", store, "--model", trained, "--seconds", 0, "--json", "-q")
    done = run(*args)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    low, high = found["model"]["bits_per_second_95"]
    assert low <= found["model"]["bits_per_second"] <= high and found["errors"] == []
    assert found["held_out"] == found["model"]["episodes"] == RunFolder(trained).config["held_out"]
    value = found["model"]["bits_per_second"] + found["vocabulary_bits_per_second"]
    assert found["objective"] == {"name": "bits", "value": pytest.approx(value)}
    # The n-gram is asked about the same episodes.
    held = Store.open(store).episodes[found["held_out"][0]].duration_ns / 1e9
    assert found["held_out_bits_per_second"] == pytest.approx(sum(s["bits_per_second"] for s in found["shares"]))
    assert found["seconds"] > held
    other = CliRunner().invoke(pantok, ["vocab", "score", "/nowhere", "--on", str(store), "--model", str(trained)])
    assert other.exit_code != 0
