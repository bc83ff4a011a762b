"""What a vocabulary costs: held-out bits a second, of its ids, of what they leave unsaid, and of the vocabulary itself.

What is unusual: nothing is weighed against anything, all three are bits.

    J = bits of the ids under a predictor + bits of the digits that bring the error to eps + bits of the dictionary

the last spread over the recordings that it serves. On a source of 64 clusters J is lowest with 64 codes: fewer leave
more to the digits, more cost ids that say nothing new. Counts do not know that. Held out are whole episodes where
there are many, spans of time where there are few; whether one vocabulary is better than another is judged by the
differences of their bits on the same held-out groups, and by how much those scatter.

Shapes: N ids, G groups (episodes or spans), D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pantok.errors import InputError
from pantok.evolve.makeup import Makeup
from pantok.evolve.predictor import NGram
from pantok.tokenizers.numeric_encoder import channel_names

EVERY = 4
"""One group in so many is held out."""
LEAST_GROUPS = 16
"""With fewer episodes, spans of time are held out."""
LEAST_EPS = 1e-12
"""Of what has neither an error nor a spread."""
_DRAWS = 400
_SAMPLED = 96  # coordinates of a sample (pixels of a frame) whose residuals stand for all
_RELATIVE = 1e-3  # a gain smaller than this share is none


@dataclass(frozen=True, eq=False)
class Passage:
    """Recordings as ids. ids: integers (N,). group: int64 (N,), 0 .. G - 1, ascending; no context reaches from one
    group into the next. seconds: float64 (G,), how much experience each group is."""

    ids: np.ndarray
    group: np.ndarray
    seconds: np.ndarray

    def __post_init__(self) -> None:
        assert self.ids.shape == self.group.shape and (not len(self.group) or self.group[-1] < len(self.seconds))

    def taken(self, groups: np.ndarray) -> Passage:
        """Those of the groups that `groups`, bool (G,), says."""
        number = np.cumsum(groups) - 1
        mine = groups[self.group]
        return Passage(self.ids[mine], number[self.group[mine]], self.seconds[groups])


def held_out(groups: int) -> np.ndarray:
    """bool (G,): every fourth, the last of each four. Raises InputError for a single one."""
    if groups < 2:
        raise InputError("recordings", "are too short to hold a part of them out", "give more of them")
    held = np.arange(groups) % EVERY == EVERY - 1
    held[-1] |= not held.any()
    return held


@dataclass(frozen=True, kw_only=True, eq=False)
class Cost:
    """What was measured on the G held-out groups. bits: float64 (G,), of ids and digits. ids: int64 (G,). seconds:
    float64 (G,). dictionary_bits: of the vocabulary; served_seconds: the recordings that they are spread over."""

    bits: np.ndarray
    ids: np.ndarray
    seconds: np.ndarray
    dictionary_bits: float
    served_seconds: float

    @property
    def id_bits_per_second(self) -> float:
        """Of ids and digits, without the dictionary."""
        return float(self.bits.sum() / self.seconds.sum())

    @property
    def dictionary_bits_per_second(self) -> float:
        return self.dictionary_bits / self.served_seconds

    @property
    def bits_per_second(self) -> float:
        """J."""
        return self.id_bits_per_second + self.dictionary_bits_per_second

    @property
    def ids_per_second(self) -> float:
        return float(self.ids.sum() / self.seconds.sum())

    @cached_property
    def standard_error(self) -> float:
        """Of J, bits a second: how it scatters over held-out groups."""
        return _scatter(self.bits, self.seconds)

    def gain_over(self, other: Cost, price: float = 0.0) -> tuple[float, float]:
        """(bits a second that this saves against `other`, on the same groups; standard error of that).

        price: bits that each id is held to cost besides, for the computation that a model spends on it.
        """
        assert np.array_equal(self.seconds, other.seconds)
        saved = other.bits - self.bits + price * (other.ids - self.ids)
        dictionary = other.dictionary_bits_per_second - self.dictionary_bits_per_second
        return float(saved.sum() / self.seconds.sum()) + dictionary, _scatter(saved, self.seconds)

    def pays_against(self, other: Cost, price: float = 0.0) -> bool:
        """Whether it saves more than a thousandth, and more than twice the standard error."""
        gain, error = self.gain_over(other, price)
        return gain > max(_RELATIVE * other.bits_per_second, 2 * error)


def _scatter(amounts: np.ndarray, seconds: np.ndarray) -> float:
    """Standard error of sum(amounts) / sum(seconds), by drawing the groups anew."""
    if len(amounts) < 2:
        return float("inf")
    draw = np.random.default_rng(0).integers(0, len(amounts), (_DRAWS, len(amounts)))
    total = seconds[draw].sum(1)
    return float((amounts[draw].sum(1)[total > 0] / total[total > 0]).std())


def cost(
    train: Passage, held: Passage, size: int, *, makeup: Makeup | None = None, dictionary_bits: float = 0.0,
    more_bits: np.ndarray | None = None,
) -> Cost:  # fmt: skip
    """J of ids below `size`: the predictor counts `train` and is asked about `held`.

    makeup: of the ids, see `NGram`. more_bits: float64 (G,), what else the held-out groups cost, such as
    `digit_bits`.
    """
    return cost_and_bits(
        train, held, size, makeup=makeup, dictionary_bits=dictionary_bits, more_bits=more_bits
    )[0]  # fmt: skip


def cost_and_bits(
    train: Passage, held: Passage, size: int, *, makeup: Makeup | None = None, dictionary_bits: float = 0.0,
    more_bits: np.ndarray | None = None,
) -> tuple[Cost, np.ndarray]:  # fmt: skip
    """As `cost`, and float64 (N,) the bits of each held-out id."""
    each = NGram(size, makeup).count(train.ids, train.group).bits(held.ids, held.group)
    groups = len(held.seconds)
    bits = np.bincount(held.group, each, groups)
    found = Cost(
        bits=bits if more_bits is None else bits + more_bits,
        ids=np.bincount(held.group, minlength=groups),
        seconds=held.seconds,
        dictionary_bits=dictionary_bits,
        served_seconds=float(train.seconds.sum() + held.seconds.sum()),
    )
    return found, each


def gaps(truth: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """made - truth, float64 (N, D), and where both are finite, bool (N, D): elsewhere the gap is 0, for codes say what
    is not finite as it is. (Rows in which no channel is silent may be none of a table with many sensors.)"""
    there = np.isfinite(truth) & np.isfinite(made)
    gap = np.where(there, made, 0).astype(np.float64)
    gap -= np.where(there, truth, 0)
    return gap, there


def units_of(modality: str, track: str, channels: tuple[str, ...], count: int) -> tuple[str, ...]:
    """What the coordinates of a track are measured in: of numbers each channel in a unit of its own, `track/channel`
    (one eps for a counter and a torque would hold nothing against the torque); of sound and pictures all in one."""
    if modality != "numeric":
        return (modality,)
    return tuple(f"{track}/{channel}" for channel in channel_names(channels, count))


def sums_of(values: np.ndarray, units: Sequence[str]) -> np.ndarray:
    """Sums of values (N, D) over all that shares a unit, (len(units),): of one, or of as many as coordinates."""
    assert len(units) in (1, values.shape[1]), (len(units), values.shape)
    return values.sum(0) if len(units) > 1 else values.sum().reshape(1)


@dataclass(frozen=True, eq=False)
class Unsaid:
    """Residuals of some coordinates, float64 (N, d), in `units`, each of which stands for `scale` of them."""

    gap: np.ndarray
    units: tuple[str, ...]
    scale: float

    @classmethod
    def of(cls, gap: np.ndarray, units: tuple[str, ...]) -> Unsaid:
        """gap: of all coordinates, (N, D)."""
        some = np.linspace(0, gap.shape[1] - 1, min(gap.shape[1], _SAMPLED)).astype(int)
        named = tuple(units[k] for k in some) if len(units) > 1 else units
        return cls(gap[:, some], named, gap.shape[1] / len(some))

    def cut(self, first: int, last: int) -> Unsaid:
        return replace(self, gap=self.gap[first:last])

    def bits(self, eps: Mapping[str, float]) -> float:
        """Of the digits that bring every sample to within its unit's eps."""
        own = np.array([max(eps.get(unit, 0.0), LEAST_EPS) for unit in self.units])
        return self.scale * float(digit_bits(self.gap, own).sum())


