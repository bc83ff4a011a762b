"""What the messages of robots' logs say: which are pictures, which numbers or words, and the columns that they make.

Messages of ROS, JSON objects and Protocol Buffers become the same columns, one for each number in a message, called by
its path: `linear_acceleration.x`, `ranges.17`, `position.elbow`, of the type that the message's definition says. What
says how a message is meant (headers, names of frames, layouts, covariances) is no column. Where lists are as long as
the `name`s beside them, their columns are called by these, in whatever order they come; a joint that a message leaves
out is NaN there.
"""

from __future__ import annotations

import base64
import binascii
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pantok.formats.log_stream import Channel
from pantok.formats.mcap_file import Decoder, Node, decoder_of
from pantok.formats.table_columns import distinct

MOST = 4096
"""Numbers in a message that are channels; a larger one is a map or a cloud of points."""
LABELS = frozenset({"name", "names", "joint_names"})
"""Lists of words that say what the lists of numbers beside them are of."""
MACHINE = re.compile(
    r"(tf2?_msgs|tf|rcl_interfaces|rosgraph_msgs|diagnostic_msgs|visualization_msgs|action_msgs|lifecycle_msgs|bond|"
    r"statistics_msgs|service_msgs|dynamic_reconfigure|rosbag2_interfaces|rosapi_msgs)/.*|"
    r"sensor_msgs/CameraInfo|std_msgs/(Empty|Header)|"
    r"foxglove(_msgs/|\.)(CameraCalibration|FrameTransforms?|ImageAnnotations|Log|SceneUpdate|SceneEntity)"
)
"""Types that are about the machine and not what it senses or does."""
OTHER = re.compile(
    r"(map_msgs|audio_common_msgs|stereo_msgs|theora_image_transport|point_cloud_interfaces)/.*|"
    r"sensor_msgs/(PointCloud2?|MultiDOFJointState|MultiEchoLaserScan)|nav_msgs/(OccupancyGrid|Path)|"
    r"foxglove(_msgs/|\.)(Grid|PackedElementField|PointCloud|GeoJSON|RawAudio|VoxelGrid|LaserScan)"
)
"""Types that do not come in rows."""
_BATCH, _BATCH_BYTES = 4096, 4 << 20  # messages whose numbers wait to become arrays
_LATEST_NS = 2**63 - 1
_DROPPED = re.compile(r"(^|\.)(\w*covariance\w*|\w*frame_id|layout)(\.|$)|(^|\.)header\.|(^|\.)stamp\.")
_STAMP = re.compile(r"(?:header\.)?(stamp|timestamp)\.(sec|secs|seconds|nanosec|nsec|nsecs|nanos)")
_ROS_ITSELF = re.compile(r"(std|sensor|geometry|nav|trajectory|control|shape|builtin)_(msgs|interfaces)/(?!String$)")
"""Packages whose words are names of things and not what somebody says."""
_PLAIN = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_TYPES = {"number": "float64", "integer": "int64", "boolean": "bool"} | {name: name for name in _PLAIN}
"""What definitions call numbers."""
_UNITS = tuple(
    (re.compile(of), re.compile(path), unit)
    for of, path, unit in (
        (r"sensor_msgs/Imu", r"angular_velocity\.", "rad/s"),
        (r"sensor_msgs/Imu", r"linear_acceleration\.", "m/s^2"),
        (r"geometry_msgs/Twist.*|nav_msgs/Odometry", r"(.*\.)?linear\.[xyz]$", "m/s"),
        (r"geometry_msgs/Twist.*|nav_msgs/Odometry", r"(.*\.)?angular\.[xyz]$", "rad/s"),
        (r"geometry_msgs/Wrench.*", r"(.*\.)?force\.", "N"),
        (r"geometry_msgs/Wrench.*", r"(.*\.)?torque\.", "N m"),
        (r"geometry_msgs/(Pose|Point).*|nav_msgs/Odometry", r"(.*\.)?(position|point)\.[xyz]$", "m"),
        (r"sensor_msgs/(LaserScan|Range)", r"(range|ranges|min_range|max_range|range_min|range_max)\b", "m"),
        (r"sensor_msgs/MagneticField", r"magnetic_field\.", "T"),
        (r"sensor_msgs/FluidPressure", r"fluid_pressure$", "Pa"),
        (r"sensor_msgs/NavSatFix", r"(latitude|longitude)$", "deg"),
        (r"sensor_msgs/NavSatFix", r"altitude$", "m"),
        (r"sensor_msgs/Temperature", r"temperature$", "deg C"),
    )
)  # fmt: skip


def short(type_name: str) -> str:
    """`sensor_msgs/msg/Imu` is `sensor_msgs/Imu`."""
    return type_name.replace("/msg/", "/")


