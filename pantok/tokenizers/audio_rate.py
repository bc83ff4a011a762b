"""How deep to code, tick by tick: a constant quality, or a rate that a causal controller holds.

What is unusual: the controller sees only what has been said so far, in groups of ticks that stand still in the track,
so that its choices do not depend on how the samples arrive. It is integer arithmetic: bits are counted in 256ths.
"""

from __future__ import annotations

import numpy as np

from pantok.tokenizers.audio_code import SHAPE, STAGES, WATER_LOWEST, WATER_STEP, WATERS, Books
from pantok.tokenizers.audio_loudness import Rows

GROUP_TICKS = 8
_MEMORY = 3  # the running mean of what a water level costs moves by 2^-3 of the way each tick: 0.6 s
_HORIZON_TICKS = 25  # what was saved or overspent is returned over 2 s
_GENEROUS = 2
_RESERVE_TICKS = 25  # more than 2 s of rate is not saved up: a long silence does not pay for a burst


class Constant:
    """The same water level always."""

    def __init__(self, water: int) -> None:
        self.water = water

    def __call__(self, need: np.ndarray, rows: Rows, loudness_bits: np.ndarray) -> np.ndarray:
        return np.full(rows.ticks * rows.channels, self.water)

    def spent(self, counts: np.ndarray) -> None:
        """counts: int64 (levels, ticks) of the codes that came of it."""


def predicted(books: Books, need: np.ndarray, rows: Rows) -> np.ndarray:
    """int64 (ticks, WATERS): bits in 256ths that shapes are expected to cost at each water level.

    Need falls from stage to stage by what a code of the book before leaves over on average.
    """
    costs = np.zeros((rows.ticks, WATERS), np.int64)
    tick = np.broadcast_to(rows.tick[:, None], need.shape)
    fall = 0
    for stage in range(STAGES):
        # A vector pays for this stage at the water levels w with LOWEST + STEP * w < need + fall.
        paid = np.clip(-(-(need + fall - WATER_LOWEST) // WATER_STEP), 0, WATERS)
        seen = np.bincount((tick * (WATERS + 1) + paid).reshape(-1), minlength=rows.ticks * (WATERS + 1))
        above = seen.reshape(rows.ticks, -1)[:, ::-1].cumsum(1)[:, ::-1]
        costs += books.costs[SHAPE + stage] * above[:, 1:]
        fall += int(books.left[stage].mean())
    return costs


class Controller:
    """The lowest water level, but none below `finest`, whose running cost the rate and its reserve can pay.

    It also goes no finer than what sound like that of the fit would get at _GENEROUS times the rate: a quiet room
    is not worth the whole rate. books.rates is what each level cost there.
    """

    def __init__(self, books: Books, bits_per_second: float, finest: int, tick_seconds: float) -> None:
        self._books = books
        self._budget = max(1, round(256 * bits_per_second * tick_seconds))
        usual = np.rint(256 * books.rates * tick_seconds).astype(np.int64)
        self._finest = max(finest, min(WATERS - 1, int((usual > _GENEROUS * self._budget).sum())))
        self._mean = usual
        self._reserve = 0

    def __call__(self, need: np.ndarray, rows: Rows, loudness_bits: np.ndarray) -> np.ndarray:
        costs = predicted(self._books, need, rows)
        costs += (loudness_bits + self._books.costs[0] * rows.channels)[:, None]
        waters = np.zeros(rows.ticks, np.int64)
        reserve = self._reserve
        for t in range(rows.ticks):
            self._mean += (costs[t] - self._mean) >> _MEMORY
            allowed = self._budget + reserve // _HORIZON_TICKS
            waters[t] = max(self._finest, min(WATERS - 1, int((self._mean > allowed).sum())))
            reserve = min(reserve + self._budget - int(costs[t, waters[t]]), _RESERVE_TICKS * self._budget)
        return np.repeat(waters, rows.channels)

    def spent(self, counts: np.ndarray) -> None:
        for bits in (self._books.costs[:, None] * counts).sum(0).tolist():
            self._reserve = min(self._reserve + self._budget - bits, _RESERVE_TICKS * self._budget)
