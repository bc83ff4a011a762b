"""Media files through FFmpeg (PyAV): what streams they hold, and every packet of one that can be had.

What is unusual: containers lie, so nothing is believed that can be seen. The first frame of each stream is decoded
when the file is opened, and its size, rate, channels and orientation count, not those of the header. A packet that
does not decode costs its own frames. Stamps that leap are told from pauses. What was wrong is counted and said in one
line for each stream, once, however often the recording is read. Tracks keep the container's own clock, so that its
pictures and sound stay together; where that clock starts anywhere (MPEG transport and program streams) its zero is
the first sample.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import av

from pantok.errors import InputError
from pantok.experience import NS, Track
from pantok.formats.files import Problems, check_readable, once, unreadable

RAW_FORMATS = {".g722": "g722"}
"""Suffixes whose files have no header by which FFmpeg could know them."""
FAULTS = (av.error.FFmpegError, ValueError, OverflowError, RuntimeError, MemoryError)
"""What PyAV raises on damaged data: FFmpeg's own errors, and Python's where a header holds impossible numbers."""
_NOT_RECORDINGS = {"hls", "concat", "dash", "lavfi", "tty", "ffmetadata"}  # lists of other files; text taken for media
_LEAP_BACK_NS = NS
_LEAP_AHEAD_NS = 3600 * NS
_RETRIES = 50
_SMALL_PICTURE = 1 << 19  # pixels
T = TypeVar("T")


@dataclass
class Damage:
    """What was wrong with one stream in one pass; `said` is the line that tells it."""

    lost: int = 0
    concealed: int = 0
    dropped: int = 0
    leaps: int = 0
    gaps: int = 0
    unsound: int = 0
    broken: bool = False
    cut: str = ""

    def said(self) -> str:
        parts = [
            (self.lost, "packets could not be decoded"),
            (self.concealed, "frames are damaged"),
            (self.dropped, "frames whose time does not advance were dropped"),
            (self.leaps, "leaps of the clock were closed"),
            (self.gaps, "gaps or overlaps in the sound were filled or cut"),
            (self.unsound, "samples are NaN or infinite and became silence"),
        ]
        told = [f"{count} {what}" for count, what in parts if count]
        if self.cut:
            told.append(self.cut)
        elif self.broken:
            told.append("it is damaged or cut off")
        return ", ".join(told)


def read_container(
    path: Path,
    *,
    size: int | tuple[int, int] | None = None,
    fps: Fraction | None = None,
    texts: bool = True,
    problems: Problems = lambda line: None,
) -> list[Track]:
    """The video, sound and text tracks of a media file; pictures and sound open it anew when they are read.

    The first of a kind is `video`, `audio` or `text`, further ones `video.1`, `audio.1`, ...; sound that pantok wrote
    has the name that it had. Cover art is not video; subtitles beside which there is neither video nor sound are not
    looked for. texts: whether they are wanted at all, for the whole file is gone through to find them.
    size: the shorter side in pixels, or (width, height). fps: frames a second, by repeating or dropping whole frames.
    problems: called with one line for each stream with which something was wrong that could be passed over.
    Raises InputError if the file holds no video and no sound that can be decoded.
    """
    from pantok.formats.container_audio import audio_track
    from pantok.formats.container_texts import text_tracks
    from pantok.formats.container_video import video_track

    problems = once(problems)
    tracks: list[Track] = []
    with opened(path) as container:
        wanted = [("video", s.index, "") for s in pictures_of(container)]
        wanted += [("audio", s.index, str(s.metadata.get("handler_name", ""))) for s in container.streams.audio]
        zero_ns, subtitled = _zero_ns(container), bool(container.streams.subtitles)
    named = {"video": 0, "audio": 0}
    failed: list[InputError] = []
    for kind, index, said in wanted:
        name = kind if named[kind] == 0 else f"{kind}.{named[kind]}"
        if said.startswith(f"{kind}.") and said not in {t.name for t in tracks}:
            name = said
        try:
            if kind == "video":
                track = video_track(path, index, name, zero_ns, size, fps, problems)
            else:
                track = audio_track(path, index, name, zero_ns, problems)
        except InputError as error:
            failed.append(error)
            continue
        named[kind] += 1
        tracks.append(track)
    if not tracks:
        if failed:
            raise failed[0]
        raise InputError(path, "holds no video and no sound that can be decoded", "check that it plays elsewhere")
    for failure in failed:
        problems(str(failure))
    return tracks + (text_tracks(path, zero_ns, problems) if subtitled and texts else [])


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open container. Raises InputError. Nothing of it may be touched once it is closed: PyAV 18 crashes."""
    check_readable(path)
    try:
        # `file:` keeps a colon in a name from being taken for a protocol. Tags in old encodings are not our concern.
        container = av.open(f"file:{path}", format=RAW_FORMATS.get(path.suffix.lower()), metadata_errors="replace")
    except OSError as error:
        if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)):
            raise unreadable(path, error) from error
        raise _not_media(path) from error
    except FAULTS as error:
        raise _not_media(path) from error
    with container:
        if set(container.format.name.split(",")) & _NOT_RECORDINGS:
            raise InputError(path, "is a list or text, not a recording", "give the recordings themselves")
        yield container


