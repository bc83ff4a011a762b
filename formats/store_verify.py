"""Finds every flipped bit, missing object, hole, cut-off file and stray file of a token store, and says what it hurts.

What is unusual: nothing is taken on trust and nothing stops at the first fault. The root, the vocabulary and each
commit are compared with their checksums, each object of each segment with COMMIT.json, and where one differs the
chunk checksums inside it say which rows, and the rows say which episode, track, level, ticks and samples. What is
whole byte for byte is then decoded: codes below their cardinality, splits that fit the clock, the content's digest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import PantokError, StoreError, TokenError, VocabularyError
from pantok.formats.addresses import is_remote
from pantok.formats.store_array import MappedArray
from pantok.formats.store_disk import StageLock, crc32c_of_file, mirror_at
from pantok.formats.store_facts import episode_digest, episode_key
from pantok.formats.store_index import FOLDER as INDEX
from pantok.formats.store_index import Index
from pantok.formats.store_index import names_in as index_names
from pantok.formats.store_laid import damaged_packs
from pantok.formats.store_manifest import (
    FOLDER,
    EpisodeInfo,
    Manifest,
    SegmentInfo,
    commit_name,
    is_commit,
    is_roll,
)
from pantok.formats.store_remote import fresh_mirror
from pantok.formats.store_remote_sweep import strays
from pantok.formats.store_root import CACHE, read_root
from pantok.formats.store_segment import COMMIT, Segment, is_intact
from pantok.formats.store_shard import Fault
from pantok.formats.store_vocabularies import FIRST
from pantok.formats.store_vocabularies import FOLDER as VOCABULARIES
from pantok.formats.store_vocabularies import faults as vocabulary_faults
from pantok.formats.store_vocabularies import strays as vocabulary_strays
from pantok.formats.vocab import load_vocabulary
from pantok.stream import TokenStream
from pantok.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    kind: `damaged`, `missing` and `stray` are faults; `leftover` is what a killed writer left, which harms nothing
        and which the next writer clears up.
    path: relative to the store. level: None where all of a track is meant, as track and episode are '' where all are.
    ticks, samples: [first, last) of the episode's track.
    """

    kind: str
    path: str
    what: str
    episode: str = ""
    track: str = ""
    level: int | None = None
    ticks: tuple[int, int] | None = None
    samples: tuple[int, int] | None = None

    @property
    def is_fault(self) -> bool:
        return self.kind != "leftover"

    def __str__(self) -> str:
        where = [f"episode {self.episode}"] * bool(self.episode) + [f"track {self.track}"] * bool(self.track)
        where += [f"level {self.level}"] if self.level is not None else []
        where += [f"ticks {self.ticks[0]} to {self.ticks[1] - 1}"] if self.ticks else []
        where += [f"samples {self.samples[0]} to {self.samples[1] - 1}"] if self.samples else []
        return " ".join(f"{self.path}: {self.what}{' (' + ', '.join(where) + ')' if where else ''}".split())


def verify_store(path: str | Path, report: Callable[[int, int], None] | None = None) -> Iterator[Problem]:
    """All that is wrong with the store at `path`; nothing if it is whole.

    report: called with (segments done, segments in all). Raises StoreError only if there is no token store at all.
    """
    if not is_remote(path):
        yield from _verify(Path(path), report)
        return
    with fresh_mirror(path) as folder:
        yield from _verify(folder, report)


