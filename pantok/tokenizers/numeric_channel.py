"""One channel on its grid: of which class it is, how it is predicted, and what is promised of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pantok.quantizers.bounded import Grid, digits_for, finite, widened
from pantok.tokenizers.numeric_band import BandSearch, best_order, differences, held
from pantok.tokenizers.numeric_symbols import holes_of

ORDERS = (0, 1, 2)
_FEW = 8
"""A channel of at most so many values that mostly stays where it is counts as step-like."""
_WORTH_THREADS = 20_000  # samples


@dataclass(frozen=True, kw_only=True)
class Channel:
    """kind: `flag` (boolean), `whole` (integers), `step` (few values that stay) or `smooth`.

    order: of the differences along time. bound: guaranteed error (0: exact). grid: of floats; stride: of integers,
    2E + 1. max_error: the largest that was measured. raw: samples kept verbatim.
    """

    name: str
    kind: str
    order: int
    bound: float
    stride: int = 1
    grid: Grid | None = None
    max_error: float = 0.0
    raw: int = 0

    @property
    def digits(self) -> int:
        return self.grid.digits if self.grid else 0

    def header(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "order": self.order,
            "bound": self.bound,
            "stride": self.stride,
            "digits": self.digits,
            "parts": self.grid.parts if self.grid else 1,
            "max_error": self.max_error,
            "raw": self.raw,
        }

    @classmethod
    def of_header(cls, header: Mapping[str, Any], base: int) -> Channel:
        bound = float(header["bound"])
        floats = header["kind"] in ("smooth", "step")
        digits, parts = int(header["digits"]), int(header["parts"])
        grid = Grid(bound=bound, digits=digits, base=base, parts=parts) if floats and bound > 0 else None
        return cls(
            name=str(header["name"]), kind=str(header["kind"]), order=int(header["order"]), bound=bound,
            stride=int(header["stride"]), grid=grid, max_error=float(header["max_error"]), raw=int(header["raw"]),
        )  # fmt: skip

    def rebuild(self, whole: np.ndarray, digits: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Samples in `dtype` of indices int64 (n,) on the coarse grid and digits (n, <= k). Always finite."""
        if self.grid is not None:
            return self.grid.value(self.grid.join(whole, digits), dtype)
        if dtype.kind == "f":
            return finite(whole.astype(np.float64), dtype)
        if dtype.kind == "b":
            return whole > 0
        if dtype.itemsize == 8:
            with np.errstate(over="ignore"):
                return (whole * self.stride).view(dtype)
        limits = np.iinfo(dtype)
        low, high = -(-limits.min // self.stride), limits.max // self.stride + 1
        return np.clip(np.clip(whole, low - 1, high) * self.stride, limits.min, limits.max).astype(dtype)


def half_range(values: np.ndarray) -> float:
    """Half of largest minus smallest of the finite values; of a constant its size, 1 if that is 0."""
    kept = widened(values)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return 1.0
    low, high = float(kept.min()), float(kept.max())
    half = high / 2 - low / 2
    return half if 0 < half < float("inf") else (abs(high) or 1.0)


def sums(residuals: np.ndarray, order: int, holes: np.ndarray) -> np.ndarray:
    """Inverse of `differences` within one group, int64 (n,). At `holes` bool (n,), whose residuals are 0, nothing
    moves: a sample there is what the one before it is, 0 at the start."""
    with np.errstate(over="ignore"):
        if order == 2:
            steps, resting = np.cumsum(residuals[1:]), np.flatnonzero(holes[1:])
            last = np.searchsorted(resting, np.arange(len(steps)), "right") - 1
            if len(resting):
                steps = steps - np.where(last >= 0, steps[resting[np.maximum(last, 0)]], 0)
            residuals = np.concatenate([residuals[:1], steps])
        return residuals if order == 0 else np.cumsum(residuals)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """A channel, and what is to be told of its n samples, in the fewest bytes that hold it.

    residuals: of the coarse indices, signed integers (n,). digits: uint8 (n, k). holes: int8 (n,), as of `holes_of`.
    verbatim: bool (n,), which are kept as they are and are no holes.
    """

    channel: Channel
    residuals: np.ndarray
    digits: np.ndarray
    holes: np.ndarray
    verbatim: np.ndarray


def plan_channels(
    values: np.ndarray,
    names: Sequence[str],
    ranges: Sequence[float | None],
    bounds: Sequence[float | None],
    relative: float,
    digits: int,
    base: int,
    search: BandSearch,
    holed: bool,
) -> list[Planned]:
    """Each channel of values (n, C).

    ranges: half range of each channel where it is known. bounds: absolute bound where one is asked for. holed: whether
    there are symbols for holes.
    """

    def planned(c: int) -> Planned:
        column = np.ascontiguousarray(values[:, c])
        channel, whole, fine, kept = _planned(
            column, names[c], ranges[c], bounds[c], relative, digits, base, search.group, search
        )
        holes = holes_of(column) * (kept & holed)
        residuals = differences(held(whole, holes > 0, search.group), channel.order, search.group)
        return Planned(
            channel=channel, residuals=_packed(residuals), digits=fine.astype(np.uint8), holes=holes,
            verbatim=kept & (holes == 0),
        )  # fmt: skip

    # Compiled loops let go of the interpreter. The count of threads is the one that a process was given, see `workers`.
    threads = min(torch.get_num_threads(), len(names)) if values.size >= _WORTH_THREADS else 1
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(planned, range(len(names))))
    return [planned(c) for c in range(len(names))]


