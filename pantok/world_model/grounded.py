"""The generative loss itself: the next observation, predicted from the state, compared with the one that came.

What is unusual: training starts at the best predictor that is had in seconds and can only go up. "Critiques of World
Models" (equation 8) asks for disc(g(f(h(o), a)), o'); here o' is the vector of `pantok.world_model.observations`, disc
its Gaussian negative log likelihood, and g(f(.)) is the prediction in closed form of the ridge that starts where motion
carries the pictures, plus a small network's on its inputs, plus a correction by the backbone's hidden state at the end
of the state, whose last layer is zero at first. Each track's correction is scaled by what pays on episodes that were
not trained on, nought included, so that neither the network nor the backbone ends below what it started from.

    alone = GroundedHead.alone(space, ridge, train, valid)  # without a backbone, in seconds
    head = GroundedHead(space, ridge, width=128, start=alone)
    loss = head.loss(hidden, inputs, target, present)       # nats a value
    head.calibrate(batches)                                 # held-out (hidden, inputs, target, present)
    head(hidden, inputs)                                    # (N, space.width)

`Table` has inputs and targets of every step of a store's episodes, `ends_of_steps` says where in a window states end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pantok.errors import InputError
from pantok.world_model.baselines import inputs_of, known_ahead, predicted_tracks
from pantok.world_model.descend import descend
from pantok.world_model.observations import Observations, ObservationSpace
from pantok.world_model.ridge import LEAST, Ridge

FAR = 9.0
"""Mean square of a state's errors, in units of their variance, from which on its weight in the loss falls."""

Batch = tuple[Tensor | None, Tensor, Tensor, Tensor]
"""hidden (N, H), inputs (N, F), target (N, width), present bool (N, tracks)."""


