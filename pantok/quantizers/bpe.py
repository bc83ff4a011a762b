"""Pieces of integer sequences: byte-pair merges learned in bulk, and the *shortest* segmentation instead of the greedy.

What differs from the textbook: pairs that share no symbol are merged in one pass over the data, so that a million
symbols and a thousand merges take seconds in numpy; and encoding ignores the order of the merges, it finds the fewest
pieces that spell a run (dynamic programming over all runs at once). Pieces never reach over the end of a run.

    >>> pieces = train(np.array([[0, 0, 1, 0, 0, 1, 0, 0]]), alphabet=2, size=4)
    >>> pieces.expansion(2), pieces.expansion(3)
    ((0, 0), (1, 0, 0))
    >>> codes, counts = pieces.segment(np.array([[0, 0, 1, 0, 0, 1, 1, 0]]))
    >>> codes.tolist(), counts.tolist()
    ([2, 3, 1, 1, 0], [5])
    >>> pieces.expand(codes)[0].tolist()
    [0, 0, 1, 0, 0, 1, 1, 0]

Source of the merges: Gage, "A New Algorithm for Data Compression", C Users Journal 12(2), 1994.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PAD = -1
"""What fills a run that is shorter than the others of its matrix."""
_RUNS_AT_ONCE = 2048
_PAIRS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Pieces:
    """Codes 0 .. alphabet - 1 are the symbols themselves; code alphabet + i spells the pair merges[i].

    merges: int32 (M, 2), each of codes below its own.
    """

    alphabet: int
    merges: np.ndarray

    def __post_init__(self) -> None:
        own = self.alphabet + np.arange(len(self.merges))
        assert self.merges.shape == (len(self.merges), 2)
        assert (self.merges >= 0).all() and (self.merges < own[:, None]).all(), "a piece is made of earlier ones"

    @property
    def size(self) -> int:
        return self.alphabet + len(self.merges)

    def expansion(self, code: int) -> tuple[int, ...]:
        """The symbols that a code spells."""
        lo, hi = self._expansions[1][code : code + 2]
        return tuple(self._expansions[0][lo:hi].tolist())

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (size,): symbols that each code spells."""
        return np.diff(self._expansions[1])

    @cached_property
    def _expansions(self) -> tuple[np.ndarray, np.ndarray]:
        """All expansions, one after another, and where each begins."""
        spelled: list[tuple[int, ...]] = [(s,) for s in range(self.alphabet)]
        for a, b in self.merges.tolist():
            spelled.append(spelled[a] + spelled[b])
        starts = np.concatenate([[0], np.cumsum([len(s) for s in spelled])])
        return np.fromiter((v for s in spelled for v in s), np.int64, int(starts[-1])), starts

    def expand(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Symbols int64 (n,) of codes (N,) below `size`, and int64 (N,) how many each code gave."""
        symbols, starts = self._expansions
        counts = self.lengths[codes]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        at = np.arange(total) - np.repeat(ends - counts, counts) + np.repeat(starts[codes], counts)
        return symbols[at], counts

    @cached_property
    def _trie(self) -> tuple[np.ndarray, np.ndarray]:
        """Next node (nodes, alphabet + 1), 0 for none, PAD as the last column; and the code that ends at each node."""
        follow: list[dict[int, int]] = [{}, {}]  # node 0 leads nowhere, node 1 is the root
        ends = [-1, -1]
        for code in range(self.size):
            node = 1
            for symbol in self.expansion(code):
                if symbol not in follow[node]:
                    follow[node][symbol] = len(follow)
                    follow.append({})
                    ends.append(-1)
                node = follow[node][symbol]
            if ends[node] < 0:  # two merges may spell the same: the lower code stands for both
                ends[node] = code
        table = np.zeros((len(follow), self.alphabet + 1), np.int32)
        for node, branches in enumerate(follow):
            for symbol, to in branches.items():
                table[node, symbol] = to
        return table, np.array(ends, np.int32)

    def path(
        self, low: np.ndarray, count: np.ndarray, cut: np.ndarray, *, order: int, reach: int, wide: int, group: int
    ) -> tuple[np.ndarray, int]:
        """Of all integer paths with low <= path < low + count one whose differences the fewest codes spell.

        low, count: int64 (n,), count from 1 up. cut: bool (n,), no piece reaches over the start of that sample. order:
        0 to 2, of the differences (`numeric_channel.differences`), begun anew every `group` samples. reach: A, symbol
        A + r is a residual r; what is larger costs a code and one for each byte of its zigzag, or two in all where that
        is below `wide`. Returns the path int64 (n,) and its codes.
        """
        from pantok.quantizers.band_kernels import cheapest_path

        path = np.zeros(len(low), np.int64)
        if not len(low):
            return path, 0
        codes = cheapest_path(
            np.ascontiguousarray(low), np.ascontiguousarray(count), cut, *self._small_trie(reach), *self._expansions,
            int(self.lengths.max()), order, int(count.max()), reach, wide, group, path,
        )  # fmt: skip
        return path, int(codes)

    def _small_trie(self, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """The trie of residuals -reach .. reach only, so tight that it stays in a core's cache.

        nodes: int32 (nodes, 3), the least residual that leads on from each, how many from there on may, and where they
        begin among the edges. edges: int32 (E, 3), the node that each leads to (0 for none), the code that ends there
        (-1 for none), and how much deeper it goes.
        """
        if reach not in self._small:
            table, ends = self._trie
            table = table[:, : 2 * reach + 1]
            height = np.zeros(len(table), np.int32)
            for node in range(len(table) - 1, 0, -1):  # a node comes before those that it leads to
                height[node] = max((1 + int(height[to]) for to in table[node][table[node] > 0]), default=0)
            nodes, edges, filled = np.zeros((len(table), 3), np.int32), [np.zeros((0, 3), np.int32)], 0
            for node, row in enumerate(table):
                places = np.flatnonzero(row)
                if len(places):
                    follow = row[places[0] : places[-1] + 1]
                    nodes[node] = places[0] - reach, len(follow), filled
                    edges.append(np.stack([follow, ends[follow], height[follow]], 1))
                    filled += len(follow)
            self._small[reach] = nodes, np.concatenate(edges)
        return self._small[reach]

    @cached_property
    def _small(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def segment(self, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The fewest codes that spell each run; among equals, the longest piece first.

        runs: symbols (R, L), each row filled with PAD at its end. Returns codes int32 (N,), row after row, and
        counts int64 (R,) of codes in each row.
        """
        parts = [self._segment(runs[i : i + _RUNS_AT_ONCE]) for i in range(0, len(runs), _RUNS_AT_ONCE)]
        if not parts:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _segment(self, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, length = runs.shape
        table, ends = self._trie
        longest = int(self.lengths.max())
        size = (runs != PAD).sum(1)
        columns = np.ascontiguousarray(np.where(runs == PAD, self.alphabet, runs).T)  # (L, R)
        # cost[p]: fewest codes from position p to the end of the run.
        cost = np.full((length + 1, count), np.int32(1 << 30))
        cost[size, np.arange(count)] = 0
        choice = np.zeros((length, count), np.int32)
        step = np.ones((length, count), np.int32)
        for p in range(length - 1, -1, -1):
            node = np.ones(count, np.int32)
            best = np.where(size > p, np.int32(1 << 30), cost[p])
            for reach in range(1, min(longest, length - p) + 1):
                node = table[node, columns[p + reach - 1]]
                if not node.any():
                    break
                code = ends[node]
                total = cost[p + reach] + 1
                better = (code >= 0) & (total <= best)
                np.copyto(best, total, where=better)
                np.copyto(choice[p], code, where=better)
                np.copyto(step[p], reach, where=better)
            cost[p] = best
        chosen = np.zeros((count, length), bool)
        at, rows = np.zeros(count, np.int64), np.arange(count)
        while len(rows):
            open_ = at[rows] < size[rows]
            rows = rows[open_]
            chosen[rows, at[rows]] = True
            at[rows] += step[at[rows], rows]
        return choice.T[chosen], chosen.sum(1)


def train(
    runs: np.ndarray,
    alphabet: int,
    size: int,
    *,
    mergeable: int | None = None,
    longest: int = 32,
    least: int = 2,
    still: Sequence[tuple[int, int]] = (),
) -> Pieces:
    """Pieces for runs of symbols (R, L), PAD at the ends, up to `size` codes in all.

    mergeable: only symbols below it may be merged (all by default). longest: symbols that a piece may spell.
    least: a pair seen less often is not merged. still: (symbol, length) each: there shall be a piece of that symbol so
    many times over, and of the doublings on the way, seen or not. Deterministic: ties go to the lower pair.
    """
    mergeable = alphabet if mergeable is None else mergeable
    # A PAD between the runs keeps pairs inside them.
    flat = np.concatenate([runs, np.full((len(runs), 1), PAD)], 1).reshape(-1).astype(np.int64)
    flat = flat[np.concatenate([[True], (flat[1:] != PAD) | (flat[:-1] != PAD)])] if len(flat) else flat
    lengths = np.ones(max(size, alphabet), np.int64)
    allowed = np.zeros(max(size, alphabet), bool)
    allowed[:mergeable] = True
    merges: list[tuple[int, int]] = []

    def add(pairs: list[tuple[int, int]]) -> dict[int, int]:
        codes = {}
        for first, second in pairs:
            code = alphabet + len(merges)
            codes[first * size + second] = code
            merges.append((first, second))
            lengths[code] = lengths[first] + lengths[second]
            allowed[code] = True
        return codes

    for symbol, length in still:
        for pair in _doublings(symbol, length, alphabet + len(merges))[: max(size - alphabet - len(merges), 0)]:
            flat = _replace(flat, add([pair]), size)
    while alphabet + len(merges) < size and len(flat) > 1:
        a, b = flat[:-1], flat[1:]
        fits = (a >= 0) & (b >= 0)
        fits &= allowed[a] & allowed[b] & (lengths[a] + lengths[b] <= longest)
        keys, counts = np.unique(a[fits] * np.int64(size) + b[fits], return_counts=True)
        chosen = _disjoint_pairs(keys, counts, size, least, size - alphabet - len(merges))
        if not chosen:
            break
        flat = _replace(flat, add(chosen), size)
    return Pieces(alphabet, np.array(merges, np.int32).reshape(-1, 2))


def _doublings(symbol: int, length: int, first: int) -> list[tuple[int, int]]:
    """Merges with codes from `first` on whose last is `symbol`, `length` times over, and the one before that one fewer:
    what still stands after the first sample of a key is one shorter than a tick.
    """
    by_length, merges = {1: symbol}, []

    def add(one: int, other: int) -> int:
        if one + other not in by_length:
            merges.append((by_length[one], by_length[other]))
            by_length[one + other] = first + len(merges) - 1
        return one + other

    total = 1
    while 2 * total < length:
        total = add(total, total)
    for part in sorted(by_length, reverse=True):
        if total + part < length:
            total = add(total, part)
    if length > 1:
        add(total, 1)
    return merges


def _disjoint_pairs(keys: np.ndarray, counts: np.ndarray, size: int, least: int, room: int) -> list[tuple[int, int]]:
    """The most frequent pairs that share no symbol, none below half of the first: about what one by one would take."""
    order = np.lexsort((keys, -counts))[: 8 * _PAIRS_AT_ONCE]
    chosen: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i in order.tolist():
        if counts[i] < max(least, counts[order[0]] / 2) or len(chosen) == min(room, _PAIRS_AT_ONCE):
            break
        first, second = divmod(int(keys[i]), size)
        if first not in taken and second not in taken:
            chosen.append((first, second))
            taken |= {first, second}
    return chosen


def _replace(flat: np.ndarray, codes: dict[int, int], size: int) -> np.ndarray:
    """Every occurrence of the pairs by their codes, from left to right where a pair overlaps itself."""
    keys = np.array(sorted(codes), np.int64)
    values = np.array([codes[k] for k in keys.tolist()], np.int64)
    pair = np.where((flat[:-1] >= 0) & (flat[1:] >= 0), flat[:-1] * np.int64(size) + flat[1:], -1)
    place = np.minimum(np.searchsorted(keys, pair), len(keys) - 1)
    found = keys[place] == pair
    # Pairs share no symbol, so only (x, x) overlaps itself: in x x x x take the first and the third.
    where = np.flatnonzero(found)
    begins = np.concatenate([[True], np.diff(where) > 1]) if len(where) else np.zeros(0, bool)
    since = where - np.maximum.accumulate(np.where(begins, where, 0)) if len(where) else where
    where = where[since % 2 == 0]
    out = flat.copy()
    out[where] = values[place[where]]
    keep = np.ones(len(flat), bool)
    keep[where + 1] = False
    return out[keep]
