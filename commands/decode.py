"""`pantok decode`: token streams back into files that a person can open."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pantok.commands import common
from pantok.commands.decode_part import Decoding, Plan
from pantok.errors import OptionError, OutputError, PantokError


@click.command("decode")
@click.argument("store", type=common.STORE)
@common.output("The folder to write to.")
@click.option("--episode", "episodes", multiple=True, help="Decode this episode (or pattern) alone; may be repeated.")
@click.option("--track", "tracks", multiple=True, help="Decode this track (or pattern) alone; may be repeated.")
@click.option("--levels", type=click.IntRange(min=1), help="Use the first LEVELS levels of each track only.")
@click.option("--start", "start_ns", type=common.SECONDS, help="Begin at this time (12.5 or 1:02.5).")
@click.option("--end", "end_ns", type=common.SECONDS, help="End before this time.")
@click.option(
    "--to",
    "form",
    type=click.Choice(["files", "lerobot"]),
    default="files",
    show_default=True,
    help="Files for each episode, or one LeRobot dataset of all.",
)
@click.option("--fps", help="Rows a second of the dataset.  [default: the first camera's, or the actions']")
@click.option("--lossless", is_flag=True, help="FFV1 and WAV instead of H.264 and AAC, so that others can measure.")
@common.force
@common.dry_run
@common.as_json
@common.quiet
def command(
    store: Path,
    output: Path,
    episodes: tuple[str, ...],
    tracks: tuple[str, ...],
    levels: int | None,
    start_ns: int | None,
    end_ns: int | None,
    form: str,
    fps: str | None,
    lossless: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn token streams back into video, sound, motion and text.

    Each episode becomes EPISODE.mp4 with its sound (or .wav), .parquet of its numbers, and .txt, .srt, .vtt or .jsonl
    of its text, whichever holds its times and language; further tracks of a kind EPISODE@TRACK.mp4, .wav and so on.
    Given as recordings, these files are the same episode again. Times are those of the recording; --start and --end
    decode that range without the rest.

    With --to lerobot they become one LeRobot dataset (version 3): rows at the instants of the first camera, and of what
    has another clock the last sample before. It has no sound, and what not every episode has is left out.

    \b
    Example:
      pantok decode home.zarr --episode kitchen-03 -o out/
      pantok decode home.zarr --to lerobot -o dataset/
    """
    from pantok.encode import Codec
    from pantok.formats.files import make_folder
    from pantok.formats.store import Store

    run = common.Run(quiet, as_json)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise OptionError("--start", "is not before --end", "give a range of time")
    if form == "files" and fps is not None:
        raise OptionError("--fps", "is of datasets: files keep the instants of the recording", "add --to lerobot")
    if form == "lerobot" and lossless:
        raise OptionError("--lossless", "is of files: a dataset has H.264", "leave out one of them")
    if Path(os.path.abspath(store)) in Path(os.path.abspath(output / "_")).parents:
        raise OptionError("-o", f"{output} is within the store", "name a folder beside it")
    source = Store.open(store)
    wanted = common.choose(source.episodes, episodes, "--episode")
    names = common.choose({t for e in wanted for t in source.episodes[e].tracks}, tracks, "--track")
    part = Decoding(Codec(source.vocabulary), levels, (start_ns, end_ns))
    if form == "lerobot":
        from pantok.commands.decode_lerobot import write_dataset

        rate = common.reading({}, None, fps).fps
        write_dataset(run, source, wanted, names, part, output, rate=rate, force=force, dry_run=dry_run)
        return
    written: list[str] = []
    changes: dict[str, str] = {}
    with run.progress() as bar:
        task = bar.add_task("decode", total=len(wanted), note="")
        for episode in wanted:
            bar.update(task, note=episode)
            try:
                present = [t for t in source.episodes[episode].tracks if t in names]
                stream = source.read(episode, present)
                plan = Plan(part, stream, output, lossless)
                for path in plan.outputs:
                    common.refuse_existing(path, force or dry_run)
                for path, write in plan.outputs.items():
                    if not dry_run:
                        make_folder(path.parent)
                        write(path)
                    written.append(str(path))
                    if path in plan.changes:
                        changes[str(path)] = f" ({'; '.join(plan.changes[path])}; --lossless keeps it)"
            except (OptionError, OutputError):
                raise
            except PantokError as error:
                run.problem(error)
            bar.advance(task)
    for line in written[:20]:
        run.say(f"{'Would write' if dry_run else 'Wrote'} {line}{changes.get(line, '')}")
    if len(written) > 20:
        run.say(f"… and {len(written) - 20} more in {output}")
    if not written and not run.problems:
        run.problem(f"{store}: holds nothing in that range (see `pantok info {store}`)")
    run.end({"store": str(store), "written": written})
