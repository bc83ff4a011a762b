"""`pantok simulate`: what a world model expects to happen next, as video, sound, motion and text."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases
from pantok.errors import InputError, OptionError
from pantok.formats.addresses import Place

if TYPE_CHECKING:
    import numpy as np

    from pantok.commands.decode_part import Plan
    from pantok.encode import Codec
    from pantok.formats.runs import RunFolder
    from pantok.layout import Layout
    from pantok.stream import TokenStream, TrackTokens
    from pantok.world_model.config import TrainConfig
    from pantok.world_model.model import WorldModel

_LONGEST_NS = 24 * 3600 * 10**9
_WRITTEN = (".mp4", ".wav", ".parquet", ".srt", ".txt", ".jsonl")


@click.command("simulate")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--from", "origin", required=True, metavar="STORE:EPISODE@TIME", help="Where it begins.")
@click.option("--for", "duration", default="5s", show_default=True, metavar="TIME", help="How long to simulate.")
@click.option(
    "--actions", default="keep", show_default=True, metavar="keep|FILE|text:WORDS",
    help="keep: those recorded, then the last again; a table of actions from there on; words that are said.",
)  # fmt: skip
@common.output(
    "The file to write, such as future.mp4 (.wav of sound alone); motion and text are written beside it.",
    required=False,
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with what came and what was simulated.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Futures to draw.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="0 takes the code of least error.",
)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True)
@click.option("--checkpoint", default="best", show_default=True, help="best, last, or step-00000400.")
@common.seed
@common.device
@common.force
@common.as_json
@common.quiet
def command(
    run_folder: Path, origin: str, duration: str, actions: str, output: Path | None, html: Path | None, samples: int,
    temperature: float, top_p: float, checkpoint: str, seed: int, device: str, force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Simulate the future of an episode with a trained world model.

    \b
    Example:
      pantok simulate run/ --from home.zarr:kitchen-03@12s --for 5s -o future.mp4
      pantok simulate run/ --from home.zarr:arm-01@2 --actions push.csv --samples 4 -o out/future.mp4
      pantok simulate run/ --from home.zarr:kitchen-03@12s --samples 3 --html sheet.html
    """
    from pantok.commands.evaluate import may_write
    from pantok.commands.run_vocabulary import of_run
    from pantok.commands.simulate_sheet import Sheet
    from pantok.encode import Codec
    from pantok.evolve.lineage import translated
    from pantok.formats.report_futures import write_futures_page
    from pantok.formats.runs import RunFolder
    from pantok.formats.store import Store
    from pantok.world_model.drawing import SimulateConfig
    from pantok.world_model.simulate import Simulation

    run = common.Run(quiet, as_json)
    if output is None and html is None:
        raise OptionError("-o", "is missing", "name a file such as future.mp4, or a page with --html")
    if html is not None:
        may_write(html, force)
    stem = None if output is None else _stem(output)
    store, episode, at_ns = origin_of(origin)
    length_ns = time_ns(duration, "--for")
    if length_ns > _LONGEST_NS:
        raise OptionError(f"--for {duration}", "is more than a day, and is held in memory", "simulate for less")
    source = Store.open(store)
    name, *others = common.choose(source.episodes, (episode,), "episode")
    if others:
        raise OptionError(f"episode {episode}", f"is {1 + len(others)} of them: {name}, {others[0]} …", "name one")
    remedy = "train a run on this store, or encode the recording under the run's vocabulary"
    vocabulary = of_run(store, source, RunFolder(run_folder), remedy)
    stream = translated(vocabulary, source.vocabulary, source.read(name))
    common.check_device(device)
    model, layout = load_model(run_folder, checkpoint, device)
    codec = Codec(vocabulary)
    first, end = common.span_ns(stream)
    start_ns = first + at_ns
    if not first <= start_ns <= end:
        raise OptionError(f"--from {origin}", f"is outside of {name}, which lasts {(end - first) / 1e9:g} s")
    given, words = _actions(run, actions, stream, codec, start_ns)
    stems: list[str] = []
    if output is not None:
        stems = [f"{stem}-{k + 1}" if samples > 1 else str(stem) for k in range(samples)]
        for stem in stems:
            for future_path in _plan(codec, stream, output.parent, stem, (start_ns, start_ns + length_ns)).outputs:
                common.refuse_existing(future_path, force)
    written: list[str] = []
    sheet: Sheet | None = None
    began, steps, begun_ns = time.monotonic(), 0, None
    with run.progress() as bar:
        for number in range(samples):
            simulation = Simulation(
                model, layout, stream, start_ns, start_ns + length_ns, actions=given, words=words,
                config=SimulateConfig(temperature=temperature, top_p=top_p, seed=seed + number),
            )  # fmt: skip
            if not simulation.steps:
                raise OptionError(
                    f"--for {duration}", f"is so short that nothing of {name} begins in it: all is as recorded",
                    "simulate for longer",
                )  # fmt: skip
            shown = bar.add_task(f"future {number + 1}", total=simulation.steps, note="")
            for step in simulation:
                begun_ns = step.time_ns if begun_ns is None else begun_ns
                steps += 1
                bar.advance(shown)
            future, span = simulation.stream, (start_ns, start_ns + length_ns)
            if output is not None:
                written += _write(codec, future, output.parent, stems[number], span, force)
            if html is not None:
                sheet = sheet or Sheet(codec, stream, future, *span)
                sheet.add(f"future {number + 1}" if samples > 1 else "simulated", future)
    seconds = time.monotonic() - began
    if sheet is not None and html is not None:
        facts = {
            "run": str(run_folder), "checkpoint": checkpoint, "from": f"{store}:{name} at {at_ns / 1e9:g} s",
            "for": f"{length_ns / 1e9:g} s", "actions": actions, "temperature": f"{temperature:g}",
            "top-p": f"{top_p:g}", "seed": str(seed), "steps": str(steps),
        }  # fmt: skip
        title = f"{phrases.counted(samples, 'future')} of {name} from {at_ns / 1e9:g} s on"
        write_futures_page(html, title, facts, sheet.parts())
        written.append(str(html))
    for path in written:
        run.say(f"Wrote {path}")
    run.say(f"{phrases.counted(steps, 'step')} in {phrases.human_seconds(seconds)}.")
    if begun_ns is not None and begun_ns > start_ns:
        run.say(f"Simulated from {(begun_ns - first) / 1e9:g} s on; what had begun before is as it was recorded.")
    document = {
        "episode": name,
        "start_ns": start_ns,
        "stop_ns": start_ns + length_ns,
        "simulated_from_ns": begun_ns,
        "steps": steps,
        "written": written,
        "psnr_db": {} if sheet is None else sheet.psnr_db,
    }
    run.end(document)


