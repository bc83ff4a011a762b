"""`pantok vocab diff` and `pantok vocab lineage`: what has changed between two vocabularies, and how one came to be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common
from pantok.commands.cli import CHECK_FAILED

if TYPE_CHECKING:
    from pantok.vocabulary import TokenizerState, Vocabulary


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@common.as_json
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Print what NEW has that OLD has not, level by level, and whether it reads what OLD wrote.

    The exit code is 3 if it does not: the two are not related.

    \b
    Example:
      pantok vocab diff home.vocab small.vocab
    """
    from pantok.evolve.lineage import related
    from pantok.formats.vocab import load_vocabulary

    run = common.Run(as_json=as_json)
    a, b = load_vocabulary(old), load_vocabulary(new)
    rows = []
    for modality in dict.fromkeys([*a.states, *b.states]):
        mine, theirs = a.states.get(modality), b.states.get(modality)
        for row in _levels(mine, theirs):
            rows.append([f"{modality} {row[0]}", *row[1:]])
    reads = related(b, a)
    ids = b.reads(a)
    columns = ["level", "codes before", "after", "new", "retired since", "old codes"]
    run.table(f"{old} ({a.size} ids, {a.id[:12]}) and {new} ({b.size} ids, {b.id[:12]})", columns, rows)
    if reads:
        run.say(f"{new} reads what {old} wrote; " + ("no id has moved." if ids else "ids are others, by a table."))
    else:
        run.say(f"{new} does not read what {old} wrote: {_unrelated(a, b)}.")
    document = {
        "old": a.id,
        "new": b.id,
        "reads": reads,
        "ids_unchanged": ids,
        "levels": [dict(zip(columns, row, strict=True)) for row in rows],
    }
    run.end(document, 0 if reads else CHECK_FAILED)


@click.command("lineage")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@common.as_json
def lineage(vocabulary: Path, as_json: bool) -> None:
    """Print the operations that led to a vocabulary, oldest first, with what each changed.

    \b
    Example:
      pantok vocab lineage small.vocab
    """
    from pantok.formats.vocab import read_lineage, read_manifest

    run = common.Run(as_json=as_json)
    lines = read_lineage(vocabulary)
    rows = []
    for entry in lines:
        when = entry.get("unix_time")
        date = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M") if when else ""
        parents = " + ".join(str(p)[:12] for p in entry.get("parents", []))
        child = str(entry.get("vocabulary_id", entry.get("child", "")))[:12]
        ids = str(entry.get("ids", ""))
        rows.append([entry["op"], child, parents, ids, _said(entry), date])
    run.table(f"{vocabulary}", ["operation", "vocabulary", "made from", "ids", "figures", "UTC"], rows)
    run.end({"vocabulary": str(vocabulary), "id": read_manifest(vocabulary)["vocabulary_id"], "lineage": lines})


def _levels(mine: TokenizerState | None, theirs: TokenizerState | None) -> list[list[str]]:
    """Rows of `diff` for one modality."""
    levels = (mine or theirs).levels if (mine or theirs) is not None else ()  # type: ignore[union-attr]
    if mine is None or theirs is None or not theirs.descends(mine):
        what = "added" if mine is None else "taken away" if theirs is None else "another tokenizer"
        sizes = [str(sum(lv.cardinality for lv in s.levels)) if s else "" for s in (mine, theirs)]
        return [["(all)", *sizes, "", "", what]]
    rows = []
    for k, level in enumerate(levels):
        before, after = level.cardinality, theirs.levels[k].cardinality
        gone = len(theirs.retired(k)) - len(mine.retired(k))
        if after > before or gone:
            rows.append([level.name, f"{before}", f"{after}", f"{after - before}", f"{gone}", "the same"])
    size = f"{sum(lv.cardinality for lv in levels)}"
    return rows or [["(all)", size, size, "0", "0", "the same"]]


def _unrelated(a: Vocabulary, b: Vocabulary) -> str:
    from pantok.errors import VocabularyError
    from pantok.evolve.lineage import codes_of, unread

    for modality in unread(b, a):
        try:
            codes_of(b, a, modality, 0)
        except VocabularyError as error:
            return error.problem
    return "they are not related"


def _said(entry: dict[str, Any]) -> str:
    """What an operation measured before and after, in short."""
    before, after = (dict(_flat(entry.get(when, {}))) for when in ("before", "after"))
    return ", ".join(f"{name} {before[name]:.6g} -> {after[name]:.6g}" for name in before if name in after)


def _flat(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and "error" not in name and "gain" not in name:
            yield prefix + name, value
