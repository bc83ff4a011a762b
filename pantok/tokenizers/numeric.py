"""Numbers within a guaranteed error: joints, IMU, forces, actions, rewards, any table.

What is unusual: the samples themselves are put on an integer grid first, so that prediction along time (differences
of order 0, 1 or 2, by channel) is exact integer arithmetic without a loop, and decoding is a cumulative sum; runs of
residuals become pieces (`quantizers.bpe`), the fewest that spell them. Where a tighter bound is asked than the pieces
give, digit levels refine the same grid (`quantizers.bounded`), and any number of them may be left out with a bound
that is known. Each sample is checked in its own dtype; what fails, NaN and infinities among it, is kept verbatim as
codes. Booleans and integers are exact unless a bound is asked for them.

    >>> values = np.cumsum(np.random.default_rng(0).normal(size=(200, 3)), 0)
    >>> track = Track.of_array("proprio", values, Clock.regular(50, 200), channels=("x", "y", "z"))
    >>> tokenizer = NumericTokenizer.fit([track])
    >>> tokens = tokenizer.encode(track, NumericOptions(max_error=0.05))
    >>> bool(np.abs(tokenizer.decoded(tokens) - values).max() <= 0.05)
    True

The encoder holds a track's rows until `finish`: numbers are small (an hour of 50 channels at 100 Hz is 144 MB).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pantok.config import from_mapping, to_mapping
from pantok.errors import NothingToLearnError, OptionError, VocabularyError
from pantok.experience import Block, Track
from pantok.quantizers import bpe
from pantok.stream import TrackTokens
from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.tokenizers.counts import More, among
from pantok.tokenizers.numeric_band import BandSearch
from pantok.tokenizers.numeric_channel import Channel, half_range, sums
from pantok.tokenizers.numeric_encoder import NumericEncoder, channel_names
from pantok.tokenizers.numeric_sample import sampled
from pantok.tokenizers.numeric_symbols import HOLES, Alphabet
from pantok.vocabulary import Level, TokenizerState

FORMAT, FORMATS = 3, (2, 3)
"""What is written, and what is read: 2 has no symbols for NaN, infinities and high bytes."""


@dataclass(frozen=True, kw_only=True)
class NumericConfig:
    """How the pieces are learned.

    size: codes of the level of pieces, the alphabet of single residuals and bytes among them.
    reach: largest residual that is one symbol. relative: bound that pieces are learned at, of a channel's half range.
    longest: symbols that a piece may spell. samples: most that are learned from, spread over all recordings.
    tick: rows of a tick. key_ticks: decoding may begin at every so many ticks. digits: digit levels. base: of a digit.
    parts: how much finer than the bound needs the grid of a smooth channel is, so that there is a choice of points.
    rounds: how often pieces are learned, each time from the paths that were chosen with those before.
    """

    size: int = 2048
    reach: int = 64
    relative: float = 0.01
    longest: int = 64
    samples: int = 300_000
    tick: int = 50
    key_ticks: int = 8
    digits: int = 4
    base: int = 15
    parts: int = 2
    rounds: int = 3

    def __post_init__(self) -> None:
        least = Alphabet(self.reach, version=FORMATS[0]).size
        for name, low, high in (
            ("size", least, 65_000), ("reach", 1, 8000), ("longest", 1, 256), ("samples", 1000, 10**9),
            ("tick", 1, 10_000), ("key_ticks", 1, 10_000), ("digits", 0, 4), ("base", 3, 31),
            ("parts", 1, 8), ("rounds", 1, 9),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise OptionError(f"numeric {name}", f"{getattr(self, name)} is out of range", f"{low} to {high}")
        if self.base % 2 == 0:
            raise OptionError("numeric base", f"{self.base} is even", "balanced digits need an odd base")
        if not 1e-6 <= self.relative <= 1:
            raise OptionError("numeric relative", f"{self.relative} is out of range", "choose 1e-6 to 1")


@dataclass(frozen=True, kw_only=True)
class NumericOptions:
    """How a track is encoded.

    max_error: the guaranteed bound in the track's units, for all tracks or by name of track, kind or channel.
    max_error_relative: the same as a share of the channel's half range, where max_error says nothing.
    """

    max_error: float | Mapping[str, float] | None = None
    max_error_relative: float = 0.01

    def __post_init__(self) -> None:
        given = self.max_error if isinstance(self.max_error, Mapping) else {"": self.max_error}
        for name, bound in given.items():
            if bound is not None and not (0 <= bound < float("inf")):
                raise OptionError(f"max_error {name}".strip(), f"{bound} is no bound", "give a number from 0 up")
        if not 0 < self.max_error_relative <= 1:
            raise OptionError("max_error_relative", f"{self.max_error_relative} is out of range", "above 0, at most 1")

    def bound(self, track: str, channel: str) -> float | None:
        """The absolute bound for a channel; None if only the relative one holds."""
        if not isinstance(self.max_error, Mapping):
            return self.max_error
        for name in bound_names(track, channel):
            if name in self.max_error:
                return float(self.max_error[name])
        return None


def bound_names(track: str, channel: str) -> tuple[str, ...]:
    """What a bound for a channel may be given by, the closest first."""
    return f"{track}.{channel}", channel, track, track.split(".", 1)[0]


class NumericTokenizer(Tokenizer):
    """Level 0 pieces of residuals, then digits, most significant first."""

    modality: ClassVar[str] = "numeric"
    told_from: ClassVar[int | None] = 0

    def __init__(
        self,
        config: NumericConfig,
        pieces: bpe.Pieces,
        ranges: Mapping[str, float],
        metrics: Mapping[str, Any] | None = None,
        version: int = FORMAT,
    ) -> None:
        """ranges: half range of each channel that was seen, by `track/channel`. version: of FORMATS."""
        self.config, self.pieces, self.ranges, self.metrics = config, pieces, dict(ranges), dict(metrics or {})
        self.version, self.alphabet = version, Alphabet(config.reach, version)
        digits = tuple(Level(f"digit{k + 1}", config.base, "digit", (1,)) for k in range(config.digits))
        self._levels = (Level("pieces", pieces.size, "code", (0,)), *digits)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    @property
    def search(self) -> BandSearch:
        """How a path is chosen among those within the bound."""
        c = self.config
        return BandSearch(
            pieces=self.pieces, parts=c.parts, reach=c.reach, wide=256 * self.alphabet.highs, tick=c.tick,
            group=c.tick * c.key_ticks,
        )  # fmt: skip

    @classmethod
    def fit(
        cls, tracks: Sequence[Track], config: Any = None, *, seed: int = 0, report: Report = silent
    ) -> NumericTokenizer:
        """Ranges from all, pieces from the first 80% of each track; what is measured is measured on the rest.

        There is no randomness; `seed` changes nothing. Raises NothingToLearnError if there are no rows.
        """
        config = config or NumericConfig()
        ranges: dict[str, float] = {}

        def seen(track: Track, values: np.ndarray) -> None:
            for c, name in enumerate(channel_names(track.channels, values.shape[1])):
                key = f"{track.name}/{name}"
                ranges[key] = max(ranges.get(key, 0.0), half_range(values[:, c]))

        learned, held = sampled(tracks, config.tick, config.samples, lambda f: report("reading", 0.3 * f), seen)
        if not learned:
            raise NothingToLearnError("numbers", "there are no rows to learn from", "check the tables")
        alphabet = Alphabet(config.reach)
        fitted = cls(config, bpe.Pieces(alphabet.size, np.zeros((0, 2), np.int32)), ranges)
        bound = NumericOptions(max_error_relative=config.relative)
        for turn in range(config.rounds):
            runs = []
            for number, track in enumerate(learned):
                report("residuals", 0.3 + 0.6 * (turn + 0.5 * number / len(learned)) / config.rounds)
                runs.append(fitted.runs_of(fitted.encode(track, bound)))
            report("pieces", 0.3 + 0.6 * (turn + 0.5) / config.rounds)
            pieces = bpe.train(
                np.concatenate(runs), alphabet.size, config.size, mergeable=alphabet.small, longest=config.longest,
                still=[(symbol, min(config.tick, config.longest)) for symbol in alphabet.still],
            )  # fmt: skip
            fitted = cls(config, pieces, ranges)
        report("measuring", 0.9)
        fitted.metrics = {"held_out": fitted._measure(held)} if held else {}
        report("pieces", 1.0)
        return fitted

    def runs_of(self, tokens: TrackTokens) -> np.ndarray:
        """Residual symbols of an encoding as runs (ticks * channels, tick); bytes left out."""
        level, tick, channels = tokens.levels[0], self.config.tick, len(tokens.header["channels"])
        itemsize = np.dtype(str(tokens.header["dtype"])).itemsize
        runs = []
        for number in range(tokens.ticks):
            codes, _ = self.pieces.expand(level.of_tick(number).astype(np.int64))
            rows = min(tick, tokens.clock.count - number * tick)
            found, holes, _ = self.alphabet.parse(codes, channels, rows, itemsize)
            # A large residual ends a run, as a PAD does: the rest of the tick still teaches.
            # (Not by its size: the least int64 has none, and wide unsigned integers leave it as a residual.)
            reach = self.config.reach
            spelled = np.where((found >= -reach) & (found <= reach), found + reach, bpe.PAD)
            spelled = np.where(holes, self.alphabet.of_holes(holes), spelled)
            runs.append(np.pad(spelled, ((0, 0), (0, tick - rows)), constant_values=bpe.PAD))
        return np.concatenate(runs) if runs else np.zeros((0, tick), np.int64)

    def _measure(self, held: Sequence[Track]) -> dict[str, float]:
        codes = rows = samples = 0
        worst = 0.0
        for track in held:
            tokens = self.encode(track, NumericOptions(max_error_relative=self.config.relative))
            codes += len(tokens.levels[0].codes)
            rows += tokens.clock.count
            samples += tokens.clock.count * len(tokens.header["channels"])
            for channel in tokens.header["channels"]:
                if channel["bound"]:
                    worst = max(worst, channel["max_error"] / channel["bound"])
        return {
            "tokens_per_row": round(codes / rows, 4),
            "tokens_per_sample": round(codes / samples, 4),
            "max_error_of_bound": round(worst, 6),
        }

    def encoder(self, track: Track, options: Any = None) -> Encoder:
        return NumericEncoder(self, track, options or NumericOptions())

    def decode(
        self, tokens: TrackTokens, *, levels: int | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Block]:
        tokens.check(tuple(level.cardinality for level in self._levels))
        dtype = np.dtype(str(tokens.header["dtype"]))
        channels = [Channel.of_header(c, self.config.base) for c in tokens.header["channels"]]
        stop = tokens.clock.count if stop is None else min(stop, tokens.clock.count)
        group = tokens.tick * tokens.key_every
        kept = max(0, (self.config.digits + 1 if levels is None else levels) - 1)
        for first in range(start // group * group, max(stop, start), group):
            last = min(first + group, tokens.clock.count)
            if levels == 0:
                values = np.zeros((last - first, len(channels)), dtype)
            else:
                values = self._decode_group(tokens, channels, dtype, first, last, kept)
            lo, hi = max(start, first), min(stop, last)
            if lo < hi:
                times = tokens.clock.irregular_ns
                yield Block(values[lo - first : hi - first], None if times is None else times[lo:hi])
        if start >= stop:
            yield Block(np.zeros((0, len(channels)), dtype))

    def _decode_group(
        self, tokens: TrackTokens, channels: list[Channel], dtype: np.dtype, first: int, last: int, kept: int
    ) -> np.ndarray:
        """Rows [first, last) between two keys."""
        residuals = np.zeros((last - first, len(channels)), np.int64)
        holes = np.zeros(residuals.shape, np.int8)
        raw: dict[tuple[int, int], bytes] = {}
        for tick in range(first // tokens.tick, -(-last // tokens.tick)):
            at = tick * tokens.tick - first
            rows = min(tokens.tick, last - first - at)
            symbols, _ = self.pieces.expand(tokens.levels[0].of_tick(tick).astype(np.int64))
            got, empty, verbatim = self.alphabet.parse(symbols, len(channels), rows, dtype.itemsize)
            residuals[at : at + rows], holes[at : at + rows] = got.T, empty.T
            raw |= {(at + row, channel): data for (channel, row), data in verbatim.items()}
        digits = self._digits_between(tokens, channels, holes, first, kept)
        values = np.empty(residuals.shape, dtype)
        for c, channel in enumerate(channels):
            values[:, c] = channel.rebuild(sums(residuals[:, c], channel.order, holes[:, c] > 0), digits[c], dtype)
        if dtype.kind == "f":
            values[holes > 0] = np.array(HOLES, dtype)[holes[holes > 0] - 1]
        for (row, c), data in raw.items():
            values[row, c] = np.frombuffer(data, dtype)[0] if dtype.kind != "b" else bool(data[0])
        return values

    def _digits_between(
        self, tokens: TrackTokens, channels: list[Channel], holes: np.ndarray, first: int, kept: int
    ) -> list[np.ndarray]:
        """For each channel its digits (rows, at most k) of the rows from `first` on; where there are none or too few,
        the middle one stands. holes: int8 (rows, C), as of `holes_of`."""
        middle, rows = (self.config.base - 1) // 2, len(holes)
        found = [np.full((rows, min(c.digits, kept)), middle, np.int64) for c in channels]
        told = (holes == 0) if _of_numbers(tokens) else np.ones(holes.shape, bool)
        for place in range(min(kept, self.config.digits)):
            having = [c for c, channel in enumerate(channels) if channel.digits > place]
            if not having:
                break
            for at in range(0, rows, tokens.tick):
                part = slice(at, at + tokens.tick)
                counts = told[part, having].sum(0)
                codes = tokens.levels[1 + place].of_tick((first + at) // tokens.tick)[: counts.sum()].astype(np.int64)
                padded = np.concatenate([codes, np.full(counts.sum() - len(codes), middle)])
                for c, spelled in zip(having, np.split(padded, np.cumsum(counts)[:-1]), strict=True):
                    found[c][part, place][told[part, c]] = spelled
        return found

    def due(self, tokens: TrackTokens, tick: int, before: Sequence[np.ndarray]) -> More:
        rows = min(tokens.tick, tokens.clock.count - tick * tokens.tick)
        channels, itemsize = tokens.header["channels"], np.dtype(str(tokens.header["dtype"])).itemsize
        if before:
            having = np.array([int(c["digits"]) >= len(before) for c in channels], bool)
            if not having.any() or not _of_numbers(tokens):
                return among(rows * int(having.sum()))
            symbols, _ = self.pieces.expand(np.asarray(before[0], np.int64))
            _, holes, _ = self.alphabet.parse(symbols, len(channels), rows, itemsize)
            return among(int((holes[having] == 0).sum()))

        def more(codes: Sequence[int]) -> bool:
            symbols, _ = self.pieces.expand(np.asarray(codes, np.int64))
            return not self.alphabet.spelled(symbols, rows * len(channels), itemsize)

        return more

    def state(self) -> TokenizerState:
        config = {"format": self.version, **to_mapping(self.config), "ranges": self.ranges}
        return TokenizerState("numeric", config, self._levels, {"merges": self.pieces.merges}, {}, self.metrics)

    @classmethod
    def from_state(cls, state: TokenizerState) -> NumericTokenizer:
        settings = dict(state.config)
        version, ranges = settings.pop("format", None), settings.pop("ranges", {})
        if state.modality != "numeric" or version not in FORMATS:
            raise VocabularyError(
                "numeric tokenizer", f"is {state.modality} of format {version}, this reads {FORMATS}", "upgrade pantok"
            )
        config = from_mapping(NumericConfig, settings, "numeric tokenizer")
        alphabet = Alphabet(config.reach, version)
        pieces = bpe.Pieces(alphabet.size, np.asarray(state.tensors["merges"], np.int32).reshape(-1, 2))
        if pieces.size != state.levels[0].cardinality:
            raise VocabularyError(
                "numeric tokenizer",
                f"has {state.levels[0].cardinality} codes, its pieces are {pieces.size}",
                "fit it anew",
            )
        return cls(config, pieces, ranges, state.metrics, version)


def _of_numbers(tokens: TrackTokens) -> bool:
    """Whether digits are of numbers alone. (Before there was that, every sample had them, NaN too.)"""
    return tokens.header.get("digits") == "of numbers"


def certificate(tokens: TrackTokens) -> list[dict[str, Any]]:
    """For each channel what was promised and measured when it was encoded: bound, max_error, digits, raw samples."""
    return [{**c} for c in tokens.header["channels"]]
