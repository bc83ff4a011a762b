"""HDF5 files as robot learning has them: which groups are episodes, what is in them, and files that are broken."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pantok import pixels
from pantok.errors import InputError
from pantok.experience import NS, Track
from pantok.formats.container import read_container
from pantok.formats.folder import find_again, find_episodes, read_episode
from pantok.formats.hdf5 import parts_of, read_part
from pantok.formats.rows import Rows
from tests.media_files import Pictures, make_media, moving_pictures

MS = 1_000_000
RNG = np.random.default_rng(7)


def written(
    path: Path, at: Mapping[str, Any] | None = None, says: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """A file of arrays, by where they are, and of attributes, by the group that has them."""
    with h5py.File(path, "w") as file:
        for name, values in (at or {}).items():
            file[name] = values
        for name, attributes in (says or {}).items():
            file.require_group(name).attrs.update(attributes)
    return path


def read(path: Path, part: str = "", **rules: Any) -> tuple[dict[str, Track], list[str]]:
    said: list[str] = []
    tracks = read_part(path, part, rules, said.append)
    assert len({t.name for t in tracks}) == len(tracks)
    return {t.name: t for t in tracks}, said


def values_of(track: Track) -> np.ndarray:
    return track.read()[0]


def refused(path: Path, expected: str, part: str = "", **rules: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_part(path, part, rules, lambda line: None)
    said = str(caught.value)
    assert expected in said, said
    assert said.startswith(str(path)) and caught.value.remedy and "\n" not in said


def colours(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Pictures of even patches, (count, height, width, 3)."""
    coarse = RNG.integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def shows(track: Track, rgb: np.ndarray) -> bool:
    """Whether the track's pictures are these, but for the blending of colours where they change."""
    shown = pixels.to_rgb(values_of(track), *rgb.shape[1:3]).astype(int)
    inside = [np.isin(np.arange(n) % 8, (3, 4)) for n in rgb.shape[1:3]]
    return shown.shape == rgb.shape and int(np.abs(shown - rgb)[:, inside[0]][:, :, inside[1]].max()) <= 4


# Several in one file


def test_each_demonstration_of_a_file_is_an_episode(tmp_path: Path) -> None:
    at = {f"data/demo_{n}/{name}": np.full((5 + n, 2), n + 0.5) for n in range(3) for name in ("actions", "obs/arm")}
    (tmp_path / "lab").mkdir()
    path = written(tmp_path / "lab" / "pick.hdf5", at)
    (tmp_path / "lab" / "episode.toml").write_text('[files."pick.hdf5"]\nrate_hz = 20\n')
    written(tmp_path / "alone.h5", {"action": np.zeros((4, 2))}, {"/": {"fps": 10}})
    (tmp_path / "alone.txt").write_text("what was done")
    (tmp_path / "broken.h5").write_bytes(b"no HDF5 at all")
    found = {f.id: f for f in find_episodes([tmp_path])}
    assert list(found) == ["alone", "broken", *(f"lab/pick/demo_{n}" for n in range(3))]
    assert set(read_episode(found["alone"]).tracks) == {"action", "text"}
    with pytest.raises(InputError, match="is not an HDF5 file"):
        read_episode(found["broken"])
    for n in range(3):
        episode = read_episode(found[f"lab/pick/demo_{n}"])
        for again in (episode, read_episode(find_again(f"pick/demo_{n}", [path]))):
            values, clock = again.tracks["action"].read()
            assert values.tolist() == [[n + 0.5] * 2] * (5 + n) and clock.rate == 20
    assert [f.id for f in find_episodes([path])] == [f"pick/demo_{n}" for n in range(3)]


# The layouts that there are


