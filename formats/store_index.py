"""The index of a large store: all of a manifest up to one commit as columns that are mapped, not loaded.

What is unusual: opening it reads one footer, whatever the number of episodes, and finding one among ten million is two
dozen short reads of the file (not of a map, whose pages would come sixteen at a time and count as the process's own).
It is only a short cut, as rolls are: it says nothing that the commits do not say, may be removed at any time, and one
that is damaged is read past. Later commits are applied over it in memory.

manifest/index/<number>.idx holds the state after commit `number`, little endian, in this order:

    facts       JSON [sources, tracks] of each episode, as in the manifest
    ids         the episodes' ids, UTF-8
    names       the names of segments
    records     `RECORD` of each live episode, in order of ids
    segments    `SEGMENT` of each segment ever committed; `records` name them by their place here
    by_name     uint32: the places of segments in order of names
    footer      sealed JSON {format, number, episodes, sections: {name: [offset, bytes, crc32c]}, totals}
    uint64      bytes of the footer

Each record carries the CRC-32C of its id, its other columns and its facts, compared whenever it is read.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store_disk import SealError, crc32c, put_file_if_absent, reason, seal, unseal

if TYPE_CHECKING:
    from pantok.formats.store_manifest import EpisodeInfo, SegmentInfo

FORMAT = 1
FOLDER = "index"
RECORD = np.dtype(
    [
        ("id_at", "<u8"), ("facts_at", "<u8"), ("id_bytes", "<u4"), ("facts_bytes", "<u4"), ("segment", "<u4"),
        ("row", "<u4"), ("start_ns", "<i8"), ("duration_ns", "<i8"), ("key", "V16"), ("digest", "V32"),
        ("unused", "<u4"), ("crc32c", "<u4"),
    ]
)  # fmt: skip
_STRUCT = struct.Struct("<QQIIIIqq16s32sII")
"""`RECORD`, as Python takes it."""
SEGMENT = np.dtype(
    [
        ("name_at", "<u8"), ("bytes", "<u8"), ("name_bytes", "<u4"), ("episodes", "<u4"), ("live", "<u4"),
        ("unused", "<u4"), ("commit_sha256", "V32"),
    ]
)  # fmt: skip
_REMEDY = "remove it: the commits say all that it says, and `pantok store compact` makes it anew"
_SORTED_BY_NUMPY = 256
"""Longest id in bytes that is sorted in a numpy column of fixed width."""


class Totals:
    """Sums over episodes, by track; what is removed is subtracted again."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        known = known or {}
        self.duration_ns: int = known.get("duration_ns", 0)
        self.tracks: dict[str, list[Any]] = {name: list(t) for name, t in known.get("tracks", {}).items()}

    def add(self, episode: EpisodeInfo, sign: int = 1) -> None:
        self.duration_ns += sign * episode.duration_ns
        for name, (modality, samples, ticks, ns, codes, latents) in episode.raw_tracks.items():
            now = self.tracks.get(name)
            if now is None:
                now = self.tracks[name] = [modality, 0, 0, 0, 0, [0] * len(codes), 0]
            now[1] += sign
            now[2] += sign * samples
            now[3] += sign * ticks
            now[4] += sign * ns
            now[5] = [a + sign * b for a, b in zip(now[5], codes, strict=True)]
            now[6] += sign * 2 * latents[0] * latents[1] if latents else 0

    def json(self) -> dict[str, Any]:
        return {"duration_ns": self.duration_ns, "tracks": self.tracks}


