"""Video with its sound into one file (PyAV): H.264 and AAC in .mp4, or FFV1 in .mov where nothing may be lost.

Frames keep their exact instants: the stream's time base is the one that the recording had. H.264 in 4:2:0 has even
sizes only, so an odd last row or column is repeated once; FFV1 keeps odd sizes. Matrix and range are written as tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok import pixels
from pantok.experience import NS, Block, Clock
from pantok.formats.files import replaced

_CRF = "16"  # well below what the tokenizer loses
_AAC_BITS_PER_CHANNEL = 96_000


@dataclass(frozen=True)
class Signal:
    """What is to be written: fresh blocks, the clock of their samples, and the track's facts."""

    blocks: Iterator[Block]
    clock: Clock
    info: Mapping[str, Any]
    channels: int = 1


def write_media(path: Path, video: Signal, sound: Signal | None = None, *, lossless: bool = False) -> None:
    """Writes `path` (.mp4, or .mov if lossless) whole or not at all. Raises OSError if the disk refuses."""
    with replaced(path) as temporary:
        try:
            with av.open(str(temporary), "w") as container:
                _Writer(container, video, sound, lossless).run()
        except av.error.FFmpegError as error:
            raise OSError(error.errno or 5, error.strerror or "cannot be written", str(path)) from error


class _Writer:
    def __init__(self, container: Any, video: Signal, sound: Signal | None, lossless: bool) -> None:
        self._container, self._video, self._sound, self._lossless = container, video, sound, lossless
        self._height, self._width = int(video.info["height"]), int(video.info["width"])
        rate = video.clock.rate or Fraction(25)
        self._base = Fraction(str(video.info.get("time_base") or 1 / rate))
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=rate.limit_denominator(1_000_000))
        even = 1 if lossless else 2
        stream.width, stream.height = (-(-v // even) * even for v in (self._width, self._height))
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._base
        stream.codec_context.color_range = 2 if video.info.get("full_range") else 1
        stream.codec_context.colorspace = 1 if video.info.get("matrix") == "bt709" else 6
        if not lossless:
            stream.options = {"crf": _CRF, "preset": "veryfast"}
        self._pictures = stream
        self._voice = None
        if sound is not None:
            rate_hz = int(sound.clock.rate or 16000)
            layout = "mono" if sound.channels == 1 else "stereo"
            self._voice = container.add_stream("pcm_f32le" if lossless else "aac", rate=rate_hz, layout=layout)
            if not lossless:
                self._voice.bit_rate = _AAC_BITS_PER_CHANNEL * min(sound.channels, 2)

    def run(self) -> None:
        """Both signals in the order of their time, so that the file plays while it downloads."""
        parts = [self._frames()] + ([self._samples()] if self._sound else [])
        heads = [next(p, None) for p in parts]
        while any(h is not None for h in heads):
            at = min((i for i, h in enumerate(heads) if h is not None), key=lambda i: heads[i][0])  # type: ignore[index]
            stream = self._pictures if at == 0 else self._voice
            self._container.mux(stream.encode(heads[at][1]))  # type: ignore[index, union-attr]
            heads[at] = next(parts[at], None)
        for stream in (self._pictures, self._voice):
            if stream is not None:
                self._container.mux(stream.encode(None))

    def _frames(self) -> Iterator[tuple[int, Any]]:
        index = 0
        for block in self._video.blocks:
            times = self._video.clock.at(np.arange(index, index + len(block)))
            for picture, time_ns in zip(block.values, times.tolist(), strict=True):
                yield time_ns, self._frame(picture, time_ns)
            index += len(block)

    def _frame(self, picture: np.ndarray, time_ns: int) -> Any:
        frame = av.VideoFrame(self._pictures.width, self._pictures.height, "yuv420p")
        for plane, values in zip(frame.planes, pixels.planes(picture[None], self._height, self._width), strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            h, w = plane.height, plane.width
            short = [(0, h - values.shape[1]), (0, w - values.shape[2])]
            rows[:h, :w] = np.pad(values[0], short, "edge")
        frame.pts = round(Fraction(time_ns, NS) / self._base)
        frame.time_base = self._base
        frame.color_range = 2 if self._video.info.get("full_range") else 1
        frame.colorspace = 1 if self._video.info.get("matrix") == "bt709" else 6
        return frame

    def _samples(self) -> Iterator[tuple[int, Any]]:
        assert self._sound is not None
        clock, index = self._sound.clock, 0
        rate_hz = int(clock.rate or 16000)
        first = round(Fraction(clock.start_ns, NS) * rate_hz)
        layout = "mono" if self._sound.channels == 1 else "stereo"
        for block in self._sound.blocks:
            values = block.values
            if values.dtype == np.int16:
                values = values.astype(np.float32) / 32768.0
            values = np.ascontiguousarray(values[:, : 1 if layout == "mono" else 2].T, np.float32)
            step = rate_hz // 10
            for at in range(0, values.shape[1], step):
                part = np.ascontiguousarray(values[:, at : at + step])
                form = "flt" if self._lossless else "fltp"
                data = part.T.reshape(1, -1) if form == "flt" else part
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), form, layout)
                frame.sample_rate = rate_hz
                frame.pts = first + index
                frame.time_base = Fraction(1, rate_hz)
                yield int(clock.at(np.array(index))), frame
                index += part.shape[1]
