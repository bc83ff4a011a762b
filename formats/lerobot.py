"""LeRobot datasets (Hugging Face), versions 2 and 3, as episodes: rows of Parquet, cameras in MP4, tasks in words.

What is unusual: nothing is copied or converted. From version 3 on many episodes share a table and a film; an episode is
then the rows that have its number, and a span of each film. A row and a picture of the same number are the same
instant, as LeRobot has it: both are put on the dataset's rate, where they are within a tenth of a millisecond of it
(the tolerance with which LeRobot checks its own datasets).

Source of the layout: `lerobot/datasets` of huggingface/lerobot, 0.3.3 (codebase v2.1) and 0.4.4 (v3.0).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats.files import Problems, check_readable, read_text
from pantok.formats.table_clock import rate_of
from pantok.formats.table_columns import Columns, columns_of, tell_left
from pantok.formats.tables import tracks_of, video_name

INFO = Path("meta", "info.json")
_VERSIONS = ("v2.", "v3.")
_COUNTS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that say of a row where it stands, not what was recorded."""
_TOLERANCE_S = 1e-4
_DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True)
class Film:
    """Where the pictures of one camera are. start_ns: of the episode's first picture; None if the file is its own."""

    path: Path
    start_ns: int | None


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
    """features: what each column is, as `meta/info.json` has it. tasks: the words of each number."""

    root: Path
    rate: Fraction
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: Mapping[str, Recorded] = field(default_factory=dict)


def is_dataset(folder: str | Path) -> bool:
    return os.path.isfile(os.path.join(folder, INFO))


def root_of(path: Path) -> Path | None:
    """The dataset that a file within it belongs to; None if it is in none."""
    return next((above for above in path.parents[1:6] if is_dataset(above)), None)


