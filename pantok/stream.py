"""An encoded Episode: per track and level the codes, on the clock of the recording.

A track is cut into *ticks* of a fixed number of samples (the last may be short). Every level holds some
number of codes for each tick, often none: `splits` says which. Levels are coarse first; dropping the last
ones leaves a stream that still decodes. Codes are local to their level and are what is stored; ids of the
one vocabulary are a look-up on top (`pantok.vocabulary`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pantok.errors import TokenError
from pantok.experience import Clock, Source

OWN_TERMS = ("smooth",)
"""Entries of a track's header that name something of the tokenizer that wrote it, beside its codes. Decoding can do
without them; under another tokenizer they say nothing."""


@dataclass(frozen=True, eq=False)
class LevelCodes:
    """codes: smallest unsigned dtype (N,). splits: int64 (ticks + 1,); tick i has codes[splits[i]:splits[i+1]]."""

    codes: np.ndarray
    splits: np.ndarray

    def __post_init__(self) -> None:
        assert self.codes.ndim == 1 and self.splits[0] == 0 and self.splits[-1] == len(self.codes), (
            self.codes.shape,
            self.splits,
        )

    @classmethod
    def of_counts(cls, codes: np.ndarray, counts: np.ndarray) -> LevelCodes:
        return cls(codes, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))

    def of_tick(self, tick: int) -> np.ndarray:
        return self.codes[self.splits[tick] : self.splits[tick + 1]]

    def cut(self, first: int, last: int) -> LevelCodes:
        """The codes of the ticks [first, last)."""
        lo, hi = self.splits[first], self.splits[last]
        return LevelCodes(self.codes[lo:hi], self.splits[first : last + 1] - lo)


@dataclass(frozen=True, eq=False)
class Latents:
    """Continuous vectors beside the codes: values float16 (N, D); splits int64 (ticks + 1,)."""

    values: np.ndarray
    splits: np.ndarray


@dataclass(frozen=True, eq=False)
class TrackTokens:
    """One encoded track.

    clock: of the samples (frames, sound samples, rows), so that decoding is exact in length and time.
    tick: samples a tick; there are ceil(clock.count / tick) ticks.
    levels: one LevelCodes for each of the tokenizer's levels, in its order.
    header: JSON facts that decoding needs beyond the codes (size of the picture, scale of a channel);
        `key_every` says that decoding may begin at ticks 0, key_every, 2 key_every, ...
    info: the track's own facts (channels, units, dtype, pixel matrix), carried through.
    """

    name: str
    modality: str
    clock: Clock
    tick: int
    levels: tuple[LevelCodes, ...]
    header: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    latents: Latents | None = None

    @property
    def ticks(self) -> int:
        return -(-self.clock.count // self.tick)

    @property
    def key_every(self) -> int:
        return int(self.header.get("key_every", 1))

    def check(self, cardinalities: tuple[int, ...]) -> None:
        """Raises TokenError for a code that its level does not have, and for splits that do not fit the clock."""
        if len(self.levels) != len(cardinalities):
            raise TokenError(self.name, f"has {len(self.levels)} levels, its tokenizer has {len(cardinalities)}")
        for number, (level, cardinality) in enumerate(zip(self.levels, cardinalities, strict=True)):
            if len(level.splits) != self.ticks + 1:
                raise TokenError(
                    f"{self.name} level {number}", f"covers {len(level.splits) - 1} ticks, the clock has {self.ticks}"
                )
            if len(level.codes) and int(level.codes.max()) >= cardinality:
                at = int(np.argmax(level.codes >= cardinality))
                raise TokenError(
                    f"{self.name} level {number} position {at}",
                    f"code {int(level.codes[at])} is not below the cardinality {cardinality}",
                )

    def with_levels(self, count: int) -> TrackTokens:
        """The same track with the codes of levels `count` and above removed (they stay as empty levels)."""
        empty = tuple(LevelCodes(lv.codes[:0], np.zeros_like(lv.splits)) for lv in self.levels[count:])
        return replace(self, levels=self.levels[:count] + empty)


@dataclass(frozen=True, eq=False)
class TokenStream:
    """An encoded Episode."""

    id: str
    tracks: Mapping[str, TrackTokens]
    vocabulary_id: str
    sources: tuple[Source, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


def smallest_dtype(cardinality: int) -> np.dtype:
    """The smallest unsigned dtype whose largest value stays free (it is the store's fill value, an illegal code)."""
    for dtype in (np.uint8, np.uint16, np.uint32):
        if cardinality <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise ValueError(f"cardinality {cardinality} does not fit 32 bits")
