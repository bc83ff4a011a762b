"""How often each code of a store is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pantok.evolve.lineage import codes_of
from pantok.evolve.respell import respelling
from pantok.formats.store import Store
from pantok.vocabulary import Vocabulary


def count_codes(path: str | Path, vocabulary: Vocabulary) -> dict[tuple[str, int], np.ndarray]:
    """By modality and level: int64 (cardinality,), how often the store holds each code, as codes of `vocabulary`.

    -1 for a code that came after the store's own vocabulary: that it is not there says nothing. Words of another text
    model are not counted.

    Raises VocabularyError if the store was written under a vocabulary that is no ancestor of it.
    """
    store = Store.open(path)
    others = () if respelling(vocabulary, store.vocabulary) is None else ("text",)
    counts: dict[tuple[str, int], np.ndarray] = {}
    tables: dict[tuple[str, int], np.ndarray] = {}
    for episode in store.episodes:
        for track in store.read(episode, check=False).tracks.values():
            for number, level in enumerate(track.levels if track.modality not in others else ()):
                key = track.modality, number
                if key not in tables:
                    tables[key] = codes_of(vocabulary, store.vocabulary, *key)
                    counts[key] = np.full(vocabulary.levels(track.modality)[number].cardinality, -1, np.int64)
                    counts[key][tables[key]] = 0
                seen = np.bincount(level.codes, minlength=len(tables[key]))
                counts[key] += np.bincount(tables[key], seen, len(counts[key])).astype(np.int64)
    return counts
