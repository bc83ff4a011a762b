"""The learned switch: which vocabulary speaks next, as a probability, and one softmax for each.

What is unusual: kinds are a categorical variable with a floor, so the joint over codes and latents is a probability
(counting measure on codes, Lebesgue on latents) that sums to one, and no kind is ever ruled out. Where a state stops
among nested levels may be left open: `depth_marginal` sums over it exactly, since one teacher-forced pass gives the
term of every depth. Whether the gate's probabilities are true is measured by `gate_report`.

Shapes: N elements, K kinds, V ids, M levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.errors import OptionError
from pantok.vocabulary import Vocabulary
from pantok.world_model.features import FeatureTable


@dataclass(frozen=True)
class Drawn:
    """What a switch drew, for each of N elements: its kind, and its id (-1 for a latent). int64 (N,)."""

    kinds: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Kinds:
    """What may come next: extents of ids [start, stop), and continuous latents of `dims` dimensions (0: discrete)."""

    names: tuple[str, ...]
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    dims: tuple[int, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary, latents: Mapping[str, int]) -> Kinds:
        extents = vocabulary.extents
        names = [e.kind if e.kind != "code" else f"{e.modality}.{e.level}.{e.name}" for e in extents]
        none = [0] * len(latents)
        return cls(
            (*names, *(f"latent.{m}" for m in latents)),
            (*(e.start for e in extents), *none),
            (*(e.stop for e in extents), *none),
            (*[0] * len(extents), *latents.values()),
        )

    @property
    def size(self) -> int:
        return max(self.stops)

    def table(self) -> Tensor:
        """int64 (size,): the kind of each id."""
        table = torch.zeros(self.size, dtype=torch.int64)
        for kind, (start, stop) in enumerate(zip(self.starts, self.stops, strict=True)):
            table[start:stop] = kind
        return table


class Switch(nn.Module):
    """Hidden vectors to the probability of a kind and of a code within it. floors: of each kind, what it keeps at
    least; floor / K, but a kind that came later has its part of its parent's, so that no other changes."""

    floors: Tensor

    def __init__(
        self, width: int, kinds: Kinds, features: dict[tuple[int, int], np.ndarray] | None = None, floor: float = 0.01
    ) -> None:
        super().__init__()
        self.kinds, self.floor = kinds, floor
        self.register_buffer("floors", torch.full((len(kinds.names),), floor / len(kinds.names)))
        self.gate = nn.Linear(width, len(kinds.names))
        self.table = FeatureTable(kinds.size, width, features or {}, 0.02)
        self.bias = nn.Parameter(torch.zeros(kinds.size))

    def start_at(self, ids: Tensor, kinds: Tensor) -> None:
        """Starts at how often each id and each kind was met."""
        with torch.no_grad():
            self.gate.weight.zero_()
            self.gate.bias.copy_(torch.log((kinds + 0.5) / (kinds.sum() + 0.5 * len(kinds))))
            for start, stop in zip(self.kinds.starts, self.kinds.stops, strict=True):
                counts = ids[start:stop] + 0.5
                self.bias[start:stop] = torch.log(counts / counts.sum())

    def log_gate(self, hidden: Tensor, admitted: Tensor | None = None) -> Tensor:
        """(N, K) nats. admitted: bool (N, K), kinds that may come, one at least; the others have none of it."""
        p = F.softmax(self.gate(hidden).float(), -1)
        gate = torch.log((1 - self.floor) * p + self.floors)
        return gate if admitted is None else F.log_softmax(gate.masked_fill(~admitted, -torch.inf), -1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Checkpoints of before there were any: all alike.
        state_dict.setdefault(f"{prefix}floors", self.floors.clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def logits(self, hidden: Tensor, kind: int) -> tuple[Tensor, int]:
        """(N, codes) of a discrete kind, and the id of its first code."""
        start, stop = self.kinds.starts[kind], self.kinds.stops[kind]
        return F.linear(hidden, self.table()[start:stop], self.bias[start:stop]), start

    def log_prob(
        self, hidden: Tensor, ids: Tensor, kinds: Tensor, admitted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Nats (N,) of the kind, and of the id within it (0 for a latent). admitted: as of `log_gate`."""
        gate = self.log_gate(hidden, admitted).gather(1, kinds[:, None])[:, 0]
        code, table = torch.zeros_like(gate), self.table()
        for kind in kinds.unique().tolist():
            start, stop = self.kinds.starts[kind], self.kinds.stops[kind]
            if stop - start > 1:
                rows = torch.nonzero(kinds == kind)[:, 0]
                logits = F.linear(hidden[rows], table[start:stop], self.bias[start:stop]).float()
                code = code.index_put((rows,), -F.cross_entropy(logits, ids[rows] - start, reduction="none"))
        return gate, code

    def log_probs(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of every id (N, V), and of a latent of each kind (N, latents): together they sum to one. For looking at
        whole distributions; training asks `log_prob`, which computes the target's kind alone."""
        gate = self.log_gate(hidden)
        ids = gate.new_full((len(hidden), self.kinds.size), -torch.inf)
        for kind in range(len(self.kinds.names)):
            if self.kinds.stops[kind] > self.kinds.starts[kind]:
                logits, start = self.logits(hidden, kind)
                ids[:, start : start + logits.shape[1]] = F.log_softmax(logits.float(), -1) + gate[:, kind, None]
        return ids, gate[:, [kind for kind, dims in enumerate(self.kinds.dims) if dims]]

    @torch.no_grad()
    def sample(
        self, hidden: Tensor, generator: torch.Generator, temperature: float = 1.0, top_p: float = 1.0,
        allowed: Tensor | None = None, forced: int | None = None,
    ) -> Drawn:  # fmt: skip
        """A kind and an id within it for each hidden vector. temperature, top_p: of ids; kinds are drawn as the gate
        says. allowed: bool (K,) or (N, K), kinds that may be drawn. forced: the kind of all."""
        if temperature < 0 or not 0 < top_p <= 1:
            raise OptionError("sample temperature or top_p", "is out of range", "temperature >= 0, 0 < top_p <= 1")
        points = torch.rand(2, len(hidden), generator=generator, device=generator.device).to(hidden.device)
        gate = self.log_gate(hidden).exp()
        if forced is not None:
            kinds = torch.full((len(hidden),), forced, dtype=torch.int64, device=hidden.device)
        else:
            if allowed is not None:
                gate = gate * allowed.to(gate)
                if not bool((gate.sum(-1) > 0).all()):
                    raise OptionError("sample", "allows no kind at all", "allow at least one for each element")
            kinds = _inverse(gate, points[0])
        ids = torch.full_like(kinds, -1)
        for kind in kinds.unique().tolist():
            rows = torch.nonzero(kinds == kind)[:, 0]
            if self.kinds.stops[kind] > self.kinds.starts[kind]:
                logits, start = self.logits(hidden[rows], kind)
                ids[rows] = start + draw(logits, points[1, rows], temperature, top_p)
        return Drawn(kinds, ids)


def draw(logits: Tensor, points: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """int64 (N,): a column of (N, C) logits for each point in [0, 1). Temperature 0 takes the likeliest, the lowest of
    equals; top_p keeps the least set of likeliest columns that holds that much."""
    if temperature == 0:
        return logits.argmax(-1)
    p = F.softmax(logits.float() / temperature, -1)
    ordered, order = torch.sort(p, dim=-1, descending=True, stable=True)
    ordered = ordered * (torch.cumsum(ordered, -1) - ordered < top_p)
    return order.gather(-1, _inverse(ordered, points)[:, None])[:, 0]


def _inverse(weights: Tensor, points: Tensor) -> Tensor:
    """The column in which the running sum of (N, C) weights passes point * sum; never one of weight 0."""
    tops = torch.cumsum(weights.double(), -1)
    found = torch.searchsorted(tops, (points.double() * tops[:, -1])[:, None], right=True)[:, 0]
    last = weights.shape[1] - 1 - (weights.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(found, last)


def depth_marginal(
    log_go: Tensor, log_code: Tensor, log_stop: Tensor, log_observed: Tensor, rate_weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log sum_n [prod_{m <= n} go_m code_m] stop_n observed_n: nats (N,), and the posterior of n, (N, M + 1).

    The sum over s of p_PAN for a state that stops after n of M nested levels (n = 0..M), exact given the codes that the
    encoder found: prefixes are nested, so one teacher-forced pass knows every term. log_go, log_code: (N, M), that
    level m + 1 is entered, and its code; log_stop: (N, M + 1), that the state ends after n levels (0 after the last, if
    nothing else can follow); log_observed: (N, M + 1), the observation decoded from n levels, a density or probability
    in one unit for all n. rate_weight (lambda): other than 1 trades rate for distortion; then it is no likelihood.
    """
    n, levels = log_go.shape
    assert log_code.shape == (n, levels), (log_code.shape, log_go.shape)
    assert log_stop.shape == log_observed.shape == (n, levels + 1), (log_stop.shape, log_observed.shape, log_go.shape)
    entered = F.pad(torch.cumsum(log_go + log_code, -1), (1, 0))
    terms = rate_weight * (entered + log_stop) + log_observed
    total = torch.logsumexp(terms, -1)
    # Where no depth is possible at all the total is -inf and there is no posterior: zeros, not NaN.
    responsibilities = torch.exp(terms - total.masked_fill(torch.isneginf(total), 0)[:, None])
    return total, responsibilities


@dataclass(frozen=True)
class GateReport:
    """By kind: usage (share of elements that were of it), expected (the gate's mean). entropy_bits: of the gate, mean;
    cross_entropy_bits: what the kinds cost; the two agree if the gate is calibrated. calibration_error: ECE, over all
    kinds and bins, the share-weighted mean of |mean probability - frequency|; calibration_95: its interval over
    resampled windows, where they are told apart. elements: how many."""

    names: tuple[str, ...]
    usage: tuple[float, ...]
    expected: tuple[float, ...]
    entropy_bits: float
    cross_entropy_bits: float
    calibration_error: float
    elements: int
    calibration_95: tuple[float, float] | None = None


def gate_report(
    names: tuple[str, ...], log_gate: Tensor, kinds: Tensor, windows: Tensor | None = None, bins: int = 20
) -> GateReport:
    """log_gate: (N, K) nats. kinds: int (N,), what came. windows: int (N,), the window that each is of. The calibration
    error is classwise and takes every probability, not the largest alone: bins of equal width, all kinds counted
    together as N K cases, times K / 2 so that it is the total variation between what the gate says and what came, on
    the mean over elements. Its interval is the pivotal one: errors of resampled windows are larger than the error
    itself, since noise is an error too, and that is taken off."""
    p = log_gate.detach().double().exp().cpu()
    kinds = kinds.cpu()
    count, k = p.shape
    if not count:
        raise OptionError("gate report", "has no elements", "at least one")
    came = F.one_hot(kinds, k).double()
    bin_of = (p * bins).long().clamp_max(bins - 1) + bins * torch.arange(k)
    of = torch.zeros(count, dtype=torch.long) if windows is None else windows.cpu().long()
    each = torch.zeros(int(of.max()) + 1, k * bins, dtype=torch.float64)
    each.index_put_((of[:, None].expand(-1, k), bin_of), p - came, accumulate=True)
    error, interval = float(each.sum(0).abs().sum() / (2 * count)), None
    if len(each) > 1:
        counts = torch.bincount(of).numpy()
        drawn = np.random.default_rng(0).multinomial(len(each), np.full(len(each), 1 / len(each)), 1000)
        errors = np.abs(drawn @ each.numpy()).sum(1) / (2 * np.maximum(drawn @ counts, 1))
        low, high = np.quantile(errors, (0.025, 0.975))
        interval = (max(0.0, 2 * error - float(high)), max(0.0, 2 * error - float(low)))
    cost = -log_gate.detach().double().cpu().gather(1, kinds[:, None]).mean() / np.log(2)
    return GateReport(
        names,
        tuple(came.mean(0).tolist()),
        tuple(p.mean(0).tolist()),
        float(-(torch.xlogy(p, p)).sum(-1).mean() / np.log(2)),
        float(cost),
        error,
        count,
        interval,
    )
