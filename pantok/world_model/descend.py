"""A short descent for heads that are fitted by themselves: AdamW, a rising then falling rate, rows drawn by seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


def descend(
    module: nn.Module, loss: Callable[[np.ndarray], Tensor], rows: np.ndarray, *, steps: int, batch: int = 256,
    learning_rate: float = 1e-3, weight_decay: float = 1e-2, seed: int = 0, after: Callable[[], None] | None = None,
    report: Callable[[int, float], None] | None = None,
) -> nn.Module:  # fmt: skip
    """Lowers `loss(rows of a batch)` in `steps` steps. rows: int64, drawn without replacement, over and over, in an
    order that is a function of the seed. after: called after each step; report: with each step's loss. Returns the
    module, in eval mode."""
    rng = np.random.default_rng(seed)
    kept = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(kept, lr=learning_rate, weight_decay=weight_decay)
    warm = max(1, steps // 20)
    module.train()
    order = np.zeros(0, np.int64)
    for step in range(steps):
        if len(order) < min(batch, len(rows)):
            order = rng.permutation(rows)
        mine, order = order[:batch], order[batch:]
        # Up for a twentieth, then down to nought along a cosine.
        share = (step + 1) / warm if step < warm else 0.5 * (1 + np.cos(np.pi * (step - warm) / max(1, steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * float(share)
        found = loss(mine)
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(kept, 1.0)
        optimizer.step()
        if after is not None:
            after()
        if report is not None:
            report(step, float(found.detach()))
    return module.eval()
