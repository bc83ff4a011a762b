"""A segment: the columns of one or more episodes, a Zarr group that is written once and never changed.

What is unusual: columns, not sequences. Per track and level there is one flat array of codes, all episodes one after
another, so that training on coarse levels reads no byte of the fine ones; how many codes each tick has stands in one
small array a track, and nowhere where it is the same for every tick.

    segments/<name>/
        zarr.json  COMMIT.json          COMMIT.json: size and CRC-32C of every other object, what it was made from
        episodes                        uint8: JSON lines in UTF-8, one for each episode
        tracks/<track>/codes_00 ...     unsigned (N,): codes of level 0, 1, ...
        tracks/<track>/counts           unsigned (ticks, columns): codes (or latents) of a tick, where that varies
        tracks/<track>/times_ns         int64 (N,): instants, where a clock is irregular
        tracks/<track>/latents          float16 (N, D)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import StoreError
from pantok.experience import Clock, Source
from pantok.formats.store_array import MappedArray, Objects, group_json, write_array, write_object
from pantok.formats.store_disk import SealError, crc32c, crc32c_of_file, present, reason, seal, unseal, write_file
from pantok.formats.store_facts import canonical, clock_json, episode_key, folder_name, from_json, span_ns, to_json
from pantok.stream import Latents, LevelCodes, TokenStream, TrackTokens, smallest_dtype
from pantok.vocabulary import Vocabulary

FORMAT = 1
COMMIT = "COMMIT.json"
_REMEDY = "`pantok verify` names all that is damaged; `pantok encode --force` mends those episodes"


def segment_name(streams: Sequence[TokenStream], digests: Sequence[str]) -> str:
    """24 hexadecimal digits of what the episodes were made from, 24 of their content (`episode_digest` of each).

    A retry is the same segment, with the same name; the same inputs with another result is another.
    """
    keys = [episode_key(s.id, s.sources, s.vocabulary_id, s.parameters) for s in streams]
    return "-".join(hashlib.sha256(canonical(list(part))).hexdigest()[:24] for part in (keys, digests))


def write_segment(
    folder: Path,
    streams: Sequence[TokenStream],
    digests: Sequence[str],
    vocabulary: Vocabulary,
    packed: bool = False,
    merged: bool = False,
) -> dict[str, Any]:
    """Writes the segment of `checked` streams into the empty directory `folder`, COMMIT.json last, all on the disk.

    packed: compress the columns of tracks. merged: note that its episodes lay in the store already, so that no later
    writer lists it if this one is killed before it does.
    The segment's entry in the manifest.
    """
    assert streams and len({s.id for s in streams}) == len(streams), [s.id for s in streams]
    assert {s.vocabulary_id for s in streams} == {vocabulary.id}, {s.vocabulary_id for s in streams}
    objects: Objects = {}
    lines: list[dict[str, Any]] = [
        {
            "id": stream.id,
            "digest": digest,
            "parameters": to_json(dict(stream.parameters)),
            "sources": [[s.path, s.size_bytes, s.sha256] for s in stream.sources],
            "tracks": [],
        }
        for stream, digest in zip(streams, digests, strict=True)
    ]
    about = {"format": FORMAT, "kind": "segment", "vocabulary_id": vocabulary.id, "episodes": len(streams)}
    write_object(folder, "zarr.json", objects, group_json(pantok=about))
    (folder / "tracks").mkdir()
    write_object(folder, "tracks/zarr.json", objects, group_json())
    for track in dict.fromkeys(name for stream in streams for name in stream.tracks):
        rows = [row for row, stream in enumerate(streams) if track in stream.tracks]
        mine = [streams[row].tracks[track] for row in rows]
        for row, facts in zip(rows, _write_track(folder, track, mine, vocabulary, objects, packed), strict=True):
            lines[row]["tracks"].append(facts)
    text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
    write_array(folder, "episodes", objects, [np.frombuffer(text, np.uint8)])
    entry = {
        "segment": segment_name(streams, digests),
        "bytes": sum(size for size, _ in objects.values()),
        "episodes": [_listed(stream, digest) for stream, digest in zip(streams, digests, strict=True)],
    }
    commit = {"format": FORMAT, "kind": "segment", "vocabulary_id": vocabulary.id, "entry": entry, "objects": objects}
    if merged:
        commit["merged"] = True
    data = seal(commit)
    write_file(folder / COMMIT, data)
    return {**entry, "commit_sha256": hashlib.sha256(data).hexdigest()}


def read_commit(folder: Path) -> tuple[dict[str, Any], str]:
    """(COMMIT.json of a segment, its sha256). Raises StoreError if it is missing, damaged or of another format."""
    path = folder / COMMIT
    present(path)
    try:
        data = path.read_bytes()
        commit = unseal(data, "it")
    except FileNotFoundError as error:
        raise StoreError(path, "is missing", _REMEDY) from error
    except OSError as error:
        raise StoreError(path, f"cannot be read: {reason(error)}", "check its permissions") from error
    except SealError as error:
        raise StoreError(path, str(error).removeprefix("it "), _REMEDY) from error
    if commit.get("format") != FORMAT:
        raise StoreError(path, f"is of format {commit.get('format')}, this pantok reads {FORMAT}", "upgrade pantok")
    return commit, hashlib.sha256(data).hexdigest()


def manifest_entry(folder: Path) -> dict[str, Any]:
    """What the manifest says of a written segment. Raises StoreError."""
    commit, sha256 = read_commit(folder)
    return {**commit["entry"], "commit_sha256": sha256}


def is_intact(folder: Path, vocabularies: Collection[str] | None = None) -> bool:
    """Whether a segment is finished, of one of `vocabularies` (any if None), and every object what COMMIT.json says."""
    try:
        commit, _ = read_commit(folder)
        if vocabularies is not None and commit["vocabulary_id"] not in vocabularies:
            return False
        for name, (size, crc) in commit["objects"].items():
            if crc32c_of_file(folder / name) != (size, int(crc, 16)):
                return False
    except OSError:
        return False
    return commit["entry"]["segment"] == folder.name


def is_merged(folder: Path) -> bool:
    """Whether a finished segment repeats episodes that lay in the store when it was made. Raises StoreError."""
    return bool(read_commit(folder)[0].get("merged"))


def _listed(stream: TokenStream, digest: str) -> list[Any]:
    tracks = {}
    for name, t in stream.tracks.items():
        latents = None if t.latents is None else list(t.latents.values.shape)
        codes = [len(level.codes) for level in t.levels]
        tracks[name] = [t.modality, int(t.clock.count), t.ticks, int(t.clock.duration_ns), codes, latents]
    key = episode_key(stream.id, stream.sources, stream.vocabulary_id, stream.parameters)
    sources = [[s.path, s.size_bytes, s.sha256] for s in stream.sources]
    return [stream.id, key, digest, *span_ns(stream), sources, tracks]


def _write_track(
    root: Path, name: str, tracks: Sequence[TrackTokens], vocabulary: Vocabulary, objects: Objects, packed: bool
) -> list[dict[str, Any]]:
    """Writes the arrays of one track; for each episode that has it, what its JSON line says of it."""
    folder = f"tracks/{folder_name(name)}"
    (root / folder).mkdir()
    modality = tracks[0].modality
    assert all(t.modality == modality for t in tracks), name
    columns: list[np.ndarray] = []

    def per_tick(splits: list[np.ndarray]) -> dict[str, int]:
        """How many codes a tick has: one number where all ticks agree, else a column of `counts`."""
        counts = np.concatenate([np.diff(s) for s in splits])
        if not len(counts) or (counts == counts[0]).all():
            return {"count": int(counts[0]) if len(counts) else 0}
        columns.append(counts)
        return {"column": len(columns) - 1}

    levels = []
    for k, level in enumerate(vocabulary.levels(modality)):
        write_array(root, f"{folder}/codes_{k:02d}", objects, [t.levels[k].codes for t in tracks], packed)
        spread = per_tick([t.levels[k].splits for t in tracks])
        levels.append({"name": level.name, "role": level.role, "cardinality": level.cardinality, **spread})
    latents = [t.latents.values for t in tracks if t.latents is not None]
    continuous = None
    if latents:
        assert len({x.shape[1] for x in latents}) == 1, name
        write_array(root, f"{folder}/latents", objects, latents, packed)
        none = [np.zeros(t.ticks + 1, np.int64) for t in tracks]
        spread = per_tick([n if t.latents is None else t.latents.splits for t, n in zip(tracks, none, strict=True)])
        continuous = {"width": latents[0].shape[1], **spread}
    about = {"track": name, "modality": modality, "levels": levels, "latents": continuous}
    write_object(root, f"{folder}/zarr.json", objects, group_json(pantok=about))
    if columns:
        table = np.stack(columns, axis=1)
        write_array(root, f"{folder}/counts", objects, [table.astype(smallest_dtype(int(table.max()) + 1))], packed)
    irregular = [t.clock.irregular_ns for t in tracks if t.clock.irregular_ns is not None]
    if irregular:
        write_array(root, f"{folder}/times_ns", objects, irregular, packed)
    facts: list[dict[str, Any]] = []
    at: dict[Any, int] = {}

    def run(what: Any, count: int) -> list[int]:
        at[what] = at.get(what, 0) + count
        return [at[what] - count, count]

    for t in tracks:
        facts.append(
            {
                "track": name,
                "folder": folder_name(name),
                "tick": int(t.tick),
                "clock": clock_json(t.clock),
                "ticks": run("ticks", t.ticks),
                "codes": [run(k, len(level.codes)) for k, level in enumerate(t.levels)],
                "times": run("times", t.clock.count) if t.clock.irregular_ns is not None else None,
                "latents": run("latents", len(t.latents.values)) if t.latents is not None else None,
                "header": to_json(dict(t.header)),
                "info": to_json(dict(t.info)),
                "channels": list(t.channels),
                "units": list(t.units),
            }
        )
    return facts


class Segment:
    """A committed segment, read through memory maps. Raises StoreError for what is missing or damaged."""

    def __init__(self, folder: Path, commit_sha256: str | None = None, io: str = "mmap") -> None:
        """commit_sha256: what the manifest says of COMMIT.json; compared if given. io: one of `store_shard.IO`."""
        self.folder, self._io = folder, io
        self.commit, found = read_commit(folder)
        if commit_sha256 is not None and found != commit_sha256:
            raise StoreError(folder / COMMIT, f"has the hash {found}, the manifest says {commit_sha256}", _REMEDY)
        self._arrays: dict[str, MappedArray] = {}
        self._about: dict[str, dict[str, Any]] = {}

    def is_there(self) -> bool:
        """Whether it has not been swept since."""
        return (self.folder / COMMIT).exists()

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        """The JSON line of each episode, in order of rows."""
        return [json.loads(line) for line in self._lines]

    def line(self, row: int) -> dict[str, Any]:
        """The JSON line of the episode in `row`; no other is parsed."""
        return json.loads(self._lines[row])

    @cached_property
    def _lines(self) -> list[bytes]:
        return self.array("episodes").read().tobytes().splitlines()

    def array(self, name: str) -> MappedArray:
        """An array of the segment, as `tracks/video.front/codes_00`."""
        if name not in self._arrays:
            self._arrays[name] = MappedArray(self.folder / name, self.object(f"{name}/zarr.json"), self._io)
        return self._arrays[name]

    def object(self, name: str) -> bytes:
        """A small object of the segment, compared with what COMMIT.json says of it."""
        path = self.folder / name
        present(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(path, "is missing", _REMEDY) from error
        except OSError as error:
            raise StoreError(path, f"cannot be read: {reason(error)}", "check its permissions") from error
        if self.commit["objects"].get(name) != [len(data), f"{crc32c(data):08x}"]:
            raise StoreError(path, "is damaged: its checksum is not that of COMMIT.json", _REMEDY)
        return data

    def codes(self, track: str, level: int) -> MappedArray:
        """The codes of all episodes of a track's level, one after another; `row` says where an episode's lie."""
        return self.array(f"tracks/{folder_name(track)}/codes_{level:02d}")

    def row(self, episode: str, track: str) -> dict[str, Any]:
        """What the JSON line of an episode says of a track: `ticks`, `codes` as [first, count] by level, clock, ..."""
        for line in self.episodes:
            if line["id"] == episode:
                for facts in line["tracks"]:
                    if facts["track"] == track:
                        return facts
        raise KeyError((episode, track))

    def about(self, folder: str) -> dict[str, Any]:
        """The attributes of a track's group: levels, and how many codes a tick has."""
        if folder not in self._about:
            self._about[folder] = json.loads(self.object(f"tracks/{folder}/zarr.json"))["attributes"]["pantok"]
        return self._about[folder]

    def stream(
        self, row: int, tracks: Collection[str] | None = None, levels: int | None = None, check: bool = True
    ) -> TokenStream:
        """The episode in `row`. `tracks`, `levels`: as `Store.read`."""
        line = self.line(row)
        read = {
            facts["track"]: self._track(facts, levels, check)
            for facts in line["tracks"]
            if tracks is None or facts["track"] in tracks
        }
        sources = tuple(Source(path, size, sha256) for path, size, sha256 in line["sources"])
        return TokenStream(line["id"], read, self.commit["vocabulary_id"], sources, from_json(line["parameters"]))

    def streams(self) -> Iterator[TokenStream]:
        return (self.stream(row) for row in range(len(self.episodes)))

    def splits(self, facts: dict[str, Any], spread: dict[str, int], check: bool = True) -> np.ndarray:
        """int64 (ticks + 1,) of an episode's level (`spread` is its entry in `about`)."""
        first, ticks = facts["ticks"]
        if "column" in spread:
            table = self.array(f"tracks/{facts['folder']}/counts").read(first, first + ticks, check)
            counts = table[:, spread["column"]]
        else:
            counts = np.full(ticks, spread["count"], np.int64)
        splits = np.zeros(ticks + 1, np.int64)
        np.cumsum(counts, dtype=np.int64, out=splits[1:])
        return splits

    def _track(self, facts: dict[str, Any], count: int | None, check: bool) -> TrackTokens:
        folder = f"tracks/{facts['folder']}"
        about = self.about(facts["folder"])
        levels = []
        for k, spread in enumerate(about["levels"]):
            if count is not None and k >= count:
                dtype = smallest_dtype(spread["cardinality"])
                levels.append(LevelCodes(np.zeros(0, dtype), np.zeros(facts["ticks"][1] + 1, np.int64)))
                continue
            first, n = facts["codes"][k]
            array = self.array(f"{folder}/codes_{k:02d}")
            splits = self.splits(facts, spread, check)
            self._fits(array, first, n, int(splits[-1]))
            levels.append(LevelCodes(array.read(first, first + n, check), splits))
        latents = None
        if facts["latents"] is not None:
            first, n = facts["latents"]
            array = self.array(f"{folder}/latents")
            splits = self.splits(facts, about["latents"], check)
            self._fits(array, first, n, int(splits[-1]))
            latents = Latents(array.read(first, first + n, check), splits)
        return TrackTokens(
            facts["track"],
            about["modality"],
            self.clock(facts, check),
            facts["tick"],
            tuple(levels),
            from_json(facts["header"]),
            from_json(facts["info"]),
            tuple(facts["channels"]),
            tuple(facts["units"]),
            latents,
        )

    def clock(self, facts: dict[str, Any], check: bool = True) -> Clock:
        """The clock of an episode's track."""
        clock = facts["clock"]
        if clock["rate"] is not None:
            return Clock(clock["start_ns"], clock["count"], Fraction(*clock["rate"]))
        first, n = facts["times"]
        array = self.array(f"tracks/{facts['folder']}/times_ns")
        self._fits(array, first, n, clock["count"])
        return Clock.irregular(array.read(first, first + n, check))

    def fits(self, array: MappedArray, first: int, n: int) -> None:
        """Raises StoreError if the array does not hold the rows [first, first + n)."""
        self._fits(array, first, n, n)

    def _fits(self, array: MappedArray, first: int, n: int, expected: int) -> None:
        if first + n > len(array) or n != expected:
            raise StoreError(
                array.path, f"holds {len(array)} rows; rows {first} to {first + n - 1} should be {expected}", _REMEDY
            )
