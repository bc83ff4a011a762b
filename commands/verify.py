"""`pantok verify`: every byte against its checksum, every code against its level, every promised bound again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pantok.commands import common
from pantok.commands.cli import CHECK_FAILED


@click.command("verify")
@click.argument("store", type=click.Path(path_type=Path))
@common.as_json
@common.quiet
def command(store: Path, as_json: bool, quiet: bool) -> None:
    """Check a store: every byte, every code, and the certificates of bounded tracks.

    Exit code 3 if anything is wrong; each fault is one line that names episode, track, level and range.

    \b
    Example:
      pantok verify home.zarr
    """
    from pantok.formats.store import Store
    from pantok.formats.store_verify import verify_store

    run = common.Run(quiet, as_json)
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
    document = {"store": str(store), "ok": not faults, "faults": [asdict(f) for f in faults], "leftovers": leftovers}
    if faults:
        run.say(f"[red]{len(faults)} faults[/] in {store}. Encode the episodes named above again: pantok encode … -f")
        run.end(document, CHECK_FAILED)
    opened = Store.open(store)
    extra = f"; {leftovers} leftovers of stopped writers, harmless" if leftovers else ""
    run.say(f"{store}: {len(opened)} episodes, every byte and every code as written{extra}.")
    run.end({**document, "episodes": len(opened), "digest": opened.digest()})
