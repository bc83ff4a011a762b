"""The steps of an episode: which of them each tick of a track is in, and how far it is from one to the next.

A step holds the ticks that begin in it, as in the sequence of ids (`pantok.layout`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pantok.layout import Layout
from pantok.stream import TokenStream, TrackTokens


@dataclass(frozen=True)
class StepGrid:
    """The grid of an episode. first_ns: where step 0 begins; width_ns: of a step; count: of steps."""

    first_ns: int
    width_ns: int
    count: int

    @classmethod
    def of(cls, stream: TokenStream, layout: Layout) -> StepGrid:
        """As the sequence of `stream` under `layout` is cut: a tick is in the step that its first sample is in."""
        kept = [t for t in stream.tracks.values() if layout.keeps(t.name) and t.clock.count]
        width = round(layout.step_s * 1e9)
        if not kept:
            return cls(0, width, 0)
        first = min(int(t.clock.at(np.array(0))) for t in kept)
        late = [t for t in kept if not layout.is_early(t.name)] or kept
        return cls(first, width, max(int((_begins(t)[-1] - first) // width) + 1 for t in late))

    def of_ticks(self, track: TrackTokens) -> np.ndarray:
        """int64 (ticks,): the step of each tick."""
        return (_begins(track) - self.first_ns) // self.width_ns

    def until_next(self, track: TrackTokens) -> np.ndarray:
        """int64 (ticks,): samples from the end of each tick to the end of the next step in which one begins, as the
        clock would go on; where it is irregular, nobody knows: those of a tick."""
        if track.clock.rate is None:
            return np.full(track.ticks, track.tick)
        most = 2 + math.ceil(self.width_ns * track.clock.rate / (10**9 * track.tick))
        begins = track.clock.at(np.arange(track.ticks + most) * track.tick)
        step = (begins - self.first_ns) // self.width_ns
        last = np.searchsorted(step, step[1 : track.ticks + 1], "right") - 1
        return (last - np.arange(track.ticks)) * track.tick

    @property
    def times_ns(self) -> np.ndarray:
        """int64 (count,): when each step begins."""
        return self.first_ns + np.arange(self.count, dtype=np.int64) * self.width_ns


def _begins(track: TrackTokens) -> np.ndarray:
    """int64 (ticks,), nanoseconds: the first sample of each tick."""
    return track.clock.at(np.arange(0, track.clock.count, track.tick))
