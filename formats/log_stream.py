"""What readers of robots' logs have in common: the channels of a log, places of its messages, what was wrong with it.

A log is walked through once, message by message in the order of the file. What is too large to be held, pictures, is
fetched again by its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from pantok.formats.files import unreadable

HINT = 'pip install "pantok[robots]"'
LARGEST = 1 << 31
"""Bytes of a record; recorders write chunks of a megabyte or a few."""
_KEPT_CHUNKS = 4  # those that were unpacked last, when messages are fetched


@dataclass(frozen=True)
class Channel:
    """topic: what it is called. encoding: of its messages (`cdr`, `ros1`, `json`, `protobuf`). type: the name of its
    schema, schema_encoding: how that is written (`ros2msg`, `jsonschema`, ...), schema: its text."""

    topic: str
    encoding: str
    type: str = ""
    schema_encoding: str = ""
    schema: bytes = b""


class Place(NamedTuple):
    """Where a message lies: in the record that begins at this byte, which of the records in it (a chunk has many).

    In a database the record is the row. file: which of several files of a log.
    """

    record: int
    number: int
    file: int = 0


@dataclass
class Damage:
    """What was wrong with a file in one walk. ended: whether the recorder finished it. remedy: what then helps.

    besides: other things, each said as it stands.
    """

    ended: bool = False
    remedy: str = ""
    chunks: int = 0
    unknown: set[str] = field(default_factory=set)
    strays: int = 0
    besides: list[str] = field(default_factory=list)

    def said(self) -> str:
        """One line, empty if nothing was wrong."""
        parts = []
        if not self.ended:
            parts.append(f"it is cut off, or damaged from some place on (what comes before that is kept{self.remedy})")
        if self.chunks:
            parts.append(f"{self.chunks} of its chunks are damaged (left out; the others are kept)")
        if self.unknown:
            parts.append(f"chunks compressed as {', '.join(sorted(self.unknown))} cannot be read (left out)")
        if self.strays:
            parts.append(f"{self.strays} messages belong to no channel (left out)")
        return ", ".join([*parts, *self.besides])


Message = tuple[Channel, int, int, bytes, Place]
"""channel, log time and publish time in nanoseconds, content, place"""


class Fetching(Protocol):
    """Messages of a log by their place, out of order and as often as wanted. To be closed, as files are."""

    def __enter__(self) -> Fetching: ...

    def __exit__(self, *_: object) -> None: ...

    def at(self, place: Place) -> bytes | None:
        """The content of a message; None if it is no longer there."""


def opened(path: Path) -> BinaryIO:
    """Raises InputError."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from error


class Fetched:
    """Messages of a file of records by their place, with the chunks that were unpacked last.

    unpacked: what the record at the file's position holds; raises anything if it cannot be read. content: of one of
    those, None if it is no message. Raises InputError.
    """

    def __init__(
        self, path: Path, unpacked: Callable[[BinaryIO], list[Any]], content: Callable[[Any], bytes | None]
    ) -> None:
        self._file, self._unpacked, self._content = opened(path), unpacked, content
        self._chunks: OrderedDict[int, list[Any]] = OrderedDict()

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def at(self, place: Place) -> bytes | None:
        """As of `Fetching`."""
        if place.record not in self._chunks:
            self._file.seek(place.record)
            try:
                self._chunks[place.record] = self._unpacked(self._file)
            except Exception:  # those of libraries: the file was whole, and is no more
                return None
            if len(self._chunks) > _KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(place.record)
        held = self._chunks[place.record]
        return self._content(held[place.number]) if place.number < len(held) else None
