"""RLDS datasets (TensorFlow Datasets; Open X-Embodiment, DROID, BridgeData V2) as episodes, without TensorFlow.

A record of a shard is an episode; what lies in its `steps` is a column each, by its path: `observation/image`,
`action`. Each is read as any table is (`tables`). Pictures are decoded when they are looked at, out of the record that
is read again then: what is open takes no memory. An episode is called by its number in the split, as
`tfds.load(split="train[3:4]")` has it, also where not all of the shards were downloaded.

Source of the layout: `tensorflow_datasets` 4.9.10, `core/features` and `core/example_serializer.py`.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats.files import Problems, read_text
from pantok.formats.shared import SHARD, SHARDED_FACTS, SHARDED_FEATURES
from pantok.formats.table_columns import NEITHER, Columns, is_picture, tell_left
from pantok.formats.table_groups import tracks_by_clock
from pantok.formats.tfrecord import cells_of, example, length_of, values_of

_STEPS = "steps"
_AGAIN = "download the dataset's folder again"
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, zlib.error, RecursionError)
"""What is raised for features that are not as features.json has them."""
_OF_WORDS = re.compile(r"(language|instruction|text)\w*embedding\w*$")
_NAME = re.compile(r"(.+)_(\d{6,})")


@dataclass(frozen=True)
class _Feature:
    """shape: -1 where it is not known. dtype: None of what is neither numbers nor words. encoding: `picture`, `words`,
    `none`, `bytes` or `zlib`."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    encoding: str
    ragged: bool = False


def parts_of(path: Path) -> tuple[str, ...]:
    """`train_000000`, …: the names of the episodes in a shard. Raises InputError where its folder does not say."""
    split, first, count = _place(path)
    return tuple(f"{split}_{first + number:06d}" for number in range(count))


def parts_of_folder(folder: Path, problems: Problems) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Name and shard of each episode of which the shard is there. Shards that cannot be placed are problem lines.

    Raises InputError where there are no steps, no shards, or none that can be placed.
    """
    shards = sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name))
    if not shards:
        form = _facts(folder / SHARDED_FACTS).get("fileFormat", "another format")
        remedy = "download its shards" if form == "tfrecord" else "write it as tfrecord: tfds convert_format"
        raise InputError(folder, f"is a dataset without TFRecord files (it is of {form})", remedy)
    _features(folder)
    found: list[tuple[str, tuple[Path, ...]]] = []
    failed: list[InputError] = []
    for path in shards:
        try:
            found += [(part, (path,)) for part in parts_of(path)]
        except InputError as error:
            failed.append(error)
    if not found and failed:
        raise failed[0]
    for fault in failed:
        problems(str(fault))
    return iter(found)


def holds(path: Path, part: str) -> bool:
    return part in parts_of(path)


def read_part(
    path: Path,
    part: str,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks of one episode of a shard. rules: what episode.toml says of the shard.

    Raises InputError for what cannot be read, or an unknown rate: an RLDS dataset says none.
    """
    split, first, count = _place(path)
    said = _NAME.fullmatch(part)
    number = int(said[2]) - first if said and said[1] == split else -1
    if not 0 <= number < count:
        raise InputError(path, f"holds no {part or 'episode'}", "give the dataset's folder")
    features = _features(path.parent)
    held = example(path, number)
    count = _count(path, held, features)
    columns = Columns(part=part, grouped=True, count=count)
    for name, feature in features.items():
        try:
            _add(columns, name, feature, held, _Cells(path, number, f"{_STEPS}/{name}"), count)
        except _DAMAGED:
            columns.left[name] = "is not as features.json has it"
    tell_left(path.parent, columns, problems)  # the same of every shard: said once
    try:
        return tracks_by_clock(path, columns, rules, problems, size=size, fps=fps)
    except InputError as error:
        remedy = error.remedy.replace(f'"{path.name}"', '"*.tfrecord-*"')  # the same for every shard
        raise InputError(error.thing, error.problem, remedy) from error


