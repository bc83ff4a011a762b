"""What was written under an older vocabulary, read under a newer one: from the codes of one to the ids of the other.

What is unusual: relation is proved, not claimed. A vocabulary is another's ancestor if its codebooks begin the other's,
byte for byte (`TokenizerState.descends`), or if the other holds a table for it from a merge; the lines of lineage.jsonl
tell a person what was done, but nothing is believed on their word.

    old codes --table--> ids of the newest vocabulary    (`in_use`: what was retired is what stands for it now)

Text under another text model is spelled anew (`pantok.evolve.respell`); that alone takes more than a table.

Every code of an ancestor has an id in its descendants, for ever: growth, compositions, merged duplicates and pruning
all leave the ids that there were. So a store is read under a later vocabulary by one look-up a code, and decodes from
its own codes to the same samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import pantok
from pantok.errors import VocabularyError
from pantok.evolve.respell import respelling
from pantok.stream import OWN_TERMS, TokenStream
from pantok.vocabulary import NOTHING, TokenizerState, Vocabulary


def codes_of(newest: Vocabulary, ancestor: Vocabulary, modality: str, level: int) -> np.ndarray:
    """uint32 (cardinality there,): the code in `newest` of each code of a level of `ancestor`.

    Raises VocabularyError, naming both, if the tokenizer there is no ancestor of the one here.
    """
    spec = ancestor.levels(modality)[level]
    theirs = ancestor.states[modality]
    mine = newest.states.get(modality)
    if mine is not None and mine.descends(theirs):
        return np.arange(spec.cardinality, dtype=np.uint32)
    known = newest.remaps.get(theirs.digest, {}).get(spec.name)
    if mine is not None and known is not None:
        return np.asarray(known, np.uint32)
    raise VocabularyError(
        f"vocabulary {ancestor.id[:12]}",
        f"is not an ancestor of {newest.id[:12]}: its {modality} is {theirs.digest[:12]}, "
        + (f"there it is {mine.digest[:12]}" if mine is not None else "there is none there"),
        "use the vocabulary that it was written under, merge the two, or encode again",
    )


def table(newest: Vocabulary, ancestor: Vocabulary, modality: str, level: int, *, in_use: bool = False) -> np.ndarray:
    """uint32 (cardinality there,): the id in `newest` of each code of a level of `ancestor`.

    in_use: for a code that was retired since, the id of what stands for it now (itself if nothing does).
    Raises VocabularyError if the two are not related.
    """
    codes = codes_of(newest, ancestor, modality, level)
    return newest.table(modality, level, in_use=in_use)[codes]


def ids(newest: Vocabulary, ancestor: Vocabulary, *, in_use: bool = False) -> np.ndarray:
    """uint32 (ancestor.size,): the id in `newest` of each id of `ancestor`; NOTHING for the text of another model.

    Raises VocabularyError if the two are not related.
    """
    out = np.full(ancestor.size, NOTHING, np.uint32)
    for kind in ("control", "digit"):
        (here,), (there,) = ([e for e in v.extents if e.kind == kind] for v in (newest, ancestor))
        out[there.start : there.stop] = np.arange(here.start, here.stop, dtype=np.uint32)
    for modality, state in ancestor.states.items():
        if modality == "text" and (modality not in newest.states or newest.states["text"].digest != state.digest):
            continue
        for level, spec in enumerate(state.levels):
            if spec.role != "digit":
                out[ancestor.table(modality, level)] = table(newest, ancestor, modality, level, in_use=in_use)
    return out


def translated(newest: Vocabulary, written: Vocabulary, stream: TokenStream) -> TokenStream:
    """A stream written under `written` as codes of `newest`; itself where codes mean the same.

    Raises VocabularyError if the two are not related.
    """
    if newest.id == written.id or newest.decodes(written):
        return stream
    tracks, other_words = {}, respelling(newest, written)
    for name, track in stream.tracks.items():
        if track.modality == "text" and other_words is not None:
            tracks[name] = other_words.track(track)
            continue
        tables = [codes_of(newest, written, track.modality, number) for number in range(len(track.levels))]
        levels = (replace(lv, codes=table[lv.codes]) for table, lv in zip(tables, track.levels, strict=True))
        header = track.header
        if not newest.states[track.modality].descends(written.states[track.modality]):
            header = {k: v for k, v in header.items() if k not in OWN_TERMS}
        tracks[name] = replace(track, levels=tuple(levels), header=header)
    return replace(stream, tracks=tracks)


def related(newest: Vocabulary, ancestor: Vocabulary) -> bool:
    """Whether everything written under `ancestor` can be read under `newest`."""
    return not unread(newest, ancestor)


def unread(newest: Vocabulary, ancestor: Vocabulary) -> list[str]:
    """The modalities of `ancestor` that cannot be read under `newest`: text can under every text model."""
    return [
        m
        for m, s in ancestor.states.items()
        if m not in newest.states or not (m == "text" or newest.states[m].descends(s) or s.digest in newest.remaps)
    ]


def line(
    operation: str,
    child: Vocabulary,
    parents: Sequence[Vocabulary],
    arguments: Mapping[str, Any] | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A line of lineage.jsonl: what was done to which vocabularies, what came of it, and the figures."""
    return {
        "op": operation,
        "vocabulary_id": child.id,
        "parents": [p.id for p in parents],
        "arguments": dict(arguments or {}),
        "before": dict(before or {}),
        "after": dict(after or {}),
        "tokenizers": {m: _facts(s) for m, s in child.states.items()},
        "ids": child.size,
        "pantok": pantok.__version__,
        "unix_time": int(time.time()),
    }


def forebears(lines: Iterable[Mapping[str, Any]], state: TokenizerState) -> dict[str, list[int]]:
    """{digest: cardinalities} of the tokenizers that `state` grew out of, as lineage.jsonl tells of them."""
    found = {}
    for entry in lines:
        facts = entry.get("tokenizers", {}).get(state.modality)
        if facts and all(n <= lv.cardinality for n, lv in zip(facts["sizes"], state.levels, strict=True)):
            found[str(facts["digest"])] = [int(n) for n in facts["sizes"]]
    return found


def _facts(state: TokenizerState) -> dict[str, Any]:
    return {"digest": state.digest, "sizes": [lv.cardinality for lv in state.levels]}
