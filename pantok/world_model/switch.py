"""The learned switch: which vocabulary speaks next, as a probability, and one softmax for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.vocabulary import Vocabulary
from pantok.world_model.features import FeatureTable


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
    """Hidden vectors to the probability of a kind and of a code within it; every kind keeps at least floor / K."""

    def __init__(
        self, width: int, kinds: Kinds, features: dict[tuple[int, int], np.ndarray] | None = None, floor: float = 0.01
    ) -> None:
        super().__init__()
        self.kinds, self.floor = kinds, floor
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

    def log_gate(self, hidden: Tensor) -> Tensor:
        """(N, K) nats."""
        p = F.softmax(self.gate(hidden).float(), -1)
        return torch.log((1 - self.floor) * p + self.floor / p.shape[-1])

    def logits(self, hidden: Tensor, kind: int) -> tuple[Tensor, int]:
        """(N, codes) of a discrete kind, and the id of its first code."""
        start, stop = self.kinds.starts[kind], self.kinds.stops[kind]
        return F.linear(hidden, self.table()[start:stop], self.bias[start:stop]), start

    def log_prob(self, hidden: Tensor, ids: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """Nats (N,) of the kind, and of the id within it (0 for a latent)."""
        gate = self.log_gate(hidden).gather(1, kinds[:, None])[:, 0]
        code, table = torch.zeros_like(gate), self.table()
        for kind in kinds.unique().tolist():
            start, stop = self.kinds.starts[kind], self.kinds.stops[kind]
            if stop - start > 1:
                rows = torch.nonzero(kinds == kind)[:, 0]
                logits = F.linear(hidden[rows], table[start:stop], self.bias[start:stop]).float()
                code = code.index_put((rows,), -F.cross_entropy(logits, ids[rows] - start, reduction="none"))
        return gate, code
