"""A model's tables made larger for a vocabulary that grew, so that at that moment its predictions do not change.

What is unusual: nothing is initialised at random. The output row of a new id is a copy of its parent's, and the biases
share the parent's probability between the two, so that every other probability stays as it was to rounding and training
goes on without a jump in loss. Optimiser moments of new rows are the parent's: with zero second moments the first steps
of Adam would be several times the learning rate.

    softmax with row w and bias b for the parent:   p = exp(w h + b) / Z
    child with the same row, share s of p:          biases b + log(1 - s) and b + log s; Z is as before

A grown code is a child of the nearest code that its level had, s = 1/2; a composition of (A, B) is a child of A, s =
p(B | A). Several children of one parent and the parent itself share in proportion to the odds that each asks for, so
that n of s = 1/2 get 1 / (n + 1). The input row of a grown code is the mean of the nearest rows weighted by closeness,
that of a composition the mean of its parts'. Models with one softmax for each extent of ids, such as pantok's own, are
resized by `resize_switched`: a new extent is a new kind, whose gate shares with the kind of its parents.

Works on numpy arrays and on torch tensors alike (results are of the same sort and dtype). Shapes: V old ids, W new ids,
D width.

Sources: mean initialisation and its bound, J. Hewitt, "Initializing new word embeddings" (2021); Adam, Kingma and Ba,
ICLR 2015, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pantok.errors import VocabularyError
from pantok.evolve import codebooks
from pantok.vocabulary import Vocabulary

NEAREST = 8
"""Rows that the input row of a novel code is made of."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """What new rows are made of.

    size: ids before. parent: int64 (W - V,), the old or new id that each new id is a child of; ids count up, so that a
        parent may itself be new but comes before its child. share: float64 (W - V,), how much of its parent's
        probability a child takes (all children of one parent together less than 1).
    inputs: for each new id the ids and weights that its input row is the mean of.
    """

    size: int
    parent: np.ndarray
    share: np.ndarray
    inputs: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __post_init__(self) -> None:
        assert len(self.parent) == len(self.share) == len(self.inputs), self
        assert (self.parent < self.size + np.arange(len(self.parent))).all() and (self.parent >= 0).all(), self.parent
        assert (self.share > 0).all() and (self.share < 1).all(), self.share

    @property
    def total(self) -> int:
        return self.size + len(self.parent)


def transfer(old: Vocabulary, new: Vocabulary, follows: Mapping[int, float] | None = None) -> Transfer:
    """How the ids that `new` has beyond those of `old` are made of those.

    A code grown within a level is a child of the nearest code that the level had; a composition is a child of its left
    part and its input row the mean of both. A level that is new altogether has the control id `pad` as its parent.

    follows: by id of a composition, how often its right part follows its left one: the share that it takes; 1/2 where
        nothing is said. Raises VocabularyError if ids of `old` would have to move.
    """
    if not new.reads(old):
        raise VocabularyError(
            f"vocabulary {new.id[:12]}", f"does not begin with {old.id[:12]}", "models follow along a lineage only"
        )
    parents, shares, inputs = [], [], []
    for extent in new.extents[len(old.extents) :]:
        state = new.states[extent.modality]
        codes = np.arange(extent.first, extent.first + extent.length)
        if extent.modality == "composition":
            left, right = (np.asarray(state.tensors[side], np.int64)[codes] for side in ("left", "right"))
            said = follows or {}
            for number, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
                parents.append(a)
                shares.append(float(said.get(extent.start + number, 0.5)))
                inputs.append((np.array([a, b]), np.array([0.5, 0.5])))
            continue
        rows = codebooks.vectors(state, extent.level)
        if rows is None or extent.first == 0:
            some = new.control("pad") if extent.first == 0 else int(new.table(extent.modality, extent.level)[0])
            near = np.full((extent.length, 1), some)
            weights = np.ones((extent.length, 1))
        else:
            table = new.table(extent.modality, extent.level).astype(np.int64)
            near, weights = _near(rows[codes], rows[: extent.first])
            near = table[near]
        parents += near[:, 0].tolist()
        shares += [0.5] * extent.length
        inputs += list(zip(near, weights, strict=True))
    return Transfer(old.size, np.array(parents, np.int64), _shared(parents, shares), tuple(inputs))


def resize_rows(table: Any, moved: Transfer, *, inputs: bool = False) -> Any:
    """(W, D) or (W,) of (V, D) or (V,): new rows are copies of their parents'; with `inputs` the means of `inputs`.

    For output rows, and for either moment of Adam: those of a new row are its parent's.
    """
    out = _larger(table, moved.total)
    for number, parent in enumerate(moved.parent.tolist()):
        at = moved.size + number
        if inputs:
            ids, weights = moved.inputs[number]
            out[at] = sum(float(w) * out[int(i)] for i, w in zip(ids, weights, strict=True))
        else:
            out[at] = out[parent]
    return out


def resize_bias(bias: Any, moved: Transfer) -> Any:
    """(W,) of (V,): each child takes its share of its parent's probability, so that all others keep theirs."""
    out = _larger(bias, moved.total)
    kept = np.ones(moved.total)  # of its probability that an id has not given away yet
    for number, (parent, share) in enumerate(zip(moved.parent.tolist(), moved.share.tolist(), strict=True)):
        at = moved.size + number
        out[at] = out[parent] + float(np.log(share / kept[parent]))
        out[parent] = out[parent] + float(np.log((kept[parent] - share) / kept[parent]))
        kept[parent] -= share
    return out


