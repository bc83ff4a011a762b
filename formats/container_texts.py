"""Subtitles within a media file (PyAV): text tracks, spans with the times of the container.

What is unusual: all of them are read when the file is opened, in one pass over its packets, as a text track is held in
memory. Styles are left out, the words stay. Subtitles that are pictures are named, and not read.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats.container import FAULTS, language_of, opened, to_ns
from pantok.formats.files import Problems
from pantok.formats.texts import Span, track_of

_PICTURES = {"dvdsub", "dvd_subtitle", "pgssub", "hdmv_pgs_subtitle", "dvbsub", "dvb_subtitle", "xsub"}
_STYLE = re.compile(r"\{\\[^}]*\}")  # `{\i1}`, as which FFmpeg hands on tags of every form, too


def text_tracks(path: Path, zero_ns: int, problems: Problems) -> list[Track]:
    """`text`, `text.1`, ... of the streams that hold words; a stream that cannot be read is a line to `problems`."""
    spans: dict[int, list[Span]] = {}
    unread: Counter[int] = Counter()
    with opened(path) as container:
        streams = {s.index: language_of(s) for s in container.streams.subtitles if _is_words(s)}
        if others := [f"{s.index}" for s in container.streams.subtitles if not _is_words(s)]:
            problems(f"{path}: subtitles that are pictures are not read (stream {', '.join(others)})")
        if not streams:
            return []
        try:
            for packet in container.demux(*(container.streams[index] for index in streams)):
                if packet.size:
                    words = _words(packet)
                    if words:
                        spans.setdefault(packet.stream_index, []).append((*_times(packet, zero_ns), words))
                    unread[packet.stream_index] += words is None
        except FAULTS:  # the rest is no more to be had for pictures and sound, which say so
            problems(f"{path}: its subtitles are read up to where it is damaged (copy or export it again)")
    tracks: list[Track] = []
    for index, spoken in streams.items():
        name = f"text.{len(tracks)}" if tracks else "text"
        if unread[index]:
            problems(f"{path} {name}: {unread[index]} subtitles cannot be decoded and are left out")
        if index in spans:
            try:
                tracks.append(track_of(f"{path} {name}", name, spans[index], **spoken))
            except InputError as error:
                problems(str(error))
    return tracks


def _is_words(stream: Any) -> bool:
    return stream.codec_context is not None and stream.codec_context.name not in _PICTURES


def _words(packet: Any) -> str | None:
    """What is said, a line for each part that is shown at once; None where it does not decode."""
    try:
        shown = packet.decode()
    except FAULTS:
        return None
    if packet.pts is None:
        return None
    parts = [part.dialogue if part.type == b"ass" else part.text for part in shown]
    return _STYLE.sub("", "\n".join(part.decode("utf-8", "replace").strip() for part in parts)).strip()


def _times(packet: Any, zero_ns: int) -> tuple[int, int | None]:
    start = to_ns(packet.pts, packet.time_base)
    end = to_ns(packet.pts + packet.duration, packet.time_base) if packet.duration else None
    return start - zero_ns, None if end is None else end - zero_ns
