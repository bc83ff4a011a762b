"""The loop of `pantok train-wm`: steps, what is logged and where to, checkpoints, and what is shown meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pantok.commands import common, phrases

if TYPE_CHECKING:
    from rich.table import Table

    from pantok.commands.train_wm_task import Task
    from pantok.formats.metric_sinks import Sink
    from pantok.formats.runs import RunFolder
    from pantok.world_model.trainer import Trainer

_LOG_EVERY = 10
_UNITS = {"dB": "dB", "nmse": "of the spread"}


def train(
    run: common.Run, trainer: Trainer, task: Task, folder: RunFolder, sinks: Sequence[Sink] = ()
) -> dict[str, Any]:
    """Trains to the last step, or to a SIGTERM; what was measured last."""
    from pantok.world_model.trainer import steps_left

    config, first = trainer.config, trainer.share.rank == 0
    on = "held out" if task.held_out else "trained on"  # a single episode is not held out
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    best = min((r["bits_per_element"] for r in folder.metrics() if "bits_per_second" in r), default=float("inf"))
    found: dict[str, Any] = {}
    began, begun_at = time.monotonic(), trainer.step

    def log(record: Mapping[str, Any]) -> None:
        folder.log(record)
        for sink in sinks:
            sink.log(record)

    try:
        with run.progress(lambda: _panel(found, run.console.height, on)) as bar:
            shown = bar.add_task("training", total=config.steps, completed=trainer.step, note="")
            for record in steps_left(trainer):
                rate = (trainer.step - begun_at) * config.batch * config.length / (time.monotonic() - began)
                stops = trainer.agreed(bool(stopped))
                ends = trainer.step == config.steps or stops
                doing = f"{record['stage']} · " if len(trainer.stages) > 1 else ""
                note = f"{doing}{record['bits_per_element']:.2f} bits an id · {rate:,.0f} ids/s"
                bar.update(shown, completed=trainer.step, note=note + _held(found, on))
                if first and (trainer.step % _LOG_EVERY == 0 or ends):
                    log({**record, "ids_per_second": rate})
                looks = trainer.step % config.evaluate_every == 0 or ends
                if looks and trainer.sharded and not first:
                    trainer.averaged(), trainer.tensors()  # this rank's shares of what the first one measures and keeps
                if looks and first:
                    found = task.measure(trainer, config.evaluate_windows)
                    log({"step": trainer.step, **found})
                    is_best = found["bits_per_element"] <= best
                    folder.save(trainer.step, trainer.tensors(), {"ids_per_second": rate}, is_best)
                    best = min(best, found["bits_per_element"])
                    run.say(f"step {trainer.step}: {note}{_held(found, on)}")
                if stops:
                    run.say(f"Stopped at step {trainer.step}; the same command goes on from there.")
                    break
    finally:
        signal.signal(signal.SIGTERM, before)
        trainer.close()
        task.feed.close()
        for sink in sinks:
            sink.close()
    if trainer.step == begun_at:  # it had ended
        if first:
            found = task.measure(trainer, config.evaluate_windows)
        elif trainer.sharded:
            trainer.averaged()
    if first:
        _summary(run, found, on)
    return {"step": trainer.step, "held_out_measured": found}


def _held(found: Mapping[str, Any], on: str) -> str:
    if not found:
        return ""
    if found["bits_per_second"] is None:
        return f" · {on} {found['bits_per_element']:.2f} bits an id"
    return f" · {on} {found['bits_per_second']:,.0f} bits/s"


def _panel(found: Mapping[str, Any], height: int, on: str = "held out") -> Table | None:
    """What was measured, by track and, where there is room, by level."""
    if not found:
        return None
    tracks, ahead = found["by_track"], found.get("next_step", {})
    levels = sum(len(t["levels"]) for t in tracks.values()) + len(tracks) + 6 <= height
    rows = []
    for track, values in tracks.items():
        rows.append(
            [
                track,
                phrases.figure(values["bits_per_second"]),
                f"{values['bits_per_element']:.2f}",
                _ahead(ahead, track),
            ]
        )
        for level, its in values["levels"].items() if levels and len(values["levels"]) > 1 else ():
            name = level.partition(".")[2] or level
            rows.append([f"  {name}", phrases.figure(its["bits_per_second"]), f"{its['bits_per_element']:.2f}", ""])
    return common.table_of([on, "bits a second", "bits an id", "one step ahead (the last again)"], rows)


def _ahead(next_step: Mapping[str, Any], track: str) -> str:
    by = next_step.get(track)
    if by is None:
        return ""
    return f"{by['model']:.2f} {_UNITS[by['unit']]} ({by['copy_last']:.2f})"


def _summary(run: common.Run, found: Mapping[str, Any], on: str) -> None:
    from pantok.commands.evaluate_run import collapse_line, rows_by_kind

    run.summary([on, "share of ids", "bits an id", "bits a second of experience"], rows_by_kind(found))
    for track, by in found.get("next_step", {}).items():
        run.say(
            f"{track}, one step ahead: {by['model']:.2f} {_UNITS[by['unit']]}; the ridge {by['ridge']:.2f}, the last "
            f"again {by['copy_last']:.2f}."
        )
    if found.get("collapse"):
        run.say(collapse_line(found["collapse"]))
    if found["bits_per_second_95"] is None:
        low, high = found["bits_per_element_95"]
        run.say(f"95% of resampled windows: {low:.2f} to {high:.2f} bits an id; no time passes in what was measured.")
    else:
        low, high = found["bits_per_second_95"]
        run.say(f"95% of resampled windows: {low:,.1f} to {high:,.1f} bits a second.")
