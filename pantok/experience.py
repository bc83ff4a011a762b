"""Recordings as values: an Episode is named Tracks on one clock of integer nanoseconds.

What differs from the usual: time is never a float. A regular clock is an integer start and an exact
fraction of samples per second (30000/1001 stays 30000/1001 for a whole day); an irregular one is the
list of instants that the container gave. A track need not be in memory: it is *re-iterable* (each
`blocks()` opens the recording anew), so that an hour of video is fitted, encoded and measured in
constant memory, and encoders must give the same codes however it is cut into blocks.

    >>> clock = Clock.regular(Fraction(30000, 1001), 3)
    >>> clock.times_ns.tolist()
    [0, 33366667, 66733333]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

NS = 1_000_000_000
MODALITIES = ("video", "audio", "numeric", "text")
"""What a tokenizer is for. The kind of a track (the first word of its name) decides which."""


def modality_of(kind: str) -> str:
    """`video`, `audio` and `text` tracks have tokenizers of their own; all others are numbers."""
    return kind if kind in ("video", "audio", "text") else "numeric"


@dataclass(frozen=True, eq=False)
class Clock:
    """When each of `count` samples was taken.

    rate: samples per second, exact; None when irregular. start_ns: instant of sample 0.
    irregular_ns: int64 (count,), the instants themselves; None when regular.
    """

    start_ns: int
    count: int
    rate: Fraction | None = None
    irregular_ns: np.ndarray | None = None

    @classmethod
    def regular(cls, rate: Fraction | int, count: int, start_ns: int = 0) -> Clock:
        rate = Fraction(rate)
        assert rate > 0 and count >= 0, (rate, count)
        return cls(int(start_ns), int(count), rate)

    @classmethod
    def irregular(cls, times_ns: np.ndarray) -> Clock:
        times_ns = np.ascontiguousarray(times_ns, np.int64)
        assert times_ns.ndim == 1, times_ns.shape
        return cls(int(times_ns[0]) if len(times_ns) else 0, len(times_ns), None, times_ns)

    @classmethod
    def of_times(cls, times_ns: np.ndarray, rate: Fraction | None = None, tolerance_ns: int = 1) -> Clock:
        """Regular if every instant lies within `tolerance_ns` of the clock that `rate` gives, else irregular."""
        if rate is not None and len(times_ns):
            guess = cls.regular(rate, len(times_ns), int(times_ns[0]))
            if np.abs(guess.times_ns - times_ns).max() <= tolerance_ns:
                return guess
        return cls.irregular(times_ns)

    @cached_property
    def times_ns(self) -> np.ndarray:
        """int64 (count,), nanoseconds. For a regular clock the exact instant, rounded half up."""
        if self.irregular_ns is not None:
            return self.irregular_ns
        return self.at(np.arange(self.count, dtype=np.int64))

    def at(self, index: np.ndarray) -> np.ndarray:
        """Nanoseconds of the samples at `index` (int64, any shape), computed in integers without overflow."""
        index = np.asarray(index, np.int64)
        if self.irregular_ns is not None:
            return self.irregular_ns[index]
        assert self.rate is not None
        # Whole periods of `num` samples last exactly `den` seconds; only what is left of a second is rounded.
        num, den = self.rate.numerator, self.rate.denominator
        periods, rest = np.divmod(index, num)
        seconds, rest = np.divmod(rest * den, num)
        return self.start_ns + (periods * den + seconds) * NS + (rest * NS + num // 2) // num

    @property
    def duration_ns(self) -> int:
        """From the first sample to the end of the last. The last of an irregular clock lasts as its predecessor did."""
        if self.count == 0:
            return 0
        if self.rate is not None:
            return round(Fraction(self.count) / self.rate * NS)
        t = self.times_ns
        return int(t[-1] - t[0] + (t[-1] - t[-2] if self.count > 1 else 0))

    def span(self, start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
        """[first, last) indices of the samples whose instants lie in [start_ns, end_ns)."""
        t = self.times_ns
        first = 0 if start_ns is None else int(np.searchsorted(t, start_ns, "left"))
        last = self.count if end_ns is None else int(np.searchsorted(t, end_ns, "left"))
        return first, max(first, last)

    def cut(self, first: int, last: int) -> Clock:
        """The clock of the samples [first, last)."""
        if self.irregular_ns is not None:
            return Clock.irregular(self.irregular_ns[first:last])
        assert self.rate is not None
        return Clock.regular(self.rate, last - first, int(self.at(np.array(first))))


@dataclass(frozen=True, eq=False)
class Block:
    """A run of consecutive samples: values (n, ...); int64 times_ns (n,) where the clock is not known beforehand."""

    values: np.ndarray
    times_ns: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Track:
    """One time-stamped signal.

    name: `<kind>.<label>` (`video.front`, `proprio.arm`) or `<kind>`.
    open: gives a fresh iterator over the track's Blocks; called once for each pass over the data.
    clock: None while unknown, as for a media file that has not been read through.
    rate: the nominal rate, where there is one.
    glance: gives Blocks from about a share (0 to 1) of the track's length on, without reading what is before; None
        where nobody knows how. told_s: how long its header says that it is, which may be wrong. begins_ns: the first
        instant, where that is known and the clock is not.
    channels: names of the last axis, for numeric tracks and sound.
    info: JSON facts that a decoder or a writer needs. By modality:
        video   height, width; matrix (`bt601` or `bt709`), full_range; time_base (`"1/12800"`).
                values are uint8 (n, frame_bytes): planar YUV 4:2:0, planes Y, U, V one after another,
                chroma of ceil(height/2) x ceil(width/2) (see `pantok.pixels`).
        audio   sample_rate; values are int16 or float32 (n, channels).
        numeric dtype as stored; values (n, channels) of bool, integer or float; units per channel.
        text    values are an object array of str; `ends_ns` int64 in info where spans have ends.
    """

    name: str
    open: Callable[[], Iterator[Block]]
    clock: Clock | None = None
    rate: Fraction | None = None
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    glance: Callable[[float], Iterator[Block]] | None = None
    told_s: float | None = None
    begins_ns: int | None = None

    @property
    def kind(self) -> str:
        return self.name.split(".", 1)[0]

    @property
    def modality(self) -> str:
        return modality_of(self.kind)

    @classmethod
    def of_array(cls, name: str, values: np.ndarray, clock: Clock, **facts: Any) -> Track:
        """A track that is in memory. values: (count, ...)."""
        assert len(values) == clock.count, (name, len(values), clock.count)
        times = clock.irregular_ns
        return cls(name, lambda: iter((Block(values, times),)), clock, clock.rate, **facts)

    def blocks(self, size: int | None = None) -> Iterator[Block]:
        """The samples in order, at most `size` in a block."""
        for block in self.open():
            step = size or max(len(block), 1)
            for i in range(0, len(block), step):
                times = None if block.times_ns is None else block.times_ns[i : i + step]
                yield Block(block.values[i : i + step], times)

    def read(self) -> tuple[np.ndarray, Clock]:
        """The whole track in memory: values (n, ...) and its clock."""
        parts = list(self.open())
        values = np.concatenate([b.values for b in parts]) if parts else np.zeros((0, max(len(self.channels), 1)))
        if self.clock is not None:
            return values, self.clock
        if parts and parts[0].times_ns is not None:
            return values, Clock.of_times(np.concatenate([b.times_ns for b in parts]), self.rate)  # type: ignore[misc]
        assert self.rate is not None, self.name
        return values, Clock.regular(self.rate, len(values))

    def named(self, name: str) -> Track:
        return replace(self, name=name)


@dataclass(frozen=True, eq=False)
class Episode:
    """One recording. `sources` are the files it was read from, with what identifies their content."""

    id: str
    tracks: Mapping[str, Track]
    sources: tuple[Source, ...] = ()

    def of_modality(self, modality: str) -> Iterable[Track]:
        return (t for t in self.tracks.values() if t.modality == modality)


@dataclass(frozen=True)
class Source:
    """A file of an episode: path as given, bytes, and sha256 of the content ('' until it has been computed)."""

    path: str
    size_bytes: int
    sha256: str = ""
