"""Video and sound out of whatever FFmpeg opens (PyAV), block by block, on the container's own clock.

What is unusual: containers lie, so nothing is believed that can be seen. Time comes from each frame's stamp, never
from a nominal rate; a packet that does not decode costs its own frames and is counted; frames whose stamp does not
advance are dropped and counted. Pictures stay planar YUV 4:2:0, as the codec holds them. A decoder runs in a thread
of its own, so that reading overlaps tokenizing.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Block, Track
from pantok.pixels import frame_bytes

Problems = Callable[[str], None]
_FRAMES = 16
_AHEAD = 4
_GAP_NS = 30_000_000  # what stamps of sound may be off before it counts as a gap: mkv rounds to whole milliseconds


def read_container(
    path: Path, *, size: int | None = None, fps: Fraction | None = None, problems: Problems = lambda line: None
) -> list[Track]:
    """The video and sound tracks of a media file; each opens it anew when it is read.

    size: the shorter side in pixels, on the way in. fps: frames a second, by repeating or dropping whole frames.
    problems: called with one line for each thing that was wrong but could be passed over.
    Raises InputError if the file holds no video and no sound that can be read.
    """
    with _opened(path) as container:
        pictures = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        sounds = list(container.streams.audio)
        tracks = []
        for number, stream in enumerate(pictures):
            name = "video" if number == 0 else f"video.{number}"
            track = _video_track(path, stream, name, size, fps, problems)
            if track is not None:
                tracks.append(track)
        for number, stream in enumerate(sounds):
            name = "audio" if number == 0 else f"audio.{number}"
            track = _audio_track(path, stream, name, problems)
            if track is not None:
                tracks.append(track)
    if not tracks:
        raise InputError(path, "holds no video and no sound that can be decoded", "check that it plays elsewhere")
    return tracks


def _opened(path: Path) -> Any:
    try:
        if path.stat().st_size == 0:
            raise InputError(path, "is empty (0 bytes)", "copy or record it again")
        return av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError)):
            raise InputError(
                path, f"cannot be opened: {error.strerror}", "check the path and its permissions"
            ) from error
        raise InputError(path, "is not a media file, or is cut off before its index", "check that it plays") from error


def _video_track(
    path: Path, stream: Any, name: str, size: int | None, fps: Fraction | None, problems: Problems
) -> Track | None:
    context, index = stream.codec_context, stream.index  # nothing of a stream may be touched once its file is closed
    if not context or not context.width or not context.height:
        problems(f"{path}: video stream {index} has no known size or codec (left out)")
        return None
    rotation = _rotation(path, index)
    width, height = (context.height, context.width) if rotation % 180 else (context.width, context.height)
    if size is not None and size != min(width, height):
        short = min(width, height)
        width, height = (max(1, round(v * size / short)) for v in (width, height))
    rate = fps or (Fraction(stream.average_rate) if stream.average_rate else None)
    tags = _tags(context, height)
    info = {"height": height, "width": width, **tags, "time_base": str(stream.time_base), "codec": context.name}

    def blocks() -> Iterator[Block]:
        frames = _pictures(path, index, width, height, rotation, tags, problems)
        return _in_thread(lambda: _gather(_at_rate(frames, fps) if fps else frames))

    return Track(name, blocks, None, rate, info=info)


def _tags(context: Any, height: int) -> dict[str, Any]:
    """Matrix and range of the planes; what is not said is taken as players take it: BT.709 from 720 lines up."""
    space = int(getattr(context, "colorspace", 2) or 2)
    matrix = "bt709" if space in (1, 9, 10) or (space not in (4, 5, 6, 7) and context.height >= 720) else "bt601"
    pix_fmt = context.pix_fmt or ""
    full = pix_fmt.startswith("yuvj") or int(getattr(context, "color_range", 0) or 0) == 2
    if not pix_fmt.startswith("yuv"):
        matrix, full = "bt601", False  # what swscale makes of RGB
    return {"matrix": matrix, "full_range": full}


def _rotation(path: Path, index: int) -> int:
    """Degrees by which the first picture asks to be turned, a multiple of 90."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(container.streams[index]):
                return round(frame.rotation / 90) * 90 % 360
    except (av.error.FFmpegError, OSError):
        pass
    return 0


def _decoded(path: Path, index: int, problems: Problems) -> Iterator[Any]:
    """Every frame that decodes; packets that do not are passed over and counted in one line at the end."""
    lost = 0
    with _opened(path) as container:
        stream = container.streams[index]
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError:
                problems(f"{path}: is damaged or cut off (what could be read is kept; copy or export it again)")
                break
            if packet.size == 0 and packet.dts is not None:
                continue  # some containers hold empty packets in mid-stream, which decode() takes for the end
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                lost += 1
    if lost:
        problems(f"{path}: {lost} packets of stream {index} could not be decoded (the rest is kept; export it again)")


