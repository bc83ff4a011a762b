"""Pictures of a media file (PyAV) as planar YUV 4:2:0 in eight bits, upright, on their exact instants.

Frames that a codec holds in this form already are copied plane by plane, honouring the length of lines (odd sizes
have ceil(size / 2) of chroma). All others, whatever their depth, sampling or matrix, go through swscale with
arithmetic that is the same on every machine. The range of the values is kept; of the matrices BT.601 and BT.709 are
kept, BT.2020 and its kin become BT.709, RGB becomes BT.601.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import Any, cast

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from pantok.errors import InputError, OptionError
from pantok.experience import NS, Block, Clock, Track
from pantok.formats.ahead import ahead
from pantok.formats.container import (
    FAULTS,
    Damage,
    announce,
    first_frame,
    frames_of,
    nominal_rate,
    opened,
    steady,
    told_seconds,
)
from pantok.formats.files import Problems
from pantok.pixels import frame_bytes

BLOCK_FRAMES = 32
_BLOCK_BYTES = 16 << 20  # large pictures come fewer at a time: what waits in memory does not grow with their size
_ROUNDED_NS = 100_000
_COARSE_NS = 1_000_000  # as the stamps of Matroska are
_EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_PLANAR = ("yuv420p", "yuvj420p")
_PNG = ("rgb24", "rgba", "rgb48be", "rgba64be", "pal8", "gray", "gray16be", "ya8", "ya16be", "monob")
"""What PNG decodes to."""
_BT709, _BT601 = int(Colorspace.ITU709), int(Colorspace.ITU601)
_MATRIX = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt709", 10: "bt709"}  # by AVColorSpace
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # AVColorSpace -> the constant that swscale has for it


def _unnamed(kind: type[SideData], value: object) -> SideData:
    """A kind of side data that PyAV has no name for, such as the EXIF of a photo; up to 18.1 it raises ValueError there
    and tells nothing of the others (PyAV #2392)."""
    member: Any = object.__new__(kind)
    member._name_, member._value_ = f"unnamed_{value}", value
    return cast(SideData, member)


SideData._missing_ = classmethod(_unnamed)  # type: ignore[assignment, arg-type]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What every frame of a track is brought to. `turn` is how stored pictures are set upright.

    height, width: upright. matrix: `bt601` or `bt709`. turn: (transpose, mirror rows, mirror columns).
    """

    height: int
    width: int
    matrix: str
    full_range: bool
    turn: tuple[bool, bool, bool] = (False, False, False)

    @property
    def stored(self) -> tuple[int, int]:
        """(width, height) before turning."""
        return (self.height, self.width) if self.turn[0] else (self.width, self.height)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where in a stream the pictures of one recording lie, if those of several follow each other in it.

    start_ns: the instant of the first, which becomes zero. rate, count: what they are known to be; stamps that are off
    by no more than containers round, a tenth of a millisecond, are those of that rate.
    """

    start_ns: int
    rate: Fraction
    count: int

    def of(self, frames: Iterator[tuple[int, int, Any]]) -> Iterator[tuple[int, int, Any]]:
        """Those of frames on the stream's clock (from `start_ns` on, or before) that are the recording's.

        It begins and ends at the picture that is nearest to where it should, by less than half of one.
        """
        instants = Clock.regular(self.rate, self.count + 1).times_ns.tolist()
        period, half_ns = self.rate.denominator * NS, float(NS / self.rate / 2)
        ahead_ns: int | None

        def begins(at_ns: int, time_ns: int) -> bool:
            early_ns = at_ns - time_ns
            return early_ns <= 0 or (early_ns < half_ns and (ahead_ns is None or ahead_ns - at_ns >= early_ns))

        item = next(frames, None)
        while item is not None:
            (time_ns, length, frame), item = item, next(frames, None)
            ahead_ns = item[0] if item is not None else None
            if begins(instants[-1], time_ns):
                return
            if begins(0, time_ns):
                shown_ns = max(time_ns, 0)
                number = min((2 * shown_ns * self.rate.numerator + period) // (2 * period), self.count - 1)
                exact = instants[number]
                if abs(time_ns - exact) <= _ROUNDED_NS:
                    yield exact, min(length, instants[number + 1] - exact), frame
                else:
                    yield shown_ns, length, frame


def video_track(
    path: Path,
    index: int,
    name: str,
    zero_ns: int,
    size: int | tuple[int, int] | None,
    fps: Fraction | None,
    problems: Problems,
    span: Span | None = None,
) -> Track:
    """The pictures of one stream, or of a span of it. Raises InputError if not one of the stream decodes."""
    frame = first_frame(path, index)
    if frame is None:
        raise InputError(f"{path} {name}", "holds no picture that can be decoded", "export it again")
    with opened(path) as container:
        stream = container.streams[index]
        rate, base = fps or nominal_rate(stream), stream.time_base
        codec, aspect = stream.codec_context.name, stream.sample_aspect_ratio
        told_s = told_seconds(container, stream)
        space, range_ = int(stream.codec_context.colorspace), int(stream.codec_context.color_range)
    if span is not None:
        rate, told_s, zero_ns = fps or span.rate, float(span.count / span.rate), zero_ns + span.start_ns
    shape = shape_of(frame, space, range_)
    if size is not None:
        width, height = resized(shape.width, shape.height, size)
        shape = replace(shape, width=width, height=height)
    info: dict[str, Any] = {
        "height": shape.height,
        "width": shape.width,
        "matrix": shape.matrix,
        "full_range": shape.full_range,
        "time_base": str(1 / fps if fps else base),
        "codec": codec,
    }
    if aspect and aspect not in (0, 1):
        info["pixel_aspect"] = str(1 / Fraction(aspect) if shape.turn[0] else Fraction(aspect))

    def blocks() -> Iterator[Block]:
        return ahead(lambda: _blocks(path, index, name, shape, zero_ns, fps, problems, span=span))

    def glance(share: float) -> Iterator[Block]:
        start_ns = round(share * (told_s or 0) * NS)
        return _blocks(path, index, name, shape, zero_ns, fps, lambda line: None, start_ns, span)

    return Track(name, blocks, None, rate, info=info, glance=glance if told_s else None, told_s=told_s)


def resized(width: int, height: int, size: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height) with the shorter side `size`, or exactly `size`. Raises OptionError."""
    if isinstance(size, int):
        short = min(width, height)
        wanted = (max(1, round(width * size / short)), max(1, round(height * size / short)))
    else:
        wanted = size
    if min(wanted) < 1 or max(wanted) > 16384:
        raise OptionError("size", f"{wanted[0]}x{wanted[1]} is out of range", "sides of 1 to 16384 pixels")
    return wanted


def shape_of(frame: Any, space: int, range_: int) -> Shape:
    """What the first frame says of itself, or else its stream; if nothing, as players do BT.709 from 720 lines up."""
    turn = _turn(frame)
    width, height = (frame.height, frame.width) if turn[0] else (frame.width, frame.height)
    if _is_rgb(frame):
        return Shape(height=height, width=width, matrix="bt601", full_range=False, turn=turn)
    usual = "bt709" if frame.height >= 720 else "bt601"
    matrix = _MATRIX.get(int(frame.colorspace)) or _MATRIX.get(space, usual)
    full = _is_full(frame) or (int(frame.color_range) == 0 and range_ == int(ColorRange.JPEG))
    return Shape(height=height, width=width, matrix=matrix, full_range=full, turn=turn)


def _is_rgb(frame: Any) -> bool:
    return bool(frame.format.is_rgb or frame.format.has_palette) or int(frame.colorspace) == 0


def _is_full(frame: Any) -> bool:
    return frame.format.name.startswith("yuvj") or int(frame.color_range) == int(ColorRange.JPEG)


def _turn(frame: Any) -> tuple[bool, bool, bool]:
    """The display matrix as (transpose, mirror rows, mirror columns), in this order; angles between are ignored.

    The matrix maps a stored point to where it is shown: x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12, 8.2.2).
    """
    if frame.format.name in _PNG:
        # PyAV frees the name of a colour profile twice if a frame is asked for its side data. The angle can be asked
        # for; mirrors, which only the matrix tells, are not known of such pictures.
        quarters = round(frame.rotation / 90) % 4  # counterclockwise
        return (quarters % 2 == 1, quarters in (1, 2), quarters in (2, 3))
    try:
        a, b, _, c, d = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32)[:5].tolist()
    except KeyError:
        return (False, False, False)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return (True, b < 0, c < 0)
    return (False, d < 0, a < 0)


def _blocks(
    path: Path,
    index: int,
    name: str,
    shape: Shape,
    zero_ns: int,
    fps: Fraction | None,
    problems: Problems,
    start_ns: int | None = None,
    span: Span | None = None,
) -> Iterator[Block]:
    damage = Damage()
    scaler = VideoReformatter()
    begin_ns = start_ns if start_ns is not None or span is None or not span.start_ns else -_ROUNDED_NS
    frames = _advancing(steady(frames_of(path, index, damage, zero_ns, begin_ns), damage), damage)
    if start_ns is not None:  # keyframes begin scenes: what follows them is not like the rest
        frames = dropwhile(lambda item: item[0] < start_ns, frames)
    if span is not None:
        frames = _counted(span.of(frames), span.count if start_ns is None else 0, damage)
    if fps is not None:
        frames = at_rate(frames, fps)
    length = frame_bytes(shape.height, shape.width)
    count = frames_a_block(length)
    values, times, filled = np.empty((count, length), np.uint8), np.empty(count, np.int64), 0
    shown = None
    for time_ns, _, frame in frames:
        if frame is shown and filled:  # repeated to hold the rate
            values[filled] = values[filled - 1]
        else:
            try:
                copy_frame(frame, shape, scaler, values[filled])
            except FAULTS:
                damage.lost += 1
                continue
        times[filled], shown, filled = time_ns, frame, filled + 1
        if filled == count:
            yield Block(values, times)
            values, times, filled = np.empty((count, length), np.uint8), np.empty(count, np.int64), 0
    if filled:
        yield Block(values[:filled], times[:filled])
    announce(path, name, damage, problems)


def _counted(frames: Iterator[tuple[int, int, Any]], wanted: int, damage: Damage) -> Iterator[tuple[int, int, Any]]:
    """The same; that there were fewer than wanted is damage."""
    count = 0
    for count, item in enumerate(frames, 1):  # noqa: B007
        yield item
    if count < wanted:
        damage.cut = f"it holds {count} of the {wanted} pictures that were recorded"
    elif wanted and count > wanted:
        damage.cut = f"it holds {count} pictures where {wanted} were recorded"


def frames_a_block(length: int) -> int:
    """How many pictures of `length` bytes come at a time."""
    return max(1, min(BLOCK_FRAMES, _BLOCK_BYTES // length))


def _advancing(frames: Iterator[tuple[int, int, Any]], damage: Damage) -> Iterator[tuple[int, int, Any]]:
    """Without the frames whose instant is not after their predecessor's."""
    last: int | None = None
    for item in frames:
        if last is not None and item[0] <= last:
            damage.dropped += 1
            continue
        last = item[0]
        yield item


def at_rate(frames: Iterator[tuple[int, int, Any]], fps: Fraction) -> Iterator[tuple[int, int, Any]]:
    """At each instant of a regular clock, from the first frame on, the frame that was showing then.

    Instants are those of `Clock.regular(fps, ..., start)`, to the nanosecond; they end where the last frame does. What
    a container rounds its stamps by (a millisecond in Matroska) shows no frame twice: one that comes so much too late
    counts as there.
    """
    num, den = fps.numerator, fps.denominator
    step = round(Fraction(NS) / fps)
    rounding = min(step // 16, _COARSE_NS)
    shown, start, end, count = None, 0, 0, 0

    def instant() -> int:
        return start + (count * den * NS * 2 + num) // (2 * num)

    for time_ns, length, frame in frames:
        if shown is None:
            start = time_ns
        while shown is not None and instant() + rounding < time_ns:
            yield instant(), step, shown
            count += 1
        shown, end = frame, time_ns + max(length, 1)
    while shown is not None and instant() < max(end - rounding, start + 1):
        yield instant(), step, shown
        count += 1


def copy_frame(frame: Any, shape: Shape, scaler: VideoReformatter, out: np.ndarray) -> None:
    """The planes of `frame`, brought to `shape`, into `out`, uint8 (frame_bytes,)."""
    width, height = shape.stored
    matrix = _SWSCALE.get(int(frame.colorspace), _BT709 if shape.matrix == "bt709" else _BT601)
    wanted = _BT709 if shape.matrix == "bt709" else _BT601
    same = frame.format.name in _PLANAR and (frame.width, frame.height) == (width, height)
    full = shape.full_range if int(frame.color_range) == 0 and frame.format.name == "yuv420p" else _is_full(frame)
    if not (same and matrix in (wanted, 4) and full == shape.full_range):
        rgb = _is_rgb(frame)
        smaller = width * height < frame.width * frame.height
        frame = scaler.reformat(
            frame,
            width,
            height,
            "yuv420p",
            src_colorspace=wanted if rgb else matrix,
            dst_colorspace=wanted,
            interpolation=(Interpolation.AREA if smaller else Interpolation.BILINEAR) | _EXACT,
            src_color_range=ColorRange.JPEG if rgb or full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG if shape.full_range else ColorRange.MPEG,
            threads=1,
        )
    at = 0
    small = ((height + 1) // 2, (width + 1) // 2)
    for plane, (rows, columns) in zip(frame.planes, ((height, width), small, small), strict=True):
        lines = np.frombuffer(plane, np.uint8)
        lines = lines[: lines.size // plane.line_size * plane.line_size].reshape(-1, plane.line_size)
        picture = lines[:rows, :columns]
        transpose, flip_rows, flip_columns = shape.turn
        picture = picture.T if transpose else picture
        picture = picture[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
        out[at : at + rows * columns].reshape(picture.shape)[...] = picture
        at += rows * columns