def test_many_demonstrations_in_a_file(tmp_path: Path) -> None:
    """As robomimic and LIBERO have them: the rate and the task stand beside the data, in JSON."""
    views = {n: colours(n + 4) for n in range(12)}
    at: dict[str, Any] = {"mask/train": np.array([b"demo_0", b"demo_1"])}
    for n, view in views.items():
        here, rows = f"data/demo_{n}", len(view)
        at |= {f"{here}/actions": np.full((rows, 7), n / 10), f"{here}/states": RNG.random((rows, 5)),
               f"{here}/rewards": np.zeros(rows, np.uint8), f"{here}/dones": np.arange(rows) == rows - 1,
               f"{here}/obs/agentview_image": view, f"{here}/obs/robot0_eef_pos": RNG.random((rows, 3)),
               f"{here}/next_obs/agentview_image": view, f"{here}/next_obs/robot0_eef_pos": RNG.random((rows, 3)),
        }  # fmt: skip
    says = {"data": {"env_args": json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}}),
                     "problem_info": json.dumps({"language_instruction": "lift the cube"})}}  # fmt: skip
    path = written(tmp_path / "demo.hdf5", at=at, says=says)
    assert parts_of(path) == tuple(f"demo_{n}" for n in range(12))
    tracks, said = read(path, "demo_10")
    assert said == []
    assert set(tracks) == {"action", "reward", "proprio", "proprio.states", "proprio.robot0_eef_pos",
                           "video.agentview_image", "text.task"}  # fmt: skip
    values, clock = tracks["action"].read()
    assert (clock.rate, clock.count, values.min(), values.max()) == (20, 14, 1.0, 1.0)
    assert tracks["proprio"].channels == ("dones",) and tracks["reward"].channels == ("rewards",)
    assert shows(tracks["video.agentview_image"], views[10])
    values, clock = tracks["text.task"].read()
    assert (values.tolist(), clock.times_ns.tolist()) == (["lift the cube"], [0])
    assert tracks["text.task"].info["ends_ns"] == [700 * MS]
    small = {t.name: t for t in read_part(path, "demo_2", {}, said.append, size=12, fps=Fraction(10))}
    values, clock = small["video.agentview_image"].read()
    assert (clock.rate, clock.count, values.shape[1]) == (10, 3, pixels.frame_bytes(12, 16))
    refused(path, "holds no episode 'demo_12'", "demo_12")


def test_an_episode_a_file_its_pictures_as_arrays_or_as_files(tmp_path: Path) -> None:
    """As ALOHA has them; the rows of files end in zeros, and one row holds none. No rate is in the file."""
    frames = moving_pictures(6, 24, 32)
    files = []
    for number in range(6):
        film = Pictures(values=frames[number : number + 1], height=24, width=32, codec="png", form="rgb24")
        files.append(make_media(tmp_path / f"{number}.png", film, update="1").read_bytes())
    padded = np.zeros((6, max(map(len, files)) + 9), np.uint8)
    for row, cell in zip(padded, files, strict=True):
        row[: len(cell)] = np.frombuffer(cell, np.uint8)
    joints = {name: RNG.random((6, 14)) for name in ("action", "observations/qpos", "observations/qvel")}
    view = colours(6)
    plain = written(
        tmp_path / "plain.hdf5", at=joints | {"observations/images/cam_high": view}, says={"/": {"sim": True}}
    )
    assert parts_of(plain) == ("",)
    refused(plain, 'or to episode.toml: [files."plain.hdf5"] rate_hz = 50')
    tracks, said = read(plain, rate_hz=50)
    assert set(tracks) == {"action", "proprio.qpos", "proprio.qvel", "video.cam_high"} and said == []
    assert shows(tracks["video.cam_high"], view)
    with h5py.File(tmp_path / "lists.hdf5", "w") as file:
        file["t"] = np.arange(6) / 10
        lists = file.create_dataset("rgb_images/left", (6,), h5py.vlen_dtype(np.uint8))
        words = file.create_dataset("rgb_images/right", (6,), f"S{padded.shape[1]}")
        for number in (0, 1, 3, 4, 5):
            lists[number] = np.frombuffer(files[number], np.uint8)
        words[:] = files
        file["rgb_images/raw"] = np.zeros((6, 40), np.uint8)
    padded[2] = 0
    more = {"observations/images/cam_low": padded, "compress_len": np.ones((1, 6))}
    packed = written(tmp_path / "packed.hdf5", at=joints | more, says={"/": {"compress": True, "hz": np.int32(50)}})
    tracks, said = read(packed)
    assert said == [] and tracks["action"].clock is not None and tracks["action"].clock.rate == 50
    film = tracks["video.cam_low"]
    lists_, _ = read(tmp_path / "lists.hdf5")
    assert set(lists_) == {"video.left", "video.right", "proprio.rgb_images.raw"}
    whole = values_of(lists_["video.right"])
    assert np.array_equal(values_of(film), np.delete(whole, 2, 0))
    assert np.array_equal(values_of(lists_["video.left"]), np.delete(whole, 2, 0))
    assert film.read()[1].times_ns.tolist() == [n * 20 * MS for n in (0, 1, 3, 4, 5)]
    for number in range(6):
        assert np.array_equal(whole[number], read_container(tmp_path / f"{number}.png")[0].read()[0][0])


