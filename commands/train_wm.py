"""`pantok train-wm`: train a world model on stores of token streams."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common
from pantok.errors import OptionError, StoreError, VocabularyError

if TYPE_CHECKING:
    from pantok.formats.runs import RunFolder
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.trainer import Trainer

_LOG_EVERY = 10


@click.command("train-wm")
@click.argument("store", type=click.Path(path_type=Path))
@common.output("The folder of the run; an unfinished run that is there goes on.")
@click.option("--preset", default="tiny", show_default=True, help="tiny (minutes on two cores), small, base, large.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings in TOML, over the preset.")
@click.option("--layout", help="How streams become sequences: a preset, or a TOML file.  [default: default]")
@click.option("--steps", type=int, help="Steps of training in all.")
@click.option("--length", type=int, help="Ids of a window.")
@click.option("--batch", type=int, help="Windows of a step, over all processes.")
@click.option("--lr", "learning_rate", type=float, help="Learning rate.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), help="[default: adamw]")
@click.option("--latents", type=int, help="Dimensions of continuous latents to predict; 0 leaves them out.")
@click.option("--seed", type=int, help="Same data, settings and seed: same curve.  [default: 0]")
@common.device
@common.force
@common.dry_run
@common.as_json
@common.quiet
def command(
    store: Path,
    output: Path,
    preset: str,
    config_path: Path | None,
    device: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Train a world model on the token streams of a store.

    The same command goes on where a run was stopped or killed; under torchrun the work is shared. Episodes are held
    out (as many as `held_out` says) and measured in bits a second of experience, beside what simpler predictors need.

    \b
    Example:
      pantok train-wm home.zarr -o run/
      pantok train-wm home.zarr -o run/ --preset small --device cuda
      torchrun --nproc-per-node 2 -m pantok train-wm home.zarr -o run/
    """
    import torch

    from pantok.formats.runs import RunFolder
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.trainer import from_torchrun

    share, device = from_torchrun(device)
    run = common.Run(quiet or share.rank > 0, as_json)
    folder = RunFolder(output)
    config = TrainConfig.of(preset, config_path, **given)
    if folder.exists and not force:
        config = _same(folder, config, {k for k, v in given.items() if v is not None}, config_path, preset)
    elif share.rank == 0 and not dry_run:
        common.refuse_existing(output, force)
        folder.clear()
    _check_device(device)
    task = _Task(store, config, folder if folder.exists and not force else None)
    trainer = task.trainer(share, device)
    document = {
        "store": str(store),
        "vocabulary_id": task.data.vocabulary.id,
        "device": device,
        "parameters": trainer.model.parameters_count,
        "windows": len(task.data.windows),
        "held_out": list(task.held_out),
        "latent_dims": task.dims,
        "latent_modalities": task.modalities,
        "train": _plain(asdict(config)),
    }
    run.say(
        f"{trainer.model.parameters_count:,} parameters, {common.counted(len(task.training), 'episode')} to train on "
        f"({len(task.data.windows)} windows of {config.length} ids), {len(task.held_out)} held out"
    )
    if dry_run:
        run.end(document)
    if share.rank == 0 and not folder.exists:
        folder.create(document, task.data.vocabulary)
    if share.world > 1:
        torch.distributed.barrier()
    if folder.has_checkpoint:
        files = ("model", "optimizer", *(("average",) if config.ema else ()))
        tensors, state = folder.load("last", files)
        trainer.load(tensors, state["step"])
        if share.rank == 0:
            folder.rewind(state["step"])
        run.say(f"Goes on from step {trainer.step} of {config.steps}.")
    else:
        trainer.begin()
    final = _train(run, trainer, task, folder)
    if share.world > 1:
        torch.distributed.destroy_process_group()
    run.end({**document, **final} if share.rank == 0 else None)


class _Task:
    """The store, split by episode, and the windows to measure by."""

    def __init__(self, store: Path, config: TrainConfig, folder: RunFolder | None) -> None:
        import numpy as np

        from pantok.formats.store import Store
        from pantok.layout import Layout
        from pantok.loader import StreamDataset

        opened = Store.open(store)
        mine, its = opened.vocabulary_id, opened.vocabulary_id if folder is None else folder.config["vocabulary_id"]
        if mine != its:
            raise VocabularyError(
                store, f"is of vocabulary {mine[:12]}, the run is of {its[:12]}",
                "train a new run, -o names it",
            )  # fmt: skip
        names = tuple(opened.episodes)
        if not names:
            raise StoreError(store, "holds no episodes", "encode some first")
        self.config = config
        self.held_out = tuple(folder.config["held_out"]) if folder is not None else held_out(names, config.held_out)
        self.training = tuple(n for n in names if n not in set(self.held_out))
        layout = Layout.of(config.layout)
        self.dims: dict[str, int] = {}
        self.modalities: dict[str, str] = {}
        self.seconds = {}
        for name in names:
            stream = opened.read(name, check=False)
            clocks = [t.clock for t in stream.tracks.values() if t.ticks and layout.keeps(t.name)]
            starts = [int(c.at(np.zeros(1, np.int64))[0]) for c in clocks]
            stops = [start + c.duration_ns for start, c in zip(starts, clocks, strict=True)]
            self.seconds[name] = (max(stops) - min(starts)) / 1e9 if clocks else 0.0
            for track in stream.tracks.values():
                if track.latents is not None and config.latents and layout.keeps(track.name):
                    self.dims[track.modality] = min(config.latents, track.latents.values.shape[1])
                    self.modalities[track.name] = track.modality
        self.layout = layout
        if self.dims:
            from dataclasses import replace

            self.layout = replace(layout, latents=True)
        self.data = StreamDataset(
            store, self.layout, length=config.length, batch_size=config.batch, episodes=self.training, seed=config.seed,
            rank=0, world=1,
        )  # fmt: skip
        self.measured = StreamDataset(
            store, self.layout, length=config.length, batch_size=config.batch, episodes=self.held_out or self.training,
            shuffle=False, rank=0, world=1,
        )  # fmt: skip

    def trainer(self, share: Any, device: str) -> Trainer:
        import torch

        from pantok.world_model.model import WorldModel
        from pantok.world_model.trainer import Feed, Share, Trainer

        torch.manual_seed(self.config.seed)
        model = WorldModel(self.data.vocabulary, self.config, self.dims, self.modalities)
        trainer = Trainer(model, self.config, self.data, share=share, device=device)
        self.feed = Feed(self.measured, model, self.config, Share())
        return trainer

    def measure(self, trainer: Trainer, windows: int) -> dict[str, Any]:
        """Bits a second on what was held out; evenly spread windows."""
        from pantok.world_model.measure import measure

        total = len(self.measured.windows)
        chosen = sorted({round(k * (total - 1) / max(1, windows - 1)) for k in range(min(windows, total))})
        batch = self.config.batch
        found = measure(
            trainer.averaged(), (self.feed.inputs(0, chosen[k : k + batch]) for k in range(0, len(chosen), batch))
        )
        seconds = sum(self.seconds[name] for name in self.held_out or self.training)
        # Of a second's ids some are not predicted (actions, a window's first); their share is that of the windows.
        share = found.elements / (len(chosen) * self.config.length)
        return found.report(self.measured.windows.ids / max(1e-9, seconds) * share)


