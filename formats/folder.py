"""Folders of recordings as episodes: files that share a stem in a folder are one.

`ep1.mp4`, `ep1.wav`, `ep1.csv` and `ep1.srt` are the episode `ep1`; its id is the path below the folder given,
without the suffix. An `episode.toml` in a folder says what cannot be guessed (`EPISODES.md`). Nothing is opened until
an episode is read; a file that cannot be read is one problem line, and its episode goes on with the others.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from fractions import Fraction
from pathlib import Path
from typing import Any

from pantok.errors import InputError, OptionError
from pantok.experience import NS, Clock, Episode, Track
from pantok.formats import files as disk

RULES = "episode.toml"
_RULE_KEYS = {"time", "unit", "rate_hz", "offset_s", "offset_ns", "actions", "ignore", "name"}
_TABLES = {".csv", ".tsv", ".parquet", ".npz", ".npy"}
_TEXTS = {".txt", ".srt", ".vtt", ".jsonl"}
_SOUNDS = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"}
_MEDIA = {
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv",
    ".3gp", ".mxf", ".y4m", ".gif", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".m4a", ".aac", ".wma",
}  # fmt: skip
SUFFIXES = frozenset(_TABLES | _TEXTS | _SOUNDS | _MEDIA)
_NOT_RECORDINGS = {"readme", "license", "licence", "copying", "changelog", "notice"}
Problems = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """size: the shorter side of video in pixels; fps: its frames a second. None keeps them as they are."""

    size: int | None = None
    fps: Fraction | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not 8 <= self.size <= 8192:
            raise OptionError("--size", f"{self.size} is out of range", "the shorter side in pixels, 8 to 8192")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise OptionError("--fps", f"{self.fps} is out of range", "frames a second, above 0 to 1000")


@dataclass(frozen=True)
class EpisodeFiles:
    """An episode not yet opened. rules: what episode.toml says, by file name."""

    id: str
    paths: tuple[Path, ...]
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def find_episodes(sources: Iterable[Path], problems: Problems = lambda line: None) -> list[EpisodeFiles]:
    """The episodes in files and folders, in the order of their ids; ids are unique.

    Raises InputError for a source that does not exist, and if there is no recording at all.
    """
    found: dict[str, EpisodeFiles] = {}
    unknown: dict[str, int] = {}
    for source in sources:
        if source.is_dir():
            groups = _groups(source, unknown, problems)
        elif source.exists():
            groups = {source.stem: [source]}
        else:
            raise InputError(source, "there is no such file or folder", "check the path")
        for stem, paths in groups.items():
            name = stem
            number = 2
            while name in found and found[name].paths != tuple(paths):
                name, number = f"{stem}~{number}", number + 1
            rules = {p.name: _rules(p, problems) for p in paths}
            kept = tuple(p for p in paths if not rules[p.name].get("ignore"))
            if kept:
                found[name] = EpisodeFiles(name, kept, {p.name: rules[p.name] for p in kept})
    if not found:
        kinds = ", ".join(f"{n} {s or 'without suffix'}" for s, n in sorted(unknown.items()))
        hint = f"it holds {kinds}" if kinds else "give folders or files of video, sound, numbers or text"
        raise InputError(" ".join(map(str, sources)), "holds no recording", hint)
    return [found[name] for name in sorted(found)]


def _groups(root: Path, unknown: dict[str, int], problems: Problems) -> dict[str, list[Path]]:
    """Stem below `root` -> its files, hidden ones and papers such as a README left out."""
    groups: dict[str, list[Path]] = {}
    for folder, subfolders, names in root.walk() if hasattr(root, "walk") else _walk(root):
        # A store or a vocabulary below the folder is not a recording.
        subfolders[:] = sorted(
            s
            for s in subfolders
            if not s.startswith(".") and not any((folder / s / m).exists() for m in ("zarr.json", "manifest.json"))
        )
        for name in sorted(names):
            path = folder / name
            suffix = path.suffix.lower()
            if name.startswith(".") or name == RULES or path.stem.lower() in _NOT_RECORDINGS:
                continue
            if suffix not in SUFFIXES:
                unknown[suffix] = unknown.get(suffix, 0) + 1
                continue
            groups.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
    return groups


def _walk(root: Path) -> Iterable[tuple[Path, list[str], list[str]]]:
    import os

    return ((Path(folder), subfolders, names) for folder, subfolders, names in os.walk(root))


def _rules(path: Path, problems: Problems) -> Mapping[str, Any]:
    """What the episode.toml beside a file says of it: the tables whose pattern fits, later ones over earlier."""
    tables = _rules_file(path.parent / RULES, problems)
    rules: dict[str, Any] = {}
    for pattern, table in tables.items():
        if fnmatch(path.name, pattern):
            rules |= table
    return rules


def _rules_file(path: Path, problems: Problems) -> Mapping[str, Mapping[str, Any]]:
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(disk.read_text(path)).get("files", {})
        for pattern, table in tables.items():
            wrong = set(table) - _RULE_KEYS
            if wrong:
                raise InputError(
                    path, f'[files."{pattern}"] has {wrong.pop()}', f"known: {', '.join(sorted(_RULE_KEYS))}"
                )
    except (tomllib.TOMLDecodeError, AttributeError, TypeError) as error:
        raise InputError(path, f"is not what it should be: {error}", "see EPISODES.md") from error
    return tables


def read_episode(
    found: EpisodeFiles, options: ReadOptions | None = None, problems: Problems = lambda line: None
) -> Episode:
    """The episode's tracks, media not read yet. Files that cannot be read are reported to `problems`.

    Raises InputError if none of its files can be read.
    """
    options = options or ReadOptions()
    tracks: dict[str, Track] = {}
    sources, failed = [], []
    for path in found.paths:
        rules = found.rules.get(path.name, {})
        try:
            read = _read(path, options, rules, problems)
            source = disk.source_of(path)
        except InputError as error:
            failed.append(error)
            problems(str(error))
            continue
        sources.append(source)
        for track in read:
            renamed = _free_name(_renamed(track, rules), path, tracks)
            tracks[renamed.name] = renamed
    if not tracks:
        if len(failed) == 1:
            raise InputError(found.id, "is left out", "its only file cannot be read, see above")
        raise InputError(found.id, "is left out", "none of its files can be read, see above")
    return Episode(found.id, tracks, tuple(sources))


def _read(path: Path, options: ReadOptions, rules: Mapping[str, Any], problems: Problems) -> list[Track]:
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(path, "there is no such file", "was it moved while reading?")
    if suffix in _TABLES:
        from pantok.formats.tables import read_table

        return read_table(path, rules, problems, size=options.size, fps=options.fps)
    if suffix in _TEXTS:
        from pantok.formats.texts import read_texts

        return [_moved(read_texts(path), rules)]
    if suffix in _SOUNDS:
        from pantok.formats.soundfiles import read_soundfile

        try:
            return [_moved(read_soundfile(path), rules)]
        except InputError:
            if path.stat().st_size == 0:
                raise
            # libsndfile does not know every codec that goes by these suffixes; FFmpeg may.
    from pantok.formats.container import read_container

    return [_moved(t, rules) for t in read_container(path, size=options.size, fps=options.fps, problems=problems)]


def _moved(track: Track, rules: Mapping[str, Any]) -> Track:
    """The track with its clock moved by what episode.toml says."""
    from dataclasses import replace

    offset = int(rules.get("offset_ns", 0)) + round(Fraction(str(rules.get("offset_s", 0))) * NS)
    if not offset:
        return track
    if track.clock is not None and track.clock.rate is not None:
        moved = Clock.regular(track.clock.rate, track.clock.count, track.clock.start_ns + offset)
        return replace(track, clock=moved)

    def blocks() -> Any:
        for block in track.open():
            assert block.times_ns is not None
            yield replace(block, times_ns=block.times_ns + offset)

    clock = None if track.clock is None else Clock.irregular(track.clock.times_ns + offset)
    return replace(track, open=blocks, clock=clock)


def _renamed(track: Track, rules: Mapping[str, Any]) -> Track:
    """`name = "video.front"` of episode.toml, or a label under which the first word stays the track's kind."""
    name = rules.get("name")
    if not name:
        return track
    kind, _, label = str(name).partition(".")
    return track.named(f"{track.kind}.{label or kind}" if kind != track.kind else str(name))


def _free_name(track: Track, path: Path, taken: Mapping[str, Track]) -> Track:
    """Two files of an episode may hold a track of the same name: the second is labelled by its suffix."""
    if track.name not in taken:
        return track
    name = f"{track.name}.{path.suffix[1:].lower()}"
    number = 2
    while name in taken:
        name, number = f"{track.name}.{path.suffix[1:].lower()}{number}", number + 1
    return track.named(name)