def test_times_within_groups(tmp_path: Path) -> None:
    """As DROID has them: many whole numbers, milliseconds since 1970; when the robot was read is the time."""
    start, rows = 1_700_000_000_000, 5
    stamps = start + np.array([0, 66, 133, 201, 266])
    at = {
        "action/joint_position": RNG.random((rows, 7)), "action/gripper_position": RNG.random(rows),
        "observation/robot_state/joint_positions": RNG.random((rows, 7)),
        "observation/robot_state/gripper_position": RNG.random(rows),
        "observation/timestamp/cameras/1234_read_start": stamps + 20,
        "observation/timestamp/control/step_start": stamps - 3,
        "observation/timestamp/robot_state/read_end": stamps + 4,
        "observation/timestamp/robot_state/read_start": stamps,
        "observation/timestamp/robot_state/robot_timestamp_seconds": stamps // 1000,
        "observation/timestamp/skip_action": np.zeros(rows, bool),
    }  # fmt: skip
    path = written(tmp_path / "trajectory.h5", at=at, says={"/": {"current_task": "wipe", "success": True}})
    tracks, said = read(path)
    assert said == [] and parts_of(path) == ("",)
    assert set(tracks) == {"action", "action.joint_position", "proprio", "proprio.counts", "proprio.flags",
                           "proprio.robot_state.joint_positions", "text.task"}  # fmt: skip
    clock = tracks["action"].read()[1]
    assert clock.times_ns.tolist() == (stamps * MS).tolist()
    assert tracks["action"].channels == ("gripper_position",)
    assert tracks["proprio"].channels == ("robot_state.gripper_position",)
    assert "timestamp.robot_state.read_end" in tracks["proprio.counts"].channels
    assert tracks["text.task"].read()[0].tolist() == ["wipe"]


def test_one_action_fewer_than_what_was_seen(tmp_path: Path) -> None:
    """As ManiSkill has them, the trajectories at the root. What is no picture by its name stays numbers."""
    at: dict[str, Any] = {}
    for n, rows in enumerate((6, 9)):
        here = f"traj_{n}"
        at |= {f"{here}/actions": RNG.random((rows, 8), np.float32), f"{here}/success": np.zeros(rows, bool),
               f"{here}/terminated": np.zeros(rows, bool), f"{here}/rewards": np.zeros(rows, np.float32),
               f"{here}/obs/agent/qpos": RNG.random((rows + 1, 9)), f"{here}/obs/extra/held": np.ones(rows + 1, bool),
               f"{here}/obs/sensor_data/hand/rgb": colours(rows + 1),
               f"{here}/obs/sensor_data/hand/segmentation": np.ones((rows + 1, 24, 32, 1), np.int16)}  # fmt: skip
    path = written(tmp_path / "trajectory.h5", at=at)
    assert parts_of(path) == ("traj_0", "traj_1")
    tracks, said = read(path, "traj_1", rate_hz=20)
    assert len(said) == 1 and "obs/sensor_data/hand/segmentation is not read as pictures but as 768 channels" in said[0]
    counts = {name: track.read()[1].count for name, track in tracks.items()}
    assert counts == {"action": 9, "reward": 9, "proprio": 10, "proprio.steps": 9, "proprio.agent.qpos": 10,
                      "video.hand": 10, "proprio.sensor_data.hand.segmentation": 10}  # fmt: skip
    refused(path, "trajectory.h5 traj_0: says neither when its rows were taken", "traj_0")


