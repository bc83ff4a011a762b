"""`pantok fit-vocab`: learn codebooks from recordings and number them together with a text vocabulary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases
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
@click.option(
    "--refine", type=click.FloatRange(min=0), metavar="SECONDS", help="Learn on for so long; kept where it helps."
)
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
    refine: float | None,
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

    A part of the recordings is held out to measure each tokenizer by. With --refine the codebooks are learned further
    for so many seconds in all, and kept only if what was held out is then described better.

    \b
    Example:
      pantok fit-vocab recordings/ -o home.vocab
      pantok fit-vocab recordings/ -o home.vocab --text-model tokenizer.json --refine 60
    """
    from pantok.fit import fit_vocabulary
    from pantok.formats import vocab

    run = common.Run(quiet, as_json)
    common.refuse_vocabulary(output, force)
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
    if refine:
        _refine(run, settings, refine, {t.modality for e in episodes for t in e.tracks.values()}, only)
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
            left_out=lambda modality, why: run.problem(f"{why}: the vocabulary will be without {modality}"),
        )
    vocab.save_vocabulary(vocabulary, output, force=force)
    seconds = time.monotonic() - began
    columns = ["tokenizer", "levels", "codes", "measured on", "quality", "rate", "books used"]
    run.summary(columns, [_row(state) for state in vocabulary.states.values()])
    size_bytes = common.tree_bytes(output)
    run.say(
        f"Wrote {output}: {vocabulary.size} ids, {phrases.human_bytes(size_bytes)}, {phrases.human_seconds(seconds)}, "
        f"from {phrases.counted(len(episodes), 'episode')}."
        f"\nNext: pantok encode {phrases.shell(*sources)} --vocab {phrases.shell(output)} -o …"
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


def _refine(
    run: common.Run, settings: dict[str, dict[str, Any]], seconds: float, held: set[str], only: Sequence[str]
) -> None:
    """Shares the seconds out among the tokenizers that are fitted and can be refined. A setting in the file wins."""
    from pantok import tokenizers

    able = [
        m
        for m in only or common.MODALITIES
        if m in held and hasattr(tokenizers.config_of(m, settings.get(m, {})), "refine_seconds")
    ]
    if not able:
        run.say("--refine: none of what is fitted here can be refined; it changes nothing.")
    for modality in able:
        settings[modality] = {"refine_seconds": seconds / len(able), **settings.get(modality, {})}


def _levels(state: TokenizerState) -> str:
    count = len(state.levels)
    return f"{count} level{'s' if count > 1 else ''}, {sum(level.cardinality for level in state.levels)} codes"


def _quality(state: TokenizerState) -> str:
    """What was measured while fitting, in one phrase; lists and tables are left to --json."""
    facts = [text for text in _measured(state) if text]
    told = f"; {'held out' if _held_out(state) else 'on what it learned from'}: {', '.join(facts)}" if facts else ""
    refined = state.metrics.get("refined")
    if refined is None:
        return told
    if refined["gain_db"] is None:
        return f"{told}; not refined, too little was there to hold some out"
    if not refined["kept"]:
        return f"{told}; refined for {refined['seconds']:.0f} s, which did not help and was dropped"
    return f"{told}; refined for {refined['seconds']:.0f} s, {refined['gain_db']:.2f} dB better at the same bits"


def _held_out(state: TokenizerState) -> bool:
    """Whether the figures are of recordings that nothing was learned from."""
    return bool(state.metrics.get("held_out"))


def _measured(state: TokenizerState) -> tuple[str, str]:
    """Quality and rate, in the modality's own units; '' for what is not known."""
    metrics = state.metrics
    if state.modality == "video":
        bits = sum(metrics.get("bits_per_pixel", {}).values())
        return _figure(metrics.get("psnr_db"), "{:.1f} dB"), _figure(bits or None, "{:.3f} bits a pixel")
    if state.modality == "audio":
        levels = list(metrics.get("snr_db", {}).values())
        rate = metrics.get("bits_per_second")
        return (
            _figure(levels[-1] if levels else None, "{:.1f} dB signal to noise"),
            _figure(rate and rate / 1000, "{:.1f} kbit/s a channel"),
        )
    if state.modality == "numeric":
        held = metrics.get("held_out") or {}
        return (
            _figure(held.get("max_error_of_bound"), "error {:.2f} of the bound"),
            _figure(held.get("tokens_per_sample"), "{:.2f} tokens a value"),
        )
    return "", ""


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


WELL_USED = 0.95


def _row(state: TokenizerState) -> list[str]:
    """One tokenizer in the table at the end."""
    used = {
        level.name: state.metrics["used"][level.name]
        for level in state.levels
        if level.role == "code" and level.cardinality > 1 and level.name in state.metrics.get("used", {})
    }
    books = ""
    if used:
        well = sum(share >= WELL_USED for share in used.values())
        books = f"{well} of {len(used)} to {WELL_USED:.0%}"
        least = min(used, key=lambda name: used[name])
        if used[least] < WELL_USED:
            books += f", {least} {used[least]:.0%}"
    quality, rate = _measured(state)
    on = ("held out" if _held_out(state) else "learned from") if quality else "-"
    codes = sum(level.cardinality for level in state.levels)
    return [state.modality, f"{len(state.levels)}", f"{codes}", on, quality or "-", rate or "-", books or "-"]
