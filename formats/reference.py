"""The same pictures through x264 and the same sound through Opus, at the nearest rate: what anybody could have had.

Bits are those of the coded frames alone, neither the container's nor x264's note to itself about its own settings
(some 700 bytes, as much as ten frames at a low rate). The rate is found by search, since what a quality costs is
known only afterwards; every step of the search is kept, since together the steps are the codec's own curve.
x264 always gets four threads, because its output depends on their number.
"""

from __future__ import annotations

import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from pantok import pixels
from pantok.experience import Block

Open = Callable[[], Iterator[Block]]
X264_CRF = (0.0, 51.0)
OPUS_BITS_PER_SECOND = (6_000, 256_000)
"""The least of a stream, the most of a channel. Below, Opus is not what it is known for; above, nothing is gained."""
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True, kw_only=True, eq=False)
class Coded:
    """What a reference codec made of a track. `blocks` decodes it anew each time, to the exact number of samples."""

    codec: str
    setting: str
    bits: int
    encode_seconds: float
    blocks: Open


def x264_points(
    blocks: Open,
    height: int,
    width: int,
    rate: Fraction | None,
    targets_bits: Sequence[float],
    *,
    preset: str = "medium",
    tolerance: float = 0.03,
    searches: int = 5,
) -> tuple[Coded, ...]:
    """Points of x264's rate-quality curve; the first is the one whose size is nearest to targets_bits[0].

    blocks: fresh iterator over planar YUV 4:2:0 frames, uint8 (n, frame_bytes).
    rate: frames a second (x264 spends by duration); 25 if not known.
    targets_bits: the first is searched for until within `tolerance`, at most `searches` encodings; the others get
        one encoding each, at the constant rate factor that the curve so far promises.
    Sizes are monotone in the rate factor: about a halving every 6.
    """
    tried: dict[float, Coded] = {}

    def encode(crf: float) -> Coded:
        if crf not in tried:
            tried[crf] = _x264(blocks, height, width, rate or Fraction(25), crf, preset)
        return tried[crf]

    def off(coded: Coded) -> float:
        return abs(math.log(coded.bits / targets_bits[0]))

    encode(28.0)
    for _ in range(searches - 1):
        if min(map(off, tried.values())) <= tolerance:
            break
        crf = _promised({k: c.bits for k, c in tried.items()}, targets_bits[0])
        if crf in tried:
            break
        encode(crf)
    nearest = min(tried.values(), key=off)
    for target in targets_bits[1:]:
        if all(abs(math.log(c.bits / target)) > 0.3 for c in tried.values()):
            encode(_promised({k: c.bits for k, c in tried.items()}, target))
    return (nearest, *(c for c in tried.values() if c is not nearest))


def _promised(bits_of: dict[float, int], target: float) -> float:
    """The rate factor at which log(bits) reaches the target on the line through the two nearest points."""
    near = sorted(bits_of, key=lambda crf: abs(math.log(bits_of[crf] / target)))
    slope = -math.log(2) / 6
    if len(near) > 1:
        a, b = near[:2]
        measured = (math.log(bits_of[a]) - math.log(bits_of[b])) / (a - b)
        slope = measured if measured < -0.01 else slope
    crf = near[0] + (math.log(target) - math.log(bits_of[near[0]])) / slope
    return round(min(max(crf, X264_CRF[0]), X264_CRF[1]), 2)


def _x264(blocks: Open, height: int, width: int, rate: Fraction, crf: float, preset: str) -> Coded:
    began = time.perf_counter()
    codec = av.CodecContext.create("libx264", "w")
    codec.height, codec.width, codec.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    codec.framerate, codec.time_base = rate, 1 / rate
    codec.options = {"crf": str(crf), "preset": preset, "threads": "4"}
    packets: list[bytes] = []
    count = 0
    for block in blocks():
        for picture in _even(block.values, height, width):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = count, codec.time_base
            packets += [bytes(p) for p in codec.encode(frame)]
            count += 1
    packets += [bytes(p) for p in codec.encode(None)]
    seconds = time.perf_counter() - began
    note = sum(len(unit) for unit in _nal_units(packets[0]) if unit[0] & 31 == 6) if packets else 0

    def decode() -> Iterator[Block]:
        decoder = av.CodecContext.create("h264", "r")
        for packet in (*packets, None):
            for frame in decoder.decode(None if packet is None else av.Packet(packet)):
                yield Block(_flat(frame.to_ndarray(format="yuv420p"), height, width))

    return Coded(
        codec="x264",
        setting=f"crf {crf:g}, {preset}",
        bits=8 * (sum(map(len, packets)) - note),
        encode_seconds=seconds,
        blocks=decode,
    )