class _Cells(Sequence[bytes]):
    """The strings of a feature, in a record that is read when one is asked for."""

    def __init__(self, path: Path, number: int, name: str) -> None:
        self._path, self._number, self._name = path, number, name

    def __len__(self) -> int:
        return len(self._now())

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        return self._now()[index]

    def _now(self) -> Sequence[bytes]:
        return cells_of(example(self._path, self._number)[self._name]) or ()


def _count(path: Path, held: Mapping[str, Any], features: Mapping[str, _Feature]) -> int:
    """How many steps the episode has: as many as most features of which each step holds one value, or as many."""
    lengths: Counter[int] = Counter()
    for name, feature in features.items():
        key = f"{_STEPS}/{name}"
        one = 1 if feature.encoding != "none" else math.prod(feature.shape)
        if key in held and one > 0 and not feature.ragged:
            lengths[length_of(held[key]) // one] += 1
    most = max(lengths, key=lambda n: (lengths[n], n), default=0)
    if not most:
        raise InputError(path, "holds an episode without steps", "leave it out, or record it again")
    return most


def _add(columns: Columns, name: str, feature: _Feature, held: Mapping[str, Any], cells: _Cells, count: int) -> None:
    """Puts a feature where it belongs in `columns`."""
    pictures = feature.encoding == "picture" and not feature.ragged
    if _OF_WORDS.search(name):
        columns.left[name] = "computed from words"
    elif not feature.ragged and f"{_STEPS}/{name}" not in held:
        columns.left[name] = "not there"
    elif pictures and feature.dtype != np.uint8:
        columns.left[name] = f"pictures of {feature.dtype}, as depths are"
    elif pictures and is_picture(cells[0]):
        columns.encoded[name] = cells
    elif pictures:
        columns.left[name] = NEITHER
    elif feature.encoding == "words" and not feature.ragged:
        words = columns.words[name] = np.empty(len(cells), object)
        words[:] = [cell.decode("utf-8", "replace") for cell in cells[:]]
    elif isinstance(values := _numbers(name, feature, held, cells, count), str):
        columns.left[name] = values
    else:
        columns.add(name, values)


def _numbers(name: str, feature: _Feature, held: Mapping[str, Any], cells: _Cells, count: int) -> np.ndarray | str:
    """(steps, ...) of a feature's own dtype; or why it has none."""
    key = f"{_STEPS}/{name}"
    if feature.dtype is None:
        return NEITHER
    if feature.ragged:
        lengths = np.array(held[f"{key}/ragged_row_lengths_0"].int64_list.value)
        if not len(lengths) or (lengths != lengths[0]).any() or f"{key}/ragged_row_lengths_1" in held:
            return "lists of different lengths"
        values = values_of(held[f"{key}/ragged_flat_values"])
        shape: tuple[int, ...] = (len(lengths), int(lengths[0]), *feature.shape)
    elif feature.encoding == "none":
        values, shape = values_of(held[key]), (count, *feature.shape)
    else:
        unpack = zlib.decompress if feature.encoding == "zlib" else bytes
        values = np.stack([np.frombuffer(unpack(cell), feature.dtype) for cell in cells[:]])
        shape = (len(values), *feature.shape)
    if values is None or not values.size:
        return "lists that hold nothing" if values is not None else NEITHER
    if feature.dtype == np.uint64 and values.dtype == np.int64:  # kept as the same bits
        values = values.view(np.uint64)
    return values.astype(feature.dtype, copy=False).reshape(shape)


def _place(path: Path) -> tuple[str, int, int]:
    """The split that a shard is of, the number of its first episode, and how many it holds."""
    said = SHARD.fullmatch(path.name)
    facts = path.parent / SHARDED_FACTS
    if said is None or not facts.is_file():
        raise InputError(path, f"has no {SHARDED_FACTS} beside it", _AGAIN)
    split, number = said[1], int(said[2])
    whole = _facts(facts)
    try:
        told = next(s for s in whole["splits"] if s["name"] == split)
        lengths = [int(n) for n in told["shardLengths"]]
        first, count = sum(lengths[:number]), lengths[number]
        if min(lengths) < 0 or len(lengths) != int(said[3]):
            raise ValueError(lengths)
    except (*_DAMAGED, StopIteration) as error:
        raise InputError(facts, f"does not say how many episodes {path.name} holds", _AGAIN) from error
    return split, first, count


def _facts(path: Path) -> Any:
    return _json(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _json(path: Path, mtime_ns: int) -> Any:
    text = read_text(path)
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, "is not JSON", _AGAIN) from error
    if not isinstance(said, dict):
        raise InputError(path, "is not what tensorflow_datasets writes", _AGAIN)
    return said


def _features(folder: Path) -> Mapping[str, _Feature]:
    """What each step holds, by its path within `steps`. Raises InputError where there are no steps."""
    path = folder / SHARDED_FEATURES
    if not path.is_file():
        raise InputError(folder, f"has no {SHARDED_FEATURES}", _AGAIN)
    return _features_once(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _features_once(path: Path, mtime_ns: int) -> Mapping[str, _Feature]:
    whole = _json(path, mtime_ns)
    try:
        steps = _within_sequence(dict(_inner(whole))[_STEPS])
        return dict(_flat(steps, ""))
    except _DAMAGED as error:
        raise InputError(path, "has no steps, or cannot be understood", "RLDS datasets alone are read") from error


def _inner(said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The features in a group; nothing of what is none. Older datasets have `type` and `content`."""
    if "featuresDict" in said:
        yield from said["featuresDict"]["features"].items()
    elif str(said.get("type", "")).endswith(".FeaturesDict"):
        content = _content(said)
        yield from content.get("features", content).items()


def _content(said: Mapping[str, Any]) -> Any:
    content = said["content"]
    return json.loads(content) if isinstance(content, str) else content


def _within_sequence(said: Mapping[str, Any]) -> Any:
    return said["sequence"]["feature"] if "sequence" in said else _content(said)["feature"]


def _flat(said: Mapping[str, Any], below: str) -> Iterator[tuple[str, _Feature]]:
    for name, inner in sorted(_inner(said)):
        path = f"{below}{name}"
        if [*_inner(inner)]:
            yield from _flat(inner, f"{path}/")
        elif "sequence" in inner or str(inner.get("type", "")).endswith((".Sequence", ".Dataset")):
            held = _within_sequence(inner)
            if [*_inner(held)]:
                yield from ((f"{path}/{n}", replace(f, ragged=True)) for n, f in _flat(held, ""))
            else:
                yield path, replace(_feature(held), ragged=True)
        else:
            yield path, _feature(inner)


def _feature(said: Mapping[str, Any]) -> _Feature:
    old = str(said.get("type", "")).rsplit(".", 1)[-1]
    kind = str(said.get("pythonClassName", old)).rsplit(".", 1)[-1]
    facts = next((said[key] for key in ("tensor", "image", "text", "classLabel") if key in said), None)
    facts = (_content(said) if old else {}) if facts is None else facts
    shape = facts.get("shape") or ()
    known = tuple(
        int(n) if n is not None else -1 for n in (shape.get("dimensions", ()) if hasattr(shape, "get") else shape)
    )
    if kind == "Image":
        return _Feature(known, np.dtype(facts.get("dtype") or "uint8"), "picture")
    told = "string" if kind == "Text" else "int64" if kind == "ClassLabel" else str(facts.get("dtype"))
    if told in ("string", "object", "str"):
        return _Feature(known, None, "words" if not known else "none")
    try:
        dtype = np.dtype("float32" if told == "bfloat16" else told)
    except TypeError:
        return _Feature(known, None, "none")
    return _Feature(known, dtype, str(facts.get("encoding") or "none").lower())
