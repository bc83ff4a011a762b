"""What every tokenizer offers: fit, encode (as a stream), decode (any prefix of levels, any range), state.

The laws, which the tests hold every tokenizer to:
- **chunk-invariant**: `encoder().push` of any blocks, then `finish`, gives the same codes as one block.
- **exact in length**: decode gives as many samples as were pushed.
- **prefix-decodable**: decode with `levels=k` uses the first k levels only and is the best that they can give.
- **random access**: decode of [start, stop) equals that slice of the whole, and reads no tick before the key.
- **totally decodable**: any codes below their cardinality, in any number per tick, decode to something finite.
- **deterministic**: no dependence on threads, batch, device or process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pantok.experience import Block, Track
from pantok.stream import TrackTokens
from pantok.tokenizers.counts import More, unknown
from pantok.vocabulary import Level, TokenizerState

Report = Callable[[str, float], None]
"""Progress: what is being done, and the fraction done (0 to 1)."""


def silent(what: str, fraction: float) -> None:
    """A Report that reports nothing."""


class Encoder(ABC):
    """Takes a track's blocks in order; holds no more than the blocks' tail and the codes so far."""

    unmet: str | None = None
    """Once finished: what was asked for and cannot be had from these codes; one line."""

    @abstractmethod
    def push(self, block: Block) -> None: ...

    @abstractmethod
    def finish(self) -> TrackTokens: ...


class Tokenizer(ABC):
    """One modality's map between samples and codes."""

    modality: ClassVar[str]
    told_from: ClassVar[int | None] = None
    """The level from whose first code on a tick's counts are told by its codes (`due`); None if they never are."""

    @property
    @abstractmethod
    def levels(self) -> tuple[Level, ...]:
        """Coarse first."""

    @classmethod
    @abstractmethod
    def fit(cls, tracks: Sequence[Track], config: Any = None, *, seed: int = 0, report: Report = silent) -> Self:
        """Learns from re-iterable tracks of this modality. Same tracks, config and seed give the same tokenizer."""

    @abstractmethod
    def encoder(self, track: Track, options: Any = None) -> Encoder:
        """An encoder for `track`, of which only the facts (rate, channels, info) are looked at, not the samples."""

    def encode(self, track: Track, options: Any = None) -> TrackTokens:
        """The whole track, block by block."""
        encoder = self.encoder(track, options)
        for block in track.blocks():
            encoder.push(block)
        return encoder.finish()

    @abstractmethod
    def decode(
        self, tokens: TrackTokens, *, levels: int | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Block]:
        """Blocks of the samples [start, stop) from the first `levels` levels (all by default)."""

    def decoded(self, tokens: TrackTokens, **which: Any) -> np.ndarray:
        """`decode` in one array."""
        return np.concatenate([b.values for b in self.decode(tokens, **which)])

    def due(self, tokens: TrackTokens, tick: int, before: Sequence[np.ndarray]) -> More:
        """Whether level len(before) of a tick has another code, given its codes so far and all codes of the levels
        before. tokens: the track, of which the codes are not looked at. See `pantok.tokenizers.counts`."""
        return unknown

    @abstractmethod
    def state(self) -> TokenizerState: ...

    @classmethod
    @abstractmethod
    def from_state(cls, state: TokenizerState) -> Self:
        """Raises VocabularyError if the state is of another modality or of a format that this version does not know."""