def unit_of(type_name: str, path: str) -> str:
    """What the number at `path` of a well-known type is measured in; empty where that is not said."""
    name = short(type_name)
    return next((unit for of, at, unit in _UNITS if of.fullmatch(name) and at.match(path)), "")


def says_words(type_name: str) -> bool:
    """Whether the words in messages of this type are said to somebody."""
    return not _ROS_ITSELF.match(short(type_name))


@lru_cache(1 << 16)
def is_wanted(path: str) -> bool:
    """Whether what lies at `path` is a channel, or the message's own stamp."""
    return is_stamp(path) or not _DROPPED.search(path)


@lru_cache(1 << 16)
def is_stamp(path: str) -> bool:
    """Whether what lies at `path` is a part of the message's own stamp."""
    return bool(_STAMP.fullmatch(path))


class TooLong(Exception):
    """Messages hold so many numbers that they are no rows of them."""


@dataclass
class Gathered:
    """Columns of a topic. kept: int64, the messages that are its rows. stamps: int64 nanoseconds, as long as `kept`;
    None if one of them has none. numbers, words (None where there is none): by path, as long as `kept`.

    uneven: lists that differ in length from message to message and are therefore no columns.
    """

    kept: np.ndarray
    stamps: np.ndarray | None
    numbers: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    uneven: list[str]


class Reader:
    """Gathers the messages of a channel as columns. stamps_only: nothing else of them. Raises Unreadable."""

    def __init__(self, channel: Channel, *, stamps_only: bool) -> None:
        self._decoder = decoder_of(channel)
        self._wanted = is_stamp if stamps_only else is_wanted
        self._read = self._held = self._packed = 0
        self._cells: dict[str, tuple[list[int], list[Any], Node]] = {}
        self._kept, self._stamps = array("q"), array("q")
        self._numbers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._words: dict[str, dict[int, str]] = {}
        self._lengths: dict[str, set[int]] = {}

    @property
    def failed(self) -> int:
        """How many messages did not decode."""
        return self._read - len(self._kept)

    def _load(self, content: bytes) -> Any:
        """None if it does not decode, or is no object (of JSON)."""
        try:
            message = self._decoder.load(content)
        except Exception:  # there is no telling what a library raises for a message that is damaged
            return None
        return None if isinstance(message, str | int | float | list) else message

    def one(self, content: bytes) -> Mapping[str, Any] | None:
        """The fields of a message, None if it does not decode; pictures, which JSON has in Base64, as bytes."""
        message = self._load(content)
        if message is None:
            return None
        fields = {name: value for name, value, _ in self._decoder.fields(message, self._decoder.root)}
        if isinstance(fields.get("data"), str):
            try:
                fields["data"] = base64.b64decode(fields["data"], validate=True)
            except binascii.Error:
                return None
        return fields

    def add(self, content: bytes) -> None:
        """Takes in the message that comes next. Raises TooLong."""
        row, self._read = self._read, self._read + 1
        message, found = self._load(content), _Found(self._decoder, self._wanted)
        if message is None:
            return
        try:
            found.fields(message, self._decoder.root, "")
        except (RecursionError, ValueError, OverflowError):  # JSON nested too deep, or a stamp that is none
            return
        self._kept.append(row)
        if found.has_stamp:
            self._stamps.append(min(max(found.stamp, 0), _LATEST_NS))
        for path, word in found.words.items():
            self._words.setdefault(path, {})[row] = word
        for name, value, node in found.cells():
            rows, values, _ = self._cells.get(name) or self._cells.setdefault(name, ([], [], node))
            rows.append(row)
            values.append(value)
        for path, length in found.lengths.items():
            self._lengths.setdefault(path, set()).add(length)
        self._held += len(content)
        if len(self._kept) - self._packed >= _BATCH or self._held >= _BATCH_BYTES:
            self._pack()

    def _pack(self) -> None:
        """Puts the numbers of the last messages into arrays, which take a fraction of the memory."""
        everywhere = np.array(self._kept[self._packed :], np.int64)
        for name, (rows, values, node) in self._cells.items():
            at = everywhere if len(rows) == len(everywhere) else np.array(rows, np.int64)
            self._numbers.setdefault(name, []).append((at, _array(values, node)))
        self._cells, self._held, self._packed = {}, 0, len(self._kept)

    def gathered(self) -> Gathered:
        """All that was taken in, which is let go of."""
        self._pack()
        kept, stamps = np.array(self._kept, np.int64), np.array(self._stamps, np.int64)
        uneven = [path for path, lengths in self._lengths.items() if len(lengths) > 1]

        def even(name: str) -> bool:
            return not any(name.startswith(f"{path}.") for path in uneven)

        columns = {name: _column(self._numbers.pop(name), kept) for name in list(self._numbers) if even(name)}
        words: dict[str, np.ndarray] = {}
        for path, said in self._words.items():
            if even(path):
                words[path] = np.full(len(kept), None, object)
                words[path][np.searchsorted(kept, list(said))] = list(said.values())
        self._numbers, self._words = {}, {}
        return Gathered(kept, stamps if len(stamps) == len(kept) else None, columns, words, uneven)


