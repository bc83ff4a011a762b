"""Folders of recordings as episodes: files that share a stem in a folder are one.

`ep1.mp4`, `ep1.wav`, `ep1.csv` and `ep1.srt` are the episode `ep1`; its id is the path below the folder given,
without the suffix; `ep1@video.left.mp4` is its track `video.left`. Where several recordings share files (`shared`),
each is an episode. An `episode.toml` in a folder says what cannot be guessed (`episode_rules`). Nothing is opened until
an episode is read; a file that cannot be read is one problem line, and its episode goes on with the others.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pantok.errors import InputError, OptionError
from pantok.experience import Episode, Track
from pantok.formats import files as disk
from pantok.formats import shared, track_names
from pantok.formats.dates import aligned, moved
from pantok.formats.episode_rules import RULES, Rules
from pantok.formats.table_clock import offset_of

_TABLES = {".csv", ".tsv", ".parquet", ".npz", ".npy"}
_LOGS = {".mcap", ".bag", ".db3"}
_TEXTS = {".txt", ".srt", ".vtt", ".jsonl"}
_SOUNDS = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"}
_MEDIA = {
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv",
    ".3gp", ".mxf", ".y4m", ".apng", ".m4a", ".aac", ".wma",
}  # fmt: skip
SUFFIXES = frozenset(_TABLES | _LOGS | shared.SUFFIXES | _TEXTS | _SOUNDS | _MEDIA | disk.PICTURES)
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
    """An episode not yet opened.

    rules: what episode.toml says, by file name. part: which one it is of those that share `paths`; "" if none does.
    """

    id: str
    paths: tuple[Path, ...]
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    part: str = ""


def find_episodes(sources: Iterable[Path], problems: Problems = lambda line: None) -> list[EpisodeFiles]:
    """The episodes in files and folders, in the order of their ids; ids are unique.

    An id is the path below the folder that was given; where two recordings would have the same, both take in the
    name of the folder above, until they differ. So ids do not depend on the order of the sources. Raises InputError
    for a source that does not exist, and if there is no recording at all.
    """
    problems = disk.once(problems)
    files: dict[Path, dict[Path, Path]] = {}  # absolute path without suffix -> absolute path -> path as given
    depth: dict[Path, int] = {}  # how many parts of the first are the id
    parts: dict[Path, str] = {}
    unknown: dict[str, int] = {}
    failed: list[InputError] = []
    rules = Rules(problems)

    def say(error: InputError) -> None:
        failed.append(error)
        problems(str(error))

    for source in sources:
        if source.is_dir():
            found = _below(source, unknown, rules, problems, say)
        elif source.exists() or source.is_symlink():
            found = _of_file(source, 1)
        else:
            raise InputError(source, "there is no such file or folder", "check the path")
        for recording in found:
            stem, whole = recording.stem, Path(os.path.abspath(recording.path))
            known = files.setdefault(stem, {})
            known[whole] = min(known.get(whole, recording.path), recording.path)
            depth[stem] = max(depth.get(stem, 0), recording.depth)
            parts[stem] = recording.part
    ids = _distinct(depth)
    episodes = {}
    for stem, paths in files.items():
        said = {path: rules.of(path) for _, path in sorted(paths.items())}
        kept = {path: rule for path, rule in said.items() if rule is not None and not rule.get("ignore")}
        if kept:
            by_name = {p.name: rule for p, rule in kept.items()}
            episodes[ids[stem]] = EpisodeFiles(ids[stem], tuple(kept), by_name, parts[stem])
    if not episodes:
        if failed or rules.failed:
            raise (failed or rules.failed)[0]
        kinds = ", ".join(f"{n} {s or 'without suffix'}" for s, n in sorted(unknown.items()))
        hint = f"it holds {kinds}" if kinds else "give folders or files of video, sound, numbers or text"
        raise InputError(" ".join(map(str, sources)), "holds no recording", hint)
    return [episodes[name] for name in sorted(episodes)]


@dataclass(frozen=True)
class _Found:
    """A file of an episode. stem: absolute path, the same for all of its files, of which the last `depth` parts are
    its id. path: as given."""

    stem: Path
    path: Path
    depth: int
    part: str = ""


def _of_file(path: Path, depth: int) -> Iterator[_Found]:
    """The file, once for each recording that it holds."""
    whole = Path(os.path.abspath(path))
    stem = whole.with_name(track_names.split(whole.stem)[0])
    for part in shared.parts_of_file(path):
        if not part:
            yield _Found(stem, path, depth)
        elif shared.is_shard(path):  # a part of its folder, which does not take in the name of the file
            yield _Found(whole.with_name(part), path, depth, part)
        else:
            yield _Found(stem / part, path, depth + part.count("/") + 1, part)


def find_again(episode: str, paths: Sequence[Path]) -> EpisodeFiles:
    """The episode of that id in the files that it was read from, wherever they are now. Raises InputError."""
    rules = Rules(lambda line: None)
    said = {path.name: rules.of(path) or {} for path in paths}
    if rules.failed:
        raise rules.failed[0]
    return EpisodeFiles(episode, tuple(paths), said, shared.part_again(episode, paths))


def _distinct(depth: Mapping[Path, int]) -> dict[Path, str]:
    """Ids of so many last parts of each path, and of more where they would be the same."""
    taken = dict(depth)
    while True:
        ids = {stem: "/".join(stem.parts[1:][-parts:]) for stem, parts in taken.items()}
        count = Counter(ids.values())
        again = [stem for stem, name in ids.items() if count[name] > 1]
        if not again:
            return ids
        for stem in again:
            taken[stem] += 1


def _below(
    root: Path, unknown: dict[str, int], rules: Rules, problems: Problems, say: Callable[[InputError], None]
) -> Iterator[_Found]:
    """Recordings below `root`, hidden ones and papers such as a README left out; `say` is told of datasets that cannot
    be understood."""

    def failed(error: OSError) -> None:
        problems(str(disk.unreadable(Path(error.filename or root), error)))

    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, onerror=failed, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:  # a link back up
            subfolders.clear()
            continue
        visited.add(real)
        here, whole = Path(folder), Path(os.path.abspath(folder))
        above = len(here.relative_to(root).parts)
        try:
            recorded = shared.parts_of_folder(here, problems)
        except InputError as error:
            say(error)
            recorded = iter(())
        if recorded is not None:  # what lies below are its files, and no recordings by themselves
            subfolders.clear()
            for part, paths in recorded:
                yield from (_Found(whole / part, path, above + 1, part) for path in paths)
            continue
        # A store or a vocabulary below the folder is not a recording.
        subfolders[:] = sorted(
            s
            for s in subfolders
            if not s.startswith(".") and (shared.may_hold_several(here / s) or not _is_made_here(here / s))
        )
        named = here if here.name not in ("", "..") else whole  # as episode.toml beside it calls it
        if bags := disk.listed_bags(here):  # one recording, in several files
            yield _Found(whole, named, max(above, 1))
            names = [*{*names} - {bag.name for bag in bags} - {disk.BAG_FACTS}]
        elif (pictures := disk.numbered_pictures(here)) and _are_timed(rules.of(named)):
            yield _Found(whole.with_name(track_names.split(whole.name)[0]), named, max(above, 1))
            names = [*{*names} - {picture.name for picture in pictures}]
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or name == RULES or path.stem.lower() in _NOT_RECORDINGS:
                continue
            if _suffix(path) in SUFFIXES or shared.may_hold_several(path):
                yield from _of_file(path, above + 1)
            else:
                unknown[path.suffix.lower()] = unknown.get(path.suffix.lower(), 0) + 1


def _are_timed(rules: Mapping[str, Any] | None) -> bool:
    """Whether episode.toml says of the pictures of a folder when they were taken: then they are a film."""
    return rules is not None and (bool(rules.get("rate_hz")) or rules.get("time") == "name")


def _suffix(path: Path) -> str:
    """What tells what a file is. `x.bag.active` is a bag whose recorder was killed, or still runs."""
    return ".bag" if path.name.lower().endswith(".bag.active") else path.suffix.lower()


def _is_made_here(folder: Path) -> bool:
    """Whether it is a store or a vocabulary."""
    return any(os.path.exists(folder / name) for name in ("zarr.json", "manifest.json"))


def read_episode(
    found: EpisodeFiles, options: ReadOptions | None = None, problems: Problems = lambda line: None
) -> Episode:
    """The episode's tracks, media not read yet. Files that cannot be read are reported to `problems`.

    Raises InputError if none of its files can be read.
    """
    options = options or ReadOptions()
    tracks: dict[str, Track] = {}
    sources = []
    files: list[tuple[Path, Mapping[str, Any], list[Track]]] = []
    texts = {path for path in found.paths if _suffix(path) in _TEXTS}
    has_text = False
    # Texts first: one that can be read stands for the subtitles within a film, which are not looked for then.
    for path in sorted(found.paths, key=lambda path: path not in texts):
        rules = found.rules.get(path.name, {})
        try:
            read = _read(path, options, rules, problems, texts=not has_text, part=found.part)
            source = disk.source_of(path)
        except InputError as error:
            if len(found.paths) == 1:
                raise
            problems(str(error))
            continue
        has_text |= path in texts
        sources.append(source)
        files.append((path, rules, read))
    order = found.paths.index
    sources.sort(key=lambda source: order(Path(source.path)))
    files.sort(key=lambda file: order(file[0]))
    for path, rules, read in aligned(files, problems):
        said = track_names.split(path.name if path.is_dir() else path.stem)[1]
        if said in {t.name for t in read}:
            said = None  # a table that pantok wrote knows the names of all of its tracks
        for track in read:
            renamed = _free_name(_renamed(track, rules, said), path, tracks)
            tracks[renamed.name] = renamed
    if not tracks:
        raise InputError(found.id, "is left out", "none of its files can be read, see above")
    return Episode(found.id, tracks, tuple(sources))


def _read(
    path: Path,
    options: ReadOptions,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    texts: bool = True,
    part: str = "",
) -> list[Track]:
    """The tracks of one file, or of a part of it. texts: whether the subtitles of a film are wanted."""
    suffix = _suffix(path)
    in_files = path.is_dir() and bool(part or disk.listed_bags(path))
    if path.is_dir() and not in_files and _are_timed(rules) and disk.numbered_pictures(path):
        from pantok.formats.picture_folder import read_pictures

        return read_pictures(path, rules, problems, size=options.size, fps=options.fps)
    if not in_files:
        disk.check_readable(path)
    if part or shared.may_hold_several(path):
        return shared.read_part(path, part, rules, problems, size=options.size, fps=options.fps)
    if suffix in _TABLES:
        from pantok.formats.tables import read_table

        return read_table(path, rules, problems, size=options.size, fps=options.fps)
    if suffix in _LOGS or in_files:
        from pantok.formats.mcap_log import read_log

        return read_log(path, rules, problems, size=options.size, fps=options.fps)
    if suffix in _TEXTS:
        from pantok.formats.texts import read_texts

        return [moved(read_texts(path), offset_of(rules))]
    if suffix in _SOUNDS:
        from pantok.formats.soundfiles import read_soundfile

        try:
            return [moved(read_soundfile(path, problems=problems), offset_of(rules))]
        except InputError:
            pass  # libsndfile does not know every codec that goes by these suffixes; FFmpeg may
    from pantok.formats.container import read_container

    tracks = read_container(path, size=options.size, fps=options.fps, texts=texts, problems=problems)
    return [moved(t, offset_of(rules)) for t in tracks]


def _renamed(track: Track, rules: Mapping[str, Any], said: str | None) -> Track:
    """`name = "video.front"` of episode.toml, or a label under which the first word stays the track's kind; else what
    the file's own name says of its kind (the sound of a film called `ep1@video.left` is `audio`)."""
    name = rules.get("name") or (said if said and said.partition(".")[0] == track.kind else None)
    if not name:
        return track
    kind, _, label = str(name).partition(".")
    # What tells the tracks of one file apart stays: `proprio.flags` of a file called `wrist` is `proprio.wrist.flags`.
    own = track.name.partition(".")[1:]
    return track.named((f"{track.kind}.{label or kind}" if kind != track.kind else str(name)) + "".join(own))


def _free_name(track: Track, path: Path, taken: Mapping[str, Track]) -> Track:
    """Two files of an episode may hold a track of the same name: the second is labelled by its suffix."""
    if track.name not in taken:
        return track
    name = f"{track.name}.{path.suffix[1:].lower()}"
    number = 2
    while name in taken:
        name, number = f"{track.name}.{path.suffix[1:].lower()}{number}", number + 1
    return track.named(name)