def _not_media(path: Path) -> InputError:
    return InputError(path, "is not a media file, or is cut off before its index", "check that it plays elsewhere")


def pictures_of(container: Any) -> list[Any]:
    """The video streams that are not cover art."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def language_of(stream: Any) -> dict[str, str]:
    """`language` (`eng`, `fre`) for a track's info, by which several are told apart; nothing where it is not said."""
    said = str(stream.metadata.get("language") or "und")
    return {} if said == "und" else {"language": said}


def nominal_rate(stream: Any) -> Fraction | None:
    """Frames a second as the header has it; of its two figures the round one, where they hardly differ."""
    average, base = stream.average_rate, stream.base_rate
    # How long the last frame lasts is anybody's guess, and shifts the average of a short clip.
    near = max(Fraction(1, 500), min(Fraction(2, stream.frames), Fraction(1, 10)) if stream.frames else Fraction(0))
    if average and base and abs(Fraction(base) / Fraction(average) - 1) < near:
        return Fraction(base)
    return Fraction(average or base) if average or base else None


def told_seconds(container: Any, stream: Any) -> float | None:
    """How long a stream is by its header, or else by its container's."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def _zero_ns(container: Any) -> int:
    """The instant of the container's clock that is the recording's zero."""
    # An .mp3 alone counts the priming samples that are left out.
    anywhere = container.format.flags & av.format.Flags.ts_discont.value or container.format.name == "mp3"
    if not anywhere:
        return 0
    starts = [
        to_ns(s.start_time, s.time_base)
        for s in (*container.streams.video, *container.streams.audio)
        if s.start_time is not None and s.time_base
    ]
    return min(starts, default=0)


def to_ns(stamp: int, base: Fraction) -> int:
    """Nanoseconds of a stamp, rounded half up; exact in integers."""
    return (stamp * base.numerator * NS * 2 + base.denominator) // (2 * base.denominator)


def frames_of(
    path: Path, index: int, damage: Damage, zero_ns: int, start_ns: int | None = None
) -> Iterator[tuple[int, int, Any]]:
    """(instant ns, duration ns, frame) of every frame of a stream that decodes, in the order of the container.

    Frames that say no time follow their predecessor. start_ns: begin at the last keyframe before this instant.
    """
    after: int | None = None
    promised_ns = None
    with opened(path) as container:
        stream = container.streams[index]
        if stream.codec_context is None:  # a codec that FFmpeg does not know, or none that is said
            return
        # Of small pictures threads cost a sixth more than they take off a reader that is ahead of its readers anyway.
        small = stream.type == "video" and stream.width * stream.height <= _SMALL_PICTURE
        stream.thread_type = "NONE" if small else "AUTO"
        base = Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)
        rate = nominal_rate(stream) if stream.type == "video" else None
        usual_ns = round(NS / rate) if rate else NS // 25
        if stream.duration:
            promised_ns = to_ns((stream.start_time or 0) + stream.duration, base) - zero_ns
        elif container.duration and "matroska" in container.format.name and matroska_is_cut(path):
            promised_ns = container.duration * 1000
        decoded = _decoded(container, stream, damage)
        if start_ns is not None:
            decoded = _sought(container, stream, damage, start_ns + zero_ns, base)
        for frame in decoded:
            clock = Fraction(frame.time_base) if frame.time_base else base
            stamp = frame.pts if frame.pts is not None else frame.dts
            if getattr(frame, "samples", 0) and frame.sample_rate:
                length = round(Fraction(frame.samples * NS, frame.sample_rate))
            else:
                length = to_ns(frame.duration, clock) if frame.duration else usual_ns
            at = to_ns(stamp, clock) - zero_ns if stamp is not None else (after or 0)
            after = at + length
            yield at, length, frame
    # Half a second is more than headers are off by in whole files, and less than what anybody would miss.
    if promised_ns is not None and after is not None and promised_ns - after > NS // 2:
        damage.cut = f"it ends at {after / NS:.1f} s of the {promised_ns / NS:.1f} s that its header promises"


def _sought(container: Any, stream: Any, damage: Damage, start_ns: int, base: Fraction) -> Iterator[Any]:
    """Frames from one on that is shown at an instant of the container's clock or before; all, if there is none.

    Containers look for the keyframe by when it is decoded. It may be shown later than the instant, then.
    """
    before = replace(damage)
    for back_ns in (0, NS, 8 * NS, None):
        vars(damage).update(vars(before))
        with suppress(*FAULTS):  # then from where it is
            stamp = round(Fraction(start_ns - back_ns, NS) / base) if back_ns is not None else stream.start_time or 0
            container.seek(stamp, stream=stream)
        frames = _decoded(container, stream, damage)
        first = next(frames, None)
        if first is not None and (first.pts is None or back_ns is None or to_ns(first.pts, base) <= start_ns):
            return chain([first], frames)
    return iter(())


def matroska_is_cut(path: Path) -> bool:
    """Whether a Matroska or WebM file ends before its segment does, by the sizes at its beginning (RFC 8794, 9559).

    FFmpeg reads such a file to its end without a word.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    _, at = _ebml_size(head, 4)
    after = at + _ebml_size(head, 4)[0]
    if head[:4] != b"\x1a\x45\xdf\xa3" or head[after : after + 4] != b"\x18\x53\x80\x67":
        return False
    size, at = _ebml_size(head, after + 4)
    return size >= 0 and path.stat().st_size < at + size


