"""What a world model has to beat: the last observation again, a ridge on the last two, and xz on its ids.

What is unusual: the ridge is a serious rival. It predicts the *change* of the whole vector of an observation
(`pantok.world_model.observations`) from the last two of them and the actions, in closed form, with a penalty for each
track chosen on episodes that it was not fitted on, "no change at all" among them; what of a picture its components
leave out is carried over from the last one, each pixel as much as pays. So it hardly ever falls below copy-last, and
after a quarter of an hour of training most networks have not reached it.

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
from scipy.linalg import eigh

from pantok.errors import InputError
from pantok.world_model.observations import Observations, ObservationSpace

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, math.inf)
"""Of the ridge, in units of the mean variance of its inputs; without bound: no change at all."""

LEAST = 20
"""Steps to be tried on, below which nothing but staying as it is is trusted."""


class Predictor(Protocol):
    """Says the next observation."""

    def predict(self, values: np.ndarray) -> np.ndarray:
        """values: (S, width). Returns (S - 1, width), row k what follows step k, from nothing after step k but the
        actions of step k + 1 where the layout says them first."""

    def picture(self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """float32 (n, lines, columns, 3): the pictures of `predicted` (n, width), which follow `values` and
        `pictures`."""


class CopyLast:
    """Everything stays as it is."""

    def __init__(self, space: ObservationSpace) -> None:
        self.space = space

    def predict(self, values: np.ndarray) -> np.ndarray:
        return values[:-1]

    def picture(self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray) -> np.ndarray:
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


def inputs_of(space: ObservationSpace, values: np.ndarray) -> np.ndarray:
    """float32 (S - 1, F): for each step but the last its vector, the one before (itself at the beginning), and the
    next step's actions where they are known ahead."""
    before = np.concatenate([values[:1], values[:-2]]) if len(values) > 1 else values[:0]
    return np.concatenate([values[:-1], before, values[1:, known_ahead(space)]], 1)


