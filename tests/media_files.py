"""Media files made for tests with PyAV: any container and codec, any stamps, pictures whose order can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok.experience import Track
from pantok.formats.container import read_container
from pantok.pixels import frame_bytes, planes

MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """values: uint8 (n, frame_bytes) of YUV 4:2:0; stamps: in units of `base`, by default 0, 1, 2, ..."""

    values: np.ndarray
    height: int
    width: int
    codec: str = "libx264"
    base: Fraction = Fraction(1, 25)
    stamps: Sequence[int] | None = None
    options: dict[str, str] | None = None
    form: str = "yuv420p"


@dataclass(frozen=True, kw_only=True)
class Sound:
    """values: (n, channels) of int16 or float32; start: number of the first sample."""

    values: np.ndarray
    rate: int = 48_000
    codec: str = "aac"
    start: int = 0


def moving_pictures(count: int, height: int = 32, width: int = 48, seed: int = 0) -> np.ndarray:
    """Smooth pictures, each different from the others; uint8 (count, frame_bytes)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.empty((count, frame_bytes(height, width)), np.uint8)
    for i, picture in enumerate(out):
        luma, *chroma = planes(picture[None], height, width)
        luma[0] = 40 + 60 * (1 + np.sin((x + 3 * i) / 9)) + 30 * (1 + np.cos((y - 2 * i) / 7))
        for plane, level in zip(chroma, rng.integers(90, 170, 2), strict=True):
            plane[0] = level
    return out


def tones(count: int, rate: int = 48_000, channels: int = 2, dtype: str = "int16") -> np.ndarray:
    """A tone for each channel, (count, channels)."""
    t = np.arange(count)[:, None] / rate
    wave = 0.4 * np.sin(2 * np.pi * t * (220.0 * (1 + np.arange(channels))))
    return np.rint(wave * 32767).astype(np.int16) if dtype == "int16" else wave.astype(np.float32)


def make_media(path: Path, *signals: Pictures | Sound, **options: str) -> Path:
    """Writes the streams in the order given; the container goes by the suffix."""
    with av.open(str(path), "w", container_options=options) as container:
        writers = []
        for signal in signals:
            if isinstance(signal, Pictures):
                stream = container.add_stream(signal.codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = signal.width, signal.height, signal.form
                stream.codec_context.time_base = stream.time_base = signal.base
                stream.options = signal.options or {}
                writers.append((stream, _frames(signal, stream)))
            else:
                layout = {1: "mono", 2: "stereo", 6: "5.1"}[signal.values.shape[1]]
                stream = container.add_stream(signal.codec, rate=signal.rate, layout=layout)
                writers.append((stream, _samples(signal, stream)))
        heads = [(stream, frames, next(frames, None)) for stream, frames in writers]
        while any(head for _, _, head in heads):
            at = min((i for i, h in enumerate(heads) if h[2] is not None), key=lambda i: _seconds(heads[i][2]))
            stream, frames, head = heads[at]
            container.mux(stream.encode(head))
            heads[at] = (stream, frames, next(frames, None))
        for stream, _ in writers:
            container.mux(stream.encode(None))
    return path


def _seconds(frame: Any) -> Fraction:
    return frame.pts * Fraction(frame.time_base)


def _frames(signal: Pictures, stream: Any) -> Any:
    stamps = range(len(signal.values)) if signal.stamps is None else signal.stamps
    for picture, stamp in zip(signal.values, stamps, strict=True):
        frame = av.VideoFrame(signal.width, signal.height, "yuv420p")
        for plane, values in zip(frame.planes, planes(picture[None], signal.height, signal.width), strict=True):
            lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            lines[: plane.height, : plane.width] = values[0]
        if signal.form != "yuv420p":
            frame = frame.reformat(format=signal.form)
        frame.pts, frame.time_base = stamp, signal.base
        yield frame


def _samples(signal: Sound, stream: Any) -> Any:
    form = {"int16": "s16", "float32": "flt"}[str(signal.values.dtype)]
    resampler = av.AudioResampler(format=stream.codec_context.format or form, layout=stream.layout, rate=signal.rate)
    for at in range(0, len(signal.values), 1024):
        values = np.ascontiguousarray(signal.values[at : at + 1024]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, form, stream.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = signal.rate, signal.start + at, Fraction(1, signal.rate)
        yield from resampler.resample(frame)


def read(path: Path, **how: Any) -> tuple[dict[str, Track], list[str]]:
    """The tracks of a container by name, and what was said about it."""
    said: list[str] = []
    return {t.name: t for t in read_container(path, problems=said.append, **how)}, said


def times_of(track: Track) -> np.ndarray:
    return track.read()[1].times_ns


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def cut(path: Path, to: Path, share: float) -> Path:
    to.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return to