def open_dataset(root: Path) -> Dataset | None:
    """What the folder `meta` says; None if it is that of something else. Raises InputError where it is damaged or of a
    version that is not known."""
    path = root / INFO
    return _opened(root, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _opened(root: Path, mtime_ns: int) -> Dataset | None:
    path = root / INFO
    try:
        info = json.loads(read_text(path))
    except ValueError as error:
        raise InputError(path, "is not JSON", "download the dataset again") from error
    if not isinstance(info, dict) or "codebase_version" not in info:
        return None
    version = str(info["codebase_version"])
    if not version.startswith(_VERSIONS):
        raise InputError(
            path, f"is a LeRobot dataset of version {version}; {', '.join(v + 'x' for v in _VERSIONS)} are read",
            "convert it with lerobot's own script",
        )  # fmt: skip
    try:
        features = {str(name): dict(said) for name, said in info["features"].items()}
        rate = rate_of(path, {"fps": info["fps"]})
        if rate is None:
            raise KeyError("fps")
        read = _of_version_3 if version.startswith("v3") else _of_version_2
        tasks = _tasks(root)
        episodes = {episode.name: episode for episode in read(root, info, features)}
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(path, f"its dataset cannot be understood: {error}", "download the dataset again") from error
    return Dataset(root, rate, features, tasks, episodes)


def _cameras(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [name for name, said in features.items() if said.get("dtype") == "video"]


def _of_version_2(root: Path, info: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[Recorded]:
    """A table and a film a camera for each episode."""
    for line in _lines(root / "meta" / "episodes.jsonl"):
        index = int(line["episode_index"])
        place = {"episode_chunk": index // int(info.get("chunks_size", 1000)), "episode_index": index}
        films = {
            key: Film(root / str(info["video_path"]).format(video_key=key, **place), None) for key in _cameras(features)
        }
        yield Recorded(index, root / str(info["data_path"]).format(**place), films, int(line["length"]))


def _of_version_3(root: Path, info: Mapping[str, Any], features: Mapping[str, Any]) -> Iterator[Recorded]:
    """Tables and films that episodes share; where each begins is in tables of its own."""
    cameras = _cameras(features)
    for path in sorted((root / "meta" / "episodes").rglob("*.parquet")):
        file = pyarrow.parquet.ParquetFile(path)
        wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        for line in file.read(columns=wanted).to_pylist():

            def place(of: str, line: Mapping[str, Any] = line) -> dict[str, int]:
                return {k: int(line[f"{of}/{k}"]) for k in ("chunk_index", "file_index")}

            films = {}
            for key in cameras:
                start_ns = round(Fraction(line[f"videos/{key}/from_timestamp"]) * NS)
                where = str(info["video_path"]).format(video_key=key, **place(f"videos/{key}"))
                films[key] = Film(root / where, start_ns)
            table = root / str(info["data_path"]).format(**place("data"))
            yield Recorded(int(line["episode_index"]), table, films, int(line["length"]))


def _tasks(root: Path) -> dict[int, str]:
    """What the numbers of tasks mean."""
    table = root / "meta" / "tasks.parquet"
    if not table.exists():
        lines = root / "meta" / "tasks.jsonl"
        return {int(t["task_index"]): str(t["task"]) for t in (_lines(lines) if lines.exists() else ())}
    said = pyarrow.parquet.read_table(table)
    words = next(f.name for f in said.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type))
    return dict(zip(said["task_index"].to_pylist(), said[words].to_pylist(), strict=True))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_text(path).splitlines() if line.strip()]


def read_file(
    dataset: Dataset,
    name: str,
    path: Path,
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """What one of its files holds of the episode `name`: of its table `proprio.state`, `action`, `reward`, `text.task`
    and the like, of a film `video.top`. Raises InputError if it cannot be read."""
    episode = dataset.episodes[name]
    where = path.absolute()
    if where == episode.table.absolute():
        columns = _columns(dataset, episode, path, problems)
        return tracks_of(path, columns, {"rate_hz": str(dataset.rate)}, problems, size=size, fps=fps)
    return [
        _filmed(dataset, episode, path, film, problems, size, fps).named(video_name(_short(key)))
        for key, film in episode.films.items()
        if where == film.path.absolute()
    ]


def _short(key: str) -> str:
    """`observation.images.top` is `top`, `next.reward` is `reward`."""
    for start in ("observation.images.", "observation.", "next."):
        if key.startswith(start) and len(key) > len(start):
            return key[len(start) :]
    return key


def _columns(dataset: Dataset, episode: Recorded, path: Path, problems: Problems) -> Columns:
    """The rows of an episode, in their order, by short names; without what only counts them."""
    check_readable(path)
    try:
        table = pyarrow.parquet.read_table(path, filters=[("episode_index", "=", episode.index)], partitioning=None)
        table = table.sort_by("frame_index") if "frame_index" in table.schema.names else table
    except _DAMAGED as error:
        raise InputError(path, "is not a Parquet file, or is damaged", "download the dataset again") from error
    if not table.num_rows:
        raise InputError(path, f"holds no row of {episode.name}", "download the dataset again")
    if table.num_rows != episode.rows:
        problems(f"{path}: {episode.name} has {table.num_rows} rows, not {episode.rows} (those that it has are read)")
    stamps = table["timestamp"].to_numpy() if "timestamp" in table.schema.names else None
    numbers = table["task_index"].to_pylist() if "task_index" in table.schema.names else []
    kept = table.drop_columns([name for name in _COUNTS if name in table.schema.names])
    del table
    columns = columns_of(path, _renamed(kept), problems)
    tell_left(path, columns, problems)
    columns.facts = {}
    for key, said in dataset.features.items():
        names = tuple(_names(said.get("names")))
        if names:
            columns.channels[_short(key)] = names
    said_words = [dataset.tasks.get(number, "") for number in numbers]
    if any(said_words) and "task" not in columns.words:
        columns.words["task"] = np.array(said_words, object)
    _say_uneven(path, episode, dataset.rate, stamps, problems)
    return columns


def _renamed(table: pa.Table) -> pa.Table:
    """By short names, where no two are the same."""
    short = [_short(name) for name in table.schema.names]
    names = [s if short.count(s) == 1 else n for s, n in zip(short, table.schema.names, strict=True)]
    return table.rename_columns(names)


def _names(said: Any) -> Iterator[str]:
    """The names of a feature's numbers: a list, or lists within a mapping (`{"motors": [...]}`)."""
    if isinstance(said, Mapping):
        for value in said.values():
            yield from _names(value)
    elif isinstance(said, Sequence) and not isinstance(said, str):
        for value in said:
            yield from [value] if isinstance(value, str) else _names(value)


def _say_uneven(path: Path, episode: Recorded, rate: Fraction, stamps: Any, problems: Problems) -> None:
    if stamps is None or not len(stamps):
        return
    even = Clock.regular(rate, len(stamps)).times_ns / NS
    off = float(np.abs(np.asarray(stamps, np.float64) - even).max())
    if not off <= _TOLERANCE_S + float(np.spacing(np.float32(even[-1]))):
        problems(
            f"{path}: the stamps of {episode.name} are up to {off:.4f} s off its {float(rate):g} Hz (the rate is "
            "believed, as LeRobot does)"
        )


def _filmed(
    dataset: Dataset,
    episode: Recorded,
    path: Path,
    film: Film,
    problems: Problems,
    size: int | None,
    fps: Fraction | None,
) -> Track:
    from pantok.formats.container import opened, pictures_of
    from pantok.formats.container_video import Span, video_track

    with opened(path) as container:
        indices = [stream.index for stream in pictures_of(container)]
    if not indices:
        raise InputError(path, "holds no picture", "download the dataset again")
    span = Span(start_ns=film.start_ns or 0, rate=dataset.rate, count=episode.rows)
    return video_track(path, indices[0], "video", 0, size, fps, problems, span)
