"""Pictures in the messages of robots' logs: JPEG and PNG, plain pixels, and packets of H.264 and its kin.

What is unusual: a picture is fetched from the log when it is wanted, and let go of then, so that an hour of a camera is
read in the memory of a few of its pictures, as often as asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok.experience import Clock, Track
from pantok.formats.container import FAULTS
from pantok.formats.container_video import Shape, shape_of
from pantok.formats.files import Problems, once
from pantok.formats.images import Picture, decoded, track_of
from pantok.formats.log_stream import Fetching, Place

FILES = {"sensor_msgs/CompressedImage", "foxglove_msgs/CompressedImage", "foxglove.CompressedImage"}
PIXELS = {"sensor_msgs/Image", "foxglove_msgs/RawImage", "foxglove.RawImage"}
PACKETS = {"foxglove_msgs/CompressedVideo", "foxglove.CompressedVideo", "ffmpeg_image_transport_msgs/FFMPEGPacket"}
TYPES = frozenset(FILES | PIXELS | PACKETS)
Message = Mapping[str, Any]
_FORMS = {
    "rgb8": "rgb24", "bgr8": "bgr24", "rgba8": "rgba", "bgra8": "bgra", "mono8": "gray", "8uc1": "gray",
    "8uc3": "bgr24", "8uc4": "bgra", "yuyv": "yuyv422", "yuv422_yuy2": "yuyv422", "yuv422": "uyvy422",
    "uyvy": "uyvy422", "bayer_rggb8": "bayer_rggb8", "bayer_bggr8": "bayer_bggr8", "bayer_gbrg8": "bayer_gbrg8",
    "bayer_grbg8": "bayer_grbg8",
}  # fmt: skip
"""FFmpeg's name of each encoding of pixels that is a picture as people see it."""
_BYTES = {"gray": 1, "rgb24": 3, "bgr24": 3, "rgba": 4, "bgra": 4, "yuyv422": 2, "uyvy422": 2}  # a pixel; Bayer has 1
_DEPTHS = ("compresseddepth", "16uc1", "32fc1", "mono16")
_FIRST = 20  # pictures tried for the first that decodes
_UNSEEN = 300  # packets of video that may come before its first picture


def reason(type_name: str, message: Message) -> str | None:
    """Why the pictures of a topic are left out, by one of its messages; None if they are not."""
    said = str(message.get("format") or message.get("encoding") or "").lower()
    if type_name in PACKETS:
        return None if _codec(message) else f"video of the codec {said or 'unknown'}"
    if any(depth in said.split(";")[0] or depth == "compresseddepth" in said for depth in _DEPTHS):
        return f"depth, {said}"
    if type_name in PIXELS and said not in _FORMS:
        return f"pixels of the encoding {said or 'unknown'}"
    return None


def video_track(
    path: Path, name: str, type_name: str, places: Sequence[Place], opened: Callable[[Path], Fetching],
    one: Callable[[bytes], Message | None], clock: Clock, problems: Problems, size: int | None, fps: Fraction | None,
) -> Track | None:  # fmt: skip
    """The pictures of a topic, None if not one of the first decodes. places: of its messages, one an instant.

    opened: the log at `path`, to fetch them. one: reads a message. Tracks of packets begin anywhere at the next
    keyframe.
    """

    def fetched(first: int) -> Iterator[tuple[int, Message | None]]:
        with opened(path) as log:
            for number in range(first, len(places)):
                content = log.at(places[number])
                yield number, None if content is None else one(content)

    if type_name in PACKETS:
        pictures: Callable[[int], Iterator[Picture]] = partial(_played, fetched)
    else:
        show = _of_file if type_name in FILES else _of_pixels

        def pictures(first: int) -> Iterator[Picture]:
            return ((n, None if message is None else show(message)) for n, message in fetched(first))

    tried = _UNSEEN if type_name in PACKETS else _FIRST
    first = next((p for n, p in pictures(0) if p is not None or n >= tried), None)
    if first is None:
        return None
    if type_name in PIXELS:
        shape = Shape(height=first.height, width=first.width, matrix="bt601", full_range=False)
    else:
        shape = shape_of(first, 2, 0)
    codec = "packets" if type_name in PACKETS else "pictures" if type_name in FILES else "array"
    return track_of(f"{path} {name}", pictures, clock, shape, codec, size, fps, once(problems), seekable=True).named(
        name
    )


def _of_file(message: Message) -> Any | None:
    return decoded(bytes(message.get("data", b"")))


def _of_pixels(message: Message) -> Any | None:
    """The picture of rows of pixels, which may be padded (`step`)."""
    form = _FORMS.get(str(message.get("encoding", "")).lower())
    height, width, step = (int(message.get(key, 0)) for key in ("height", "width", "step"))
    data = np.frombuffer(message.get("data", b""), np.uint8)
    if form is None or not (0 < height <= 16384 and 0 < width <= 16384):
        return None
    pixel = _BYTES.get(form, 1)
    step = step or width * pixel
    if step < width * pixel or len(data) < step * (height - 1) + width * pixel:
        return None
    rows = np.lib.stride_tricks.as_strided(data, (height, width * pixel), (step, 1))
    shape = (height, width) if pixel == 1 else (height, width, pixel)
    try:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(rows).reshape(shape), form)
    except FAULTS:
        return None


def _codec(message: Message) -> str | None:
    """FFmpeg's name of a codec; `h264`, `libx264`, `hevc_nvenc;rgb8` and the like are how others call them."""
    said = str(message.get("format") or message.get("encoding") or "").lower()
    known = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc", "av1": "av1", "vp9": "vp9"}
    return next((codec for part, codec in known.items() if part in said), None)


def _played(fetched: Callable[[int], Iterator[tuple[int, Message | None]]], first: int) -> Iterator[Picture]:
    """The pictures of packets; each has the number of the message that it came in."""
    player: Any = None
    for number, message in fetched(first):
        if message is None:
            continue
        if player is None:
            player = av.CodecContext.create(_codec(message) or "h264", "r")
            player.thread_count = 1
        packet = av.Packet(bytes(message.get("data", b"")))
        packet.pts = packet.dts = number
        packet.time_base = Fraction(1, 1000)
        yield from _shown(player, packet)
    if player is not None:
        yield from _shown(player, None)


def _shown(player: Any, packet: Any) -> Iterator[Picture]:
    try:
        for frame in player.decode(packet):
            if frame.pts is not None:
                yield frame.pts, frame
    except (*FAULTS, EOFError):
        return
