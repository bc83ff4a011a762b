"""Which ids a training job sees when: windows of episodes, mixtures of stores, stages of a curriculum.

What is unusual: nothing here has a state. Window i of an epoch, the store that it comes from and the parts of episodes
that it holds are computed from (seed, epoch, i) with a few integer operations, whatever came before; so it is the same
for any number of ranks and workers, and taking up a job again costs nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil

import numpy as np

from pantok import loader_kernels as kernels
from pantok.errors import OptionError

SPAN = 16_384
"""Windows that are shuffled among each other. Episodes come in a random order already; that windows which are near in
it stay near keeps the episodes of a span, not of the whole store, open at once."""


def key_of(*numbers: int) -> np.uint64:
    """The key of an order: 64 bits of the numbers that name it.

    >>> int(key_of(0, 1)) % 1000, int(key_of(1, 0)) % 1000
    (731, 8)
    """
    text = ",".join(str(int(number)) for number in numbers)
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


@dataclass(frozen=True)
class Part:
    """A run of one episode within a window: its ids [start, stop)."""

    episode: int
    start: int
    stop: int


class Windows:
    """The windows of all epochs of one store: which parts of which episodes each is made of.

    The episodes in a random order, their sequences one after another, cut into windows of `length`; the last one of an
    epoch is short. Then the windows are shuffled, `span` at a time.

    lengths: ids of each episode's sequence, int (E,). salt: further numbers that the order depends on.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, length: int, seed: int, shuffle: bool, *,
        span: int = SPAN, salt: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.lengths, self._length = np.asarray(lengths, np.int64), length
        self._seed, self._shuffle, self._span, self._salt = seed, shuffle, span, tuple(salt)
        self.ids = int(self.lengths.sum())
        """Ids of an epoch."""
        self._orders: dict[int, tuple[np.ndarray, np.ndarray, np.uint64]] = {}

    def __len__(self) -> int:
        """Windows of an epoch."""
        return -(-self.ids // self._length)

    def parts(self, epoch: int, index: int) -> list[Part]:
        """What window `index` of `epoch` holds, in order: `length` ids together, fewer at the epoch's end."""
        return [Part(int(e), int(a), int(b)) for _, e, a, b in self.parts_of(epoch, [index])]

    def parts_of(self, epoch: int, indices: Sequence[int]) -> np.ndarray:
        """The parts of several windows of an epoch, int64 (P, 4): number in `indices`, episode, first, last + 1."""
        order, ends, key = self._order(epoch)
        room = 4 * len(indices) + 16
        while True:
            out = np.empty((room, 4), np.int64)
            made = kernels.parts(
                np.asarray(indices, np.int64), self._length, self._span, key, self._shuffle, order, ends, self.lengths,
                out,
            )  # fmt: skip
            if made >= 0:
                return out[:made]
            room *= 4

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.uint64]:
        """(episodes in their order, where each ends in the row, the key of the order of windows)."""
        found = self._orders.get(epoch)
        if found is None:
            count = len(self.lengths)
            key = key_of(self._seed, epoch, 0, *self._salt)
            order = kernels.order(count, key) if self._shuffle else np.arange(count)
            found = order, np.cumsum(self.lengths[order]), key_of(self._seed, epoch, 1, *self._salt)
            # A mixture, or batches made ahead, may stand on both sides of an epoch's end.
            self._orders = {k: v for k, v in self._orders.items() if abs(k - epoch) <= 1} | {epoch: found}
        return found


