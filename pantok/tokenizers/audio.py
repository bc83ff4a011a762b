"""Sound as codes: 12.5 ticks a second, loudness first, then the shape of the spectrum as deep as it is heard.

What is unusual: no network and no entropy coder, yet the depth of coding follows the signal without side
information; hours of sound are encoded in constant memory, with the same codes however they arrive; and the decoded
sound has exactly as many samples as the recording, at its own rate, from any prefix of levels, from any instant.

    audio_transform   samples <-> frames of coefficients, exact
    audio_bands       loudness by band, integer
    audio_loudness    loudness <-> codes
    audio_code        frames <-> codes: the levels
    audio_rate        how deep: constant quality, or a rate
    audio_fit         learning the codebooks
    audio_refine      ... for longer
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pantok.config import from_mapping, to_mapping
from pantok.errors import InputError, NothingToLearnError, OptionError, VocabularyError
from pantok.experience import Block, Clock, Track
from pantok.quantizers.gated import lives_of, tensors_of
from pantok.quantizers.threads import one_thread
from pantok.stream import Latents, LevelCodes, TrackTokens, smallest_dtype
from pantok.tokenizers import audio_fit, audio_refine
from pantok.tokenizers.audio_bands import bands_of
from pantok.tokenizers.audio_code import NAMES, STAGES, WATERS, Books, decode_rows, encode_rows
from pantok.tokenizers.audio_loudness import LEARNED, Rows, latents
from pantok.tokenizers.audio_rate import GROUP_TICKS, Constant, Controller
from pantok.tokenizers.audio_sample import listened, rate_and_hop
from pantok.tokenizers.audio_transform import (
    TICK_FRAMES,
    from_integers,
    from_mid_side,
    lapped,
    to_integers,
    to_mid_side,
)
from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.tokenizers.counts import More, among
from pantok.vocabulary import Level, TokenizerState

FORMAT = 1
_BLOCK_TICKS = 64  # of sound decoded at a time: 5 s
_BLOCK_SAMPLES = 1 << 18  # taken in at a time, so that an hour in one block needs no more memory
_HELD_OUT = 10  # every tenth segment is not learned from


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """size: codes of a book. tick_size: codes of the coarsest loudness. seconds: of sound to learn from, spread over
    the recordings; a tenth of it is held out. refine_seconds: how long to improve the books further, 0 for not at all;
    the result then depends on the machine's speed, with refine_steps (rounds a stage) instead it does not."""

    size: int = 1024
    tick_size: int = 1024
    seconds: float = 240.0
    refine_seconds: float = 0.0
    refine_steps: int = 0

    def __post_init__(self) -> None:
        for name, size in (("size", self.size), ("tick_size", self.tick_size)):
            if not 16 <= size <= 65535:
                raise OptionError(f"audio {name}", f"{size} is out of range", "choose 16 to 65535")
        if not self.seconds > 0:
            raise OptionError("audio seconds", f"{self.seconds} is not positive", "choose 60 to 600")
        if self.refine_seconds < 0 or self.refine_steps < 0:
            raise OptionError("audio refine", "cannot be negative", "give 0 or more")


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """How deep to code.

    bits_per_second: held by a causal controller over about 2 s, channels together; None for constant quality.
    quality: 0 to 1, each 1/39 is about 1.5 dB; by default 0.4, about 9 kbit/s of speech. With bits_per_second the
        finest that it may choose, so that quiet passages stay cheap.
    latents: also keep continuous vectors beside the codes: for each channel of a tick 24 decorrelated loudnesses.
    """

    bits_per_second: float | None = None
    quality: float | None = None
    latents: bool = False

    def __post_init__(self) -> None:
        if self.bits_per_second is not None and not self.bits_per_second > 0:
            raise OptionError("audio bits_per_second", f"{self.bits_per_second} is not positive", "try 6000")
        if self.quality is not None and not 0 <= self.quality <= 1:
            raise OptionError("audio quality", f"{self.quality} is out of range", "choose 0 to 1")

    @property
    def water(self) -> int:
        quality = self.quality
        if quality is None:
            quality = 0.4 if self.bits_per_second is None else 1.0
        return round((1 - quality) * (WATERS - 1))


