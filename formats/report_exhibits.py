"""What a report shows of a recording: a few pictures, a stretch of sound, some channels, kept while they are measured.

Each exhibit is a `watch` for `pantok.evaluate.evaluate`: it sees all samples as they pass and keeps the few that
it will show, so a report of an hour costs no more memory than one of a minute. Pictures become PNG, large ones JPEG
of high quality, sound FLAC, all inside the page.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from pantok import pixels

PNG_MOST_PIXELS = 100_000
WIDEST = 960
SOUND_SECONDS = 6.0
TRACE_ROWS = 3000
TRACE_CHANNELS = 12


class Pictures:
    """The frames numbered `moments`, of the original and of each version: uint8 (H, W, 3)."""

    def __init__(self, info: Mapping[str, Any], moments: Sequence[int]) -> None:
        self.info, self.moments = info, sorted(set(moments))
        self.original: dict[int, np.ndarray] = {}
        self.versions: dict[int, list[np.ndarray]] = {}

    def __call__(self, at: int, original: np.ndarray, versions: Sequence[np.ndarray]) -> None:
        for moment in self.moments:
            if at <= moment < at + len(original):
                self.original[moment] = self._rgb(original[moment - at])
                self.versions[moment] = [self._rgb(v[moment - at]) for v in versions]

    def _rgb(self, frame: np.ndarray) -> np.ndarray:
        facts = self.info
        picture = pixels.to_rgb(
            frame[None],
            int(facts["height"]),
            int(facts["width"]),
            facts.get("matrix", "bt601"),
            bool(facts.get("full_range", False)),
        )[0]
        return shrunk(picture)


def shrunk(picture: np.ndarray, widest: int = WIDEST) -> np.ndarray:
    """At most so wide, by the mean of whole squares."""
    by = -(-picture.shape[1] // widest)
    if by == 1:
        return picture
    h, w = picture.shape[0] // by, picture.shape[1] // by
    squares = picture[: h * by, : w * by].reshape(h, by, w, by, 3)
    return np.rint(squares.mean((1, 3), dtype=np.float32)).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray, gain: int = 4) -> np.ndarray:
    """Mid-grey plus `gain` times the difference, uint8 (H, W, 3): grey is where the two agree."""
    return (128 + gain * (b.astype(np.int16) - a)).clip(0, 255).astype(np.uint8)


class Sound:
    """The first SOUND_SECONDS of the original and of each version, float32 (n, channels) within -1 .. 1."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._most = round(SOUND_SECONDS * sample_rate)
        self._parts: list[list[np.ndarray]] = []

    def __call__(self, at: int, original: np.ndarray, versions: Sequence[np.ndarray]) -> None:
        if at >= self._most:
            return
        if not self._parts:
            self._parts = [[] for _ in range(1 + len(versions))]
        for parts, values in zip(self._parts, (original, *versions), strict=True):
            parts.append(values[: self._most - at].copy())

    @property
    def original(self) -> np.ndarray:
        return unit(np.concatenate(self._parts[0]))

    @property
    def versions(self) -> list[np.ndarray]:
        return [unit(np.concatenate(parts)) for parts in self._parts[1:]]


def unit(samples: np.ndarray) -> np.ndarray:
    """float32 within -1 .. 1 of int16 or float samples."""
    return samples.astype(np.float32) / 32768 if samples.dtype == np.int16 else samples.astype(np.float32)


class Rows:
    """The first TRACE_ROWS rows and TRACE_CHANNELS channels of the original and of each version, float64."""

    def __init__(self) -> None:
        self._parts: list[list[np.ndarray]] = []

    def __call__(self, at: int, original: np.ndarray, versions: Sequence[np.ndarray]) -> None:
        if at >= TRACE_ROWS:
            return
        if not self._parts:
            self._parts = [[] for _ in range(1 + len(versions))]
        for parts, values in zip(self._parts, (original, *versions), strict=True):
            parts.append(values[: TRACE_ROWS - at].reshape(min(len(values), TRACE_ROWS - at), -1)[:, :TRACE_CHANNELS])

    @property
    def original(self) -> np.ndarray:
        return np.concatenate(self._parts[0]).astype(np.float64)

    @property
    def versions(self) -> list[np.ndarray]:
        return [np.concatenate(parts).astype(np.float64) for parts in self._parts[1:]]


def image_url(picture: np.ndarray) -> str:
    """A data URL of uint8 (H, W, 3): PNG, or JPEG for large ones."""
    height, width, _ = picture.shape
    small = height * width <= PNG_MOST_PIXELS
    codec = av.CodecContext.create("png" if small else "mjpeg", "w")
    codec.height, codec.width, codec.time_base = height, width, Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    if small:
        codec.pix_fmt = "rgb24"
    else:
        codec.pix_fmt = "yuvj444p"
        codec.options = {"qmin": "3", "qmax": "3"}
        frame = frame.reformat(format="yuvj444p", dst_colorspace="ITU601", dst_color_range="JPEG")
    data = b"".join(bytes(p) for p in (*codec.encode(frame), *codec.encode(None)))
    return _url("image/png" if small else "image/jpeg", data)


def sound_url(samples: np.ndarray, sample_rate: int) -> str:
    """A data URL of FLAC, 16 bits, of float32 (n, channels); channels beyond the second are left out."""
    samples = samples[:, :2]
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    pcm = np.rint(samples.clip(-1, 1) * 32767).astype(np.int16)
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return _url("audio/flac", file.getvalue())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def spectrogram(samples: np.ndarray, sample_rate: int, loudest: float | None = None) -> tuple[np.ndarray, float]:
    """uint8 (160, n, 3) over 80 dB, low tones at the bottom on a mel scale, and the power that is white.

    samples: float32 (n, channels), mixed down. loudest: that of the original, so that versions share one scale.
    """
    mono = samples.mean(1)
    size = 2 ** max(6, round(math.log2(sample_rate * 0.032)))
    hop = max(size // 4, -(-len(mono) // 640))
    mono = np.pad(mono, (0, max(0, size - len(mono))))
    cuts = np.lib.stride_tricks.sliding_window_view(mono, size)[::hop]
    power = np.abs(np.fft.rfft(cuts * np.hanning(size).astype(np.float32), axis=1)) ** 2
    # Each row is the mean power between two edges of O'Shaughnessy's mel scale, 2595 log10(1 + f / 700).
    rows = 160
    top = 2595 * math.log10(1 + sample_rate / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, rows + 1) / 2595) - 1)
    edges = edges_hz / (sample_rate / 2) * (power.shape[1] - 1)
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, 1)], 1)
    at = np.array([np.interp(edges + 0.5, np.arange(total.shape[1]), line) for line in total])
    mean = np.diff(at, axis=1) / np.maximum(np.diff(edges), 1e-9)
    loudest = loudest or max(float(mean.max()), 1e-12)
    level = 1 + np.log10(np.maximum(mean / loudest, 1e-8)) / 8
    return _HEAT[(level.clip(0, 1) * 255).astype(np.uint8)].transpose(1, 0, 2)[::-1], loudest


def _heat() -> np.ndarray:
    """Black, violet, orange, cream: uint8 (256, 3), of rising lightness."""
    stops = np.array([[4, 4, 12], [60, 18, 96], [150, 40, 110], [226, 84, 74], [252, 166, 72], [252, 250, 205]])
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)], 1).astype(np.uint8)


_HEAT = _heat()