class GroundedHead(nn.Module):
    """From hidden (N, H) and inputs (N, F) to the next observation (N, width); the parts of actions stay as they are.

    ridge: what it starts at. width: H, 0 if there is no backbone. hidden: of its own hidden layer. The inputs, the last
    two observations, their actions and their motion, go into the correction too: what was decoded need not be
    remembered. start: a trained head without a backbone that this one goes on from, and leaves as it is; the ridge if
    there is none. gate: by track, how much of the correction counts. log_variance: of each dimension, from the ridge's
    errors, `spread`, if they are given.
    """

    weights: Tensor
    bias: Tensor
    gate: Tensor
    of_track: Tensor
    foretold: Tensor
    unit: Tensor

    def __init__(
        self, space: ObservationSpace, ridge: Ridge, width: int, *, hidden: int = 256,
        spread: np.ndarray | None = None, start: GroundedHead | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.start = None if start is None else start.requires_grad_(False)
        self.register_buffer("weights", torch.from_numpy(ridge.weights.copy()))
        self.register_buffer("bias", torch.from_numpy(ridge.bias.copy()))
        self.register_buffer("of_track", torch.from_numpy(space.of_track))
        names = predicted_tracks(space)
        self.register_buffer("foretold", torch.tensor([n in names for n in space.names])[self.of_track])
        self.register_buffer("gate", torch.ones(len(space.tracks)))
        self.norm = nn.LayerNorm(width) if width else None
        self.inner = nn.Linear(width + len(ridge.weights), hidden)
        self.middle = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, space.width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        first = np.ones(space.width) if spread is None else np.maximum(spread, 1e-3) ** 2
        self.log_variance = nn.Parameter(torch.from_numpy(np.log(first)).float())
        # The correction is in units of the ridge's errors: gradients and steps of one size, whatever the units are.
        self.register_buffer("unit", torch.from_numpy(np.sqrt(first)).float())

    @classmethod
    def alone(cls, space: ObservationSpace, ridge: Ridge, train: Table, valid: Table, seed: int = 0) -> GroundedHead:
        """Without a backbone, fitted in seconds: about twenty times over the rows of `train`, at most 1,500 steps of
        256; its gate and variance from `valid`."""
        rows, spread = train.all_rows, train.errors(ridge)
        generator = torch.random.get_rng_state()
        torch.manual_seed(seed)
        head = cls(space, ridge, 0, spread=spread)
        torch.random.set_rng_state(generator)
        steps = min(1500, max(50, 20 * len(rows) // 256))
        descend(head, lambda mine: head.loss(None, *train.batch(mine)), rows, steps=steps, seed=seed, weight_decay=0.1)
        head.zero_grad(set_to_none=True)
        head.calibrate([(None, *valid.batch(valid.all_rows))])
        if len(valid.all_rows) < LEAST:
            head.gate.zero_()
        return head

    @property
    def width(self) -> int:
        """Of an observation."""
        return len(self.bias)

    def closed(self, inputs: Tensor) -> Tensor:
        """(N, width): what the ridge says."""
        return inputs[:, : len(self.bias)] + inputs @ self.weights + self.bias

    def before(self, inputs: Tensor) -> Tensor:
        """(N, width): what is said without the backbone; the ridge's if there is nothing to start from."""
        return self.closed(inputs) if self.start is None else self.start(None, inputs)

    def correction(self, hidden: Tensor | None, inputs: Tensor) -> Tensor:
        """(N, width), before the gate; nought for actions."""
        parts = [inputs] if self.norm is None or hidden is None else [self.norm(hidden), inputs]
        inner = nn.functional.silu(self.inner(torch.cat(parts, 1)))
        found: Tensor = self.outer(nn.functional.silu(self.middle(inner) + inner))
        return found * self.unit * self.foretold

    def forward(self, hidden: Tensor | None, inputs: Tensor) -> Tensor:
        return self.before(inputs) + self.gate[self.of_track] * self.correction(hidden, inputs)

    def seen(self, present: Tensor) -> Tensor:
        """bool (N,): the states of which something is there that is predicted."""
        return (present[:, self.of_track] & self.foretold).any(1)

    def losses(self, hidden: Tensor | None, inputs: Tensor, target: Tensor, present: Tensor) -> Tensor:
        """Gaussian negative log likelihood of each state (N,), nats a value: the mean over what is there of
        0.5 (e^2 / v + log 2 pi v); nought where nothing is. A state whose mean e^2 / v is above FAR counts by its
        logarithm from there on, so that one far from all others does not drown a step. The gate is left out: it
        belongs to the trained model."""
        error = target - self.before(inputs) - self.correction(hidden, inputs)
        log_variance = self.log_variance.clamp(-12, 12)
        there = (present[:, self.of_track] & self.foretold).float()
        values = there.sum(1).clamp(min=1)
        far = (error.square() * torch.exp(-log_variance) * there).sum(1) / values
        far = torch.where(far > FAR, FAR * (1 + torch.log(far.clamp(min=FAR) / FAR)), far)
        return 0.5 * (far + ((log_variance + math.log(2 * math.pi)) * there).sum(1) / values)

    def loss(self, hidden: Tensor | None, inputs: Tensor, target: Tensor, present: Tensor) -> Tensor:
        """The mean of `losses` over the states of which something is there."""
        return self.losses(hidden, inputs, target, present).sum() / self.seen(present).sum().clamp(min=1)

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Batch]) -> dict[int, tuple[float, float]]:
        """Sets the gate of each track to the best on these rows, between 0 and 1. Returns by number of track the
        squared error of what it starts from and with the correction so scaled; the second is never the larger."""
        tracks = len(self.gate)
        sums = torch.zeros(3, tracks, dtype=torch.float64, device=self.gate.device)  # r.r, r.c, c.c
        for hidden, inputs, target, present in batches:
            there = present[:, self.of_track] & self.foretold
            rest = ((target - self.before(inputs)) * there).double()
            correction = (self.correction(hidden, inputs) * there).double()
            for row, product in enumerate((rest * rest, rest * correction, correction * correction)):
                sums[row].index_add_(0, self.of_track, product.sum(0))
        gate = torch.where(sums[2] > 0, sums[1] / sums[2].clamp(min=1e-30), 0).clamp(0, 1)
        self.gate.copy_(gate)
        after = sums[0] - 2 * gate * sums[1] + gate.square() * sums[2]
        return {k: (float(sums[0, k]), float(after[k])) for k in range(tracks)}


class GroundedPredictor:
    """A head as a `pantok.world_model.baselines.Predictor`, for one `score`. hidden: for each episode, in the order in
    which they are scored, (S - 1, H), the state at the end of each step but the last; None without a backbone."""

    def __init__(self, head: GroundedHead, ridge: Ridge, hidden: Sequence[Tensor] | None = None) -> None:
        self._head, self._ridge, self._hidden = head, ridge, None if hidden is None else iter(hidden)
        self.space = ridge.space

    @torch.no_grad()
    def predict(self, seen: Observations) -> np.ndarray:
        hidden = None if self._hidden is None else next(self._hidden)
        found = self._head(hidden, torch.from_numpy(inputs_of(self.space, seen)))
        return np.asarray(found.numpy())

    def picture(
        self, track: str, predicted: np.ndarray, values: np.ndarray, pictures: np.ndarray,
        carried: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        return self._ridge.picture(track, predicted, values, pictures, carried)


# ---------------------------------------------------------------------- data
@dataclass(frozen=True, eq=False)
class Table:
    """All steps of some episodes, one after another. values: float32 (R, width). moved: float32 (R, moved width).
    present: bool (R, tracks). first: int64 (E + 1,), where each episode begins. begins_ns: int64 (E,), the instant of
    its step 0. numbers: by id."""

    space: ObservationSpace
    values: np.ndarray
    moved: np.ndarray
    present: np.ndarray
    first: np.ndarray
    begins_ns: np.ndarray
    numbers: Mapping[str, int]

    @classmethod
    def of(cls, space: ObservationSpace, episodes: Iterable[Observations]) -> Table:
        """About 4 bytes a dimension and step: 1.5 kB a step, 27 MB an hour at 5 steps a second."""
        values, moved, present, begins = [], [], [], list[int]()
        numbers: dict[str, int] = {}
        for seen in episodes:
            if not len(seen.values):
                continue
            numbers[seen.id] = len(numbers)
            values.append(seen.values)
            moved.append(np.zeros((len(seen.values), 0), np.float32) if seen.moved is None else seen.moved)
            present.append(seen.present)
            begins.append(int(seen.times_ns[0]))
        if not values:
            raise InputError("observations", "no episode has a step", "give longer recordings")
        first = np.concatenate([[0], np.cumsum([len(v) for v in values])])
        rows, further, there = (np.concatenate(many) for many in (values, moved, present))
        return cls(space, rows, further, there, first, np.array(begins, np.int64), numbers)

    def rows(self, episode: str, time_ns: np.ndarray) -> np.ndarray:
        """int64, like time_ns: the row of the step that each instant is in; -1 if it has none that follows it."""
        time_ns = np.asarray(time_ns, np.int64)
        if episode not in self.numbers:
            return np.full(time_ns.shape, -1)
        number = self.numbers[episode]
        step = (time_ns - self.begins_ns[number]) // round(self.space.layout.step_s * 1e9)
        row = self.first[number] + step
        return np.where((step >= 0) & (row + 1 < self.first[number + 1]), row, -1)

    def errors(self, ridge: Ridge) -> np.ndarray:
        """float32 (width,): the deviation of what is left unsaid."""
        squares, rows = np.zeros(self.space.width), self.all_rows
        for start in range(0, len(rows), 4096):
            inputs, target, _ = self.batch(rows[start : start + 4096])
            squares += ((ridge.of_inputs(inputs.numpy()) - target.numpy()).astype(np.float64) ** 2).sum(0)
        return np.sqrt(squares / max(len(rows), 1)).astype(np.float32)

    @property
    def all_rows(self) -> np.ndarray:
        """int64: every row that another of its episode follows."""
        rows = np.arange(len(self.values))
        return np.delete(rows, self.first[1:] - 1)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """inputs (N, F), target (N, width), present (N, tracks) of `rows`, which all have one that follows."""
        before = np.where(np.isin(rows, self.first), rows, rows - 1)
        ahead = self.values[rows + 1][:, known_ahead(self.space)]
        inputs = np.concatenate([self.values[rows], self.values[before], ahead, self.moved[rows]], 1)
        return (
            torch.from_numpy(inputs),
            torch.from_numpy(self.values[rows + 1]),
            torch.from_numpy(self.present[rows + 1]),
        )


def ends_of_steps(time_ns: np.ndarray, document: np.ndarray, width_ns: int, begins_ns: np.ndarray) -> np.ndarray:
    """Places of a window's elements after which another step of the same document begins: there its state ends.

    time_ns, document: (L,). begins_ns: of each document, where its step 0 begins. A step that the window cuts off is
    left out.
    """
    known = document >= 0
    step = (time_ns - np.asarray(begins_ns)[np.where(known, document, 0)]) // width_ns
    return np.flatnonzero((step[1:] != step[:-1]) & (document[1:] == document[:-1]) & known[1:])