class Index:
    """An index file, mapped. Raises StoreError if it is missing, damaged or of another format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._fd)
            size = os.fstat(self._fd).st_size
            if size < 8:
                raise StoreError(path, "is cut short", _REMEDY)
            self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(path, f"cannot be read: {reason(error)}", _REMEDY) from error
        length = int.from_bytes(self._map[-8:], "little")
        try:
            footer = unseal(self._map[max(size - 8 - length, 0) : size - 8], "it")
        except SealError as error:
            raise StoreError(path, str(error).removeprefix("it "), _REMEDY) from error
        if footer.get("format") != FORMAT:
            raise StoreError(path, f"is of format {footer.get('format')}, this pantok reads {FORMAT}", _REMEDY)
        self.number: int = footer["number"]
        self.totals: dict[str, Any] = footer["totals"]
        self._sections: dict[str, list[Any]] = footer["sections"]
        if max(at + n for at, n, _ in self._sections.values()) > size - 8 - length:
            raise StoreError(path, "is cut short", _REMEDY)
        view = memoryview(self._map)
        self._part = {name: view[at : at + n] for name, (at, n, _) in self._sections.items()}
        self.records = np.frombuffer(self._part["records"], RECORD)
        self.segments = np.frombuffer(self._part["segments"], SEGMENT)
        self._by_name = np.frombuffer(self._part["by_name"], "<u4")

    def __len__(self) -> int:
        return len(self.records)

    def fault(self) -> str:
        """What is wrong with any byte of it; '' if nothing."""
        for name, (_, _, crc) in self._sections.items():
            if f"{_crc_of(self._part[name]):08x}" != crc:
                return f"is damaged: the checksum of its {name} differs"
        return ""

    def id_at(self, place: int) -> bytes:
        record = self._record(place)
        return self._read("ids", record[0], record[2])

    def _read(self, section: str, at: int, count: int) -> bytes:
        try:
            return os.pread(self._fd, count, self._sections[section][0] + at)
        except (OSError, OverflowError) as error:
            raise StoreError(self.path, f"cannot be read: {error}", _REMEDY) from error

    def _record(self, place: int) -> tuple[Any, ...]:
        """The columns of `RECORD`."""
        return _STRUCT.unpack(self._read("records", place * RECORD.itemsize, RECORD.itemsize))

    def place(self, episode: str) -> int:
        """Where an episode's record is, -1 if there is none."""
        wanted = _utf8(episode)
        at = self._bisect(len(self.records), self.id_at, wanted)
        return at if at < len(self.records) and self.id_at(at) == wanted else -1

    def near(self, episode: str, count: int) -> list[str]:
        """The ids about where `episode` would stand."""
        at = self._bisect(len(self.records), self.id_at, _utf8(episode))
        return [_text(self.id_at(k)) for k in range(max(at - count, 0), min(at + count, len(self.records)))]

    def get(self, place: int) -> EpisodeInfo:
        """The episode at a place. Raises StoreError if its record is damaged."""
        from pantok.formats.store_manifest import EpisodeInfo

        data = self._read("records", place * RECORD.itemsize, RECORD.itemsize)
        id_at, facts_at, id_bytes, facts_bytes, segment, row, start_ns, duration_ns, key, digest, _, crc = (
            _STRUCT.unpack(data)
        )
        id, facts = self._read("ids", id_at, id_bytes), self._read("facts", facts_at, facts_bytes)
        if _record_crc(id, data, facts) != crc:
            raise StoreError(self.path, f"is damaged: the record of episode {_text(id)}", _REMEDY)
        sources, tracks = json.loads(facts)
        return EpisodeInfo(
            _text(id), key.hex(), digest.hex(), self.name(segment), row, start_ns, duration_ns, sources, tracks
        )

    def ids(self) -> Iterator[str]:
        """All ids, in order."""
        for first in range(0, len(self.records), 4096):
            part = self.records[first : first + 4096]
            for at, n in zip(part["id_at"].tolist(), part["id_bytes"].tolist(), strict=True):
                yield _text(bytes(self._part["ids"][at : at + n]))

    def name(self, segment: int) -> str:
        row = self.segments[segment]
        return str(self._read("names", int(row["name_at"]), int(row["name_bytes"])), "ascii")

    def segment(self, name: str) -> tuple[SegmentInfo, int] | None:
        """What is known of a segment, and how many live episodes it has."""
        from pantok.formats.store_manifest import SegmentInfo

        at = self._bisect(len(self._by_name), lambda k: self.name(int(self._by_name[k])), name)
        if at == len(self._by_name) or self.name(int(self._by_name[at])) != name:
            return None
        row = self.segments[int(self._by_name[at])]
        sha = bytes(row["commit_sha256"]).hex()
        return SegmentInfo(name, int(row["bytes"]), sha, int(row["episodes"])), int(row["live"])

    def names(self) -> Iterator[str]:
        """All segments ever committed, in order of names."""
        return (self.name(int(k)) for k in self._by_name)

    @staticmethod
    def _bisect(count: int, at: Any, wanted: Any) -> int:
        lo, hi = 0, count
        while lo < hi:
            middle = (lo + hi) // 2
            lo, hi = (middle + 1, hi) if at(middle) < wanted else (lo, middle)
        return lo


