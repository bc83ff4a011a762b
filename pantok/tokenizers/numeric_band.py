"""Which of the paths within the bound a channel takes: the one that the fewest pieces spell.

What is unusual: quantising and coding are one step. The grid is finer than the bound needs, so that a sample has
several points within it; which of them stands is chosen for the whole run between two keys at once (`bpe.Pieces.path`),
the pieces having been learned from paths so chosen. Where the finer grid does not pay (noise above the bound), the
channel stays on the plain one: both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pantok.quantizers import bpe
from pantok.quantizers.bounded import Grid

_TRIED_GROUPS = 10
"""From how many groups of a long channel it is told which grid and order pay; of a short one all are tried."""
_LARGE = 0.02
"""Share of residuals beyond the reach from which on a finer grid is not learned from."""


def differences(index: np.ndarray, order: int, group: int) -> np.ndarray:
    """Differences of `order` along time, begun anew every `group` rows. int64, wrapping around: `sums` undoes it.

    The second row of a group is predicted by the first at order 2 too: a motion begins at rest, not at zero.
    """
    out = np.empty_like(index)
    with np.errstate(over="ignore"):
        for first in range(0, len(index), group):
            part = index[first : first + group]
            for k in range(order):
                part = np.concatenate([part[: k + 1], part[k + 1 :] - part[k:-1]])
            out[first : first + group] = part
    return out


def held(index: np.ndarray, kept: np.ndarray, group: int | None = None) -> np.ndarray:
    """Indices with those at `kept` bool (n,), whose samples are verbatim or holes, replaced by the last one before
    them, within the group if there are groups; 0 if there is none."""
    if not kept.any():
        return index
    rows = np.arange(len(index))
    last = np.maximum.accumulate(np.where(kept, -1, rows))
    return np.where(last >= (rows // group * group if group else 0), index[np.maximum(last, 0)], 0)


def best_order(index: np.ndarray, group: int, orders: Sequence[int]) -> int:
    """The order whose residuals are the smallest by the sum of log2(1 + |r|); the lower one on a tie."""
    if len(index) < 2:
        return orders[-1] if 1 not in orders else 1
    costs = []
    for order in orders:
        size = np.abs(differences(index, order, group).astype(np.float64))
        costs.append(float(np.sum(np.log2(1.0 + size))))
    return orders[int(np.argmin(np.round(costs, 6)))]


@dataclass(frozen=True, kw_only=True)
class BandSearch:
    """pieces: what paths are spelled with. parts: of the finer grid. reach: largest residual that is a symbol.
    wide: a zigzag below this is two.

    tick: rows that no piece reaches over. group: rows between two keys.
    """

    pieces: bpe.Pieces
    parts: int
    reach: int
    wide: int
    tick: int
    group: int

    def choose(
        self, column: np.ndarray, grid: Grid, order: int, whole: np.ndarray, kept: np.ndarray
    ) -> tuple[Grid, int, np.ndarray, np.ndarray]:
        """Grid, order, indices int64 (n,) and which samples are kept verbatim, given the same on the plain grid."""
        if self.parts == 1 or len(column) < 2:
            return grid, order, whole, kept
        fine = replace(grid, parts=self.parts)
        low, count = fine.band(column)
        verbatim = count == 0
        rounded = held(fine.quantise(column), verbatim)
        if not len(self.pieces.merges):
            # Nothing is learned yet: the finer grid, if its residuals are symbols.
            best = best_order(rounded, self.group, (0, 1, 2))
            large = np.abs(differences(rounded, best, self.group).astype(np.float64)) > self.reach
            return (grid, order, whole, kept) if large.mean() > _LARGE else (fine, best, rounded, verbatim)
        low, count = held(low, verbatim), np.maximum(held(count, verbatim), 1)
        part = self._tried(len(column))
        plain = self._path(whole[part], np.ones(len(part), np.int64), kept[part], order)[1]
        paths = [self._path(low[part], count[part], verbatim[part], o) for o in (1, 2)]
        costs = [codes for _, codes in paths]
        # Bytes of verbatim samples, counted in codes: they are not the path's.
        size = 1 + column.dtype.itemsize
        plain += size * int(kept[part].sum())
        least = min(costs) + size * int(verbatim[part].sum())
        if plain <= least:
            return grid, order, whole, kept
        chosen = costs.index(min(costs))
        path = paths[chosen][0] if len(part) == len(column) else self._path(low, count, verbatim, 1 + chosen)[0]
        return fine, 1 + chosen, path, verbatim

    def _tried(self, rows: int) -> np.ndarray:
        """Rows of whole groups spread evenly over a channel."""
        groups = -(-rows // self.group)
        if groups <= _TRIED_GROUPS:
            return np.arange(rows)
        # The last group may be short, and what follows it would begin within a group: it is left out.
        first = np.arange(_TRIED_GROUPS) * (groups - 1) // _TRIED_GROUPS * self.group
        return (first[:, None] + np.arange(self.group)).reshape(-1)

    def _path(self, low: np.ndarray, count: np.ndarray, kept: np.ndarray, order: int) -> tuple[np.ndarray, int]:
        cut = kept | (np.arange(len(low)) % self.tick == 0)
        return self.pieces.path(low, count, cut, order=order, reach=self.reach, wide=self.wide, group=self.group)
