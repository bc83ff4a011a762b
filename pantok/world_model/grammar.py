"""What may come next in a sequence of ids, as far as the codes before tell it for certain.

What is unusual: a learned switch is not asked what is known. How many codes a level of a tick has follows from the
levels before it (`pantok.tokenizers.counts`), so after a first code of that kind the switch has nothing to say until
the tick is over: bits that are not spent, and in a simulation no code that stands in another's place.

A key is a number of `level_keys`: one for each level of a modality, 0 for marks. A composed id is of the levels of
the first and the last code that it spells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pantok.evolve.compositions import MODALITY, Compositions
from pantok.layout import Layout
from pantok.tokenizers import of_modality
from pantok.vocabulary import Vocabulary
from pantok.world_model.inputs import level_keys
from pantok.world_model.switch import Kinds


class Grammar(nn.Module):
    """told: bool (keys,), whether it is known what follows a code of that key. first, last: int64 (ids,), the keys of
    the first and last code that an id stands for; 0 for marks. masks: bool (2 keys - 1, K), the kinds that may follow:
    row 0 any; row k those with an id that begins with a code of key k; row keys - 1 + k none of the levels of its
    modality from key k's on, which is what follows a tick whose codes are all there."""

    told: Tensor
    modality: Tensor
    level: Tensor
    first: Tensor
    last: Tensor
    masks: Tensor

    def __init__(self, vocabulary: Vocabulary, kinds: Kinds) -> None:
        super().__init__()
        keys = level_keys(vocabulary)
        count = int(keys.max()) + 1
        names = [e.modality for e in vocabulary.extents if e.kind == "code" and _from(e.modality) is not None]
        modality = torch.full((count,), -1)
        level, told = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
        first = torch.zeros_like(keys)
        for extent in vocabulary.extents:
            if extent.kind == "code" and extent.modality in names:
                key = int(keys[extent.start])
                modality[key], level[key] = names.index(extent.modality), extent.level
                told[key] = extent.level >= (_from(extent.modality) or 0)
                first[extent.start : extent.stop] = key
        last = first.clone()
        if MODALITY in vocabulary.states:
            pairs = Compositions.of(vocabulary)
            spelled, counts = (torch.from_numpy(np.asarray(found, np.int64)) for found in pairs.expand(pairs.named))
            ends, named = counts.cumsum(0), torch.from_numpy(np.asarray(pairs.named, np.int64))
            first[named], last[named] = first[spelled[ends - counts]], first[spelled[ends - 1]]
        masks = torch.ones(2 * count - 1, len(kinds.names), dtype=torch.bool)
        # Latents have no ids, and are of no level.
        opens = [first[a:b] if b > a else first[:0] for a, b in zip(kinds.starts, kinds.stops, strict=True)]
        for kind, mine in enumerate(opens):
            alone = int(mine[0]) if len(mine) and bool((mine == mine[0]).all()) else 0
            for k in range(1, count):
                masks[k, kind] = bool((mine == k).any())
                masks[count - 1 + k, kind] = not (modality[alone] == modality[k] and level[alone] >= level[k])
        for name, value in zip(
            ("told", "modality", "level", "first", "last", "masks"),
            (told, modality, level, first, last, masks),
            strict=True,
        ):
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def of(cls, vocabulary: Vocabulary, kinds: Kinds, layout: Layout) -> Grammar | None:
        """None where counts are not told, no mark stands between units of one modality, or an id stands for codes of
        several tracks."""
        if not counted(layout) or layout.marks == "none":
            return None
        if MODALITY in vocabulary.states and Compositions.of(vocabulary).across == "track":
            return None
        return cls(vocabulary, kinds)

    def admitted(self, ids: Tensor) -> Tensor:
        """bool (B, L - 1, K): the kinds that each element but the first may be of. ids: int64 (B, L)."""
        before, now = self.last[ids[:, :-1]], self.first[ids[:, 1:]]
        # Without a mark between them codes of one modality are of one tick.
        goes_on = (self.modality[before] == self.modality[now]) & (self.level[now] >= self.level[before]) & (now > 0)
        row = torch.where(goes_on, now, before + len(self.told) - 1)
        found: Tensor = self.masks[torch.where(self.told[before], row, 0)]
        return found


def counted(layout: Layout) -> bool:
    """Whether ticks have as many codes as their tokenizers say: not in a layout that cuts them short."""
    return not (layout.step_ids or layout.max_ids)


def _from(modality: str) -> int | None:
    return None if modality == MODALITY else of_modality(modality).told_from
