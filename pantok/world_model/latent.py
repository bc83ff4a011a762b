"""The JEPA family, on the same data and budget as the generative loss: predict the code of the next observation.

What is unusual: these are rivals, made as strong as they are published, not straw men. `plain` minimises
|f(h(o), a) - h(o')|^2 in both f and h, of which a constant h is a global minimum (Proposition 1 of "Critiques of World
Models"); the others keep it from collapsing: `ema` takes the target from a slow copy of h without gradient (BYOL,
I-JEPA), `vicreg` holds variances up and covariances down (Bardes, Ponce, LeCun 2022), `sigreg` holds the codes to an
isotropic Gaussian by the Epps-Pulley test of random projections (LeJEPA, Balestriero and LeCun 2025; LeWorldModel
2026). `generative` is the paper's way with the same h and f: |g(f(h(o), a)) - o'|^2, with a linear decoder g.

    head = LatentHead(width=0, observed=space.width, given=actions, config=LatentConfig(kind="sigreg"))
    loss = head.loss(hidden, now, before, given, after)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.errors import OptionError

KINDS = ("plain", "ema", "vicreg", "sigreg", "generative")


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """kind: see KINDS. dims: of a code. width: of the hidden layers of h and f. ema: share of the slow copy that a step
    keeps. variance, covariance: weights of VICReg beside its invariance of `invariance`. sigreg: share of the
    regulariser in the loss, as LeWorldModel's 0.09; projections, knots: of its test."""

    kind: str = "plain"
    dims: int = 32
    width: int = 256
    ema: float = 0.99
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    sigreg: float = 0.09
    projections: int = 256
    knots: int = 17

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"objective {self.kind}", "is not there", f"known: {', '.join(KINDS)}")
        if not 0 <= self.ema < 1 or not 0 <= self.sigreg < 1:
            raise OptionError("objective ema or sigreg", "is no share", "0 to below 1")
        for name in ("dims", "width", "projections", "knots"):
            if getattr(self, name) < 2:
                raise OptionError(f"objective {name}", f"{getattr(self, name)} is too small", "at least 2")


class LatentHead(nn.Module):
    """h, f, and for `generative` g. width: of a backbone's hidden vector that f is given too, 0 for none. observed:
    dimensions of an observation; given: of what f is told besides (actions)."""

    def __init__(self, width: int, observed: int, given: int, config: LatentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Linear(observed, config.width), nn.SiLU(), nn.Linear(config.width, config.width), nn.SiLU(),
            nn.Linear(config.width, config.dims),
        )  # fmt: skip
        self.predictor = nn.Sequential(
            nn.Linear(2 * config.dims + given + width, config.width), nn.SiLU(),
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.dims),
        )  # fmt: skip
        self.slow = copy.deepcopy(self.encoder).requires_grad_(False) if config.kind == "ema" else None
        self.decoder = nn.Linear(config.dims, observed) if config.kind == "generative" else None

    def encode(self, observation: Tensor) -> Tensor:
        """(N, dims): h(o)."""
        found: Tensor = self.encoder(observation)
        return found

    def predict(self, hidden: Tensor | None, now: Tensor, before: Tensor, given: Tensor) -> Tensor:
        """(N, dims): f. hidden: (N, width) or None; now, before: (N, observed); given: (N, given)."""
        parts = [self.encode(now), self.encode(before), given]
        found: Tensor = self.predictor(torch.cat(parts if hidden is None else [*parts, hidden], 1))
        return found

    def loss(
        self, hidden: Tensor | None, now: Tensor, before: Tensor, given: Tensor, after: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """The mean over N rows. generator: of SIGReg's projections, new ones in each step."""
        c = self.config
        predicted = self.predict(hidden, now, before, given)
        if self.decoder is not None:
            return F.mse_loss(self.decoder(predicted), after)
        if self.slow is not None:
            with torch.no_grad():
                target = self.slow(after)
            return F.mse_loss(predicted, target)
        target = self.encode(after)
        distance = F.mse_loss(predicted, target)
        if c.kind == "vicreg":
            pairs = [vicreg(z) for z in (predicted, target)]
            variance, covariance = (torch.stack(x).mean() for x in zip(*pairs, strict=True))
            return c.invariance * distance + c.variance * variance + c.covariance * covariance
        if c.kind == "sigreg":
            codes = torch.cat([target, self.encode(now)])
            return (1 - c.sigreg) * distance + c.sigreg * sigreg(codes, c.projections, c.knots, generator)
        return distance

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after each step of the optimiser: the slow copy follows."""
        if self.slow is not None:
            for slow, fast in zip(self.slow.parameters(), self.encoder.parameters(), strict=True):
                slow.lerp_(fast, 1 - self.config.ema)


def vicreg(codes: Tensor) -> tuple[Tensor, Tensor]:
    """(variance, covariance) of (N, d): the mean hinge max(0, 1 - std) and the sum of squared off-diagonal covariances
    over d (equations 1 to 4 of VICReg)."""
    centred = codes - codes.mean(0)
    std = torch.sqrt(centred.square().sum(0) / (len(codes) - 1) + 1e-4)
    covariance = centred.T @ centred / (len(codes) - 1)
    off = covariance - torch.diag(torch.diagonal(covariance))
    return F.relu(1 - std).mean(), off.square().sum() / codes.shape[1]


def sigreg(codes: Tensor, projections: int = 256, knots: int = 17, generator: torch.Generator | None = None) -> Tensor:
    """How far (N, d) is from an isotropic standard Gaussian: the mean over random directions u of the Epps-Pulley
    statistic N int |phi_N(t) - exp(-t^2/2)|^2 exp(-t^2/2) dt, with phi_N the empirical characteristic function of the
    codes along u; over [-3, 3], where all but a thousandth of the weight is, by the trapezoid rule on half of it, the
    integrand being even. About 1 for Gaussian codes whatever N; for others it grows with N.
    """
    directions = torch.randn(codes.shape[1], projections, generator=generator, device=codes.device, dtype=codes.dtype)
    along = codes @ F.normalize(directions, dim=0)
    t = torch.linspace(0, 3, knots, device=codes.device, dtype=codes.dtype)
    gauss = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * 3 / (knots - 1))
    weights[[0, -1]] /= 2
    angles = along[..., None] * t
    gap = (angles.cos().mean(0) - gauss).square() + angles.sin().mean(0).square()
    return len(codes) * (gap @ (weights * gauss)).mean()
