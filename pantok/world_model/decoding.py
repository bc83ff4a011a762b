"""Equation 8 of "Critiques of World Models" through the tokenizers' own decoders: disc(g(f(h(o), a)), o').

What is unusual: nothing has to be decoded. Decoders of pantok add up what codes say, so given the true codes before it
a code's part of the squared error of the next observation is that of its own vector alone. g of a distribution over
codes is their expected vector (the expected embedding), and the loss of an element is |sum_v p(v) e_v - e_true|^2, in
units of the spread of its level. It is differentiable through p; the codebooks stay as they are.

For a continuous latent the same loss of the one-step clean estimate x1 = x_t + (1 - t) v is (1 - t)^2 times the loss
of flow matching, which is there already.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.vocabulary import Vocabulary
from pantok.world_model.features import shapes_of
from pantok.world_model.switch import Switch


class ExpectedDecode(nn.Module):
    """The codes' vectors by kind, (codes, V), of mean 0 and mean squared norm 1; kinds without any cost nothing."""

    def __init__(self, vocabulary: Vocabulary, switch: Switch) -> None:
        super().__init__()
        self._kinds = []
        for kind, start in enumerate(switch.kinds.starts):
            shapes = shapes_of(vocabulary, start) if switch.kinds.stops[kind] > start else None
            if shapes is not None and len(shapes) > 1:
                shapes = shapes - shapes.mean(0)
                self.register_buffer(f"shapes_{kind}", shapes / shapes.square().sum(1).mean().sqrt(), persistent=False)
                self._kinds.append(kind)

    def losses(self, switch: Switch, hidden: Tensor, ids: Tensor, kinds: Tensor) -> Tensor:
        """(N,): of each element; nought where its kind has no vectors. hidden (N, H), ids, kinds int64 (N,)."""
        found = hidden.new_zeros(len(ids), dtype=torch.float32)
        for kind in self._kinds:
            rows = torch.nonzero(kinds == kind)[:, 0]
            if len(rows):
                logits, first = switch.logits(hidden[rows], kind)
                shapes: Tensor = getattr(self, f"shapes_{kind}")
                expected = F.softmax(logits.float(), -1) @ shapes
                found = found.index_put((rows,), (expected - shapes[ids[rows] - first]).square().sum(1))
        return found
