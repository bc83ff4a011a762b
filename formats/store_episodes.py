"""Episodes and segments of a manifest as mappings: a mapped index below, what was committed since over it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pantok.formats.store_index import Index

if TYPE_CHECKING:
    from pantok.formats.store_manifest import EpisodeInfo, SegmentInfo


class Episodes(Mapping[str, "EpisodeInfo"]):
    """Episode by id. base: below; gone: ids of base that are removed or replaced; new: all that is over it."""

    def __init__(self, base: Index | None, new: dict[str, EpisodeInfo], gone: set[str]) -> None:
        self.base, self.new, self.gone = base, new, gone

    def __len__(self) -> int:
        return len(self.new) + (len(self.base) - len(self.gone) if self.base is not None else 0)

    def __getitem__(self, episode: str) -> EpisodeInfo:
        found = self.new.get(episode)
        if found is None and self.base is not None and episode not in self.gone:
            at = self.base.place(episode)
            found = self.base.get(at) if at >= 0 else None
        if found is None:
            raise KeyError(episode)
        return found

    def __contains__(self, episode: object) -> bool:
        if episode in self.new:
            return True
        if self.base is None or episode in self.gone or not isinstance(episode, str):
            return False
        return self.base.place(episode) >= 0

    def __iter__(self) -> Iterator[str]:
        if self.base is None:
            return iter(self.new)
        below = (id for id in self.base.ids() if id not in self.gone)
        return heapq.merge(below, sorted(self.new))

    def sorted(self) -> Episodes:
        """A copy that does not change when the manifest does; in order of ids."""
        return Episodes(self.base, dict(sorted(self.new.items())), set(self.gone))

    def near(self, episode: str) -> list[str]:
        """Ids among which the one that was meant may be."""
        return [*self.new, *(self.base.near(episode, 1000) if self.base is not None else [])]


class Segments(Mapping[str, "SegmentInfo"]):
    """Every segment ever committed, by name."""

    def __init__(self, base: Index | None, new: dict[str, SegmentInfo]) -> None:
        self.base, self.new = base, new

    def __getitem__(self, name: str) -> SegmentInfo:
        found = self.new.get(name)
        if found is None:
            below = self.base.segment(name) if self.base is not None else None
            if below is None:
                raise KeyError(name)
            found = below[0]
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.new or (self.base is not None and self.base.segment(str(name)) is not None)

    def __iter__(self) -> Iterator[str]:
        yield from self.new
        if self.base is not None:
            yield from (name for name in self.base.names() if name not in self.new)

    def __len__(self) -> int:
        return sum(1 for _ in self)