def test_whatever_lies_in_a_file(tmp_path: Path) -> None:
    """Words, dates, compound rows, ragged lists; numbers in their own type, NaN as it is; what is left out is named."""
    text = h5py.string_dtype()
    mixed = np.zeros(4, [("x", "<f8"), ("on", "?")])
    mixed["x"] = [1, np.nan, 3, np.inf]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["q"] = np.arange(8, dtype=">f4").reshape(4, 2)
        file["q"].attrs["fps"] = "30000/1001"
        file["sound"] = np.zeros(400, np.int16)
        file["sound"].attrs["sample_rate"] = 3000
        file["mixed"] = mixed
        file.create_dataset("phase", data=["reach", "reach", "grasp", ""], dtype=text)
        file["note"], file["goal"] = "keep it level", np.array([b"a cup"], "S8")
        file["film"] = np.bytes_(b"\x00\x00\x00\x18ftypmp42\xff\xfe")
        ragged = file.create_dataset("ragged", (4,), h5py.vlen_dtype(np.float32))
        ragged[0], ragged[2] = [1, 2], [3, 4]
        odd = file.create_dataset("odd", (4,), h5py.vlen_dtype(np.float32))
        odd[0], odd[1] = [1], [2, 3]
        file["complex"], file["nothing"] = np.zeros(4, complex), h5py.Empty("f4")
        file["hollow"] = np.zeros((4, 0))
        file.create_dataset("pair", (4, 2), h5py.ref_dtype)
        file["dangling"], file["outside"] = h5py.SoftLink("/nowhere"), h5py.ExternalLink("gone.h5", "/x")
        file["round/again"] = file["/"]
        file["again"], file[b"\xff_1"] = h5py.SoftLink("/q"), np.zeros(4)
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource("gone.h5", "x", (4,))
        file.create_virtual_dataset("virtual", layout)
    tracks, said = read(tmp_path / "a.h5")
    clock = tracks["proprio.q"].read()[1]
    assert clock.rate == Fraction(30000, 1001) and clock.count == 4
    assert values_of(tracks["proprio.q"]).dtype == np.dtype("=f4")
    assert np.array_equal(values_of(tracks["proprio.again"]), values_of(tracks["proprio.q"]))
    assert np.array_equal(values_of(tracks["proprio"])[:, 0], mixed["x"], equal_nan=True)
    assert tracks["proprio"].channels == ("mixed.x",) and tracks["proprio.flags"].channels == ("mixed.on",)
    assert values_of(tracks["text.phase"]).tolist() == ["reach", "grasp"]
    assert [values_of(tracks[f"text.{n}"]).tolist() for n in ("note", "goal")] == [["keep it level"], ["a cup"]]
    values, clock = tracks["proprio.ragged"].read()
    assert values.tolist() == [[1, 2], [3, 4]] and clock.times_ns[1] == round(2 * NS * 1001 / 30000)
    why = {"complex": "neither numbers nor words", "film": "neither numbers nor words", "odd": "different lengths",
           "nothing": "holds nothing", "hollow": "holds nothing", "pair": "neither numbers", "round/again": "link back",
           "dangling": "a link to what is not there", "outside": "a link to what is not there", "virtual": "gone.h5",
           "sound": "has 400 rows, not 4", r"\xff_1": "not UTF-8"}  # fmt: skip
    for name, reason in why.items():
        assert any(name in line and reason in line for line in said), (name, said)
    assert len(said) == 8


def test_groups_with_clocks_of_their_own(tmp_path: Path) -> None:
    at = {
        "imu/timestamp": np.arange(40) / 100, "imu/acc": RNG.random((40, 3)), "imu/temperature": RNG.random(40),
        "camera/time": 0.05 + np.arange(4) / 10, "camera/rgb": colours(4), "camera/exposure": RNG.random(4),
        "joints": RNG.random((4, 6)), "wrench": RNG.random((5, 6)),
    }  # fmt: skip
    path = written(tmp_path / "a.h5", at=at, says={"/": {"task": "turn"}})
    tracks, said = read(path, actions=["joints"])
    clocks = {name: (track.read()[1].rate, track.read()[1].times_ns[0]) for name, track in tracks.items()}
    assert clocks.pop("text.task")[1] == 50 * MS
    assert clocks == {"proprio": (10, 50 * MS), "proprio.imu": (100, 0), "proprio.imu.acc": (100, 0),
                      "action.joints": (10, 50 * MS), "video.camera": (10, 50 * MS)}  # fmt: skip
    assert len(said) == 1 and "wrench has 5 rows, not 4" in said[0]
    refused(path, "its time imu/acc has 3 columns", time="imu/acc")
    one, _ = read(path, time="imu/timestamp")
    assert set(one) == {"proprio", "proprio.imu.acc", "text.task"}


