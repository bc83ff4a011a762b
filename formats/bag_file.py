"""Bags of ROS 1 (.bag, .bag.active) and of ROS 2 in SQLite (.db3), as the same stream of messages that MCAP is.

The records of ROS 1, and what types of messages are known to ROS 2, by rosbags; no other module knows it.

What is unusual: a bag of ROS 1 is walked through chunk by chunk, and only its list of connections is taken from its
index. So one whose recorder was killed, which has no index, is read as far as it is whole; and where a message lies is
known, so that a picture is fetched without an index of all. A bag of ROS 2 is one file, whatever lies beside it: of a
bag that was split each file is one. Older ones hold no definitions of their messages: those of Humble are taken, the
last distribution that wrote such bags.
"""

from __future__ import annotations

import bz2
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pantok.errors import InputError
from pantok.formats.log_stream import HINT, LARGEST, Channel, Damage, Fetched, Fetching, Message, Place, opened

SUFFIXES = frozenset({".bag", ".active", ".db3"})
_MAGIC, _DATABASE = b"#ROSBAG V2.0\n", b"SQLite format 3\0"
_SENT, _CHUNK, _CONNECTION = 2, 5, 7  # what a record of ROS 1 is, by its `op`
_ZSTD = b"\x28\xb5\x2f\xfd"
Record = tuple[Any, bytes]
"""Of ROS 1: rosbags' Header, and the content"""


def messages(path: Path, wanted: Callable[[Channel], bool], damage: Damage) -> Iterator[Message]:
    """The messages of the channels that are wanted, in the order of the file. wanted: asked once for each channel.

    Bags know one time of each message, which stands for both. damage: takes what was wrong. Raises InputError for what
    is no bag, and where rosbags is missing.
    """
    try:
        import rosbags.rosbag1
        import rosbags.typesys  # noqa: F401
    except ImportError as error:
        raise InputError(path, "needs rosbags", HINT) from error
    return (_rows if _is_database(path) else _sent)(path, wanted, damage)


def fetched(path: Path) -> Fetching:
    """The messages of a bag by their place. Raises InputError."""
    if _is_database(path):
        return _FetchedRows(path)
    size = path.stat().st_size
    return Fetched(path, lambda file: _unpacked(*_record(file, size)), lambda record: record[1])


def _is_database(path: Path) -> bool:
    return path.suffix.lower() == ".db3"


def _sent(path: Path, wanted: Callable[[Channel], bool], damage: Damage) -> Iterator[Message]:
    """Of a bag of ROS 1."""
    channels: dict[int, Channel | None] = {}
    for at, records in _records(path, damage):
        for number, (header, content) in enumerate(records):
            try:
                kind = header.get_uint8("op")
                which = header.get_uint32("conn") if kind in (_SENT, _CONNECTION) else -1
                time = header.get_time("time") if kind == _SENT else 0
                if kind == _CONNECTION and which not in channels:  # each is said in the index, and in a chunk
                    channel = _channel(header, content)
                    channels[which] = channel if wanted(channel) else None
            except Exception:  # rosbags' and those of what it calls: the record is damaged
                damage.strays += 1
                continue
            if kind == _SENT and which not in channels:
                damage.strays += 1
            elif kind == _SENT and (known := channels[which]) is not None:
                yield known, time, time, content, Place(at, number)


def _channel(header: Any, content: bytes) -> Channel:
    """Of the record of a connection. Raises something, of no certain kind, if it is damaged."""
    from rosbags.rosbag1.reader import Header

    said = Header.read(BytesIO(struct.pack("<I", len(content)) + content))
    return Channel(header.get_string("topic"), "ros1", said.get_string("type"), "ros1msg", said["message_definition"])


