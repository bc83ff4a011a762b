"""`pantok train-wm --init-from`: a pretrained language model as the backbone of a new run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.errors import OptionError

if TYPE_CHECKING:
    from pantok.formats.runs import RunFolder
    from pantok.vocabulary import Vocabulary
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.trainer import Trainer


class Pretrained:
    """The folder of a language model. run: the run that is there and goes on, which has it already. Raises InputError
    for a folder that is none, OptionError where it cannot be what was asked for."""

    def __init__(self, path: Path, from_run: Path | None, run: RunFolder | None) -> None:
        from pantok.formats.pretrained import PretrainedFolder

        if from_run is not None:
            raise OptionError("--init-from", "and --from-run exclude each other", "a run goes on with its own backbone")
        self._source = PretrainedFolder(path)
        self.facts: dict[str, Any] = {
            "path": str(path),
            "architecture": (self._source.config.get("architectures") or ["nothing"])[0],
            "sha256": self._source.digest,
        }
        there = None if run is None else run.config.get("init_from")
        if run is not None and (there or {}).get("sha256") != self.facts["sha256"]:
            born = "without one" if there is None else f"from {there['path']}"
            raise OptionError(
                f"{run.path}", f"began {born}, not from {path}", "name another -o, or --force to begin anew"
            )

    def settings(self, config: TrainConfig) -> TrainConfig:
        """With the language model's width, depth and heads."""
        from pantok.world_model.config import PRESETS
        from pantok.world_model.pretrained import backbone_of

        mine = backbone_of(self._source.config)
        if config.backbone not in (PRESETS[config.preset].backbone, mine):
            raise OptionError("[backbone] and --init-from", "both say what the backbone is", "leave the table out")
        return replace(config, backbone=mine)

    def check(self, vocabulary: Vocabulary) -> None:
        """Raises VocabularyError unless text has the ids that the language model knows."""
        from pantok.world_model.pretrained import check_text

        check_text(self._source, vocabulary)

    def into(self, trainer: Trainer) -> str:
        """Puts it into a trainer that has begun; what to say of it."""
        from pantok.world_model.pretrained import fill

        known = fill(trainer.model, self._source)
        trainer.average_anew()
        facts = self.facts
        return f"The backbone is {facts['architecture']} of {facts['path']}, which knows {known:,} of the ids."
