"""`pantok vocab`: the map of ids, one vocabulary made of several, and the other operations by name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common
from pantok.errors import VocabularyError

if TYPE_CHECKING:
    from pantok.vocabulary import TokenizerState, Vocabulary


_ELSEWHERE = {
    "grow": "vocab_grow",
    "compose": "vocab_compose",
    "prune": "vocab_prune",
    "score": "vocab_score",
    "theorem": "vocab_theorem",
    "diff": "vocab_lineage",
    "lineage": "vocab_lineage",
}
"""Subcommands that stand in modules of their own, each as `<name>`."""


class _Group(click.Group):
    """Loads a subcommand's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(n for n, m in _ELSEWHERE.items() if find_spec(f"pantok.commands.{m}"))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _ELSEWHERE and find_spec(f"pantok.commands.{_ELSEWHERE[name]}"):
            return getattr(import_module(f"pantok.commands.{_ELSEWHERE[name]}"), name)
        return super().get_command(ctx, name)


@click.group("vocab", cls=_Group)
def command() -> None:
    """Show, grow, merge, compose, prune and compare vocabularies.

    \b
    Example:
      pantok vocab show home.vocab
      pantok vocab grow home.vocab --with new_recordings/ -o home2.vocab
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
