"""Pictures that lie in tables, as video: arrays of an .npz of a simulator, and PNG or JPEG in the cells of a Parquet.

What is unusual: whether an array is pictures is told by its shape and by its numbers. Colour pictures, (n, H, W, C) or
(n, C, H, W) with C 1, 3 or 4, hold bytes, or numbers of 0 to 1, or whole ones of 0 to 255; pictures without a channel,
(n, H, W), are so where they are bytes, or where their name says so too: a depth or a pressure is not. The way to YUV
4:2:0 is that of every other recording (`container_video`), so `--size` and `--fps` hold here too.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pantok.errors import InputError
from pantok.experience import NS, Block, Clock, Track
from pantok.formats.container import FAULTS
from pantok.formats.container_video import Shape, at_rate, copy_frame, frames_a_block, resized, shape_of
from pantok.formats.files import Problems, once
from pantok.pixels import frame_bytes

_LEAST = 8  # pixels a side; smaller arrays are numbers
_JPEG = b"\xff\xd8\xff"
_FORMS = {1: "gray", 3: "rgb24", 4: "rgba"}
_WORDS = {"image", "img", "picture", "rgb", "rgba", "gray", "grey", "camera", "cam", "video", "frame", "pixel"}
_NOT_SO = {"depth", "mask", "segmentation", "seg"}
_HELD_IN = {"gif", "apng", "mov"}
"""Containers of single pictures, AVIF among them, that are not called by their codec (`png_pipe`)."""
Picture = tuple[int, Any | None]
"""The number of a sample and its picture, of FFmpeg's; None where it could not be decoded."""
MANY = 512
"""Numbers a row from which an array is worth a word; (n, H, W) of fewer bytes are numbers."""


def are_pictures(name: str) -> bool | None:
    """Whether the name of an array says that it holds pictures as people see them; None if it does not say."""
    words = {word.rstrip("s") for word in re.findall("[a-z]+", name.lower())}
    return False if words & _NOT_SO else bool(words & _WORDS) or None


def scale_of(values: np.ndarray, named: bool | None) -> float | None:
    """What the array's numbers are to be multiplied by for pictures of 0 to 255; None if it is not pictures.

    named: something else says that it is pictures; then the shape and the range suffice. False: that it is not; then
    bytes are all the same, and colours.
    """
    form = _form(values)
    if form is None or not values.size:
        return None
    colour, size = values.ndim == 4 and (named is not False or form[2] > 1), math.prod(values.shape[1:])
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return 1.0 if values.ndim == 4 or named or size >= MANY else None
    if not (named or (colour and kind != "b")):
        return None
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 255:  # NaN is not
        return None
    if kind == "b" or (kind == "f" and high <= 1):
        return 255.0
    return 1.0 if named or kind in "iu" or all(bool((rows == np.rint(rows)).all()) for rows in values) else None


def _form(values: np.ndarray) -> tuple[int, int, int] | None:
    """(height, width, channels) of pictures in the shape of an array; None if it has no such shape."""
    if values.ndim == 3:
        forms = [(*values.shape[1:], 1)]
    elif values.ndim == 4:
        _, a, b, c = values.shape
        forms = [(a, b, c), (b, c, a)]
    else:
        return None
    return next(((h, w, c) for h, w, c in forms if c in _FORMS and min(h, w) >= _LEAST), None)


def pictures_track(
    name: str, *, values: np.ndarray, scale: float, clock: Clock, problems: Problems, size: int | None = None,
    fps: Fraction | None = None,
) -> Track:  # fmt: skip
    """A video track of an array in which `scale_of` found pictures; it stays as it is until it is read. Rows that are
    None, as the file that they are in is damaged, are left out, and `problems` is told."""
    form = _form(values)
    assert form is not None, values.shape
    height, width, depth = form
    channels_first = values.ndim == 4 and values.shape[1:] != form

    def picture_at(number: int) -> Any | None:
        picture = values[number]
        if picture is None:
            return None
        if channels_first:
            picture = picture.transpose(1, 2, 0)
        if picture.dtype != np.uint8:
            picture = np.rint(picture * scale).astype(np.uint8)
        plain = picture[..., 0] if depth == 1 and picture.ndim == 3 else picture
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(plain), _FORMS[depth])

    shape = Shape(height=height, width=width, matrix="bt601", full_range=False)

    def pictures(first: int) -> Iterator[Picture]:
        return ((number, picture_at(number)) for number in range(first, clock.count))

    return track_of(name, pictures, clock, shape, "array", size, fps, once(problems), seekable=True)


