"""Episodes as a LeRobot dataset of version 3: a table and a film a camera for each, and what `meta` says of them.

What is unusual: the dataset appears whole or not at all. Films have a keyframe every second picture, as LeRobot's own
have, so that a policy's random windows are read at once. Statistics are those of all rows; of pictures, of some of each
episode, as LeRobot takes them.

Source of the layout: `lerobot/datasets` of huggingface/lerobot 0.4.4 (codebase v3.0).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pantok import pixels
from pantok.experience import Block, Clock
from pantok.formats.files import make_folder, replaced, unwritable
from pantok.formats.media_out import Signal, size_of, write_media

_CHUNK = 1000  # files of a folder
_GOP = 2
_LOOKED = 100  # pictures of an episode that statistics are told from
_SHARES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_COUNTS = {n: pa.int64() for n in ("frame_index", "episode_index", "index", "task_index")}
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"


@dataclass
class _Seen:
    """Sums over pictures, by channel. histogram: of the 256 values."""

    histogram: np.ndarray = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    pictures: int = 0

    def look(self, rgb: np.ndarray) -> None:
        self.pictures += len(rgb)
        for c in range(3):
            self.histogram[c] += np.bincount(rgb[..., c].ravel(), minlength=256)

    def told(self) -> dict[str, Any]:
        """As LeRobot has them: of 0 to 1, (3, 1, 1)."""
        values = np.arange(256) / 255
        count = np.maximum(self.histogram.sum(1), 1)
        mean = self.histogram @ values / count
        spread = np.sqrt(np.maximum(self.histogram @ values**2 / count - mean**2, 0))
        below = self.histogram.cumsum(1) / count[:, None]
        rows = {
            "min": [values[np.flatnonzero(h)[0]] if h.any() else 0.0 for h in self.histogram],
            "max": [values[np.flatnonzero(h)[-1]] if h.any() else 0.0 for h in self.histogram],
            "mean": mean,
            "std": spread,
        } | {name: values[np.minimum((below < share).sum(1), 255)] for name, share in _SHARES.items()}
        return {name: [[[float(v)]] for v in row] for name, row in rows.items()} | {"count": [self.pictures]}


class DatasetWriter:
    """Writes one dataset: `add` for each episode, then `finish`; what is not finished leaves nothing behind.

    folder: what stands there is replaced in the end. rate: rows a second of all episodes. numbers: for each
    feature the dtype and the names of its values. cameras: of each the facts of its pictures (height, width).
    Raises OutputError where the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        rate: Fraction,
        numbers: Mapping[str, tuple[str, Sequence[str]]],
        cameras: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._folder, self._rate, self._numbers, self._cameras = folder, rate, numbers, cameras
        self._stage, self._old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
        self._episodes: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._rows = 0
        self._seen = {name: _Seen() for name in cameras}
        make_folder(self._stage)

    def add(
        self, films: Mapping[str, Signal], numbers: Mapping[str, np.ndarray], tasks: Sequence[str], source: str
    ) -> None:
        """One episode of len(tasks) rows. films: of each camera as many pictures. numbers: (rows, C) of each feature.
        tasks: the words of each row. source: what the episode was called. If one of the films raises, the dataset is as
        it was before."""
        before, seen = dict(self._tasks), deepcopy(self._seen)
        try:
            self._add(films, numbers, tasks, source)
        except Exception:
            index = len(self._episodes)
            name = _FILE.format(chunk_index=index // _CHUNK, file_index=index % _CHUNK)
            for path in (*self._stage.glob(f"videos/*/{name}.mp4"), *self._stage.glob(f"data/{name}.parquet")):
                path.unlink()
            self._tasks, self._seen = before, seen
            raise

    def _add(
        self, films: Mapping[str, Signal], numbers: Mapping[str, np.ndarray], tasks: Sequence[str], source: str
    ) -> None:
        count, index = len(tasks), len(self._episodes)
        place = {"chunk_index": index // _CHUNK, "file_index": index % _CHUNK}
        clock = Clock.regular(self._rate, count)
        said = np.array([self._tasks.setdefault(t, len(self._tasks)) for t in tasks], np.int64)
        told: dict[str, Any] = {
            "episode_index": index, "tasks": list(dict.fromkeys(tasks)), "length": count,
            **{f"data/{k}": v for k, v in place.items()}, **{f"meta/episodes/{k}": 0 for k in place},
            "dataset_from_index": self._rows, "dataset_to_index": self._rows + count, "recording": source,
        }  # fmt: skip
        for key, film in films.items():
            path = self._stage / "videos" / key / (_FILE.format(**place) + ".mp4")
            make_folder(path.parent)
            write_media(path, Signal(self._looked(key, film, count), clock, film.info), keyframe_every=_GOP)
            told |= {f"videos/{key}/{k}": v for k, v in place.items()}
            told |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": float(count / self._rate)}
        counts = dict(
            zip(_COUNTS, (range(count), [index] * count, range(self._rows, self._rows + count), said), strict=True)
        )
        columns = {key: _column(values) for key, values in numbers.items()}
        columns["timestamp"] = pa.array((clock.times_ns / 1e9).astype(np.float32))
        columns |= {name: pa.array(counts[name], kind) for name, kind in _COUNTS.items()}
        self._table(Path("data", _FILE.format(**place) + ".parquet"), pa.table(columns))
        self._episodes.append(told)
        self._rows += count

    def finish(self) -> None:
        """Says what there is and puts the dataset in its place."""
        assert self._episodes
        self._table(Path("meta", "episodes", "chunk-000", "file-000.parquet"), pa.Table.from_pylist(self._episodes))
        self._table(Path("meta", "tasks.parquet"), _with_index("task_index", range(len(self._tasks)), [*self._tasks]))
        self._json("stats.json", self._statistics())
        self._json("info.json", self._info())
        try:
            if self._folder.exists():
                self._folder.rename(self._old)
            try:
                self._stage.rename(self._folder)
            except OSError:
                if self._old.exists():
                    self._old.rename(self._folder)
                raise
        except OSError as error:
            raise unwritable(self._folder, error) from error
        shutil.rmtree(self._old, ignore_errors=True)

    def abandon(self) -> None:
        shutil.rmtree(self._stage, ignore_errors=True)

    def _looked(self, key: str, film: Signal, count: int) -> Iterator[Block]:
        """The pictures, some of which are looked at as they pass."""
        step, at = max(1, count // _LOOKED), 0
        height, width = int(film.info["height"]), int(film.info["width"])
        matrix, full = str(film.info.get("matrix", "bt601")), bool(film.info.get("full_range"))
        for block in film.blocks:
            some = block.values[-at % step :: step]
            self._seen[key].look(pixels.to_rgb(some, height, width, matrix, full))
            at += len(block)
            yield block

    def _info(self) -> dict[str, Any]:
        rate: int | float = int(self._rate) if self._rate.denominator == 1 else float(self._rate)
        features: dict[str, Any] = {}
        for key, (dtype, names) in self._numbers.items():
            features[key] = {"dtype": dtype, "shape": [len(names)], "names": list(names) if len(names) > 1 else None}
        for key, facts in self._cameras.items():
            height, width = size_of(facts)
            about = {
                "height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False,
                "fps": rate, "channels": 3,
            }  # fmt: skip
            features[key] = {
                "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                "info": {f"video.{k}": v for k, v in about.items()} | {"has_audio": False},
            }  # fmt: skip
        counts = {"timestamp": "float32"} | dict.fromkeys(_COUNTS, "int64")
        features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in counts.items()}
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": len(self._episodes),
            "total_frames": self._rows,
            "total_tasks": len(self._tasks),
            "chunks_size": _CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": rate,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": f"data/{_FILE}.parquet",
            "video_path": f"videos/{{video_key}}/{_FILE}.mp4" if self._cameras else None,
            "features": features,
        }

    def _statistics(self) -> dict[str, Any]:
        """Of each feature, over all rows; one feature in memory at a time."""
        paths = sorted((self._stage / "data").rglob("*.parquet"))
        told = {key: seen.told() for key, seen in self._seen.items()}
        for key in (*self._numbers, "timestamp", *_COUNTS):
            parts = [pyarrow.parquet.read_table(path, columns=[key])[key] for path in paths]
            told[key] = _statistics_of(np.concatenate([_rows(p) for p in parts]))
        return told

    def _table(self, path: Path, table: pa.Table) -> None:
        make_folder((self._stage / path).parent)
        with replaced(self._stage / path) as temporary:
            pyarrow.parquet.write_table(table, temporary)

    def _json(self, name: str, content: Mapping[str, Any]) -> None:
        with replaced(self._stage / "meta" / name) as temporary:
            temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")


def _column(values: np.ndarray) -> pa.Array:
    """(rows,) for one value a row, else lists of a fixed length."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _rows(column: pa.ChunkedArray) -> np.ndarray:
    """float64 (rows, C)."""
    joined = column.combine_chunks()
    fixed = pa.types.is_fixed_size_list(joined.type)
    flat = joined.flatten() if fixed else joined
    return flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(joined), -1)


def _statistics_of(values: np.ndarray) -> dict[str, Any]:
    """values: float64 (rows, C). Rows with NaN in a channel are none of its."""
    with np.errstate(invalid="ignore"):
        known = np.where(np.isfinite(values), values, np.nan)
    known[:, np.isnan(known).all(0)] = 0.0
    rows = {
        "min": np.nanmin(known, 0),
        "max": np.nanmax(known, 0),
        "mean": np.nanmean(known, 0),
        "std": np.nanstd(known, 0),
    }
    rows |= dict(zip(_SHARES, np.nanquantile(known, list(_SHARES.values()), axis=0), strict=True))
    return {name: row.tolist() for name, row in rows.items()} | {"count": [len(values)]}


def _with_index(name: str, numbers: Sequence[int], words: Sequence[str]) -> pa.Table:
    """A table whose rows pandas calls by `words`: so LeRobot looks up tasks."""
    index = "__index_level_0__"
    columns = [
        {"name": n, "field_name": f, "pandas_type": kind, "numpy_type": raw, "metadata": None}
        for n, f, kind, raw in ((name, name, "int64", "int64"), (None, index, "unicode", "object"))
    ]
    about = {"index_columns": [index], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    table = pa.table({name: pa.array(numbers, pa.int64()), index: pa.array(words, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})