@dataclass(eq=False)
class _Moments:
    """Sums over rows of inputs x and changes y of one track, float64."""

    n: int = 0
    x: Any = 0.0
    y: Any = 0.0
    xx: Any = 0.0
    xy: Any = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        x, y = x.astype(np.float64), y.astype(np.float64)
        self.n += len(x)
        self.x, self.y = self.x + x.sum(0), self.y + y.sum(0)
        self.xx, self.xy = self.xx + x.T @ x, self.xy + x.T @ y

    def solve(self, penalties: Iterable[float]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(weights (F, D), bias (D,)) for each penalty; the bias is not penalised."""
        mean_x, mean_y = self.x / self.n, self.y / self.n
        power, axes = eigh(self.xx / self.n - np.outer(mean_x, mean_x))
        cross = axes.T @ (self.xy / self.n - np.outer(mean_x, mean_y))
        unit, least = max(float(power.mean()), 1e-30), max(float(power[-1]), 1e-30) * 1e-12
        found = []
        for penalty in penalties:
            if math.isinf(penalty):
                found.append((np.zeros_like(self.xy), np.zeros_like(mean_y)))
                continue
            gain = np.where(power > least, 1 / (power.clip(min=least) + penalty * unit), 0.0)
            weights = axes @ (gain[:, None] * cross)
            found.append((weights, mean_y - mean_x @ weights))
        return found


class Ridge:
    """The change of the next observation, linear in the last two and the actions. Make one with `fit`.

    weights: float32 (F, width), bias: float32 (width,); zero for actions. carry: for each track of video float32
    (lines, columns, 3), 0 to 1, how much of what the components leave out of a picture stays. penalties: by track.
    """

    def __init__(
        self, space: ObservationSpace, weights: np.ndarray, bias: np.ndarray, carry: Mapping[str, np.ndarray],
        penalties: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.space, self.weights, self.bias = space, weights.astype(np.float32), bias.astype(np.float32)
        self.carry, self.penalties = dict(carry), dict(penalties)

    @classmethod
    def fit(
        cls, space: ObservationSpace, train: Iterable[Observations], valid: Iterable[Observations],
        penalties: Iterable[float] = PENALTIES, least: int = LEAST,
    ) -> Ridge:  # fmt: skip
        """One pass over each; the pictures are used where they are there. A track of which the episodes of `valid` have
        less than `least` steps is foretold to stay as it is. Raises InputError if no episode has two steps."""
        penalties, names = tuple(penalties), predicted_tracks(space)
        moments = {name: _Moments() for name in names}
        kept = {t.name: [np.zeros((2, *t.shape, 3))] for t in space.tracks if t.modality == "video"}
        for seen in train:
            if len(seen.values) < 2:
                continue
            x, change = inputs_of(space, seen.values), np.diff(seen.values, axis=0)
            for name in names:
                rows = _said(space, seen, name)
                if rows.any():
                    moments[name].add(x[rows], change[rows][:, space.slices[name]])
            for name, pictures in seen.pictures.items():
                rest = pictures.astype(np.float32) - space.pictured(seen.values, name)
                kept[name][0] += np.stack([(rest[1:] * rest[:-1]).sum(0), (rest[:-1] ** 2).sum(0)])
        if not any(m.n for m in moments.values()):
            raise InputError("ridge", "no episode has two steps", "give longer recordings")
        solved = {name: m.solve(penalties) for name, m in moments.items() if m.n}
        errors, tried = {name: np.zeros(len(penalties)) for name in solved}, dict.fromkeys(solved, 0)
        for seen in valid:
            if len(seen.values) < 2:
                continue
            x, change = inputs_of(space, seen.values), np.diff(seen.values, axis=0)
            for name, choices in solved.items():
                rows = _said(space, seen, name)
                tried[name] += int(rows.sum())
                for at, (weights, bias) in enumerate(choices):
                    errors[name][at] += ((x[rows] @ weights + bias - change[rows][:, space.slices[name]]) ** 2).sum()
        weights = np.zeros((2 * space.width + len(known_ahead(space)), space.width))
        bias, chosen = np.zeros(space.width), {}
        for name, found in errors.items():
            # Of equal errors the heavier penalty; so what was hardly tried stays as it is.
            best = len(penalties) - 1 - int(np.argmin((found if tried[name] >= least else 0 * found)[::-1]))
            chosen[name] = penalties[best]
            weights[:, space.slices[name]], bias[space.slices[name]] = solved[name][best]
        # A little is added below, so that pixels that are never left out carry over whole.
        carry = {n: ((c[0][0] + 1e-3) / (c[0][1] + 1e-3)).clip(0, 1).astype(np.float32) for n, c in kept.items()}
        for name, share in carry.items():
            if math.isinf(chosen.get(name, math.inf)):
                share[:] = 1  # it stays as it is, whole
        return cls(space, weights, bias, carry, chosen)

    def predict(self, values: np.ndarray) -> np.ndarray:
        return values[:-1] + inputs_of(self.space, values) @ self.weights + self.bias

    def picture(self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        rest = pictures.astype(np.float32) - self.space.pictured(values, track)
        return self.space.pictured(predicted, track) + self.carry[track] * rest

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) that `from_arrays` takes."""
        carry = {f"carry.{self.space.names.index(n)}": c for n, c in self.carry.items()}
        facts = {n: "inf" if math.isinf(p) else p for n, p in self.penalties.items()}
        return {"weights": self.weights, "bias": self.bias, **carry}, {"penalties": facts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], space: ObservationSpace) -> Ridge:
        carry = {n: arrays[f"carry.{k}"] for k, n in enumerate(space.names) if f"carry.{k}" in arrays}
        penalties = {n: float(p) for n, p in facts["penalties"].items()}
        return cls(space, arrays["weights"], arrays["bias"], carry, penalties)


def _said(space: ObservationSpace, seen: Observations, name: str) -> np.ndarray:
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
            predicted = predictor.predict(seen.values)
            for track in predicted_tracks(space):
                rows = _said(space, seen, track)
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
        guess = predictor.picture(track, predicted[rows], seen.values[:-1][rows], small[:-1][rows])
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
