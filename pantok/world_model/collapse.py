"""Has a representation collapsed? And what a generative loss says of a latent one.

**Theorem 2, corrected.** "Critiques of World Models" claims that, for an encoder h, a decoder g and a predictor f,
L_latent <= L_gen + eps, with

    L_latent = E |s' - h(o')|      s' = f(h(o), a), what is predicted
    L_gen    = E |g(s') - o'|      the generative loss, equation 8
    eps      = E |h(g(s')) - s'|   how far encoding undoes decoding

As printed this is false: h(o) = 2o, g(s) = s/2 has eps = 0 and L_latent = 2 L_gen. What holds, for any norm in which h
is Lipschitz, is

    L_latent <= Lip(h) L_gen + eps

since |s' - h(o')| <= |s' - h(g(s'))| + |h(g(s')) - h(o')|, and the second is at most Lip(h) |g(s') - o'|. So a small
generative loss makes the latent one small, in the units of h; the converse fails: a constant h has L_latent = 0
whatever is predicted (Proposition 1 there). `latent_bound` is the right hand side, `lipschitz` a bound of Lip(h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from pantok.world_model.inputs import Ends
    from pantok.world_model.model import WorldModel

_SLOPES: dict[type[nn.Module], float] = {
    nn.ReLU: 1.0, nn.Tanh: 1.0, nn.Identity: 1.0, nn.SiLU: 1.0999, nn.GELU: 1.1290, nn.Dropout: 1.0,
}  # fmt: skip
"""The steepest slope of each, rounded up."""


@dataclass(frozen=True)
class Collapse:
    """effective_rank: exp of the entropy of the normalised singular values of centred latents (Roy and Vetterli, 2007);
    0 where nothing varies, at most their dimensions; it does not see size. least_std: the least standard deviation of
    a dimension, which does. probe_r2: share of the observations' variance that a linear map of the latents finds, on
    rows that it was not fitted on; below 0 it is worse than the mean."""

    effective_rank: float
    least_std: float
    probe_r2: float


def measure_collapse(
    latents: np.ndarray, observations: np.ndarray, fitted_on: tuple[np.ndarray, np.ndarray] | None = None
) -> Collapse:
    """latents: (N, d); observations: (N, D), of the same steps. fitted_on: latents and observations of other episodes,
    which the probe is fitted on; None takes the first 70% of the rows for that, and the rest for the test.

    >>> rng = np.random.default_rng(0)
    >>> seen = rng.normal(size=(400, 3))
    >>> found = measure_collapse(seen @ rng.normal(size=(3, 8)), seen)
    >>> round(found.probe_r2, 3), found.effective_rank < 3.01
    (1.0, True)
    >>> measure_collapse(np.ones((400, 8)), seen).effective_rank
    0.0
    """
    z, o = np.asarray(latents, np.float64), np.asarray(observations, np.float64)
    assert len(z) == len(o) and len(z) >= 4, (z.shape, o.shape)
    split = round(0.7 * len(z))
    if fitted_on is not None:
        split = len(fitted_on[0])
        found = _probe(np.concatenate([fitted_on[0], z]), np.concatenate([fitted_on[1], o]), split)
    else:
        found = _probe(z, o, split)
    return Collapse(effective_rank(z), float(z.std(0).min()), found)


@torch.no_grad()
def collapse_of(model: WorldModel, ends: Ends, hidden: torch.Tensor) -> dict[str, float]:
    """Of a model of the JEPA family, on states that end and h (N, H) after each: its codes of the observations now,
    and what a linear map of the codes that it predicts finds of the next ones. Empty for less than four states."""
    if model.latent is None or len(ends) < 4:
        return {}
    head, device = model.latent, next(model.parameters()).device
    now, before, given, after = model.observed(ends.to(device))
    codes, guess = head.encode(now), head.predict(hidden.to(device), now, before, given)
    found, ahead = (measure_collapse(a.cpu().numpy(), b.cpu().numpy()) for a, b in ((codes, now), (guess, after)))
    return {
        "effective_rank": found.effective_rank, "of": float(head.config.dims), "least_std": found.least_std,
        "probe_r2_now": found.probe_r2, "probe_r2_next": ahead.probe_r2,
    }  # fmt: skip


def effective_rank(latents: np.ndarray) -> float:
    """Of (N, d) latents, centred: exp of the entropy of their normalised singular values; 0 where nothing varies."""
    z = np.asarray(latents, np.float64)
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    if values[0] <= 1e-12 * max(1.0, float(np.abs(z).max())) * np.sqrt(len(z)):
        return 0.0
    share = values / values.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _probe(z: np.ndarray, o: np.ndarray, split: int) -> float:
    """R2 on the rows from `split` on of a ridge fitted on those before."""
    mean, spread = z[:split].mean(0), z[:split].std(0)
    # What varies less than float32 resolves says nothing.
    alive = spread > 1e-6 * np.maximum(1.0, np.abs(mean))
    x = (z[:, alive] - mean[alive]) / spread[alive]
    centre = o[:split].mean(0)
    gram = x[:split].T @ x[:split] + 1e-6 * split * np.eye(x.shape[1])
    found = x[split:] @ np.linalg.solve(gram, x[:split].T @ (o[:split] - centre)) + centre
    variance = ((o[split:] - o[split:].mean(0)) ** 2).sum()
    return float(1 - ((o[split:] - found) ** 2).sum() / max(float(variance), 1e-30))


def lipschitz(encoder: nn.Module) -> float:
    """An upper bound of the Lipschitz constant (Euclidean) of linear layers and activations one after another: the
    product of their spectral norms and steepest slopes. Raises TypeError for other layers."""
    bound = 1.0
    for layer in encoder if isinstance(encoder, nn.Sequential) else [encoder]:
        if isinstance(layer, nn.Sequential):
            bound *= lipschitz(layer)
        elif isinstance(layer, nn.Linear):
            bound *= float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2))
        elif type(layer) in _SLOPES:
            bound *= _SLOPES[type(layer)]
        else:
            raise TypeError(f"no bound is known for {type(layer).__name__}")
    return bound


def latent_bound(generative: float, lipschitz_h: float, inconsistency: float) -> float:
    """What L_latent cannot exceed: Lip(h) L_gen + eps; all three are means of norms, not of their squares."""
    return lipschitz_h * generative + inconsistency