def _even(frames: np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
    """Each frame as x264 takes it, uint8 (3/2 H, W) of even H and W: the last luma row or column said twice."""
    y, u, v = pixels.planes(frames, height, width)
    y = np.pad(y, ((0, 0), (0, height % 2), (0, width % 2)), "edge")
    flat = pixels.pack(y, u, v)
    yield from flat.reshape(len(frames), y.shape[1] * 3 // 2, y.shape[2])


def _flat(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Inverse of `_even`: uint8 (1, frame_bytes)."""
    even_h, even_w = height + height % 2, width + width % 2
    y, u, v = pixels.planes(picture.reshape(1, -1), even_h, even_w)
    return pixels.pack(y[:, :height, :width], u, v)


def _nal_units(stream: bytes) -> list[bytes]:
    """The units of an Annex B byte stream, without their start codes."""
    return [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1") if unit.rstrip(b"\0")]


def opus_points(
    blocks: Open,
    sample_rate: int,
    channels: int,
    targets_bits_per_second: Sequence[float],
    *,
    tolerance: float = 0.03,
    searches: int = 4,
) -> tuple[Coded, ...]:
    """Points of Opus's rate-quality curve; the first is the one whose size is nearest to the first target.

    blocks: fresh iterator over int16 or float32 (n, channels) samples. 1 or 2 channels; other counts give no points.
    Opus's variable rate lands beside what it was asked for, so the first target is corrected and asked for again.
    Rates outside OPUS_BITS_PER_SECOND are not asked for: the nearest point is then at its end.
    """
    if channels not in (1, 2):
        return ()
    low, high = OPUS_BITS_PER_SECOND[0], OPUS_BITS_PER_SECOND[1] * channels
    tried: dict[int, _Opus] = {}

    def encode(bits_per_second: float) -> _Opus:
        asked = round(min(max(bits_per_second, low), high))
        if asked not in tried:
            tried[asked] = _Opus(blocks, sample_rate, channels, asked)
        return tried[asked]

    def off(coded: _Opus) -> float:
        return abs(math.log(coded.bits_per_second / targets_bits_per_second[0]))

    asked = targets_bits_per_second[0]
    for _ in range(searches):
        coded = encode(asked)
        if off(coded) <= tolerance or not low <= asked <= high:
            break
        asked *= targets_bits_per_second[0] / coded.bits_per_second
    nearest = min(tried.values(), key=off)
    for target in targets_bits_per_second[1:]:
        if all(abs(math.log(c.bits_per_second / min(max(target, low), high))) > 0.2 for c in tried.values()):
            encode(target)
    sizes = {c.bits: c for c in (*tried.values(), nearest)}  # Opus gives the same packets for nearly equal rates
    return tuple(c.coded() for c in (nearest, *(c for c in sizes.values() if c is not nearest)))


class _Opus:
    """The track as Ogg Opus in memory; the samples themselves are held a second at a time."""

    def __init__(self, blocks: Open, sample_rate: int, channels: int, asked_bits_per_second: int) -> None:
        self.sample_rate, self.channels, self.asked = sample_rate, channels, asked_bits_per_second
        self.layout = "mono" if channels == 1 else "stereo"
        self.count = self.bits = 0
        self.dtype = np.dtype(np.float32)
        began = time.perf_counter()
        coded_rate = sample_rate if sample_rate in OPUS_RATES_HZ else 48000
        self._file = io.BytesIO()
        with av.open(self._file, "w", format="ogg") as container:
            stream = container.add_stream("libopus", rate=coded_rate, layout=self.layout, bit_rate=self.asked)
            resampler = av.AudioResampler(format="flt", layout=self.layout, rate=coded_rate)
            for frame in itertools.chain(self._frames(blocks), [None]):
                ready_frames = resampler.resample(frame)
                for ready in ready_frames if frame is not None else (*ready_frames, None):
                    for packet in stream.encode(ready):
                        self.bits += 8 * packet.size
                        container.mux(packet)
        self.encode_seconds = time.perf_counter() - began

    @property
    def bits_per_second(self) -> float:
        return self.bits * self.sample_rate / max(self.count, 1)

    def coded(self) -> Coded:
        return Coded(
            codec="Opus",
            setting=f"{self.asked / 1000:.3g} kbit/s",
            bits=self.bits,
            encode_seconds=self.encode_seconds,
            blocks=self.decode,
        )

    def decode(self) -> Iterator[Block]:
        """As many samples as went in, in their dtype."""
        left = self.count
        held: list[np.ndarray] = []
        # The Ogg demuxer drops the encoder's pre-skip, so that the first sample out is the first one in.
        with av.open(io.BytesIO(self._file.getvalue()), "r") as coded:
            kind = "s16" if self.dtype == np.int16 else "flt"
            back = av.AudioResampler(format=kind, layout=self.layout, rate=self.sample_rate)
            for frame in itertools.chain(coded.decode(audio=0), [None]):
                held += [out.to_ndarray().reshape(-1, self.channels) for out in back.resample(frame)]
                if held and (frame is None or sum(map(len, held)) >= self.sample_rate):
                    values = np.concatenate(held)[:left].astype(self.dtype, copy=False)
                    left -= len(values)
                    held = []
                    yield Block(values)
        if left:
            yield Block(np.zeros((left, self.channels), self.dtype))

    def _frames(self, blocks: Open) -> Iterator[av.AudioFrame]:
        for block in blocks():
            self.dtype = block.values.dtype
            for at in range(0, len(block), self.sample_rate):
                second = np.ascontiguousarray(block.values[at : at + self.sample_rate])
                kind = "s16" if second.dtype == np.int16 else "flt"
                frame = av.AudioFrame.from_ndarray(second.reshape(1, -1), format=kind, layout=self.layout)
                frame.sample_rate, frame.pts = self.sample_rate, self.count
                frame.time_base = Fraction(1, self.sample_rate)
                self.count += len(second)
                yield frame