def _records(path: Path, damage: Damage) -> Iterator[tuple[int, list[Record]]]:
    """Where each record begins, and those that it holds (itself, if it is no chunk): the index, then the chunks."""
    with opened(path) as file:
        size = path.stat().st_size
        damage.remedy = "; if its recorder was stopped, rosbag reindex completes it"
        if (begin := file.read(len(_MAGIC))) != _MAGIC:
            raise _no_bag(path, begin)
        try:
            header, _ = _record(file, size)
            index = header.get_uint64("index_pos")
        except Exception:  # as above
            return
        if header.get("encryptor"):
            raise InputError(path, "is encrypted", "rosbag decrypt writes a bag that can be read")
        first, indexed = file.tell(), 0 < index < size
        ended = indexed
        for at, end in ((index, size), (first, index)) if indexed else ((first, size),):
            file.seek(at)
            while at < end:
                try:
                    header, content = _record(file, end)
                    is_chunk = header.get_uint8("op") == _CHUNK
                except Exception:  # as above
                    ended = False
                    break
                inner: list[Record] = []
                try:
                    inner = _unpacked(header, content)  # all of a chunk or nothing
                except _UnknownPacking as error:
                    damage.unknown.add(str(error))
                except Exception:  # those of three libraries
                    damage.chunks += is_chunk
                yield at, inner
                at = file.tell()
        damage.ended = ended


def _no_bag(path: Path, begin: bytes) -> InputError:
    if begin.startswith(_MAGIC[:9]):
        return InputError(path, "is a bag of ROS 1 of another version than 2.0", "rosbag reindex writes one of today's")
    return InputError(path, "is not a bag of ROS 1", "check what it is; those of ROS 2 are called .db3 or .mcap")


class _UnknownPacking(Exception):
    """A chunk is compressed in a way that is not known, which is its text."""


def _record(file: BinaryIO, end: int) -> Record:
    """The record that begins here. Raises something, of no certain kind, where none does that ends before `end`."""
    from rosbags.rosbag1.reader import Header, read_bytes, read_uint32

    at = file.tell()
    if at + 4 + read_uint32(file) > end:
        raise ValueError("a header longer than the file")
    file.seek(at)
    header = Header.read(file)
    length = read_uint32(file)
    if file.tell() + length > end:
        raise ValueError("a record longer than the file")
    return header, read_bytes(file, length)


def _unpacked(header: Any, content: bytes) -> list[Record]:
    """What a record holds. Raises something, of no certain kind, if it is a chunk that is damaged."""
    if header.get_uint8("op") != _CHUNK:
        return [(header, content)]
    size, packed = header.get_uint32("size"), header.get_string("compression")
    if size > LARGEST:
        raise ValueError(f"a chunk of {size} bytes")
    if packed != "none":
        unpacker = _unpacker(packed)
        content = unpacker.decompress(content, size + 1)  # one more, as the sum of all is looked at behind the last
        if not unpacker.eof or len(content) != size:
            raise ValueError("a chunk that is not whole")
    file, records = BytesIO(content), []
    while file.tell() < len(content):
        records.append(_record(file, len(content)))
    return records


def _unpacker(packed: str) -> Any:
    """Raises _UnknownPacking."""
    if packed == "bz2":
        return bz2.BZ2Decompressor()
    if packed == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        return LZ4FrameDecompressor()
    raise _UnknownPacking(packed)


def _database(path: Path) -> sqlite3.Connection:
    """Read as it lies, locked or not; nothing is written beside it. Raises InputError, sqlite3.Error."""
    with opened(path) as file:
        begin, size = file.read(18), path.stat().st_size
    if not begin.startswith(_DATABASE):
        raise InputError(path, "is not a bag of ROS 2 in SQLite", "check what it is, and copy or record it again")
    page = int.from_bytes(begin[16:], "big")
    if size % (65536 if page == 1 else page or 1):  # SQLite would take what is missing of the page for zeros
        raise InputError(path, "is cut off", f"copy it again, or sqlite3 {path.name} .recover tells what is whole")
    # What reads a track may go on in another thread, never in two at once.
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    database.execute("PRAGMA writable_schema = ON")  # else one that lacks its last pages is refused as a whole
    return database


