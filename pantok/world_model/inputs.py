"""What the model takes: a loader's batch as tensors of places, times, roles and what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pantok.layout import KINDS, ROLES
from pantok.vocabulary import Vocabulary

LATENT = KINDS.index("latent")
PLACES = 64
"""Ordinals from here on are not told apart."""


def level_keys(vocabulary: Vocabulary) -> Tensor:
    """int64 (ids,): a number for each (modality, level), the same for all extents of a level; 0 for control ids."""
    keys, known = torch.zeros(vocabulary.size, dtype=torch.int64), dict[tuple[str, str, int], int]()
    for extent in vocabulary.extents:
        if extent.kind != "control":
            key = known.setdefault((extent.kind, extent.modality, extent.level), len(known) + 1)
            keys[extent.start : extent.stop] = key
    return keys


def ordinals(key: Tensor) -> Tensor:
    """int64 (B, L): how many elements of the same key stand right before each. key: int64 (B, L)."""
    place = torch.arange(key.shape[1]).expand_as(key)
    changes = torch.ones_like(key, dtype=torch.bool)
    changes[:, 1:] = key[:, 1:] != key[:, :-1]
    return place - torch.where(changes, place, 0).cummax(1).values


@dataclass(frozen=True, eq=False)
class Ends:
    """Where states end, N of them, and what is observed next. place: int64 (N,) in the flattened (B L), ascending. row:
    int64 (N,) of the table of steps. inputs (N, F), target (N, width), present bool (N, tracks): see
    `pantok.world_model.grounded`."""

    place: Tensor
    row: Tensor
    inputs: Tensor
    target: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def to(self, device: torch.device | str) -> Ends:
        return Ends(*(getattr(self, f.name).to(device) for f in fields(Ends)))

    def chosen(self, which: Tensor, shift: int = 0) -> Ends:
        row = self.row[which]
        return Ends(self.place[which] - shift, row, self.inputs[which], self.target[which], self.present[which])


@dataclass(frozen=True, eq=False)
class Foretold:
    """What is known before each state of its observation. inputs: float32 (R, F), a row a state, as
    `pantok.world_model.grounded` takes them: the two observations before it and the actions that come first in it.
    row: int64 (B, L), whose state an element helps to say, no two windows the same; -1: none that was foretold.
    actions: bool (F,), which of the inputs are actions."""

    inputs: Tensor
    row: Tensor
    actions: Tensor

    def to(self, device: torch.device | str) -> Foretold:
        return Foretold(self.inputs.to(device), self.row.to(device), self.actions.to(device))

    def without_actions(self, windows: Tensor) -> Foretold:
        """windows: bool (B,), those in which actions are as on average."""
        rows = self.row[windows]
        inputs = self.inputs.clone()
        inputs[rows[rows >= 0].unique()] *= ~self.actions
        return Foretold(inputs, self.row, self.actions)


@dataclass(frozen=True, eq=False)
class Inputs:
    """B windows of L elements.

    ids: int64 (B, L). role: int64 (B, L), index into ROLES. time_s: float64 (B, L), seconds from the first element of
    the document within the window. ordinal: int64 (B, L), place within the codes of one level of a unit, at most
    PLACES - 1: with the codes above, it says where in a picture a code stands. index: int64 (B, L), place within the
    document. document: int64 (B, L), -1 padding.
    predict: bool (B, L), whether element i is to be predicted from the one before it. window: int64 (B,).
    latents: by modality, values float32 (M, D) and place int64 (M,) in the flattened (B L). ends: of states, where the
    next observation is to be predicted too. foretold: what the observations before it say of each state. track: int64
    (B, L), index into `tracks`, 255 for ids of no track; for reports, and only as a loader's batch had it.
    """

    ids: Tensor
    role: Tensor
    time_s: Tensor
    ordinal: Tensor
    index: Tensor
    document: Tensor
    predict: Tensor
    window: Tensor
    latents: Mapping[str, tuple[Tensor, Tensor]]
    ends: Ends | None = None
    foretold: Foretold | None = None
    track: Tensor | None = None
    tracks: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Inputs:
        ends = None if self.ends is None else self.ends.to(device)
        foretold = None if self.foretold is None else self.foretold.to(device)
        latents = {k: (v.to(device), p.to(device)) for k, (v, p) in self.latents.items()}
        plain = {name: getattr(self, name).to(device) for name in _PLAIN}
        track = None if self.track is None else self.track.to(device)
        return Inputs(**plain, latents=latents, ends=ends, foretold=foretold, track=track, tracks=self.tracks)

    def rows(self, start: int, stop: int) -> Inputs:
        """The windows [start, stop)."""
        length = self.ids.shape[1]
        plain = {name: getattr(self, name)[start:stop] for name in _PLAIN}
        latents = {}
        for name, (values, place) in self.latents.items():
            mine = (place >= start * length) & (place < stop * length)
            latents[name] = (values[mine], place[mine] - start * length)
        ends = self.ends
        if ends is not None:
            ends = ends.chosen((ends.place >= start * length) & (ends.place < stop * length), start * length)
        foretold = self.foretold
        if foretold is not None:
            foretold = Foretold(foretold.inputs, foretold.row[start:stop], foretold.actions)
        track = None if self.track is None else self.track[start:stop]
        return Inputs(**plain, latents=latents, ends=ends, foretold=foretold, track=track, tracks=self.tracks)


_PLAIN = tuple(f.name for f in fields(Inputs) if f.name not in ("latents", "ends", "foretold", "track", "tracks"))


def joined(states: Sequence[tuple[Ends, Tensor]]) -> tuple[Ends, Tensor]:
    """Ends of several batches and what was found after each, in order; places lose their meaning."""
    ends = Ends(*(torch.cat([getattr(e, f.name) for e, _ in states]) for f in fields(Ends)))
    return ends, torch.cat([found for _, found in states])


def concatenated(parts: Sequence[Inputs]) -> Inputs:
    """The windows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    plain = {name: torch.cat([getattr(p, name) for p in parts]) for name in _PLAIN}
    latents: dict[str, tuple[Tensor, Tensor]] = {}
    for name in dict.fromkeys(n for p in parts for n in p.latents):
        values, places, rows = [], [], 0
        for part in parts:
            if name in part.latents:
                values.append(part.latents[name][0])
                places.append(part.latents[name][1] + rows * part.ids.shape[1])
            rows += len(part.ids)
        latents[name] = (torch.cat(values), torch.cat(places))
    shifts, rows = [], 0
    for part in parts:
        if part.ends is not None:
            shifts.append(part.ends.chosen(torch.arange(len(part.ends)), -rows * part.ids.shape[1]))
        rows += len(part.ids)
    ends = Ends(*(torch.cat([getattr(e, f.name) for e in shifts]) for f in fields(Ends))) if shifts else None
    foretold = _all_foretold([p.foretold for p in parts])
    # Batches may number their tracks differently; what is measured is not put together.
    return Inputs(**plain, latents=latents, ends=ends, foretold=foretold, track=None, tracks=())


