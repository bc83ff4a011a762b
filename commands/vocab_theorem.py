"""`pantok vocab theorem`: what an error bound costs by more ids, by more of them, and by pantok's own code."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common

if TYPE_CHECKING:
    from pantok.evolve.theorem import Measured, Plan


@click.command("theorem")
@click.argument("store", type=common.STORE)
@click.option("--track", required=True, help="A track of numbers, as `pantok info` names it.")
@click.option("--eps", type=float, required=True, help="The bound on each sample's error, in the track's unit.")
@click.option("--episode", help="Of this episode.  [default: the longest]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a page with the plot, .html or .svg.")
@common.force
@common.as_json
def theorem(
    store: Path, track: str, eps: float, episode: str | None, output: Path | None, force: bool, as_json: bool
) -> None:
    """Show what Theorem 1 says an error bound costs, and what pantok's adaptive code costs.

    One can scale up the vocabulary (one id a step, of a number of ids that is exponential in the coordinates), or scale
    out the expression (digits for every coordinate). pantok's own figure is that of the track, as the store has it,
    encoded again within the bound: ids that are really there.

    \b
    Example:
      pantok vocab theorem home.zarr --track proprio --eps 0.01 -o theorem.html
    """
    from pantok.errors import OptionError
    from pantok.evolve.theorem import BASES, Plan, measured
    from pantok.formats.store import Store

    run = common.Run(as_json=as_json)
    if output is not None:
        if output.suffix not in (".html", ".svg"):
            raise OptionError(output, "is neither .html nor .svg", "name one of them")
        common.refuse_existing(output, force)
    here = Store.open(store)
    having = {n: i for n, i in here.episodes.items() if track in i.tracks and episode in (None, n)}
    if not having:
        raise OptionError(f"--track {track}", f"is in no such episode of {store}", "pantok info names them")
    name = max(having, key=lambda n: (having[n].duration_ns, n))
    tokens = here.read(name, [track]).tracks[track]
    if tokens.modality != "numeric":
        raise OptionError(f"--track {track}", f"is {tokens.modality}", "name a track of numbers")
    state = here.vocabulary.states["numeric"]
    found = measured(state, tokens, eps)
    plan, paper = (
        Plan(steps=found.steps, coordinates=found.coordinates, width=found.width, eps=eps, whole=w)
        for w in (False, True)
    )
    rows = [
        ["scale up: one id a step", *_up(plan), f"{plan.vocabulary_bits * plan.steps:.0f}"],
        *(
            [f"scale out: digits in base {b}", f"{b}", f"{plan.scaled_out(b)}", f"{plan.scaled_out(b) * log2(b):.0f}"]
            for b in (2, 16, 256, 1024)
        ),
        ["pantok, within the bound", f"{found.vocabulary}", f"{found.ids}", f"{found.bits:.0f}"],
        ["paper, one id a step", *_up(paper), f"{paper.vocabulary_bits * paper.steps:.0f}"],
        ["paper, base 256", "256", f"{paper.scaled_out(256)}", f"{paper.scaled_out(256) * 8}"],
    ]
    columns = ["way", "ids in the vocabulary", "ids in a row", "bits"]
    title = f"{track} of {name}: {found.steps} steps of {found.coordinates}, range {found.width:g}, error {eps:g}"
    run.table(title, columns, rows)
    run.say(f"Largest error of pantok's code, measured: {found.max_error:g}. Paper: eps bounds the whole's distance.")
    document: dict[str, Any] = {
        "store": str(store),
        "episode": name,
        "track": track,
        "eps": eps,
        "steps": found.steps,
        "coordinates": found.coordinates,
        "width": found.width,
        "cells": plan.cells,
        "scale_up": {"vocabulary_bits": plan.vocabulary_bits, "ids": plan.steps},
        "scale_out": {str(b): plan.scaled_out(b) for b in BASES},
        "pantok": {
            "vocabulary": found.vocabulary, "ids": found.ids, "bits": found.bits, "max_error": found.max_error
        },
        "paper": {"vocabulary_bits": paper.vocabulary_bits, "scale_out": {str(b): paper.scaled_out(b) for b in BASES}},
    }  # fmt: skip
    if output is not None:
        _write(output, title, _plot(plan, found), columns, rows)
        run.say(f"Wrote {output}.")
    run.end(document)


def _up(plan: Plan) -> tuple[str, str]:
    bits = plan.vocabulary_bits
    return (f"{2**bits:.0f}" if bits < 31 else f"2^{bits:.1f}"), f"{plan.steps}"


def _plot(plan: Plan, found: Measured) -> str:
    from pantok.evolve.theorem import BASES
    from pantok.formats.report_charts import Curve, line_chart

    # By their bits, which are numbers where the ids of wide tables are beyond any.
    out = tuple((log2(b), float(plan.scaled_out(b))) for b in BASES)
    curves = [Curve("scale out: digits in base M", out, tuple(f"base {b}" for b in BASES))]
    bits = plan.vocabulary_bits
    curves.append(Curve("scale up: one id a step", ((bits, float(plan.steps)),), (f"2^{bits:.1f} ids",)))
    curves.append(Curve("pantok", ((log2(found.vocabulary), float(found.ids)),), ("measured",)))
    return line_chart(curves, "bits of an id (log2 of the vocabulary)", "ids in a row", log_x=True, log_y=True)


def _write(output: Path, title: str, plot: str, columns: list[str], rows: list[list[str]]) -> None:
    from html import escape

    from pantok.errors import OutputError
    from pantok.formats.report_style import STYLE

    text = plot
    if output.suffix == ".html":
        head = "".join(f"<th>{escape(c)}</th>" for c in columns)
        body = "".join("<tr><th>" + escape(r[0]) + "".join(f"<td>{escape(c)}" for c in r[1:]) for r in rows)
        text = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
            f'<header><p class="kicker">pantok vocab theorem</p><h1>{escape(title)}</h1></header><main><section>'
            f'{plot}<div class="scroll"><table><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>'
            "</section></main></body></html>\n"
        )
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(output, f"cannot be written: {error.strerror}", "choose another -o") from error
