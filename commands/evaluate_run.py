"""`pantok eval RUN --on STORE`: what a world model knows of recordings that it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.commands import common, phrases
from pantok.errors import StoreError
from pantok.formats.addresses import Place, is_remote

if TYPE_CHECKING:
    from pantok.vocabulary import Vocabulary
    from pantok.world_model.foresight import Foreseen

COLUMNS = ["what is predicted", "share of ids", "bits an id", "bits a second"]
SHOWN = 6
"""Points whose frames go into the page."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """windows: to measure bits on. points: to simulate from, over horizon_s seconds. html: a page to write."""

    checkpoint: str = "best"
    windows: int = 64
    points: int = 12
    horizon_s: float = 1.0
    seed: int = 0
    html: Path | None = None


def evaluate(run: common.Run, folder: Path, store: Path | None, episodes: tuple[str, ...], asked: Asked) -> None:
    """Raises OptionError, StoreError, VocabularyError."""
    from pantok.commands.run_vocabulary import of_run
    from pantok.commands.run_windows import RunWindows
    from pantok.encode import Codec
    from pantok.formats.runs import RunFolder
    from pantok.formats.store import Store
    from pantok.world_model.beside import next_step
    from pantok.world_model.collapse import collapse_of
    from pantok.world_model.drawing import SimulateConfig
    from pantok.world_model.foresight import action_information, foresee, points
    from pantok.world_model.inputs import joined
    from pantok.world_model.measure import measure

    stored = RunFolder(folder).config
    if store is None:
        store = Place(stored["store"])
        if not (is_remote(store) or store.exists()):
            raise StoreError(folder, f"was trained on {store}, which is not there", "--on names where it is now")
        wanted = tuple(stored["held_out"])
        what = f"what was held out of {store}" if wanted else f"all of {store}, of which nothing was held out"
        run.say(f"On {what}; --on names another store.")
    else:
        wanted = ()
    opened = Store.open(store)
    vocabulary = of_run(store, opened, RunFolder(folder), "encode the recordings under the run's vocabulary")
    if episodes:
        wanted = tuple(common.choose(opened.episodes, episodes, "--episode"))
    names = wanted or tuple(opened.episodes)
    mine = RunWindows.of(folder, store, vocabulary, names, asked.windows, asked.checkpoint, pictures=True)
    model, layout, streams, grounding, steps = mine.model, mine.layout, mine.streams, mine.grounding, mine.steps
    batches = list(mine.batches())
    states: list[Any] = []
    with run.progress() as bar:
        task = bar.add_task("bits", total=1 + asked.points, note="")
        found = measure(model, batches, states)
        rate = mine.rate(found.elements)
        report = found.report(rate)
        foretold = {}
        collapse = collapse_of(model, *joined(states)) if states else {}
        if grounding is not None and model.grounded is not None and steps is not None and states:
            foretold = next_step(grounding, model.grounded, steps, *joined(states))
        baselines = _baselines(run, stored, vocabulary, layout, batches, found, rate)
        bar.advance(task)
        codec, horizon_ns = Codec(vocabulary), round(asked.horizon_s * 1e9)
        likeliest = SimulateConfig(temperature=0, seed=asked.seed)
        seen: list[Foreseen] = []
        for name, start_ns in points(streams, asked.points, horizon_ns, asked.seed):
            bar.update(task, note=f"{name} at {start_ns / 1e9:.1f} s")
            one = foresee(model, layout, codec, streams[name], start_ns, horizon_ns, likeliest)
            seen += [one] if one is not None else []
            bar.advance(task)
    actions = action_information(model, batches, vocabulary.control("gap"))
    document = {
        "run": str(folder), "store": str(store), "episodes": list(names), "checkpoint": asked.checkpoint, **report,
        "baselines": baselines, "next_step": foretold, "collapse": collapse, "actions": actions,
        "foresight": _foresight(seen),
    }  # fmt: skip
    _show(run, document)
    if asked.html is not None:
        _page(asked.html, document, seen, list(RunFolder(folder).metrics()))
    run.end({**document, "html": None if asked.html is None else str(asked.html)})


def _baselines(
    run: common.Run, stored: dict[str, Any], vocabulary: Vocabulary, layout: Any, batches: list[Any], found: Any,
    rate: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Bits a second (an id, where no time passes) of a trigram of the run's training episodes and of xz, for the same
    predicted ids. The n-gram is left out, and it is said, where the store that the run was trained on is not there."""
    import numpy as np

    from pantok.errors import PantokError
    from pantok.evolve.compositions import makeup_of
    from pantok.formats.store import Store
    from pantok.loader import StreamDataset
    from pantok.world_model.beside import counted, ngram_bits, xz_rate
    from pantok.world_model.intervals import resampled

    unit, scale = _unit(rate), 1.0 if rate is None else rate
    xz = xz_rate(batches, scale)
    baselines: dict[str, Any] = {f"xz_{unit}": xz["value"], f"xz_{unit}_95": xz["95"]}
    try:
        held, trained_on = set(stored["held_out"]), Place(stored["store"])
        names = tuple(n for n in Store.open(trained_on).episodes if n not in held)
        length = int(stored["train"]["length"])
        train = StreamDataset(
            trained_on, layout, length=length, batch_size=32, episodes=names, shuffle=False, rank=0, world=1,
            vocabulary=vocabulary, columns=("ids", "document"),
        )  # fmt: skip
    except PantokError as error:
        run.say(f"No n-gram beside it: {error}")
        return baselines
    total = len(train.windows)
    read = (train.batch(0, list(range(k, min(k + 32, total)))) for k in range(0, total, 32))
    ngram = counted(read, vocabulary.size, makeup_of(vocabulary))
    elements = np.array([e for e, _ in found.windows])
    spent = resampled(ngram_bits(ngram, batches), elements, scale)
    return {
        **baselines, f"ngram_{unit}": spent["value"], f"ngram_{unit}_95": spent["95"], "ngram_episodes": len(names),
    }  # fmt: skip


