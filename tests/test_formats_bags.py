"""Bags of ROS 1 and of ROS 2 in SQLite, by the writers of rosbags: they give the tracks that MCAP gives."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats import bag_file
from pantok.formats.folder import find_episodes, read_episode
from pantok.formats.log_stream import Damage
from tests.robot_logs import MS, T0, TYPES, Sent, bag, encoded, header, read, vector

IMU, JOINTS, STATUS = "sensor_msgs/msg/Imu", "sensor_msgs/msg/JointState", "robot_msgs/msg/Status"
JPEG = "sensor_msgs/msg/CompressedImage"
UNSIGNED = {"uint8", "byte", "char"}


def store_of(name: Stores) -> Any:
    """The types of a distribution, and one of our own."""
    store = get_typestore(name)
    store.register(get_types_from_msg(TYPES[STATUS], STATUS))
    return store


def made(store: Any, kind: str, said: Any) -> Any:
    """A message of rosbags; what is not said of it is zero, or empty."""
    fields = {}
    for name, (form, what) in store.fielddefs[kind][1]:
        value = said.get(name)
        if form == 1:
            fields[name] = value if value is not None else "" if what[0] == "string" else 0
        elif form == 2:
            fields[name] = made(store, what, value or {})
        else:
            (inner, of), count = what
            plain = inner == 1 and of[0] != "string"
            if isinstance(value, bytes):
                fields[name] = np.frombuffer(value, np.uint8)
            else:
                fields[name] = np.array([0] * count if value is None else value, of[0]) if plain else value or []
    return store.types[kind](**fields)


def bag1(path: Path, sent: Iterable[Sent], packed: str = "none", chunk_size: int = 4000) -> Path:
    store, writer = store_of(Stores.ROS1_NOETIC), Writer1(path)
    writer.chunk_threshold = chunk_size
    if packed != "none":
        writer.set_compression(Writer1.CompressionFormat[packed.upper()])
    with writer:
        topics: dict[str, Any] = {}
        for topic, kind, content, log_ns in sent:
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(topics[topic], log_ns, store.serialize_ros1(made(store, kind, content), kind))
    return path


def bag2(path: Path, sent: Iterable[Sent], *, defined: bool = True, packed: bool = False) -> Path:
    """As recorders of ROS 2 write it, moved out of its folder. defined: whether it holds definitions of messages."""
    store, writer = store_of(Stores.ROS2_HUMBLE), Writer2(path.with_suffix(""), version=9)
    if packed:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        topics: dict[str, Any] = {}
        for topic, kind, content, log_ns in sent:
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(topics[topic], log_ns, store.serialize_cdr(made(store, kind, content), kind))
    (path.with_suffix("") / path.name).rename(path)
    if not defined:
        with sqlite3.connect(path) as database:
            database.execute("DROP TABLE message_definitions")
        database.close()
    return path


def everything(count: int) -> list[Sent]:
    """Numbers of all kinds, joints in changing order, words, times of headers and of the log, a type of our own."""
    rng = np.random.default_rng(1)
    sent: list[Sent] = []
    for i in range(count):
        at = T0 + i * 10 * MS
        values = rng.normal(size=10)
        imu = {"orientation": vector(values[:4]), "angular_velocity": vector(values[4:7])}
        imu["linear_acceleration"] = vector(values[7:])
        sent.append(("/imu", IMU, {"header": header(at), **imu}, at + int(rng.integers(MS))))
        names = [str(name) for name in rng.permutation(["hip", "knee", "ankle"])]
        joints = {"header": header(at), "name": names, "position": rng.normal(size=3).tolist()}
        sent.append(("/arm/joint_states", JOINTS, joints, at + 2 * MS))
        axes = rng.normal(size=2).astype(np.float32).tolist()
        sent.append(("/joy", "sensor_msgs/msg/Joy", {"header": header(at), "axes": axes, "buttons": [i, -i]}, at + MS))
        twist = {"linear": vector(rng.normal(size=3)), "angular": vector(rng.normal(size=3))}
        sent.append(("/cmd_vel", "geometry_msgs/msg/Twist", twist, at + 3 * MS))
        sent.append(("/estop", "std_msgs/msg/Bool", {"data": i % 3 == 0}, at + 4 * MS))
        status = {"mode": i % 2, "ticks": 2**60 + i, "phase": "reach" if i < 5 else "grasp"}
        sent.append(("/status", STATUS, status, at + 5 * MS))
    sent.append(("/say", "std_msgs/msg/String", {"data": "né"}, T0 + 30 * MS))
    sent.append(("/points", "sensor_msgs/msg/PointCloud2", {"data": b"1234"}, T0))
    return sent


def same(found: dict[str, Track], want: dict[str, Track]) -> None:
    assert set(found) == set(want)
    for name, track in want.items():
        values, clock = found[name].read()
        wanted, at = track.read()
        assert values.dtype == wanted.dtype and (values == wanted).all(), name
        assert (clock.times_ns == at.times_ns).all() and found[name].channels == track.channels
        assert found[name].info == track.info and found[name].units == track.units


@pytest.mark.parametrize("form", ["none", "bz2", "lz4", "db3", "db3 without definitions", "db3 packed"])
def test_bags_give_the_tracks_that_mcap_gives(tmp_path: Path, form: str) -> None:
    sent = everything(40)
    want, said = read(bag(tmp_path / "a.mcap", sent))
    assert len(want) == 10 and said == ["topics that are not read: /points (sensor_msgs/PointCloud2)"]
    if form.startswith("db3"):
        path = bag2(tmp_path / "b.db3", sent, defined="without" not in form, packed="packed" in form)
    else:
        path = bag1(tmp_path / "b.bag", sent, form)
    found, said_too = read(path)
    if "without" in form:  # all but the type that no distribution knows
        want = {name: track for name, track in want.items() if "status" not in name}
        said = [
            "topics that are not read: /status (robot_msgs/Status: cdr messages, no schema), "
            "/points (sensor_msgs/PointCloud2)"
        ]
    assert said_too == said
    same(found, want)


def test_definitions_in_idl_are_read(tmp_path: Path) -> None:
    path = bag2(tmp_path / "a.db3", everything(20))
    want = read(path)[0]
    idl = f"{'=' * 80}\nIDL: robot_msgs/msg/Status\nmodule robot_msgs {{ module msg {{ struct Status {{\n"
    idl += "uint8 mode;\nint64 ticks;\nstring phase;\n}; }; };\n"
    with sqlite3.connect(path) as database:
        database.execute(
            "UPDATE message_definitions SET encoding = 'ros2idl', encoded_message_definition = ? WHERE topic_type = ?",
            (idl, STATUS),
        )
    database.close()
    same(read(path)[0], want)


@pytest.mark.parametrize("form", ["bag", "db3"])
def test_pictures_are_fetched_when_they_are_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = np.random.default_rng(6).integers(30, 220, (60, 2, 3, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    sent: list[Sent] = []
    for i, rgb in enumerate(tiles):
        picture = {"header": header(T0 + i * 40 * MS), "format": "jpeg", "data": encoded(rgb)}
        sent.append(("/cam", JPEG, picture, T0 + i * 40 * MS + 3))
    want = read(bag(tmp_path / "a.mcap", sent))[0]
    path = bag1(tmp_path / "b.bag", sent, "lz4") if form == "bag" else bag2(tmp_path / "b.db3", sent)
    chunks = 0 if form == "db3" else sum(len(r) > 1 for _, r in bag_file._records(path, Damage()))
    kind = bag_file.Fetched if form == "bag" else bag_file._FetchedRows
    asked, at, unpacked, unpack = [], kind.at, [], bag_file._unpacked
    monkeypatch.setattr(kind, "at", lambda self, place: asked.append(place) or at(self, place))
    monkeypatch.setattr(bag_file, "_unpacked", lambda *record: unpacked.append(1) or unpack(*record))
    found, said = read(path)
    assert said == [] and len(asked) == 1
    same(found, want)
    asked.clear()
    unpacked.clear()
    blocks = found["video.cam"].blocks()
    assert len(next(blocks)) == len(asked) == 32 and len(unpacked) <= chunks / 60 * 33 + 1
    assert sum(map(len, blocks)) == 28 and len(asked) == 60 and len(unpacked) == chunks


def test_bags_of_ros_1_that_end_anywhere(tmp_path: Path) -> None:
    """A recorder that was killed leaves no index: what its bag holds is read, and the remedy said."""
    sent = everything(60)
    path = bag1(tmp_path / "a.bag", sent, "lz4")
    want, whole = read(path)[0]["proprio.imu"].read()[0], path.read_bytes()
    cut, seen = tmp_path / "cut.bag", set()
    for length in range(100, len(whole), 4211):
        cut.write_bytes(whole[:length])
        if length < 7000:  # less than a chunk
            with pytest.raises(InputError, match="holds no messages"):
                read(cut)
            continue
        tracks, said = read(cut)
        found = tracks["proprio.imu"].read()[0]
        assert (found == want[: len(found)]).all() and said[0].startswith("it is cut off, or damaged from some place")
        assert "rosbag reindex" in said[0]
        seen.add(len(found))
    assert len(seen) > 4 and max(seen) > 50
    chunks = [at for at, records in bag_file._records(path, Damage()) if len(records) > 1]
    content = bytearray(whole)
    content[chunks[3] + 200] ^= 1
    cut.write_bytes(content)
    tracks, said = read(cut)
    assert said[0] == "1 of its chunks are damaged (left out; the others are kept)"
    assert 40 < len(tracks["proprio.imu"].read()[0]) < 60


def test_chunks_that_were_never_closed_are_read_record_by_record(tmp_path: Path) -> None:
    """As the recorder of ROS 1 leaves them when it is killed: of no length, their messages behind them."""
    path = bag1(tmp_path / "a.bag", everything(30), chunk_size=1 << 20)
    want = read(path)[0]
    whole = path.read_bytes()
    [at] = [at for at, records in bag_file._records(path, Damage()) if len(records) > 1]
    (length,) = struct.unpack_from("<I", whole, at)
    data = at + 4 + length
    (size,) = struct.unpack_from("<I", whole, data)
    killed = tmp_path / "a.bag.active"
    begin = whole[:at].replace(struct.pack("<Q", whole.index(b"op=\x07", data + 4 + size) - 8), bytes(8))
    killed.write_bytes(begin + whole[at:data] + bytes(4) + whole[data + 4 : data + 4 + size - 9])
    said: list[str] = []
    [found] = find_episodes([killed])
    tracks = read_episode(found, problems=said.append).tracks
    assert said[0].startswith(f"{killed}: it is cut off") and "rosbag reindex" in said[0]
    assert set(tracks) >= {name for name in want if name != "text.say"}
    assert (tracks["proprio.imu"].read()[0] == want["proprio.imu"].read()[0]).all()


@pytest.mark.parametrize("suffix", ["bag", "db3"])
@pytest.mark.parametrize("content", [b"", b"PK\3\4 a zip archive", b"#ROSBAG V1.2\n", b"#ROSBAG V2.0\n"])
def test_what_is_no_bag_is_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    [found] = find_episodes([path])
    with pytest.raises(InputError, match=r"is empty|is not a bag of ROS|of another version|holds no messages") as error:
        read_episode(found)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_damaged_databases_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    sent = everything(200)
    path = bag2(tmp_path / "a.db3", sent)
    want, whole = read(path)[0]["proprio.imu"].read()[0], path.read_bytes()
    cut = tmp_path / "cut.db3"
    seen = set()
    for length in range(4096, len(whole), 5 * 4096):
        cut.write_bytes(whole[: length + 77])
        with pytest.raises(InputError, match="is cut off") as error:
            read(cut)
        assert str(error.value).startswith(f"{cut}: ") and "\n" not in str(error.value)
        cut.write_bytes(whole[:length])
        if length < 30000:  # less than the definitions
            with pytest.raises(InputError, match="that can be read"):
                read(cut)
            continue
        tracks, said = read(cut)
        found = tracks["proprio.imu"].read()[0]
        assert said[0] == "it is cut off, or damaged from some place on (what comes before that is kept)"
        assert (found == want[: len(found)]).all()
        seen.add(len(found))
    assert len(seen) > 4 and max(seen) > 150
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE topics")
    database.close()
    with pytest.raises(InputError, match="is not a bag of ROS 2 that can be read: no such table: topics"):
        read(path)


def test_a_database_in_use_is_read_as_it_lies(tmp_path: Path) -> None:
    path = bag2(tmp_path / "a.db3", everything(20))
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("INSERT INTO messages VALUES (100000, 1, 5, x'00')")
    database.commit()
    database.execute("BEGIN EXCLUSIVE")
    before = sorted(tmp_path.iterdir())
    tracks, said = read(path)
    assert len(tracks["proprio.imu"].read()[0]) == 20 and sorted(tmp_path.iterdir()) == before
    assert said[0] == (
        "messages that still lie in a.db3-wal are left out (sqlite3 a.db3 'PRAGMA wal_checkpoint' takes them in)"
    )
    database.close()


def test_libraries_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [bag1(tmp_path / "a.bag", everything(3)), bag2(tmp_path / "b.db3", everything(3))]
    monkeypatch.setitem(sys.modules, "rosbags.rosbag1", None)
    for path in paths:
        with pytest.raises(InputError) as error:
            read(path)
        assert str(error.value) == f'{path}: needs rosbags (pip install "pantok[robots]")'


def test_a_definition_is_never_a_program(tmp_path: Path) -> None:
    """What makes decoders of ROS 1 runs Python that it writes by definitions; those of bags are looked at, too."""
    written = tmp_path / "written"
    text = f"string print; open({str(written)!r}, 'w'); y=1\nfloat64 data\n"
    with Writer1(tmp_path / "a.bag") as writer:
        good = writer.add_connection("/good", "x/msg/T", msgdef=text, md5sum="0" * 32)
        bad = writer.add_connection("/bad", "x/msg/U", msgdef=text.replace("=1", ""), md5sum="0" * 32)
        for i in range(3):
            writer.write(good, T0 + i, struct.pack("<d", i))
            writer.write(bad, T0 + i, struct.pack("<d", i))
    tracks, said = read(tmp_path / "a.bag")
    assert tracks["proprio.good"].read()[0][:, 0].tolist() == [0, 1, 2] and not written.exists()
    assert said == ["topics that are not read: /bad (x/U: its definition cannot be read)"]
