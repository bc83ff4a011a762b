"""What the folder `meta` of a LeRobot dataset says: which episodes there are, and where their rows and pictures lie.

What is unusual: an episode of which it says what cannot be is left out by a line, and the others stand. What would show
the pictures of a neighbour counts as such: spans of a film that overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pantok.errors import InputError
from pantok.experience import NS
from pantok.formats.files import read_text
from pantok.formats.shared import DATASET_INFO, is_dataset
from pantok.formats.table_clock import rate_of

DAMAGED = (
    pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError,
    RecursionError,
)  # fmt: skip
"""What is raised for what is not as it should be."""
_VERSIONS = ("v2.", "v3.")
_AGAIN = "download the dataset again"
_Features = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Film:
    """Where the pictures of one camera are. start_ns: of the episode's first picture; None if the file is its own.
    count: how many there are."""

    path: Path
    start_ns: int | None
    count: int


@dataclass(frozen=True)
class Recorded:
    """One episode. rows: how many it has. films: by the name of the feature."""

    index: int
    table: Path
    films: Mapping[str, Film]
    rows: int

    @property
    def name(self) -> str:
        return f"episode_{self.index:06d}"

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.table, *dict.fromkeys(film.path for film in self.films.values()))


@dataclass(frozen=True)
class Dataset:
    """features: what each column is, as `meta/info.json` has it. tasks: the words of each number. faults: a line for
    each thing that was left out."""

    root: Path
    rate: Fraction
    features: _Features
    tasks: Mapping[int, str]
    episodes: Mapping[str, Recorded] = field(default_factory=dict)
    faults: Sequence[str] = ()


def root_of(path: Path) -> Path | None:
    """The dataset that a file within it belongs to; None if it is in none."""
    return next((above for above in path.parents[1:6] if is_dataset(above)), None)


def open_dataset(root: Path) -> Dataset | None:
    """What the folder `meta` says; None if it is that of something else. Raises InputError where it is damaged or of a
    version that is not known."""
    path = root / DATASET_INFO
    return _opened(root, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _opened(root: Path, mtime_ns: int) -> Dataset | None:
    path = root / DATASET_INFO
    try:
        info = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(path, "is not JSON", _AGAIN) from error
    if not isinstance(info, dict) or "codebase_version" not in info:
        return None
    version = str(info["codebase_version"])
    if not version.startswith(_VERSIONS):
        raise InputError(
            path, f"is a LeRobot dataset of version {version}; {', '.join(v + 'x' for v in _VERSIONS)} are read",
            "convert it with lerobot's own script",
        )  # fmt: skip
    faults: list[str] = []
    lines = _lines_of_version_3 if version.startswith("v3") else _lines_of_version_2
    try:
        features = {str(name): dict(said) for name, said in info["features"].items()}
        rate = rate_of(path, {"fps": info["fps"]})
        if rate is None:
            raise KeyError("fps")
        places = _Places(root, info, version, rate)
        places.table(places.first)  # whether its template can be followed
        cameras = _cameras(places, features, faults)
        episodes = _apart(_episodes(places, cameras, lines(root), faults), rate, faults)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(path, f"its dataset cannot be understood: {_said(error)}", _AGAIN) from error
    return Dataset(root, rate, features, _tasks(root, faults), episodes, tuple(faults))


def _said(error: Exception) -> str:
    return f"it has no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error).split("\n")[0]


class _Places:
    """Where the files of an episode lie, by the templates of `info.json`, and what a line of `meta` says of it."""

    def __init__(self, root: Path, info: Mapping[str, Any], version: str, rate: Fraction) -> None:
        self._root, self._info, self._rate, self.path = root, info, rate, root / DATASET_INFO
        self._shared = version.startswith("v3")
        self._chunk = int(info.get("chunks_size") or 1000)
        self.first: dict[str, Any] = {"episode_index": 0, "length": 1}
        if self._shared:
            self.first |= {"data/chunk_index": 0, "data/file_index": 0}

    def table(self, line: Mapping[str, Any]) -> Path:
        return self._at("data_path", self._numbers(line, "data"))

    def film(self, key: str, line: Mapping[str, Any]) -> Film:
        of = f"videos/{key}"
        path, rows = self._at("video_path", self._numbers(line, of) | {"video_key": key}), _whole(line, "length", 1)
        if not self._shared:
            return Film(path, None, rows)
        start, end = (line.get(f"{of}/{name}_timestamp") for name in ("from", "to"))
        if not isinstance(start, int | float) or not 0 <= start < 1e9:
            raise ValueError(f"its pictures of {key} begin at {start} s")
        count = rows
        if isinstance(end, int | float) and start <= end < 1e9:
            count = min(rows, round((Fraction(end) - Fraction(start)) * self._rate))
        return Film(path, round(Fraction(start) * NS), count)

    def _numbers(self, line: Mapping[str, Any], of: str) -> dict[str, Any]:
        if self._shared:
            return {name: _whole(line, f"{of}/{name}") for name in ("chunk_index", "file_index")}
        index = _whole(line, "episode_index")
        return {"episode_chunk": index // self._chunk, "episode_index": index}

    def _at(self, name: str, numbers: Mapping[str, Any]) -> Path:
        template = self._info[name]
        if not isinstance(template, str):
            raise ValueError(f"its {name} is {template!r}")
        try:
            path = Path(template.format(**numbers))
        except DAMAGED as error:
            raise ValueError(f"its {name} is {template!r}, which cannot be followed") from error
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"its {name} is {template!r}, which leads out of the dataset")
        return self._root / path


def _whole(line: Mapping[str, Any], name: str, least: int = 0) -> int:
    value = line[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 2**31 or value % 1:
        raise ValueError(f"its {name} is {value}")
    return int(value)


def _cameras(places: _Places, features: _Features, faults: list[str]) -> list[str]:
    """The features that are films; those whose place is not said are faults."""
    found = []
    for key, said in features.items():
        if said.get("dtype") != "video":
            continue
        place = {f"videos/{key}/{name}": 0 for name in ("chunk_index", "file_index", "from_timestamp")}
        try:
            places.film(key, places.first | place)
            found.append(key)
        except DAMAGED as error:
            faults.append(f"{places.path}: {_said(error)}: the pictures of {key} are left out ({_AGAIN})")
    return found


def _episodes(
    places: _Places, cameras: Sequence[str], lines: Iterator[tuple[Path, Any]], faults: list[str]
) -> dict[str, Recorded]:
    """By name. What cannot be is left out, and so are two of the same number: whose pictures are whose is not known."""
    found: dict[str, Recorded] = {}
    twice: set[str] = set()
    for path, line in lines:
        called = "an episode"
        try:
            if isinstance(line, ValueError):
                raise line
            called = f"episode {line['episode_index']}"
            index, rows, table = _whole(line, "episode_index"), _whole(line, "length", 1), places.table(line)
            films: dict[str, Film] = {}
            for key in cameras:
                try:
                    films[key] = places.film(key, line)
                except DAMAGED as error:
                    faults.append(f"{path}: {called}: {_said(error)} (its pictures are left out; {_AGAIN})")
                    continue
                if films[key].count != rows:
                    faults.append(
                        f"{path}: {called} has {rows} rows and {films[key].count} pictures of {key} (what is there is "
                        "read)"
                    )
            episode = Recorded(index, table, films, rows)
        except DAMAGED as error:
            faults.append(f"{path}: {called} cannot be understood: {_said(error)} (left out; {_AGAIN})")
            continue
        if episode.name in found or episode.name in twice:
            twice.add(episode.name)
            if found.pop(episode.name, None) is not None:
                faults.append(f"{path}: {called} is there more than once (left out; {_AGAIN})")
            continue
        found[episode.name] = episode
    if not found:
        raise InputError(places.path, "its dataset has no episode that can be read", faults[0] if faults else _AGAIN)
    return found


def _apart(episodes: Mapping[str, Recorded], rate: Fraction, faults: list[str]) -> dict[str, Recorded]:
    """The same, without the films in which an episode would show what another does."""
    kept = dict(episodes)
    spans: dict[tuple[str, Path], list[tuple[int, int, str]]] = {}
    for name, episode in episodes.items():
        for key, film in episode.films.items():
            start_ns = film.start_ns or 0
            end_ns = start_ns + round((film.count - Fraction(1, 2)) * NS / rate)
            spans.setdefault((key, film.path), []).append((start_ns, end_ns, name))
    for (key, path), of in spans.items():
        last_ns, last = -1, ""
        for start_ns, end_ns, name in sorted(of):
            if start_ns < last_ns:
                faults.append(
                    f"{path}: by `meta` {last} and {name} have the same pictures (left out of both; the rows are kept)"
                )
                for one in (last, name):
                    kept[one] = replace(kept[one], films={k: f for k, f in kept[one].films.items() if k != key})
            if end_ns > last_ns:
                last_ns, last = end_ns, name
    return kept


def _lines_of_version_2(root: Path) -> Iterator[tuple[Path, Any]]:
    """A table and a film a camera for each episode, by rule: its number and length are said."""
    path = root / "meta" / "episodes.jsonl"
    return ((path, line) for line in _lines(path))


def _lines_of_version_3(root: Path) -> Iterator[tuple[Path, Any]]:
    """Tables and films that episodes share; where each begins is in tables of its own."""
    for path in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        try:
            file = pyarrow.parquet.ParquetFile(path)
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            lines = file.read(columns=wanted).to_pylist()
        except DAMAGED:
            lines = [ValueError("it is not a Parquet file, or is damaged")]
        yield from ((path, line) for line in lines)


def _tasks(root: Path, faults: list[str]) -> dict[int, str]:
    """What the numbers of tasks mean; a fault if that is not said."""
    table, lines = (root / "meta" / f"tasks.{suffix}" for suffix in ("parquet", "jsonl"))
    try:
        if not table.exists():
            return {int(t["task_index"]): str(t["task"]) for t in _lines(lines)}
        said = pyarrow.parquet.read_table(table)
        words = [f.name for f in said.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        pairs = zip(said["task_index"].to_pylist(), said[words[0]].to_pylist(), strict=True)
        return {int(number): str(task) for number, task in pairs if task is not None}
    except (*DAMAGED, InputError) as error:
        path = table if table.exists() else lines
        faults.append(
            f"{path}: {'is not there' if not path.exists() else f'cannot be understood: {_said(error)}'}: what the "
            f"numbers of tasks mean is not known (they are left out; {_AGAIN})"
        )
        return {}


def _lines(path: Path) -> list[Any]:
    """The objects; a line that is none is the error that it is."""
    return [_object(line) for line in read_text(path).splitlines() if line.strip()]


def _object(line: str) -> Any:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return ValueError("its line is not JSON")
    return said if isinstance(said, dict) else ValueError("its line is no JSON object")
