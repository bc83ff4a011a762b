"""RLDS datasets as tensorflow_datasets wrote and reads them (`tests/rlds/make_rlds.py`), whole and damaged."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from pantok import pixels
from pantok.errors import InputError
from pantok.experience import Episode
from pantok.formats import tfrecord
from pantok.formats.folder import ReadOptions, find_again, find_episodes, read_episode
from pantok.formats.originals import locate

MADE = Path(__file__).parent / "rlds"
TRUTH = np.load(MADE / "read_by_tfds.npz")
NAMES = [f"{split}_{number:06d}" for split, count in (("train", 3), ("val", 2)) for number in range(count)]
SHARD = "arms-train.tfrecord-00000-of-00002"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(MADE / "arms" / "1.0.0", tmp_path / "arms"))
    (folder / "episode.toml").write_text('[files."*.tfrecord-*"]\nrate_hz = 5\n')
    return folder


def read(folder: Path, options: ReadOptions | None = None) -> tuple[dict[str, Episode], list[str]]:
    said: list[str] = []
    episodes = {}
    for files in find_episodes([folder], said.append):
        try:
            episodes[files.id] = read_episode(files, options, said.append)
        except InputError as error:
            said.append(str(error))
    return episodes, [*dict.fromkeys(said)]


def test_everything_is_as_tfds_reads_it(dataset: Path) -> None:
    episodes, said = read(dataset)
    assert list(episodes) == NAMES
    for name, episode in episodes.items():
        truth = {
            key: TRUTH[f"{name}/{key}"] for key in ("state", "map", "world_vector", "open_gripper", "reward", "ticks")
        }
        for track, key in {
            "proprio.state": "state", "proprio.map": "map", "action.world_vector": "world_vector",
            "action": "open_gripper", "reward": "reward", "proprio.counts": "ticks",
        }.items():  # fmt: skip
            values, clock = episode.tracks[track].read()
            wanted = truth[key].reshape(len(truth[key]), -1)
            assert values.dtype == wanted.dtype and np.array_equal(values, wanted), track
            assert clock.rate == 5 and clock.count == len(wanted) and clock.start_ns == 0
        flags = episode.tracks["proprio.flags"]
        assert flags.channels == ("is_first", "is_last")
        assert np.array_equal(flags.read()[0].T, [TRUTH[f"{name}/is_first"], TRUTH[f"{name}/is_last"]])
        picture = episode.tracks["video"]
        shown = pixels.to_rgb(picture.read()[0], 24, 32).astype(float)
        assert np.abs(shown - TRUTH[f"{name}/image"]).mean() < 6  # 4:2:0, and another decoder of JPEG
        assert episode.tracks["video.wrist_image"].read()[0].shape[0] == len(shown)
        words = [w.decode() for w in TRUTH[f"{name}/language_instruction"]]
        assert "text.language_instruction" not in episode.tracks if not words[0] else (
            episode.tracks["text.language_instruction"].read()[0].tolist() == words[:1]
        )  # fmt: skip
    assert {line.split(": ", 1)[1] for line in said} == {
        "language_embedding: computed from words (left out; the others are kept)",
        "observation/depth: pictures of float32, as depths are (left out; the others are kept)",
        "observation/touched: lists of different lengths (left out; the others are kept)",
    }


def test_pictures_take_a_size_and_a_rate(dataset: Path) -> None:
    episodes, _ = read(dataset, ReadOptions(size=12))
    assert episodes["val_000001"].tracks["video"].info["height"] == 12


def test_a_shard_that_is_not_there_changes_no_name(dataset: Path) -> None:
    (dataset / SHARD).unlink()
    episodes, _ = read(dataset)
    assert list(episodes) == NAMES[2:]
    assert np.array_equal(episodes["train_000002"].tracks["proprio.state"].read()[0], TRUTH["train_000002/state"])
    alone = dataset / SHARD.replace("train.tfrecord-00000", "val.tfrecord-00001")
    assert [found.id for found in find_episodes([alone])] == ["val_000001"]


def test_an_episode_is_found_again(dataset: Path, tmp_path: Path) -> None:
    episodes, _ = read(tmp_path)
    moved = Path(shutil.move(dataset, tmp_path / "elsewhere"))
    for name, episode in episodes.items():
        again = read_episode(find_again(name, locate(episode.sources, moved)))
        assert np.array_equal(again.tracks["proprio.state"].read()[0], TRUTH[f"{name.split('/')[1]}/state"])


def records(path: Path) -> list[tuple[int, int]]:
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        found.append((at + 12, length))
        at += 12 + length + 4
    return found


@pytest.mark.parametrize("where", ["bytes", "end", "length"])
def test_what_is_damaged_costs_its_episodes(dataset: Path, where: str) -> None:
    shard = dataset / SHARD
    content = bytearray(shard.read_bytes())
    (_, _), (second, length) = records(shard)
    if where == "bytes":
        content[second + length // 2] ^= 1
    elif where == "end":
        del content[second + length // 2 :]
    else:
        content[second - 12] ^= 1
    shard.write_bytes(content)
    episodes, said = read(dataset)
    assert list(episodes) == [name for name in NAMES if name != "train_000001"]
    wanted = "record 2 is damaged: its checksum is wrong" if where == "bytes" else "ends within record 2"
    assert any(line.startswith(f"{shard}: {wanted}") for line in said)


def masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(content: bytes) -> bytes:
    head = struct.pack("<Q", len(content))
    return head + struct.pack("<I", masked(head)) + content + struct.pack("<I", masked(content))


@pytest.mark.parametrize(
    ("content", "wanted"), [(b"\xff" * 9, "is no tf.train.Example"), (b"", "holds an episode without steps")]
)
def test_records_of_something_else_are_named(dataset: Path, content: bytes, wanted: str) -> None:
    (dataset / SHARD).write_bytes(framed(content) * 2)
    episodes, said = read(dataset)
    assert list(episodes) == NAMES[2:] and any(wanted in line for line in said)


def test_what_says_nothing_is_told_what_to_say(dataset: Path) -> None:
    (dataset / "episode.toml").unlink()
    _, said = read(dataset)
    assert len(said) == 4 + 3  # a line for each shard
    assert 'at what rate (add a column time_s, or to episode.toml: [files."*.tfrecord-*"] rate_hz = 50)' in said[-1]


def test_folders_that_are_not_whole_are_named(dataset: Path) -> None:
    facts, features = dataset / "dataset_info.json", dataset / "features.json"
    whole = json.loads(facts.read_text())
    facts.write_text(json.dumps(whole | {"splits": [{"name": "train", "shardLengths": ["2"]}]}))
    with pytest.raises(InputError, match="does not say how many episodes arms-train"):
        find_episodes([dataset])
    facts.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        find_episodes([dataset])
    facts.write_text(json.dumps(whole))
    features.write_text(json.dumps({"featuresDict": {"features": {"image": {"image": {}}}}}))
    with pytest.raises(InputError, match="has no steps, or cannot be understood"):
        find_episodes([dataset])
    for shard in dataset.glob("*.tfrecord-*"):
        shard.unlink()
    facts.write_text("[]")
    with pytest.raises(InputError, match="is not what tensorflow_datasets writes"):
        find_episodes([dataset])
    facts.write_text(json.dumps(whole))
    with pytest.raises(InputError, match="without TFRecord files"):
        find_episodes([dataset])


def older(said: dict[str, object]) -> dict[str, object]:
    """features.json as tensorflow_datasets wrote it before version 4.6: types and contents."""
    name = said["pythonClassName"]
    if "featuresDict" in said:
        inner = said["featuresDict"]["features"]  # type: ignore[index]
        return {"type": name, "content": {key: older(value) for key, value in inner.items()}}
    if "sequence" in said:
        return {"type": name, "content": {"feature": older(said["sequence"]["feature"]), "length": None}}  # type: ignore[index]
    facts = next(value for key, value in said.items() if key != "pythonClassName")
    assert isinstance(facts, dict)
    shape = [None if n == "-1" else int(n) for n in facts.get("shape", {}).get("dimensions", ())]
    return {"type": name, "content": facts | {"shape": shape}}


def test_older_datasets_are_read_alike(dataset: Path) -> None:
    features = dataset / "features.json"
    new, _ = read(dataset)
    features.write_text(json.dumps(older(json.loads(features.read_text()))))
    old, _ = read(dataset)
    for name, episode in new.items():
        assert list(old[name].tracks) == list(episode.tracks)
        for track in ("proprio.state", "proprio.map", "action", "video"):
            assert np.array_equal(old[name].tracks[track].read()[0], episode.tracks[track].read()[0])


def test_lists_of_one_length_are_numbers(dataset: Path) -> None:
    shard = dataset / SHARD.replace("train.tfrecord-00000", "val.tfrecord-00001")
    ((at, length),) = records(shard)
    example = tfrecord._made().FromString(shard.read_bytes()[at : at + length])
    features, name = example.features.feature, "steps/observation/touched/ragged_"
    for key, values in (("flat_values", range(18)), ("row_lengths_0", [2] * 9)):
        features[name + key].int64_list.value[:] = values
    shard.write_bytes(framed(example.SerializeToString()))
    values, clock = read(dataset)[0]["val_000001"].tracks["proprio.touched"].read()
    assert values.dtype == np.int32 and clock.count == 9
    assert np.array_equal(values, np.arange(18).reshape(9, 2))
    del features["steps/reward"], features["steps/observation/image"]
    features["steps/observation/state"].float_list.value[:] = [0.5]
    shard.write_bytes(framed(example.SerializeToString()))
    episodes, said = read(dataset)
    assert not {"reward", "video", "proprio.state"} & set(episodes["val_000001"].tracks)
    assert f"{dataset}: observation/image, reward: not there (left out; the others are kept)" in said
    assert f"{dataset}: observation/state: is not as features.json has it (left out; the others are kept)" in said


def test_a_shard_of_another_download_costs_itself_alone(dataset: Path, tmp_path: Path) -> None:
    (dataset / "arms-test.tfrecord-00000-of-00001").write_bytes(b"")
    (tmp_path / "walk.csv").write_text("time_s,x\n0,1\n1,2\n")
    episodes, said = read(tmp_path)
    assert list(episodes) == [*(f"arms/{name}" for name in NAMES), "walk"]
    assert any("does not say how many episodes arms-test.tfrecord-00000-of-00001 holds" in line for line in said)
