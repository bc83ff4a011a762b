"""A world model's run goes on under a vocabulary that grew out of its own: tables, moments and averages made larger.

What is unusual: nothing jumps. On sequences of old ids the larger model has the hidden states of the old one, and says
of them, to rounding, what that said:

    as it was        log p(id | kind) of every old kind; p(kind) of every kind that got no child; densities of latents;
                     the next observation
    shared           p(kind) of a kind that a new extent came out of, between the two: their sum is as it was

So an old code of a level that grew costs -log2(1 - share) bits more, and nothing else does. The share is how often
the new extent is met in the data to come; in data without new codes it is next to nothing.

Among the ids of a new kind each is as likely as its parent, times how much of it the id is in the data to come.

Rows are made by `pantok.evolve.resize`. As a row is the sum of one of its own and a map of the code's features, it is
the sum that is made; the map of a level is that of its first extent, and the row of its own is the rest. What has no
parent, a level or a latent of a modality that is new altogether, starts as in a new run, with its gate shared off the
kind of the control ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from pantok.evolve import resize
from pantok.vocabulary import Vocabulary
from pantok.world_model.features import FeatureTable
from pantok.world_model.model import WorldModel
from pantok.world_model.trainer import Trainer

Arrays = Mapping[str, np.ndarray]
Files = Mapping[str, Arrays]


def go_on(
    trainer: Trainer, counts: tuple[Tensor, Tensor], old: WorldModel, places: list[list[str]], files: Files, steps: int
) -> None:
    """Gives a trainer that has begun what a run under an earlier vocabulary had learned; its step stays 0.

    counts: what `trainer.begin` returned. old: the model of that run, its weights do not matter; places: of a trainer
    of it. files: of its checkpoint, as `Trainer.tensors` makes them. steps: that it took.
    Raises VocabularyError if ids of its vocabulary would have to move.
    """
    grown = Growth(old, trainer.model, counts[0].numpy(), counts[1].numpy())
    made: dict[str, dict[str, np.ndarray]] = {"model": grown.state(files["model"])}
    if trainer.average is not None:
        made["average"] = grown.state(files.get("average", files["model"]))
    made["optimizer"] = {}
    for number, names in enumerate(trainer.places):
        for place, name in enumerate(names):
            if number >= len(places) or name not in places[number]:
                continue  # new: it has no moments yet
            mark = f"{number}.{places[number].index(name)}."
            for key, value in files["optimizer"].items():
                if key.startswith(mark):
                    kind = key.removeprefix(mark)
                    made["optimizer"][f"{number}.{place}.{kind}"] = grown.moment(name, kind, value)
    trainer.load(made, 0)
    trainer.before = steps


class Growth:
    """From the arrays of an old model to those of a new one that has begun. ids, met: how often each id and each kind
    of the new one's switch is met in its data, float (W,) and (K,)."""

    def __init__(self, old: WorldModel, new: WorldModel, ids: np.ndarray, met: np.ndarray) -> None:
        self.moved = resize.transfer(old.vocabulary, new.vocabulary)
        self._met = ids
        self._old, self._new = old, new
        self._fresh = {k: v.detach().cpu().numpy() for k, v in new.state_dict().items()}
        self._before, self._after = _spans(old), _spans(new)
        self._latents = len(old.latent_dims)
        discrete, more = len(self._before), len(self._after) - len(self._before)
        parents = resize.parent_kinds(self._before, self._after, self.moved, ids + 1e-3)
        control = next(k for k, name in enumerate(new.kinds.names) if name == "control")
        self._own = [
            k + discrete for k, e in enumerate(new.vocabulary.extents[discrete:]) if _is_new(new.vocabulary, e.start)
        ]
        """Kinds whose ids have no parents to speak of."""
        parents = tuple(control if k + discrete in self._own else p for k, p in enumerate(parents))
        added = [control] * (len(new.latent_dims) - self._latents)
        assert tuple(new.latent_dims)[: self._latents] == tuple(old.latent_dims), (old.latent_dims, new.latent_dims)
        numbers = [*range(discrete, discrete + more), *range(len(met) - len(added), len(met))]
        asked = [(met[k] + 0.5) / (met[k] + met[p] + 1) for k, p in zip(numbers, [*parents, *added], strict=True)]
        self._parents, self._shares = [*parents, *added], asked
        self._order = [*range(discrete), *range(discrete + self._latents, discrete + self._latents + more)]
        self._order += [*range(discrete, discrete + self._latents)]
        self._order += [*range(discrete + self._latents + more, len(met))]

    # ------------------------------------------------------------------ weights
    def state(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The new model's state, of the old one's."""
        made = {name: arrays.get(name, fresh) for name, fresh in self._fresh.items()}
        for table, where in (("embed", "inputs"), ("switch.table", "outputs")):
            parts = arrays[f"{table}.weight"], arrays[f"{table}.maps"]
            made[f"{table}.weight"], made[f"{table}.maps"] = self._table(table, *parts, inputs=where == "inputs")
        gate = arrays["switch.gate.weight"], arrays["switch.gate.bias"]
        made["switch.gate.weight"], made["switch.gate.bias"] = self._gate(*gate)
        floors = arrays.get("switch.floors", np.full(len(gate[1]), self._old.switch.floor / len(gate[1]), np.float32))
        taken = np.exp(self._gate(None, np.zeros(len(floors)))[1])
        made["switch.floors"] = (self.rows(floors) * taken).astype(floors.dtype)
        made["switch.bias"] = self._biases(arrays["switch.bias"])
        for name, fresh in self._fresh.items():
            assert made[name].shape == fresh.shape, (name, made[name].shape, fresh.shape)
        return made

    def rows(self, of_kinds: np.ndarray) -> np.ndarray:
        """(K, ...) for the new kinds: each new one's is its parent's."""
        return np.asarray(np.concatenate([of_kinds, of_kinds[self._parents]])[self._order])

    def _gate(self, weight: np.ndarray | None, bias: np.ndarray) -> tuple[Any, Any]:
        rows, biases = resize.resize_gate(weight, bias, len(bias), self._parents, self._shares)
        return (None if rows is None else rows[self._order]), biases[self._order]

    def _biases(self, bias: np.ndarray) -> np.ndarray:
        made, size = resize.resize_rows(bias, self.moved), self.moved.size
        for start, stop in self._after[len(self._before) :]:
            if self._met[start:stop].any():  # of what its parent was each has its part
                own, parent = self._met[start:stop], self._met[self.moved.parent[start - size : stop - size]]
                made[start:stop] += np.log((own + 0.5) / (own + parent + 1))
        for kind in self._own:  # as often as they are met
            start, stop = self._after[kind]
            made[start:stop] = self._fresh["switch.bias"][start:stop]
        return made

    def _table(self, name: str, weight: np.ndarray, maps: np.ndarray, inputs: bool) -> tuple[np.ndarray, np.ndarray]:
        old, new = self._old.get_submodule(name), self._new.get_submodule(name)
        assert isinstance(old, FeatureTable) and isinstance(new, FeatureTable)
        now = self._maps(old, new, maps, self._fresh[f"{name}.maps"])
        told_before, told = _told(old, maps, len(weight)), _told(new, now, self.moved.total)
        rows = resize.resize_rows(weight + told_before, self.moved, inputs=inputs) - told
        rows[: len(weight)] = weight - (told[: len(weight)] - told_before)
        for kind in self._own:
            start, stop = self._after[kind]
            rows[start:stop] = self._fresh[f"{name}.weight"][start:stop]
        return rows.astype(weight.dtype), now

    def _maps(self, old: FeatureTable, new: FeatureTable, maps: np.ndarray, fresh: np.ndarray) -> np.ndarray:
        """Of each extent: its own, else that of its level's first, else what a new run begins with."""
        made = fresh.copy()
        for number, source in enumerate(_sources(self._new.vocabulary, old, new)):
            if source is not None:
                made[number] = maps[source]
        return made

    # ------------------------------------------------------------------ moments
    def moment(self, name: str, kind: str, value: np.ndarray) -> np.ndarray:
        """A moment of Adam of the new model's parameter `name`: new rows have their parents'. kind: `exp_avg`, ..."""
        fill: Callable[[np.ndarray], Any] = (lambda rows: rows.mean(0)) if kind == "exp_avg_sq" else (lambda rows: 0)
        if value.ndim == 0:
            return value
        if name in ("embed.weight", "switch.table.weight", "switch.bias"):
            rows = resize.resize_rows(value, self.moved)
            for number in self._own:
                rows[slice(*self._after[number])] = fill(value)
            return np.asarray(rows)
        if name in ("embed.maps", "switch.table.maps"):
            table = name.removesuffix(".maps")
            old, new = self._old.get_submodule(table), self._new.get_submodule(table)
            assert isinstance(old, FeatureTable) and isinstance(new, FeatureTable)
            found = _sources(self._new.vocabulary, old, new)
            none = np.broadcast_to(fill(value) if len(value) else 0, value.shape[1:])
            return np.stack([none if k is None else value[k] for k in found]) if found else value
        if name in ("switch.gate.weight", "switch.gate.bias"):
            return self.rows(value)
        return value


def _spans(model: WorldModel) -> tuple[tuple[int, int], ...]:
    kinds = model.kinds
    every = zip(kinds.starts, kinds.stops, kinds.dims, strict=True)
    return tuple((start, stop) for start, stop, dims in every if not dims)


def _is_new(vocabulary: Vocabulary, start: int) -> bool:
    """Whether the extent that begins there is a level's first: it has no codes that its own could come of."""
    extent = next(e for e in vocabulary.extents if e.start == start)
    return extent.first == 0 and extent.modality != "composition"


def _told(table: FeatureTable, maps: np.ndarray, size: int) -> np.ndarray:
    """float32 (size, width): what the features say of each id."""
    features, made, at = table.features.cpu().numpy(), np.zeros((size, maps.shape[2]), np.float32), 0
    for number, (start, stop) in enumerate(table.spans):
        made[start:stop] = features[at : at + stop - start] @ maps[number]
        at += stop - start
    return made


def _sources(vocabulary: Vocabulary, old: FeatureTable, new: FeatureTable) -> list[int | None]:
    """For each extent of the new table the one of the old whose map it takes."""
    level = {(e.start, e.stop): (e.modality, e.level) for e in vocabulary.extents}
    first: dict[tuple[str, int], int] = {}
    for number, span in enumerate(old.spans):
        first.setdefault(level[span], number)
    place = {span: number for number, span in enumerate(old.spans)}
    return [place.get(span, first.get(level[span])) for span in new.spans]
