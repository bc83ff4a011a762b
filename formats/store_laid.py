"""Episodes that are laid out, kept in the store's cache: `.cache/laid-<hash>/<digest>.pack`.

What is unusual: what a training job reads again and again is the sequence, not the codes. `pantok store arrange` lays
the episodes of a store out once for a layout (see `layout_laid`), and every later job of that layout copies windows
from one place. Under a vocabulary with compositions jobs do so themselves, because composing costs more than keeping.
A pack holds some dozens of megabytes of episodes; it is named by which they are, appears whole, and is true for ever,
since segments never change. Jobs that begin at once make the same packs under the same names. Packs take about as many
bytes as the store's codes, and may be removed at any time. Where the store cannot be written to, some dozens of
megabytes are kept in memory, and what is beyond them is composed as it is read.

A pack is little-endian: of each episode, each from a multiple of 64 bytes on, its ids (uint16 or uint32), its runs
(int64, two each), its marks (int32), the names of its tracks (JSON), and int64: ids, bytes of one, where they lie,
runs, where, marks, where, bytes of the names, where; then the index: the keys of the episodes in order (16 bytes each),
where their int64 lie; then int64: episodes, CRC-32C of all before; and 8 bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store_columns import cache_name, episode_columns, key_of
from pantok.formats.store_disk import crc32c
from pantok.formats.store_root import CACHE
from pantok.layout import Arranged, Layout
from pantok.layout_columns import Numbering
from pantok.layout_laid import Laid, lay_out
from pantok.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pantok.formats.store import Store

_MAGIC = b"pantok-2"
_ALIGNED = 64
_PACK = 64 << 20
_WORTH_KEEPING = 4 << 20
"""Bytes; fewer in all are composed anew by each job."""
_IN_MEMORY = 64 << 20
_STALE_S = 86_400
_FACTS = 9  # int64 of an episode


class LaidEpisodes:
    """Those of a store, read by a layout and a vocabulary. numbering: `of_codes` of the store's."""

    def __init__(self, store: Store, numbering: Numbering, io: str = "mmap") -> None:
        self._store, self._numbering, self._io = store, numbering, io
        self._folder = store.path / CACHE / f"laid-{cache_name(store, numbering)}"
        self._packs: list[_Pack] = []
        self._held: dict[bytes, Laid] = {}
        self._held_bytes = 0
        self._open_packs()

    def _open_packs(self) -> None:
        self._packs = []
        with suppress(OSError):
            for path in sorted(self._folder.glob("*.pack")):
                with suppress(OSError, ValueError):
                    self._packs.append(_Pack(path, self._io))

    @property
    def keeps(self) -> bool:
        """Whether a job lays out by itself what it does not find."""
        return self._numbering.compositions is not None

    @property
    def nbytes(self) -> int:
        """Of the packs."""
        return sum(pack.size for pack in self._packs)

    def lengths(self, episodes: Sequence[str]) -> np.ndarray:
        """int64 (E,): ids of each episode; -1 where it is not kept."""
        found = np.full(len(episodes), -1, np.int64)
        if not self._packs and not self._held:
            return found
        keys = [self._key(episode) for episode in episodes]
        for pack in self._packs:
            found = np.where(found < 0, pack.lengths(np.array(keys, "S16")), found)
        for k, key in enumerate(keys if self._held else []):
            if key in self._held:
                found[k] = len(self._held[key])
        return found

    def keep(
        self, episodes: Sequence[str], least: int | None = None, report: Callable[[int], object] = lambda done: None
    ) -> bool:  # fmt: skip
        """Lays them out, on all processors, and keeps what it can; whether they are in packs now.

        least: bytes; fewer in all are kept in memory alone; _WORTH_KEEPING if None. report: is told how many are done.
        Raises TokenError, StoreError.
        """
        place = self._store.episodes
        episodes = sorted(episodes, key=lambda name: (place[name].segment, place[name].row))
        can_write = self._can_write()
        stage = _Stage(self._folder)
        workers = min(len(os.sched_getaffinity(0)), 8)
        with ThreadPoolExecutor(workers) as pool:
            ahead = 2 * workers
            for begin in range(0, len(episodes), ahead):
                if not can_write and self._held_bytes >= _IN_MEMORY:
                    return False
                some = episodes[begin : begin + ahead]
                plain = [self._arranged(episode) for episode in some]
                for episode, laid in zip(some, pool.map(lambda p: lay_out(p, self._numbering), plain), strict=True):
                    if laid is None:
                        continue
                    if can_write:
                        can_write = stage.add(self._key(episode), laid)
                    self._hold(self._key(episode), laid)
                report(begin + len(some))
        kept = can_write and stage.total >= (_WORTH_KEEPING if least is None else least) and stage.close()
        if kept:
            self._held, self._held_bytes = {}, 0
        self._open_packs()
        return kept

    def episode(self, episode: str) -> Laid | None:
        """None where it is not kept and there is no room for it."""
        if not self._packs and not self.keeps:
            return None
        key = self._key(episode)
        if key in self._held:
            return self._held[key]
        for pack in self._packs:
            at = pack.find(key)
            if at >= 0:
                return self._laid(episode, pack, at)
        if not self.keeps or self._held_bytes >= _IN_MEMORY:
            return None
        laid = lay_out(self._arranged(episode), self._numbering)
        return None if laid is None else self._hold(key, laid)

    def sweep(self) -> int:
        """Removes packs that hold no episode which the store still has, and what killed jobs left; how many files."""
        live = {self._key(episode) for episode in self._store.episodes}
        gone = [pack.path for pack in self._packs if not live.intersection(pack.keys.tolist())]
        for path in self._folder.glob("stage-*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - _STALE_S:
                    gone.append(path)
        for path in gone:
            path.unlink(missing_ok=True)
        self._open_packs()
        return len(gone)

    def _key(self, episode: str) -> bytes:
        return key_of(self._store.episodes[episode])

    def _hold(self, key: bytes, laid: Laid) -> Laid:
        if self._held_bytes < _IN_MEMORY:
            self._held[key] = laid
            self._held_bytes += laid.nbytes
        return laid

    def _arranged(self, episode: str) -> Arranged:
        columns = episode_columns(self._store, episode, self._numbering)
        return Arranged(columns, self._numbering.layout, self._numbering.vocabulary, self._numbering)

    def _laid(self, episode: str, pack: _Pack, at: int) -> Laid:
        ids, runs, marks, tracks = pack.parts(at)
        vectors = {}
        if self._numbering.layout.latents:
            columns = episode_columns(self._store, episode, self._numbering, codes=False)
            vectors = {track.name: track.latents for track in columns.tracks}
        latent, held = self._numbering.vocabulary.control("latent"), None if self._io == "pread" else 0
        return Laid(ids, runs, marks, tracks, tuple(vectors.get(name) for name in tracks), latent, held)

    def _can_write(self) -> bool:
        there = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        return os.access(there, os.W_OK)


@dataclass(frozen=True)
class Arrangement:
    """What `arrange` came to. episodes, ids, bytes: of all that are laid out now. laid: episodes that were not before.
    swept: files removed, which held none of the store's episodes any more."""

    episodes: int
    laid: int
    ids: int
    bytes: int
    swept: int


def arrange(
    store: Store, layout: Layout, vocabulary: Vocabulary | None = None, in_use: bool = False,
    report: Callable[[int, int], object] = lambda done, total: None,
) -> Arrangement:  # fmt: skip
    """Lays out the episodes of a store for a layout, those that are not yet; jobs of it read them from then on.

    vocabulary, in_use: as of `StreamDataset`. report: is told (episodes done, in all). Raises StoreError if they cannot
    be kept, TokenError, VocabularyError.
    """
    numbering = Numbering(layout, vocabulary or store.vocabulary, in_use).of_codes(store.vocabulary)
    laid = LaidEpisodes(store, numbering)
    swept, names = laid.sweep(), list(store.episodes)
    missing = [name for name, ids in zip(names, laid.lengths(names).tolist(), strict=True) if ids < 0]
    if missing and not laid.keep(missing, 0, lambda done: report(done, len(missing))):
        raise StoreError(
            store.path / CACHE, "cannot keep what was laid out", "make room there, and see that it can be written to"
        )
    ids = int(laid.lengths(names).sum())
    return Arrangement(len(names), len(missing), ids, laid.nbytes, swept)


def damaged_packs(store: Path) -> Iterator[Path]:
    """Packs whose bytes are not those that were written."""
    for path in sorted(store.glob(f"{CACHE}/laid-*/*.pack")):
        try:
            is_whole = _Pack(path, "mmap").is_whole
        except (OSError, ValueError):
            is_whole = False
        if not is_whole:
            yield path


class _Stage:
    """A pack that is being written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[bytes] = []
        self._entries: list[tuple[bytes, int]] = []
        self._size = 0
        self.total = 0

    def _put(self, array: np.ndarray) -> int:
        """Where it lies."""
        at, data = self._size, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        self._parts.append(data + bytes(-len(data) % _ALIGNED))
        self._size += len(self._parts[-1])
        self.total += len(data)
        return at

    def add(self, key: bytes, laid: Laid) -> bool:
        """Whether it could: a pack that is full is written first."""
        if self._size >= _PACK and not self.close():
            return False
        names = np.frombuffer(json.dumps(laid.tracks).encode(), np.uint8)
        facts = [len(laid), laid.ids.itemsize, self._put(laid.ids), len(laid.runs), self._put(laid.runs)]
        facts += [len(laid.marks), self._put(laid.marks), len(names), self._put(names)]
        self._entries.append((key, self._put(np.array(facts, np.int64))))
        return True

    def close(self) -> bool:
        """Puts the pack there whole, or not at all."""
        if not self._entries:
            return True
        name = hashlib.sha256(b"".join(key for key, _ in self._entries)).hexdigest()[:24]
        entries = sorted(self._entries)
        self._parts.append(np.array([key for key, _ in entries], "S16").tobytes())
        self._parts.append(np.array([at for _, at in entries], "<i8").tobytes())
        self._parts.append(np.array([len(entries)], "<i8").tobytes())
        crc = 0
        for part in self._parts:
            crc = crc32c(part, crc)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=self._folder, prefix="stage-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.writelines([*self._parts, np.array([crc], "<i8").tobytes(), _MAGIC])
                os.chmod(staged, self._folder.stat().st_mode & 0o666)  # who may read the store may read it
                os.replace(staged, self._folder / f"{name}.pack")
            except OSError:
                os.unlink(staged)
                raise
        except OSError:
            return False
        self._parts, self._entries, self._size = [], [], 0
        return True


class _Pack:
    """A pack that is read. Raises OSError, ValueError where it is none."""

    def __init__(self, path: Path, io: str) -> None:
        self.path = path
        self._map: np.ndarray | None = np.memmap(path, np.uint8, mode="r") if io == "mmap" else None
        self.size = path.stat().st_size
        if self.size < 24:
            raise ValueError(path)
        tail = self._read(self.size - 24, 24)
        count = int(tail[:8].view("<i8")[0])
        begin = self.size - 24 - 24 * count
        if tail[16:].tobytes() != _MAGIC or count < 0 or begin < 0:
            raise ValueError(path)
        self.keys = self._read(begin, 16 * count).view("S16")
        self._at = self._read(begin + 16 * count, 8 * count).view("<i8")

    def _read(self, at: int, size: int) -> np.ndarray:
        if at < 0 or size < 0 or at + size > self.size:
            raise ValueError(self.path)
        if self._map is not None:
            return self._map[at : at + size].view(np.ndarray)
        return np.fromfile(self.path, np.uint8, size, offset=at)

    @property
    def is_whole(self) -> bool:
        said = self._read(self.size - 16, 8).view("<i8")[0]
        return bool(crc32c(self._read(0, self.size - 16).data) == said)

    def _facts(self, at: int) -> list[int]:
        return self._read(at, 8 * _FACTS).view("<i8").tolist()

    def lengths(self, keys: np.ndarray) -> np.ndarray:
        """int64: ids of the episodes of these keys, -1 where one is not here."""
        found = np.full(len(keys), -1, np.int64)
        if len(self.keys):
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            for k in np.flatnonzero(self.keys[at] == keys).tolist():
                found[k] = self._facts(int(self._at[at[k]]))[0]
        return found

    def find(self, key: bytes) -> int:
        """Where the int64 of an episode lie, -1 where it is not here."""
        at = int(np.searchsorted(self.keys, key))
        return int(self._at[at]) if at < len(self.keys) and self.keys[at] == key else -1

    def parts(self, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
        """ids, runs, marks, names of the tracks."""
        ids, width, ids_at, runs, runs_at, marks, marks_at, names, names_at = self._facts(at)
        return (
            self._read(ids_at, ids * width).view(f"<u{width}"),
            self._read(runs_at, 16 * runs).view("<i8").reshape(-1, 2),
            self._read(marks_at, 4 * marks).view("<i4"),
            tuple(json.loads(self._read(names_at, names).tobytes())),
        )
