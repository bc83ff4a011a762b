"""How good an encoded track is, by prefix of levels, and how fast; what it costs is `pantok.rates`.

What is unusual: every prefix of levels is decoded beside the others, in step with the original and with whatever
reference codecs are handed in, so that the recording is read once, memory holds a few blocks whatever the length,
and each figure is of the same samples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Block, Track
from pantok.metrics.meters import Meter, NumericMeter, meter_for
from pantok.rates import rates
from pantok.stream import TrackTokens
from pantok.tokenizers import Encoder, Tokenizer

Open = Callable[[], Iterator[Block]]
Watch = Callable[[int, np.ndarray, Sequence[np.ndarray]], None]
"""(index of the first sample, original (n, ...), each version (n, ...)) of the samples compared at a time"""
MEASURED_FRAMES = 150
MEASURED_PIXELS = 40_000_000
"""RGB and SSIM are measured on about so many frames of a track, or pixels if that is less; luma PSNR on all."""

ENCODE_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """One version of the measured part: a prefix of levels, or what a reference codec made of it (levels None).

    encode_seconds: nan for a prefix, which is not encoded by itself; what the whole takes is extrapolated from the
        part on which the encoder was timed.
    """

    codec: str
    setting: str
    levels: int | None
    tokens: int
    bits: float
    entropy_bits: float
    quality: Mapping[str, float]
    identical: bool
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Other:
    """Another codec's version of the same samples."""

    codec: str
    setting: str
    bits: float
    encode_seconds: float
    blocks: Open


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was guaranteed of each channel of a numeric track when it was encoded, and what is found now.

    bounds, errors: in the track's units. kept: whether NaN and infinities came back as themselves.
    """

    channels: tuple[str, ...]
    bounds: tuple[float, ...]
    errors: tuple[float, ...]
    kept: bool

    @property
    def holds(self) -> bool:
        return self.kept and all(e <= b for e, b in zip(self.errors, self.bounds, strict=True))

    @property
    def text(self) -> str:
        """`exact`, `± 0.01`, `± 0.001 to 0.5`."""
        low, high = min(self.bounds), max(self.bounds)
        if high == 0:
            return "exact"
        return f"± {high:.3g}" if low == high else f"± {low:.3g} to {high:.3g}"


@dataclass(frozen=True, kw_only=True)
class TrackQuality:
    """How good the first `samples` samples of a track are. speeds: seconds of recording per second of work.

    certificate: of all levels, for a numeric track that has one.
    """

    track: str
    modality: str
    samples: int
    of_samples: int
    seconds: float
    values: int
    prefixes: tuple[Point, ...]
    references: tuple[Point, ...]
    encode_speed: float
    decode_speed: float
    certificate: Certificate | None = None


def some_prefixes(tokens: TrackTokens, most: int = 8) -> tuple[int, ...]:
    """Which prefixes to measure: `most` evenly spread ones, the first and the whole among them.

    A level without codes makes no prefix of its own.
    """
    whole = len(tokens.levels)
    filled = [k for k in range(1, whole + 1) if len(tokens.levels[k - 1].codes)]
    filled = [*filled[:-1], whole]
    step = (len(filled) - 1) / (most - 1)
    return tuple(filled) if step <= 1 else tuple(filled[round(i * step)] for i in range(most))


def evaluate(
    track: Track,
    tokens: TrackTokens,
    tokenizer: Tokenizer,
    *,
    prefixes: Sequence[int] = (),
    samples: int | None = None,
    others: Sequence[Other] = (),
    options: Any = None,
    encode_seconds: float = ENCODE_SECONDS,
    watch: Watch = lambda at, original, versions: None,
) -> TrackQuality:
    """Decodes prefixes of `tokens` beside the original `track`, measures them, and times encoding and decoding.

    prefixes: counts of levels, all by default; the whole is always measured and stands last.
    samples: of the beginning that are measured, see `measured_samples`; all by default.
    others: reference codecs' versions of the same samples.
    options: what the track was encoded with, for the timing of the encoder, which stops after `encode_seconds`
        of work; 0 leaves it out.
    watch: sees the samples as they are compared, the versions in the order prefixes, others.
    Raises InputError if the recording is shorter than its tokens.
    """
    whole = len(tokens.levels)
    prefixes = sorted({*(prefixes or range(1, whole + 1)), whole})
    assert prefixes[0] >= 1 and prefixes[-1] == whole, (prefixes, whole)
    samples = tokens.clock.count if samples is None else min(samples, tokens.clock.count)
    rated = rates(tokens, tokenizer.levels, -(-samples // tokens.tick))

    clocks = [_Stopwatch(tokenizer.decode(tokens, levels=k, start=0, stop=samples)) for k in prefixes]
    clocks += [_Stopwatch(other.blocks()) for other in others]
    originals = first(track.blocks(), samples)
    encoder = None
    if encode_seconds > 0:
        encoder = _TimedEncoder(tokenizer.encoder(track, options), encode_seconds)
        originals = encoder.watching(originals)
    meter = meter_for(tokens.modality, tokens.info, len(clocks), share=_share(tokens, samples))
    identical = [True] * len(clocks)
    at = 0
    for original, *versions in aligned([originals, *clocks]):
        if len(original) == 0:
            break
        if any(len(version) != len(original) for version in versions):
            raise InputError(track.name, f"ends or differs at sample {at}", "is it the recording that was encoded?")
        meter.update(original, versions)
        for i, version in enumerate(versions):
            identical[i] = identical[i] and _same(original, version)
        watch(at, original, versions)
        at += len(original)
    if at != samples:
        raise InputError(
            track.name,
            f"has {at} samples where its tokens say {samples}",
            "is it the recording that was encoded?",
        )
    encode_speed = math.nan
    if encoder is not None:
        encoder.finish()
        encode_speed = _speed(tokens.clock.cut(0, encoder.samples).duration_ns / NS, encoder.seconds)

    scores = meter.scores()
    points = [
        Point(
            codec="pantok",
            setting=_which(k, whole),
            levels=k,
            tokens=sum(level.tokens for level in rated.levels[:k]),
            bits=sum(level.bits for level in rated.levels[:k]),
            entropy_bits=sum(level.entropy_bits for level in rated.levels[:k]),
            quality=scores[i],
            identical=identical[i],
            encode_seconds=rated.seconds / encode_speed if k == whole else math.nan,
            decode_seconds=clocks[i].seconds,
        )
        for i, k in enumerate(prefixes)
    ]
    references = [
        Point(
            codec=other.codec,
            setting=other.setting,
            levels=None,
            tokens=0,
            bits=other.bits,
            entropy_bits=other.bits,
            quality=scores[i],
            identical=identical[i],
            encode_seconds=other.encode_seconds,
            decode_seconds=clocks[i].seconds,
        )
        for i, other in enumerate(others, len(prefixes))
    ]
    return TrackQuality(
        track=tokens.name,
        modality=tokens.modality,
        samples=samples,
        of_samples=tokens.clock.count,
        seconds=rated.seconds,
        values=rated.values,
        prefixes=tuple(points),
        references=tuple(references),
        encode_speed=encode_speed,
        decode_speed=_speed(rated.seconds, points[-1].decode_seconds),
        certificate=_certificate(tokens, meter, len(prefixes) - 1),
    )


def _certificate(tokens: TrackTokens, meter: Meter, version: int) -> Certificate | None:
    promised = tokens.header.get("channels")
    if not isinstance(meter, NumericMeter) or not promised:
        return None
    return Certificate(
        channels=tuple(str(c["name"]) for c in promised),
        bounds=tuple(float(c["bound"]) for c in promised),
        errors=meter.max_errors(version),
        kept=meter.scores()[version]["same_nonfinite"] == 1.0,
    )


def _speed(seconds: float, work_seconds: float) -> float:
    """Seconds of recording per second of work; nan for a track that lasts no time, such as a single caption."""
    return seconds / work_seconds if seconds and work_seconds else math.nan


def _which(count: int, whole: int) -> str:
    if count == whole:
        return f"all {whole} levels" if whole > 1 else "its one level"
    return f"first {count} levels" if count > 1 else "first level"


def aligned(streams: Sequence[Iterator[Block]]) -> Iterator[list[np.ndarray]]:
    """Blocks of several streams, cut so that each list holds the same samples of all.

    At the end of a stream its array is empty or shorter than the others'; the caller sees that and decides.
    """
    held: list[np.ndarray | None] = [None] * len(streams)
    while True:
        for i, stream in enumerate(streams):
            if held[i] is None or not len(held[i]):  # type: ignore[arg-type]
                block = next((b for b in stream if len(b)), None)
                held[i] = None if block is None else block.values
        alive = [h for h in held if h is not None]
        if not alive:
            return
        step = min(len(h) for h in alive)
        yield [alive[0][:0] if h is None else h[:step] for h in held]
        held = [None if h is None else h[step:] for h in held]


def first(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    """The first `count` samples."""
    for block in blocks:
        yield Block(block.values[:count], None if block.times_ns is None else block.times_ns[:count])
        count -= len(block)
        if count <= 0:
            return


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


class _TimedEncoder:
    """An encoder that adds up the time it took, until that is enough; it gets the recording's own blocks."""

    def __init__(self, encoder: Encoder, enough_seconds: float) -> None:
        self._encoder, self._enough = encoder, enough_seconds
        self.seconds, self.samples = 0.0, 0

    def watching(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The blocks, encoded as they pass."""
        for block in blocks:
            if self.seconds < self._enough:
                began = time.perf_counter()
                self._encoder.push(block)
                self.seconds += time.perf_counter() - began
                self.samples += len(block)
            yield block

    def finish(self) -> None:
        began = time.perf_counter()
        self._encoder.finish()
        self.seconds += time.perf_counter() - began


class _Stopwatch:
    """An iterator that adds up the time its items took to make."""

    def __init__(self, items: Iterator[Block]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> _Stopwatch:
        return self

    def __next__(self) -> Block:
        began = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - began


def _share(tokens: TrackTokens, samples: int) -> float:
    """Of frames on which what costs most is measured."""
    most = MEASURED_FRAMES
    if tokens.modality == "video":
        most = min(most, MEASURED_PIXELS // max(int(tokens.info["height"]) * int(tokens.info["width"]), 1))
    return min(1.0, max(most, 1) / max(samples, 1))
