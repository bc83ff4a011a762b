"""Bags of ROS 2 that were split into files: one recording, the same as if they were one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from pantok.errors import InputError
from pantok.experience import Episode
from pantok.formats.files import source_of
from pantok.formats.folder import find_again, find_episodes, read_episode
from pantok.formats.originals import locate
from tests.robot_logs import MS, T0, Sent, bag, camera, colours, header
from tests.test_formats_bags import bag2

JOY = "sensor_msgs/msg/Joy"


def sent() -> list[Sent]:
    axes = [
        (
            "/joy",
            JOY,
            {"header": header(T0 + i * 20 * MS), "axes": [i / 8, -i], "buttons": [i % 2]},
            T0 + i * 20 * MS + 5,
        )
        for i in range(60)
    ]
    return sorted([*axes, *camera(colours(24))], key=lambda message: message[3])


def split(folder: Path, form: str, parts: int = 3) -> Path:
    """The messages in so many files, and what rosbag2 says of them."""
    folder.mkdir(parents=True)
    messages = sent()
    size = -(-len(messages) // parts)
    names = []
    for number in range(parts):
        part = messages[number * size : (number + 1) * size]
        names.append(f"{folder.name}_{number}.{form}")
        (bag if form == "mcap" else bag2)(folder / names[-1], part)
    counts = {(topic, kind): sum(m[0] == topic for m in messages) for topic, kind, _, _ in messages}
    topics = [
        {
            "topic_metadata": {
                "name": topic, "type": kind, "serialization_format": "cdr", "offered_qos_profiles": "",
                "type_description_hash": "",
            },
            "message_count": count,
        }
        for (topic, kind), count in counts.items()
    ]  # fmt: skip
    start, length = messages[0][3], messages[-1][3] - messages[0][3]
    facts = {
        "version": 8, "storage_identifier": "mcap" if form == "mcap" else "sqlite3", "relative_file_paths": names,
        "duration": {"nanoseconds": length}, "starting_time": {"nanoseconds_since_epoch": start},
        "message_count": len(messages), "topics_with_message_count": topics, "compression_format": "",
        "compression_mode": "", "files": [], "custom_data": None, "ros_distro": "jazzy",
    }  # fmt: skip
    (folder / "metadata.yaml").write_text(json.dumps({"rosbag2_bagfile_information": facts}, indent=1))  # JSON is YAML
    return folder


def read(*sources: Path) -> tuple[dict[str, Episode], list[str]]:
    said: list[str] = []
    return {f.id: read_episode(f, None, said.append) for f in find_episodes(sources, said.append)}, said


def same(one: Episode, other: Episode) -> None:
    assert set(one.tracks) == set(other.tracks)
    for name, track in one.tracks.items():
        (values, clock), (wanted, times) = track.read(), other.tracks[name].read()
        assert np.array_equal(values, wanted) and np.array_equal(clock.times_ns, times.times_ns), name
        assert track.info.get("epoch_ns") == other.tracks[name].info.get("epoch_ns")


@pytest.mark.parametrize("form", ["mcap", "db3"])
def test_a_split_bag_is_one_recording(tmp_path: Path, form: str) -> None:
    folder = split(tmp_path / "logs" / "drive", form)
    with Reader(folder) as theirs:  # what rosbags reads of it
        assert sum(1 for _ in theirs.messages()) == len(sent())
    whole = (bag if form == "mcap" else bag2)(tmp_path / f"whole.{form}", sent())
    wanted = read_episode(find_episodes([whole])[0])
    for source, name in ((tmp_path / "logs", "drive"), (folder, "drive")):
        episodes, said = read(source)
        assert list(episodes) == [name] and not said
        same(episodes[name], wanted)
    moved = Path(shutil.move(folder, tmp_path / "elsewhere" / "drive"))
    again = find_again("drive", locate(episodes["drive"].sources, moved.parent))
    same(read_episode(again), wanted)


def test_what_lies_beside_a_split_bag_is_kept(tmp_path: Path) -> None:
    folder = split(tmp_path / "logs" / "drive", "mcap")
    (tmp_path / "logs" / "drive.csv").write_text("time_s,x\n0,1\n1,2\n")
    (folder / "notes.txt").write_text("nothing went wrong")
    (tmp_path / "logs" / "episode.toml").write_text('[files."drive"]\nactions = ["joy"]\n')
    before = source_of(folder)
    episodes, _ = read(tmp_path / "logs")
    assert list(episodes) == ["drive", "drive/notes"]
    (folder / "home.zarr").mkdir()
    (folder / "home.zarr" / "zarr.json").write_text("{}")
    assert source_of(folder) == before
    assert {"action.joy", "action.joy.counts", "video.front.image.compressed", "proprio"} == {*episodes["drive"].tracks}


def test_a_bag_that_is_given_as_here_obeys_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(split(tmp_path / "drive", "mcap"))
    (tmp_path / "episode.toml").write_text('[files."drive"]\nactions = ["joy"]\n')
    episodes, _ = read(Path("."))
    assert list(episodes) == ["drive"] and "action.joy" in episodes["drive"].tracks


def test_files_that_are_missing_or_damaged_cost_what_they_held(tmp_path: Path) -> None:
    folder = split(tmp_path / "drive", "mcap", 4)
    whole, _ = read(folder)
    (folder / "drive_1.mcap").unlink()
    (folder / "drive_2.mcap").write_bytes(b"no log at all")
    last = folder / "drive_3.mcap"
    last.write_bytes(last.read_bytes()[:-2000])
    episodes, said = read(folder)
    clock = episodes["drive"].tracks["proprio.joy"].read()[1]
    assert 15 < clock.count < whole["drive"].tracks["proprio.joy"].read()[1].count - 25
    assert len(said) == 1 and said[0].startswith(
        f"{folder}: drive_1.mcap is not there (the others are kept), drive_2.mcap "
    )
    assert "drive_3.mcap: it is cut off" in said[0]
    for name in ("drive_0.mcap", "drive_3.mcap"):
        (folder / name).write_bytes(b"no log at all")
    with pytest.raises(InputError, match=r"drive_0\.mcap"):
        read(folder)


def test_a_bag_of_one_file_and_other_metadata_are_as_they_were(tmp_path: Path) -> None:
    split(tmp_path / "one", "mcap", 1)
    bag(split(tmp_path / "two", "mcap", 2) / "metadata.mcap", sent()[:9])
    (tmp_path / "two" / "metadata.yaml").write_text("title: two_0.mcap and two_1.mcap")
    assert [f.id for f in find_episodes([tmp_path])] == ["one/one_0", "two/metadata", "two/two_0", "two/two_1"]