def origin_of(text: str) -> tuple[Path, str, int]:
    """Store, episode and nanoseconds of `home.zarr:kitchen-03@12s`. Raises OptionError."""
    where, at, instant = text.rpartition("@")
    if not at:
        where, instant = text, "0"
    store, colon, episode = where.rpartition(":")
    if not colon or not store or not episode:
        raise OptionError(f"--from {text}", "does not name a store and an episode", "e.g. home.zarr:kitchen-03@12s")
    return Place(store), episode, time_ns(instant, "--from")


def _stem(output: Path) -> str:
    """The name of what is written without the suffix, which follows from what is written. Raises OptionError."""
    if output.is_dir():
        raise OptionError(output, "is a folder", "-o names a file, such as future.mp4")
    if output.suffix in _WRITTEN:
        return output.stem
    if re.fullmatch(r"\.[A-Za-z]\w*", output.suffix):
        raise OptionError(output, "cannot be written", f"simulate writes {', '.join(_WRITTEN)}")
    return output.name


def time_ns(text: str, flag: str) -> int:
    """`12s`, `12.5` or `1:02.5` as nanoseconds. Raises OptionError."""
    try:
        return int(common.SECONDS.convert(text.removesuffix("s"), None, None))
    except click.BadParameter as error:
        raise OptionError(flag, error.message) from error


