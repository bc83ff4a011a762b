"""A bounded sample of rows to learn numbers from, spread evenly over all recordings, in one pass.

What is unusual: it is made of whole groups between keys, as they will be coded, and not of the beginning of each
recording: ten thousand short episodes would leave two rows of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pantok.experience import Clock, Track
from pantok.tokenizers.spread import survives

LEARNED = 0.8
"""Of each track, its beginning: what is judged is judged on the rest."""
_JUDGED = 0.25  # of as many numbers as are learned from
_TICKS = 4  # of a group


@dataclass(frozen=True, eq=False)
class _Group:
    number: int
    track: Track
    values: np.ndarray


class Sample:
    """Groups of at most `group` rows. When they hold more than `most` numbers one of two is dropped, and of those that
    follow, and so on (`spread.survives`); recordings that fit are kept whole."""

    def __init__(self, group: int, most: int) -> None:
        self._group, self._most = group, most
        self._kept: list[_Group] = []
        self._halvings, self._seen, self._size = 0, 0, 0

    def add(self, track: Track, values: np.ndarray) -> None:
        """values: (n, C), rows of the track."""
        for start in range(0, len(values), self._group):
            if survives(self._seen, self._halvings):
                rows = values[start : start + self._group].copy()
                self._kept.append(_Group(self._seen, track, rows))
                self._size += rows.size
                while self._size > self._most and len(self._kept) > 1:
                    self._halvings += 1
                    self._kept = [group for group in self._kept if survives(group.number, self._halvings)]
                    self._size = sum(group.values.size for group in self._kept)
            self._seen += 1

    def tracks(self) -> list[Track]:
        """What was kept, in order, on clocks of no meaning; groups that follow one another in a track are one."""
        runs: list[list[_Group]] = []
        for group in self._kept:
            if runs and runs[-1][-1].track is group.track and runs[-1][-1].number + 1 == group.number:
                runs[-1].append(group)
            else:
                runs.append([group])
        return [_joined(run) for run in runs]


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
        cut = max(1, round(len(values) * LEARNED))
        learned.add(track, values[:cut])
        judged.add(track, values[cut:])
    return learned.tracks(), judged.tracks()


def _joined(run: Sequence[_Group]) -> Track:
    track, values = run[0].track, np.concatenate([group.values for group in run])
    clock = Clock.regular(track.rate or 1, len(values))
    return Track.of_array(track.name, values, clock, channels=track.channels, units=track.units, info=track.info)