def test_whole_numbers_of_a_unit_that_is_said(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.h5", {"obs/time": np.arange(4) * 20, "obs/q": np.zeros((4, 2)), "action": np.ones((4, 2))}
    )
    refused(path, "its time obs/time is whole numbers of an unknown unit")
    named = written(tmp_path / "b.h5", {"obs/time_ms": np.arange(4) * 20, "obs/q": np.zeros((4, 2))})
    for tracks in (read(path, unit="ms")[0], read(named)[0]):
        assert tracks["proprio.q"].read()[1].times_ns.tolist() == [0, 20 * MS, 40 * MS, 60 * MS]


def test_the_rate_that_is_nearest_counts(tmp_path: Path) -> None:
    at = {"data/demo_0/actions": np.zeros((5, 2)), "data/demo_1/actions": np.zeros((5, 2)), "data/demo_1/obs/fps": 12.5}
    env = json.dumps({"env_kwargs": {"control_freq": None}, "sim_args": {"dt": 0.005, "decimation": 4}})
    path = written(tmp_path / "a.h5", at=at, says={"/": {"fps": 10}, "data": {"env_args": env}})
    rates = [read(path, part)[0]["action"].clock.rate for part in parts_of(path)]  # type: ignore[union-attr]
    assert rates == [50, Fraction(25, 2)]
    with h5py.File(path, "a") as file:
        file["data/demo_0"].attrs["control_hz"] = "fast"
    refused(path, "a.h5 demo_0: its control_hz is 'fast'", "demo_0")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("data/demo_0/a", "data/demo_10/a", "data/demo_9/a", "mask/x"), ("demo_0", "demo_9", "demo_10")),
        (("data/demo_3/obs/q",), ("demo_3",)),
        (("Trial0/data/q", "Trial1/data/q"), ("Trial0", "Trial1")),
        (("0/a", "1/a", "2/a"), ("0", "1", "2")),
        (("train/episode_0/a", "test/episode_0/a", "test/episode_1/a"),
         ("test/episode_0", "test/episode_1", "train/episode_0")),
        (("robot_0/a", "robot_1/a"), ("",)),  # two arms
        (("cameras/0/a", "cameras/1/a", "qpos"), ("",)),
        (("cameras/0/a", "cameras/1/a"), ("",)),
        (("kitchen_1/a",), ("",)),
        (("kitchen_1/a", "kitchen_2/a"), ("kitchen_1", "kitchen_2")),
        (("kitchen_1/a", "kitchen_2/a", "q"), ("",)),
        (("kitchen_1/a", "kitchen_2/b"), ("",)),
        (("kitchen_1/a", "garden_2/a"), ("",)),
        (("observations/images/cam_1", "observations/images/cam_2", "action"), ("",)),
    ],
)  # fmt: skip
def test_which_groups_are_episodes(tmp_path: Path, names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    path = written(tmp_path / "a.h5", at={name: np.zeros(3) for name in names}, says={"/": {"fps": 9}})
    assert parts_of(path) == expected
    assert all(read(path, part)[0] for part in expected)


def test_episodes_that_hold_nothing_and_what_is_in_none(tmp_path: Path) -> None:
    at = {"data/demo_0/a": np.zeros(3), "data/demo_2/a": np.zeros((0, 2)), "data/mean": np.zeros(3), "norm/scale": 1.0}
    path = written(tmp_path / "a.h5", at=at, says={"data/demo_1": {}, "/": {"fps": 9}})
    with h5py.File(path, "a") as file:
        file["data/demo_3"] = h5py.ExternalLink("gone.h5", "/x")
    assert parts_of(path) == ("demo_0", "demo_1", "demo_2", "demo_3")
    assert read(path, "demo_0")[1] == [
        f"{path}: data/mean, norm: in none of its episodes (left out; the episodes are kept)"
    ]
    for part, expected in (("demo_1", "holds no rows"), ("demo_2", "holds no rows"), ("demo_3", "demo_3: ")):
        refused(path, expected, part)


# Pictures stay in the file


def test_no_more_of_a_film_is_read_than_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[int, int]] = []
    inner: Callable[..., np.ndarray] = Rows._read

    def counted(self: Rows, first: int, last: int) -> np.ndarray:
        spans.append((first, last))
        return inner(self, first, last)

    monkeypatch.setattr(Rows, "_read", counted)
    view = colours(150)
    floats = written(tmp_path / "floats.h5", at={"fps": 10, "rgb": (view / np.float32(255)).transpose(0, 3, 1, 2)})
    path = written(tmp_path / "a.h5", at={"fps": 10, "image": view})
    track = read(path)[0]["video"]
    assert spans == []
    path.rename(tmp_path / "moved.h5")  # nothing was held open, and nothing of it in memory
    with pytest.raises(InputError, match="no such file"):
        next(iter(track.blocks()))
    (tmp_path / "moved.h5").rename(path)
    spans.clear()
    assert shows(track, view)
    assert spans == [(n, min(n + 32, 150)) for n in range(0, 150, 32)]
    assert track.glance is not None and track.told_s == 15
    spans.clear()
    assert next(track.glance(0.5)).times_ns[0] == 7500 * MS  # type: ignore[index]
    assert spans[0][0] == 64 and len(spans) <= 2
    assert np.array_equal(values_of(read(floats)[0]["video"]), values_of(track))


