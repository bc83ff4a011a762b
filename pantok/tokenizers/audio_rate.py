"""How deep to code, tick by tick: a constant quality, or a rate that a causal controller holds.

What is unusual: the controller sees only what has been said so far, in groups of ticks that stand still in the track,
so that its choices do not depend on how the samples arrive. It is integer arithmetic: bits are counted in 256ths.
"""

from __future__ import annotations

import numpy as np

from pantok.tokenizers.audio_code import SHAPE, STAGES, WATER_STEP, WATERS, Books, Rows
from pantok.tokenizers.audio_transform import TICK_FRAMES

GROUP_TICKS = 8
_MEMORY = 3  # the running mean of what a water level costs moves by 2^-3 of the way each tick: 0.6 s
_HORIZON_TICKS = 25  # what was saved or overspent is returned over 2 s
_RESERVE_TICKS = 25  # more than 2 s of rate is not saved up: a long silence does not pay for a burst


class Constant:
    """The same water level always."""

    def __init__(self, water: int) -> None:
        self.water = water

    def __call__(self, need: np.ndarray, rows: Rows, loudness_bits: np.ndarray) -> np.ndarray:
        return np.full(rows.ticks * rows.channels, self.water)

    def spent(self, counts: np.ndarray) -> None:
        """counts: int64 (levels, ticks) of the codes that came of it."""


class Controller:
    """The lowest water level, but none below `finest`, whose running cost the rate and its reserve can pay."""

    def __init__(self, books: Books, bits_per_second: float, finest: int, hop_seconds: float) -> None:
        self.finest = finest
        self._costs = books.costs
        self._budget = round(256 * bits_per_second * hop_seconds * TICK_FRAMES)
        # Need falls from stage to stage by what a code leaves over on average.
        falls = [int(left.mean()) for left in books.left[:-1]]
        self._falls = np.concatenate([[0], falls]).astype(np.int64)
        self._mean = np.zeros(WATERS, np.int64)
        self._reserve = 0
        self._started = False

    def __call__(self, need: np.ndarray, rows: Rows, loudness_bits: np.ndarray) -> np.ndarray:
        costs = np.zeros((rows.ticks, WATERS), np.int64)
        for stage in range(STAGES):
            # A vector pays for this stage at all water levels w with WATER_STEP * w < need + fall.
            paid = np.clip(-(-(need + self._falls[stage]) // WATER_STEP), 0, WATERS)
            seen = np.zeros((rows.ticks, WATERS + 1), np.int64)
            np.add.at(seen, (np.broadcast_to(rows.tick[:, None], paid.shape), paid), 1)
            costs += self._costs[SHAPE + stage] * (seen[:, ::-1].cumsum(1)[:, ::-1][:, 1:])
        costs += (loudness_bits + self._costs[0] * rows.channels)[:, None]
        waters = np.zeros(rows.ticks, np.int64)
        reserve = self._reserve
        for t in range(rows.ticks):
            step = costs[t] - self._mean
            self._mean += (step >> _MEMORY) if self._started else step
            self._started = True
            allowed = self._budget + reserve // _HORIZON_TICKS
            waters[t] = max(self.finest, min(WATERS - 1, int((self._mean > allowed).sum())))
            reserve = min(reserve + self._budget - int(costs[t, waters[t]]), _RESERVE_TICKS * self._budget)
        return np.repeat(waters, rows.channels)

    def spent(self, counts: np.ndarray) -> None:
        spent = (self._costs[:, None] * counts).sum(0)
        for bits in spent.tolist():
            self._reserve = min(self._reserve + self._budget - bits, _RESERVE_TICKS * self._budget)
