"""`pantok verify`: every byte against its checksum, every code against its level, every promise against the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases
from pantok.commands.cli import CHECK_FAILED
from pantok.errors import InputError, OptionError, PantokError

if TYPE_CHECKING:
    from pantok.certify import Checked
    from pantok.formats.store import Store


@click.command("verify")
@click.argument("store", type=common.STORE)
@click.option(
    "--sources",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also decode every track and compare it with its recording, found here.",
)
@click.option("--episode", "episodes", multiple=True, help="With --sources: compare these alone; may be repeated.")
@common.as_json
@common.quiet
def command(store: Path, sources: Path | None, episodes: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Check a store: every byte and every code; with --sources also what was promised of the recordings.

    With --sources each track is decoded and must have as many samples as its recording, at the same instants, and
    each number must lie within the bound that was guaranteed (encode --max-error).

    Exit code 3 if anything is wrong; each fault is one line that names episode, track and what is wrong. Exit code 4
    if a recording is missing or has changed, so that its tracks could not be compared.

    \b
    Example:
      pantok verify home.zarr
      pantok verify home.zarr --sources recordings/
    """
    from pantok.formats.store import Store
    from pantok.formats.store_verify import verify_store

    run = common.Run(quiet, as_json)
    if episodes and sources is None:
        raise OptionError("--episode", "chooses what is compared with recordings", "give --sources FOLDER as well")
    faults, leftovers = [], 0
    with run.progress() as bar:
        task = bar.add_task("verify", total=None, note="")
        report = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        for problem in verify_store(store, report):
            if problem.is_fault:
                faults.append(problem)
                if not as_json:
                    click.echo(str(problem))
            else:
                leftovers += 1
    document: dict[str, Any] = {
        "store": str(store),
        "ok": not faults,
        "faults": [asdict(f) for f in faults],
        "leftovers": leftovers,
    }
    if faults:
        count = phrases.counted(len(faults), "fault")
        remedy = " Encode the episodes named above again: pantok encode … -f"
        run.say(f"[red]{count}[/] in {store}.{remedy if any(f.episode for f in faults) else ''}")
        run.end(document, CHECK_FAILED)
    opened = Store.open(store)
    extra = f"; {leftovers} leftovers of stopped writers, harmless" if leftovers else ""
    run.say(f"{store}: {phrases.counted(len(opened), 'episode')}, every byte and every code as written{extra}.")
    document |= {"episodes": len(opened), "digest": opened.digest()}
    if sources is not None:
        _compare(run, opened, common.choose(opened.episodes, episodes, "episode"), sources, document)
    run.end(document)


def _compare(run: common.Run, store: Store, chosen: list[str], sources: Path, document: dict[str, Any]) -> None:
    """Every track of the chosen episodes beside its recording; ends the run."""
    compared, broken, certified = [], 0, 0
    for episode, checked in _checked(run, store, chosen, sources):
        for what in checked.broken:
            broken += 1
            if not run.as_json:
                click.echo(f"{store.path}: {what} (episode {episode}, track {checked.track})")
        certified += checked.certificate is not None
        compared.append({"episode": episode, **_document(checked)})
    document |= {"ok": not broken, "compared": compared}
    if broken:
        tracks = phrases.counted(len(compared), "track")
        run.say(f"[red]{phrases.counted(broken, 'promise')} broken[/]; {tracks} compared with their recordings.")
        run.end(document, CHECK_FAILED)
    run.say(
        f"{phrases.counted(len(compared), 'track')} compared with their recordings: as long, at the same instants"
        + (f", and {certified} with guaranteed bounds within them." if certified else ".")
    )
    run.end(document)


def _checked(run: common.Run, store: Store, chosen: list[str], sources: Path) -> Iterator[tuple[str, Checked]]:
    from pantok.certify import check
    from pantok.encode import Codec

    codec = Codec(store.vocabulary)
    with run.progress() as bar:
        task = bar.add_task("compare", total=len(chosen), note="")
        for episode in chosen:
            bar.update(task, note=episode)
            stream = store.read(episode)
            try:
                recording = common.recording_of(stream, sources)
                for name, tokens in stream.tracks.items():
                    if name not in recording.tracks:
                        raise InputError(f"{episode} {name}", "is not in the recording as it is read now")
                    yield episode, check(recording.tracks[name], tokens, codec.tokenizer(tokens.modality))
            except PantokError as error:
                run.problem(error)
            bar.update(task, advance=1)


def _document(checked: Checked) -> dict[str, Any]:
    found: dict[str, Any] = {"track": checked.track, "samples": checked.samples, "broken": list(checked.broken)}
    if checked.certificate is not None:
        found["channels"] = [
            {"channel": name, "bound": bound, "max_error": error}
            for name, bound, error in zip(
                checked.certificate.channels, checked.certificate.bounds, checked.certificate.errors, strict=True
            )
        ]
    return found
