"""Robots' logs in MCAP: what was sent comes back, at its instants, whatever order, encoding or damage."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2 as descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType

from pantok.errors import InputError
from pantok.formats import mcap_file
from pantok.formats.folder import find_episodes, read_episode
from pantok.formats.mcap_log import read_log
from tests.robot_logs import MS, T0, Sent, bag, camera, colours, header, json_log, raw_log, read, vector

IMU, JOINTS, JOY = "sensor_msgs/msg/Imu", "sensor_msgs/msg/JointState", "sensor_msgs/msg/Joy"
JPEG, IMAGE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"


def imu(time_ns: int, values: np.ndarray) -> dict[str, Any]:
    """values: (10,)"""
    parts = {"orientation": values[:4], "angular_velocity": values[4:7], "linear_acceleration": values[7:]}
    return {"header": header(time_ns), **{name: vector(part) for name, part in parts.items()}}


def imus(count: int, step_ns: int = 5 * MS) -> tuple[list[Sent], np.ndarray]:
    values = np.random.default_rng(1).normal(size=(count, 10))
    late = np.random.default_rng(2).integers(0, MS, count).tolist()
    times = [T0 + i * step_ns for i in range(count)]
    return [("/imu/data", IMU, imu(t, v), t + n) for t, v, n in zip(times, values, late, strict=True)], values


def test_numbers_keep_their_values_types_and_instants(tmp_path: Path) -> None:
    sent, values = imus(300)
    axes, buttons = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32), np.arange(80).reshape(40, 2)
    jitter = np.random.default_rng(4).integers(0, 9 * MS, 40)
    for i in range(40):
        at = int(T0 + 20 * MS * i + jitter[i])
        sent.append(("/joy", JOY, {"header": header(at), "axes": axes[i].tolist(), "buttons": buttons[i].tolist()}, at))
        twist = {"linear": vector((i, 0, 0)), "angular": vector((0, 0, -i))}
        sent.append(("/base/cmd_vel", "geometry_msgs/msg/Twist", twist, at + 1))
        sent.append(("/action", "std_msgs/msg/Float64MultiArray", {"data": [i / 3, i / 7]}, at + 2))
        sent.append(("/reward", "std_msgs/msg/Float32", {"data": i / 3}, at + 3))
        sent.append(("/estop", "std_msgs/msg/Bool", {"data": i % 2 == 1}, at + 4))
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    assert said == []
    got = {name: track.read() for name, track in tracks.items()}
    assert {name: v.dtype for name, (v, _) in got.items()} == {
        "proprio.imu.data": np.float64, "proprio.joy": np.float32, "proprio.joy.counts": np.int32, "action": np.float64,
        "action.base.cmd_vel": np.float64, "reward": np.float32, "proprio.estop": bool,
    }  # fmt: skip
    found, clock = got["proprio.imu.data"]
    assert (found == values).all() and (clock.rate, clock.start_ns, clock.count) == (200, 0, 300)
    assert tracks["proprio.imu.data"].channels[4:] == tuple(
        f"{part}.{axis}" for part in ("angular_velocity", "linear_acceleration") for axis in "xyz"
    )
    assert tracks["proprio.imu.data"].units[3:8] == ("", "rad/s", "rad/s", "rad/s", "m/s^2")
    assert tracks["proprio.imu.data"].info | {"epoch_ns": T0, "time": "header.stamp"} == tracks["proprio.imu.data"].info
    assert (got["proprio.joy"][0] == axes).all() and (got["proprio.joy.counts"][0] == buttons).all()
    at = 20 * MS * np.arange(40) + jitter
    assert (got["proprio.joy"][1].times_ns == at).all() and (got["reward"][1].times_ns == at + 3).all()
    assert tracks["reward"].info["time"] == "log_time"
    assert got["action.base.cmd_vel"][0][7].tolist() == [7, 0, 0, 0, 0, -7]
    assert (got["action"][0] == np.arange(40)[:, None] / [3, 7]).all() and tracks["action"].channels == (
        "data.0",
        "data.1",
    )
    assert (got["proprio.estop"][0][:, 0] == np.arange(40) % 2).all()
    assert set(read(tmp_path / "a.mcap", rules={"actions": ["/joy"]})[0]) >= {"action.joy", "action.joy.counts"}
    with pytest.raises(InputError, match="has no topic nope"):
        read(tmp_path / "a.mcap", rules={"actions": ["nope"]})


def test_joints_go_by_their_names_in_any_order_and_may_be_missing(tmp_path: Path) -> None:
    rng, order = np.random.default_rng(5), ["hip", "knee", "ankle"]
    want = np.full((60, 6), np.nan)
    sent: list[Sent] = []
    for i in range(60):
        names = list(rng.permutation(order)[: 3 if i % 4 else 2])
        position, velocity = rng.normal(size=len(names)), rng.normal(size=len(names))
        for name, p, v in zip(names, position, velocity, strict=True):
            want[i, order.index(name)], want[i, 3 + order.index(name)] = p, v
        joints = {"header": header(T0 + i * 20 * MS), "name": names, "position": position.tolist()}
        sent.append(("/joint_states", JOINTS, joints | {"velocity": velocity.tolist(), "effort": []}, T0 + i * 20 * MS))
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    values, clock = tracks["proprio.joint_states"].read()
    channels = [f"{kind}.{name}" for kind in ("position", "velocity") for name in order]
    assert sorted(tracks["proprio.joint_states"].channels) == sorted(channels) and said == []
    at = [tracks["proprio.joint_states"].channels.index(c) for c in channels]
    assert np.array_equal(values[:, at], want, equal_nan=True) and clock.rate == 50


def test_times_are_of_the_header_unless_it_tells_none(tmp_path: Path) -> None:
    def one(topic: str, stamp: int, log: int, value: float) -> Sent:
        return topic, JOY, {"header": header(stamp), "axes": [value], "buttons": []}, log

    sent = [one("/unset", 0, T0 + i * 3 * MS, i) for i in range(10)]
    sent += [one("/simulated", 10**9 + i * MS, T0 + i * 3 * MS + 1, i) for i in range(10)]
    sent += [one("/stuck", T0, T0 + i * 3 * MS + 2, i) for i in range(10)]
    mixed = [3, 0, 1, 2, 2, 5, 4]
    sent += [one("/mixed", T0 + k * MS, T0 + i * MS, i) for i, k in enumerate(mixed * 3) if i < 7]
    sent += [one("/mixed", T0 + k * MS, T0 + k * MS, k) for k in range(10, 30)]
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    for name, off in (("unset", 0), ("simulated", 1), ("stuck", 2)):
        assert tracks[f"proprio.{name}"].info["time"] == "log_time"
        assert (tracks[f"proprio.{name}"].read()[1].times_ns == np.arange(10) * 3 * MS + off).all()
    values, clock = tracks["proprio.mixed"].read()
    assert values[:, 0].tolist() == [1, 2, 3, 0, 6, 5, *range(10, 30)]  # by time; of two at once the first
    assert (clock.times_ns == np.array([*range(6), *range(10, 30)]) * MS).all()
    assert said == ["messages at the instant of one before them (left out): 1 of /mixed"]
    forced, _ = read(tmp_path / "a.mcap", rules={"time": "header.stamp", "offset_s": 2})
    assert forced["proprio.unset"].clock.start_ns == 2 * 10**9
    with pytest.raises(InputError, match=r"one of header\.stamp, publish_time, log_time"):
        read(tmp_path / "a.mcap", rules={"time": "clock"})


PLAIN = {"bool": st.booleans(), "string": st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5)}
for bits in (8, 16, 32, 64):
    PLAIN |= {
        f"int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1),
        f"uint{bits}": st.integers(0, 2**bits - 1),
    }
PLAIN |= {f"float{w}": st.floats(width=w, allow_nan=False) for w in (32, 64)}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_number_of_every_message_comes_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of any type: fields of all kinds, lists of them, types within types, strings of any length between them."""
    kinds = st.sampled_from(sorted(PLAIN))
    inner = data.draw(st.lists(kinds, min_size=1, max_size=3))
    outer = data.draw(
        st.lists(st.tuples(kinds | st.just("x/Inner"), st.sampled_from(["", "[2]", "[]"])), min_size=1, max_size=6)
    )
    lengths = [data.draw(st.integers(0, 3)) if many == "[]" else 2 for _, many in outer]
    text = "\n".join(f"{kind}{many} f{i}" for i, (kind, many) in enumerate(outer)) + "\nint8 last"
    text += f"\n{'=' * 80}\nMSG: x/Inner\n" + "\n".join(f"{kind} g{i}" for i, kind in enumerate(inner))
    want: dict[str, list[Any]] = {}

    def made(kind: str, path: str) -> Any:
        if kind == "x/Inner":
            return {f"g{i}": made(k, f"{path}.g{i}") for i, k in enumerate(inner)}
        value = data.draw(PLAIN[kind])
        want.setdefault(path, []).append((kind, value))
        return value

    sent: list[Sent] = []
    for number in range(data.draw(st.integers(1, 4))):
        content: dict[str, Any] = {"last": number}
        for i, ((kind, many), length) in enumerate(zip(outer, lengths, strict=True)):
            one = [made(kind, f"f{i}.{n}") for n in range(length)] if many else made(kind, f"f{i}")
            content[f"f{i}"] = one
        sent.append(("/t", "x/msg/T", content, T0 + number))
    path = bag(tmp_path_factory.mktemp("any") / "a.mcap", sent, types={"x/msg/T": text})
    tracks, said = read(path)
    assert said == []
    columns = {
        name: track.read()[0][:, c]
        for track in tracks.values()
        if track.kind != "text"
        for c, name in enumerate(track.channels)
    }
    numbers = {name: cells for name, cells in want.items() if cells[0][0] != "string"}
    assert set(columns) == {*numbers, "last"}
    for name, cells in numbers.items():
        assert columns[name].dtype == np.dtype(cells[0][0]) and columns[name].tolist() == [value for _, value in cells]