def _packed(values: np.ndarray) -> np.ndarray:
    """int64 in the smallest signed dtype that holds them all."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    small = (t for t in (np.int8, np.int16, np.int32) if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return values.astype(next(small, np.int64), copy=False)


def _planned(
    column: np.ndarray,
    name: str,
    known: float | None,
    bound: float | None,
    relative: float,
    digits: int,
    base: int,
    group: int,
    search: BandSearch,
) -> tuple[Channel, np.ndarray, np.ndarray, np.ndarray]:
    """One channel, its coarse indices int64 (n,), digits int64 (n, k), and which samples are kept verbatim."""
    if column.dtype.kind == "f":
        channel, whole, fine, kept = _floats(column, name, known, bound, relative, digits, base)
    else:
        channel, whole, kept = _integers(column, name, bound)
        fine = np.zeros((len(column), 0), np.int64)
    # Where a sample is verbatim its index repeats the one before, which costs one symbol.
    whole = held(whole, kept)
    order = best_order(whole, group, (0, 1) if channel.kind in ("flag", "step") else ORDERS)
    if channel.kind == "smooth" and channel.grid is not None and not channel.digits and len(column):
        grid, order, whole, kept = search.choose(column, channel.grid, order, whole, kept)
        channel = replace(channel, grid=grid)
    rebuilt = channel.rebuild(whole, fine, column.dtype)
    error, good = 0.0, ~kept
    if good.any() and channel.bound > 0:
        wide = np.float64 if column.dtype.kind == "f" else np.int64
        error = float(np.abs(rebuilt[good].astype(wide) - column[good].astype(wide)).max())
    return replace(channel, order=order, max_error=error, raw=int(kept.sum())), whole, fine, kept


def _floats(
    column: np.ndarray, name: str, known: float | None, bound: float | None, relative: float, digits: int, base: int
) -> tuple[Channel, np.ndarray, np.ndarray, np.ndarray]:
    coarse = relative * (known or half_range(column))
    wanted = coarse if bound is None else bound
    kind = "step" if _is_step(column) else "smooth"
    if wanted <= 0 or not math.isfinite(wanted):
        # A bound of 0 is exact: whole numbers on a grid of 1, everything else verbatim.
        whole, kept = _exact(column)
        return Channel(name=name, kind="whole", order=0, bound=0.0), whole, np.zeros((len(column), 0), np.int64), kept
    grid = Grid(bound=wanted, digits=digits_for(coarse, wanted, base, digits), base=base)
    whole, fine = grid.split(grid.quantise(column))
    return Channel(name=name, kind=kind, order=0, bound=wanted, grid=grid), whole, fine, ~grid.holds(column)


def _exact(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = widened(column)
    fits = np.isfinite(wide) & (np.abs(wide) <= 2.0**53)
    whole = np.where(fits, np.rint(np.where(fits, wide, 0)), 0).astype(np.int64)
    back = finite(whole.astype(np.float64), column.dtype)
    return whole, ~(fits & (back == column) & (np.signbit(back) == np.signbit(column)))


def _integers(column: np.ndarray, name: str, bound: float | None) -> tuple[Channel, np.ndarray, np.ndarray]:
    if column.dtype.kind == "b":
        return Channel(name=name, kind="flag", order=1, bound=0.0), column.astype(np.int64), np.zeros(len(column), bool)
    none = np.zeros(len(column), bool)
    reach = 0 if bound is None else int(min(math.floor(bound), 2**30))
    kind = "step" if _is_step(column) else "whole"
    stride = 2 * reach + 1
    wide = column.view(np.int64) if column.dtype.itemsize == 8 else column.astype(np.int64)
    if reach == 0:
        return Channel(name=name, kind=kind if kind != "step" else "whole", order=0, bound=0.0), wide, none
    # Beyond 2^62 the rounding could overflow; such samples are kept verbatim.
    kept = (np.abs(column.astype(np.float64)) >= 2.0**62) if column.dtype.itemsize == 8 else none
    whole = np.floor_divide(np.where(kept, 0, wide) + reach, stride)
    channel = Channel(name=name, kind="whole", order=0, bound=float(reach), stride=stride)
    return channel, whole, kept


def _is_step(column: np.ndarray) -> bool:
    """Few values, and mostly the same as the sample before: grippers, contacts, modes."""
    if len(column) < 2:
        return False
    head = np.unique(column[:1000])
    if len(head) > _FEW:
        return False
    return len(np.unique(column)) <= _FEW and float((column[1:] == column[:-1]).mean()) > 0.8
