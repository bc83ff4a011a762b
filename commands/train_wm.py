"""`pantok train-wm`: train a world model on stores of token streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases
from pantok.errors import OptionError

if TYPE_CHECKING:
    from pantok.commands.train_wm_parent import Parent
    from pantok.commands.train_wm_task import Task
    from pantok.formats.metric_sinks import Sink
    from pantok.formats.runs import RunFolder
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.trainer import Share


@click.command("train-wm")
@click.argument("store", type=common.STORE)
@common.output("The folder of the run; an unfinished run that is there goes on.")
@click.option("--preset", default="tiny", show_default=True, help="tiny (minutes on two cores), small, base, large.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings in TOML, over the preset.")
@click.option("--layout", help="How streams become sequences: a preset, or a TOML file.  [default: default]")
@click.option("--vocab", type=click.Path(path_type=Path), help="Read the store under a later vocabulary.")
@click.option(
    "--from-run", type=click.Path(path_type=Path),
    help="Go on with what another run learned, under a vocabulary that grew out of its own.",
)  # fmt: skip
@click.option(
    "--init-from", type=click.Path(path_type=Path), metavar="LLM",
    help="A pretrained language model as the backbone: a Hugging Face folder (Llama, Mistral, Qwen2, Qwen3).",
)  # fmt: skip
@click.option("--steps", type=int, help="Steps of training in all.")
@click.option("--length", type=int, help="Ids of a window.")
@click.option("--batch", type=int, help="Windows of a step, over all processes.")
@click.option("--lr", "learning_rate", type=float, help="Learning rate.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), help="[default: adamw]")
@click.option(
    "--objective",
    type=click.Choice(["generative", "latent", "ema", "vicreg", "sigreg"]),
    help="What moves the backbone: observations, or the JEPA family for comparison.  [default: generative]",
)
@click.option(
    "--align",
    type=click.Choice(["none", "frozen", "joint"]),
    help="What the loss in the space of observations moves: nothing, its own head alone, or all.  [default: joint]",
)
@click.option(
    "--staged", is_flag=True, default=None,
    help="Words, levels and latents apart first, then together; `stages` in --config says for how long.",
)  # fmt: skip
@click.option("--latents", type=int, help="Dimensions of continuous latents to predict; 0 leaves them out.")
@click.option("--seed", type=int, help="Same data, settings and seed: same curve.  [default: 0]")
@click.option("--fsdp", is_flag=True, help="Under torchrun: divide weights and moments over the processes (FSDP2).")
@click.option("--tensorboard", is_flag=True, help="Also write what is measured to RUN/tensorboard.")
@click.option("--wandb", metavar="PROJECT", help="Also send it to a project at Weights & Biases.")
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
    vocab: Path | None,
    from_run: Path | None,
    init_from: Path | None,
    fsdp: bool,
    tensorboard: bool,
    wandb: str | None,
    staged: bool | None,
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
      pantok train-wm home.zarr -o run/ --preset small --device cuda --tensorboard
      torchrun --nproc-per-node 2 -m pantok train-wm home.zarr -o run/ --fsdp
      pantok train-wm home.zarr -o run2/ --from-run run/ --vocab grown.vocab
      pantok train-wm home.zarr -o run3/ --init-from path/to/llm
    """
    import torch

    from pantok.commands.simulate import settings_of
    from pantok.commands.train_wm_loop import train
    from pantok.commands.train_wm_parent import Parent
    from pantok.commands.train_wm_pretrained import Pretrained
    from pantok.commands.train_wm_task import Task
    from pantok.formats.metric_sinks import wandb_package
    from pantok.formats.runs import RunFolder
    from pantok.formats.vocab import load_vocabulary
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.stages import APART
    from pantok.world_model.trainer import from_torchrun

    if wandb:
        wandb_package()
    if staged:
        given["stages"] = dict(APART)
    share, device = from_torchrun(device)
    if fsdp and share.world == 1:
        raise OptionError("--fsdp", "divides weights over processes, and there is one", "start it by torchrun")
    run = common.Run(quiet or share.rank > 0, as_json)
    folder = RunFolder(output)
    if from_run is not None and from_run.resolve() == output.resolve():
        raise OptionError(f"--from-run {from_run}", "is the run to be written", "name another -o")
    goes_on = folder.exists and not force
    parent = None if from_run is None or goes_on else Parent(from_run)
    if parent is not None:
        config = parent.settings(preset, config_path, given)
    elif goes_on and from_run is not None:
        config = settings_of(folder).changed(config_path, **given)
    else:
        config = TrainConfig.of(preset, config_path, **given)
    llm = None if init_from is None else Pretrained(init_from, from_run, folder if goes_on else None)
    if llm is not None:
        config = llm.settings(config)
    if share.world > 1:
        torch.distributed.barrier()  # all have looked before one makes the folder
    if goes_on:
        config = _same(folder, config, {k for k, v in given.items() if v is not None}, config_path, preset, from_run)
    elif share.rank == 0:
        common.refuse_existing(output, force or folder.begun)
        folder.may_replace()
    common.check_device(device)
    vocabulary = None if vocab is None else load_vocabulary(vocab)
    task = Task(store, config, folder if goes_on else None, share, run, vocabulary, parent)
    if llm is not None:
        llm.check(task.data.vocabulary)
    trainer = task.trainer(device)
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
        "init_from": llm.facts if llm else folder.config.get("init_from") if goes_on else None,
        "from_run": parent.facts if parent else folder.config.get("from_run") if goes_on else None,
    }
    run.say(
        f"{trainer.model.parameters_count:,} parameters, {phrases.counted(len(task.training), 'episode')} to train on "
        f"({len(task.data.windows)} windows of {config.length} ids), {len(task.held_out)} held out"
    )
    if config.stages:
        run.say("Stages: " + ", ".join(f"{s.name} to step {s.stop}" for s in trainer.stages))
    if dry_run:
        _end(run, share, document)
    if share.rank == 0:
        if not goes_on:
            folder.clear()  # not before all that was asked for has turned out to be there
            folder.create(document, task.data.vocabulary)
        if task.grounding is not None and folder.arrays("observations") is None:  # a kill may have come between
            folder.put_arrays("observations", *task.grounding.to_arrays())
    if share.world > 1:
        torch.distributed.barrier()
    if folder.has_checkpoint:
        files = ("model", "optimizer", *(("average",) if config.ema else ()))
        tensors, state = folder.load("last", files)
        trainer.load(tensors, state["step"])
        trainer.before = (document["from_run"] or {}).get("step", 0)
        if share.rank == 0:
            folder.rewind(state["step"])
        ended = trainer.step >= config.steps
        run.say(
            f"Has done all of its {config.steps} steps: `--from-run {output} -o NEW_RUN` goes on." if ended
            else f"Goes on from step {trainer.step} of {config.steps}."
        )  # fmt: skip
    else:
        counts = trainer.begin()
        if parent is not None:
            parent.into(trainer, counts)
            _say_growth(run, parent, task)
        if llm is not None:
            run.say(llm.into(trainer))
    if fsdp:
        trainer.shard()
    sinks = _sinks(folder, document, trainer.step, tensorboard, wandb) if share.rank == 0 else []
    final = train(run, trainer, task, folder, sinks)
    if share.world > 1:
        torch.distributed.barrier()  # none takes the group down while another still measures
        torch.distributed.destroy_process_group()
    _end(run, share, {**document, **final})


