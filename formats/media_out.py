"""Video with its sound into one .mp4 (PyAV): H.264 and AAC, or FFV1 and PCM where nothing may be lost.

Frames keep their exact instants: the file counts time in units in which every one of them is whole, the recording's
own where they are. H.264 in 4:2:0 has even sizes only, so an odd last row or column is repeated once; FFV1 keeps odd
sizes (and goes into .mp4, since Matroska rounds stamps to milliseconds). Matrix and range are written as tags. AAC
knows thirteen rates and seven channels: other rates are resampled to the next one up, more channels go as PCM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok import pixels
from pantok.experience import NS, Block, Clock
from pantok.formats.container import to_ns
from pantok.formats.files import replaced, unwritable
from pantok.formats.mp4_edits import delay_sound

_CRF = "16"  # well below what the tokenizer loses
_AAC_BITS_PER_CHANNEL = 96_000
_AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FINEST = 1_000_000  # ticks a second where no other clock fits: gaps between frames stay below 2**32 ticks for an hour
_LIMIT = 2**31 - 1
_SHORT_NS = NS // 2  # gaps below which nanoseconds fit: 32 bits hold 2 s of them, for frames shown out of order too


@dataclass(frozen=True)
class Signal:
    """What is to be written: fresh blocks, the clock of their samples, the track's facts, and its name."""

    blocks: Iterator[Block]
    clock: Clock
    info: Mapping[str, Any]
    channels: int = 1
    name: str = ""


def write_media(
    path: Path,
    video: Signal,
    sound: Signal | None = None,
    *,
    lossless: bool = False,
    keyframe_every: int | None = None,
) -> None:
    """Writes `path` (.mp4) whole or not at all. Raises OutputError if the disk refuses.

    lossless: bit for bit the frames and samples given, with their instants; else H.264 (crf 16) and AAC.
    keyframe_every: frames from one keyframe to the next, at most; None as the codec likes.
    """
    with replaced(path) as temporary:
        try:
            base = time_base_of(video)
            # An .mp4 says when each stream starts in the unit of the whole: whole milliseconds, if it were not told.
            unit = math.lcm(base.denominator, _rate_hz(sound) if sound else 1)
            options = {"movie_timescale": str(unit if unit <= _LIMIT else base.denominator)}
            with av.open(f"file:{temporary}", "w", format="mp4", container_options=options) as container:
                writer = _Writer(container, video, base, sound, lossless, keyframe_every)
                writer.run()
            if writer.sound_edit is not None:
                delay_sound(temporary, *writer.sound_edit)
        except OSError as error:  # FFmpeg's errors that the system caused are OSErrors as well
            if isinstance(error, av.error.FFmpegError) and (error.errno or 0) > 1000:
                raise  # FFmpeg's own: what was given to it is at fault, and that is a bug
            raise unwritable(path, error) from error


def changes_in(video: Signal, sound: Signal | None = None, *, lossless: bool = False) -> tuple[str, ...]:
    """What `write_media` will write otherwise than it is given, besides what H.264 and AAC lose: a phrase each."""
    found = []
    given = int(video.info["height"]), int(video.info["width"])
    height, width = size_of(video.info, lossless)
    if (height, width) != given:
        found.append(f"{width}x{height} for {given[1]}x{given[0]}: H.264 has even sizes")
    if sound is not None and not _packed(sound, lossless) and (rate := _aac_rate_hz(sound)) != _rate_hz(sound):
        found.append(f"sound at {rate:,} Hz for {_rate_hz(sound):,}: AAC has few rates")
    return tuple(found)


