"""A bounded sample of rows to learn numbers from, spread evenly over all recordings, in one pass.

What is unusual: it is made of stretches of a few ticks, and not of the beginning of each recording: ten thousand short
episodes would leave two rows of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from pantok.experience import Clock, Track
from pantok.tokenizers.spread import Thinned

_LEARNED = 0.8  # of each track, its beginning: what is judged is judged on the rest
_JUDGED = 0.25  # of as many numbers as are learned from
_TICKS = 4  # of a group


class Sample:
    """Groups of at most `group` rows, at most `most` numbers together (`spread.Thinned`); recordings that fit are kept
    whole."""

    def __init__(self, group: int, most: int) -> None:
        self._group, self._most = group, most
        self._kept: Thinned[tuple[Track, np.ndarray]] = Thinned(most)

    def add(self, track: Track, values: np.ndarray) -> None:
        """values: (n, C), rows of the track. Groups are shorter where one would be too much."""
        group = max(1, min(self._group, self._most // max(values.shape[1], 1)))

        def part(start: int) -> tuple[tuple[Track, np.ndarray], int]:
            rows = values[start : start + group].copy()
            return (track, rows), rows.size

        for start in range(0, len(values), group):
            self._kept.offer(partial(part, start))

    def tracks(self) -> list[Track]:
        """What was kept, in order, on clocks of no meaning; groups that follow one another in a track are one."""
        runs: list[tuple[Track, list[np.ndarray]]] = []
        last = -1
        for number, (track, rows) in self._kept.numbered:
            if runs and runs[-1][0] is track and last + 1 == number:
                runs[-1][1].append(rows)
            else:
                runs.append((track, [rows]))
            last = number
        return [_joined(track, parts) for track, parts in runs]


def sampled(
    tracks: Sequence[Track],
    tick: int,
    most: int,
    done: Callable[[float], None],
    seen: Callable[[Track, np.ndarray], None] | None = None,
) -> tuple[list[Track], list[Track]]:
    """What to learn from, at most `most` numbers, and what to judge by, at most a quarter of that: the beginnings and
    the ends of the tracks. seen: is given each track and all of its rows (n, C)."""
    learned, judged = Sample(_TICKS * tick, most), Sample(_TICKS * tick, round(_JUDGED * most))
    for number, track in enumerate(tracks):
        done(number / len(tracks))
        values, _ = track.read()
        if not len(values):
            continue
        values = values.reshape(len(values), -1)
        if seen is not None:
            seen(track, values)
        cut = max(1, round(len(values) * _LEARNED))
        learned.add(track, values[:cut])
        judged.add(track, values[cut:])
    return learned.tracks(), judged.tracks()


def _joined(track: Track, parts: Sequence[np.ndarray]) -> Track:
    values = np.concatenate(parts)
    clock = Clock.regular(track.rate or 1, len(values))
    return Track.of_array(track.name, values, clock, channels=track.channels, units=track.units, info=track.info)
