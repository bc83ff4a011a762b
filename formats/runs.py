"""A training run on disk: what it was asked, what it measured, and checkpoints that are whole or not there.

    run/
        config.json             the configuration, the store, the vocabulary's id
        vocabulary/             a copy: the run can simulate and decode without the store
        observations/           what the loss in the space of observations is about, if the run has one
        metrics.jsonl           one line for each step that was logged, one for each evaluation
        tensorboard/            the same as event files, if that was asked for
        checkpoints/step-00000400/
            model.safetensors, average.safetensors, optimizer.safetensors, state.json
        last, best              links to checkpoints

A checkpoint is staged, forced to the disk and renamed, so that a kill leaves the one before it. metrics.jsonl is cut
back to the checkpoint on resuming, so that the file reads like that of an uninterrupted run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import OutputError, StoreError
from pantok.formats.store_disk import publish, reason, staged, sweep_stages, write_file
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.vocabulary import Vocabulary

FORMAT = 1
KIND = "pantok run"
_FILES = ("config.json", "metrics.jsonl", "last", "best", "wandb_id")
_FOLDERS = ("checkpoints", "vocabulary", "observations", "tensorboard")


class RunFolder:
    """The folder of one run. Raises OutputError for what cannot be written, StoreError for what is damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return (self.path / "config.json").is_file()

    @property
    def checkpoints(self) -> list[str]:
        """The names of those that are there, the oldest first."""
        return sorted(p.name for p in (self.path / "checkpoints").glob("step-*"))

    def create(self, config: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        """An empty run. config: JSON values."""
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
            if not (self.path / "vocabulary").exists():
                save_vocabulary(vocabulary, self.path / "vocabulary")
            text = json.dumps({"format": FORMAT, "kind": KIND, **config}, indent=2) + "\n"
            with staged(self.path, "config") as stage:
                write_file(stage / "config.json", text.encode())
                os.replace(stage / "config.json", self.path / "config.json")
        except OSError as error:
            raise OutputError(self.path, f"cannot be written: {reason(error)}", "choose another -o") from error

    @property
    def begun(self) -> bool:
        """Whether this is what a kill leaves of a run before its config.json is written."""
        if not self.path.is_dir():
            return False
        names = {p.name for p in self.path.iterdir() if not p.name.startswith(".stage-")}
        return "checkpoints" in names and names <= {*_FILES, *_FOLDERS} - {"config.json"}

    def may_replace(self) -> None:
        """Raises OutputError unless the folder is a run, what a kill left of one, empty, or not there: a store and a
        language model have a `vocabulary` and a `config.json`, too."""
        try:
            ours = json.loads((self.path / "config.json").read_text(encoding="utf-8")).get("kind") == KIND
        except FileNotFoundError:
            ours = not self.path.exists() or not any(self.path.iterdir()) or self.begun
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            raise OutputError(self.path, "is there and is not a run, so it is not replaced", "remove it or rename -o")

    def clear(self) -> None:
        """Removes the run. Raises OutputError for what is not one."""
        self.may_replace()
        if self.path.is_dir():
            sweep_stages(self.path)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    @property
    def config(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StoreError(self.path, "is not a run", "make one with `pantok train-wm STORE -o RUN`") from error
        except (OSError, ValueError) as error:
            raise StoreError(self.path / "config.json", f"cannot be read: {error}", "train again") from error
        if not isinstance(found, dict) or found.get("kind") != KIND:
            raise StoreError(self.path, "is not a run", "make one with `pantok train-wm STORE -o RUN`")
        if found.get("format") != FORMAT:
            raise StoreError(self.path, f"is of format {found.get('format')}", f"this pantok reads {FORMAT}")
        return dict(found)

    @property
    def vocabulary(self) -> Vocabulary:
        return load_vocabulary(self.path / "vocabulary")

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, np.ndarray]],
        state: Mapping[str, Any],
        best: bool,
        keep: int = 2,
    ) -> Path:
        """A checkpoint. tensors: by file (`model`, `average`, `optimizer`), by name. Keeps the newest and the best."""
        from safetensors.numpy import save

        folder = self.path / "checkpoints"
        name = f"step-{step:08d}"
        try:
            sweep_stages(folder)
            with staged(folder, name) as stage:
                for file, named in tensors.items():
                    write_file(
                        stage / f"{file}.safetensors", save({k: np.asarray(v, order="C") for k, v in named.items()})
                    )
                write_file(stage / "state.json", (json.dumps({"step": step, **state}) + "\n").encode())
                publish(stage, folder / name, replace=True)
            self._point("last", name)
            if best:
                self._point("best", name)
            kept = {self._pointed("last"), self._pointed("best")}
            for old in self.checkpoints[:-keep]:
                if old not in kept:
                    shutil.rmtree(folder / old, ignore_errors=True)
        except OSError as error:
            remedy = "free some space; the same command goes on from the last checkpoint"
            raise OutputError(folder / name, f"cannot be written: {reason(error)}", remedy) from error
        return folder / name

    def load(
        self, which: str = "last", files: tuple[str, ...] = ("model",)
    ) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
        """The tensors of a checkpoint (`last`, `best`, `step-00000400`) by file, and its state."""
        from safetensors.numpy import load

        name = self._pointed(which) if which in ("last", "best") else which
        folder = self.path / "checkpoints" / (name or "")
        if not name or not folder.is_dir():
            there = self.checkpoints
            remedy = (
                f"there are last, best, {', '.join(there)}" if there else "let `pantok train-wm` run to its first one"
            )
            raise StoreError(self.path, f"has no checkpoint {which}", remedy)
        try:
            tensors = {file: load((folder / f"{file}.safetensors").read_bytes()) for file in files}
            return tensors, json.loads((folder / "state.json").read_text(encoding="utf-8"))
        except Exception as error:  # safetensors raises errors of its own
            raise StoreError(folder, f"cannot be read: {error}", "remove it; the one before is used then") from error

    def put_arrays(self, name: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Keeps arrays and JSON facts under a name, whole or not at all."""
        from safetensors.numpy import save

        try:
            with staged(self.path, name) as stage:
                write_file(stage / "arrays.safetensors", save({k: np.asarray(v, order="C") for k, v in arrays.items()}))
                write_file(stage / "facts.json", json.dumps(facts).encode())
                publish(stage, self.path / name, replace=True)
        except OSError as error:
            raise OutputError(self.path / name, f"cannot be written: {reason(error)}", "free some space") from error

    def arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """What `put_arrays` kept; None if there is nothing."""
        from safetensors.numpy import load

        folder = self.path / name
        if not folder.is_dir():
            return None
        try:
            return load((folder / "arrays.safetensors").read_bytes()), json.loads((folder / "facts.json").read_text())
        except Exception as error:  # safetensors raises errors of its own
            raise StoreError(folder, f"cannot be read: {error}", "train again, --force replaces the run") from error

    @property
    def has_checkpoint(self) -> bool:
        return self._pointed("last") is not None

    def log(self, record: Mapping[str, Any]) -> None:
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every whole line of metrics.jsonl."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # what a kill left half written

    def rewind(self, step: int) -> None:
        """Cuts metrics.jsonl back to the lines of steps up to `step`."""
        kept = "".join(json.dumps(r) + "\n" for r in self.metrics() if r["step"] <= step)
        with staged(self.path, "metrics") as stage:
            write_file(stage / "metrics.jsonl", kept.encode())
            os.replace(stage / "metrics.jsonl", self.path / "metrics.jsonl")

    def _point(self, which: str, name: str) -> None:
        link = self.path / f".{which}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("checkpoints") / name)
        os.replace(link, self.path / which)

    def _pointed(self, which: str) -> str | None:
        try:
            name = Path(os.readlink(self.path / which)).name
        except OSError:
            return None
        return name if (self.path / "checkpoints" / name).is_dir() else None
