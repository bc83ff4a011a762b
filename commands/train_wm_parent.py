"""`pantok train-wm --from-run`: what a run goes on with that another one has learned."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.errors import OptionError, PantokError, VocabularyError

if TYPE_CHECKING:
    from torch import Tensor

    from pantok.formats.store import Store
    from pantok.vocabulary import Vocabulary
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.trainer import Trainer

MAY_CHANGE = {
    "length", "batch", "accumulate", "steps", "learning_rate", "warmup", "decay", "weight_decay", "clip", "ema", "seed",
    "precision", "compile", "action_loss", "action_dropout", "held_out", "flow", "ground", "evaluate_every",
    "evaluate_windows", "stages",
}  # fmt: skip
"""Settings that a run need not share with the one that it goes on from."""


class Parent:
    """A run that has a checkpoint. Raises StoreError for one that has none."""

    def __init__(self, path: Path) -> None:
        from pantok.commands.simulate import settings_of
        from pantok.formats.runs import RunFolder

        self.folder = RunFolder(path)
        self.document = self.folder.config
        self.config = settings_of(self.folder)
        files = ("model", "optimizer", *(("average",) if self.config.ema else ()))
        self._files, state = self.folder.load("last", files)
        self.step = int(state["step"])
        self.before = int((self.document.get("from_run") or {}).get("step", 0))

    @property
    def facts(self) -> dict[str, Any]:
        """For the configuration of the run that goes on."""
        return {
            "run": str(self.folder.path),
            "vocabulary_id": self.document["vocabulary_id"],
            "step": self.step + self.before,
        }

    def settings(self, preset: str, file: Path | None, given: dict[str, Any]) -> TrainConfig:
        """Its own, changed by what is given. Raises OptionError for what cannot be changed."""
        if preset != "tiny" and preset != self.config.preset:
            raise OptionError(f"--preset {preset}", f"is not that of {self.folder.path}, {self.config.preset}", _LEAVE)
        # Its modules are trained: they are not taken apart again.
        config = replace(self.config, stages={}).changed(file, **given)
        for name in sorted({f.name for f in fields(config)} - MAY_CHANGE):
            wanted, there = getattr(config, name), getattr(self.config, name)
            if wanted != there:
                raise OptionError(f"train {name}", f"is {there} in {self.folder.path}, not {wanted}", _LEAVE)
        return config

    def vocabulary_for(self, store: Store) -> Vocabulary | None:
        """Its own, if the store is older than that; else None: the store's."""
        from pantok.evolve.lineage import related

        mine = self.folder.vocabulary
        return mine if related(mine, store.vocabulary) and not store.vocabulary.reads(mine) else None

    def check(self, store: Path, vocabulary: Vocabulary) -> None:
        """Raises VocabularyError if `vocabulary`, under which the store is read, did not grow out of the run's."""
        mine = self.folder.vocabulary
        if not vocabulary.reads(mine):
            raise VocabularyError(
                self.folder.path,
                f"is of vocabulary {mine.id[:12]}, {store} is read under {vocabulary.id[:12]}, which did not grow out "
                "of it",
                f"name one that did with --vocab; `pantok vocab grow {self.folder.path / 'vocabulary'}` makes one",
            )

    def held_out(self, names: tuple[str, ...], share: float) -> tuple[str, ...]:
        """By the same line between hashes, so that what it kept from training stays so, what it trained on is not
        measured by, and of new episodes as many are kept as of its own; at least one, if its store is there to tell
        which are new. Those that `share` says if all that is none."""
        from pantok.commands.train_wm_task import held_out, rank
        from pantok.formats.store import Store

        line = max(map(rank, self.document["held_out"]), default=b"")
        kept = {n for n in names if rank(n) <= line}
        with suppress(PantokError):
            known = Store.open(self.document["store"]).episodes
            new = tuple(n for n in names if n not in known)
            if kept and not kept & set(new):
                kept |= set(held_out(new, share))
        return tuple(sorted(kept)) or held_out(names, share)

    def into(self, trainer: Trainer, counts: tuple[Tensor, Tensor]) -> None:
        """Gives a trainer that has begun what was learned. Raises VocabularyError."""
        from pantok.commands.simulate import model_of
        from pantok.world_model.growth import go_on
        from pantok.world_model.trainer import places_of

        old, _ = model_of(self.folder)
        places = places_of(old, self.config)
        go_on(trainer, counts, old, places, self._files, self.step + self.before)


_LEAVE = "leave it as it was; a new run needs no --from-run"