class AudioTokenizer(Tokenizer):
    """See the module; `audio_code` describes the levels."""

    modality: ClassVar[str] = "audio"
    told_from: ClassVar[int | None] = 0

    def __init__(self, config: AudioConfig, books: Books, metrics: Mapping[str, Any] | None = None) -> None:
        self.config, self.books, self.metrics = config, books, dict(metrics or {})

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.books.levels

    @classmethod
    @one_thread()
    def fit(
        cls, tracks: Sequence[Track], config: Any = None, *, seed: int = 0, report: Report = silent
    ) -> AudioTokenizer:
        """Books of the sound in `tracks`. Raises NothingToLearnError if all of it is silent or there is none."""
        config = config or AudioConfig()
        report("listening", 0.0)
        samples = listened(tracks, config.seconds)
        if not samples:
            raise NothingToLearnError("recordings", "hold no sound to learn from", "give one that is not silent")
        held_out = samples[_HELD_OUT - 1 :: _HELD_OUT]
        learned = [s for i, s in enumerate(samples) if i % _HELD_OUT != _HELD_OUT - 1]
        books = audio_fit.learn(learned, config.size, config.tick_size, seed=seed, report=report)
        water = AudioOptions().water
        metrics: dict[str, Any] = {}
        if config.refine_seconds or config.refine_steps:
            books, metrics["refined"] = audio_refine.refined(
                books,
                learned,
                held_out,
                config.size,
                water,
                seconds=config.refine_seconds,
                steps=config.refine_steps,
                seed=seed,
                report=report,
            )
        metrics |= audio_fit.measured(books, learned, held_out or samples, water)
        return cls(config, books, {"held_out": bool(held_out), **metrics})

    def encoder(self, track: Track, options: Any = None) -> Encoder:
        return _AudioEncoder(self.books, track, options or AudioOptions())

    def decode(
        self, tokens: TrackTokens, *, levels: int | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Block]:
        """Blocks of (n, C) int16 or float32 as the recording was. Raises TokenError for codes that there are not."""
        tokens.check(tuple(lv.cardinality for lv in self.levels))
        if levels is not None:
            tokens = tokens.with_levels(levels)
        hop, channels, count = int(tokens.header["hop"]), int(tokens.header["channels"]), tokens.clock.count
        stop = count if stop is None else min(stop, count)
        dtype = str(tokens.info.get("dtype", "int16"))
        yield Block(np.zeros((0, channels), dtype))
        at = max(start, 0)
        while at < stop:
            tick = at // tokens.tick
            last = min(tick + _BLOCK_TICKS, -(-stop // tokens.tick))
            sound = from_integers(from_mid_side(self._sound(tokens, tick, last, hop, channels)), dtype)
            end = min(last * tokens.tick, stop)
            yield Block(sound[at - tick * tokens.tick : end - tick * tokens.tick])
            at = end

    @one_thread()
    def _sound(self, tokens: TrackTokens, first: int, last: int, hop: int, channels: int) -> np.ndarray:
        """Samples (n, C) of 24 bits, mid and side, of the ticks [first, last); reads one tick more."""
        transform = lapped(hop)
        hops = min(TICK_FRAMES * last, -(-tokens.clock.count // hop)) - TICK_FRAMES * first
        ticks = min(last + 1, tokens.ticks) - first
        frames = TICK_FRAMES * ticks if first + ticks < tokens.ticks else _frames(tokens.clock.count, hop, first)
        rows = Rows.of(first, ticks, channels, frames)
        decoded = decode_rows(self.books, bands_of(transform.bins), rows, tokens.levels, first)
        by_channel = np.zeros((channels, frames, transform.bins))
        by_channel[rows.channel, rows.frame - TICK_FRAMES * first] = decoded
        return np.stack([transform.inverse(c[: hops + 1]) for c in by_channel], axis=1)

    def due(self, tokens: TrackTokens, tick: int, before: Sequence[np.ndarray]) -> More:
        hop, channels, level = int(tokens.header["hop"]), int(tokens.header["channels"]), len(before)
        if level == 0:
            return among(0, channels)
        given = [*before, *([np.zeros(0, np.int64)] * (len(self.levels) - level))]
        levels = [LevelCodes(np.asarray(codes), np.array([0, len(codes)])) for codes in given]
        frames = TICK_FRAMES if tick + 1 < tokens.ticks else _frames(tokens.clock.count, hop, tick)
        asked: dict[str, int] = {}
        rows = Rows.of(0, 1, channels, frames)
        decode_rows(self.books, bands_of(lapped(hop).bins), rows, levels, 0, asked)
        return among(asked.get(NAMES[level], 0))

    def state(self) -> TokenizerState:
        b = self.books
        tensors = {part.name: b.loudness[part.name] for part in LEARNED}
        tensors |= {f"shape.{s + 1}": b.shape[s] for s in range(STAGES)}
        tensors = {name: book.astype(np.int16) for name, book in tensors.items()}
        tensors |= {f"left.{s + 1}": b.left[s].astype(np.int16) for s in range(STAGES)}
        tensors |= {
            "mask": b.mask.astype(np.int32),
            "tilt": b.tilt.astype(np.int32),
            "fill": b.fill,
            "rates": b.rates.astype(np.int32),
        }
        tensors |= {"latent.mean": b.latent_mean.astype(np.int32), "latent.basis": b.latent_basis.astype(np.int32)}
        tensors |= tensors_of(b.lives)
        config = {"format": FORMAT, **to_mapping(self.config)}
        return TokenizerState("audio", config, self.levels, tensors, {}, self.metrics)

    @classmethod
    def from_state(cls, state: TokenizerState) -> AudioTokenizer:
        config = dict(state.config)
        if state.modality != "audio" or config.pop("format", None) != FORMAT:
            raise VocabularyError(
                f"tokenizer for {state.modality}",
                f"has format {state.config.get('format')}, audio of format {FORMAT} is understood",
                "use the version of pantok that fitted it, or fit again",
            )
        t = state.tensors
        books = Books(
            {part.name: t[part.name].astype(np.float32) for part in LEARNED},
            [t[f"shape.{s + 1}"].astype(np.float32) for s in range(STAGES)],
            [t[f"left.{s + 1}"].astype(np.int64) for s in range(STAGES)],
            t["mask"].astype(np.int64),
            t["tilt"].astype(np.int64),
            np.asarray(t["fill"], np.float64),
            t["rates"].astype(np.int64),
            t["latent.mean"].astype(np.int64),
            t["latent.basis"].astype(np.int64),
            lives_of(state),
        )
        return cls(from_mapping(AudioConfig, config, "audio tokenizer"), books, state.metrics)


def _frames(count: int, hop: int, first_tick: int) -> int:
    """Frames of a recording of `count` samples from a tick on: one more than hops."""
    return -(-count // hop) + 1 - TICK_FRAMES * first_tick


class _AudioEncoder(Encoder):
    """Holds less than a group of ticks of samples, and the codes so far."""

    def __init__(self, books: Books, track: Track, options: AudioOptions) -> None:
        self._books, self._track, self._options = books, track, options
        self._rate, self._hop = rate_and_hop(track)
        self._tick = TICK_FRAMES * self._hop
        self._bands = bands_of(lapped(self._hop).bins)
        if options.bits_per_second is None:
            self._water: Constant | Controller = Constant(options.water)
        else:
            seconds = float(self._tick / self._rate)
            self._water = Controller(books, options.bits_per_second, options.water, seconds)
        self._count = self._ticks = 0  # samples taken in, ticks encoded
        self._dtype = ""
        self._start_ns: int | None = None
        self._channels = len(track.channels) or 1
        self._held: list[np.ndarray] = []  # from the hop before the first tick that is not encoded
        self._codes: list[list[np.ndarray]] = [[] for _ in books.levels]
        self._counts: list[np.ndarray] = []
        self._latents: list[np.ndarray] = []

    def push(self, block: Block) -> None:
        values = np.asarray(block.values)
        if values.ndim == 1:
            values = values[:, None]
        if not self._dtype:
            self._dtype = "int16" if values.dtype == np.int16 else "float32"
            self._channels = values.shape[1]
            self._start_ns = int(block.times_ns[0]) if block.times_ns is not None and len(block) else None
            self._held = [np.zeros((self._hop, self._channels))]
        if values.shape[1] != self._channels:
            raise InputError(self._track.name, f"changes from {self._channels} to {values.shape[1]} channels")
        for at in range(0, len(values), _BLOCK_SAMPLES):
            self._take(values[at : at + _BLOCK_SAMPLES])

    def _take(self, values: np.ndarray) -> None:
        self._held.append(to_mid_side(to_integers(values, self._count)))
        self._count += len(values)
        # The last tick may hold five frames: a group is encoded once it is known that another tick follows.
        ready = (self._count - 1) // self._tick // GROUP_TICKS * GROUP_TICKS
        if ready > self._ticks:
            self._encode(ready)

    def finish(self) -> TrackTokens:
        ticks = -(-self._count // self._tick)
        if ticks > self._ticks:
            hops = -(-self._count // self._hop)
            self._held.append(np.zeros(((hops + 1) * self._hop - self._count, self._channels)))
            self._encode(ticks, _frames(self._count, self._hop, self._ticks))
        counts = np.concatenate(self._counts, axis=1) if self._counts else np.zeros((len(self._codes), 0), np.int64)
        levels = tuple(
            LevelCodes.of_counts(np.concatenate([np.zeros(0, smallest_dtype(spec.cardinality)), *codes]), count)
            for spec, codes, count in zip(self._books.levels, self._codes, counts, strict=True)
        )
        header = {"hop": self._hop, "channels": self._channels, "key_every": 1}
        info = {**self._track.info, "dtype": self._dtype or str(self._track.info.get("dtype", "int16"))}
        beside = None
        if self._options.latents:
            none = np.zeros((0, self._books.latent_basis.shape[1]), np.float16)
            beside = Latents(np.concatenate([none, *self._latents]), np.arange(ticks + 1) * self._channels)
        return TrackTokens(
            self._track.name,
            "audio",
            self._clock(),
            self._tick,
            levels,
            header,
            info,
            self._track.channels,
            latents=beside,
        )

    def _clock(self) -> Clock:
        clock = self._track.clock
        start = clock.start_ns if clock is not None else self._start_ns or 0
        return Clock.regular(self._rate, self._count, start)

    @one_thread()
    def _encode(self, until: int, frames: int | None = None) -> None:
        """Codes of the ticks up to `until`, which have `frames` frames (4 each by default)."""
        held = np.concatenate(self._held)
        frames = TICK_FRAMES * (until - self._ticks) if frames is None else frames
        transform = lapped(self._hop)
        used = held[: (frames + 1) * self._hop]
        by_channel = np.stack([transform.forward(np.ascontiguousarray(c)) for c in used.T])
        for first in range(self._ticks, until, GROUP_TICKS):
            ticks = min(GROUP_TICKS, until - first)
            skip = TICK_FRAMES * (first - self._ticks)
            count = frames - skip if first + ticks == until else TICK_FRAMES * ticks
            rows = Rows.of(first, ticks, self._channels, count)
            picked = by_channel[rows.channel, rows.frame - TICK_FRAMES * self._ticks]
            codes, counts = encode_rows(self._books, self._bands, rows, picked, self._water)
            self._water.spent(counts)
            if self._options.latents:
                loudness = self._bands.loudness(picked)[:, : self._bands.low]
                self._latents.append(latents(self._books.latent_mean, self._books.latent_basis, loudness, rows))
            self._counts.append(counts)
            for into, new in zip(self._codes, codes, strict=True):
                into.append(new)
        self._held = [held[TICK_FRAMES * (until - self._ticks) * self._hop :]]
        self._ticks = until
