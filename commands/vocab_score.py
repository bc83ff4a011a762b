"""`pantok vocab score`: what a vocabulary costs on a store, in bits a second of experience."""

from __future__ import annotations

from pathlib import Path

import click

from pantok.commands import common


@click.command("score")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@click.option("--on", "store", required=True, type=click.Path(path_type=Path), help="The store to judge it on.")
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@common.as_json
def score(vocabulary: Path, store: Path, layout: str, as_json: bool) -> None:
    """Judge a vocabulary by prediction: held-out bits a second of a store under an n-gram.

    A quarter of the store is held out: whole episodes where it has 16 or more, spans of time where it has fewer. The
    n-gram counts the rest and is asked about it. What the vocabulary itself weighs is spread over the store. Lower is
    better, and figures of different vocabularies compare if their stores hold the same recordings at the same quality.

    \b
    Example:
      pantok vocab score home.vocab --on home.zarr
    """
    from pantok.evolve.score import score as judged
    from pantok.formats.sequences import read_sequences
    from pantok.formats.vocab import load_vocabulary
    from pantok.layout import Layout

    run = common.Run(as_json=as_json)
    loaded = load_vocabulary(vocabulary)
    found = judged(loaded, read_sequences(store, Layout.of(layout), loaded))
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
        ["vocabulary", f"{loaded.size} ids, {common.human_bytes(found.vocabulary_bits / 8)}"],
        ["vocabulary, bits a second", f"{cost.dictionary_bits_per_second:.2f}"],
        ["judged on", f"{found.seconds:.1f} s, {common.counted(found.episodes, 'episode')}"],
    ]
    run.table("", ["", ""], facts)
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
            "shares": [
                {"of": s.what, "ids_per_second": s.ids_per_second, "bits_per_second": s.bits_per_second}
                for s in found.shares
            ],
        }
    )
