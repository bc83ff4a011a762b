"""Composed episodes, kept in the store's cache: `.cache/composed-<hash>/<digest>.pack`.

What is unusual: under a vocabulary with compositions each episode is composed once, and what is kept are columns of
codes like those of the store itself (see `layout_recomposed`), so later readings map them and cost no more than plain
ones. A pack holds some dozens of megabytes of episodes; it is named by which they are, appears whole, and is true for
ever, since segments never change. Jobs that begin at once make the same packs under the same names. Packs take about as
many bytes as the store's codes, and may be removed at any time. Where the store cannot be written to, some dozens of
megabytes are kept in memory, and what is beyond them is composed as it is read.

A pack is little-endian: the columns of its episodes, each from a multiple of 64 bytes on, then of each episode int64
    tracks, then of each track: levels, bytes of a count, where the counts of its levels lie, and for each level how
    many codes it has and where they lie
then the index, rows of (key 16 bytes, ids int64, where the episode's int64 lie), then its length, int64, and 8 bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pantok.formats.store_columns import cache_name, episode_columns, key_of
from pantok.formats.store_root import CACHE
from pantok.layout import Arranged
from pantok.layout_columns import Column, EpisodeColumns, Numbering, TrackColumns
from pantok.layout_recomposed import Recomposed, can_recompose, recompose, track_of

if TYPE_CHECKING:
    from pantok.formats.store import Store

_ENTRY = np.dtype([("key", "S16"), ("ids", "<i8"), ("at", "<i8")])
_MAGIC = b"pantok-1"
_ALIGNED = 64
_PACK = 64 << 20
_WORTH_KEEPING = 4 << 20
"""Bytes; fewer in all are composed anew by each job."""
_IN_MEMORY = 64 << 20


class ComposedEpisodes:
    """Those of a store, read by a layout and a vocabulary with compositions. numbering: `of_codes` of the store's."""

    def __init__(self, store: Store, numbering: Numbering, io: str = "mmap") -> None:
        self._store, self._plain, self._io = store, numbering, io
        self.numbering = Recomposed(numbering)
        self._folder = store.path / CACHE / f"composed-{cache_name(store, numbering)}"
        self._packs: list[_Pack] = []
        self._held: dict[bytes, Arranged] = {}
        self._held_bytes = 0
        self._open_packs()

    @classmethod
    def of(cls, store: Store, numbering: Numbering, io: str = "mmap") -> ComposedEpisodes | None:
        """None where episodes cannot be kept composed: see `can_recompose`."""
        return cls(store, numbering, io) if can_recompose(numbering) else None

    def _open_packs(self) -> None:
        self._packs = []
        with suppress(OSError):
            for path in sorted(self._folder.glob("*.pack")):
                with suppress(OSError, ValueError):
                    self._packs.append(_Pack(path, self._io))

    def lengths(self, episodes: Sequence[str]) -> np.ndarray:
        """int64 (E,): composed ids of each episode; -1 where it is not kept."""
        keys = np.array([key_of(self._store.episodes[episode]) for episode in episodes], "S16")
        found = np.full(len(keys), -1, np.int64)
        for pack in self._packs:
            found = np.where(found < 0, pack.lengths(keys), found)
        for k, key in enumerate(keys.tolist()):
            if key in self._held:
                found[k] = len(self._held[key])
        return found

    def keep(self, episodes: Sequence[str]) -> None:
        """Composes them, on all processors, and keeps what it can. episodes: in the order of their segments."""
        can_write = self._can_write()
        stage = _Stage(self._folder, self.numbering)
        workers = min(len(os.sched_getaffinity(0)), 8)
        with ThreadPoolExecutor(workers) as pool:
            ahead = 2 * workers
            for begin in range(0, len(episodes), ahead):
                if not can_write and self._held_bytes >= _IN_MEMORY:
                    return
                some = episodes[begin : begin + ahead]
                plain = [self._arranged_plain(episode) for episode in some]
                for episode, columns in zip(some, pool.map(lambda p: recompose(p, self.numbering), plain), strict=True):
                    key = key_of(self._store.episodes[episode])
                    arranged = self._arranged(columns)
                    if can_write:
                        can_write = stage.add(key, len(arranged), columns)
                    self._hold(key, arranged)
        if can_write and stage.total >= _WORTH_KEEPING and stage.close():
            self._held, self._held_bytes = {}, 0
        self._open_packs()

    def arranged(self, episode: str) -> Arranged | None:
        """None where it is not kept and there is no room for it."""
        key = key_of(self._store.episodes[episode])
        if key in self._held:
            return self._held[key]
        for pack in self._packs:
            at = pack.find(key)
            if at >= 0:
                columns = episode_columns(self._store, episode, self._plain, codes=False)
                return self._arranged(pack.columns(at, columns, self._plain, self.numbering))
        if self._held_bytes >= _IN_MEMORY:
            return None
        return self._hold(key, self._arranged(recompose(self._arranged_plain(episode), self.numbering)))

    def _hold(self, key: bytes, arranged: Arranged) -> Arranged:
        if self._held_bytes < _IN_MEMORY:
            self._held[key] = arranged
            self._held_bytes += arranged.nbytes
        return arranged

    def _arranged(self, columns: EpisodeColumns) -> Arranged:
        return Arranged(columns, self.numbering.layout, self.numbering.vocabulary, self.numbering)

    def _arranged_plain(self, episode: str) -> Arranged:
        columns = episode_columns(self._store, episode, self._plain)
        return Arranged(columns, self._plain.layout, self._plain.vocabulary, self._plain)

    def _can_write(self) -> bool:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self._folder, os.W_OK)


