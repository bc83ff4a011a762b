"""`pantok vocab compose`: neighbouring ids become one id, as many as pay on recordings they were not learned from."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from pantok.commands import common, phrases
from pantok.commands.cli import CHECK_FAILED


@click.command("compose")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@click.option("--on", "store", required=True, type=common.STORE, help="The store to learn from.")
@common.output("The vocabulary to write.")
@click.option("--merges", type=int, help="The most that are learned.  [default: 131072]")
@click.option(
    "--objective",
    help="bits: predicted best. length: shortest that is predicted no worse. rd: see --price.  [default: length]",
    metavar="bits|length|rd",
)  # fmt: skip
@click.option("--price", type=float, help="Bits that an id costs besides, with --objective rd.  [default: 1]")
@click.option(
    "--across",
    metavar="level|unit|track",
    help="What a composition may join.  [default: what the vocabulary's join; unit]",
)
@click.option("--longest", type=int, help="Ids that a composition may spell.  [default: 16]")
@click.option(
    "--serves", type=click.FloatRange(min=0, min_open=True), metavar="HOURS",
    help="Of recordings that the compositions are for: their own bits are spread over them.  [default: the store]",
)  # fmt: skip
@click.option("--most-ids", type=int, help="With more, some of the episodes are looked at.  [default: 16000000]")
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@common.force
@common.dry_run
@common.as_json
@common.quiet
def compose(
    vocabulary: Path,
    store: Path,
    output: Path,
    merges: int | None,
    objective: str | None,
    price: float | None,
    across: str | None,
    longest: int | None,
    serves: float | None,
    most_ids: int | None,
    layout: str,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Give frequent neighbours one id, so that sequences are shorter, where that makes them no harder to predict.

    Pairs are learned in the order of how often they are met in three quarters of the store (of episodes taken by
    chance, where it holds more than --most-ids); how many of them are kept is decided on the other quarter. Stores
    keep their codes: ids are composed as they are read, and expanding gives exactly what was there. If none pays,
    nothing is written and the exit code is 3; with --force, all are kept.

    \b
    Example:
      pantok vocab compose home.vocab --on home.zarr -o home2.vocab
      pantok stream home.zarr --vocab home2.vocab
    """
    from pantok.config import from_mapping
    from pantok.evolve.compose import ComposeConfig
    from pantok.evolve.compose import compose as composed
    from pantok.evolve.compositions import with_compositions
    from pantok.evolve.lineage import line
    from pantok.formats.sequences import read_sequences
    from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary
    from pantok.layout import Layout

    run = common.Run(quiet, as_json)
    if not dry_run:
        common.refuse_vocabulary(output, force)
    given = {"merges": merges, "objective": objective, "price": price, "across": across, "longest": longest}
    given["most_ids"] = most_ids
    given["serves"] = None if serves is None else 3600 * serves
    config = from_mapping(ComposeConfig, {k: v for k, v in given.items() if v is not None}, "compose")
    old, began = load_vocabulary(vocabulary), time.monotonic()
    grammar = Layout.of(layout)
    with run.progress() as bar:
        task = bar.add_task("compose", total=1.0, note="")

        def progress(what: str, fraction: float) -> None:
            bar.update(task, completed=fraction, note=what)

        found = composed(old, read_sequences(store, grammar, old), config, report=progress)
    facts = found.facts()
    looked, episodes = found.looked_at
    if looked < episodes:
        run.say(f"Looked at {looked} of {episodes} episodes: together they hold more than --most-ids.")
    columns = ["merges", "ids/s", "bits/s", "dictionary bits/s", "together", "gain", "+-"]
    keys = ["ids_per_second", "id_bits_per_second", "dictionary_bits_per_second", "bits_per_second"]
    rows = [
        [f"{f['merges']}{' *' if f['merges'] == found.kept else ''}"]
        + [phrases.figure(f[k], 2) for k in [*keys, "gain", "gain_standard_error"]]
        for f in facts
    ]
    run.summary(columns, rows)
    kept = found.kept or (len(found.learned) if force else 0)
    new = with_compositions(old, found.learned.first(kept))
    before, after = facts[0], next(f for f in facts if f["merges"] == kept)
    document: dict[str, Any] = {
        "vocabulary": str(output),
        "id": new.id,
        "objective": config.objective,
        "kept": kept,
        "episodes": {"looked_at": looked, "of": episodes},
        "pays": found.kept > 0,
        "before": {"ids": old.size, **before},
        "after": {"ids": new.size, **after},
        "tried": facts,
        "seconds": round(time.monotonic() - began, 3),
    }
    if not kept:
        run.say(
            f"Nothing written: no number of merges serves --objective {config.objective} on {store}. "
            "--force keeps them nevertheless"
            + ("; --objective length keeps as many as cost no bits." if config.objective == "bits" else ".")
        )
        run.end(document, CHECK_FAILED)
    fewer = 1 - after["ids_per_second"] / before["ids_per_second"]
    change = after["bits_per_second"] / before["bits_per_second"] - 1
    said = f"{kept} compositions: {fewer:.1%} fewer ids, {change:+.2%} held-out bits a second"
    if dry_run:
        run.say(f"Would add {said}.")
        run.end(document)
    arguments = {"on": str(store), "layout": layout, **{k: getattr(config, k) for k in given}}
    arguments["across"] = found.learned.across
    step = line("compose", new, [old], arguments, document["before"], document["after"])
    save_vocabulary(new, output, force=force, lineage=[*read_lineage(vocabulary), step])
    run.say(
        f"Wrote {output}: {new.size} ids, {said}. {phrases.human_seconds(time.monotonic() - began)}."
        f"\nNext: pantok stream {phrases.shell(store)} --vocab {phrases.shell(output)}"
    )
    run.end(document)