def _pictures(
    path: Path, index: int, width: int, height: int, rotation: int, tags: dict[str, Any], problems: Problems
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(instant ns, duration ns, planar uint8) of each frame, instants strictly rising."""
    last, dropped, seen = None, 0, 0
    across, down = (height, width) if rotation % 180 else (width, height)
    options: dict[str, Any] = {} if not tags["full_range"] else {"dst_color_range": "jpeg"}
    for frame in _decoded(path, index, problems):
        if frame.format.name not in ("yuv420p", "yuvj420p") or (frame.width, frame.height) != (across, down):
            frame = frame.reformat(across, down, "yuv420p", interpolation="AREA", **options)
        base = frame.time_base or Fraction(1, 90000)
        stamp = frame.pts if frame.pts is not None else frame.dts
        length = _ns(frame.duration or 0, base)
        time_ns = _ns(stamp, base) if stamp is not None else (0 if last is None else last + max(length, 1))
        if last is not None and time_ns <= last:
            dropped += 1
            continue
        last, seen = time_ns, seen + 1
        yield time_ns, length, _planar(frame, rotation)
    if dropped:
        problems(f"{path}: {dropped} frames whose time does not advance were dropped (the others keep their times)")
    if not seen:
        raise InputError(path, "holds no frame that can be decoded", "check that it plays; export it again")


def _ns(stamp: int, base: Fraction) -> int:
    return (stamp * base.numerator * NS * 2 + base.denominator) // (2 * base.denominator)


def _planar(frame: Any, rotation: int) -> np.ndarray:
    """The three planes of a yuv420p frame in one vector, turned upright."""
    height, width = frame.height, frame.width
    parts = []
    for plane, (h, w) in zip(
        frame.planes, [(height, width)] + 2 * [((height + 1) // 2, (width + 1) // 2)], strict=True
    ):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:h, :w]
        parts.append((np.rot90(rows, rotation // 90) if rotation else rows).reshape(-1))
    packed = np.concatenate(parts)
    assert len(packed) in (frame_bytes(height, width), frame_bytes(width, height))
    return packed


def _at_rate(frames: Iterator[tuple[int, int, np.ndarray]], fps: Fraction) -> Iterator[tuple[int, int, np.ndarray]]:
    """At each instant of the new clock the frame that was showing then; integers throughout."""
    step, shown, start, count, end = Fraction(NS) / fps, None, 0, 0, 0
    for time_ns, length, picture in frames:
        if shown is None:
            start = time_ns
        while shown is not None and start + int(count * step) < time_ns:
            yield start + int(count * step), int(step), shown
            count += 1
        shown, end = picture, time_ns + (length or int(step))
    while shown is not None and start + int(count * step) < end:
        yield start + int(count * step), int(step), shown
        count += 1


def _gather(frames: Iterator[tuple[int, int, np.ndarray]]) -> Iterator[Block]:
    pending: list[tuple[int, int, np.ndarray]] = []
    for frame in frames:
        pending.append(frame)
        if len(pending) == _FRAMES:
            yield _block(pending)
            pending = []
    if pending:
        yield _block(pending)


def _block(frames: list[tuple[int, int, np.ndarray]]) -> Block:
    return Block(np.stack([f[2] for f in frames]), np.array([f[0] for f in frames], np.int64))


def _in_thread(make: Callable[[], Iterator[Block]]) -> Iterator[Block]:
    """The same blocks, made ahead by a thread; its errors are raised here, and leaving early ends it."""
    ahead: queue.Queue[Any] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def work() -> None:
        try:
            for block in make():
                while not stop.is_set():
                    try:
                        ahead.put(block, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set():
                    return
            end: Any = None
        except BaseException as error:
            end = error
        while not stop.is_set():
            try:
                ahead.put(end, timeout=0.1)
                return
            except queue.Full:
                continue

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while isinstance(item := ahead.get(), Block):
            yield item
        if item is not None:
            raise item
    finally:
        stop.set()
        worker.join()


def _audio_track(path: Path, stream: Any, name: str, problems: Problems) -> Track | None:
    context, index = stream.codec_context, stream.index
    if not context or not context.sample_rate:
        problems(f"{path}: sound stream {index} has no known rate or codec (left out)")
        return None
    rate, channels = int(context.sample_rate), int(context.channels)
    whole = context.format is not None and context.format.name.startswith(("s16", "u8"))
    info = {"sample_rate": rate, "dtype": "int16" if whole else "float32", "codec": context.name}
    return Track(
        name,
        lambda: _sound(path, index, rate, channels, "s16" if whole else "flt", problems),
        None,
        Fraction(rate),
        tuple(f"c{i}" for i in range(channels)),
        info=info,
    )


def _sound(path: Path, index: int, rate: int, channels: int, form: str, problems: Problems) -> Iterator[Block]:
    """Interleaved samples (n, channels); gaps in the stamps are filled with silence, overlaps are cut."""
    dtype = np.int16 if form == "s16" else np.float32
    at: int | None = None  # samples since the clock's zero
    gaps = 0
    resampler = None
    for frame in _decoded(path, index, problems):
        if resampler is None:
            resampler = av.AudioResampler(format=form, layout=frame.layout.name, rate=rate)
        for part in resampler.resample(frame):
            values = np.frombuffer(part.planes[0], dtype, part.samples * channels).reshape(-1, channels)
            if part.pts is not None and part.time_base:
                begin = round(part.pts * part.time_base * rate)
                if at is None:
                    at = begin
                late = begin - at
                if abs(late) * NS > _GAP_NS * rate:
                    gaps += 1
                    if late > 0:
                        yield Block(np.zeros((late, channels), dtype), _first_ns(at, rate, late))
                        at = begin
                    else:
                        values = values[-late:]
            at = at or 0
            if len(values):
                yield Block(values.copy(), _first_ns(at, rate, len(values)))
                at += len(values)
    if gaps:
        problems(f"{path}: {gaps} gaps or overlaps in the sound were filled or cut (its times are kept)")


def _first_ns(at: int, rate: int, count: int) -> np.ndarray:
    return (np.arange(at, at + count, dtype=np.int64) * NS * 2 + rate) // (2 * rate)
