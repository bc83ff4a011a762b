"""TFRecord files of `tf.train.Example`, without TensorFlow: the n-th record of a file, and what it holds by name.

A file is records one after another: length (8 bytes, little-endian), its CRC, the bytes, their CRC; both are CRC32C,
rotated right by 15 bits and moved by a constant. Where a record begins is only known by going from each to the next:
that is done once a file, over the lengths alone.

Source: `tensorflow/core/lib/io/record_writer.h` and `tensorflow/core/example/feature.proto`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from pantok.errors import InputError
from pantok.formats.files import check_readable

_HEAD, _FOOT = struct.Struct("<QI"), struct.Struct("<I")
_AGAIN = "copy or download it again"
_HELD = 2  # records that stay decoded: tracks of one episode are read by turns
_KINDS = {"bytes_list": "TYPE_BYTES", "float_list": "TYPE_FLOAT", "int64_list": "TYPE_INT64"}


def example(path: Path, number: int) -> Mapping[str, Any]:
    """The features of record `number`, by name; `values_of` and `cells_of` take them.

    Raises InputError for a file that ends before it, bytes that are not those that were written, or no Example.
    """
    check_readable(path)
    facts = path.stat()
    return _example(path, number, facts.st_size, facts.st_mtime_ns)


def values_of(feature: Any) -> np.ndarray | None:
    """float32 or int64 (n,): the numbers of a feature; None if it holds none."""
    kind = feature.WhichOneof("kind")
    if kind not in ("float_list", "int64_list"):
        return None
    return np.array(getattr(feature, kind).value, np.float32 if kind == "float_list" else np.int64)


def length_of(feature: Any) -> int:
    """How many numbers or strings a feature holds."""
    kind = feature.WhichOneof("kind")
    return len(getattr(feature, kind).value) if kind else 0


def cells_of(feature: Any) -> Sequence[bytes] | None:
    """The strings of a feature; None if it holds none."""
    return feature.bytes_list.value if feature.WhichOneof("kind") == "bytes_list" else None


@lru_cache(maxsize=_HELD)
def _example(path: Path, number: int, size: int, mtime_ns: int) -> Mapping[str, Any]:
    begins = _begins(path, size, mtime_ns)
    if number >= len(begins):
        raise InputError(path, f"ends within record {len(begins) + 1}, or is damaged there", _AGAIN)
    at, length = begins[number]
    try:
        with open(path, "rb") as file:
            file.seek(at)
            content = file.read(length)
            said = file.read(_FOOT.size)
    except OSError as error:
        raise InputError(path, f"record {number + 1} cannot be read: {error.strerror}", _AGAIN) from error
    if len(said) < _FOOT.size or _masked(content) != _FOOT.unpack(said)[0]:
        raise InputError(path, f"record {number + 1} is damaged: its checksum is wrong", _AGAIN)
    whole = _message(path)()
    try:
        whole.ParseFromString(content)
    except Exception as error:  # protobuf's own, which is not there before it is imported
        raise InputError(path, f"record {number + 1} is no tf.train.Example", "only those are read") from error
    features: Mapping[str, Any] = whole.features.feature
    return features


@lru_cache(maxsize=256)
def _begins(path: Path, size: int, mtime_ns: int) -> list[tuple[int, int]]:
    """Where the bytes of each record begin, and how many they are; up to the first that is not whole."""
    found: list[tuple[int, int]] = []
    at = 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            length, said = _HEAD.unpack(head)
            if _masked(head[:8]) != said or at + _HEAD.size + length + _FOOT.size > size:
                break
            found.append((at + _HEAD.size, length))
            at += _HEAD.size + length + _FOOT.size
    return found


def _masked(content: bytes) -> int:
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _message(path: Path) -> Any:
    try:
        return _made()
    except ImportError as error:
        raise InputError(path, "needs protobuf", 'pip install "pantok[robots]"') from error


@lru_cache(maxsize=1)
def _made() -> Any:
    """The class of tf.train.Example; in a pool of its own, so that TensorFlow may be there too."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="pantok", syntax="proto3")

    def add(message: Any, name: str, number: int, kind: str, *, many: bool = False, of: str = "") -> Any:
        label = field.LABEL_REPEATED if many else field.LABEL_OPTIONAL
        return message.field.add(
            name=name, number=number, type=field.Type.Value(kind), label=label, type_name=of or None
        )

    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(_KINDS.items(), 1):
        add(file.message_type.add(name=name), "value", 1, kind, many=True)
        add(feature, name, number, "TYPE_MESSAGE", of=f".pantok.{name}").oneof_index = 0
    file.message_type.append(feature)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, "TYPE_STRING")
    add(entry, "value", 2, "TYPE_MESSAGE", of=".pantok.Feature")
    add(features, "feature", 1, "TYPE_MESSAGE", many=True, of=".pantok.Features.FeatureEntry")
    add(file.message_type.add(name="Example"), "features", 1, "TYPE_MESSAGE", of=".pantok.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pantok.Example"))
