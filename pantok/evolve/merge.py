"""Codes that say the same made one: near-duplicates within a level, and two vocabularies learned apart.

What is unusual: what is compared is what codes decode to, in the units of the recording, and what is merged keeps its
ids. Of two near-duplicates one is retired and the other stands for it; the vectors of both stay, so that old streams
decode as they did. Two vocabularies become one where their transforms are the same, and video also where they are not
(`merge_video`): a code of the second that decodes to nearly what a code of the first does is that code, the others are
appended, and a table tells the codes of the second as codes of the merged one. Pieces of numbers are sequences of
symbols: they are the same or they are not, without a threshold.

Near means: closer than a share `within` of how far codes of the level usually are from their nearest neighbours.

Shapes: K codes of a level, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pantok.errors import VocabularyError
from pantok.evolve import codebooks
from pantok.evolve.lineage import forebears, ids
from pantok.evolve.merge_video import in_terms_of, narrowed
from pantok.quantizers.kmeans import nearest
from pantok.vocabulary import BASIS, LIFE, NOTHING, TokenizerState, Vocabulary, canonical_json, merge

WITHIN = 0.25
"""Of the usual distance (not its square) between neighbours."""
_OWN = {"audio": ("rates", "latent.mean", "latent.basis"), "video": ("smooth.limits", "smooth.weights")}
"""Tensors that describe the recordings a tokenizer was fitted on, and no code: the first vocabulary's are kept."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What merging did to one level: codes in use before (of the second vocabulary, where there are two), how many of
    them are now another code, how many were appended, and the root mean square difference of those that are another."""

    modality: str
    level: str
    codes: int
    shared: int
    appended: int
    difference: float
    usual: float


def duplicates(
    vocabulary: Vocabulary, *, within: float = WITHIN, counts: Mapping[tuple[str, int], np.ndarray] | None = None
) -> tuple[Vocabulary, list[Merged]]:
    """The vocabulary with near-duplicates retired, each with the code that stands for it.

    counts: by modality and level, how often each code is used; of two the one that is used more stays (the older one
        where nothing is said). No code stands for another that is further than `within` allows: there are no chains.
    """
    states, report = dict(vocabulary.states), []
    for modality, state in vocabulary.states.items():
        for level in range(len(state.levels)):
            uses = (counts or {}).get((modality, level))
            states[modality], facts = _within_level(states[modality], level, within, uses)
            report += [facts] if facts is not None else []
    return Vocabulary(states, vocabulary.extents, vocabulary.remaps), report


def usual_distance(rows: np.ndarray) -> float:
    """The median distance of rows (K, D) from their nearest neighbours; 0 for fewer than two."""
    return float(np.sqrt(np.median(_neighbours(rows)))) if len(rows) > 1 else 0.0


def _neighbours(rows: np.ndarray) -> np.ndarray:
    """float64 (K,): squared distance of each row from the nearest other one."""
    out = np.empty(len(rows))
    norms = (rows * rows).sum(1)
    for at in range(0, len(rows), 1024):
        part = norms[at : at + 1024, None] + norms - 2 * rows[at : at + 1024] @ rows.T
        part[np.arange(len(part)), at + np.arange(len(part))] = np.inf
        out[at : at + 1024] = part.min(1)
    return np.maximum(out, 0)


def _within_level(
    state: TokenizerState, level: int, within: float, uses: np.ndarray | None
) -> tuple[TokenizerState, Merged | None]:
    rows = codebooks.vectors(state, level)
    alive = codebooks.in_use(state, level)
    if rows is None or len(alive) < 3:
        return state, None
    usual = usual_distance(rows[alive])
    limit = (within * usual) ** 2
    here = rows[alive]
    norms = (here * here).sum(1)
    gap = np.maximum(norms[:, None] + norms - 2 * here @ here.T, 0)
    a, b = np.nonzero(np.triu(gap <= limit, 1))
    order = np.argsort(gap[a, b], kind="stable")
    worth = np.zeros(len(alive)) if uses is None else np.asarray(uses, np.float64)[alive]
    stand_in = np.full(len(alive), -1)
    needed = np.zeros(len(alive), bool)  # stands for another, so it stays
    for i, j in zip(a[order].tolist(), b[order].tolist(), strict=True):
        keep, go = (i, j) if worth[i] >= worth[j] else (j, i)
        if needed[go]:
            keep, go = go, keep
        # The first code of a level is never retired: it is what is drawn where nothing is said.
        if stand_in[keep] >= 0 or stand_in[go] >= 0 or needed[go] or go == 0:
            continue
        stand_in[go], needed[keep] = keep, True
    gone = np.flatnonzero(stand_in >= 0)
    if not len(gone):
        return state, None
    facts = Merged(
        modality=state.modality,
        level=state.levels[level].name,
        codes=len(alive),
        shared=len(gone),
        appended=0,
        difference=float(np.sqrt(gap[gone, stand_in[gone]].mean())),
        usual=usual,
    )
    return codebooks.without(state, level, alive[gone], alive[stand_in[gone]]), facts


def join(
    home: Vocabulary,
    other: Vocabulary,
    *,
    within: float = WITHIN,
    lineage: Iterable[Mapping[str, Any]] = (),
) -> tuple[Vocabulary, list[Merged]]:
    """`home` with what `other` describes and it does not; no id of `home` moves.

    lineage: the lines of `other`, so that what was written under its ancestors can be read too. A modality that only
    one of them has is taken as it is. Raises VocabularyError where the two describe a modality in ways or transforms
    that differ (then codes mean different things, and no table makes them the same; transforms of video may differ), or
    have different text models.
    """
    if other.reads(home):  # it grew out of home: with its compositions, which name its ids
        return replace(other, remaps={**other.remaps, **home.remaps}), []
    merged, report = home, []
    texts = {s.digest: s for s in (home.states.get("text"),) if s is not None}
    lines = list(lineage)
    remaps = {**other.remaps, **home.remaps}
    for modality, theirs in other.states.items():
        mine = merged.states.get(modality)
        if modality == "text":
            texts.setdefault(theirs.digest, theirs)
            continue
        if modality == "composition":
            continue  # it names ids of its own vocabulary, and is composed anew
        if mine is None or theirs.descends(mine):
            merged = merged.with_state(theirs)
            continue
        if mine.descends(theirs):
            continue
        state, tables, facts = _one(mine, theirs, within)
        report += facts
        for spec in theirs.levels:
            tables.setdefault(spec.name, np.arange(spec.cardinality, dtype=np.uint32))
        merged = merged.with_state(state)
        known = {theirs.digest: [lv.cardinality for lv in theirs.levels], **forebears(lines, theirs)}
        for digest, sizes in known.items():
            cut = zip(theirs.levels, sizes, strict=True)
            remaps[digest] = {lv.name: tables[lv.name][:n] for lv, n in cut}
    if len(texts) > 1:
        raise VocabularyError(
            "merge",
            "two of the vocabularies have different tokenizers for text",
            "name the text model to keep, such as --text-model A.vocab/text/model",
        )
    return merge([replace(merged, remaps=remaps)], *texts.values()), report


def with_text(vocabulary: Vocabulary, text: TokenizerState) -> Vocabulary:
    """The vocabulary with another text model, whose ids come first: all others move, and compositions with them.

    Raises VocabularyError where a composition holds words of the text model that was there.
    """
    mine, composed = vocabulary.states.get("text"), vocabulary.states.get("composition")
    if composed is None or (mine is not None and mine.digest == text.digest):
        return merge([vocabulary], text)
    kept = tuple(e for e in vocabulary.extents if e.modality != "composition")
    plain = Vocabulary(
        {m: s for m, s in vocabulary.states.items() if m != "composition"}, kept, vocabulary.remaps
    )  # fmt: skip
    new = merge([plain], text)
    to = np.full(vocabulary.size, NOTHING, np.uint32)
    to[: plain.size] = ids(new, plain)
    named = vocabulary.table("composition", 0)
    to[named] = new.size + np.arange(len(named), dtype=np.uint32)
    parts = {name: to[composed.tensors[name]] for name in ("left", "right")}
    if any((p == NOTHING).any() for p in parts.values()):
        raise VocabularyError(
            "merge", "compositions hold words of the text model that is there",
            "merge the text model with the vocabulary as it was before `vocab compose`, then compose again",
        )  # fmt: skip
    moved = new.with_state(replace(composed, tensors={**composed.tensors, **parts}))
    same = {composed.levels[0].name: np.arange(len(named), dtype=np.uint32)}
    return replace(moved, remaps={**moved.remaps, composed.digest: same})


def _one(
    mine: TokenizerState, theirs: TokenizerState, within: float
) -> tuple[TokenizerState, dict[str, np.ndarray], list[Merged]]:
    """Two tokenizers of one modality as one that descends from the first, and for each level that has a table or
    vectors the code there of each code of `theirs`. Raises VocabularyError, see `join`."""
    _made_alike(mine, theirs)
    if mine.modality == "numeric":
        _one_transform(mine, theirs)
        state, pieces, facts = _pieces(mine, theirs)
        return state, {"pieces": pieces}, [facts]
    report, state, said, tables = list[Merged](), mine, theirs, dict[str, np.ndarray]()
    if mine.modality == "video":
        state, said, tables = in_terms_of(mine, theirs)
    _one_transform(state, said)
    for level, spec in enumerate(theirs.levels):
        if spec.name in tables:
            report.append(_chosen(mine, level, tables[spec.name]))
        elif spec.role == "code" and codebooks.tensor_of(said, level) is not None:
            state, tables[spec.name], facts = _level(state, said, level, within)
            report.append(facts)
    return narrowed(state, mine) if mine.modality == "video" else state, tables, report


def _chosen(mine: TokenizerState, level: int, table: np.ndarray) -> Merged:
    """What merging did to a level of choices, which are the same or are not."""
    spec = mine.levels[level]
    shared = int((table < spec.cardinality).sum())
    return Merged(
        modality=mine.modality, level=spec.name, codes=len(table), shared=shared, appended=len(table) - shared,
        difference=0.0, usual=0.0,
    )  # fmt: skip


def _level(
    state: TokenizerState, theirs: TokenizerState, level: int, within: float
) -> tuple[TokenizerState, np.ndarray, Merged]:
    """One level of `join`, and the code of the result that each code of `theirs` is."""
    mine, other = codebooks.vectors(state, level), codebooks.vectors(theirs, level)
    assert mine is not None and other is not None
    alive = codebooks.in_use(state, level)
    usual = usual_distance(mine[alive])
    near, _ = nearest(other.astype(np.float32), mine[alive].astype(np.float32))
    near = alive[near]
    gap = ((other - mine[near]) ** 2).sum(1)
    fresh = np.flatnonzero(gap > (within * usual) ** 2)
    table = near.astype(np.uint32)
    table[fresh] = len(mine) + np.arange(len(fresh), dtype=np.uint32)
    shared = gap[gap <= (within * usual) ** 2]
    facts = Merged(
        modality=state.modality,
        level=state.levels[level].name,
        codes=len(other),
        shared=len(shared),
        appended=len(fresh),
        difference=float(np.sqrt(shared.mean())) if len(shared) else 0.0,
        usual=usual,
    )
    if len(fresh):
        name = codebooks.tensor_of(theirs, level)
        assert name is not None
        beside = {n: codebooks.entries(theirs, level, n)[fresh] for n in codebooks.beside(theirs, level)}
        rows = np.asarray(theirs.tensors[name])[fresh]
        # What lies nearer to a code of the first vocabulary than codes are shared is described by that code.
        state = codebooks.appended(state, level, rows, int((within * usual) ** 2), beside)
    return state, table, facts


def _pieces(mine: TokenizerState, theirs: TokenizerState) -> tuple[TokenizerState, np.ndarray, Merged]:
    """The pieces of numbers of both: (left, right) over the symbols that both have, equal by what they expand to."""
    from pantok.tokenizers.numeric import NumericTokenizer

    a, b = (NumericTokenizer.from_state(s).pieces for s in (mine, theirs))
    known = {a.expansion(code): code for code in range(a.size)}
    merges = a.merges.tolist()
    table = np.zeros(b.size, np.uint32)
    table[: b.alphabet] = np.arange(b.alphabet)
    for number, (left, right) in enumerate(b.merges.tolist()):
        code, said = b.alphabet + number, b.expansion(b.alphabet + number)
        if said not in known:
            known[said] = a.alphabet + len(merges)
            merges.append([int(table[left]), int(table[right])])
        table[code] = known[said]
    size = a.alphabet + len(merges)
    old = np.asarray(mine.tensors["merges"])
    more = np.array(merges, old.dtype).reshape(-1, 2)
    levels = (replace(mine.levels[0], cardinality=size), *mine.levels[1:])
    facts = Merged(
        modality="numeric", level="pieces", codes=b.size, shared=b.size - (size - a.size), appended=size - a.size,
        difference=0.0, usual=0.0,
    )  # fmt: skip
    return replace(mine, levels=levels, tensors={**mine.tensors, "merges": more}), table, facts


def _says(tensor: str) -> bool:
    """Whether a tensor says what codes mean, and not which are in use."""
    return not tensor.startswith(LIFE) or tensor.endswith(f".{BASIS}")


def _made_alike(mine: TokenizerState, theirs: TokenizerState) -> None:
    """Raises VocabularyError unless both have the same levels, made in the same way."""
    config = (
        ("format", "reach", "base", "digits", "tick", "key_ticks", "longest") if mine.modality == "numeric"
        else ("format",)
    )  # fmt: skip
    a, b = ({k: s.config.get(k) for k in config} for s in (mine, theirs))
    if canonical_json(a) != canonical_json(b) or [lv.name for lv in mine.levels] != [lv.name for lv in theirs.levels]:
        raise _not_one(mine, theirs, "they are made in different ways")


def _one_transform(mine: TokenizerState, theirs: TokenizerState) -> None:
    """Raises VocabularyError unless codes of both are vectors of one transform."""
    books = {codebooks.tensor_of(s, k) for s in (mine, theirs) for k in range(len(s.levels))}
    beside = {n for s in (mine, theirs) for k in range(len(s.levels)) for n in codebooks.beside(s, k)}
    free = {*books, *beside, *_OWN.get(mine.modality, ()), "merges"}
    for name in sorted({n for s in (mine, theirs) for n in s.tensors if n not in free and _says(n)}):
        if name.endswith(".starts"):
            continue  # how a book is searched, not what it says
        if name not in mine.tensors or name not in theirs.tensors or not np.array_equal(
            mine.tensors[name], theirs.tensors[name]
        ):  # fmt: skip
            raise _not_one(mine, theirs, f"their {name} differ, so that equal codes mean different things")


def _not_one(mine: TokenizerState, theirs: TokenizerState, problem: str) -> VocabularyError:
    return VocabularyError(
        f"merge of {mine.modality} {mine.digest[:12]} and {theirs.digest[:12]}",
        problem,
        f"grow the first with the other's recordings: pantok vocab grow FIRST --with RECORDINGS --only {mine.modality}",
    )
