"""The token store: a Zarr v3 directory of encoded episodes that many processes write at once and no kill can hurt.

What is unusual: nothing in it is ever changed. An episode is staged as a segment of its own, forced to the disk,
renamed into place and listed by a numbered commit (`store_manifest`); readers know of listed segments only. Killed
anywhere, a writer leaves the last commit, and at most a finished segment that the next writer lists instead of
encoding it again. The codes are memory maps of plain Zarr shards (`store_array`). `STORE.md` is the format.

    store = Store.create_or_open("home.zarr", vocabulary)
    store.write(encode(episodes, vocabulary))
    stream = store.read("kitchen-03")
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pantok.errors import OptionError, StoreError, VocabularyError
from pantok.evolve.lineage import unread
from pantok.experience import Source
from pantok.formats import store_vocabularies as vocabularies
from pantok.formats.addresses import address, is_remote
from pantok.formats.store_create import lay
from pantok.formats.store_disk import StageLock, mirror_at, publish, reason, staged
from pantok.formats.store_facts import canonical, checked, episode_digest, episode_key
from pantok.formats.store_manifest import EpisodeInfo, Manifest, SegmentInfo
from pantok.formats.store_remote import mirror_of
from pantok.formats.store_root import read_root
from pantok.formats.store_segment import Segment, is_intact, manifest_entry, segment_name, write_segment
from pantok.formats.store_shard import IO
from pantok.formats.store_sizes import StoreSize, TrackSize, store_sizes
from pantok.formats.store_sweep import clear, remove_dead
from pantok.formats.store_verify import Problem, verify_store
from pantok.formats.vocab import load_vocabulary
from pantok.stream import TokenStream
from pantok.vocabulary import Vocabulary

__all__ = ["SegmentWriter", "Store", "StoreSize", "TrackSize"]

_CACHED_SEGMENTS = 64


class Store:
    """A token store that is there. Make one with `create`, `open` or `create_or_open`. Pickles by its path."""

    def __init__(self, path: Path, first_vocabulary: str, manifest: Manifest) -> None:
        self.path, self._manifest = path, manifest
        self.vocabulary_ids = vocabularies.ids(path, first_vocabulary)
        """Of the vocabularies that its segments were written under, the oldest first (`store_vocabularies`)."""
        self._vocabularies: dict[str, Vocabulary] = {}
        self._segments: dict[str, Segment] = {}
        self._sorted: tuple[int, Mapping[str, EpisodeInfo]] | None = None
        self._is_swept = False
        self._address: str | None = None
        self._io = "mmap"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store.open, (str(self.path if self._address is None else self._address), None, self._io)

    @classmethod
    def create(cls, path: str | Path, vocabulary: Vocabulary, *, force: bool = False) -> Store:
        """A new, empty store that carries a copy of `vocabulary`; it appears whole or not at all.

        force: replace a store that is there (anything else that is there is never touched). Raises StoreError.
        """
        lay(path, vocabulary, force)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path, vocabulary: Vocabulary | None = None, io: str = "mmap") -> Store:
        """The store at `path`, as of its newest commit.

        vocabulary: what the caller will read the codes with; VocabularyError if it is not the store's own, a later one
        that begins with it, or one that has tables for all that the store holds. io: one of `store_shard.IO`, `pread`
        where a map is not to be trusted (network file systems). Raises StoreError for what is missing, damaged or of
        another format.
        """
        if io not in IO:
            raise OptionError(f"io {io}", "is no way to read", f"known: {', '.join(IO)}")
        given, path = path, mirror_of(path)
        if is_remote(given) and not (path / "zarr.json").exists():
            raise StoreError(address(given), "there is no such store", "`pantok encode -o` makes one")
        store = cls(path, read_root(path), Manifest.load(path))
        store._io = io
        if is_remote(given):
            store._address = address(given)
        if vocabulary is None or vocabulary.id == store.vocabulary_id or vocabulary.reads(store.vocabulary):
            return store
        held = {track.modality for track in store.sizes().tracks} or set(store.vocabulary.states)
        if missing := sorted(held & set(unread(vocabulary, store.vocabulary))):
            raise VocabularyError(
                store._address or path,
                f"was encoded under vocabulary {store.vocabulary_id[:12]}, whose {' and '.join(missing)} "
                f"{vocabulary.id[:12]} does not read",
                f"use its own, {vocabularies.newest_folder(path)}, or encode again into a new store",
            )
        return store

    @classmethod
    def create_or_open(cls, path: str | Path, vocabulary: Vocabulary) -> Store:
        """To write under `vocabulary`: the store at `path` if it was made under the same one, else a new one."""
        here, path = mirror_of(path), address(path) if is_remote(path) else Path(path)
        if not here.exists() or (here.is_dir() and not any(here.iterdir())):
            try:
                return cls.create(path, vocabulary)
            except StoreError:
                if not (mirror_of(path) / "zarr.json").exists():
                    raise  # else another process was first
        store = cls.open(path)
        if vocabulary.id not in store.vocabulary_ids:
            raise VocabularyError(
                path,
                f"is a store of vocabulary {store.vocabulary_id[:12]}, not of {vocabulary.id[:12]}",
                "choose another -o, or --force replaces it",
            )
        return store

    @property
    def vocabulary_id(self) -> str:
        """Of the newest vocabulary, under which all of it is read."""
        return self.vocabulary_ids[-1]

    @property
    def vocabulary(self) -> Vocabulary:
        """The newest of the store's own; tensors are read when first touched. Raises VocabularyError."""
        return self.version(self.vocabulary_id)

    def version(self, vocabulary_id: str) -> Vocabulary:
        """One of the vocabularies that segments were written under. Raises VocabularyError if none has that id."""
        if vocabulary_id not in self._vocabularies:
            if vocabulary_id not in self.vocabulary_ids:
                raise VocabularyError(
                    self.path,
                    f"has no vocabulary {vocabulary_id[:12]}, it holds {self.vocabulary_id[:12]}",
                    "encode again under the store's vocabulary, or into a new store",
                )
            folder = vocabularies.folders(self.path)[self.vocabulary_ids.index(vocabulary_id)]
            vocabulary = load_vocabulary(folder, lazy=True)
            if vocabulary.id != vocabulary_id:
                raise VocabularyError(
                    folder, f"is vocabulary {vocabulary.id[:12]}, the store says {vocabulary_id[:12]}",
                    "restore it from a copy",
                )  # fmt: skip
            self._vocabularies[vocabulary_id] = vocabulary
        return self._vocabularies[vocabulary_id]

    def extend(self, vocabulary: Vocabulary, lineage: Iterable[Mapping[str, Any]]) -> bool:
        """Makes a vocabulary that grew out of the newest one the newest; False if another writer was quicker.

        What is written from then on may have its codes; what was written before reads as before. lineage: the lines
        that led to it. Raises VocabularyError if it did not grow out of it, StoreError if the disk refuses.
        """
        if not vocabulary.reads(self.vocabulary):
            raise VocabularyError(
                self.path,
                f"vocabulary {vocabulary.id[:12]} did not grow out of the store's, {self.vocabulary_id[:12]}",
                "choose another -o",
            )
        done = vocabularies.add(self.path, vocabulary, lineage, len(self.vocabulary_ids))
        self.refresh()
        return done

    @property
    def episodes(self) -> Mapping[str, EpisodeInfo]:
        """What is committed, by episode id, in the order of ids."""
        if self._sorted is None or self._sorted[0] != self._manifest.number:
            self._sorted = self._manifest.number, self._manifest.episodes.sorted()
        return self._sorted[1]

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of the segments that hold a live episode."""
        return tuple(self._manifest.segments)

    def __len__(self) -> int:
        return len(self._manifest.episodes)

    def __contains__(self, episode: str) -> bool:
        return episode in self._manifest.episodes

    def refresh(self) -> None:
        """Takes note of what other processes have committed since."""
        self._manifest.refresh()
        self.vocabulary_ids = vocabularies.ids(self.path, self.vocabulary_ids[0], self.vocabulary_ids)

    def has(self, episode: str, sources: Iterable[Source] = (), parameters: Mapping[str, Any] | None = None) -> bool:
        """Whether the episode is committed, made from these sources with these parameters: then skip it."""
        self.refresh()
        found = self._manifest.episodes.get(episode)
        return found is not None and any(
            found.key == episode_key(episode, sources, vocabulary, parameters or {})
            for vocabulary in reversed(self.vocabulary_ids)
        )

    def write(self, streams: Iterable[TokenStream]) -> int:
        """Commits each stream as it comes, a segment each; how many. An episode that is there already is replaced.

        Raises StoreError when the disk is full or refuses (what was committed stays), TokenError for codes that
        their level does not have, VocabularyError for a stream of another vocabulary.
        """
        count = 0
        for stream in streams:
            self.write_segment([stream])
            count += 1
        return count

    @contextmanager
    def writer(self) -> Iterator[SegmentWriter]:
        """`with store.writer() as segment: segment.add(stream)`: one segment of all, committed at the end."""
        segment = SegmentWriter(self)
        yield segment
        if segment.streams:
            self.write_segment(segment.streams)

    def checked(self, stream: TokenStream) -> TokenStream:
        """The stream as it is stored. Raises TokenError, VocabularyError as `write` does."""
        known = stream.vocabulary_id in self.vocabulary_ids
        return checked(stream, self.version(stream.vocabulary_id) if known else self.vocabulary)

    def write_segment(self, streams: Collection[TokenStream]) -> str:
        """Commits the streams together as one segment; its name. See `write`."""
        streams = [self.checked(stream) for stream in streams]
        digests = [episode_digest(stream) for stream in streams]
        name = segment_name(streams, digests)
        try:
            self._sweep_once()
            self.refresh()
            live = self._manifest.episodes
            folder = self.path / "segments" / name
            if not all(s.id in live and live[s.id].segment == name for s in streams) or not is_intact(folder):
                self.put(name, streams, digests)
        except (StoreError, VocabularyError):
            raise
        except OSError as error:
            raise StoreError(
                self.path,
                f"episode {streams[0].id} cannot be written: {reason(error)}",
                "what was committed stays; mend the cause and run again",
            ) from error
        return name

    def put(
        self,
        name: str,
        streams: Sequence[TokenStream],
        digests: Sequence[str],
        packed: bool = False,
        still: Callable[[], bool] | None = None,
    ) -> bool:
        """Stages, places and lists a segment of `checked` streams; whether it is listed. Raises OSError.

        packed: compressed. still: for what lies in the store already; see `Manifest.commit`.
        """
        folder, merged = self.path / "segments", still is not None
        placed = listed = False
        try:
            with ExitStack() as held:
                stage = held.enter_context(staged(folder, name))
                entry = write_segment(stage, streams, digests, self.version(streams[0].vocabulary_id), packed, merged)
                while True:
                    try:
                        publish(stage, folder / name, replace=False)
                        placed = True
                        break
                    except FileExistsError:
                        lock = _settle(stage, folder / name)
                        if lock is not None:
                            held.callback(lock.close)
                            entry = manifest_entry(folder / name)
                            break
                if (mirror := mirror_at(folder)) is not None:
                    mirror.put(folder / name)
                listed = self._manifest.commit(add=[entry], still=still or (lambda: True)) > 0
        finally:
            if placed and not listed:
                with suppress(StoreError):
                    self._manifest.refresh()  # the disk may have refused after the commit was made
                if name not in self._manifest.known:
                    shutil.rmtree(folder / name, ignore_errors=True)
        self._segments.pop(name, None)
        return listed

    def remove(self, episodes: Collection[str]) -> None:
        """Takes episodes out of the store, in one commit; `sweep` frees their space. Raises StoreError if unknown."""
        self.refresh()
        for episode in episodes:
            self._info(episode)
        self._manifest.commit(remove=episodes)

    def read(
        self, episode: str, tracks: Collection[str] | None = None, levels: int | None = None, check: bool = True
    ) -> TokenStream:
        """An episode. Codes are read-only views of the mapped files where they lie in one piece.

        tracks: their names; all if None. levels: the first so many of each, the others come as empty levels and no
        byte of them is read. check: compare the checksum of all that is read.
        Raises StoreError for an unknown episode or track, and for what is missing or damaged.
        """
        info = self._info(episode)
        for track in tracks or ():
            if track not in info.tracks:
                raise StoreError(
                    self.path, f"episode {episode} has no track {track}", f"it has {', '.join(info.tracks)}"
                )
        while True:
            segment, row = self.find(info)
            try:
                return segment.stream(row, tracks, levels, check)
            except StoreError:
                if segment.is_there():
                    raise

    def find(self, episode: EpisodeInfo) -> tuple[Segment, int]:
        """The segment and row of an episode, also if it has been moved since (`compact`). Raises StoreError."""
        known = self._segments.get(episode.segment)
        if known is not None and known.is_there():
            return known, episode.row
        self._segments.pop(episode.segment, None)
        try:
            return self.segment(episode.segment), episode.row
        except StoreError:
            self.refresh()
            now = self._manifest.episodes.get(episode.id)
            if now is None or now.digest != episode.digest or now.segment == episode.segment:
                raise
            return self.segment(now.segment), now.row

    def segment(self, name: str) -> Segment:
        """A committed segment, for readers of whole columns."""
        if name not in self._segments:
            while len(self._segments) >= _CACHED_SEGMENTS:
                self._segments.pop(next(iter(self._segments)))
            segment = Segment(self.path / "segments" / name, self._manifest.known[name].commit_sha256, self._io)
            if (written := segment.commit["vocabulary_id"]) not in self.vocabulary_ids:
                self.refresh()
                self.version(written)
            self._segments[name] = segment
        return self._segments[name]

    def digest(self) -> str:
        """sha256 of all content; the same whatever order, grouping or number of processes wrote it."""
        content = [[e.id, e.digest] for e in self.episodes.values()]
        return hashlib.sha256(canonical([self.vocabulary_id, content])).hexdigest()

    def sizes(self) -> StoreSize:
        """Bytes by track and level, from the manifest alone."""
        return store_sizes(self._manifest, self.vocabulary)

    def sizes_by_track(self) -> dict[str, TrackSize]:
        """`sizes`, by the names of tracks."""
        return {track.name: track for track in self.sizes().tracks}

    def verify(self) -> Iterator[Problem]:
        """Every byte compared with its checksum, every code with its level: see `store_verify`."""
        return verify_store(self.path)

    def known(self, segment: str) -> SegmentInfo:
        """What the manifest says of a committed segment."""
        return self._manifest.known[segment]

    def prepare(self) -> None:
        """What a writer does before its first write: clears up after killed ones, and takes note of all commits."""
        self._sweep_once()
        self.refresh()

    def put_index(self, whole: bool = False) -> None:
        """Puts an index of all episodes there, with which a large store opens at once (`store_index`)."""
        self.refresh()
        self._manifest.put_index(whole)

    def sweep(self) -> list[str]:
        """Removes what no reader of the newest commit needs: replaced and removed segments, and what killed writers
        left. The names removed. A reader that opened the store earlier may lose an episode that was replaced since.
        """
        self._is_swept = False
        self._sweep_once()
        return remove_dead(self, self._manifest)

    def _info(self, episode: str) -> EpisodeInfo:
        found = self._manifest.episodes.get(episode)
        if found is None:
            near = get_close_matches(episode, self._manifest.episodes.near(episode), 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {len(self)}; `pantok info {self.path}` lists them"
            raise StoreError(self.path, f"has no episode {episode}", hint)
        return found

    def _sweep_once(self) -> None:
        """Before the first write: removes what killed writers staged, and lists what they had finished."""
        if self._is_swept:
            return
        self._is_swept = True
        clear(self, self._manifest)


class SegmentWriter:
    """Collects the episodes of one segment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.streams: list[TokenStream] = []

    def add(self, stream: TokenStream) -> None:
        """Raises TokenError or VocabularyError as `Store.write` does."""
        self.streams.append(self._store.checked(stream))


def _settle(stage: Path, placed: Path) -> StageLock | None:
    """What is staged is there already: locked, and ours in its place if it was damaged. None: it is gone again.

    Another process may be about to list it (then this waits until it has), or a killed one left it.
    """
    lock = StageLock.take(placed, wait=True)
    if lock is not None and not is_intact(placed):
        publish(stage, placed, replace=True)
    return lock