def load_model(folder: Path, checkpoint: str, device: str) -> tuple[WorldModel, Any]:
    """The model of a run (its averaged weights where they are kept), and its layout. Raises StoreError, OptionError."""
    import torch

    from pantok.formats.runs import RunFolder

    run = RunFolder(folder)
    model, layout = model_of(run)
    which = "average" if model.config.ema else "model"
    tensors, _ = run.load(checkpoint, (which,))
    model.load_state_dict({k: torch.from_numpy(v) for k, v in tensors[which].items()})
    return model.to(device).eval(), layout


def model_of(run: RunFolder) -> tuple[WorldModel, Layout]:
    """The model of a run without what it learned, and its layout. Raises StoreError, OptionError."""
    from pantok.layout import Layout
    from pantok.world_model.grounding import Grounding
    from pantok.world_model.model import WorldModel

    stored, config = run.config, settings_of(run)
    layout = replace(Layout.of(config.layout), latents=bool(stored["latent_dims"]))
    vocabulary, kept = run.vocabulary, run.arrays("observations") if config.align != "none" else None
    grounding = None if kept is None else Grounding.from_arrays(*kept, vocabulary, layout)
    return WorldModel(vocabulary, config, stored["latent_dims"], stored["latent_modalities"], grounding), layout


def settings_of(run: RunFolder) -> TrainConfig:
    """The settings that a run was made with. Raises StoreError, OptionError."""
    from pantok.world_model.config import TrainConfig

    return TrainConfig.stored(run.config["train"], run.path / "config.json")


def _actions(
    run: common.Run, actions: str, stream: TokenStream, codec: Codec, start_ns: int
) -> tuple[Mapping[str, TrackTokens] | None, np.ndarray | None]:
    """Encoded action tracks and the ids of words, as `--actions` says."""
    if actions == "keep":
        return None, None
    if actions.startswith("text:"):
        import numpy as np

        from pantok.experience import Clock, Track

        said = np.empty(1, object)
        said[0] = actions.removeprefix("text:")
        track = Track.of_array("text", said, Clock.irregular(np.array([start_ns])))
        tokens = codec.tokenizer("text").encode(track)
        return None, codec.vocabulary.ids("text", 0, tokens.levels[0].codes)
    from pantok import tokenizers
    from pantok.formats.folder import ReadOptions, find_episodes, read_episode

    found = find_episodes([Path(actions)], run.problem) if actions else []
    if len(found) != 1:
        many = f"holds {len(found)} recordings" if found else "holds no table of actions"
        raise InputError(actions or "--actions", many, "give a .csv, .parquet or .npz")
    mine = [t for t in stream.tracks if t.partition(".")[0] == "action"]
    read = read_episode(found[0], ReadOptions(), run.problem)
    given: dict[str, Any] = {}
    for name, track in read.tracks.items():
        if name not in mine and not (len(read.tracks) == len(mine) == 1):
            continue
        name = name if name in mine else mine[0]
        like = stream.tracks[name]
        if len(track.channels) != len(like.channels):
            raise InputError(
                f"{actions}: {name}", f"has {len(track.channels)} channels, the recording {len(like.channels)}",
                f"give {', '.join(like.channels)}",
            )  # fmt: skip
        settings = stream.parameters.get("numeric", {})
        given[name] = codec.tokenizer("numeric").encode(track, tokenizers.options_of("numeric", settings))
    if not given:
        raise InputError(
            actions, "has none of the recording's actions", f"name its columns {', '.join(mine) or 'action'}"
        )
    return given, None


def _plan(codec: Codec, stream: TokenStream, folder: Path, stem: str, range_ns: tuple[int, int]) -> Plan:
    from pantok.commands.decode_part import Decoding, Plan

    return Plan(Decoding(codec, None, range_ns), replace(stream, id=stem), folder, lossless=False)


def _write(
    codec: Codec, stream: TokenStream, folder: Path, stem: str, range_ns: tuple[int, int], force: bool
) -> list[str]:
    from pantok.formats.files import make_folder

    written = []
    make_folder(folder)
    for path, write in _plan(codec, stream, folder, stem, range_ns).outputs.items():
        common.refuse_existing(path, force)
        write(path)
        written.append(str(path))
    return written
