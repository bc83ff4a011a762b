"""The ridge on the last two observations, and the same from where motion carries the pictures.

What is unusual: both come out of one pass. What is foretold is linear in where it starts from, so it is solved for the
change and for the motion at once, and how much of the motion counts is decided when all has been seen. The ridge on two
has to be beaten and knows nothing of motion; the other is what a world model's head starts at, and is the first one
where the episodes of `valid` do not say that motion pays.

    ridge, moving = ridges(space, train, valid)         # iterables of Observations, one pass over each
    moving.gains                                        # {"video": 0.33}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from pantok.errors import InputError
from pantok.world_model.baselines import inputs_of, predicted_tracks, ridge_inputs, said
from pantok.world_model.observations import Observations, ObservationSpace

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, math.inf)
"""Of the ridge, in units of the mean variance of its inputs; without bound: no change at all."""

LEAST = 20
"""Steps to be tried on, below which nothing but staying as it is is trusted."""

EVEN = 200
"""Steps for which it counts that what is left out of a picture stays as much at one pixel as at another."""


class Ridge:
    """The change of the next observation, linear in the last two and the actions. Make it with `ridges` or `fit`.

    weights: float32 (F, width), bias: float32 (width,); zero for actions. carry: for each track of video float32
    (lines, columns, 3), 0 to 1, how much of what the components leave out of a picture stays. penalties: by track.
    gains: by track of video how far its pictures are carried on before they change, 0 to 1; the ridge on two has none.
    """

    def __init__(
        self, space: ObservationSpace, weights: np.ndarray, bias: np.ndarray, carry: Mapping[str, np.ndarray],
        penalties: Mapping[str, float], gains: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.space, self.weights, self.bias = space, weights.astype(np.float32), bias.astype(np.float32)
        self.carry, self.penalties, self.gains = dict(carry), dict(penalties), dict(gains or {})

    @classmethod
    def fit(
        cls, space: ObservationSpace, train: Iterable[Observations], valid: Iterable[Observations],
        penalties: Iterable[float] = PENALTIES, least: int = LEAST,
    ) -> Ridge:  # fmt: skip
        """The ridge on two: see `ridges`."""
        return ridges(space, train, valid, penalties, least)[0]

    def predict(self, seen: Observations) -> np.ndarray:
        return self.of_inputs(inputs_of(self.space, seen))

    def of_inputs(self, inputs: np.ndarray) -> np.ndarray:
        """(N, width), from inputs (N, F), of which it knows the first ones or all."""
        return inputs[:, : self.space.width] + inputs[:, : len(self.weights)] @ self.weights + self.bias

    def picture(
        self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray,
        carried: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        rest = pictures.astype(np.float32) - self.space.pictured(values, track)
        if self.gains.get(track) and carried is not None:
            rest += self.gains[track] * (_rest(self.space, track, carried) - rest)
        return self.space.pictured(predicted, track) + self.carry[track] * rest

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) that `from_arrays` takes."""
        carry = {f"carry.{self.space.names.index(n)}": c for n, c in self.carry.items()}
        facts = {n: "inf" if math.isinf(p) else p for n, p in self.penalties.items()}
        return {"weights": self.weights, "bias": self.bias, **carry}, {"penalties": facts, "gains": self.gains}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], space: ObservationSpace) -> Ridge:
        carry = {n: arrays[f"carry.{k}"] for k, n in enumerate(space.names) if f"carry.{k}" in arrays}
        penalties = {n: float(p) for n, p in facts["penalties"].items()}
        return cls(space, arrays["weights"], arrays["bias"], carry, penalties, facts.get("gains"))


def ridges(
    space: ObservationSpace, train: Iterable[Observations], valid: Iterable[Observations],
    penalties: Iterable[float] = PENALTIES, least: int = LEAST,
) -> tuple[Ridge, Ridge]:  # fmt: skip
    """The ridge on two, and the one that motion carries on. One pass over each; the pictures of `valid` are used where
    they are there. A track of which `valid` has less than `least` steps is foretold to stay as it is. Raises InputError
    if no episode has two steps."""
    penalties, known = tuple(penalties), ridge_inputs(space)
    moments = {name: _Moments() for name in predicted_tracks(space)}
    products = {name: np.zeros(2) for name in space.moves}
    for name, x, change, moved, _ in _steps(space, train):
        if moved is not None:
            products[name] += (moved * change).sum(dtype=np.float64), (moved * moved).sum(dtype=np.float64)
            change = np.concatenate([change, moved], 1)
        moments[name].add(x, change)
    if not any(m.n for m in moments.values()):
        raise InputError("ridge", "no episode has two steps", "give longer recordings")
    gains = {n: float(np.clip(cross / power, 0, 1)) if power else 0.0 for n, (cross, power) in products.items()}
    trials = {n: _Trial(space, n, gains.get(n), m.solve(penalties)) for n, m in moments.items() if m.n}
    for name, x, change, moved, pictures in _steps(space, valid):
        if name in trials:
            trials[name].add(x, change, moved, pictures)
    found = []
    for motion in (False, True):
        weights = np.zeros((known + (space.moved_width if motion else 0), space.width))
        bias, chosen, used = np.zeros(space.width), dict[str, float](), dict[str, float]()
        # What stays as it is stays whole.
        carry = {p.name: np.ones((*p.shape, 3), np.float32) for p in space.tracks if p.modality == "video"}
        for name, trial in trials.items():
            gain, best = trial.best(motion, least)
            mine = space.slices[name]
            weights[:known, mine], bias[mine] = trial.solution(gain, best)
            chosen[name] = penalties[best]
            if motion and name in space.moves:
                used[name] = trial.gains[gain]
                rows = known + np.arange(space.moved_width)[space.moves[name]]
                weights[rows, np.arange(space.width)[mine]] = used[name]
            if name in carry and (trial.gains[gain] or not math.isinf(chosen[name])):
                carry[name] = trial.carry(gain)
        found.append(Ridge(space, weights, bias, carry, chosen, used))
    return found[0], found[1]


