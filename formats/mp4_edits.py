"""Where a track of an .mp4 begins, to the sample: its edit list, set after FFmpeg has written the file.

FFmpeg's muxer has an edit list either wait for a late start or leave out the priming samples of AAC, never both, so
that sound which begins after zero would come back 1,024 samples early and longer. The movie header stands at the end
of the file; it is read, one edit list in it is replaced, and it is written again (ISO/IEC 14496-12, 8.6.6).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO


def delay_sound(path: Path, start: Fraction, length: Fraction, priming: int) -> None:
    """The first sound track begins `start` seconds in, lasts `length` seconds, and leaves `priming` samples out.

    start, length: exact seconds, at least 0. priming: in the track's own samples.
    """
    with open(path, "r+b") as file:
        at, moov = _movie(file)
        scale = _timescale(moov)
        edits = [(round(start * scale), -1)] if start else []
        edits.append((round(length * scale), priming))
        file.seek(at)
        file.write(_rebuilt(moov, edits))
        file.truncate()


def _movie(file: BinaryIO) -> tuple[int, bytes]:
    """Offset and content of the movie header, which FFmpeg writes last."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        size = struct.unpack(">I", head[:4])[0]
        size = struct.unpack(">Q", head[8:16])[0] if size == 1 else size
        if head[4:8] == b"moov":
            file.seek(at)
            content = file.read()
            assert len(content) == size, "the movie header is last"
            return at, content
        at += size


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, payload) of the boxes one after another; none of those in a movie header needs 64 bits for its size."""
    at = 0
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        yield content[at + 4 : at + 8], content[at + 8 : at + size]
        at += size


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


def _timescale(moov: bytes) -> int:
    header = next(payload for kind, payload in _boxes(moov[8:]) if kind == b"mvhd")
    return int(struct.unpack(">I", header[20:24] if header[0] == 1 else header[12:16])[0])


def _rebuilt(moov: bytes, edits: list[tuple[int, int]]) -> bytes:
    # Version 1 has 64 bits for both: an hour at a fine timescale needs them.
    entries = b"".join(struct.pack(">Qqhh", duration, media, 1, 0) for duration, media in edits)
    elst = _box(b"elst", struct.pack(">II", 1 << 24, len(edits)) + entries)
    out, done = [], False
    for kind, payload in _boxes(moov[8:]):
        if kind == b"trak" and not done and _handler(payload) == b"soun":
            parts = [(k, p) for k, p in _boxes(payload) if k != b"edts"]
            after = 1 + next(i for i, (k, _) in enumerate(parts) if k == b"tkhd")
            parts.insert(after, (b"edts", elst))
            payload, done = b"".join(_box(k, p) for k, p in parts), True
        out.append(_box(kind, payload))
    assert done, "there is a sound track"
    return _box(b"moov", b"".join(out))


def _handler(trak: bytes) -> bytes:
    media = next(payload for kind, payload in _boxes(trak) if kind == b"mdia")
    return next(payload for kind, payload in _boxes(media) if kind == b"hdlr")[8:12]