def _end(run: common.Run, share: Share, document: Mapping[str, Any]) -> None:
    """Says what came of it, once, and ends; of several ranks each at once, when everything is written and closed.

    The interpreter is not taken down step by step then: a thread of Gloo that is still at it asks for its lock, which
    ends the thread where C++ allows none to end, and the process by SIGABRT (one run in some thirty on a loaded
    machine).
    """
    try:
        run.end(document if share.rank == 0 else None)
    except SystemExit as end:
        if share.world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


def _same(
    folder: RunFolder, config: TrainConfig, given: set[str], file: Path | None, preset: str, parent: Path | None
) -> TrainConfig:
    """The configuration of the run that is there; what was asked for must not contradict it."""
    from pantok.commands.simulate import settings_of

    stored, born = settings_of(folder), folder.config.get("from_run")
    if parent is not None and (born is None or Path(born["run"]) != parent):
        raise OptionError(
            f"{folder.path}", f"does not go on from {parent}" + (f" but from {born['run']}" if born else ""),
            "name another -o, or --force to begin anew",
        )  # fmt: skip
    asked = given if file is None else set(asdict(config))
    for name in sorted(asked | ({"preset"} if preset != "tiny" else set())):
        wanted, there = getattr(config, name), getattr(stored, name)
        if wanted != there:
            raise OptionError(
                f"{folder.path}: {name}", f"is {there} in the run that is there, not {wanted}",
                "leave it as it was, name another -o, or --force to begin anew",
            )  # fmt: skip
    return stored


def _say_growth(run: common.Run, parent: Parent, task: Task) -> None:
    more = task.vocabulary.size - parent.folder.vocabulary.size
    grown = f"; {phrases.counted(more, 'id')} more, made of those that were there" if more else ""
    run.say(f"Goes on with what {parent.folder.path} learned in {parent.facts['step']} steps{grown}.")


def _sinks(
    folder: RunFolder, document: Mapping[str, Any], step: int, tensorboard: bool, wandb: str | None
) -> list[Sink]:
    from pantok.formats.metric_sinks import TensorBoard, WandB

    found: list[Sink] = [TensorBoard(folder.path, step)] if tensorboard else []
    return [*found, WandB(wandb, folder.path, document)] if wandb else found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