def _verify(path: Path, report: Callable[[int, int], None] | None) -> Iterator[Problem]:
    problems: list[Problem] = []
    try:
        read_root(path)
    except StoreError as error:
        if not (path / FOLDER).is_dir():
            raise
        problems.append(_problem(path, error))
    manifest = Manifest(path)
    problems += _check_root(path, manifest)
    problems += _check_manifest(path, manifest)
    known: dict[str, Vocabulary] = {}
    for folder in [path / FIRST, *sorted((path / VOCABULARIES).glob("[0-9]*"))]:
        try:
            vocabulary = load_vocabulary(folder)
            known[vocabulary.id] = vocabulary
        except VocabularyError as error:
            problems.append(_problem(path, error))
    for file, what in vocabulary_faults(path):
        kind = "missing" if what == "is missing" else "stray" if what.startswith("does not belong") else "damaged"
        problems.append(Problem(kind=kind, path=str(file.relative_to(path)), what=what))
    # One damaged file may be met twice; the first word on it is enough.
    yield from {problem.path: problem for problem in reversed(problems)}.values()
    live = manifest.segments
    rows: dict[str, list[EpisodeInfo]] = {name: [] for name in live}
    for episode in manifest.episodes.values():
        rows[episode.segment].append(episode)
    for done, (name, segment) in enumerate(live.items()):
        yield from _check_segment(path, segment, sorted(rows[name], key=lambda e: e.row), known)
        if report is not None:
            report(done + 1, len(live))
    yield from _strays(path, manifest)
    for pack in damaged_packs(path):
        what = "is damaged: remove it, `pantok store arrange` and jobs that need it make it again"
        yield Problem(kind="damaged", path=str(pack.relative_to(path)), what=what)


def _problem(store: Path, error: PantokError, **where: Any) -> Problem:
    kind = "missing" if error.problem.startswith("is missing") else "damaged"
    path = Path(error.thing)
    return Problem(
        kind=kind,
        path=str(path.relative_to(store) if path.is_relative_to(store) else path),
        what=error.problem,
        **where,
    )


def _compare(path: Path, size: int, crc: str) -> str:
    """What is wrong with a file of which size and checksum are known; '' if nothing."""
    try:
        found, value = crc32c_of_file(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found != size:
        return f"has {found} bytes, {size} were written"
    return "" if f"{value:08x}" == crc else f"is damaged: its checksum is {value:08x}, {crc} was written"


def _check_root(path: Path, manifest: Manifest) -> Iterator[Problem]:
    try:
        birth = manifest.read(commit_name(0))
    except StoreError as error:
        yield _problem(path, error)
        return
    for name, (size, crc) in birth["objects"].items():
        if what := _compare(path / name, size, crc):
            yield Problem(kind="missing" if what == "is missing" else "damaged", path=name, what=what)
    for folder, _, files in os.walk(path / "vocabulary"):
        for file in sorted(files):
            name = str((Path(folder) / file).relative_to(path))
            if name not in birth["objects"]:
                yield Problem(kind="stray", path=name, what="does not belong to the store")


def _check_manifest(path: Path, manifest: Manifest) -> Iterator[Problem]:
    """Reads every file of the manifest, and applies what can be read to `manifest`."""
    indexed = {int(name[:10]): name for name in index_names(path / FOLDER)}
    for commit in manifest.commits():
        if not isinstance(commit, StoreError):
            manifest.apply(commit)
        if name := indexed.pop(manifest.number, None):
            yield from _check_index(path, name, manifest)
    for name in indexed.values():
        yield Problem(kind="stray", path=f"{FOLDER}/{INDEX}/{name}", what="is of a commit that is not there")
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(path / FOLDER / INDEX)):
            if name.startswith(".put-"):
                yield from _leftover(path, path / FOLDER / INDEX / name, "was being written by a killed process")
            elif name not in index_names(path / FOLDER):
                yield Problem(kind="stray", path=f"{FOLDER}/{INDEX}/{name}", what="does not belong to the store")
    try:
        names = sorted(os.listdir(path / FOLDER))
    except OSError:
        names = []
    last = max([manifest.number, *(int(name[:10]) for name in names if is_commit(name))])
    for name in sorted({*names, *(commit_name(n) for n in range(last + 1))}):
        if is_commit(name) or is_roll(name):
            try:
                manifest.read(name)
            except StoreError as error:
                yield _problem(path, error)
        elif name.startswith(".put-"):
            yield from _leftover(path, path / FOLDER / name, "was being written by a process that was killed")
        elif name != INDEX:
            yield Problem(kind="stray", path=f"{FOLDER}/{name}", what="does not belong to the store")
    for name in manifest.lacking_rolls(names):
        yield Problem(kind="leftover", path=f"{FOLDER}/{name}", what="is not there: opening takes longer without it")