def _unit(rate: float | None) -> str:
    return "bits_per_element" if rate is None else "bits_per_second"


def _foresight(seen: list[Foreseen]) -> dict[str, Any]:
    import numpy as np

    from pantok.world_model.intervals import resampled

    if not seen:
        return {}
    each = [s.psnr() for s in seen]
    gain = np.array([e["simulated"] - e["copy_last"] for e in each])
    return {
        "points": len(seen),
        "psnr_simulated": float(np.mean([e["simulated"] for e in each])),
        "psnr_copy_last": float(np.mean([e["copy_last"] for e in each])),
        "gain_95": resampled(gain, np.ones(len(gain)))["95"],
    }


def rows_by_kind(document: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        [kind, f"{100 * v['share']:.1f}%", f"{v['bits_per_element']:.2f}", phrases.figure(v["bits_per_second"])]
        for kind, v in document["by_kind"].items()
    ]
    whole = phrases.figure(document["bits_per_second"])
    return [*rows, ["all", "100.0%", f"{document['bits_per_element']:.2f}", whole]]


def _lines(document: dict[str, Any]) -> list[str]:
    unit = _unit(document["bits_per_second"])
    digits, words = (0, "bits a second of experience") if document["bits_per_second"] is not None else (2, "bits an id")
    low, high = document[f"{unit}_95"]
    lines = [
        f"{document[unit]:,.{digits}f} {words} (95% of resampled windows: {low:,.{digits}f} to {high:,.{digits}f}); "
        f"for the same ids {_rivals(document['baselines'], unit, digits)}."
    ]
    for track, values in document["next_step"].items():
        lines.append(_next_line(track, values))
    actions, foresight, switch = document["actions"], document["foresight"], document["switch"]
    if switch:
        lines.append(
            f"The switch: {switch['cross_entropy_bits']:.3f} bits an id to say what speaks next, "
            f"{switch['entropy_bits']:.3f} expected; calibration error {switch['calibration_error']:.4f}"
            f"{_between(switch['calibration_error_95'], 4)}."
        )
    for modality, found in document["latents"].items():
        lines.append(
            f"Latents of {modality}: {found['bits_per_value']:.2f} bits a value, to a step of 1/"
            f"{found['steps_per_deviation']} of its deviation."
        )
    if document["collapse"]:
        lines.append(collapse_line(document["collapse"]))
    if actions:
        lines.append(
            f"What is observed costs {actions['recorded']:.3f} bits an id knowing the actions, "
            f"{actions['without']:.3f} without them, {actions['shuffled']:.3f} with those of other times; "
            f"they tell {actions['information']:.4f} bits an id{_between(actions['information_95'], 4)}."
        )
    if foresight:
        lines.append(
            f"Simulated frames: {foresight['psnr_simulated']:.2f} dB, the last one repeated: "
            f"{foresight['psnr_copy_last']:.2f} dB, at {foresight['points']} points."
        )
    return lines


