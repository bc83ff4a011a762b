"""What a run is grounded in: the space of observations, the ridge, and the steps of the episodes in them.

Made once for a run from its training episodes, kept in its folder, and looked up by window: a batch's states that end
are given the observation that follows each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pantok.layout import ROLES, Layout
from pantok.stream import TokenStream
from pantok.vocabulary import Vocabulary
from pantok.world_model.baselines import known_ahead, predicted_tracks
from pantok.world_model.grounded import GroundedHead, Table, ends_of_steps
from pantok.world_model.inputs import Ends, Foretold
from pantok.world_model.observations import Observations, ObservationSpace
from pantok.world_model.ridge import Ridge, ridges

FORETOLD = (ROLES.index("observation"), ROLES.index("reward"))
"""Roles of the elements that say what was foretold."""

Streams = Callable[[], Iterable[TokenStream]]
"""Gives episodes, as often as it is called."""


@dataclass(frozen=True, eq=False)
class Grounding:
    """space; ridge, fitted in it, which is what has to be beaten; moving: the ridge and motion; alone: a head without a
    backbone, fitted on top of that, for a model's head to start from; spread: float32 (width,), its errors on what it
    was not fitted on."""

    space: ObservationSpace
    ridge: Ridge
    moving: Ridge
    alone: GroundedHead
    spread: np.ndarray

    @classmethod
    def fit(cls, train: Streams, valid: Streams, vocabulary: Vocabulary, layout: Layout) -> Grounding:
        """Decodes every episode of `train` twice and of `valid` once. Raises InputError if nothing is observed."""
        space = ObservationSpace.fit(train(), vocabulary, layout)
        pictured = any(t.modality == "video" for t in space.tracks)
        kept: tuple[list[Observations], list[Observations]] = ([], [])

        def seen(streams: Streams, pictures: bool, into: list[Observations]) -> Iterable[Observations]:
            for stream in streams():
                found = space.vectors(stream, pictures=pictures)
                into.append(replace(found, pictures={}, carried={}))
                yield found

        ridge, moving = ridges(space, seen(train, False, kept[0]), seen(valid, pictured, kept[1]))
        rows = Table.of(space, kept[0])
        held = Table.of(space, kept[1]) if any(len(seen.values) > 1 for seen in kept[1]) else rows
        alone = GroundedHead.alone(space, moving, rows, held)
        with torch.no_grad():
            inputs, target, _ = held.batch(held.all_rows)
            spread = (alone(None, inputs) - target).square().mean(0).sqrt()
        return cls(space, ridge, moving, alone, spread.numpy())

    def head(self, width: int) -> GroundedHead:
        """For hidden states (N, width), with a copy of `alone` in it."""
        return GroundedHead(self.space, self.moving, width, spread=self.spread, start=copy.deepcopy(self.alone))

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays, JSON facts) that `from_arrays` takes."""
        space, space_facts = self.space.to_arrays()
        (ridge, ridge_facts), (moving, moving_facts) = self.ridge.to_arrays(), self.moving.to_arrays()
        alone = {k: v.detach().numpy() for k, v in self.alone.state_dict().items()}
        parts = {"space": space, "ridge": ridge, "moving": moving, "alone": alone}
        arrays = {f"{name}/{k}": v for name, part in parts.items() for k, v in part.items()}
        facts = {"space": space_facts, "ridge": ridge_facts, "moving": moving_facts}
        return {**arrays, "spread": self.spread}, facts

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], vocabulary: Vocabulary, layout: Layout
    ) -> Grounding:
        # In one order of memory, whatever it was: the last bit of products depends on it.
        arrays = {k: np.array(v, order="C") for k, v in arrays.items()}
        parts = {
            name: {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
            for name in ("space", "ridge", "moving", "alone")
        }
        space = ObservationSpace.from_arrays(parts["space"], facts["space"], vocabulary, layout)
        ridge = Ridge.from_arrays(parts["ridge"], facts["ridge"], space)
        # A run from before there was motion has none.
        moving = Ridge.from_arrays(parts["moving"], facts["moving"], space) if "moving" in facts else ridge
        alone = GroundedHead(space, moving, 0, hidden=len(parts["alone"]["inner.bias"]))
        alone.load_state_dict({k: torch.from_numpy(v) for k, v in parts["alone"].items()})
        return cls(space, ridge, moving, alone.eval(), arrays["spread"])


class Steps:
    """The steps of episodes, for a loader's batches. table: of their vectors. pictures: for each track of video uint8
    (R, lines, columns, 3), a row a step; empty where they were not asked for. carried: the same, carried on; empty
    where the space has no motion."""

    def __init__(
        self, grounding: Grounding, streams: Iterable[TokenStream], episodes: Sequence[Sequence[str]],
        pictures: bool = False,
    ) -> None:  # fmt: skip
        """streams: episodes to look up; those that are not among them have no observations. episodes: the names of the
        loader's, by store (`StreamDataset.episodes`)."""
        space = grounding.space
        shown: dict[str, list[np.ndarray]] = {}
        onward: dict[str, list[np.ndarray]] = {}

        def seen() -> Iterable[Observations]:
            for stream in streams:
                found = space.vectors(stream, pictures=pictures)
                for part in space.tracks if pictures and len(found.values) else ():
                    if part.modality == "video":
                        none = np.zeros((len(found.values), *part.shape, 3), np.uint8)
                        shown.setdefault(part.name, []).append(found.pictures.get(part.name, none))
                        if part.name in space.moves:
                            onward.setdefault(part.name, []).append(found.carried.get(part.name, none))
                yield found

        self.table = Table.of(space, seen())
        self.pictures, self.carried = (
            {name: np.concatenate(many) for name, many in each.items()} for each in (shown, onward)
        )
        self._episodes, self._width_ns = episodes, round(space.layout.step_s * 1e9)

    def ends(self, batch: Mapping[str, Any]) -> Ends:
        """The states that end in a batch, and what is observed next."""
        parts = batch["parts"].numpy()
        length = batch["ids"].shape[1]
        time_ns, document = batch["time_ns"].numpy(), batch["document"].numpy()
        places, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for row in range(len(batch["ids"])):
            mine = parts[parts[:, 0] == row]
            names = [self._episodes[store][episode] for store, episode in mine[:, 3:].tolist()]
            begins = np.array([self._begin(name) for name in names], np.int64)
            found = ends_of_steps(time_ns[row], document[row], self._width_ns, begins)
            for number, name in enumerate(names):
                here = found[document[row][found] == number]
                at = self.table.rows(name, time_ns[row][here])
                places.append(here[at >= 0] + row * length)
                rows.append(at[at >= 0])
        row_of = np.concatenate(rows)
        # Copied into memory of torch's own, whose alignment is always the same, and with it the last bit of products.
        observed = (t.clone() for t in self.table.batch(row_of))
        return Ends(torch.from_numpy(np.concatenate(places)), torch.from_numpy(row_of), *observed)

    def foretold(self, batch: Mapping[str, Any]) -> Foretold:
        """What is known before each state, for the elements of the tracks that are foretold."""
        role, time_ns, document = (batch[name].numpy() for name in ("role", "time_ns", "document"))
        told = np.isin(role, FORETOLD)
        row = np.full(role.shape, -1, np.int64)
        documents = [0] * len(role)
        for window, _, _, store, episode in batch["parts"].tolist():
            name, number = self._episodes[store][episode], documents[window]
            documents[window] += 1
            here = told[window] & (document[window] == number)
            # The step before: the one that an instant a step's width earlier is in.
            row[window, here] = self.table.rows(name, time_ns[window, here] - self._width_ns)
        apart = row + np.arange(len(row))[:, None] * len(self.table.values)
        known, place = np.unique(apart[row >= 0], return_inverse=True)
        row[row >= 0] = place
        inputs = self.table.batch(known % max(1, len(self.table.values)))[0].clone()
        return Foretold(inputs, torch.from_numpy(row), action_inputs(self.table.space))

    def _begin(self, name: str) -> int:
        number = self.table.numbers.get(name)
        return 0 if number is None else int(self.table.begins_ns[number])


def action_inputs(space: ObservationSpace) -> torch.Tensor:
    """bool (F,): which of the inputs of a prediction are actions."""
    given = np.isin(space.of_track, [k for k, n in enumerate(space.names) if n not in predicted_tracks(space)])
    ahead, moved = np.ones(len(known_ahead(space)), bool), np.zeros(space.moved_width, bool)
    return torch.from_numpy(np.concatenate([given, given, ahead, moved]))
