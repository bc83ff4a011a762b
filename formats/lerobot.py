"""LeRobot datasets (Hugging Face), versions 2 and 3, as episodes: rows of Parquet, cameras in MP4, tasks in words.

What is unusual: nothing is copied or converted. From version 3 on many episodes share a table and a film; an episode is
then the rows that have its number, and a span of each film. A row and a picture of the same number are the same
instant, as LeRobot has it: both are put on the dataset's rate, where they are within a tenth of a millisecond of it
(the tolerance with which LeRobot checks its own datasets).

Source of the layout: `lerobot/datasets` of huggingface/lerobot, 0.3.3 (codebase v2.1) and 0.4.4 (v3.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats.files import Problems, check_readable
from pantok.formats.lerobot_meta import DAMAGED, Dataset, Film, Recorded
from pantok.formats.table_columns import Columns, columns_of, listed, tell_left
from pantok.formats.tables import tracks_of, video_name

_COUNTS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that say of a row where it stands, not what was recorded."""
_TOLERANCE_S = 1e-4


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
    except DAMAGED as error:
        fault = "is not a Parquet file, or is damaged"
        with suppress(*DAMAGED):
            if "episode_index" not in pyarrow.parquet.read_schema(path).names:
                fault = "has no column episode_index"
        raise InputError(path, fault, "download the dataset again") from error
    if not table.num_rows:
        raise InputError(path, f"holds no row of {episode.name}", "download the dataset again")
    if table.num_rows != episode.rows:
        problems(f"{path}: {episode.name} has {table.num_rows} rows, not {episode.rows} (those that it has are read)")
    where = f"{path}: {episode.name}"
    for key, said in dataset.features.items():
        if said.get("dtype") != "video" and key not in (*_COUNTS, *table.schema.names):
            problems(f"{where} has no column {key}, which `meta/info.json` names (the others are kept)")
    stamps = table["timestamp"].to_pylist() if "timestamp" in table.schema.names else []
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
    unknown = sorted({str(n) for n in numbers if n is not None and (isinstance(n, list) or n not in dataset.tasks)})
    if unknown and dataset.tasks:
        problems(f"{where} has the tasks {listed(unknown)}, whose words `meta` does not say (left out)")
    said_words = ["" if str(n) in unknown else dataset.tasks.get(n, "") for n in numbers]
    if any(said_words) and "task" not in columns.words:
        columns.words["task"] = np.array(said_words, object)
    _say_uneven(where, dataset.rate, stamps, problems)
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


def _say_uneven(where: str, rate: Fraction, stamps: Sequence[Any], problems: Problems) -> None:
    if not stamps:
        return
    even = Clock.regular(rate, len(stamps)).times_ns / NS
    try:
        off = float(np.abs(np.array(stamps, np.float64).reshape(len(stamps)) - even).max())
    except DAMAGED:
        off = np.nan
    if not off <= _TOLERANCE_S + float(np.spacing(np.float32(even[-1]))):
        how = "not all numbers" if np.isnan(off) else f"up to {off:.4f} s off its {float(rate):g} Hz"
        problems(f"{where} has stamps that are {how} (the rate is believed, as LeRobot does)")


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
    span = Span(start_ns=film.start_ns or 0, rate=dataset.rate, count=film.count)
    return video_track(path, indices[0], "video", 0, size, fps, problems, span)