def _rivals(baselines: dict[str, Any], unit: str, digits: int) -> str:
    named = ((f"ngram_{unit}", "a trigram of the training episodes"), (f"xz_{unit}", "xz"))
    said = [
        f"{words} needs {baselines[key]:,.{digits}f}{_between(baselines[f'{key}_95'], digits)}"
        for key, words in named
        if key in baselines
    ]
    return ", ".join(said)


def _between(interval: list[float] | None, digits: int) -> str:
    return "" if interval is None else f" ({interval[0]:,.{digits}f} to {interval[1]:,.{digits}f})"


def _next_line(track: str, values: dict[str, Any]) -> str:
    digits, unit = (2, " dB") if values["unit"] == "dB" else (4, " of the variance is missed")
    said = [
        f"{words} {values[name]['value']:.{digits}f}{_between(values[name]['95'], digits)}"
        for name, words in (("model", "the model"), ("ridge", "the ridge"), ("copy_last", "the last one again"))
    ]
    return f"The next step's {track}: {', '.join(said)}{unit}."


def collapse_line(found: Mapping[str, float]) -> str:
    """What `pantok.world_model.collapse.collapse_of` found, for people."""
    return (
        f"Codes of observations: effective rank {found['effective_rank']:.1f} of {found['of']:.0f}, least deviation "
        f"{found['least_std']:.3g}; a linear probe finds {found['probe_r2_now']:.2f} of what is seen now and "
        f"{found['probe_r2_next']:.2f} of what comes next (R2)."
    )


def _show(run: common.Run, document: dict[str, Any]) -> None:
    title = f"{document['run']} on {phrases.counted(len(document['episodes']), 'episode')} of {document['store']}"
    run.table(title, COLUMNS, rows_by_kind(document))
    for line in _lines(document):
        run.say(line)


def _page(path: Path, document: dict[str, Any], seen: list[Foreseen], metrics: list[dict[str, Any]]) -> None:
    import numpy as np

    from pantok.formats.report_run import Strip, write_run_page

    strips = []
    for one in seen[:SHOWN]:
        psnr = one.psnr()
        figures = f"{psnr['simulated']:.1f} dB, copied {psnr['copy_last']:.1f} dB"
        title = f"{one.episode} at {one.start_ns / 1e9:.2f} s: {figures}"
        still = np.broadcast_to(one.before[None], one.came.shape)
        rows = {"what came": one.came, "simulated": one.simulated, "the last frame, repeated": still}
        strips.append(Strip(title, rows, one.rate_hz))
    title = f"{document['run']} on {document['store']}"
    write_run_page(path, title, _lines(document), COLUMNS, rows_by_kind(document), strips, metrics)
