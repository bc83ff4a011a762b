"""What an encoded track costs: tokens and bits by level, and how its codebooks are used.

Bits are counted twice: `bits` is codes x log2(cardinality), what a store or a model without context pays;
`entropy_bits` is codes x the zeroth-order entropy of their level, what an ideal memoryless coder would pay. How many
codes a tick has is not counted: a reader knows it from the codes before, or from the marks between ticks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pantok.experience import MODALITIES, NS
from pantok.stream import LevelCodes, TrackTokens
from pantok.vocabulary import Level


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