class _Found:
    """What one message holds. numbers: with what is known of them, also lists. lengths: of those without labels."""

    def __init__(self, decoder: Decoder, wanted: Callable[[str], bool]) -> None:
        self._fields, self._wanted = decoder.fields, wanted
        self.stamp, self.has_stamp = 0, False
        self.numbers: dict[str, tuple[Any, Node]] = {}
        self.words: dict[str, str] = {}
        self.lengths: dict[str, int] = {}
        self._labels: dict[str, Sequence[str]] = {}

    def fields(self, value: Any, node: Node, before: str) -> None:
        """What lies in `value`. node: what is known of it. before: how paths begin. Raises TooLong."""
        for name, part, known in self._fields(value, node):
            self._add(part, known, before + name)

    def _add(self, value: Any, node: Node, path: str) -> None:
        if isinstance(value, int | float):
            if not self._wanted(path):
                return
            if is_stamp(path):
                seconds = path.rpartition(".")[2].startswith("sec")
                self.stamp += int(value) * (1_000_000_000 if seconds else 1)
                self.has_stamp |= seconds
            else:
                self.numbers[path] = value, node
        elif isinstance(value, str):
            if self._wanted(path):
                self.words[path] = value
        elif isinstance(value, list | tuple | bytes):
            self._add_list(value, node.get("items"), node, path)
        else:
            self.fields(value, node, f"{path}.")

    def _add_list(self, value: Sequence[Any], items: Any, node: Node, path: str) -> None:
        node = items if isinstance(items, dict) else node
        if isinstance(value, bytes) and _dtype(node) is None:
            return
        before, _, last = path.rpartition(".")
        if last in LABELS and all(isinstance(item, str) for item in value):
            self._labels[before] = value
        elif self._wanted(path) and not any(isinstance(item, str) for item in value):
            if len(value) > MOST:
                raise TooLong
            self.lengths[path] = len(value)
            if all(isinstance(item, int | float) for item in value):
                mixed = _dtype(node) is None and any(isinstance(item, float) for item in value)
                self.numbers[path] = list(map(float, value) if mixed else value), node
            else:
                for number, item in enumerate(value):
                    self._add(item, node, f"{path}.{number}")

    def cells(self) -> Iterator[tuple[str, Any, Node]]:
        """Each number by its channel; the items of lists by their labels, the nearest of as many."""
        named = {path: names for path, length in self.lengths.items() if (names := self._named(path, length))}
        self.lengths = {path: length for path, length in self.lengths.items() if length and path not in named}
        for path, (value, node) in self.numbers.items():
            if isinstance(value, list):
                for name, item in zip(named.get(path) or range(len(value)), value, strict=True):
                    yield f"{path}.{name}", item, node
            else:
                yield path, value, node

    def _named(self, path: str, length: int) -> list[str]:
        while path:
            path = path.rpartition(".")[0]
            if path in self._labels and len(self._labels[path]) == length:
                return distinct(list(self._labels[path]))
        return []


def _dtype(node: Node) -> str | None:
    said = node.get("type")
    return _TYPES.get(said) if isinstance(said, str) else None


def _array(values: list[Any], node: Node) -> np.ndarray:
    """In the type that is said, if they fit it, as those of JSON need not."""
    plain = np.array(values)
    plain = plain if plain.dtype.kind in "biuf" else plain.astype(np.float64)
    dtype = _dtype(node)
    if dtype is None:
        return plain
    if dtype == "uint8" and plain.dtype.kind == "i":  # a char of ROS 2 has no sign, though the library gives it one
        return plain.astype(dtype)
    try:
        said = np.array(values, dtype)
    except (OverflowError, ValueError):
        return plain
    return said if said.dtype.kind == "f" or (said == plain).all() else plain


def _column(pieces: list[tuple[np.ndarray, np.ndarray]], kept: np.ndarray) -> np.ndarray:
    """One column of its pieces, in the type of all; NaN where there is none."""
    dtype = np.result_type(*(values.dtype for _, values in pieces))
    missing = sum(len(rows) for rows, _ in pieces) < len(kept)
    if missing and dtype.kind != "f":
        dtype = np.dtype(np.float64)
    out = np.full(len(kept), np.nan, dtype) if missing else np.empty(len(kept), dtype)
    for rows, values in pieces:
        out[np.searchsorted(kept, rows)] = values
    return out