def held_out(names: tuple[str, ...], share: float) -> tuple[str, ...]:
    """The episodes that are kept from training: those of the lowest hash, none of one alone."""
    count = min(len(names) - 1, max(1, round(len(names) * share))) if share > 0 else 0
    ranked = sorted(names, key=lambda n: hashlib.sha256(n.encode()).digest())
    return tuple(sorted(ranked[:count]))


def _same(folder: RunFolder, config: TrainConfig, given: set[str], file: Path | None, preset: str) -> TrainConfig:
    """The configuration of the run that is there; what was asked for must not contradict it."""
    from pantok.config import from_mapping
    from pantok.world_model.config import TrainConfig

    stored = from_mapping(TrainConfig, folder.config["train"], f"{folder.path / 'config.json'}")
    asked = given if file is None else set(asdict(config))
    for name in sorted(asked | ({"preset"} if preset != "tiny" else set())):
        wanted, there = getattr(config, name), getattr(stored, name)
        if wanted != there:
            raise OptionError(
                f"{folder.path}: {name}", f"is {there} in the run that is there, not {wanted}",
                "leave it as it was, name another -o, or --force to begin anew",
            )  # fmt: skip
    return stored


def _check_device(device: str) -> None:
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise OptionError(f"--device {device}", "there is no such GPU here", "--device cpu")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _train(run: common.Run, trainer: Trainer, task: _Task, folder: RunFolder) -> dict[str, Any]:
    from pantok.world_model.trainer import steps_left

    config, first = trainer.config, trainer.share.rank == 0
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    best = min((r["bits_per_second"] for r in folder.metrics() if "bits_per_second" in r), default=float("inf"))
    found: dict[str, Any] = {}
    began, begun_at = time.monotonic(), trainer.step
    try:
        with run.progress() as bar:
            shown = bar.add_task("training", total=config.steps, completed=trainer.step, note="")
            for record in steps_left(trainer):
                rate = (trainer.step - begun_at) * config.batch * config.length / (time.monotonic() - began)
                ends = trainer.step == config.steps or bool(stopped)
                note = f"{record['bits_per_element']:.2f} bits an id · {rate:,.0f} ids/s"
                bar.update(shown, completed=trainer.step, note=note + _held(found))
                if first and (trainer.step % _LOG_EVERY == 0 or ends):
                    folder.log(record)
                if first and (trainer.step % config.evaluate_every == 0 or ends):
                    found = task.measure(trainer, config.evaluate_windows)
                    folder.log({"step": trainer.step, **found})
                    is_best = found["bits_per_second"] <= best
                    folder.save(trainer.step, trainer.tensors(), {"ids_per_second": rate}, is_best)
                    best = min(best, found["bits_per_second"])
                    run.say(f"step {trainer.step}: {note}{_held(found)}")
                if stopped:
                    run.say(f"Stopped at step {trainer.step}; the same command goes on from there.")
                    break
    finally:
        signal.signal(signal.SIGTERM, before)
        trainer.feed.close()
        task.feed.close()
    if not found and first:
        found = task.measure(trainer, config.evaluate_windows)
    if first:
        _summary(run, found)
    return {"step": trainer.step, "held_out_measured": found}


def _held(found: Mapping[str, Any]) -> str:
    return f" · held out {found['bits_per_second']:,.0f} bits/s" if found else ""


def _summary(run: common.Run, found: Mapping[str, Any]) -> None:
    rows = [
        [kind, f"{100 * v['share']:.1f}%", f"{v['bits_per_element']:.2f}", f"{v['bits_per_second']:,.1f}"]
        for kind, v in found["by_kind"].items()
    ]
    low, high = found["bits_per_second_95"]
    rows.append(["all", "100.0%", f"{found['bits_per_element']:.2f}", f"{found['bits_per_second']:,.1f}"])
    run.summary(["held out", "share of ids", "bits an id", "bits a second of experience"], rows)
    run.say(f"95% of resampled windows: {low:,.1f} to {high:,.1f} bits a second.")