def test_a_damaged_piece_costs_the_pictures_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    view = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file.create_dataset("image", data=view, chunks=(8, 16, 16, 3), compression="gzip")
        file.create_dataset("q", data=RNG.random((40, 2)), chunks=(40, 2), compression="gzip")
        file["p"] = np.zeros((40, 2))
        where = [file["image"].id.get_chunk_info(1).byte_offset, file["q"].id.get_chunk_info(0).byte_offset]
    content = bytearray(path.read_bytes())
    for offset in where:
        content[offset + 20 : offset + 60] = bytes(40)
    path.write_bytes(content)
    tracks, said = read(path)
    assert set(tracks) == {"video", "proprio.p"} and len(said) == 1 and "q: cannot be read: damaged" in said[0]
    assert tracks["video"].read()[1].times_ns.tolist() == [n * 100 * MS for n in range(40) if not 8 <= n < 16]
    assert "video: 8 of 40 pictures cannot be decoded" in said[1]


# Files that are broken


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.h5", at={"fps": 9, "a": np.zeros(3), "b": np.zeros((3, 2))})
    content = path.read_bytes()
    for name, data, expected in (
        ("cut.h5", content[:-300], f"is cut short: {len(content) - 300} of {len(content)} bytes are there"),
        ("none.h5", b"", "is empty (0 bytes)"), ("text.h5", b"time,x\n0,1\n" * 90, "is not an HDF5 file"),
        ("torn.h5", content[:96] + bytes([255]) * 900 + content[996:], "is an HDF5 file that is damaged"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name, expected)
    refused(tmp_path, "is a folder")
    refused(written(tmp_path / "void.h5"), "holds no rows")
    refused(written(tmp_path / "lone.h5", at={"x": 3.0}), "holds no rows")
    refused(
        written(tmp_path / "still.h5", at={"obs/time": np.zeros(3), "q": np.zeros(3)}), "time obs/time stands still"
    )
    refused(
        written(tmp_path / "uneven.h5", at={"fps": 9, "a": np.zeros(5), "b": np.zeros(9)}), "its arrays have [5, 9]"
    )
    refused(path, "has no column depth, pictures by episode.toml", pictures=["depth"])
    with h5py.File(tmp_path / "live.h5", "w", libver="latest") as file:
        file["a"] = np.zeros(3)
        file.swmr_mode = True
        content = (tmp_path / "live.h5").read_bytes()
    (tmp_path / "open.h5").write_bytes(content)
    refused(tmp_path / "open.h5", "is still open for writing")
    with h5py.File(tmp_path / "rare.h5", "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((3,))
        plan.set_filter(32123, h5py.h5z.FLAG_OPTIONAL, ())
        for name in ("packed", "plain"):
            made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((3,)), plan)
            made.write_direct_chunk((0,), np.arange(3.0).tobytes(), filter_mask=int(name == "plain"))
        file["fps"] = 9
    tracks, said = read(tmp_path / "rare.h5")
    assert values_of(tracks["proprio"]).tolist() == [[0], [1], [2]] and tracks["proprio"].channels == ("plain",)
    assert "packed: compressed by" in said[0] and "(32123), which is not there: pip install hdf5plugin" in said[0]
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a writer elsewhere, or a file system without locks
        assert set(read(path)[0]) == {"proprio", "proprio.b"}
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(written_copy(path), 'needs h5py (pip install "pantok[robots]")')


def written_copy(path: Path) -> Path:
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    return copy
