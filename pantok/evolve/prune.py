"""Codes that are hardly used, out of use; and what that costs, before it is done.

What is unusual: nothing is thrown away. A pruned code keeps its id and its vector, so that whatever was written with it
decodes as it did; encoders no longer choose it, and a table says which kept code stands for it where a model should
meet fewer ids. The loss is counted on the codes of a store, without the recordings: each use of a pruned code becomes
its stand-in, and the difference of what the two decode to is known. It is bounded for each level: what costs most
stays.

Shapes: K codes of a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pantok.evolve import codebooks
from pantok.quantizers.kmeans import nearest
from pantok.vocabulary import TokenizerState, Vocabulary

Counts = Mapping[tuple[str, int], np.ndarray]
"""By modality and level: int64 (K,), how often each code is used; -1 for one that could not have been."""
_ENOUGH = 4  # codes seen for each code there is, below which the store says too little about what is rare


@dataclass(frozen=True, kw_only=True)
class PrunedLevel:
    """What pruning does to one level.

    before, after: codes in use. spared: rare ones that stay, as the level would lose too much. uses: codes of the level
    in the store; changed: those that another code stands for.
    added_error: squared difference that this makes, as a share of the squared spread of what the level says there.
    bits_before, bits_after: entropy a code of the store, without context.
    """

    modality: str
    level: str
    before: int
    after: int
    spared: int
    uses: int
    changed: int
    added_error: float
    bits_before: float
    bits_after: float


def prune(
    vocabulary: Vocabulary, counts: Counts, *, below: float = 0.05, max_loss: float = np.inf
) -> tuple[Vocabulary, list[PrunedLevel]]:
    """The vocabulary with codes out of use that are used less than `below` times an even share, and what that costs.

    max_loss: the most that `added_error` of a level may be; of rare codes those that cost least go. Levels of choices
    stay as they are, and levels of which `counts` holds fewer than four uses a code.
    """
    states, report = dict(vocabulary.states), []
    for (modality, level), uses in sorted(counts.items()):
        state, facts = pruned_level(states[modality], level, np.asarray(uses, np.int64), below, max_loss)
        if facts is not None:
            states[modality] = state
            report.append(facts)
    return Vocabulary(states, vocabulary.extents, vocabulary.remaps), report


def pruned_level(
    state: TokenizerState, level: int, uses: np.ndarray, below: float, max_loss: float = np.inf
) -> tuple[TokenizerState, PrunedLevel | None]:
    """One level of `prune`; None where there is nothing to prune."""
    rows = codebooks.vectors(state, level)
    alive = codebooks.in_use(state, level)
    young, uses = uses < 0, np.maximum(uses, 0)
    # What a retired code was used for counts for what stands for it now.
    to = state.redirects(level)
    now = np.bincount(to, uses, len(uses)).astype(np.int64)
    total, judged = int(now.sum()), alive[~young[alive]]
    if rows is None or total < _ENOUGH * len(judged) or not len(judged):
        return state, None
    # One code stays however little it is used.
    rare = judged[(now[judged] < below * total / len(judged)) & (judged != alive[0])]
    mean = (now[:, None] * rows).sum(0) / total
    spread = max(float((now * ((rows - mean) ** 2).sum(1)).sum()), 1e-30)
    stand_ins, gap = _stand_ins(rows, alive, rare)
    cost = now[rare] * gap
    cheapest = np.argsort(cost, kind="stable")
    spared = rare[cheapest][np.cumsum(cost[cheapest]) > max_loss * spread]
    if len(spared):  # it may stand for others: their loss is what it was, or less
        rare = np.setdiff1d(rare, spared)
        stand_ins, gap = _stand_ins(rows, alive, rare)
    if not len(rare):
        return state, None
    after = now.copy()
    np.add.at(after, stand_ins, now[rare])
    after[rare] = 0
    return codebooks.without(state, level, rare, stand_ins), PrunedLevel(
        modality=state.modality,
        level=state.levels[level].name,
        before=len(alive),
        after=len(alive) - len(rare),
        spared=len(spared),
        uses=total,
        changed=int(now[rare].sum()),
        added_error=float((now[rare] * gap).sum()) / spread,
        bits_before=entropy(now),
        bits_after=entropy(after),
    )


def _stand_ins(rows: np.ndarray, alive: np.ndarray, rare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each rare code the nearest one in use that is not rare, and their squared difference, float64."""
    kept = np.setdiff1d(alive, rare)
    if not len(rare):
        return rare, np.zeros(0)
    picked, _ = nearest(rows[rare].astype(np.float32), rows[kept].astype(np.float32))
    return kept[picked], ((rows[rare] - rows[kept[picked]]) ** 2).sum(1)


def entropy(counts: np.ndarray) -> float:
    """Bits a code, of codes met so often."""
    p = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(p * np.log2(p)).sum())