def newest(folder: Path) -> Index | None:
    """The newest index below a manifest's folder that can be read."""
    for name in sorted(names_in(folder), reverse=True):
        try:
            return Index(folder / FOLDER / name)
        except StoreError:
            continue
    return None


def names_in(folder: Path) -> list[str]:
    """The index files below a manifest's folder."""
    try:
        return [n for n in os.listdir(folder / FOLDER) if n.endswith(".idx") and n[:-4].isdigit()]
    except OSError:
        return []


def write_index(
    folder: Path,
    number: int,
    base: Index | None,
    gone: Iterable[str],
    episodes: Iterable[EpisodeInfo],
    known: Mapping[str, SegmentInfo],
) -> bool:
    """Puts the index of commit `number` there, whole and on the disk, and removes older ones.

    base: an index of an earlier commit, copied without the episodes `gone`; `episodes`, and `known` segments, are new.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / f"{number:010d}.idx"
    placed = put_file_if_absent(path, lambda file: _write(file, number, base, gone, episodes, known))
    for name in sorted(names_in(folder)):
        if name < path.name:
            (folder / FOLDER / name).unlink(missing_ok=True)
    return placed


class _Sections:
    """Parts of the file, one after another, each with its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0
        self.table: dict[str, list[Any]] = {}

    def begin(self, name: str) -> None:
        self._file.write(bytes(-self._at % 8))
        self._at += -self._at % 8
        self._name, self._first, self._crc = name, self._at, 0

    def write(self, data: bytes | memoryview) -> int:
        """Where, from the section's beginning, the data stands."""
        at = self._at - self._first
        self._file.write(data)
        self._crc = crc32c(data, self._crc) if len(data) else self._crc
        self._at += len(data)
        return at

    def end(self) -> None:
        self.table[self._name] = [self._first, self._at - self._first, f"{self._crc:08x}"]

    def whole(self, name: str, data: bytes | memoryview) -> None:
        self.begin(name)
        self.write(data)
        self.end()