@pytest.mark.parametrize("packed", list(CompressionType))
def test_all_ways_of_packing_are_read_as_the_writer_s_own_reader_does(tmp_path: Path, packed: CompressionType) -> None:
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    sent, values = imus(100)
    path = bag(tmp_path / "a.mcap", sent, compression=packed, chunk_size=2000)
    with open(path, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        own = [m.decoded_message.angular_velocity.y for m in reader.iter_decoded_messages()]
    assert read(path)[0]["proprio.imu.data"].read()[0][:, 5].tolist() == own == values[:, 5].tolist()


def test_messages_without_chunks_or_index(tmp_path: Path) -> None:
    with open(bag(tmp_path / "a.mcap", imus(50)[0]), "rb") as file:
        found = list(mcap_file.messages(Path(file.name), lambda channel: True, mcap_file.Damage()))
    schema = (IMU, "ros2msg", found[0][0].schema)
    sent = [(channel.topic, log, content) for channel, log, _, content, _ in found]
    plain = raw_log(tmp_path / "b.mcap", sent, encoding="cdr", schema=schema, use_chunking=False, use_statistics=False)
    assert (read(plain)[0]["proprio.imu.data"].read()[0] == imus(50)[1]).all()


def ros1(stamp_ns: int, value: float, frame: bytes) -> bytes:
    stamp = struct.pack("<II", *divmod(stamp_ns, 10**9))
    return struct.pack("<I8sI", 7, stamp, len(frame)) + frame + struct.pack("<bd", -3, value) + stamp


def test_messages_of_ros_1(tmp_path: Path) -> None:
    """The library makes a program of their definition: nothing of a log may get into it that is no type or name."""
    program = f"string print; open({str(tmp_path / 'written')!r}, 'w'); y=1\n".encode()
    text = (
        b"# a=b\nHeader header\nbyte level # of water\nint8 LOW=-3\n"
        + program
        + b"float64  data\ntime due\n"
        + b"=" * 80
    )
    text += b"\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n"
    sent = [("/t", T0 + i * MS, ros1(T0 + 2 * i * MS, i / 3, b"abc"[: i % 4])) for i in range(9)]
    tracks, said = read(raw_log(tmp_path / "a.mcap", sent, encoding="ros1", schema=("x/T", "ros1msg", text)))
    assert said == [] and not (tmp_path / "written").exists()
    assert set(tracks) == {"proprio.t", "proprio.t.int8", "proprio.t.uint32"}
    values, clock = tracks["proprio.t"].read()
    assert values[:, 0].tolist() == [i / 3 for i in range(9)] and clock.rate == 500
    counts = tracks["proprio.t.int8"].read()[0]
    assert counts.dtype == np.int8 and (counts == -3).all()
    assert tracks["proprio.t.uint32"].channels == ("due.sec", "due.nanosec")
    for number, (name, bad) in enumerate([("x/T(object)", text), ("x/T", text.replace(b"std_msgs/H", b"x; y/H"))]):
        schema = (name, "ros1msg", bad)
        with pytest.raises(InputError, match="no topic that can be read"):
            read(raw_log(tmp_path / f"{number}.mcap", sent, encoding="ros1", schema=schema))


def test_libraries_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bag(tmp_path / "a.mcap", [*imus(3)[0]])
    monkeypatch.setitem(sys.modules, "mcap_ros2.decoder", None)
    lines: list[str] = []
    with pytest.raises(InputError, match="no topic that can be read"):
        read_log(path, {}, lines.append)
    needs = 'needs mcap-ros2-support, pip install "pantok[robots]"'
    assert lines == [f"{path}: topics that are not read: /imu/data (sensor_msgs/Imu: {needs})"]
    monkeypatch.setitem(sys.modules, "mcap.records", None)
    with pytest.raises(InputError) as error:
        read_log(path, {}, print)
    assert str(error.value) == f'{path}: needs mcap (pip install "pantok[robots]")'


def test_objects_of_json(tmp_path: Path) -> None:
    def state(i: int) -> dict[str, Any]:
        pose = {"x": i, "y": [i / 2, 1]} | ({} if i == 3 else {"z": 1.5})
        now = {"sec": (T0 + i * MS) // 10**9, "nsec": (T0 + i * MS) % 10**9}
        return {
            "timestamp": now,
            "pose": pose,
            "n": i,
            "m": i + 0.5,
            "on": i > 2,
            "phase": "go" if i < 4 else "stop",
            "rest": None,
        }

    schema = {
        "properties": {
            "pose": {"properties": {"x": {"type": "number"}}},
            "n": {"type": "integer"},
            "m": {"type": "integer"},
        }
    }
    sent: list[tuple[str, int, Any]] = [("/state", T0 + i * 2 * MS, state(i)) for i in range(6)]
    tracks, said = read(json_log(tmp_path / "a.mcap", [*sent, ("/state", T0 + MS, "no object")], schema))
    assert said == ["messages that do not decode (left out; the others are kept): 1 of 7 of /state"]
    values, clock = tracks["proprio.state"].read()
    assert tracks["proprio.state"].channels == ("pose.x", "pose.y.0", "pose.y.1", "pose.z", "m")
    assert values[:, :3].tolist() == [[i, i / 2, 1] for i in range(6)] and clock.rate == 1000
    assert np.array_equal(values[:, 3], [1.5, 1.5, 1.5, np.nan, 1.5, 1.5], equal_nan=True)
    assert tracks["proprio.state.counts"].read()[0][:, 0].tolist() == list(range(6))
    assert tracks["proprio.state.flags"].read()[0].dtype == bool
    words, at = tracks["text.state"].read()
    assert words.tolist() == ["go", "stop"] and at.times_ns.tolist() == [0, 4 * MS]
    plain, _ = read(json_log(tmp_path / "b.mcap", [("/x", 5 + i, {"a": i}) for i in range(3)]))
    assert plain["proprio.x"].clock.start_ns == 5 and "epoch_ns" not in plain["proprio.x"].info


def test_messages_of_protocol_buffers(tmp_path: Path) -> None:
    kinds = descriptor.FieldDescriptorProto
    inner = descriptor.DescriptorProto(name="Point", field=[kinds(name="x", number=1, type=1, label=1)])
    fields = [
        kinds(name="at", number=1, type=11, type_name=".t.Point", label=1),
        kinds(name="f", number=2, type=2, label=3),
    ]
    outer = descriptor.DescriptorProto(name="Pose", field=[*fields, kinds(name="n", number=3, type=5, label=1)])
    file = descriptor.FileDescriptorProto(name="t.proto", package="t", message_type=[inner, outer], syntax="proto3")
    text = descriptor.FileDescriptorSet(file=[file]).SerializeToString()

    def sent(i: int) -> bytes:
        at = b"\x0a\x09\x09" + struct.pack("<d", i / 3) if i != 1 else b""
        return at + b"\x12\x08" + struct.pack("<ff", i, 0.1) + b"\x18" + bytes([i])

    log = [("/pose", T0 + i * MS, sent(i)) for i in range(5)] + [("/pose", T0 + 9 * MS, b"\xff")]
    tracks, said = read(raw_log(tmp_path / "a.mcap", log, encoding="protobuf", schema=("t.Pose", "protobuf", text)))
    assert said == ["messages that do not decode (left out; the others are kept): 1 of 6 of /pose"]
    wide = tracks["proprio.pose.float64"].read()[0][:, 0]
    assert np.array_equal(wide, [0, np.nan, 2 / 3, 1, 4 / 3], equal_nan=True)
    short = tracks["proprio.pose.float32"].read()[0]
    assert short.dtype == np.float32 and (short == np.array([[i, 0.1] for i in range(5)], np.float32)).all()
    assert tracks["proprio.pose.counts"].read()[0].dtype == np.int32


def test_words_are_spans_at_their_instants(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/say", "std_msgs/msg/String", {"data": w}, T0 + i * 700 * MS) for i, w in enumerate(["go", "go", "", "né"])
    ]
    for i in range(8):
        status = {"mode": i % 2, "ticks": 2**60 + i, "phase": "reach" if i < 5 else "grasp"}
        sent.append(("/status", "robot_msgs/msg/Status", status, T0 + i * 10 * MS))
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    words, clock = tracks["text.say"].read()
    assert words.tolist() == ["go", "go", "né"] and clock.times_ns.tolist() == [0, 700 * MS, 2100 * MS]
    words, clock = tracks["text.status"].read()
    assert words.tolist() == ["reach", "grasp"] and clock.times_ns.tolist() == [0, 50 * MS] and said == []
    assert tracks["text.status"].info["ends_ns"] == [50 * MS, 80 * MS]
    assert tracks["proprio.status.int64"].read()[0][:, 0].tolist() == [2**60 + i for i in range(8)]
    assert tracks["proprio.status.uint8"].channels == ("mode",)


def test_what_is_left_out_is_said_in_a_line_a_kind(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/tf", "tf2_msgs/msg/TFMessage", {"transforms": [1.0]}, T0),
        ("/rosout", "rcl_interfaces/msg/Log", {"msg": "hello"}, T0),
        ("/points", "sensor_msgs/msg/PointCloud2", {"data": b"1234"}, T0),
        ("/tick", "std_msgs/msg/Empty", {}, T0),
        ("/map", "std_msgs/msg/Float64MultiArray", {"data": [0.0] * 5000}, T0),
    ]
    for i in range(6):
        content = {"header": header(T0 + i), "range_min": 0.5, "ranges": [1.0] * (3 + i % 2 * i)}
        sent.append((f"/scan{i % 2}", "sensor_msgs/msg/LaserScan", content, T0 + i))
    depth = {"header": header(T0), "height": 8, "width": 8, "encoding": "16UC1", "step": 16, "data": bytes(128)}
    sent.append(("/depth", IMAGE, depth, T0))
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    assert said == [
        "lists of different lengths (left out): ranges of /scan1",
        "topics that are not read: /points (sensor_msgs/PointCloud2), "
        "/map (std_msgs/Float64MultiArray: more than 4096 numbers in a message), "
        "/depth (sensor_msgs/Image: depth, 16uc1)",
    ]
    assert {name: len(track.channels) for name, track in tracks.items()} == {"proprio.scan0": 4, "proprio.scan1": 1}
    with pytest.raises(InputError, match="no topic that can be read"):
        read(bag(tmp_path / "b.mcap", sent[:2]))


def test_files_that_end_anywhere(tmp_path: Path) -> None:
    sent, values = imus(200)
    whole = bag(tmp_path / "a.mcap", sent, chunk_size=4000).read_bytes()
    cut = tmp_path / "cut.mcap"
    seen = set()
    for length in range(8, len(whole), 1511):
        cut.write_bytes(whole[:length])
        try:
            tracks, said = read(cut)
        except InputError:
            assert length < 6000
            continue
        found = tracks["proprio.imu.data"].read()[0]
        assert (found == values[: len(found)]).all()
        assert said in ([], ["it is cut off, or damaged from some place on (what comes before that is kept)"])
        assert said or len(found) == 200
        seen.add(len(found))
    assert len(seen) > 8 and max(seen) == 200


def test_damaged_chunks_cost_themselves_alone(tmp_path: Path) -> None:
    sent, values = imus(200)
    path = bag(tmp_path / "a.mcap", sent, chunk_size=4000, compression=CompressionType.NONE)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    tracks, said = read(path)
    assert said == ["1 of its chunks are damaged (left out; the others are kept)"]
    found = tracks["proprio.imu.data"].read()[0]
    assert 180 < len(found) < 200 and (np.isin(found[:, 0], values[:, 0])).all()


def test_messages_that_do_not_decode_are_counted(tmp_path: Path) -> None:
    source = bag(tmp_path / "a.mcap", imus(50)[0])
    found = list(mcap_file.messages(source, lambda channel: True, mcap_file.Damage()))
    sent = [(c.topic, log, content[:40] if i % 10 == 3 else content) for i, (c, log, _, content, _) in enumerate(found)]
    path = raw_log(tmp_path / "b.mcap", sent, encoding="cdr", schema=(IMU, "ros2msg", found[0][0].schema))
    tracks, said = read(path)
    assert said == ["messages that do not decode (left out; the others are kept): 5 of 50 of /imu/data"]
    values, clock = tracks["proprio.imu.data"].read()
    kept = [i for i in range(50) if i % 10 != 3]
    assert (values == imus(50)[1][kept]).all() and (clock.times_ns == np.array(kept) * 5 * MS).all()
    source = bag(tmp_path / "c.mcap", camera(colours(4)))
    found = list(mcap_file.messages(source, lambda channel: True, mcap_file.Damage()))
    sent = [(c.topic, log, content[: 9 if i == 1 else None]) for i, (c, log, _, content, _) in enumerate(found)]
    path = raw_log(tmp_path / "d.mcap", sent, encoding="cdr", schema=(JPEG, "ros2msg", found[0][0].schema))
    tracks, said = read(path)
    assert said == ["messages that do not decode (left out; the others are kept): 1 of 4 of /front/image/compressed"]
    track = tracks["video.front.image.compressed"]
    assert (track.read()[1].times_ns == np.array([0, 2, 3]) * 40 * MS).all() and track.info["time"] == "header.stamp"


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "is empty"), (b"PK\3\4 a zip archive", "is not an MCAP log"), (mcap_file.MAGIC, "holds no messages")],
)
def test_what_is_no_log_is_one_line(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a.mcap"
    path.write_bytes(content)
    [found] = find_episodes([path])
    with pytest.raises(InputError, match=expected) as error:
        read_episode(found)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_logs_beside_other_recordings_are_on_one_clock(tmp_path: Path) -> None:
    sent = [*imus(20)[0], *camera(colours(3))]
    bag(tmp_path / "log.mcap", sent)
    episode = read_episode(find_episodes([tmp_path])[0])
    assert {t.info["epoch_ns"] for t in episode.tracks.values()} == {T0}
    rows = "\n".join(f"{(T0 + i * 100 * MS) / 10**9:.2f},{i}" for i in range(5))
    (tmp_path / "log.csv").write_text(f"t,x\n{rows}\n")
    tracks = read_episode(find_episodes([tmp_path])[0]).tracks
    assert len(tracks) == 3 and not any("epoch_ns" in t.info for t in tracks.values())
    assert {t.read()[1].start_ns for t in tracks.values()} == {T0}  # beside a table of dates they are dates