@dataclass(frozen=True)
class Schedule:
    """Who is drawn when, in proportion to integer weights, as evenly as integers allow; any draw at once.

    The weights are halved again and again: of n draws the left half's share is the integer part of n w / W (Bresenham),
    and so on within each half. After W draws each has been drawn exactly as often as its weight says.

        >>> Schedule((2, 1)).draw(0), [Schedule((2, 1)).draw(i)[0] for i in range(6)]
        ((1, 0), [1, 0, 0, 1, 0, 0])
    """

    weights: tuple[int, ...]

    def draw(self, index: int) -> tuple[int, int]:
        """(who is drawn `index`-th, how often it was drawn before)."""
        low, high = 0, len(self.weights)
        while high - low > 1:
            middle = (low + high) // 2
            mine, both = sum(self.weights[low:middle]), sum(self.weights[low:high])
            before = index * mine // both
            if (index + 1) * mine // both > before:
                index, high = before, middle
            else:
                index, low = index - before, middle
        return low, index


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest integers in these proportions (to a millionth). Raises OptionError for a weight that is not above 0.

    >>> whole_weights([3.0, 1.0]), whole_weights([0.5, 0.25, 0.25])
    ((3, 1), (2, 1, 1))
    """
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise OptionError("loader weights", f"{weight} is no weight", "give each store one above 0")
    shares = [Fraction(weight).limit_denominator(10**6) or Fraction(1, 10**6) for weight in weights]
    common = int(np.lcm.reduce([share.denominator for share in shares], dtype=object))
    whole = [int(share * common) for share in shares]
    least = int(np.gcd.reduce(whole, dtype=object))
    return tuple(number // least for number in whole)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a curriculum. levels: as `Layout.levels`, which it replaces while the stage lasts. epochs: how many
    the stage lasts, a fraction if wanted; or windows: how many, over all ranks (steps times windows of a step). The
    last stage has no end."""

    levels: Mapping[str, int | str] = field(default_factory=dict)
    epochs: float | None = None
    windows: int | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None and self.windows is not None:
            raise OptionError("loader curriculum", "a stage has epochs and windows", "give one of them")
        if any(n is not None and n <= 0 for n in (self.epochs, self.windows)):
            raise OptionError("loader curriculum", "a stage lasts no time", "give more than 0, or leave it out")


@dataclass(frozen=True)
class Drawn:
    """A window of a job: which store's, and that store's own epoch and window."""

    source: int
    epoch: int
    window: int


class Order:
    """The windows of all epochs of a mixture. An epoch has as many windows as its stores have together.

    weights: integers; None draws every window of every store once an epoch.
    """

    def __init__(self, sources: Sequence[Windows], weights: Sequence[int] | None = None) -> None:
        self.sources = tuple(sources)
        sizes = tuple(len(windows) for windows in self.sources)
        self._size = sum(sizes)
        self._schedule = Schedule(sizes if weights is None else tuple(weights))

    def __len__(self) -> int:
        """Windows of an epoch."""
        return self._size

    @property
    def ids(self) -> int:
        """Ids of all stores together, each once."""
        return sum(windows.ids for windows in self.sources)

    def draw(self, epoch: int, index: int) -> Drawn:
        if len(self.sources) == 1:
            return Drawn(0, epoch, index)
        source, before = self._schedule.draw(epoch * self._size + index)
        return Drawn(source, *divmod(before, len(self.sources[source])))


class Curriculum:
    """Stages one after another, each with its own order: which stage an epoch is of, and how many windows it has."""

    def __init__(self, orders: Sequence[Order], stages: Sequence[Stage]) -> None:
        assert len(orders) == len(stages) > 0
        self.orders, self._stages = tuple(orders), tuple(stages)

    @cached_property
    def _lasting(self) -> list[tuple[int, int]]:
        """(epochs, windows) of all stages but the last."""
        out = []
        for order, stage in zip(self.orders[:-1], self._stages[:-1], strict=True):
            windows = stage.windows or ceil(Fraction(stage.epochs or 1) * len(order))
            out.append((-(-windows // len(order)), windows))
        return out

    @cached_property
    def _starts(self) -> list[int]:
        """The first epoch of each stage."""
        return [0, *np.cumsum([epochs for epochs, _ in self._lasting]).tolist()]

    def stage(self, epoch: int) -> int:
        return bisect_right(self._starts, epoch) - 1

    def size(self, epoch: int) -> int:
        """Windows of an epoch; the last of a stage may be cut short."""
        stage = self.stage(epoch)
        whole = len(self.orders[stage])
        if stage == len(self.orders) - 1:
            return whole
        return min(whole, self._lasting[stage][1] - (epoch - self._starts[stage]) * whole)

    def draw(self, epoch: int, index: int) -> tuple[int, Drawn]:
        """(stage, window of it)."""
        stage = self.stage(epoch)
        return stage, self.orders[stage].draw(epoch - self._starts[stage], index)
