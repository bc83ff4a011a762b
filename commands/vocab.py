"""`pantok vocab`: the map of ids, one vocabulary made of several, and the other operations by name."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common
from pantok.errors import VocabularyError

if TYPE_CHECKING:
    from pantok.evolve.merge import Merged
    from pantok.vocabulary import TokenizerState


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
@click.option("--text-model", type=click.Path(path_type=Path), help="Keep this text model: same as naming it in PARTS.")
@click.option("--duplicates", is_flag=True, help="Also make one of codes within a level that say nearly the same.")
@click.option(
    "--within",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Nearly: closer than this share of the usual distance between neighbours.",
)
@common.force
@common.as_json
@common.quiet
def merge(
    parts: tuple[Path, ...],
    output: Path,
    text_model: Path | None,
    duplicates: bool,
    within: float,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make one vocabulary of several, and of a text model.

    PARTS are vocabularies and at most one text model (SentencePiece or tokenizer.json), which replaces the text models
    of the others. Where two of them describe the same modality, codes that say nearly the same become one and the rest
    is appended, for video in a space that holds both; ids of the first do not move unless text is put before them, and
    everything written under any of them can still be read.

    \b
    Example:
      pantok vocab merge home.vocab lab.vocab llm/tokenizer.json -o all.vocab
      pantok vocab merge all.vocab --duplicates -o slim.vocab
    """
    from pantok.evolve.lineage import line
    from pantok.evolve.merge import duplicates as without_duplicates
    from pantok.evolve.merge import join, with_text
    from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary
    from pantok.tokenizers.text import TextTokenizer
    from pantok.vocabulary import Vocabulary
    from pantok.vocabulary import merge as merge_all

    run = common.Run(quiet, as_json)
    common.refuse_vocabulary(output, force)
    for path in parts:
        if not path.exists():
            raise VocabularyError(path, "there is no such vocabulary or text model", "name what is there")
    folders = [p for p in parts if p.is_dir()]
    models = [p for p in parts if not p.is_dir()] + ([text_model] if text_model else [])
    if len(models) > 1:
        raise VocabularyError(models[1], "is a second text model", "give one")
    text: TokenizerState | None = None
    for path in models:
        text = TextTokenizer.of_file(str(path), common.read_bytes(path)).state()
    vocabularies = [load_vocabulary(p) for p in folders]
    merged = vocabularies[0] if vocabularies else merge_all([], text)
    facts: list[Merged] = []
    for path, other in zip(folders[1:], vocabularies[1:], strict=True):
        if text is not None:  # theirs are replaced
            other = Vocabulary({m: s for m, s in other.states.items() if m != "text"}, other.extents, other.remaps)
        merged, more = join(merged, other, within=within, lineage=read_lineage(path))
        facts += more
    if text is not None and vocabularies:
        merged = with_text(merged, text)
    if duplicates:
        merged, more = without_duplicates(merged, within=within)
        facts += more
    kept = [str(p) for p, v in zip(folders, vocabularies, strict=True) if merged.reads(v)]
    arguments = {"parts": [str(p) for p in parts], "duplicates": duplicates, "within": within}
    before = {"ids": sum(v.size for v in vocabularies), "ids_in_use": sum(int(v.live().sum()) for v in vocabularies)}
    after = {"ids": merged.size, "ids_in_use": int(merged.live().sum())}
    step = line("merge", merged, vocabularies, arguments, before, after)
    earlier = read_lineage(folders[0]) if folders else []
    save_vocabulary(merged, output, force=force, lineage=[*earlier, step])
    if facts:
        columns = ["level", "codes", "became another", "appended", "differ by", "of usual"]
        run.summary(
            columns,
            [
                [
                    f"{f.modality} {f.level}",
                    f"{f.codes}",
                    f"{f.shared}",
                    f"{f.appended}",
                    f"{f.difference:.1f}",
                    f"{f.difference / f.usual:.0%}" if f.usual else "",
                ]
                for f in facts
            ],
        )
    run.say(f"Wrote {output}: {merged.size} ids of {', '.join(merged.states)}, {after['ids_in_use']} of them in use.")
    run.say(
        f"Ids are unchanged from {', '.join(kept)}." if kept else "Ids are new; stores keep reading, they hold codes."
    )
    run.end(
        {
            "vocabulary": str(output),
            "id": merged.id,
            "ids": merged.size,
            "ids_unchanged_from": kept,
            "before": before,
            "after": after,
            "levels": [asdict(f) for f in facts],
        }
    )


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
