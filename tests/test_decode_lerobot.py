"""Stores as LeRobot datasets: what is written is read as the same episodes. (That LeRobot's own loader reads it, and
gives the rows of the dataset that it was encoded from, was tried by hand with 0.4.4: it needs a torch of its own.)"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from pantok.commands.cli import pantok as group
from pantok.commands.decode_lerobot import _features
from pantok.errors import InputError
from pantok.experience import Block, Clock
from pantok.formats.folder import find_episodes, read_episode
from pantok.formats.lerobot_out import DatasetWriter
from pantok.formats.media_out import Signal
from pantok.pixels import frame_bytes
from tests.conftest import ROOT

MADE = ROOT / "tests" / "lerobot" / "v3.0"


@pytest.fixture(scope="module")
def encoded(pantok, vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lerobot") / "robot.zarr"
    done = pantok("encode", MADE, "--vocab", vocabulary, "-o", path)
    assert done.code == 0, done.err
    return path


def test_a_dataset_comes_back_as_a_dataset(pantok, encoded: Path, tmp_path: Path) -> None:
    done = pantok("decode", encoded, "--to", "lerobot", "-o", tmp_path / "back", "--json")
    assert done.code == 0, done.err
    assert pantok("decode", encoded, "-o", tmp_path / "files").code == 0
    said = json.loads(done.out)
    info = json.loads((tmp_path / "back" / "meta" / "info.json").read_text())
    wanted = json.loads((MADE / "meta" / "info.json").read_text())
    assert set(said["features"]) | {*wanted["features"]} == {*info["features"]} == {*wanted["features"]}
    for key, feature in wanted["features"].items():
        mine = info["features"][key]
        assert (mine["dtype"], mine["shape"]) == (feature["dtype"], feature["shape"]), key
        assert mine["names"] == feature["names"], key
    for key in ("codebase_version", "fps", "total_episodes", "total_frames", "total_tasks"):
        assert info[key] == wanted[key], key
    again, files = (
        [read_episode(f) for f in find_episodes([tmp_path / name])] for name in ("back", "files")
    )  # fmt: skip
    for number, (one, other) in enumerate(zip(again, files, strict=True)):
        assert one.id == other.id and set(one.tracks) == set(other.tracks)
        for name, track in one.tracks.items():
            values, clock = track.read()
            decoded, times = other.tracks[name].read()
            assert np.array_equal(clock.times_ns, times.times_ns), name
            if track.modality == "video":  # both are H.264, with other keyframes
                assert np.abs(values.astype(int) - decoded).mean() < 5, name
            else:
                assert np.array_equal(values, decoded), name
        rows = pyarrow.parquet.read_table(tmp_path / "back" / "data" / "chunk-000" / f"file-{number:03d}.parquet")
        assert rows["frame_index"].to_pylist() == list(range(len(rows)))
    assert rows["index"].to_pylist()[-1] == info["total_frames"] - 1
    stats = json.loads((tmp_path / "back" / "meta" / "stats.json").read_text())
    values = np.concatenate([e.tracks["action"].read()[0] for e in again]).astype(np.float64)
    assert np.allclose(stats["action"]["mean"], values.mean(0)) and np.allclose(stats["action"]["std"], values.std(0))
    assert np.allclose(stats["action"]["q90"], np.quantile(values, 0.9, axis=0)) and stats["action"]["count"] == [37]
    assert np.shape(stats["observation.images.top"]["mean"]) == (3, 1, 1)
    assert set(os.listdir(tmp_path)) == {"back", "files"}


def test_other_clocks_hold_their_last_sample(pantok, store: Path, tmp_path: Path) -> None:
    """Two episodes of other rates and tracks: what only one has is left out, and said; what has another clock than the
    rows holds its last sample."""
    refused = pantok("decode", store, "--to", "lerobot", "-o", tmp_path / "x")
    assert refused.code == 2 and "needs rows of one rate" in refused.err and "--fps" in refused.err
    film = ("decode", store, "--to", "lerobot", "--episode", "film-01", "-o", tmp_path / "film", "--fps", "10")
    planned = pantok(*film, "-n")
    assert planned.code == 0 and not os.listdir(tmp_path), planned.err
    assert pantok(*film).code == 0
    (episode,) = (read_episode(f) for f in find_episodes([tmp_path / "film"]))
    assert pantok("decode", store, "--episode", "film-01", "--track", "action*", "-o", tmp_path / "plain").code == 0
    (plain,) = (read_episode(f) for f in find_episodes([tmp_path / "plain"]))
    values, clock = episode.tracks["action"].read()
    recorded, times = plain.tracks["action"].read()
    assert clock.rate == 10 and np.array_equal(clock.times_ns, Clock.regular(10, len(values)).times_ns)
    index = np.searchsorted(times.times_ns, clock.times_ns + 1, "right") - 1
    assert np.array_equal(values, recorded[np.maximum(index, 0)])
    assert episode.tracks["text.task"].read()[0].tolist() == ["A rabbit wakes up.", "It looks around."]
    both = pantok("decode", store, "--to", "lerobot", "-o", tmp_path / "both", "--fps", "10")
    assert both.code == 1 and "not the same in every episode" in both.err and "action" in both.err
    assert "no numbers and no cameras in common" in both.err and not (tmp_path / "both").exists()


def test_only_a_dataset_is_replaced(pantok, encoded: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("do not delete")
    done = pantok("decode", encoded, "--to", "lerobot", "-o", mine, "--force")
    assert done.code == 2 and "is there already" in done.err and (mine / "thesis.tex").exists()
    (mine / "meta").mkdir()
    (mine / "meta" / "info.json").write_text('{"title": "walks"}')
    done = pantok("decode", encoded, "--to", "lerobot", "-o", mine, "--force")
    assert done.code == 2 and "is there already" in done.err and (mine / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    done = pantok("decode", encoded, "--to", "lerobot", "-o", ".", cwd=tmp_path / "empty")
    assert done.code == 2 and "the folder that you are in" in done.err
    done = pantok("decode", encoded, "--to", "lerobot", "-o", encoded / "ds")
    assert done.code == 2 and "is within the store" in done.err
    for words in ((), ("--force",)):
        done = pantok("decode", encoded, "--to", "lerobot", "-o", tmp_path / "ds", "--episode", "*0", *words)
        assert done.code == 0, done.err
    assert pantok("decode", encoded, "--to", "lerobot", "-o", tmp_path / "ds", "--lossless").code == 2
    assert pantok("decode", encoded, "-o", tmp_path / "files", "--fps", "3").code == 2
    assert sorted(os.listdir(tmp_path)) == ["ds", "empty", "mine"]


def test_tracks_that_would_have_one_name_have_two() -> None:
    """A camera and numbers, or outcomes that two tracks say: neither takes the place of the other."""

    def track(name: str, dtype: str = "float32", channels: tuple[str, ...] = ("x", "y")) -> SimpleNamespace:
        video = name.startswith("video")
        info = {"height": 8, "width": 8} if video else {"dtype": dtype}
        return SimpleNamespace(
            name=name, modality="video" if video else "numeric", info=info, header={}, channels=channels
        )

    flags = [track(name, "bool", ("done",)) for name in ("proprio.a", "proprio.b")]
    named = [track(name) for name in ("proprio.images.top", "video.top", "force", "proprio.force", "action.a/b")]
    tracks = {t.name: t for t in (*flags, *named)}
    found = _features(SimpleNamespace(tracks=tracks), SimpleNamespace(clock=lambda track: Clock.regular(30, 3)))  # type: ignore[arg-type]
    assert {key: feature.track for key, feature in found.items()} == {
        "action.a.b": "action.a/b",
        "observation.force": "force",
        "next.done": "proprio.a",
        "observation.proprio.b.done": "proprio.b",
        "observation.proprio.force": "proprio.force",
        "observation.images.top": "proprio.images.top",
        "observation.video.top": "video.top",
    }


def test_an_episode_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    shape = {"height": 16, "width": 16}
    writer = DatasetWriter(tmp_path / "ds", Fraction(10), {"action": ("float32", ("x",))}, {"observation.image": shape})

    def film(fault: bool) -> dict[str, Signal]:
        def blocks() -> Iterator[Block]:
            yield Block(np.full((4, frame_bytes(16, 16)), 255 if fault else 90, np.uint8))
            if fault:
                raise InputError(tmp_path, "is damaged", "copy it again")

        return {"observation.image": Signal(blocks(), Clock.regular(10, 4), shape)}

    numbers = {"action": np.array([[1], [np.nan], [3], [5]], np.float32)}
    for name, fault in (("a", False), ("b", True), ("c", False), ("d", True)):
        if fault:
            with pytest.raises(InputError):
                writer.add(film(True), numbers, [name] * 4, name)
        else:
            writer.add(film(False), numbers, [name] * 4, name)
    writer.finish()
    files = sorted(p.name for p in (tmp_path / "ds").rglob("*") if p.suffix in (".mp4", ".parquet") and p.is_file())
    assert files.count("file-000.mp4") == files.count("file-001.mp4") == 1 and "file-002.mp4" not in files
    stats = json.loads((tmp_path / "ds" / "meta" / "stats.json").read_text())
    seen = stats["observation.image"]
    assert stats["action"]["mean"] == [3.0] and np.max(seen["max"]) < 0.8 and seen["count"] == [8]
    episodes = {f.id: read_episode(f) for f in find_episodes([tmp_path / "ds"])}
    words = [episode.tracks["text.task"].read()[0].tolist() for episode in episodes.values()]
    assert words == [["a"], ["c"]] and os.listdir(tmp_path) == ["ds"]


def test_a_scheduler_that_ends_it_finds_nothing_half_written(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(self: DatasetWriter, *_: object) -> None:
        assert any(path.name.endswith(".part") for path in tmp_path.iterdir())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(DatasetWriter, "add", ended)
    done = CliRunner().invoke(group, ["decode", str(encoded), "--to", "lerobot", "-o", str(tmp_path / "back")])
    assert done.exit_code == 128 + signal.SIGTERM and "Stopped." in done.stderr
    assert not [*tmp_path.iterdir()]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
