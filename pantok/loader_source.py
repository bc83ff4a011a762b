"""One store of a training job: which of its episodes are read, how long each is, and those that are open.

What is unusual: what is open is bounded in bytes, whatever the store's size. An episode is opened (its files mapped,
its small counts walked through once) when a window of it is wanted; those that were not wanted longest are closed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns, lengths
from pantok.formats.store_laid import LaidEpisodes
from pantok.layout import Sequenced
from pantok.layout_columns import Numbering
from pantok.layout_composed import Composed
from pantok.layout_composed import arranged as opened
from pantok.loader_splits import group_of, split_of
from pantok.vocabulary import Vocabulary

_OPEN_BYTES = 96 << 20
_OPEN_EPISODES = 2048
"""Each open episode may hold a few dozen maps; the kernel gives a process 65,530."""


class Source:
    """A store and the episodes of it that are read. Raises StoreError, VocabularyError.

    vocabulary: what it will be read with, if that is known. episodes: their ids, all if None. split: (name, shares,
    split_by), see `loader_splits`. io: `mmap`, or `pread`: the codes of an episode that is opened are read.
    """

    def __init__(
        self, path: str | Path, vocabulary: Vocabulary | None, episodes: Sequence[str] | None,
        split: tuple[str, Mapping[str, float], str] | None, io: str = "mmap",
    ) -> None:  # fmt: skip
        self.path, self._io = Path(path), io
        self._store: Store | None = Store.open(path, vocabulary, io)
        self.own = self._store.vocabulary
        infos = self._store.episodes
        names = tuple(infos) if episodes is None else tuple(episodes)
        for name in names:
            if name not in infos:
                raise StoreError(path, f"has no episode {name}", "pantok info names them")
        if not names:
            raise StoreError(path, "holds no episodes", "encode some first")
        if split is not None:
            wanted, shares, by = split
            names = tuple(n for n in names if split_of(group_of(n, infos[n].sources, by), shares) == wanted)
            if not names:
                raise StoreError(
                    path, f"has no episode in the split {wanted}", "give it a larger share, or name episodes yourself"
                )
        self.episodes = names
        self._open: dict[int, OrderedDict[int, Sequenced | Composed]] = {}
        self._bytes = 0
        self._kept: dict[int, LaidEpisodes] = {}
        self._lock = RLock()

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store.open(self.path, io=self._io)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: each worker opens the store itself."""
        kept = {k: v for k, v in self.__dict__.items() if k != "_lock"}
        return {**kept, "_store": None, "_open": {}, "_bytes": 0, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())

    def lengths(self, numbering: Numbering) -> np.ndarray:
        """int64 (E,): ids of each episode's sequence."""
        numbering = numbering.of_codes(self.own)
        return lengths(self.store, self.episodes, numbering, self._laid(numbering))

    def _laid(self, numbering: Numbering) -> LaidEpisodes:
        """Where its laid out episodes are kept; numbering: of the store's codes."""
        if id(numbering) not in self._kept:
            self._kept[id(numbering)] = LaidEpisodes(self.store, numbering, self._io)
        return self._kept[id(numbering)]

    def arranged(self, episodes: Sequence[int], numbering: Numbering) -> list[Sequenced | Composed]:
        """Episodes, by their places in `episodes`."""
        numbering = numbering.of_codes(self.own)
        opened = self._open.setdefault(id(numbering), OrderedDict())
        found = [one for episode in episodes if (one := opened.get(episode)) is not None]
        if len(found) == len(episodes) and self._bytes < _OPEN_BYTES // 2:
            return found  # there is room: no need to know which was wanted last
        with self._lock:
            found = []
            for episode in episodes:
                one = opened.get(episode)
                if one is not None:
                    opened.move_to_end(episode)
                else:
                    one = opened[episode] = self._opened(episode, numbering)
                    self._bytes += one.nbytes
                    self._close_some(opened)
                found.append(one)
        return found

    def _close_some(self, wanted: OrderedDict[int, Sequenced | Composed]) -> None:
        """Until there is room: first those of other layouts (a curriculum has left them), then what was wanted longest
        ago. What a batch is made of stays alive until it is."""
        while self._bytes > _OPEN_BYTES or sum(map(len, self._open.values())) > _OPEN_EPISODES:
            full = next((opened for opened in self._open.values() if opened is not wanted and opened), wanted)
            if full is wanted and len(wanted) == 1:
                return
            self._bytes -= full.popitem(last=False)[1].nbytes

    def _opened(self, episode: int, numbering: Numbering) -> Sequenced | Composed:
        name = self.episodes[episode]
        laid = self._laid(numbering).episode(name)
        if laid is not None:
            return laid
        columns = episode_columns(self.store, name, numbering)
        info = self.store.episodes[name]
        place = info.segment, info.row
        found = opened(columns, numbering, numbering.spans.get(place))
        if isinstance(found, Composed):
            numbering.spans[place] = found.spans
        return found