class _Trial:
    """The solutions for one track, and their errors on other episodes: with each gain of motion, by penalty."""

    def __init__(
        self, space: ObservationSpace, name: str, gain: float | None, solved: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        self.gains = (0.0,) if not gain else (0.0, gain)
        self._space, self._name, self._steps = space, name, 0
        self._width = space.track(name).width
        self._solved = solved
        self._errors = np.zeros((len(self.gains), len(solved)))
        shape = (*space.track(name).shape, 3)
        self._rests = np.zeros((len(self.gains), 2, *shape))
        self._shown = 0

    def solution(self, gain: int, penalty: int) -> tuple[np.ndarray, np.ndarray]:
        """(weights, bias) of what is foretold of the change, from where a gain of motion has carried it."""
        weights, bias = self._solved[penalty]
        width, share = self._width, self.gains[gain]
        if weights.shape[1] == width:
            return weights, bias
        return weights[:, :width] - share * weights[:, width:], bias[:width] - share * bias[width:]

    def add(
        self, x: np.ndarray, change: np.ndarray, moved: np.ndarray | None, pictures: Sequence[np.ndarray] | None
    ) -> None:
        """pictures: before, carried on (or before again) and after, (3, n, lines, columns, 3)."""
        self._steps += len(x)
        for gain, share in enumerate(self.gains):
            left = change if moved is None else change - share * moved
            for penalty in range(len(self._solved)):
                weights, bias = self.solution(gain, penalty)
                self._errors[gain, penalty] += ((x @ weights + bias - left) ** 2).sum()
        if pictures is not None:
            before, onward, after = (_rest(self._space, self._name, p) for p in pictures)
            self._shown += len(before)
            for gain, share in enumerate(self.gains):
                rest = before + share * (onward - before)
                self._rests[gain] += (after * rest).sum(0), (rest * rest).sum(0)

    def best(self, motion: bool, least: int) -> tuple[int, int]:
        """(number of a gain, number of a penalty). Of equal errors the heavier penalty, and no motion; so what was
        hardly tried stays as it is."""
        errors = self._errors if self._steps >= least else 0 * self._errors
        errors = errors[: None if motion else 1, ::-1]
        gain, place = np.unravel_index(int(errors.argmin()), errors.shape)
        return int(gain), len(self._solved) - 1 - int(place)

    def carry(self, gain: int) -> np.ndarray:
        """float32 (lines, columns, 3), 0 to 1. The components were learned from pictures of `train`, of which they
        leave out less: what stays of the rest is seen on others."""
        even = self._rests[gain].mean((1, 2, 3), keepdims=True) * EVEN / max(self._shown, 1)
        cross, power = self._rests[gain] + even
        # A little is added, so that pixels that are never left out carry over whole.
        return ((cross + 1e-3) / (power + 1e-3)).clip(0, 1).astype(np.float32)


def _steps(
    space: ObservationSpace, episodes: Iterable[Observations]
) -> Iterable[tuple[str, np.ndarray, np.ndarray, np.ndarray | None, Sequence[np.ndarray] | None]]:
    """(track, inputs of the ridge, change, what its pictures move by, pictures before, carried on and after) of the
    steps of each episode in which a track that is foretold says something."""
    for seen in episodes:
        if len(seen.values) < 2:
            continue
        x, change = inputs_of(space, seen)[:, : ridge_inputs(space)], np.diff(seen.values, axis=0)
        for name in predicted_tracks(space):
            rows = said(space, seen, name)
            if not rows.any():
                continue
            moved, pictures = None, None
            if name in space.moves and seen.moved is not None:
                moved = seen.moved[:-1][rows][:, space.moves[name]]
            if name in seen.pictures:
                small = seen.pictures[name]
                pictures = [small[:-1][rows], seen.carried.get(name, small)[:-1][rows], small[1:][rows]]
            yield name, x[rows], change[rows][:, space.slices[name]], moved, pictures


def _rest(space: ObservationSpace, track: str, pictures: np.ndarray) -> np.ndarray:
    """float32, like pictures (n, lines, columns, 3): what the components leave out of them."""
    part = space.track(track)
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    return (flat - part.raw(part.standard(flat))).reshape(pictures.shape)


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
