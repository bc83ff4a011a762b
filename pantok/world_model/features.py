"""What the codes of a learned codebook look like, as numbers that embeddings and predictions start from.

What is unusual: the tokenizers' codebooks are known to the model. A code's embedding is a row of its own plus a linear
map of its codebook vector, and so is its row of the output; codes that look alike share what is learned of them,
which counts where a thousand codes meet ten minutes of film.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pantok.evolve.codebooks import vectors
from pantok.vocabulary import Vocabulary


def code_features(vocabulary: Vocabulary, dims: int) -> dict[tuple[int, int], np.ndarray]:
    """float32 (stop - start, dims) for each extent [start, stop) whose level has a codebook: its principal components,
    the largest first, of mean 0 and mean square 1 together. They are those of the codes that the level was born with:
    what a code grown later is told by, and no code's change by it."""
    born = {(e.modality, e.level): e.length for e in vocabulary.extents if e.kind == "code" and e.first == 0}
    found = {}
    for extent in vocabulary.extents:
        if extent.kind != "code" or extent.modality not in vocabulary.states:
            continue
        state = vocabulary.states[extent.modality]
        rows = vectors(state, extent.level) if extent.level < len(state.levels) else None
        first = born[extent.modality, extent.level]
        if rows is None or first < 2:
            continue
        centred = rows - rows[:first].mean(0)
        _, _, axes = np.linalg.svd(centred[:first], full_matrices=False)
        parts = centred @ axes[:dims].T
        # The sign of an axis is nobody's choice: the largest loading is positive.
        parts *= np.sign(axes[np.arange(len(axes[:dims])), np.abs(axes[:dims]).argmax(1)])
        parts /= np.sqrt((parts[:first] ** 2).mean()) + 1e-12
        whole = np.zeros((len(rows), dims), np.float32)
        whole[:, : parts.shape[1]] = parts
        mine = whole[extent.first : extent.first + extent.length]
        found[extent.start, extent.stop] = mine
    return found


def shapes_of(vocabulary: Vocabulary, first: int) -> Tensor | None:
    """float32 (ids, V): what the codes of the extent that begins with id `first` add, in the tokenizer's units; None if
    its level has no codebook."""
    extent = next((e for e in vocabulary.extents if e.start == first and e.length), None)
    if extent is None or extent.kind != "code" or extent.modality not in vocabulary.states:
        return None
    state = vocabulary.states[extent.modality]
    rows = vectors(state, extent.level) if extent.level < len(state.levels) else None
    if rows is None:
        return None
    return torch.from_numpy(np.ascontiguousarray(rows[extent.first : extent.first + extent.length], np.float32))


class FeatureTable(nn.Module):
    """(ids, width): a learned row for each id, plus a linear map of its features, one map for each extent."""

    features: Tensor

    def __init__(self, size: int, width: int, features: dict[tuple[int, int], np.ndarray], std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, width) * std)
        self.spans = tuple(features)
        dims = next(iter(features.values())).shape[1] if features else 1
        self.maps = nn.Parameter(torch.randn(len(features), dims, width) * std / dims**0.5)
        table = np.concatenate(list(features.values())) if features else np.zeros((0, dims), np.float32)
        self.register_buffer("features", torch.from_numpy(table), persistent=False)
        self._kept: tuple[object, Tensor] | None = None

    def forward(self) -> Tensor:
        """The whole table. Where no gradient is wanted it is made once for the weights that there are: a simulation
        asks for it twice an element."""
        if not self.spans:
            return self.weight
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or self.weight.is_inference():
            self._kept = None
            return self._made()
        inputs = (self.weight, self.maps, self.features)
        of = (
            *((x.data_ptr(), x._version, x.dtype, x.device) for x in inputs),
            torch.is_autocast_enabled(self.weight.device.type),
        )
        if self._kept is None or self._kept[0] != of:
            self._kept = of, self._made()
        return self._kept[1]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._kept = None  # of weights that are somewhere else from now on
        return super()._apply(fn, recurse)

    def _made(self) -> Tensor:
        table, at = self.weight, 0
        parts, done = [], 0
        for number, (start, stop) in enumerate(self.spans):
            parts.append(table[done:start])
            parts.append(table[start:stop] + self.features[at : at + stop - start] @ self.maps[number])
            done, at = stop, at + stop - start
        return torch.cat([*parts, table[done:]])
