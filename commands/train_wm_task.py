"""What `pantok train-wm` trains on and measures by: a store, split by episode."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pantok.errors import InputError, StoreError, VocabularyError

if TYPE_CHECKING:
    from pantok.commands.common import Run
    from pantok.commands.train_wm_parent import Parent
    from pantok.formats.runs import RunFolder
    from pantok.stream import TokenStream, TrackTokens
    from pantok.vocabulary import Vocabulary
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.grounding import Grounding
    from pantok.world_model.trainer import Share, Trainer


class Task:
    """The store, split by episode, and the windows to measure by."""

    def __init__(
        self, store: Path, config: TrainConfig, folder: RunFolder | None, share: Share | None = None,
        run: Run | None = None, vocabulary: Vocabulary | None = None, parent: Parent | None = None,
    ) -> None:  # fmt: skip
        """run: shows how far the episodes are looked through before the first step. vocabulary: to read the store
        under; its own, the run's, or the parent's if None. parent: the run that this one goes on from."""
        from pantok.commands.run_vocabulary import of_run
        from pantok.formats.store import Store
        from pantok.layout import Layout
        from pantok.loader import StreamDataset
        from pantok.world_model.trainer import Share

        opened = Store.open(store, vocabulary)
        if folder is not None:
            its = of_run(store, opened, folder)
            if vocabulary is not None and vocabulary.id != its.id:
                raise VocabularyError(
                    folder.path, f"is of vocabulary {its.id[:12]}, not {vocabulary.id[:12]}",
                    f"leave --vocab out, or go on under it in a new run: --from-run {folder.path}",
                )  # fmt: skip
            vocabulary = its
        elif vocabulary is None and parent is not None:
            vocabulary = parent.vocabulary_for(opened)
        self.vocabulary = vocabulary or opened.vocabulary
        if parent is not None:
            parent.check(store, self.vocabulary)
        names = tuple(opened.episodes)
        if not names:
            raise StoreError(store, "holds no episodes", "encode some first")
        self.config = config
        if folder is not None:
            self.held_out = tuple(folder.config["held_out"])
            for name in self.held_out:
                if name not in opened:
                    raise StoreError(
                        store, f"has no episode {name}, which {folder.path} holds out",
                        f"the run is of {folder.config['store']}; for another store, -o names another run",
                    )  # fmt: skip
        else:
            self.held_out = (held_out if parent is None else parent.held_out)(names, config.held_out)
        self.training = tuple(n for n in names if n not in set(self.held_out))
        layout = Layout.of(config.layout)
        self.dims: dict[str, int] = {} if parent is None else dict(parent.document["latent_dims"])
        self.modalities: dict[str, str] = {} if parent is None else dict(parent.document["latent_modalities"])
        self.seconds = {}
        sorts: dict[tuple[str, str, int], TrackTokens] = {}
        words: set[str] = set()
        for name in names:
            stream = opened.read(name, check=False)
            clocks = [t.clock for t in stream.tracks.values() if t.ticks and layout.keeps(t.name)]
            starts = [int(c.at(np.zeros(1, np.int64))[0]) for c in clocks]
            stops = [start + c.duration_ns for start, c in zip(starts, clocks, strict=True)]
            self.seconds[name] = (max(stops) - min(starts)) / 1e9 if clocks else 0.0
            words |= {
                t.name for t in stream.tracks.values() if t.modality == "text" and t.ticks and layout.keeps(t.name)
            }
            for track in stream.tracks.values():
                if layout.keeps(track.name) and track.modality != "text":
                    sorts.setdefault((track.name, track.modality, len(track.channels)), track)
                if track.latents is not None and config.latents and layout.keeps(track.name):
                    self.dims.setdefault(track.modality, min(config.latents, track.latents.values.shape[1]))
                    self.modalities[track.name] = track.modality
        self.layout = layout
        if self.dims:
            self.layout = replace(layout, latents=True)
        self.data = StreamDataset(
            store, self.layout, length=config.length, batch_size=config.batch, episodes=self.training, seed=config.seed,
            rank=0, world=1, vocabulary=self.vocabulary,
        )  # fmt: skip
        self.words = None
        if words and config.stages.get("text"):
            spoken = replace(layout, tracks=tuple(sorted(words)), first=())
            self.words = StreamDataset(
                store, spoken, length=config.length, batch_size=config.batch, episodes=self.training, seed=config.seed,
                rank=0, world=1, vocabulary=self.vocabulary,
            )  # fmt: skip
        self.measured = StreamDataset(
            store, self.layout, length=config.length, batch_size=config.batch, episodes=self.held_out or self.training,
            shuffle=False, rank=0, world=1, vocabulary=self.vocabulary,
        )  # fmt: skip

        self._opened, self._folder, self._share, self._run = opened, folder, share or Share(), run
        self._parent = parent
        self.grounding = self._ground()
        if parent is not None and self.grounding is not None and run is not None:
            space = self.grounding.space
            others = {n for (n, *_), t in sorts.items() if n not in space.names or not space.track(n).fits(t)}
            if others:
                named = ", ".join(sorted(others))
                run.say(f"{parent.folder.path} foretells no {named} like these: they count as ids alone.")

    def _ground(self) -> Grounding | None:
        """The run's own, or one made from the training episodes: the last fifth of them chooses the ridge's penalty."""
        import torch

        from pantok.world_model.grounding import Grounding

        if self.config.align == "none":
            return None
        source = self._folder if self._parent is None or self._folder is not None else self._parent.folder
        kept = None if source is None else source.arrays("observations")
        if kept is not None:
            return Grounding.from_arrays(*kept, self.vocabulary, self.layout)
        names = self._grounded()
        last = max(1, len(names) // 5)
        train, valid = (names[:-last], names[-last:]) if len(names) > 1 else (names, names)
        made: list[Any] = [None]
        if self._share.rank == 0:
            try:
                fitted = Grounding.fit(
                    lambda: self._streams(train, "looking"),
                    lambda: self._streams(valid, "trying"),
                    self.vocabulary,
                    self.layout,
                )
                made = [fitted.to_arrays()]
            except InputError:
                pass  # text alone: nothing is observed
        if self._share.world > 1:  # the same in all, to the last bit
            torch.distributed.broadcast_object_list(made)
        if made[0] is None:
            return None
        # As it will be read when the run goes on, to the last bit.
        arrays, facts = made[0]
        return Grounding.from_arrays(arrays, json.loads(json.dumps(facts)), self.vocabulary, self.layout)

    def _grounded(self) -> tuple[str, ...]:
        """Training episodes whose observations are kept, at most `ground_hours` of them, by order of hash."""
        ranked = sorted(self.training, key=rank)
        hours = np.cumsum([self.seconds[name] for name in ranked]) / 3600
        count = max(1, int(np.searchsorted(hours, self.config.ground_hours, "right")))
        return tuple(ranked[:count])

    def _streams(self, names: Sequence[str], doing: str) -> Iterable[TokenStream]:
        from pantok.evolve.lineage import translated

        own = self._opened.vocabulary
        read = (translated(self.vocabulary, own, self._opened.read(name, check=False)) for name in names)
        return read if self._run is None else self._run.watched(read, len(names), doing)

    def trainer(self, device: str) -> Trainer:
        import torch

        from pantok.world_model.grounding import Steps
        from pantok.world_model.model import WorldModel
        from pantok.world_model.trainer import Feed, Share, Trainer

        steps = None
        self.held_steps = None
        if self.grounding is not None:
            steps = Steps(self.grounding, self._streams(self._grounded(), "observing"), self.data.episodes)
            held = self.held_out or self._grounded()
            self.held_steps = Steps(
                self.grounding, self._streams(held, "observing"), self.measured.episodes, pictures=True
            )
        torch.manual_seed(self.config.seed)
        model = WorldModel(self.data.vocabulary, self.config, self.dims, self.modalities, self.grounding)
        trainer = Trainer(
            model, self.config, self.data, share=self._share, device=device, steps=steps, words=self.words
        )
        self.feed = Feed(self.measured, model, self.config, Share(), self.held_steps)
        return trainer

    def measure(self, trainer: Trainer, windows: int) -> dict[str, Any]:
        """Bits a second on what was held out (of all, if nothing was), and the next step's observation; evenly spread
        windows. Raises DivergedError."""
        from pantok.world_model.beside import PREDICTORS, next_step
        from pantok.world_model.inputs import joined
        from pantok.world_model.measure import measure
        from pantok.world_model.trainer import diverged

        total = len(self.measured.windows)
        chosen = sorted({round(k * (total - 1) / max(1, windows - 1)) for k in range(min(windows, total))})
        batch = self.config.batch
        model = trainer.averaged()
        states: list[Any] = []
        found = measure(
            model, (self.feed.inputs(0, chosen[k : k + batch]) for k in range(0, len(chosen), batch)), states
        )
        seconds = sum(self.seconds[name] for name in self.held_out or self.training)
        # Of a second's ids some are not predicted (actions, a window's first); their share is that of the windows.
        share = found.elements / (len(chosen) * self.config.length)
        if not math.isfinite(found.bits):
            raise diverged(trainer.step, "what was measured")
        report = found.report(self.measured.windows.ids / seconds * share if seconds else None)
        if self.grounding is not None and self.held_steps is not None and model.grounded is not None and states:
            ends, hidden = joined(states)
            found_next = next_step(self.grounding, model.grounded.cpu(), self.held_steps, ends, hidden)
            report["next_step"] = {
                t: {"unit": v["unit"], **{p: v[p]["value"] for p in PREDICTORS}} for t, v in found_next.items()
            }
            model.grounded.to(trainer.device)
        if model.latent is not None and states:
            from pantok.world_model.collapse import collapse_of

            report["collapse"] = collapse_of(model, *joined(states))
        return report


def held_out(names: tuple[str, ...], share: float) -> tuple[str, ...]:
    """The episodes that are kept from training: those of the lowest hash, none of one alone."""
    count = min(len(names) - 1, max(1, round(len(names) * share))) if share > 0 else 0
    ranked = sorted(names, key=rank)
    return tuple(sorted(ranked[:count]))


def rank(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