def resize_model(parts: Mapping[str, Any], moved: Transfer) -> dict[str, Any]:
    """The tables of a model by what they are, resized together.

    parts: `embedding` (V, D), `output` (V, D), `bias` (V,), and moments `<part>.exp_avg`, `<part>.exp_avg_sq`. A model
        without biases needs them: add zeros before. Where embedding and output are one (tied) give `output` alone.
    """
    made = {}
    for name, table in parts.items():
        part, _, moment = name.partition(".")
        if part not in ("embedding", "output", "bias") or moment not in ("", "exp_avg", "exp_avg_sq"):
            raise ValueError(f"{name} is no part that can be resized")
        if part == "bias" and not moment:
            made[name] = resize_bias(table, moved)
        else:
            made[name] = resize_rows(table, moved, inputs=part == "embedding" and not moment)
    return made


def resize_switched(
    gate_weight: Any,
    gate_bias: Any,
    weight: Any,
    bias: Any,
    before: Sequence[tuple[int, int]],
    after: Sequence[tuple[int, int]],
    moved: Transfer,
    shares: Sequence[float] | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Gate (K, D) and (K,), output rows (V, D) and biases (V,) of a model that chooses a kind and then an id of it.

    before, after: [start, stop) of each kind of ids; those of `before` come first in `after`, the new ones are extents
    of new ids; other kinds (latents) come after all in the arrays of the gate and are left as they are. shares: of each
    new kind, how much of its parent's probability it asks for; 1/2 where nothing is said.

    A new kind copies the gate's row of the kind that most of its parents are in, and the two share its probability:
    what the kinds of `before` said of their own ids, given the kind, is as it was, and so is everything that is said of
    other kinds. Returns the four, resized. The rows of a new kind are the parents', so that given the kind they are as
    likely as their parents are to each other.
    """
    assert tuple(after[: len(before)]) == tuple(before) and all(a >= moved.size for a, _ in after[len(before) :])
    rows, biases = resize_rows(weight, moved), _larger(bias, moved.total)
    for number, parent in enumerate(moved.parent.tolist()):
        biases[moved.size + number] = biases[parent]
    parents = parent_kinds(before, after, moved)
    wanted = [0.5] * len(parents) if shares is None else shares
    gate, gate_b = resize_gate(gate_weight, gate_bias, len(before), parents, wanted)
    return gate, gate_b, rows, biases


def parent_kinds(
    before: Sequence[tuple[int, int]],
    after: Sequence[tuple[int, int]],
    moved: Transfer,
    weights: np.ndarray | None = None,
) -> tuple[int, ...]:
    """For each kind of `after` that is new the kind of `before` that most of its ids came out of. weights: of all ids,
    how much each counts, (W,)."""
    family = np.arange(moved.total)
    for number, parent in enumerate(moved.parent.tolist()):
        family[moved.size + number] = family[parent]  # a parent that is new itself comes before its child
    stops = np.array([stop for _, stop in before])
    order = np.argsort(stops, kind="stable")
    found = []
    for start, stop in after[len(before) :]:
        kinds = order[np.searchsorted(stops[order], family[start:stop], "right")]
        counts = None if weights is None else weights[start:stop]
        found.append(int(np.bincount(kinds, counts, minlength=len(before)).argmax()))
    return tuple(found)


def resize_gate(weight: Any, bias: Any, kinds: int, parents: Sequence[int], shares: Sequence[float]) -> tuple[Any, Any]:
    """Gate (K, D) and (K,) with a new kind for each of `parents`, after the first `kinds`, before all others.

    weight: or None. Children of one parent share with it as `Transfer` says; its probability and theirs together are
    what its own was.
    """
    others, more = len(bias) - kinds, len(parents)
    place = [*range(kinds), *range(kinds + more, kinds + more + others)]
    gate, gate_b = None if weight is None else _larger(weight, len(bias) + more), _larger(bias, len(bias) + more)
    if gate is not None:
        gate[place] = weight
    gate_b[place] = bias
    taken = _shared(parents, shares)
    left = dict.fromkeys(parents, 1.0)
    for number, (parent, share) in enumerate(zip(parents, taken.tolist(), strict=True)):
        if gate is not None:
            gate[kinds + number] = gate[parent]
        gate_b[kinds + number] = gate_b[parent] + float(np.log(share))
        left[parent] -= share
    for parent, share in left.items():
        gate_b[parent] = gate_b[parent] + float(np.log(max(share, 1e-9)))
    return gate, gate_b


def _near(rows: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The NEAREST old rows of each new one, nearest first, and weights by closeness that sum to one."""
    distance = ((rows[:, None] - old[None]) ** 2).sum(2) if len(rows) * old.size < 1 << 26 else _blockwise(rows, old)
    near = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
    gap = np.take_along_axis(distance, near, 1)
    weights = np.exp(-gap / np.maximum(gap[:, -1:] / 2, 1e-12))
    return near, weights / weights.sum(1, keepdims=True)


def _blockwise(rows: np.ndarray, old: np.ndarray) -> np.ndarray:
    return (rows**2).sum(1)[:, None] - 2 * rows @ old.T + (old**2).sum(1)


def _shared(parents: Sequence[int], shares: Sequence[float]) -> np.ndarray:
    """Shares of which those of one parent sum to less than one: n children that ask for a half get 1 / (n + 1) each."""
    out = np.array(shares, np.float64)
    for parent, n in zip(*np.unique(np.array(parents, np.int64), return_counts=True), strict=True):
        mine = np.flatnonzero(np.array(parents) == parent)
        if n > 1:
            odds = out[mine] / (1 - np.minimum(out[mine], 1 - 1e-9))
            out[mine] = odds / (1 + odds.sum())
    return np.clip(out, 1e-9, 1 - 1e-9)


def _larger(table: Any, rows: int) -> Any:
    """A copy with `rows` rows, of which the new ones are zero."""
    if isinstance(table, np.ndarray):
        out = np.zeros((rows, *table.shape[1:]), table.dtype)
    else:
        table = table.detach()
        out = table.new_zeros((rows, *table.shape[1:]))
    out[: len(table)] = table
    return out