def digit_bits(residual: np.ndarray, eps: float | np.ndarray) -> np.ndarray:
    """float64 (N,): bits that bring each vector of residuals, float (N, D), to within `eps`, one or each coordinate's
    own (D,), in every coordinate.

    Each coordinate in steps of 2 eps: how many binary digits its step has, at what that costs by those before it in
    the same coordinate (one occurrence of each is taken for granted), then its sign and its digits but the first.
    """
    steps = np.abs(np.rint(np.asarray(residual, np.float64) / (2 * eps)))
    digits = np.frexp(steps)[1].astype(np.int64)  # 0 for a step of 0
    bits = digits.sum(1).astype(np.float64)
    if not len(digits):
        return bits
    kinds = int(digits.max()) + 1
    for column in digits.T:
        seen = np.zeros((len(column), kinds), np.int64)
        seen[np.arange(len(column)), column] = 1
        before = np.take_along_axis(np.cumsum(seen, 0), column[:, None], 1)[:, 0] - 1
        bits += np.log2((np.arange(len(column)) + kinds) / (before + 1))
    return bits


def codebook_bits(codes: int, coordinates: int, span: float, eps: float) -> float:
    """Bits of `codes` vectors whose coordinates lie within `span`, each told to within eps."""
    return codes * coordinates * float(np.log2(max(span / (2 * eps), 1.0)))


def lowest(costs: Sequence[tuple[int, float]]) -> int:
    """Of (size, cost) the size of the lowest cost, the smaller of equals."""
    return min(costs, key=lambda pair: (pair[1], pair[0]))[0]
