"""What an encoded track costs and how good it is: rates by level, and quality by prefix of levels.

What is unusual: every prefix of levels is decoded beside the others, in step with the original and with whatever
reference codecs are handed in, so that the recording is read once, memory holds a few blocks whatever the length,
and each figure is of the same samples.

Bits are counted twice: `bits` is codes x log2(cardinality), what a store or a model without context pays;
`entropy_bits` is codes x the zeroth-order entropy of their level, what an ideal memoryless coder would pay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import MODALITIES, NS, Block, Track
from pantok.metrics.meters import meter_for
from pantok.stream import LevelCodes, TrackTokens
from pantok.tokenizers import Encoder, Tokenizer
from pantok.vocabulary import Level

Open = Callable[[], Iterator[Block]]
Watch = Callable[[int, np.ndarray, Sequence[np.ndarray]], None]
"""(index of the first sample, original (n, ...), each version (n, ...)) of the samples compared at a time"""
MEASURED_FRAMES = 150
"""RGB and SSIM are measured on about so many frames of a track; luma PSNR on all."""

ENCODE_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelRate:
    """One level of one track. counts: int64 (cardinality,), how often each code is used."""

    level: int
    name: str
    role: str
    cardinality: int
    tokens: int
    tokens_per_second: float
    bits: float
    bits_per_second: float
    entropy_bits: float
    counts: np.ndarray

    @property
    def used(self) -> int:
        """How many of the level's codes occur."""
        return int(np.count_nonzero(self.counts))

    @property
    def perplexity(self) -> float:
        """2^entropy: as many equally frequent codes would be as hard to predict. 0 for an empty level."""
        return 2.0 ** (self.entropy_bits / self.tokens) if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackRate:
    """What a whole track costs. samples: frames, sound samples (of all channels together), rows or pieces of text.

    values: pixels, or single numbers: samples x channels. latent_bits: of the continuous vectors beside the codes.
    """

    track: str
    modality: str
    seconds: float
    samples: int
    values: int
    levels: tuple[LevelRate, ...]
    latent_bits: int

    @property
    def tokens(self) -> int:
        return sum(level.tokens for level in self.levels)

    @property
    def bits(self) -> float:
        return sum(level.bits for level in self.levels)

    @property
    def entropy_bits(self) -> float:
        return sum(level.entropy_bits for level in self.levels)

    def per_second(self, amount: float) -> float:
        """nan for a track that lasts no time."""
        return amount / self.seconds if self.seconds else math.nan

    @property
    def bits_per_value(self) -> float:
        """Bits per pixel for video."""
        return self.bits / self.values if self.values else math.nan


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
class TrackQuality:
    """How good the first `samples` samples of a track are. speeds: seconds of recording per second of work."""

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


def rates(tokens: TrackTokens, levels: Sequence[Level], first_ticks: int | None = None) -> TrackRate:
    """The rates of a track, or of its first ticks."""
    last = tokens.ticks if first_ticks is None else min(first_ticks, tokens.ticks)
    samples = min(last * tokens.tick, tokens.clock.count)
    seconds = tokens.clock.cut(0, samples).duration_ns / NS
    latents = tokens.latents
    rated = TrackRate(
        track=tokens.name,
        modality=tokens.modality,
        seconds=seconds,
        samples=samples,
        values=samples * values_per_sample(tokens),
        levels=(),
        latent_bits=0 if latents is None else int(latents.splits[last]) * latents.values.shape[1] * 16,
    )
    found = []
    for number, (spec, held) in enumerate(zip(levels, tokens.levels, strict=True)):
        found.append(_level_rate(number, spec, held.cut(0, last), rated))
    return replace(rated, levels=tuple(found))


def _level_rate(number: int, spec: Level, held: LevelCodes, of: TrackRate) -> LevelRate:
    counts = np.bincount(held.codes, minlength=spec.cardinality)
    size = len(held.codes)
    bits = size * math.log2(spec.cardinality)
    return LevelRate(
        level=number,
        name=spec.name,
        role=spec.role,
        cardinality=spec.cardinality,
        tokens=size,
        tokens_per_second=of.per_second(size),
        bits=bits,
        bits_per_second=of.per_second(bits),
        entropy_bits=_entropy_bits(counts),
        counts=counts,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CodebookUse:
    """How one level's codes are used over several tracks together. counts: int64 (cardinality,)."""

    modality: str
    level: int
    name: str
    role: str
    counts: np.ndarray

    @property
    def cardinality(self) -> int:
        return len(self.counts)

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def used(self) -> int:
        return int(np.count_nonzero(self.counts))

    @property
    def entropy_bits_per_token(self) -> float:
        return _entropy_bits(self.counts) / max(self.tokens, 1)

    @property
    def perplexity(self) -> float:
        """2^entropy; 0 for a level that has no codes."""
        return 2.0**self.entropy_bits_per_token if self.tokens else 0.0


def codebook_use(tracks: Iterable[TrackRate]) -> tuple[CodebookUse, ...]:
    """One for each level of each modality, in the order of modalities and levels."""
    found: dict[tuple[str, int], CodebookUse] = {}
    for track in tracks:
        for rate in track.levels:
            key = (track.modality, rate.level)
            counts = found[key].counts + rate.counts if key in found else rate.counts
            found[key] = CodebookUse(
                modality=track.modality, level=rate.level, name=rate.name, role=rate.role, counts=counts
            )
    return tuple(found[key] for key in sorted(found, key=lambda k: (MODALITIES.index(k[0]), k[1])))


def _entropy_bits(counts: np.ndarray) -> float:
    """Of all codes together, zeroth order."""
    used = counts[counts > 0].astype(np.float64)
    return max(0.0, float((used * np.log2(used.sum() / used)).sum())) if len(used) else 0.0


def values_per_sample(tokens: TrackTokens) -> int:
    """Pixels of a frame, channels of a row or of a sound sample, 1 for text."""
    if tokens.modality == "video":
        return int(tokens.info["height"]) * int(tokens.info["width"])
    return max(len(tokens.channels), 1)


def measured_samples(tokens: TrackTokens, limit_seconds: float | None) -> int:
    """How many samples lie within the limit, in whole ticks and at least one; all if None."""
    if limit_seconds is None:
        return tokens.clock.count
    every = tokens.clock.count
    count = tokens.clock.span(None, int(tokens.clock.times_ns[0]) + round(limit_seconds * NS))[1]
    if count == every:
        return count
    return min(max(count // tokens.tick, 1) * tokens.tick, every)


def some_prefixes(levels: int, most: int = 8) -> tuple[int, ...]:
    """Which prefixes to measure: all of them, or `most` evenly spread ones that include the first and the last."""
    if levels <= most:
        return tuple(range(1, levels + 1))
    return tuple(sorted({round(1 + i * (levels - 1) / (most - 1)) for i in range(most)}))


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
    meter = meter_for(tokens.modality, tokens.info, len(clocks), share=min(1.0, MEASURED_FRAMES / max(samples, 1)))
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
