"""`pantok vocab show|merge`: the map of ids, and one vocabulary made of several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common
from pantok.errors import VocabularyError

if TYPE_CHECKING:
    from pantok.vocabulary import TokenizerState, Vocabulary


@click.group("vocab")
def command() -> None:
    """Show and merge vocabularies.

    \b
    Example:
      pantok vocab show home.vocab
    """


@command.command("show")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@common.as_json
def show(vocabulary: Path, as_json: bool) -> None:
    """Print the map of ids: which ids belong to which level of what.

    \b
    Example:
      pantok vocab show home.vocab
    """
    show_vocabulary(common.Run(as_json=as_json), vocabulary)


@command.command("merge")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@common.output("The vocabulary to write.")
@common.force
@common.as_json
@common.quiet
def merge(parts: tuple[Path, ...], output: Path, force: bool, as_json: bool, quiet: bool) -> None:
    """Make one vocabulary of several, and of a text model.

    PARTS are vocabularies and at most one text model (SentencePiece or tokenizer.json), which replaces the
    text models of the others. Each modality must come from one of them, or be the same in all.

    \b
    Example:
      pantok vocab merge home.vocab lab.vocab llm/tokenizer.json -o all.vocab
    """
    from pantok.formats.vocab import load_vocabulary, save_vocabulary
    from pantok.tokenizers.text import TextTokenizer
    from pantok.vocabulary import merge as merge_all

    run = common.Run(quiet, as_json)
    common.refuse_existing(output, force)
    vocabularies: list[Vocabulary] = []
    text: TokenizerState | None = None
    for part in parts:
        if part.is_dir():
            vocabularies.append(load_vocabulary(part))
        elif text is not None:
            raise VocabularyError(part, "is a second text model", "give one")
        else:
            text = TextTokenizer.of_file(str(part), common.read_bytes(part)).state()
    merged = merge_all(vocabularies, text)
    kept = [str(p) for p, v in zip((p for p in parts if p.is_dir()), vocabularies, strict=True) if merged.reads(v)]
    lineage = [{"op": "merge", "parents": [v.id for v in vocabularies], "child": merged.id}]
    save_vocabulary(merged, output, force=force, lineage=lineage)
    run.say(f"Wrote {output}: {merged.size} ids of {', '.join(merged.states)}.")
    run.say(
        f"Ids are unchanged from {', '.join(kept)}." if kept else "Ids are new; stores keep reading, they hold codes."
    )
    run.end({"vocabulary": str(output), "id": merged.id, "ids": merged.size, "ids_unchanged_from": kept})


def show_vocabulary(run: common.Run, vocabulary: Path) -> None:
    """The map of ids as a table or as JSON; ends the run."""
    from pantok.formats.vocab import load_vocabulary

    loaded = load_vocabulary(vocabulary, lazy=True)
    rows = []
    for e in loaded.extents:
        level = loaded.levels(e.modality)[e.level] if e.modality else None
        stride = "x".join(map(str, level.stride)) if level and level.stride else ""
        number = str(e.level) if e.kind == "code" else ""
        ids = [str(e.start), str(e.stop - 1), str(e.length)]
        rows.append([e.modality or e.kind, number, e.name, *ids, level.role if level else e.kind, stride])
    columns = ["of", "level", "name", "first id", "last id", "ids", "role", "stride"]
    run.table(f"{vocabulary}: {loaded.size} ids, {loaded.id[:16]}", columns, rows)
    run.end(
        {
            "vocabulary": str(vocabulary),
            "id": loaded.id,
            "ids": loaded.size,
            "extents": [dict(zip(("of", *columns[1:]), row, strict=True)) for row in rows],
            "tokenizers": {m: {"digest": s.digest, "metrics": s.metrics} for m, s in loaded.states.items()},
        }
    )
