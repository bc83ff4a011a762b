"""`pantok vocab score`: what a vocabulary costs on a store, in bits a second of experience."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common, phrases

if TYPE_CHECKING:
    from pantok.evolve.distortion import Distortion


@click.command("score")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@click.option("--on", "store", required=True, type=common.STORE, help="The store to judge it on.")
@click.option("--model", type=click.Path(path_type=Path), help="A run of train-wm under it, to judge by as well.")
@click.option("--windows", type=click.IntRange(2), default=64, show_default=True, help="Of the model, to measure on.")
@click.option(
    "--recordings", type=click.Path(path_type=Path), help="Where the recordings are: errors are against them."
)
@click.option(
    "--seconds", type=float, default=5.0, show_default=True, help="Of each episode to decode; 0 decodes nothing."
)
@click.option(
    "--objective",
    type=click.Choice(["bits", "length", "rd"]),
    default="bits",
    show_default=True,
    help="What the last line is: bits a second, ids a second, or bits with the digits that mend the error.",
)
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@common.as_json
@common.quiet
def score(
    vocabulary: Path,
    store: Path,
    model: Path | None,
    windows: int,
    recordings: Path | None,
    seconds: float,
    objective: str,
    layout: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Judge a vocabulary by prediction: held-out bits a second of a store under an n-gram, and under a trained model.

    A quarter of the store is held out: whole episodes where it has 16 or more, spans of time where it has fewer. The
    n-gram counts the rest and is asked about it. What the vocabulary itself weighs is spread over the store. Lower is
    better, and figures of different vocabularies compare if their stores hold the same recordings at the same quality.

    --model: what a world model trained under this vocabulary needs, for the episodes that it held out; the n-gram is
    then asked about the same. Error: of the stored codes decoded under the vocabulary, with what stands for retired
    ones, against --recordings, or else against what the store's own vocabulary makes of them. Digits: what would
    bring every sample to within half the store's own error, in numbers each channel's (without recordings, a hundredth
    of the deviation).

    \b
    Example:
      pantok vocab score home.vocab --on home.zarr
      pantok vocab score home.vocab --on home.zarr --model run/ --recordings recordings/ --objective rd
    """
    from pantok.commands import vocab_score_parts as parts
    from pantok.errors import OptionError
    from pantok.evolve.distortion import digits_of
    from pantok.evolve.score import score as judged
    from pantok.formats.sequences import read_sequences
    from pantok.formats.store import Store
    from pantok.formats.vocab import load_vocabulary
    from pantok.layout import Layout

    run = common.Run(quiet, as_json)
    if seconds < 0 or (objective == "rd" and not seconds):
        raise OptionError("--seconds", f"cannot be {seconds:g}", "more than 0, such as 5; or leave --objective rd out")
    loaded, grammar, held = load_vocabulary(vocabulary), Layout.of(layout), tuple[str, ...]()
    opened, measured = Store.open(store), None
    with run.progress() as bar:
        task = bar.add_task("score", total=1.0, note="")

        def tick(what: str, fraction: float) -> None:
            bar.update(task, completed=fraction, note=what)

        if model is not None:
            held = parts.held_out_of(opened, model)
            measured = parts.model_bits(model, store, loaded, held or tuple(opened.episodes), windows, tick)
        tick("n-gram", 0.0)
        others = set(opened.episodes) - set(held) if held else None
        found = judged(
            loaded, read_sequences(store, grammar, loaded, others), read_sequences(store, grammar, loaded, held)
        )
        errors = parts.distortions(store, loaded, recordings, seconds, tick) if seconds else ()
    cost = found.cost
    rows = [
        [s.what, f"{s.ids_per_second:.2f}", f"{s.bits_per_second:.2f}", f"{s.bits_per_second / s.ids_per_second:.3f}"]
        for s in found.shares
    ]
    bits, ids = cost.id_bits_per_second, cost.ids_per_second
    rows.append(["all", f"{ids:.2f}", f"{bits:.2f}", f"{bits / ids:.3f}"])
    run.table(f"{vocabulary} on {store}, held out", ["ids of", "ids/s", "bits/s", "bits an id"], rows)
    facts = [
        ["bits a second", f"{bits:.2f} +- {cost.standard_error:.2f}"],
        ["ids a second", f"{ids:.2f}"],
        ["ids without compositions", f"{found.uncomposed_ids}"],
        ["ids with compositions", f"{found.ids}"],
        ["vocabulary", f"{loaded.size} ids, {phrases.human_bytes(found.vocabulary_bits / 8)}"],
        ["vocabulary, bits a second", f"{cost.dictionary_bits_per_second:.2f}"],
        ["judged on", f"{found.seconds:.1f} s, {phrases.counted(found.episodes, 'episode')}"],
    ]
    if measured is not None:
        low, high = measured["bits_per_second_95"]
        facts.insert(
            1, ["bits a second, model", f"{measured['bits_per_second']:.2f} ({low:.2f} to {high:.2f}), {model}"]
        )
    run.table("", ["", ""], facts)
    if errors:
        against = "the store's own decode" if recordings is None else str(recordings)
        run.table(
            f"error against {against}",
            ["of", "store's own", "under it", "eps", "digits, bits/s"],
            [
                [e.modality, f"{e.own_error:.4g}", f"{e.error:.4g}", _eps(e), f"{e.digit_bits_per_second:.0f}"]
                for e in errors
            ],
        )
    by_model = bits if measured is None else float(measured["bits_per_second"])
    value = {
        "bits": by_model + cost.dictionary_bits_per_second,
        "length": ids,
        "rd": by_model + cost.dictionary_bits_per_second + digits_of(errors),
    }[objective]
    unit = "ids a second" if objective == "length" else "bits a second"
    judge = "" if measured is None or objective == "length" else ", by the model"
    run.table("", ["", ""], [[f"--objective {objective}", f"{value:.2f} {unit}{judge}"]])
    run.end(
        {
            "vocabulary": str(vocabulary),
            "id": loaded.id,
            "store": str(store),
            "held_out_bits_per_second": bits,
            "standard_error": cost.standard_error,
            "ids_per_second": ids,
            "vocabulary_bits": found.vocabulary_bits,
            "vocabulary_bits_per_second": cost.dictionary_bits_per_second,
            "bits_per_second": cost.bits_per_second,
            "ids": found.ids,
            "uncomposed_ids": found.uncomposed_ids,
            "seconds": found.seconds,
            "episodes": found.episodes,
            "held_out": list(held),
            "model": measured,
            "errors": [asdict(e) for e in errors],
            "recordings": None if recordings is None else str(recordings),
            "objective": {"name": objective, "value": value},
            "shares": [
                {"of": s.what, "ids_per_second": s.ids_per_second, "bits_per_second": s.bits_per_second}
                for s in found.shares
            ],
        }
    )


def _eps(found: Distortion) -> str:
    """Of the digits; of numbers from the finest channel's to the coarsest's."""
    sizes = found.by_unit.values() or [found.eps]
    low, high = min(sizes), max(sizes)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