class _Stage:
    """A pack that is being written."""

    def __init__(self, folder: Path, numbering: Recomposed) -> None:
        self._folder, self._numbering = folder, numbering
        self._parts: list[bytes] = []
        self._entries: list[tuple[bytes, int, np.ndarray]] = []
        self._size = 0
        self.total = 0

    def _put(self, array: np.ndarray) -> int:
        """Where it lies."""
        at, data = self._size, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        rest = -len(data) % _ALIGNED
        self._parts.append(data + bytes(rest))
        self._size += len(data) + rest
        self.total += len(data)
        return at

    def add(self, key: bytes, ids: int, columns: EpisodeColumns) -> bool:
        """Whether it could: a pack that is full is written first."""
        if self._size >= _PACK and not self.close():
            return False
        facts = [len(columns.tracks)]
        for track in columns.tracks:
            assert track.counts is not None
            counts = track.counts[:, : len(track.levels)]
            facts += [len(track.levels), counts.itemsize, self._put(counts)]
            for column in track.levels:
                facts += [column.rows, self._put(column.pieces[0]) if column.pieces else 0]
        self._entries.append((key, ids, np.array(facts, "<i8")))
        return True

    def close(self) -> bool:
        """Puts the pack there whole, or not at all."""
        if not self._entries:
            return True
        index = np.empty(len(self._entries), _ENTRY)
        facts, at = [], self._size
        for row, (key, ids, said) in enumerate(self._entries):
            index[row] = key, ids, at
            at += said.nbytes
            facts.append(said)
        index = index[np.argsort(index["key"])]
        name = hashlib.sha256(b"".join(key for key, _, _ in self._entries)).hexdigest()[:24]
        tail = np.array([len(index)], "<i8").tobytes() + _MAGIC
        try:
            handle, staged = tempfile.mkstemp(dir=self._folder, prefix="stage-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.writelines([*self._parts, *(said.tobytes() for said in facts), index.tobytes(), tail])
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
        self._path = path
        self._map: np.ndarray | None = np.memmap(path, np.uint8, mode="r") if io == "mmap" else None
        self._size = path.stat().st_size
        if self._size < 16:
            raise ValueError(path)
        tail = self._read(self._size - 16, 16)
        count = int(tail[:8].view("<i8")[0])
        begin = self._size - 16 - count * _ENTRY.itemsize
        if tail[8:].tobytes() != _MAGIC or count < 0 or begin < 0:
            raise ValueError(path)
        self._index = self._read(begin, count * _ENTRY.itemsize).view(_ENTRY)
        self._keys = np.ascontiguousarray(self._index["key"])

    def _read(self, at: int, size: int) -> np.ndarray:
        if self._map is not None:
            return self._map[at : at + size].view(np.ndarray)
        return np.fromfile(self._path, np.uint8, size, offset=at)

    def lengths(self, keys: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._index["ids"][at], -1)

    def find(self, key: bytes) -> int:
        """Where the int64 of an episode lie, -1 where it is not here."""
        at = int(np.searchsorted(self._keys, key))
        return int(self._index["at"][at]) if at < len(self._keys) and self._keys[at] == key else -1

    def columns(self, at: int, like: EpisodeColumns, plain: Numbering, numbering: Recomposed) -> EpisodeColumns:
        """like: the episode's plain columns, without codes."""
        tracks = plain.ordered(like.tracks)
        size = 1 + sum(3 + 2 * len(track.levels) for track in tracks)
        facts = self._read(at, 8 * size).view("<i8")
        place = 1
        made: list[TrackColumns] = []
        for track in tracks:
            depth, itemsize, begin = facts[place : place + 3].tolist()
            counts = self._read(begin, track.ticks * depth * itemsize).view(f"<u{itemsize}").reshape(track.ticks, depth)
            place += 3
            levels = []
            for k in range(depth):
                rows, begin = facts[place : place + 2].tolist()
                place += 2
                dtype = numbering.dtype(track.modality, k)
                codes = self._read(begin, rows * dtype.itemsize).view(dtype)
                held = 0 if self._map is not None else codes.nbytes
                levels.append(Column((codes,), rows, held=held) if rows else Column((), 0))
            made.append(track_of(track, levels, counts))
        return EpisodeColumns(like.id, made)
