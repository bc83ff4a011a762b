"""Learning how decoded pictures are smoothed: limits and sets of weights by least squares, from what fitting decodes.

What is unusual: no picture is smoothed along the way. What a set of weights leaves is a quadratic form of sums that are
gathered once, so that limits are tried, runs are shared out among sets (as vectors among codes by k-means) and sets
are made, all without looking at a pixel again.

Letters: R runs, L limits that are tried, K = 7 L + 1.
"""

from __future__ import annotations

import numpy as np

from pantok import pixels
from pantok.tokenizers import video_smooth_kernels as kernels
from pantok.tokenizers.video_choose import Drawn
from pantok.tokenizers.video_fit import Run
from pantok.tokenizers.video_smooth import CHROMA, FOURS, MOST, REACH, Smoothing, reach

_LIMITS = np.array([2, 4, 6, 10, 15, 22, MOST], np.uint8)
_SETS, _RUNS_PER_SET = 15, 4
_LINES = 16  # of so many lines one is looked at
_ROUNDS = 12
_RIDGE = 1e-4  # of the mean square of a sum
_FOURS = len(FOURS)


class Gathered:
    """Sums of products over decoded runs, for luma and chroma, of all that smoothing could be made of."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._sums: list[np.ndarray] = []
        self._ticks = 0

    def add(self, run: Run, frames: np.ndarray, drawn: Drawn) -> None:
        """A tick: sites uint8 (count, N, 96) and what they were coded as."""
        if not self._runs or self._runs[-1] is not run:
            self._runs.append(run)
            self._sums.append(np.zeros((2, _FOURS * len(_LIMITS) + 1, _FOURS * len(_LIMITS) + 1)))
        self._ticks += 1
        height, width = run.grid.height, run.grid.width
        planes = [pixels.planes(run.grid.to_frames(sites), height, width) for sites in (frames, drawn.sites)]
        for number, (wanted, made) in enumerate(zip(*planes, strict=True)):
            sums = self._sums[-1][min(number, 1)]
            for k, (target, plane) in enumerate(zip(wanted, made, strict=True)):
                first = (5 * self._ticks + 3 * k) % _LINES
                lines = np.pad(plane, kernels.EDGE, "edge")
                x = np.empty((len(sums), len(range(first, len(target), _LINES)), target.shape[1]))
                kernels.columns(lines, kernels.EDGE, np.ascontiguousarray(target), first, _LINES, _LIMITS, x)
                rows = x.reshape(len(sums), -1)
                sums += rows @ rows.T  # of whole numbers: exact

    def sums(self) -> np.ndarray:
        """float64 (R, 2, K, K): products summed for each run, in parts of the error that it has without smoothing."""
        out = np.array([s for s in self._sums if s[:, -1, -1].any()]).reshape(-1, 2, *2 * [_FOURS * len(_LIMITS) + 1])
        out = out * np.array([1.0, float(CHROMA)])[:, None, None]
        return out / out[:, :, -1, -1].sum(1)[:, None, None, None]


def learned_smoothing(gathered: Gathered) -> Smoothing | None:
    """None where there is nothing to learn from."""
    sums = gathered.sums()
    if not len(sums):
        return None
    limits, parts = [], []
    for plane in range(2):
        chosen = _chosen_limits(sums[:, plane])
        columns = [*(chosen * _FOURS + np.arange(_FOURS)), sums.shape[-1] - 1]
        limits.append(_LIMITS[chosen])
        parts.append(sums[:, plane][:, columns][:, :, columns])
    weights = _sets(np.stack(parts, 1), min(_SETS, max(len(sums) // _RUNS_PER_SET, 1)))
    return rounded(np.stack(limits), weights)


def rounded(limits: np.ndarray, weights: np.ndarray) -> Smoothing:
    """Of float weights (F, 2, 7); those that sixteen bits might not bear are made smaller."""
    scaled = weights * (1 << kernels.SHIFT)
    room = REACH - 2 * limits.astype(np.int64).sum(1)[:, None]  # what rounding may add
    most = 4 * (np.abs(scaled) * limits).sum(2, keepdims=True)
    whole = np.rint(scaled * np.minimum(1.0, room / np.maximum(most, 1e-9))).astype(np.int16)
    assert reach(limits, whole).max() <= REACH
    return Smoothing(limits, whole)


def _chosen_limits(sums: np.ndarray) -> np.ndarray:
    """int64 (7,) into _LIMITS: of each four by turns the limit with which weights made for each run leave least."""
    chosen = np.full(_FOURS, len(_LIMITS) // 2)
    last = sums.shape[-1] - 1
    for _ in range(2):
        for four in range(_FOURS):
            left = []
            for limit in range(len(_LIMITS)):
                tried = chosen.copy()
                tried[four] = limit
                columns = [*(tried * _FOURS + np.arange(_FOURS)), last]
                part = sums[:, columns][:, :, columns]
                left.append(_left(part, _solved(part)).sum())
            chosen[four] = int(np.argmin(left))
    return chosen


def _solved(sums: np.ndarray) -> np.ndarray:
    """The weights (..., 7) that leave least error, of sums (..., 8, 8)."""
    gram, along = sums[..., :-1, :-1], sums[..., :-1, -1:]
    ridge = _RIDGE * np.trace(gram, axis1=-2, axis2=-1) / _FOURS + 1e-12
    found: np.ndarray = np.linalg.solve(gram + ridge[..., None, None] * np.eye(_FOURS), along)[..., 0]
    return found


def _left(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The squared error (...) that weights (..., 7) leave."""
    full = np.concatenate([-weights, np.ones_like(weights[..., :1])], -1)
    left: np.ndarray = ((sums @ full[..., None])[..., 0] * full).sum(-1)
    return left


def _sets(sums: np.ndarray, most: int) -> np.ndarray:
    """At most `most` sets (F, 2, 7) of sums (R, 2, 8, 8), each made for the runs that it serves best. One after another
    is added for the run that would gain most by one of its own. A run may also do without."""
    alone = _left(sums, _solved(sums)).sum(1)
    made = np.zeros((1, 2, _FOURS))
    while True:
        left = np.stack([_left(sums, one).sum(1) for one in made])
        if len(made) > 1:
            for _ in range(_ROUNDS):
                owner = left.argmin(0)
                for k in range(1, len(made)):
                    if (owner == k).any():
                        made[k] = _solved(sums[owner == k].sum(0))
                left = np.stack([_left(sums, one).sum(1) for one in made])
                if (left.argmin(0) == owner).all():
                    break
        if len(made) > most:
            break
        fresh = sums.sum(0) if len(made) == 1 else sums[int((left.min(0) - alone).argmax())]
        made = np.concatenate([made, _solved(fresh)[None]])
    used = np.unique(left.argmin(0))
    return made[used[used > 0]]