def _check_index(path: Path, name: str, manifest: Manifest) -> Iterator[Problem]:
    """An index beside the commits that it was made from, applied to `manifest`."""
    file = path / FOLDER / INDEX / name
    try:
        index = Index(file)
    except StoreError as error:
        yield _problem(path, error)
        return
    what = index.fault()
    if not what:
        try:
            same = len(index) == len(manifest.episodes)
            for id, info in manifest.episodes.items():
                found = index.get(at) if same and (at := index.place(id)) >= 0 else None
                if found is None or found.line != info.line:
                    same = False
                    break
            what = "" if same else "does not hold what the commits say"
        except StoreError as error:
            what = error.problem
    if what:
        yield Problem(kind="damaged", path=str(file.relative_to(path)), what=what)


def _leftover(store: Path, path: Path, what: str, kind: str = "leftover") -> Iterator[Problem]:
    """A problem, unless a living process holds the path."""
    lock = StageLock.take(path)
    if lock is not None:
        lock.close()
        yield Problem(kind=kind, path=str(path.relative_to(store)), what=what)


def _strays(path: Path, manifest: Manifest) -> Iterator[Problem]:
    for name in sorted(os.listdir(path)):
        if name not in ("zarr.json", FIRST, VOCABULARIES, "segments", FOLDER, CACHE):
            yield Problem(kind="stray", path=name, what="does not belong to the store")
    for stray in vocabulary_strays(path):
        what, kind = "does not belong to the store", "stray"
        if stray.name.startswith(".stage-"):
            what, kind = "was being written by a process that was killed", "leftover"
        yield from _leftover(path, stray, what, kind)
    try:
        names = sorted(os.listdir(path / "segments"))
    except OSError:
        yield Problem(kind="missing", path="segments", what="is missing")
        return
    manifest = Manifest(path)
    for commit in manifest.commits():  # what was committed while the segments were read is no stray
        if not isinstance(commit, StoreError):
            manifest.apply(commit)
    if (mirror := mirror_at(path)) is not None:
        for key in strays(mirror, manifest):
            what = "stands in no commit: a killed writer left it, and `pantok store compact` removes it after a day"
            yield Problem(kind="leftover", path=key, what=f"{what}, or it is being written")
    for name in names:
        folder = path / "segments" / name
        if name in manifest.known or name == "zarr.json":
            continue
        if name.startswith(".stage-"):
            yield from _leftover(path, folder, "was being written by a process that was killed")
        elif is_intact(folder):
            yield from _leftover(path, folder, "is complete but in no commit: the next writer will list it")
        else:
            yield from _leftover(path, folder, "does not belong to the store", "stray")


def _check_segment(
    store: Path, info: SegmentInfo, episodes: list[EpisodeInfo], known: Mapping[str, Vocabulary]
) -> Iterator[Problem]:
    folder = store / "segments" / info.name
    relative = folder.relative_to(store)
    try:
        segment = Segment(folder, info.commit_sha256)
    except StoreError as error:
        for episode in episodes:
            yield _problem(store, error, episode=episode.id)
        return
    objects = segment.commit["objects"]
    is_whole = True
    for name, (size, crc) in objects.items():
        if what := _compare(folder / name, size, crc):
            is_whole = False
            kind = "missing" if what == "is missing" else "damaged"
            for where in _hurt(segment, name, episodes):
                yield Problem(kind=kind, path=f"{relative}/{name}", what=what, **where)
    for inner, _, files in os.walk(folder):
        for file in sorted(files):
            name = str((Path(inner) / file).relative_to(folder))
            if name != COMMIT and name not in objects:
                yield Problem(kind="stray", path=f"{relative}/{name}", what="does not belong to the store")
    if is_whole:
        for episode in episodes:
            yield from _check_content(store, segment, episode, known)