def encoded_track(
    name: str, *, cells: Sequence[bytes], clock: Clock, problems: Problems, size: int | None = None,
    fps: Fraction | None = None,
) -> Track:  # fmt: skip
    """A video track of PNG, JPEG and the like, one a cell; those that do not decode are left out, and `problems` is
    told. name: as in `track_of`. Raises InputError if the first cannot be decoded."""
    first = decoded(cells[0])
    if first is None:
        raise InputError(name, "its first picture cannot be decoded", "write it again as PNG or JPEG")

    def pictures(first: int) -> Iterator[Picture]:
        return ((number, decoded(cell)) for number, cell in enumerate(cells[first:], first))

    return track_of(name, pictures, clock, shape_of(first, 2, 0), "pictures", size, fps, once(problems), seekable=True)


def decoded(cell: bytes) -> Any | None:
    """The picture of a PNG, JPEG or the like; None if it is none."""
    try:
        if cell.startswith(_JPEG):  # opening it as a file takes three times as long
            player = av.CodecContext.create("mjpeg", "r")
            player.thread_count = 1
            return next(iter(player.decode(av.Packet(cell))), None)
        with av.open(io.BytesIO(cell), "r") as container:
            kinds = container.format.name.split(",")
            if not (kinds[0].endswith("_pipe") or {*kinds} & _HELD_IN):
                return None  # FFmpeg takes some damaged pictures for text, which it draws
            return next(container.decode(video=0), None)
    except (*FAULTS, OSError, IndexError):
        return None


def track_of(
    name: str,
    pictures: Callable[[int], Iterator[Picture]],
    clock: Clock,
    shape: Shape,
    codec: str,
    size: int | None,
    fps: Fraction | None,
    problems: Problems,
    *,
    seekable: bool = False,
) -> Track:
    """A video track of pictures that are fetched one after another, each time that it is read.

    pictures: those from a sample of the clock on, of any size; what is None or left out by it could not be decoded, and
    `problems` is told how many. seekable: whether it costs nothing to begin anywhere.
    """
    width, height = (shape.width, shape.height) if size is None else resized(shape.width, shape.height, size)
    shape = Shape(height=height, width=width, matrix=shape.matrix, full_range=shape.full_range, turn=shape.turn)
    info = {"height": height, "width": width, "matrix": shape.matrix, "full_range": shape.full_range, "codec": codec}

    def frames(first: int) -> Iterator[tuple[int, int, Any]]:
        times = clock.times_ns
        steps = np.diff(times, append=clock.start_ns + clock.duration_ns)
        shown = 0
        for number, picture in pictures(first):
            if picture is not None:
                shown += 1
                yield int(times[number]), int(steps[number]), picture
        if not first and shown < clock.count:
            lost = clock.count - shown
            problems(f"{name}: {lost} of {clock.count} pictures cannot be decoded (left out; the others are kept)")

    def blocks(first: int = 0) -> Iterator[Block]:
        scaler, length = VideoReformatter(), frame_bytes(height, width)
        count = frames_a_block(length)
        held: list[np.ndarray] = []
        times: list[int] = []
        for time_ns, _, picture in at_rate(frames(first), fps) if fps is not None else frames(first):
            out = np.empty(length, np.uint8)
            copy_frame(picture, shape, scaler, out)
            held.append(out)
            times.append(time_ns)
            if len(held) == count:
                yield Block(np.stack(held), np.array(times, np.int64))
                held, times = [], []
        if held:
            yield Block(np.stack(held), np.array(times, np.int64))

    def glance(share: float) -> Iterator[Block]:
        return blocks(min(max(round(share * clock.count), 1), clock.count - 1))

    rate = fps or clock.rate or (Fraction(clock.count * NS, clock.duration_ns) if clock.duration_ns else None)
    glanced = glance if seekable and clock.count > 1 else None
    told_s = clock.duration_ns / NS
    return Track(name, blocks, None, rate, info=info, glance=glanced, told_s=told_s, begins_ns=clock.start_ns)
