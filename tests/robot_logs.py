"""Logs of robots for tests, written by the writers that robots use: MCAP with messages of ROS 2, or of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as PlainWriter
from mcap_ros2.writer import Writer

from pantok.experience import Track
from pantok.formats.mcap_log import read_log

T0 = 1_714_564_800_250_000_000  # 2024-05-01 12:00:00.25 UTC
MS = 1_000_000
_PARTS = {
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "geometry_msgs/Vector3": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Quaternion": "float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1",
    "std_msgs/MultiArrayLayout": "std_msgs/MultiArrayDimension[] dim\nuint32 data_offset",
    "std_msgs/MultiArrayDimension": "string label\nuint32 size\nuint32 stride",
}
TYPES = {
    "sensor_msgs/msg/Imu": "# of a robot\nstd_msgs/Header header\ngeometry_msgs/Quaternion orientation\n"
    "float64[9] orientation_covariance # row major\ngeometry_msgs/Vector3 angular_velocity\n"
    "geometry_msgs/Vector3 linear_acceleration\n",
    "sensor_msgs/msg/JointState": "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\n"
    "float64[] effort",
    "sensor_msgs/msg/Joy": "std_msgs/Header header\nfloat32[] axes\nint32[] buttons",
    "sensor_msgs/msg/LaserScan": "std_msgs/Header header\nfloat32 range_min\nfloat32[] ranges",
    "std_msgs/msg/Float64MultiArray": "std_msgs/MultiArrayLayout layout\nfloat64[] data",
    "std_msgs/msg/Float32": "float32 data",
    "std_msgs/msg/Bool": "bool data",
    "std_msgs/msg/String": "string data",
    "std_msgs/msg/Empty": "",
    "geometry_msgs/msg/Twist": "geometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular",
    "robot_msgs/msg/Status": "uint8 IDLE=0\nuint8 BUSY = 1\nuint8 mode\nint64 ticks\nstring phase",
    "tf2_msgs/msg/TFMessage": "float64[] transforms",
    "rcl_interfaces/msg/Log": "string msg",
    "sensor_msgs/msg/PointCloud2": "uint8[] data",
    "sensor_msgs/msg/CompressedImage": "std_msgs/Header header\nstring format\nuint8[] data",
    "sensor_msgs/msg/Image": "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    "uint8 is_bigendian\nuint32 step\nuint8[] data",
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    "string format",
}
Sent = tuple[str, str, Mapping[str, Any], int]
"""topic, type, content, log time in nanoseconds"""


def definition(text: str) -> str:
    """With all the types that it holds below it, as recorders write them."""
    held, waiting = [], [text]
    while waiting:
        part = waiting.pop()
        for name in _PARTS:
            if name in part and name not in held:
                held.append(name)
                waiting.append(_PARTS[name])
    return text + "".join(f"\n{'=' * 80}\nMSG: {name}\n{_PARTS[name]}\n" for name in held)


def header(time_ns: int) -> dict[str, Any]:
    return {"stamp": {"sec": time_ns // 10**9, "nanosec": time_ns % 10**9}, "frame_id": "base_link"}


def vector(values: Iterable[float]) -> dict[str, float]:
    return dict(zip("xyzw", map(float, values), strict=False))


def bag(
    path: Path, sent: Iterable[Sent], *, types: Mapping[str, str] = TYPES, chunk_size: int = 1024,
    compression: CompressionType = CompressionType.ZSTD,
) -> Path:  # fmt: skip
    with open(path, "wb") as file, Writer(file, chunk_size=chunk_size, compression=compression) as writer:
        schemas: dict[str, Any] = {}
        for topic, kind, content, log_ns in sent:
            if kind not in schemas:
                schemas[kind] = writer.register_msgdef(kind, definition(types[kind]))
            writer.write_message(topic, schemas[kind], content, log_ns, log_ns)
    return path


def raw_log(
    path: Path, sent: Iterable[tuple[str, int, bytes]], *, encoding: str, schema: tuple[str, str, bytes] | None = None,
    **options: Any,
) -> Path:  # fmt: skip
    """Messages of any encoding. sent: topic, time, content. schema: name, encoding, text."""
    with open(path, "wb") as file:
        writer = PlainWriter(file, **options)
        writer.start("", "test")
        number = 0 if schema is None else writer.register_schema(schema[0], schema[1], schema[2])
        channels: dict[str, int] = {}
        for topic, time_ns, content in sent:
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, encoding, number)
            writer.add_message(channels[topic], time_ns, content, time_ns)
        writer.finish()
    return path


def json_log(path: Path, sent: Iterable[tuple[str, int, Any]], schema: Any = None) -> Path:
    said = None if schema is None else ("robot.State", "jsonschema", json.dumps(schema).encode())
    return raw_log(path, ((t, n, json.dumps(c).encode()) for t, n, c in sent), encoding="json", schema=said)


def read(path: Path, **how: Any) -> tuple[dict[str, Track], list[str]]:
    """The tracks by name, and the problems, without the path at their beginning."""
    said: list[str] = []
    rules = how.pop("rules", {})
    tracks = {t.name: t for t in read_log(path, rules, said.append, **how)}
    return tracks, [line.removeprefix(f"{path}: ").removeprefix(f"{path} ") for line in said]


def encoded(rgb: np.ndarray, codec: str = "mjpeg") -> bytes:
    """A JPEG or PNG of a picture, uint8 (height, width, 3)."""
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
    form = "yuvj444p" if codec == "mjpeg" else "rgb24"
    player = av.CodecContext.create(codec, "w")
    player.width, player.height, player.pix_fmt, player.time_base = rgb.shape[1], rgb.shape[0], form, Fraction(1, 25)
    if codec == "mjpeg":
        player.options = {"qmin": "1", "qmax": "1", "strict": "unofficial"}
    frame = frame.reformat(format=form, dst_color_range=2 if codec == "mjpeg" else 0)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*player.encode(frame), *player.encode(None)))


def colours(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Pictures of tiles whose colours tell which they are, uint8 (count, height, width, 3)."""
    coarse = np.random.default_rng(6).integers(30, 220, (count, height // 16, width // 16, 3), dtype=np.uint8)
    return coarse.repeat(16, 1).repeat(16, 2)


def camera(pictures: np.ndarray, codec: str = "mjpeg") -> list[Sent]:
    said = "rgb8; jpeg compressed bgr8" if codec == "mjpeg" else "png"
    out: list[Sent] = []
    for i, rgb in enumerate(pictures):
        content = {"header": header(T0 + i * 40 * MS), "format": said, "data": encoded(rgb, codec)}
        out.append(("/front/image/compressed", "sensor_msgs/msg/CompressedImage", content, T0 + i * 40 * MS + 3))
    return out