def _ebml_size(content: bytes, at: int) -> tuple[int, int]:
    """A size of variable length and where it ends; -1 if the writer did not know it."""
    first = content[at] if at < len(content) else 0
    if not first:
        return -1, at + 8
    length = 9 - first.bit_length()
    value = int.from_bytes(content[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length


def _decoded(container: Any, stream: Any, damage: Damage) -> Iterator[Any]:
    last_flush, retries = None, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except FAULTS:
            damage.broken = True
            retries += 1
            if retries > _RETRIES:
                break
            packets = container.demux(stream)  # the file is read on from where it is
            continue
        if packet.size == 0:
            # Some containers hold empty packets in mid-stream, which the decoder would take for the end.
            last_flush = packet
            continue
        retries = 0
        damage.broken |= packet.is_corrupt
        try:
            frames = packet.decode()
        except FAULTS:
            damage.lost += 1
            continue
        yield from _counted(frames, damage)
    if last_flush is not None:
        try:
            frames = stream.decode(None)
        except FAULTS:
            return
        yield from _counted(frames, damage)


def _counted(frames: list[Any], damage: Damage) -> Iterator[Any]:
    for frame in frames:
        damage.concealed += bool(frame.is_corrupt)
        yield frame


def steady(frames: Iterator[tuple[int, int, T]], damage: Damage) -> Iterator[tuple[int, int, T]]:
    """The same frames on a clock that advances.

    A single frame far ahead of both its neighbours has a damaged stamp, and is dropped; where all that follow have
    leapt (back by a second, or ahead by an hour: recordings joined end to end), they are moved to follow on.
    """
    pause = iter(frames)
    held = next(pause, None)
    last: int | None = None
    moved = 0
    length_before = 0
    while held is not None:
        following = next(pause, None)
        at, length, item = held[0] + moved, held[1], held[2]
        if last is not None:
            ahead_by = at - last
            stray = following is not None and last < following[0] + moved < at and ahead_by > _LEAP_BACK_NS
            if stray:
                damage.dropped += 1
                held = following
                continue
            if ahead_by < -_LEAP_BACK_NS or ahead_by > _LEAP_AHEAD_NS:
                step = last + max(length_before, 1) - at
                moved, at = moved + step, at + step
                damage.leaps += 1
        yield at, length, item
        last = at if last is None else max(last, at)
        length_before = length
        held = following


def first_frame(path: Path, index: int) -> Any | None:
    """The first frame that decodes; None if there is none. It outlives its container."""
    frames = frames_of(path, index, Damage(), 0)
    try:
        return next(frames, (0, 0, None))[2]
    finally:
        frames.close()  # type: ignore[attr-defined]


_announcing = threading.Lock()


def announce(path: Path, name: str, damage: Damage, problems: Problems) -> None:
    """Says what was wrong, if anything was."""
    told = damage.said()
    if told:
        with _announcing:
            problems(f"{path} {name}: {told} (what could be read is kept; copy or export it again)")
