"""Continuous latents from a hidden vector: a density that can be sampled, and said in bits.

What is unusual: the flow starts at a Gaussian that is learned beside it, not at the standard one. A hidden vector h
gives mean and deviation; the flow-matching network (a per-token MLP, as in MAR, Li et al. 2024) is about the
standardised residual, and its last layer starts at zero: a head that has learned nothing of the flow *is* the Gaussian
head, and bimodal, skewed or bounded latents are what the flow adds. And its likelihood is exact: the instantaneous
change of variables (Chen et al. 2018) with the whole trace, not an estimate of it, which at 32 dimensions is cheap.
The flow-matching loss itself is no likelihood; it is never to be added to one.

    x_t = (1 - t) x_0 + t x_1,   v(x_t, t, h) -> x_1 - x_0      (Lipman et al. 2023), t logit-normal (Esser et al. 2024)
    log p(x_1 | h) = log N(x_0) - int_0^1 tr dv/dx dt

Shapes: N tokens, D dimensions of a latent, H width of a hidden vector, R draws of noise for each token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.errors import OptionError

LARGEST_DIMS = 32
HEADS = ("flow", "gaussian")
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
Noise = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """head: `flow`, or `gaussian` alone. width, blocks: of the MLP. draws: of noise and time for each token.
    time_spread: standard deviation of logit(t). floor: least deviation of the Gaussian, in units of the data's: what
    keeps a density from growing without bound. from_gaussian: the flow is about the residual of a learned Gaussian;
    without it about the values themselves, as published."""

    head: str = "flow"
    width: int = 128
    blocks: int = 2
    draws: int = 4
    time_spread: float = 1.0
    floor: float = 0.01
    from_gaussian: bool = True

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise OptionError(f"latent head {self.head}", "is not there", f"known: {', '.join(HEADS)}")
        for name, least in (("width", 8), ("blocks", 1), ("draws", 1)):
            if getattr(self, name) < least:
                raise OptionError(f"latent {name}", f"{getattr(self, name)} is too small", f"at least {least}")
        if not 0 < self.floor < 1 or not self.time_spread > 0:
            raise OptionError("latent floor or time_spread", "is out of range", "0 < floor < 1, time_spread > 0")


class _Scaled(nn.Module):
    """What both heads share: values in units of the data, so that a network sees about unit variance."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        if not 1 <= dims <= LARGEST_DIMS:
            raise OptionError("latent", f"{dims} dimensions a token", f"1 to {LARGEST_DIMS}; use several tokens")
        self.dims = dims
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(dims))

    @torch.no_grad()
    def fit_scale(self, values: Tensor) -> None:
        """Mean and deviation from (M, D) values, a sample of the training data. Once, before training."""
        rows = values.double()
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0, correction=0)
        # A dimension that never moves has no scale of its own: one it shares with the others, or one.
        spare = float(deviation.max()) * 1e-3 or 1.0
        self.scale.copy_(torch.where(deviation > spare, deviation, torch.full_like(deviation, spare)))

    def normalised(self, values: Tensor) -> Tensor:
        """(..., D) in units of the data -> the same, mean 0 and deviation about 1."""
        return (values - self.mean) / self.scale

    def _in_units(self, x: Tensor) -> Tensor:
        return x * self.scale + self.mean


