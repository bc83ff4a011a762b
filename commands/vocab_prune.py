"""`pantok vocab prune`: codes that are hardly used, out of use, with what that costs said first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pantok.commands import common, phrases
from pantok.errors import OptionError


@click.command("prune")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@click.option("--on", "store", required=True, type=common.STORE, help="The store whose codes are counted.")
@common.output("The vocabulary to write.")
@click.option(
    "--below",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Prune codes used less than this times an even share.",
)
@click.option(
    "--max-loss",
    default=0.02,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Let a level's error grow by no more than this share of what the level says; --force lets it.",
)
@common.force
@common.dry_run
@common.as_json
@common.quiet
def prune(
    vocabulary: Path,
    store: Path,
    output: Path,
    below: float,
    max_loss: float,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Take codes that a store hardly uses out of use.

    Encoders no longer choose them; their ids and vectors stay, so that everything written with them still decodes to
    the same samples. For a model that should meet fewer ids a table says which kept code stands for each. What that
    costs is printed; of rare codes of a level those that cost most stay, so that it is no more than --max-loss.

    \b
    Example:
      pantok vocab prune all.vocab --on home.zarr -o small.vocab
    """
    from pantok.evolve.lineage import line
    from pantok.evolve.prune import prune as pruned
    from pantok.formats.usage import count_codes
    from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary

    run = common.Run(quiet, as_json)
    if not dry_run:
        common.refuse_vocabulary(output, force)
    old = load_vocabulary(vocabulary)
    new, report = pruned(old, count_codes(store, old), below=below, max_loss=float("inf") if force else max_loss)
    columns = ["level", "codes", "kept", "spared", "uses", "changed", "added error", "bits a code", "after"]
    rows = [
        [
            f"{r.modality} {r.level}",
            f"{r.before}",
            f"{r.after}",
            f"{r.spared}",
            f"{r.uses}",
            f"{r.changed / r.uses:.2%}",
            f"{r.added_error:.3%}",
            f"{r.bits_before:.3f}",
            f"{r.bits_after:.3f}",
        ]
        for r in report
    ]
    run.summary(columns, rows)
    live = [int(v.live().sum()) for v in (old, new)]
    worst = max((r.added_error for r in report), default=0.0)
    facts: dict[str, Any] = {
        "vocabulary": str(output),
        "id": new.id,
        "before": {"ids_in_use": live[0]},
        "after": {"ids_in_use": live[1], "worst_added_error": worst},
        "levels": [dict(zip(columns, row, strict=True)) for row in rows],
    }
    if not report:
        raise OptionError(
            vocabulary, f"has no code that {store} uses so rarely and that may go",
            "raise --below or --max-loss, or give a larger store",
        )  # fmt: skip
    if dry_run:
        run.say(f"Would take {live[0] - live[1]} of {live[0]} ids out of use.")
        run.end(facts)
    arguments = {"on": str(store), "below": below, "max_loss": None if force else max_loss}
    step = line("prune", new, [old], arguments, facts["before"], facts["after"])
    save_vocabulary(new, output, force=force, lineage=[*read_lineage(vocabulary), step])
    run.say(
        f"Wrote {output}: {live[1]} of {new.size} ids in use, {live[0] - live[1]} fewer; the others still decode."
        f"\nNext: pantok stream {phrases.shell(store)} --vocab {phrases.shell(output)}"
    )
    run.end(facts)
