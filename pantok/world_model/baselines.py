"""What a world model has to beat: the last observation again, a ridge on the last two, and xz on its ids.

What is unusual: the ridge (`pantok.world_model.ridge`) is a serious rival. It predicts the *change* of the whole vector
of an observation (`pantok.world_model.observations`) from the last two of them and the actions, in closed form, with a
penalty for each track chosen on episodes that it was not fitted on, "no change at all" among them; what of a picture
its components leave out is carried over from the last one, each pixel as much as pays on those episodes. So it hardly
ever falls below copy-last, and after a quarter of an hour of training most networks have not reached it.

    ridge = Ridge.fit(space, train, valid)              # iterables of Observations, one pass each
    report = score(space, {"copy-last": CopyLast(space), "ridge": ridge}, test)
    report["ridge"]["video"].psnr_db
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pantok.world_model.observations import Observations, ObservationSpace


class Predictor(Protocol):
    """Says the next observation."""

    def predict(self, seen: Observations) -> np.ndarray:
        """Of S steps. Returns (S - 1, width), row k what follows step k, from nothing after step k but the actions of
        step k + 1 where the layout says them first."""

    def picture(
        self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray,
        carried: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """float32 (n, lines, columns, 3): the pictures of `predicted` (n, width), which follow `values` and
        `pictures`. carried: those carried on, where the space has motion."""


class CopyLast:
    """Everything stays as it is."""

    def __init__(self, space: ObservationSpace) -> None:
        self.space = space

    def predict(self, seen: Observations) -> np.ndarray:
        return seen.values[:-1]

    def picture(
        self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray,
        carried: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        return pictures.astype(np.float32)


def predicted_tracks(space: ObservationSpace) -> tuple[str, ...]:
    """Those that are foretold: all but actions, which are given."""
    return tuple(name for name in space.names if space.layout.role(name) != "action")


def known_ahead(space: ObservationSpace) -> np.ndarray:
    """int64: the dimensions of actions that a layout puts before what it observes in a step, so that the actions of a
    step are known when its observation is to be foretold."""
    place = space.layout.place
    seen = [place(name) for name in predicted_tracks(space)]
    early = [n for n in space.names if space.layout.role(n) == "action" and seen and place(n) < min(seen)]
    every = np.arange(space.width)
    return np.concatenate([every[space.slices[n]] for n in early]) if early else np.zeros(0, np.int64)


def inputs_of(space: ObservationSpace, seen: Observations) -> np.ndarray:
    """float32 (S - 1, F): for each step but the last its vector, the one before (itself at the beginning), the next
    step's actions where they are known ahead, and what pictures move by, where the space has motion. The ridge knows
    all but the last."""
    values = seen.values
    before = np.concatenate([values[:1], values[:-2]]) if len(values) > 1 else values[:0]
    parts = [values[:-1], before, values[1:, known_ahead(space)]]
    return np.concatenate(parts if seen.moved is None else [*parts, seen.moved[:-1]], 1)


def ridge_inputs(space: ObservationSpace) -> int:
    """How many of the inputs the ridge knows: they come first."""
    return 2 * space.width + len(known_ahead(space))


def said(space: ObservationSpace, seen: Observations, name: str) -> np.ndarray:
    """bool (S - 1,): whether a track says something in the step that follows."""
    return seen.present[1:, space.names.index(name)]


# ---------------------------------------------------------------------- how well
@dataclass(eq=False)
class TrackScore:
    """Errors of one track, by episode. squared: summed squared errors, of pixels (grey levels) or of standardised
    values. spread: for numbers and sound the summed squared distance from the mean of all that was scored."""

    values: int = 0
    squared: float = 0.0
    by_episode: list[tuple[int, float]] = field(default_factory=list)
    _sum: Any = 0.0
    _square: Any = 0.0
    _rows: int = 0

    def add(self, error: np.ndarray, truth: np.ndarray | None = None) -> None:
        """error: (n, ...). truth: (n, D), what was to be foretold, for the spread."""
        squared = float((error.astype(np.float64) ** 2).sum())
        self.values += error.size
        self.squared += squared
        self.by_episode.append((error.size, squared))
        if truth is not None:
            self._sum = self._sum + truth.sum(0, dtype=np.float64)
            self._square = self._square + (truth.astype(np.float64) ** 2).sum(0)
            self._rows += len(truth)

    @property
    def psnr_db(self) -> float:
        """Of all pixels together, peak 255."""
        return 10 * math.log10(255**2 / max(self.squared / max(self.values, 1), 1e-12))

    @property
    def episodes_psnr_db(self) -> np.ndarray:
        """float64 (episodes,): of each by itself, for confidence intervals."""
        return np.array([10 * math.log10(255**2 / max(s / n, 1e-12)) for n, s in self.by_episode if n])

    @property
    def nmse(self) -> float:
        """Squared error in units of the variance of what was foretold: the mean would have 1."""
        spread = float(np.sum(self._square - self._sum**2 / max(self._rows, 1)))
        return self.squared / max(spread, 1e-12)


Report = dict[str, dict[str, TrackScore]]
"""By name of predictor, then of track."""


def score(space: ObservationSpace, predictors: Mapping[str, Predictor], episodes: Iterable[Observations]) -> Report:
    """All predictors on the same steps: those in which a track says something. Pictures are compared as shown, rounded
    to 0..255, with those of the recording as its tokens decode it; where they were not asked for, not at all."""
    report: Report = {name: {} for name in predictors}
    for seen in episodes:
        if len(seen.values) < 2:
            continue
        for name, predictor in predictors.items():
            predicted = predictor.predict(seen)
            for track in predicted_tracks(space):
                rows = said(space, seen, track)
                if rows.any():
                    found = report[name].setdefault(track, TrackScore())
                    _compare(space, predictor, seen, predicted, track, rows, found)
    return report


def _compare(
    space: ObservationSpace, predictor: Predictor, seen: Observations, predicted: np.ndarray, track: str,
    rows: np.ndarray, found: TrackScore,
) -> None:  # fmt: skip
    if track in seen.pictures:
        small = seen.pictures[track]
        carried = seen.carried[track][:-1][rows] if track in seen.carried else None
        guess = predictor.picture(track, predicted[rows], seen.values[:-1][rows], small[:-1][rows], carried)
        found.add(np.rint(guess).clip(0, 255) - small[1:][rows])
    elif space.track(track).modality != "video":
        truth = seen.values[1:][rows][:, space.slices[track]]
        found.add(predicted[rows][:, space.slices[track]] - truth, truth)


def xz_bits(ids: np.ndarray) -> float:
    """Bits that LZMA spends on a sequence of ids (any integers from 0), without headers: the least over two orders of
    their bytes."""
    ids = np.asarray(ids)
    top = int(ids.max(initial=0))
    width = 1 if top < 1 << 8 else 2 if top < 1 << 16 else 4
    found = []
    for order in "<>":
        align = {1: 0, 2: 1, 4: 2}[width]
        chain = [
            {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3 - align, "lp": align, "pb": align}
        ]
        found.append(len(lzma.compress(ids.astype(f"{order}u{width}").tobytes(), lzma.FORMAT_RAW, filters=chain)))
    return 8.0 * min(found)