class GaussianHead(_Scaled):
    """Independent Gaussians; mean and deviation are linear in h. Its loss is a likelihood (in nats a dimension of the
    normalised values). Starts at the standard Gaussian whatever h is."""

    def __init__(self, width: int, dims: int, config: FlowConfig | None = None) -> None:
        super().__init__(dims)
        self.config = config or FlowConfig(head="gaussian")
        self.moments = nn.Linear(width, 2 * dims)
        nn.init.zeros_(self.moments.weight)
        nn.init.zeros_(self.moments.bias)

    def moments_of(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (N, D), of normalised values; no deviation is below the floor."""
        mean, raw = self.moments(hidden.float()).chunk(2, -1)
        floor = self.config.floor
        # floor + (1 - floor) softplus(raw + c), with c such that raw = 0 is a deviation of one.
        return mean, torch.log(floor + (1 - floor) * F.softplus(raw + math.log(math.e - 1)))

    def noise(self, count: int, generator: torch.Generator) -> Noise:
        """None is needed: empty tensors, so that callers treat both heads alike."""
        return torch.empty(count, 0, self.dims), torch.empty(count, 0)

    def loss(self, hidden: Tensor, values: Tensor, noise: Noise | torch.Generator | None = None) -> Tensor:
        """float32 (N,): nats a dimension. noise: not used."""
        with torch.autocast(hidden.device.type, enabled=False):
            mean, log_deviation = self.moments_of(hidden)
            return _gaussian_nats(self.normalised(values.float()), mean, log_deviation).mean(-1)

    @torch.no_grad()
    def sample(self, hidden: Tensor, steps: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(N, D) in units of the data. steps: not used. temperature scales the deviation; 0 gives the mean."""
        mean, log_deviation = self.moments_of(hidden)
        return self._in_units(mean + temperature * log_deviation.exp() * _normal(mean, generator))

    def log_density(self, hidden: Tensor, values: Tensor, steps: int = 1) -> Tensor:
        """float32 (N,): nats, of a density over values in units of the data. Differentiable. steps: not used."""
        with torch.autocast(hidden.device.type, enabled=False):
            mean, log_deviation = self.moments_of(hidden)
            nats = _gaussian_nats(self.normalised(values.float()), mean, log_deviation).sum(-1)
        return -nats - self.scale.log().sum()


class _Block(nn.Module):
    """x + gate * MLP(scale * LN(x) + shift), the three from the condition (AdaLN-zero, Peebles and Xie 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 3 * width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        inner = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        return x + gate * self.down(F.silu(self.up(inner)))

    def with_change(self, x: Tensor, dx: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its derivative along each of the directions dx (D, N, width)."""
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        normed, change = _normed_with_change(x, dx)
        u, du = self.up(normed * (1 + scale) + shift), F.linear(change * (1 + scale), self.up.weight)
        return x + gate * self.down(F.silu(u)), dx + gate * F.linear(_silu_slope(u) * du, self.down.weight)


def _normed_with_change(x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Layer norm of x (N, width) and its derivative along each of dx (D, N, width)."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    normed = centred * inverse
    return normed, inverse * (dx - dx.mean(-1, keepdim=True) - normed * (normed * dx).mean(-1, keepdim=True))


def _silu_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


class Velocity(nn.Module):
    """v(x, t, h): (N, D) -> (N, D). Zero everywhere before training."""

    frequencies: Tensor

    def __init__(self, width: int, dims: int, config: FlowConfig) -> None:
        super().__init__()
        inner = config.width
        self.value_in, self.hidden_in = nn.Linear(dims, inner), nn.Linear(width, inner)
        # Low frequencies: t is in [0, 1] and v is smooth in it; high ones cost the integrator steps.
        self.register_buffer("frequencies", math.pi * torch.arange(1, 9).float() / 2, persistent=False)
        self.time_in = nn.Sequential(nn.Linear(16, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.blocks = nn.ModuleList(_Block(inner) for _ in range(config.blocks))
        self.modulation = nn.Linear(inner, 2 * inner)
        self.out = nn.Linear(inner, dims)
        for layer in (self.modulation, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """(N, width): the part of the condition that does not change along a trajectory."""
        found: Tensor = self.hidden_in(hidden)
        return found

    def _condition(self, t: Tensor, given: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies
        return F.silu(given + self.time_in(torch.cat([angle.sin(), angle.cos()], -1)))

    def forward(self, x: Tensor, t: Tensor, given: Tensor) -> Tensor:
        """t: (N,) or (1,) in [0, 1]. given: from `of_hidden`."""
        condition = self._condition(t, given)
        y = self.value_in(x)
        for block in self.blocks:
            y = block(y, condition)
        shift, scale = self.modulation(condition).chunk(2, -1)
        found: Tensor = self.out(F.silu(F.layer_norm(y, y.shape[-1:]) * (1 + scale) + shift))
        return found

    def with_trace(self, x: Tensor, t: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """v (N, D) and tr dv/dx (N,), by D forward derivatives at once, carried through by hand: what torch.func
        offers takes seconds to load and runs the network D times over."""
        condition = self._condition(t, given)
        y, dy = self.value_in(x), self.value_in.weight.T[:, None]
        for block in self.blocks:
            y, dy = block.with_change(y, dy, condition)  # type: ignore[operator]
        shift, scale = self.modulation(condition).chunk(2, -1)
        normed, change = _normed_with_change(y, dy)
        last = normed * (1 + scale) + shift
        diagonal = (_silu_slope(last) * change * (1 + scale) * self.out.weight[:, None]).sum(-1)
        return self.out(F.silu(last)), diagonal.sum(0)


class FlowHead(_Scaled):
    """A conditional flow for one continuous stream.

    >>> head = FlowHead(width=8, dims=2)
    >>> hidden, values = torch.zeros(3, 8), torch.zeros(3, 2)
    >>> [round(x, 4) for x in head.log_density(hidden, values, steps=2).tolist()]  # untrained: a standard Gaussian
    [-1.8379, -1.8379, -1.8379]
    """

    def __init__(self, width: int, dims: int, config: FlowConfig | None = None) -> None:
        super().__init__(dims)
        self.config = config or FlowConfig()
        self.velocity = Velocity(width, dims, self.config)
        self.base = GaussianHead(width, dims, self.config) if self.config.from_gaussian else None

    def noise(self, count: int, generator: torch.Generator) -> Noise:
        """x_0 float32 (count, R, D) and t (count, R), on the generator's device."""
        draws, device = self.config.draws, generator.device
        start = torch.randn(count, draws, self.dims, generator=generator, device=device)
        time = torch.sigmoid(self.config.time_spread * torch.randn(count, draws, generator=generator, device=device))
        return start, time

    def loss(self, hidden: Tensor, values: Tensor, noise: Noise | torch.Generator) -> Tensor:
        """float32 (N,): the flow-matching loss, mean over draws and dimensions, plus (from_gaussian) the Gaussian's
        nats a dimension. Not a likelihood. noise: as `noise` gives it, or a generator to draw it from."""
        start, time = self.noise(len(values), noise) if isinstance(noise, torch.Generator) else noise
        with torch.autocast(hidden.device.type, enabled=False):
            hidden, end = hidden.float(), self.normalised(values.float())
            first = end.new_zeros(len(end))
            if self.base is not None:
                mean, log_deviation = self.base.moments_of(hidden)
                first = _gaussian_nats(end, mean, log_deviation).mean(-1)
                # The flow follows the Gaussian; it does not move it: a wide one would make its own loss small.
                end = ((end - mean) * torch.exp(-log_deviation)).detach()
            start, time = start.to(end), time.to(end)[..., None]
            ends = end[:, None].expand_as(start)
            at = torch.lerp(start, ends, time)
            given = self.velocity.of_hidden(hidden)[:, None].expand(-1, start.shape[1], -1)
            found = self.velocity(at.flatten(0, 1), time.flatten(), given.flatten(0, 1)).view_as(at)
            return (found - (ends - start)).square().mean((1, 2)) + first

    @torch.no_grad()
    def sample(self, hidden: Tensor, steps: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(N, D) in units of the data, by `steps` steps of Heun (two evaluations each). temperature scales the noise
        that the flow starts from; 0 gives the image of its mode."""
        _positive(steps)
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            given = self.velocity.of_hidden(hidden)
            x = temperature * _normal(hidden.new_empty(len(hidden), self.dims), generator)
            for step in range(steps):
                t = hidden.new_full((1,), step / steps)
                first = self.velocity(x, t, given)
                second = self.velocity(x + first / steps, t + 1 / steps, given)
                x = x + (first + second) / (2 * steps)
            if self.base is not None:
                mean, log_deviation = self.base.moments_of(hidden)
                x = mean + log_deviation.exp() * x
        return self._in_units(x)

    @torch.no_grad()
    def log_density(self, hidden: Tensor, values: Tensor, steps: int = 16, rows: int = 16384) -> Tensor:
        """float32 (N,): nats, of a density over values in units of the data. The trace is exact; the integral is
        Runge-Kutta's of order four over `steps` steps. rows: times D that are differentiated at once (memory)."""
        _positive(steps)
        at_once = max(1, rows // self.dims)
        parts = zip(hidden.split(at_once), values.split(at_once), strict=True)
        found = [self._log_density(h, v, steps) for h, v in parts]
        return torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)

    def _log_density(self, hidden: Tensor, values: Tensor, steps: int) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            hidden, x = hidden.float(), self.normalised(values.float())
            total = x.new_zeros(len(x)) - self.scale.log().sum()
            if self.base is not None:
                mean, log_deviation = self.base.moments_of(hidden)
                x = (x - mean) * torch.exp(-log_deviation)
                total = total - log_deviation.sum(-1)
            given = self.velocity.of_hidden(hidden)
            h = 1 / steps
            for step in range(steps):  # from the value at t = 1 back to its noise at t = 0
                t = x.new_full((1,), 1 - step * h)
                v1, d1 = self.velocity.with_trace(x, t, given)
                v2, d2 = self.velocity.with_trace(x - h / 2 * v1, t - h / 2, given)
                v3, d3 = self.velocity.with_trace(x - h / 2 * v2, t - h / 2, given)
                v4, d4 = self.velocity.with_trace(x - h * v3, t - h, given)
                x = x - h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
                total = total - h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
            return total - (0.5 * x.square() + _HALF_LOG_TAU).sum(-1)


def make_head(width: int, dims: int, config: FlowConfig | None = None) -> FlowHead | GaussianHead:
    """The head that the configuration names."""
    config = config or FlowConfig()
    return FlowHead(width, dims, config) if config.head == "flow" else GaussianHead(width, dims, config)


def bits(log_density: Tensor, step: float, dims: int) -> Tensor:
    """-log2 p - D log2 step: what it costs to say a value to `step`, in the units of the data. Exact in the limit of
    small steps. For values that are themselves multiples of `step`, take the density at `dithered` values: then it
    is a bound on the bits of the discrete value (Theis et al. 2016), however sharp the density.

    >>> bits(torch.tensor([0.0]), step=0.25, dims=3)
    tensor([6.])
    """
    if not step > 0:
        raise OptionError("quantisation step", f"{step} is no step", "a positive number, in units of the values")
    return -log_density / math.log(2) - dims * math.log2(step)


def dithered(values: Tensor, step: float, generator: torch.Generator) -> Tensor:
    """values plus noise, uniform over one step."""
    noise = torch.rand(values.shape, generator=generator, device=generator.device).to(values) - 0.5
    return values + step * noise


def _gaussian_nats(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    return 0.5 * ((x - mean) * torch.exp(-log_deviation)).square() + log_deviation + _HALF_LOG_TAU


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)


def _positive(steps: int) -> None:
    if steps < 1:
        raise OptionError("flow steps", f"{steps} is too few", "at least 1")
