"""`pantok fit-vocab`: learn codebooks from recordings and number them together with a text vocabulary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common
from pantok.errors import OptionError

if TYPE_CHECKING:
    from pantok.vocabulary import TokenizerState


@click.command("fit-vocab")
@common.sources
@common.output("The vocabulary to write, a directory such as home.vocab.")
@click.option(
    "--text-model", type=click.Path(path_type=Path), help="Keep this text model: SentencePiece or tokenizer.json."
)
@click.option(
    "--text-corpus", type=click.Path(path_type=Path), multiple=True, help="Train the text model on these files."
)
@click.option("--text-size", type=int, help="Pieces of a text model trained here.  [default: 4096]")
@click.option("--only", multiple=True, type=click.Choice(common.MODALITIES), help="Fit these alone; may be repeated.")
@common.resampling
@common.config_file
@common.seed
@common.force
@common.dry_run
@common.as_json
@common.quiet
def command(
    sources: tuple[Path, ...],
    output: Path,
    text_model: Path | None,
    text_corpus: tuple[Path, ...],
    text_size: int | None,
    only: tuple[str, ...],
    size: int | None,
    fps: str | None,
    config_path: Path | None,
    seed: int,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Learn a vocabulary from recordings: files, or folders of them.

    Codebooks for video, sound and numbers are learned from the recordings alone, in minutes on two cores; text
    keeps the model that you bring (--text-model) or gets one trained on the recordings' text or on --text-corpus.

    \b
    Example:
      pantok fit-vocab recordings/ -o home.vocab
    """
    from pantok.fit import fit_vocabulary
    from pantok.formats import vocab

    run = common.Run(quiet, as_json)
    common.refuse_existing(output, force)
    settings = common.read_config(config_path)
    common.override(settings, "text", size=text_size)
    reading = common.reading(settings, size, fps)
    if text_model and text_corpus:
        raise OptionError("--text-model", "and --text-corpus exclude each other", "give one of them")

    found = common.find_episodes(run, sources)
    if dry_run:
        common.show_plan(run, found)
        run.end(common.plan_document(found))
    episodes = common.episodes(run, found, reading)
    text = _text(text_model, text_corpus, settings.get("text", {}))
    began = time.monotonic()
    with run.progress() as bar:
        tasks: dict[str, Any] = {}

        def progress(modality: str, what: str, fraction: float) -> None:
            if modality not in tasks:
                tasks[modality] = bar.add_task(modality, total=1.0, note="")
            bar.update(tasks[modality], completed=fraction, note=what)

        def fitted(state: TokenizerState) -> None:
            run.say(f"[bold]{state.modality}[/]  {_levels(state)}{_quality(state)}")

        vocabulary = fit_vocabulary(
            episodes,
            {m: settings[m] for m in common.MODALITIES if m in settings},
            text=text,
            modalities=only or common.MODALITIES,
            seed=seed,
            progress=progress,
            fitted=fitted,
        )
    vocab.save_vocabulary(vocabulary, output, force=force)
    seconds = time.monotonic() - began
    size_bytes = common.tree_bytes(output)
    run.say(
        f"Wrote {output}: {vocabulary.size} ids, {common.human_bytes(size_bytes)}, {common.human_seconds(seconds)}, "
        f"from {len(episodes)} episodes.\nNext: pantok encode {' '.join(map(str, sources))} --vocab {output} -o …"
    )
    run.end(
        {
            "vocabulary": str(output),
            "id": vocabulary.id,
            "ids": vocabulary.size,
            "bytes": size_bytes,
            "seconds": round(seconds, 3),
            "episodes": [e.id for e in episodes],
            "tokenizers": {m: {"levels": len(s.levels), "metrics": s.metrics} for m, s in vocabulary.states.items()},
        }
    )


def _text(model: Path | None, corpus: Sequence[Path], settings: dict[str, Any]) -> TokenizerState | None:
    """The text model that the user brought, or one trained on the corpus; None leaves it to the recordings."""
    from pantok import tokenizers
    from pantok.tokenizers.text import TextTokenizer

    if model is not None:
        return TextTokenizer.of_file(str(model), common.read_bytes(model)).state()
    if not corpus:
        return None
    from pantok.formats.texts import read_corpus

    return TextTokenizer.train(read_corpus(corpus), tokenizers.config_of("text", settings)).state()


def _levels(state: TokenizerState) -> str:
    return f"{len(state.levels)} levels, {sum(level.cardinality for level in state.levels)} codes"


def _quality(state: TokenizerState) -> str:
    """What was measured while fitting, in one phrase; lists and tables are left to --json."""
    facts = []
    for name, value in state.metrics.items():
        inner = value if isinstance(value, dict) else {name: value}
        if name in ("held_out", "psnr_db", "bits_per_pixel"):
            total = sum(inner.values()) if name == "bits_per_pixel" else None
            shown = {name: total} if total is not None else inner
            facts += [f"{k} {v:.3g}" for k, v in shown.items() if type(v) in (int, float)]
    return f"; held out: {', '.join(facts)}" if facts else ""