def _check_content(
    store: Path, segment: Segment, episode: EpisodeInfo, known: Mapping[str, Vocabulary]
) -> Iterator[Problem]:
    """Decodes an episode whose bytes are whole: what its writer got wrong shows here."""
    relative = str(segment.folder.relative_to(store))

    def wrong(what: str, track: str = "") -> Problem:
        return Problem(kind="damaged", path=relative, what=what, episode=episode.id, track=track)

    try:
        stream: TokenStream = segment.stream(episode.row, check=False)
    except (StoreError, KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        yield wrong(f"cannot be decoded: {error}")
        return
    vocabulary = known.get(stream.vocabulary_id)
    if known and vocabulary is None:
        yield wrong(f"was written under vocabulary {stream.vocabulary_id[:12]}, which the store has not")
    for track in stream.tracks.values():
        if vocabulary is not None:
            try:
                track.check(tuple(level.cardinality for level in vocabulary.levels(track.modality)))
            except (TokenError, VocabularyError) as error:
                yield wrong(f"{error.thing} {error.problem}", track.name)
        for k, level in enumerate(track.levels):
            if (np.diff(level.splits) < 0).any():
                yield wrong(f"the splits of level {k} run backwards", track.name)
    if (digest := episode_digest(stream)) != episode.digest:
        yield wrong(f"its content has the digest {digest}, {episode.digest} was written")
    if episode_key(stream.id, stream.sources, stream.vocabulary_id, stream.parameters) != episode.key:
        yield wrong("was not made from what the manifest says")


def _hurt(segment: Segment, name: str, episodes: list[EpisodeInfo]) -> Iterator[dict[str, Any]]:
    """What an object of a segment that is damaged or missing hurts: keyword arguments of a Problem for each."""
    parts = name.split("/")
    try:
        lines = {line["id"]: line for line in segment.episodes}
    except (StoreError, ValueError):
        yield from ({"episode": episode.id} for episode in episodes)
        return
    if len(parts) < 3 or parts[0] != "tracks":
        yield from ({"episode": episode.id} for episode in episodes)
        return
    mine = [(e.id, facts) for e in episodes for facts in lines[e.id]["tracks"] if facts["folder"] == parts[1]]
    kind = parts[2]
    level = int(kind[6:]) if kind.startswith("codes_") else None
    if len(parts) < 4 or parts[3] == "zarr.json":
        yield from ({"episode": id, "track": facts["track"], "level": level} for id, facts in mine)
        return
    for fault in _faults(segment, "/".join(parts[:3]), parts[3]):
        for id, facts in mine:
            run = {"counts": facts["ticks"], "times_ns": facts["times"], "latents": facts["latents"]}
            of_episode = facts["codes"][level] if level is not None else run[kind]
            if of_episode is None:
                continue
            first, last = (max(0, min(row - of_episode[0], of_episode[1])) for row in (fault.first, fault.last))
            if first < last:
                where = {"episode": id, "track": facts["track"], "level": level}
                yield {**where, **_range(segment, facts, kind, level, first, last)}


def _faults(segment: Segment, array: str, key: str) -> Iterator[Fault]:
    """The rows that one shard file fails to hold: by its chunks' checksums, else all of its rows."""
    file = segment.folder / array / key
    try:
        mapped = MappedArray(segment.folder / array)
        yield from [fault for fault in mapped.faults() if fault.file == file] or [Fault(file, "", 0, len(mapped))]
    except (StoreError, ValueError, IndexError):
        yield Fault(file, "", 0, 2**62)


def _range(
    segment: Segment, facts: dict[str, Any], kind: str, level: int | None, first: int, last: int
) -> dict[str, Any]:
    """Rows [first, last) of an episode's array as ticks and samples."""
    tick, count = facts["tick"], facts["clock"]["count"]
    if kind == "times_ns":
        return {"ticks": (first // tick, -(-last // tick)), "samples": (first, last)}
    ticks = (first, last)
    if kind != "counts":
        try:
            about = segment.about(facts["folder"])
            splits = segment.splits(facts, about["latents"] if level is None else about["levels"][level])
        except StoreError:
            return {}
        lo = int(np.searchsorted(splits, first, "right")) - 1
        ticks = (lo, int(np.searchsorted(splits, last, "left")))
    return {"ticks": ticks, "samples": (ticks[0] * tick, min(ticks[1] * tick, count))}
