"""Arrays of pictures, as in an .npz of a simulator, as video: (n, H, W, C) or (n, C, H, W) of uint8, C 1, 3 or 4.

The way to YUV 4:2:0 is that of every other recording (`container_video`), so `--size` and `--fps` hold here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pantok.experience import NS, Block, Clock, Track
from pantok.formats.container_video import BLOCK_FRAMES, Shape, at_rate, copy_frame, resized
from pantok.pixels import frame_bytes

_LEAST = 8  # pixels a side; smaller arrays of bytes are numbers
_FORMS = {1: "gray", 3: "rgb24", 4: "rgba"}


def is_pictures(values: np.ndarray) -> bool:
    """Bytes in the shape of pictures: sides of at least 8, and 1, 3 or 4 channels last (or first)."""
    if values.ndim != 4 or values.dtype != np.uint8:
        return False
    return any(c in _FORMS and min(h, w) >= _LEAST for h, w, c in _sides(values))


def _sides(values: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    _, a, b, c = values.shape
    return (a, b, c), (b, c, a)


def pictures_track(
    name: str, values: np.ndarray, clock: Clock, *, size: int | None = None, fps: Fraction | None = None
) -> Track:
    """A video track. values: as `is_pictures` has it; they stay where they are until they are read."""
    height, width, depth = next((h, w, c) for h, w, c in _sides(values) if c in _FORMS and min(h, w) >= _LEAST)
    if values.shape[1:] != (height, width, depth):
        values = values.transpose(0, 2, 3, 1)
    if size is not None:
        width, height = resized(width, height, size)
    shape = Shape(height=height, width=width, matrix="bt601", full_range=False)
    info = {"height": height, "width": width, "matrix": shape.matrix, "full_range": False, "codec": "array"}

    def frames() -> Iterator[tuple[int, int, Any]]:
        times = clock.times_ns
        steps = np.diff(times, append=clock.start_ns + clock.duration_ns)
        for time_ns, step, picture in zip(times.tolist(), steps.tolist(), values, strict=True):
            plain = picture[..., 0] if depth == 1 else picture
            yield time_ns, step, av.VideoFrame.from_ndarray(np.ascontiguousarray(plain), _FORMS[depth])

    def blocks() -> Iterator[Block]:
        scaler, length = VideoReformatter(), frame_bytes(height, width)
        held: list[np.ndarray] = []
        times: list[int] = []
        for time_ns, _, frame in at_rate(frames(), fps) if fps is not None else frames():
            out = np.empty(length, np.uint8)
            copy_frame(frame, shape, scaler, out)
            held.append(out)
            times.append(time_ns)
            if len(held) == BLOCK_FRAMES:
                yield Block(np.stack(held), np.array(times, np.int64))
                held, times = [], []
        if held:
            yield Block(np.stack(held), np.array(times, np.int64))

    rate = fps or clock.rate or (Fraction(clock.count * NS, clock.duration_ns) if clock.duration_ns else None)
    return Track(name, blocks, None, rate, info=info)
