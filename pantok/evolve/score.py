"""A vocabulary judged on recordings: how many ids a second, how many bits, for whom, and what the vocabulary weighs.

What is unusual: the figure is of experience, not of ids. Bits an id say nothing between vocabularies whose ids mean
different amounts; held-out bits a second do, and they can be held against any other vocabulary on the same recordings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pantok.errors import InputError
from pantok.evolve.compose import Corpus
from pantok.evolve.compositions import MODALITY as COMPOSITION
from pantok.evolve.compositions import Compositions, makeup_of
from pantok.evolve.dictionary import composition_bits
from pantok.evolve.objective import Cost, cost_and_bits, held_out
from pantok.layout import TokenSequence
from pantok.vocabulary import BASIS, BEYOND, LIFE, Vocabulary, canonical_json

_LEAST_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class Share:
    """What ids of one kind amount to on the held-out part: `what` is a modality, `composition` or `control`."""

    what: str
    ids_per_second: float
    bits_per_second: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """A vocabulary on recordings. cost: on the held-out part; its dictionary is `vocabulary_bits`. seconds, ids: of all
    of it. uncomposed_ids: what the layout has without compositions."""

    cost: Cost
    shares: tuple[Share, ...]
    episodes: int
    seconds: float
    ids: int
    uncomposed_ids: int
    vocabulary_bits: float


def description_bits(vocabulary: Vocabulary) -> float:
    """What it takes to write a vocabulary down: its tensors as they are, its configuration and its text model, and
    its compositions, see `dictionary`."""
    bits = 0.0
    for modality, state in vocabulary.states.items():
        if modality == COMPOSITION:
            bits += float(composition_bits(Compositions.of(vocabulary), makeup_of(vocabulary).classes)[-1])
            continue
        said = (f".{BASIS}", f".{BEYOND}")
        tensors = [t for name, t in state.tensors.items() if not name.startswith(LIFE) or name.endswith(said)]
        held = sum(t.nbytes for t in tensors) + sum(map(len, state.blobs.values())) + len(canonical_json(state.config))
        bits += 8.0 * held
    return bits


def score(
    vocabulary: Vocabulary,
    sequences: Iterable[tuple[TokenSequence, float]],
    rest: Iterable[tuple[TokenSequence, float]] = (),
) -> Score:
    """Judges a vocabulary on sequences of a layout, each with its seconds; its compositions are applied.

    rest: those that are to be held out; none of `sequences` is then. Else a quarter of them.

    Raises InputError if they are too few to hold some out, or if no time passes in them.
    """
    given, last = [s for s in sequences if len(s[0])], [s for s in rest if len(s[0])]
    counted = sum(len(sequence) for sequence, _ in given)
    given += last
    compositions = Compositions.of(vocabulary)
    whole = Corpus.of(given, compositions.across)
    if whole.passage.seconds.sum() < _LEAST_S * len(given):  # a document lasts a nanosecond
        raise InputError(
            "recordings", "last no time, so they have no bits a second", "text with times has: .srt, .vtt, .jsonl"
        )
    corpus = whole.composed(compositions)
    groups = len(corpus.passage.seconds)
    held = np.arange(groups) >= whole.passage.group[counted] if last and counted else held_out(groups)
    train, judged = corpus.passage.taken(~held), corpus.passage.taken(held)
    if not len(train.ids) or not len(judged.ids):
        raise InputError("recordings", "are too short to hold a part of them out", "give more of them")
    weight = description_bits(vocabulary)
    found, bits = cost_and_bits(train, judged, vocabulary.size, makeup=makeup_of(vocabulary), dictionary_bits=weight)
    owner, names = _owners(vocabulary)
    seconds = float(judged.seconds.sum())
    count = np.bincount(owner[judged.ids], minlength=len(names))
    sums = np.bincount(owner[judged.ids], bits, len(names))
    return Score(
        cost=found,
        shares=tuple(
            Share(what=name, ids_per_second=int(n) / seconds, bits_per_second=float(b) / seconds)
            for name, n, b in zip(names, count, sums, strict=True)
            if n
        ),
        episodes=len(given),
        seconds=float(corpus.passage.seconds.sum()),
        ids=len(corpus.passage.ids),
        uncomposed_ids=len(whole.passage.ids),
        vocabulary_bits=weight,
    )


def _owners(vocabulary: Vocabulary) -> tuple[np.ndarray, list[str]]:
    """int64 (size,): number of what an id is of; and the names."""
    names = list(dict.fromkeys(e.modality or e.kind for e in vocabulary.extents))
    owner = np.zeros(vocabulary.size, np.int64)
    for e in vocabulary.extents:
        owner[e.start : e.stop] = names.index(e.modality or e.kind)
    return owner, names
