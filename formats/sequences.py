"""The episodes of a store as sequences of ids, for what looks at a store as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns
from pantok.layout import Arranged, Layout, TokenSequence
from pantok.layout_columns import Numbering
from pantok.vocabulary import Vocabulary


def read_sequences(
    path: str | Path, layout: Layout, vocabulary: Vocabulary, episodes: Collection[str] | None = None
) -> Iterator[tuple[TokenSequence, float]]:
    """Each episode in the order of their names, as ids of `vocabulary`, and the seconds that it lasts.

    episodes: these alone; all if None.

    Raises StoreError, and VocabularyError if `vocabulary` does not read the store.
    """
    store = Store.open(path, vocabulary)
    numbering = Numbering(layout, vocabulary).of_codes(store.vocabulary)
    for name, info in sorted(store.episodes.items()):
        if episodes is not None and name not in episodes:
            continue
        arranged = Arranged(episode_columns(store, name, numbering), layout, vocabulary, numbering)
        yield arranged.cut(), max(info.duration_ns, 1) / 1e9