def _rows(path: Path, wanted: Callable[[Channel], bool], damage: Damage) -> Iterator[Message]:
    """Of a bag of ROS 2."""
    hint = "check what it is, and copy it again"
    waiting = path.with_name(f"{path.name}-wal")
    if waiting.exists() and waiting.stat().st_size:
        hint = f"sqlite3 {path.name} 'PRAGMA wal_checkpoint' takes them in"
        damage.besides.append(f"messages that still lie in {waiting.name} are left out ({hint})")
        hint = hint.replace("them", f"what still lies in {waiting.name}")
    with closing(_database(path)) as database:
        try:
            channels = {number: one for number, one in _topics(database).items() if wanted(one)}
        except sqlite3.Error as error:
            raise InputError(path, f"is not a bag of ROS 2 that can be read: {error}", hint) from error
        which = ",".join(map(str, channels))
        asked = f"SELECT rowid, topic_id, timestamp, data FROM messages WHERE topic_id IN ({which}) ORDER BY rowid"
        try:
            for row, topic, time, content in database.execute(asked):
                if isinstance(time, int) and isinstance(content, bytes):
                    time = max(time, 0)
                    yield channels[topic], time, time, _plain(content), Place(row, 0)
                else:
                    damage.strays += 1
            damage.ended = True
        except sqlite3.Error:  # it goes no further
            return


def _topics(database: sqlite3.Connection) -> dict[int, Channel]:
    """By their number. Raises sqlite3.Error."""
    held = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    said: dict[str, tuple[str, str]] = {}
    if "message_definitions" in held:
        asked = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        said = {kind: (encoding, str(text)) for kind, encoding, text in database.execute(asked)}
    topics = {}
    for number, name, kind, encoding in database.execute("SELECT id, name, type, serialization_format FROM topics"):
        text = _definition(str(kind), *said.get(kind, ("", "")))
        how = ("ros2msg", text.encode()) if text else ("", b"")
        topics[int(number)] = Channel(str(name), str(encoding), str(kind), *how)
    return topics


def _definition(kind: str, encoding: str, text: str) -> str:
    """With all the types below it, in the form of ROS 2's .msg; empty if it is not known."""
    from rosbags.typesys import Stores, get_types_from_idl, get_typestore

    if encoding == "ros2msg" and text:
        return text
    try:
        store = get_typestore(Stores.EMPTY if text else Stores.ROS2_HUMBLE)
        for part in text.split(f"{'=' * 80}\n"):
            below = part.partition("\n")[2] if part.startswith("IDL: ") else part
            if below.strip():  # the store's own way in runs Python that it writes by the types
                store.fielddefs.update(get_types_from_idl(below))
        return store.generate_msgdef(kind, ros_version=2)[0]
    except Exception:  # a definition is as little to be trusted as a message
        return ""


def _plain(content: bytes) -> bytes:
    """A message that was compressed by itself, which only metadata.yaml says; those of CDR never begin so."""
    if not content.startswith(_ZSTD):
        return content
    from zstandard import ZstdDecompressor, get_frame_parameters

    try:
        if get_frame_parameters(content).content_size > LARGEST:
            return b""
        return ZstdDecompressor().decompress(content)
    except Exception:  # it does not decode then
        return b""


class _FetchedRows:
    """Of a bag of ROS 2."""

    def __init__(self, path: Path) -> None:
        self._database = _database(path)

    def __enter__(self) -> _FetchedRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def at(self, place: Place) -> bytes | None:
        try:
            row = self._database.execute("SELECT data FROM messages WHERE rowid = ?", (place.record,)).fetchone()
        except sqlite3.Error:
            return None
        return _plain(row[0]) if row and isinstance(row[0], bytes) else None