def time_base_of(video: Signal) -> Fraction:
    """The unit of time in which every frame's instant is whole to the nanosecond: the recording's own if it can be.

    Nanoseconds where gaps are short; where none that a container takes is exact, the nearest microsecond.
    """
    clock, said = video.clock, video.info.get("time_base")
    wishes = [Fraction(str(said)).denominator] if said else []
    if clock.rate is not None:
        rate, start = clock.rate.numerator, Fraction(clock.start_ns, NS).denominator
        wishes += [rate, math.lcm(rate, wishes[0]), math.lcm(rate, start)] if wishes else [rate, math.lcm(rate, start)]
    if np.diff(clock.times_ns).max(initial=0) < _SHORT_NS:
        wishes.append(NS)
    rest = clock.times_ns % NS
    for ticks in (*wishes, _FINEST):
        if 0 < ticks <= _LIMIT:
            whole = (rest * ticks * 2 + NS) // (2 * NS)
            back = (whole * NS * 2 + ticks) // (2 * ticks)
            if np.abs(back - rest).max(initial=0) <= 1:
                return Fraction(1, ticks)
    return Fraction(1, _FINEST)


class _Writer:
    def __init__(
        self,
        container: Any,
        video: Signal,
        base: Fraction,
        sound: Signal | None,
        lossless: bool,
        keyframe_every: int | None = None,
    ) -> None:
        self._container, self._video, self._sound = container, video, sound
        self._height, self._width = int(video.info["height"]), int(video.info["width"])
        self._full = bool(video.info.get("full_range"))
        self._matrix = 1 if video.info.get("matrix") == "bt709" else 6
        self._base = base
        rate = (video.clock.rate or Fraction(25)).limit_denominator(1001)
        stream = container.add_stream("ffv1" if lossless else "libx264", rate=rate)
        stream.height, stream.width = size_of(video.info, lossless)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = self._base
        stream.codec_context.color_range = 2 if self._full else 1
        # An .mp4 keeps the matrix only together with primaries and transfer, so all three are those of its standard.
        stream.codec_context.colorspace = self._matrix
        stream.codec_context.color_primaries = stream.codec_context.color_trc = self._matrix
        if video.info.get("pixel_aspect"):
            stream.codec_context.sample_aspect_ratio = Fraction(str(video.info["pixel_aspect"]))
        # FFV1 takes its version 3 for the checksum of every slice; more slices would cost size.
        stream.options = {"level": "3", "slicecrc": "1"} if lossless else {"crf": _CRF, "preset": "veryfast"}
        if keyframe_every is not None:
            stream.codec_context.gop_size = keyframe_every
        self._pictures = stream
        self._voice: _Voice | None = None if sound is None else _Voice(container, sound, lossless)

    def run(self) -> None:
        """Both signals in the order of their time, so that the file plays while it downloads."""
        parts = [(self._frames(), self._pictures)]
        if self._voice is not None:
            parts.append((self._voice.frames(), self._voice.stream))
        heads = [next(p, None) for p, _ in parts]
        while any(h is not None for h in heads):
            at = min((i for i, h in enumerate(heads) if h is not None), key=lambda i: heads[i][0])  # type: ignore[index]
            frames, stream = parts[at]
            self._mux(stream, heads[at][1])  # type: ignore[index]
            heads[at] = next(frames, None)
        for _, stream in parts:
            self._mux(stream, None)

    def _mux(self, stream: Any, frame: Any) -> None:
        for packet in stream.encode(frame):
            if self._voice is not None and stream is self._voice.stream and self._voice.first_packet is None:
                self._voice.first_packet = packet.pts * Fraction(packet.time_base)
            self._container.mux(packet)

    @property
    def sound_edit(self) -> tuple[Fraction, Fraction, int] | None:
        """Start and length in seconds, and priming in samples, of sound that starts late and has priming."""
        voice = self._voice
        if voice is None or voice.first is None or voice.first_packet is None:
            return None
        priming = voice.first - voice.first_packet
        if voice.first <= 0 or priming <= 0:
            return None
        rate = voice.stream.codec_context.sample_rate
        return voice.first, Fraction(voice.given, rate), round(priming * rate)

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
            rows = np.frombuffer(memoryview(plane), np.uint8)
            rows = rows[: rows.size // plane.line_size * plane.line_size].reshape(-1, plane.line_size)
            h, w = plane.height, plane.width
            short = [(0, h - values.shape[1]), (0, w - values.shape[2])]
            rows[:h, :w] = np.pad(values[0], short, "edge")
        frame.pts = round(Fraction(time_ns, NS) / self._base)
        frame.time_base = self._base
        frame.color_range = 2 if self._full else 1
        frame.colorspace = self._matrix
        return frame


class _Voice:
    """The stream of sound, and its frames of a tenth of a second."""

    def __init__(self, container: Any, sound: Signal, lossless: bool) -> None:
        self._sound = sound
        self._rate = _rate_hz(sound)
        self._whole = sound.info.get("dtype") == "int16"
        self._layout = _layout(sound)
        packed = _packed(sound, lossless)
        self._form = ("s16" if self._whole else "flt") if packed else "fltp"
        codec = ("pcm_s16le" if self._whole else "pcm_f32le") if packed else "aac"
        rate = self._rate if packed else _aac_rate_hz(sound)
        self.stream = container.add_stream(codec, rate=rate, layout=self._layout)
        if sound.name:
            self.stream.metadata["handler_name"] = sound.name  # as which it is read again
        if sound.info.get("language"):
            self.stream.metadata["language"] = str(sound.info["language"])
        if not packed:
            self.stream.bit_rate = _AAC_BITS_PER_CHANNEL * sound.channels
        self.first: Fraction | None = None  # seconds of the first sample given to the encoder
        self.first_packet: Fraction | None = None  # and of the first that came out of it
        self.given = 0  # samples
        self._resampler = None
        if rate != self._rate:
            self._resampler = av.AudioResampler(format=self._form, layout=self._layout, rate=rate)

    def frames(self) -> Iterator[tuple[int, Any]]:
        clock, index = self._sound.clock, 0
        first = (clock.start_ns * self._rate * 2 + NS) // (2 * NS)
        step = max(1, self._rate // 10)
        for block in self._sound.blocks:
            for at in range(0, len(block), step):
                values = block.values[at : at + step].reshape(-1, self._sound.channels)
                frame = av.AudioFrame.from_ndarray(self._arranged(values), self._form, self._layout)
                frame.sample_rate = self._rate
                frame.pts = first + index
                frame.time_base = Fraction(1, self._rate)
                yield from self._at_rate(frame)
                index += len(values)
        if self._resampler is not None:
            yield from self._at_rate(None)

    def _at_rate(self, frame: Any) -> Iterator[tuple[int, Any]]:
        frames = [frame] if self._resampler is None else self._resampler.resample(frame)
        for part in frames:
            if self.first is None:
                self.first = (part.pts or 0) * Fraction(part.time_base or 1)
            self.given += part.samples
            yield to_ns(part.pts or 0, Fraction(part.time_base or 1)), part

    def _arranged(self, values: np.ndarray) -> np.ndarray:
        if self._form == "s16":
            return np.ascontiguousarray(values, np.int16).reshape(1, -1)
        if values.dtype == np.int16:
            values = values.astype(np.float32) / 32768.0
        values = np.asarray(values, np.float32)
        return np.ascontiguousarray(values.reshape(1, -1) if self._form == "flt" else values.T)


def _rate_hz(sound: Signal) -> int:
    assert sound.clock.rate is not None and sound.clock.rate.denominator == 1, sound.clock.rate
    return int(sound.clock.rate)


def _aac_rate_hz(sound: Signal) -> int:
    return next((r for r in _AAC_RATES if r >= _rate_hz(sound)), _AAC_RATES[-1])


def _packed(sound: Signal, lossless: bool) -> bool:
    """Whether sound goes as PCM."""
    return lossless or sound.channels > 7


def size_of(facts: Mapping[str, Any], lossless: bool = False) -> tuple[int, int]:
    """Height and width as pictures of such facts are written."""
    even = 1 if lossless else 2
    height, width = (-(-int(facts[name]) // even) * even for name in ("height", "width"))
    return height, width


def _layout(sound: Signal) -> str:
    """The recording's own arrangement of loudspeakers if it can be named, else the usual one for so many channels."""
    said = str(sound.info.get("layout", ""))
    try:
        if said and " " not in said and av.AudioLayout(said).nb_channels == sound.channels:
            return said
    except ValueError:
        pass
    return _LAYOUTS.get(sound.channels, f"{sound.channels} channels")
