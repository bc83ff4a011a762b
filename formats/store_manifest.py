"""What a token store holds: a log of numbered commits that many processes append to at once.

What is unusual: no lock and no file that is ever written twice. A commit is a new file `manifest/<n>.json`, put if
absent; whoever loses the race for a number reads the winner's commit and tries the next. Ten thousand episodes are
ten thousand small files, so every 64th commit also puts a *roll*, which repeats the last 64 commits in one file,
and every 4,096th a roll of 4,096: opening reads a few dozen files, and each commit is written three times in all.
Rolls are only a short cut: one that is missing or damaged is read past. So is the index of a large store, which
holds the state after a commit as mapped columns (`store_index`).

    manifest/0000000000.json        the birth: the store's own files with size and checksum
    manifest/0000000001.json        {format, number, unix_time, add: [segment, ...], remove: [episode id, ...]}
    manifest/0000000064.64.json     {format, first, last, commits: [...]}
    manifest/index/0000004096.idx   columns of all episodes after commit 4096
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pantok.errors import StoreError
from pantok.experience import Source
from pantok.formats.store_disk import SealError, mirror_at, present, put_if_absent, reason, seal, unseal
from pantok.formats.store_episodes import Episodes, Segments
from pantok.formats.store_index import Index, Totals, newest, write_index

FORMAT = 1
FOLDER = "manifest"
ROLL_BYTES = 1 << 18
"""Commits larger than this on average are not repeated in a roll."""
INDEX_FROM = 4096
"""Fewer episodes than this are not worth an index."""
ROLLS = (4096, 64)
_REMEDY = "`pantok verify` says what can still be read; restore the file from a copy, or encode into a new store"


@dataclass(frozen=True)
class TrackInfo:
    """What the manifest says of a track: enough for totals without opening a segment.

    codes: number of codes by level. latents: (N, D), None where there are none.
    """

    name: str
    modality: str
    samples: int
    ticks: int
    duration_ns: int
    codes: tuple[int, ...]
    latents: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class EpisodeInfo:
    """An episode of a store.

    key: hash of what it was made from (id, sources, vocabulary, parameters). digest: sha256 of its content.
    segment, row: where it lies. start_ns: the earliest of its tracks' starts; duration_ns: to the latest end.
    """

    id: str
    key: str
    digest: str
    segment: str
    row: int
    start_ns: int
    duration_ns: int
    _sources: list[list[Any]] = field(repr=False)
    _tracks: Mapping[str, list[Any]] = field(repr=False)

    @property
    def line(self) -> list[Any]:
        """All that is known of it, with its place."""
        facts = [self.key, self.digest, self.start_ns, self.duration_ns, self._sources, self._tracks]
        return [self.id, self.segment, self.row, *facts]

    @property
    def raw_sources(self) -> list[list[Any]]:
        """As in the manifest."""
        return self._sources

    @property
    def raw_tracks(self) -> Mapping[str, list[Any]]:
        """As in the manifest."""
        return self._tracks

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        return tuple(Source(path, size, sha256) for path, size, sha256 in self._sources)

    @cached_property
    def tracks(self) -> dict[str, TrackInfo]:
        return {
            name: TrackInfo(name, modality, samples, ticks, ns, tuple(codes), tuple(latents) if latents else None)
            for name, (modality, samples, ticks, ns, codes, latents) in self._tracks.items()
        }


@dataclass(frozen=True)
class SegmentInfo:
    """A committed segment.

    commit_sha256: of its COMMIT.json. bytes: of all its objects. episodes: its rows, live or not.
    """

    name: str
    bytes: int
    commit_sha256: str
    episodes: int = 0


class Manifest:
    """The commits of a store up to `number`, applied in order; over an index of the first of them, if there is one."""

    def __init__(self, store: Path, base: Index | None = None) -> None:
        self.store, self.folder = store, store / FOLDER
        self.number = base.number if base is not None else 0
        self.episodes = Episodes(base, {}, set())
        self.known = Segments(base, {})
        """Every segment ever committed, replaced ones too."""
        self._live: dict[str, int] = {}
        """How many more live episodes a segment has than the index says."""

    @property
    def segments(self) -> dict[str, SegmentInfo]:
        """The segments that hold a live episode, by name."""
        live = {name for name, more in self._live.items() if more > 0}
        base = self.episodes.base
        if base is not None:
            live |= {base.name(k) for k in range(len(base.segments)) if self._live_in(base, k) > 0}
        return {name: self.known[name] for name in sorted(live)}

    def _live_in(self, base: Index, segment: int) -> int:
        live = int(base.segments["live"][segment])
        return live + self._live.get(base.name(segment), 0) if self._live else live

    @property
    def totals(self) -> Totals:
        """Sums over the live episodes, from the index where there is one."""
        episodes = self.episodes
        totals = Totals(episodes.base.totals if episodes.base is not None else None)
        for id in episodes.gone:
            assert episodes.base is not None
            totals.add(episodes.base.get(episodes.base.place(id)), -1)
        for episode in episodes.new.values():
            totals.add(episode)
        return totals

    @property
    def live_bytes(self) -> int:
        """Of all objects of the live segments."""
        base = self.episodes.base
        if base is not None and not self._live and not self.known.new:
            return base.totals["live_bytes"]
        return sum(segment.bytes for segment in self.segments.values())

    @property
    def live_segments(self) -> int:
        """How many segments hold a live episode."""
        base = self.episodes.base
        if base is not None and not self._live and not self.known.new:
            return base.totals["live_segments"]
        return len(self.segments)

    @classmethod
    def load(cls, store: Path) -> Manifest:
        """All commits of the store at `store`. Raises StoreError where one is missing or damaged."""
        manifest = cls(store, newest(store / FOLDER))
        for commit in manifest.commits(manifest.number):
            if isinstance(commit, StoreError):
                raise commit
            manifest.apply(commit)
        return manifest

    def commits(self, after: int = 0) -> Iterator[dict[str, Any] | StoreError]:
        """The commits `after` + 1 on, through rolls where they serve; a StoreError in the place of what cannot be read.

        After 0 the folder is listed, so that no commit is overlooked; else it is felt for, as it may be very long.
        """
        at = after + 1
        if after:
            while (last := self._felt(at)) >= at:
                yield from self._span(at, last, lambda name: present(self.folder / name))
                at = last + 1
            return
        try:
            names = set(os.listdir(self.folder))
        except OSError as error:
            yield StoreError(self.folder, f"cannot be read: {reason(error)}", _REMEDY)
            return
        last = max((int(name[:10]) for name in names if is_commit(name) or is_roll(name)), default=0)
        yield from self._span(at, last, names.__contains__)

    def _felt(self, at: int) -> int:
        """A commit not before `at` that is there, also where some between are missing; at - 1 if there is none."""
        steps = [*range(64), *(64 << k for k in range(20))]
        return max((at + k for k in steps if present(self.folder / commit_name(at + k))), default=at - 1)

    def _span(self, at: int, last: int, has: Callable[[str], bool]) -> Iterator[dict[str, Any] | StoreError]:
        while at <= last:
            for span in ROLLS:
                if (at - 1) % span == 0 and at + span - 1 <= last and has(roll_name(at + span - 1, span)):
                    with suppress(StoreError):
                        roll = self.read(roll_name(at + span - 1, span))
                        yield from roll["commits"]
                        at += span
                        break
            else:
                try:
                    yield self.read(commit_name(at))
                except StoreError as error:
                    yield error
                at += 1

    def read(self, name: str) -> dict[str, Any]:
        """One file of the manifest, its checksum compared. Raises StoreError."""
        path = self.folder / name
        present(path)
        try:
            value = unseal(path.read_bytes(), "it")
        except FileNotFoundError as error:
            raise StoreError(path, "is missing: the episodes of this commit are not known", _REMEDY) from error
        except OSError as error:
            raise StoreError(path, f"cannot be read: {reason(error)}", "check its permissions") from error
        except SealError as error:
            raise StoreError(path, str(error).removeprefix("it "), _REMEDY) from error
        if value.get("format") != FORMAT:
            raise StoreError(path, f"is of format {value.get('format')}, this pantok reads {FORMAT}", "upgrade pantok")
        return value

    def apply(self, commit: Mapping[str, Any]) -> None:
        for episode in commit["remove"]:
            self._take_away(episode)
        for segment in commit["add"]:
            name = segment["segment"]
            rows = segment["episodes"]
            self.known.new[name] = SegmentInfo(name, segment["bytes"], segment["commit_sha256"], len(rows))
            for row, (id, key, digest, start_ns, duration_ns, sources, tracks) in enumerate(rows):
                self._take_away(id)
                self.episodes.new[id] = EpisodeInfo(
                    id, key, digest, name, row, start_ns, duration_ns, sources, tracks
                )  # in the place of an earlier one
                self._live[name] = self._live.get(name, 0) + 1
        self.number = commit["number"]

    def _take_away(self, episode: str) -> None:
        base = self.episodes.base
        old = self.episodes.new.pop(episode, None)
        if old is not None:
            self._live[old.segment] -= 1
        elif base is not None and episode not in self.episodes.gone and (at := base.place(episode)) >= 0:
            name = base.name(int(base.records["segment"][at]))
            self.episodes.gone.add(episode)
            self._live[name] = self._live.get(name, 0) - 1

    def refresh(self) -> None:
        """Applies what others have committed since."""
        while present(self.folder / commit_name(self.number + 1)):
            self.apply(self.read(commit_name(self.number + 1)))

    def commit(
        self,
        add: Iterable[Mapping[str, Any]] = (),
        remove: Iterable[str] = (),
        still: Callable[[], bool] = lambda: True,
    ) -> int:
        """Appends a commit and applies it, after all that others have appended meanwhile; its number.

        still: asked of the state that the commit would follow on; where it says no, nothing is done: 0.
        """
        body = {"add": list(add), "remove": list(remove)}
        while True:
            self.refresh()
            if not still():
                return 0
            number = self.number + 1
            commit = {"format": FORMAT, "number": number, "unix_time": int(time.time()), **body}
            if self._put(commit_name(number), seal(commit)):
                self.apply(commit)
                with suppress(OSError):  # only short cuts
                    self._roll(number)
                    self._index(number)
                return number

    def _put(self, name: str, data: bytes) -> bool:
        mirror = mirror_at(self.folder)
        return (put_if_absent if mirror is None else mirror.put_if_absent)(self.folder / name, data)

    def _roll(self, number: int) -> None:
        for span in reversed(ROLLS):
            if number % span == 0 and self._is_worth(number, span):
                self._put_roll(number, span)

    def _index(self, number: int) -> None:
        """Now and then, so that opening is quick and all the writing of indexes is no more than a few times one."""
        below = len(self.episodes.base) if self.episodes.base is not None else 0
        changed = len(self.episodes.new) + len(self.episodes.gone)
        if mirror_at(self.folder) is None and number % ROLLS[-1] == 0 and changed >= max(INDEX_FROM, below // 8):
            self.put_index()

    def put_index(self, whole: bool = False) -> bool:
        """Puts an index of all that is committed. whole: without what earlier indexes hold of dead episodes."""
        if whole:
            return write_index(self.folder, self.number, None, (), self.episodes.values(), self.known)
        base, gone, new = self.episodes.base, self.episodes.gone, self.episodes.new
        return write_index(self.folder, self.number, base, gone, new.values(), self.known.new)

    def mend_rolls(self) -> None:
        """Puts the rolls that a killed writer did not come to put."""
        for name in self.lacking_rolls(os.listdir(self.folder)):
            self._put_roll(int(name[:10]), int(name[11:-5]))

    def lacking_rolls(self, names: Iterable[str]) -> list[str]:
        """The rolls that should stand among the files `names`, small ones first."""
        return [name for name in missing_rolls(names, self.number) if self._is_worth(int(name[:10]), int(name[11:-5]))]

    def _is_worth(self, last: int, span: int) -> bool:
        """Commits of many episodes are not repeated: to parse them takes far longer than to open them."""
        size = 0
        for number in range(last - span + 1, last + 1):
            with suppress(OSError):
                size += os.stat(self.folder / commit_name(number)).st_size
            if size > span * ROLL_BYTES:
                return False
        return True

    def _put_roll(self, last: int, span: int) -> None:
        commits = list(Manifest(self.store).between(last - span + 1, last))
        roll = {"format": FORMAT, "first": last - span + 1, "last": last, "commits": commits}
        self._put(roll_name(last, span), seal(roll))

    def between(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """The commits first to last, both included, through the small rolls where they serve. Raises StoreError."""
        span = ROLLS[-1]
        at = first
        while at <= last:
            if (at - 1) % span == 0 and at + span - 1 < last:
                with suppress(StoreError):
                    yield from self.read(roll_name(at + span - 1, span))["commits"]
                    at += span
                    continue
            yield self.read(commit_name(at))
            at += 1


def commit_name(number: int) -> str:
    return f"{number:010d}.json"


def roll_name(last: int, span: int) -> str:
    return f"{last:010d}.{span}.json"


def is_commit(name: str) -> bool:
    return len(name) == 15 and name[:10].isdigit() and name[10:] == ".json"


def is_roll(name: str) -> bool:
    return name[:10].isdigit() and any(name[10:] == f".{span}.json" for span in ROLLS)


def missing_rolls(names: Iterable[str], number: int) -> list[str]:
    """The rolls that should stand among the files `names` of a manifest of `number` commits, small ones first."""
    wanted = [roll_name(last, span) for span in reversed(ROLLS) for last in range(span, number + 1, span)]
    there = set(names)
    return [name for name in wanted if name not in there]
