"""MCAP by Foxglove's libraries; no other module knows them. What is in a file, and what its messages hold.

What is unusual: a file is read by the library's reader of streams, chunk by chunk, not by its index. So one that has
none, or that a recorder left unfinished, is read as any other; a chunk that is damaged (its CRC says so) costs itself;
and where a message lies is told, so that a picture need not be held but is fetched when it is wanted, in any order. The
library's reader by index holds the whole file where there is no index, and where the order of the file is asked for.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pantok.errors import InputError
from pantok.formats.log_stream import HINT, LARGEST, Channel, Damage, Fetched, Fetching, Message, Place, opened

MAGIC = b"\x89MCAP0\r\n"


def messages(path: Path, wanted: Callable[[Channel], bool], damage: Damage) -> Iterator[Message]:
    """The messages of the channels that are wanted, in the order of the file. wanted: asked once for each channel.

    damage: takes what was wrong. Raises InputError for what is no MCAP, and where the libraries are missing.
    """
    try:
        from mcap.records import Channel as Told
        from mcap.records import Message as Sent
        from mcap.records import Schema
    except ImportError as error:
        raise InputError(path, "needs mcap", HINT) from error
    schemas: dict[int, tuple[str, str, bytes]] = {0: ("", "", b"")}
    told: dict[int, Told] = {}
    channels: dict[int, Channel | None] = {}
    for at, records in _records(path, damage):
        for number, one in enumerate(records):
            if isinstance(one, Sent):
                if one.channel_id not in channels:
                    damage.strays += 1
                elif (channel := channels[one.channel_id]) is not None:
                    yield channel, one.log_time, one.publish_time, one.data, Place(at, number)
            elif isinstance(one, Schema):
                schemas[one.id] = (one.name, one.encoding, one.data)
            elif isinstance(one, Told) and told.get(one.id) != one and one.schema_id in schemas:
                channel = Channel(one.topic, one.message_encoding, *schemas[one.schema_id])
                channels[one.id] = channel if wanted(channel) else None
                told[one.id] = one  # it is said again in each chunk, and once more at the end


def _records(path: Path, damage: Damage) -> Iterator[tuple[int, list[Any]]]:
    """Where each record begins, and those that it holds (itself, if it is no chunk); as far as the file is whole."""
    from mcap.records import Chunk, DataEnd, Footer

    with opened(path) as file:
        size = path.stat().st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(
                path, "is not an MCAP log", "check what it is; bags of ROS 1 are called .bag, those in SQLite .db3"
            )
        at = len(MAGIC)
        stream = _stream(file)
        while True:
            try:
                record = next(stream)
            except Exception:  # of many kinds, for all that is not whole
                return
            if isinstance(record, DataEnd | Footer):
                damage.ended = True
                return
            cut = file.tell() >= size
            inner: list[Any] = []
            if isinstance(record, Chunk) and record.compression not in ("", "zstd", "lz4"):
                damage.unknown.add(record.compression)
            else:
                try:
                    inner = _unpacked(record)  # all of a chunk or nothing
                except Exception:  # those of three libraries
                    damage.chunks += not cut
            # Of a message that is cut short the library gives what is there.
            yield at, inner[:-1] if cut else inner
            at = file.tell()


def _stream(file: BinaryIO) -> Iterator[Any]:
    from mcap.stream_reader import StreamReader

    return StreamReader(file, skip_magic=True, emit_chunks=True, record_size_limit=LARGEST).records


def _unpacked(record: Any) -> list[Any]:
    """What a record holds. Raises something, of no certain kind, if it is a chunk that is damaged."""
    from mcap.records import Chunk
    from mcap.stream_reader import breakup_chunk

    return breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else [record]


def fetched(path: Path) -> Fetching:
    """The messages of a file by their place. Raises InputError."""
    return Fetched(path, lambda file: _unpacked(next(_stream(file))), lambda record: getattr(record, "data", None))


Node = Mapping[str, Any]
"""What is known of a value, in the form of a schema of JSON: `type`, `properties`, `items`; types of numbers by NumPy's
names. Of a list that does not say its `items` it is what is known of each."""


@dataclass(frozen=True)
class Decoder:
    """load: what a library makes of a message; raises anything for one that is none. root: what is known of it.

    fields: the name, the value and what is known of each field of what was loaded, and of what lies in it; none of
    other values.
    """

    load: Callable[[bytes], Any]
    fields: Callable[[Any, Node], Iterable[tuple[str, Any, Node]]]
    root: Node


class Unreadable(Exception):
    """Why messages of a channel cannot be read."""


def decoder_of(channel: Channel) -> Decoder:
    """What reads the messages of a channel. Raises Unreadable."""
    how = (channel.encoding, "" if channel.encoding == "json" else channel.schema_encoding)
    if how not in _DECODERS:
        raise Unreadable(f"{channel.encoding or 'unknown'} messages, {channel.schema_encoding or 'no'} schema")
    package, made = _DECODERS[how]
    try:
        with redirect_stderr(io.StringIO()):  # the parser of ROS 2 says there what it raises
            return made(channel)
    except ImportError as error:
        raise Unreadable(f"needs {package}, {HINT}") from error
    except Exception as error:  # a definition is as little to be trusted as a message
        raise Unreadable("its definition cannot be read") from error


def _load(factory: Any, channel: Channel, definition: str | None = None) -> Callable[[bytes], Any]:
    from mcap.records import Schema

    data = channel.schema if definition is None else definition.encode()
    return factory.decoder_for(channel.encoding, Schema(1, data, channel.schema_encoding, channel.type))


def _json(channel: Channel) -> Decoder:
    def fields(value: Any, node: Node) -> Iterable[tuple[str, Any, Node]]:
        if not isinstance(value, dict):
            return ()
        inner = node.get("properties")
        known = inner if isinstance(inner, dict) else {}
        return ((str(name), one, _node(known.get(name))) for name, one in value.items())

    return Decoder(json.loads, fields, _node(json.loads(channel.schema or b"{}")))


def _node(schema: Any) -> Node:
    return schema if isinstance(schema, dict) else {}


def _ros2(channel: Channel) -> Decoder:
    from mcap_ros2._dynamic import TimeDefinition, _for_each_msgdef
    from mcap_ros2.decoder import DecoderFactory

    # What the library says of types it says here alone; its decoders give plain numbers of Python.
    specs = {f"builtin_interfaces/{name}": TimeDefinition for name in ("Time", "Duration")}
    _for_each_msgdef(channel.type, channel.schema.decode(), lambda _, short, spec: specs.update({short: spec}))
    odd = {"byte": "uint8", "char": "uint8"}

    def node(spec: Any) -> Node:
        inner = {}
        for one in spec.fields:
            plain = one.type.is_primitive_type()
            kind = one.type.type if plain else f"{one.type.pkg_name}/{one.type.type}"
            inner[one.name] = {"type": odd.get(kind, kind)} if plain else node(specs[kind])
        return {"properties": inner}

    def fields(value: Any, node: Node) -> Iterable[tuple[str, Any, Node]]:
        return ((name, getattr(value, name), one) for name, one in node.get("properties", {}).items())

    package, _, name = channel.type.partition("/")
    return Decoder(_load(DecoderFactory(), channel), fields, node(specs[f"{package}/{name.rpartition('/')[2]}"]))


def _ros1(channel: Channel) -> Decoder:
    from mcap_ros1.decoder import DecoderFactory

    odd = {"byte": "int8", "char": "uint8", "time": "uint32", "duration": "int32"}

    def fields(value: Any, node: Node) -> Iterable[tuple[str, Any, Node]]:
        if hasattr(value, "to_nsec"):  # a time, called as ROS 2 does
            return (("sec", value.secs, node), ("nanosec", value.nsecs, node))
        names, kinds = (getattr(value, said, ()) for said in ("__slots__", "_slot_types"))
        known = ({"type": odd.get(kind, kind)} for kind in (kind.partition("[")[0] for kind in kinds))
        return ((name, getattr(value, name), one) for name, one in zip(names, known, strict=True))

    return Decoder(_load(DecoderFactory(), channel, _harmless(channel)), fields, {})


def _harmless(channel: Channel) -> str:
    """The definition of a type of ROS 1 without comments and constants. Raises ValueError if it is none.

    The library writes a program in Python by it and runs that; names of constants go there unseen, and types within
    it too: a log would be a program. So nothing gets there but names of types and of fields.
    """
    if not re.fullmatch(r"\w+/\w+", channel.type, re.ASCII):
        raise ValueError(channel.type)
    kept = []
    for line in channel.schema.decode().splitlines():
        line = line.partition("#")[0].strip()
        if line and not line.strip("="):
            kept.append("=" * 80)
        elif line and "=" not in line:
            if not re.fullmatch(r"MSG:\s*\w+/\w+|[\w/]+(\[\d*\])?\s+\w+", line, re.ASCII):
                raise ValueError(line)
            kept.append(re.sub(r"\s+", " ", line))
    return "\n".join(kept)


def _protobuf(channel: Channel) -> Decoder:
    from google.protobuf.descriptor import FieldDescriptor as F
    from mcap_protobuf.decoder import DecoderFactory

    types = {
        F.CPPTYPE_DOUBLE: "float64", F.CPPTYPE_FLOAT: "float32", F.CPPTYPE_BOOL: "bool", F.CPPTYPE_ENUM: "int32",
        F.CPPTYPE_INT32: "int32", F.CPPTYPE_UINT32: "uint32", F.CPPTYPE_INT64: "int64", F.CPPTYPE_UINT64: "uint64",
    }  # fmt: skip

    def fields(value: Any, node: Node) -> Iterator[tuple[str, Any, Node]]:
        if isinstance(value, Mapping):
            yield from ((str(name), one, node) for name, one in value.items())
        for one in getattr(getattr(value, "DESCRIPTOR", None), "fields", ()):
            inner, kind = getattr(value, one.name), one.message_type
            if kind is not None and kind.GetOptions().map_entry:
                yield one.name, inner, {"type": types.get(kind.fields_by_name["value"].cpp_type)}
            elif isinstance(inner, str | bytes | int | float) or (kind is not None and hasattr(inner, "DESCRIPTOR")):
                if kind is None or value.HasField(one.name):
                    yield one.name, inner, {"type": types.get(one.cpp_type)}
            else:
                yield one.name, list(inner), {"type": types.get(one.cpp_type)}

    return Decoder(_load(DecoderFactory(), channel), fields, {})


_DECODERS: Mapping[tuple[str, str], tuple[str, Callable[[Channel], Decoder]]] = {
    ("json", ""): ("", _json),
    ("cdr", "ros2msg"): ("mcap-ros2-support", _ros2),
    ("ros1", "ros1msg"): ("mcap-ros1-support", _ros1),
    ("protobuf", "protobuf"): ("mcap-protobuf-support", _protobuf),
}