def _all_foretold(parts: Sequence[Foretold | None]) -> Foretold | None:
    told = [p for p in parts if p is not None]
    if len(told) < len(parts):
        return None
    before = np.cumsum([0, *(len(t.inputs) for t in told)])
    rows = [torch.where(t.row >= 0, t.row + int(n), -1) for t, n in zip(told, before[:-1], strict=True)]
    return Foretold(torch.cat([t.inputs for t in told]), torch.cat(rows), told[0].actions)


def inputs_of(
    batch: Mapping[str, Any], keys: Tensor, modalities: Mapping[str, str], dims: int, *, action_loss: bool = False,
    action_dropout: float = 0.0, hidden_id: int = 0, seed: int = 0, ends: Ends | None = None,
    foretold: Foretold | None = None,
) -> Inputs:  # fmt: skip
    """A batch of `pantok.loader.StreamDataset`.

    keys: `level_keys` of the vocabulary. modalities: modality of each track name that has latents. dims: how many of
    their dimensions are used.
    action_dropout: share of windows in which the codes of actions are replaced by `hidden_id`; which ones is a pure
    function of (seed, epoch, window).
    """
    ids, document = batch["ids"].clone(), batch["document"].long()
    names, role = list(batch["tracks"]), batch["role"].long()
    place = torch.arange(ids.shape[1]).expand_as(ids)
    opens = torch.ones_like(document, dtype=torch.bool)
    opens[:, 1:] = document[:, 1:] != document[:, :-1]
    first = torch.where(opens, place, 0).cummax(1).values
    ordinal = ordinals((keys[ids] * 256 + batch["track"]) * 256 + document + 1).clamp_max(PLACES - 1)
    time_ns = batch["time_ns"]
    time_s = (time_ns - time_ns.gather(1, first)).double() / 1e9
    is_action = role == ROLES.index("action")
    code = is_action & (batch["kind"] != KINDS.index("control"))
    predict = batch["loss_mask"].clone() & ~opens & (document >= 0)
    predict |= (batch["kind"] == LATENT) & ~opens
    if not action_loss:
        predict &= ~is_action
    if action_dropout > 0:
        epoch = int(batch["epoch"])
        each = [np.random.default_rng([seed, epoch, w]).random() < action_dropout for w in batch["window"].tolist()]
        drop = torch.tensor(each)
        ids[drop[:, None] & code] = hidden_id
        foretold = None if foretold is None else foretold.without_actions(drop)
    latents: dict[str, tuple[Tensor, Tensor]] = {}
    flat_kind, flat_track = batch["kind"].reshape(-1), batch["track"].reshape(-1)
    for name, values in batch["latents"].items():
        where = torch.nonzero((flat_kind == LATENT) & (flat_track == names.index(name)))[:, 0]
        taken = values[:, :dims].float()
        modality = modalities[name]
        if modality in latents:
            taken, where = torch.cat([latents[modality][0], taken]), torch.cat([latents[modality][1], where])
        latents[modality] = (taken, where)
    return Inputs(
        ids=ids, role=role, time_s=time_s, ordinal=ordinal, index=place - first, document=document, predict=predict,
        window=batch["window"], latents=latents, ends=ends, foretold=foretold, track=batch["track"].long(),
        tracks=tuple(names),
    )  # fmt: skip