def _write(
    file: BinaryIO, number: int, base: Index | None, gone: Iterable[str], episodes: Iterable[EpisodeInfo],
    known: Mapping[str, SegmentInfo],
) -> None:  # fmt: skip
    out = _Sections(file)
    totals = Totals(base.totals if base is not None else None)
    old = base.records if base is not None else np.zeros(0, RECORD)
    keep = np.ones(len(old), bool)
    for id_gone in gone:
        if base is not None and (at := base.place(id_gone)) >= 0:
            keep[at] = False
            totals.add(base.get(at), -1)
    old = old[keep]
    names = [base.name(k) for k in range(len(base.segments))] if base is not None else []
    numbers = {name: k for k, name in enumerate(names)}
    for name in known:
        numbers.setdefault(name, len(numbers))
    out.begin("facts")
    if base is not None:
        for piece in _pieces(base._part["facts"]):
            out.write(piece)
    ids = bytearray(base._part["ids"]) if base is not None else bytearray()
    rows: list[tuple[Any, ...]] = []
    blocks: list[np.ndarray] = [old]
    for episode in episodes:
        totals.add(episode)
        facts = json.dumps([episode.raw_sources, episode.raw_tracks], separators=(",", ":")).encode()
        id = _utf8(episode.id)
        rows.append(
            (len(ids), out.write(facts), len(id), len(facts), numbers[episode.segment], episode.row, episode.start_ns,
             episode.duration_ns, bytes.fromhex(episode.key), bytes.fromhex(episode.digest), 0, 0)
        )  # fmt: skip
        ids += id
        rows[-1] = (*rows[-1][:-1], _record_crc(id, _STRUCT.pack(*rows[-1]), facts))
        if len(rows) == 1 << 16:
            blocks.append(np.array(rows, RECORD))
            rows = []
    out.end()
    if rows:
        blocks.append(np.array(rows, RECORD))
    records = np.concatenate(blocks)
    del blocks
    records = records[_order(records, ids)]
    out.whole("ids", memoryview(ids))
    table = np.zeros(len(numbers), SEGMENT)
    text = "".join(numbers).encode("ascii")
    sizes = np.array([len(n) for n in numbers], np.int64)
    table["name_at"], table["name_bytes"] = np.cumsum(sizes) - sizes, sizes
    table["live"] = np.bincount(records["segment"], minlength=len(numbers))
    if base is not None:
        for name in ("bytes", "episodes", "commit_sha256"):
            table[name][: len(names)] = base.segments[name]
    for name, info in known.items():  # one that is listed again may have been made again
        k = numbers[name]
        table[k]["bytes"], table[k]["episodes"] = info.bytes, info.episodes
        table[k]["commit_sha256"] = np.void(bytes.fromhex(info.commit_sha256))
    out.whole("names", text)
    out.whole("records", memoryview(records.view(np.uint8).data))
    out.whole("segments", memoryview(table.view(np.uint8).data))
    listed = list(numbers)
    by_name = np.array(sorted(range(len(listed)), key=listed.__getitem__), "<u4")
    out.whole("by_name", memoryview(by_name.view(np.uint8).data))
    live = table["live"] > 0
    summed = {**totals.json(), "live_segments": int(live.sum()), "live_bytes": int(table["bytes"][live].sum())}
    footer = seal(
        {"format": FORMAT, "number": number, "episodes": len(records), "sections": out.table, "totals": summed}
    )
    file.write(footer)
    file.write(len(footer).to_bytes(8, "little"))


def _order(records: np.ndarray, ids: bytearray) -> np.ndarray:
    """The places of records in order of ids."""
    if not len(records):
        return np.zeros(0, np.int64)
    width = int(records["id_bytes"].max())
    data = np.frombuffer(ids, np.uint8)
    if width > _SORTED_BY_NUMPY or 0 in ids:  # numpy takes a zero at the end for none
        spans = zip(records["id_at"].tolist(), records["id_bytes"].tolist(), strict=True)
        texts = [bytes(ids[at : at + n]) for at, n in spans]
        return np.array(sorted(range(len(texts)), key=texts.__getitem__))
    column = np.zeros((len(records), max(width, 1)), np.uint8)
    steps = np.arange(width)
    for first in range(0, len(records), 1 << 16):
        part = records[first : first + (1 << 16)]
        at = part["id_at"].astype(np.int64)[:, None] + steps
        inside = steps < part["id_bytes"].astype(np.int64)[:, None]
        column[first : first + len(part), :width] = np.where(inside, data[np.where(inside, at, 0)], 0)
    return np.argsort(column.view(f"S{column.shape[1]}").reshape(-1), kind="stable")


def _record_crc(id: bytes, record: bytes, facts: bytes) -> int:
    return crc32c(facts, crc32c(record[16:-4], crc32c(id) if id else 0))


def _pieces(data: memoryview) -> Iterator[memoryview]:
    return (data[k : k + (4 << 20)] for k in range(0, len(data), 4 << 20))


def _crc_of(data: memoryview) -> int:
    crc = 0
    for piece in _pieces(data):
        crc = crc32c(piece, crc)
    return crc


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
