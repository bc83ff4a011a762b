"""Recordings that share files: LeRobot datasets (`lerobot`), HDF5 of many demonstrations (`hdf5`), replay buffers
(`replay`), RLDS datasets (`rlds`).

Each is a *part* with a name (`episode_000003`, `demo_3`), and an episode of its own: its id ends in that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pantok.errors import InputError
from pantok.formats.files import Problems

if TYPE_CHECKING:
    from pantok.experience import Track
    from pantok.formats.lerobot_meta import Dataset

SUFFIXES = frozenset({".hdf5", ".h5", ".hdf", ".he5"})
"""Files that may hold several."""
DATASET_INFO, EPISODE_ENDS = "meta/info.json", "meta/episode_ends"
"""What tells a LeRobot dataset, and a replay buffer."""
SHARDED_FACTS, SHARDED_FEATURES = "dataset_info.json", "features.json"
"""What tells a dataset of TensorFlow Datasets."""
SHARD = re.compile(r"(?:.*-)?([^-]+)\.tfrecord-(\d{5})-of-(\d{5})")
"""Names of its files: the split, the number of the shard, how many there are."""


# Asked of every folder: by names alone, without the libraries that read them.
def is_dataset(folder: str | Path) -> bool:
    """Whether a folder may be a LeRobot dataset."""
    return os.path.isfile(os.path.join(folder, DATASET_INFO))


def is_buffer(path: str | Path) -> bool:
    """Whether a folder, or a file by its name, is a replay buffer."""
    if os.path.isdir(path):
        ends = os.path.join(path, EPISODE_ENDS)
        return any(os.path.exists(os.path.join(ends, name)) for name in (".zarray", "zarr.json"))
    return str(path).lower().endswith(".zarr.zip")


def is_sharded(folder: str | Path) -> bool:
    """Whether a folder is a dataset of TensorFlow Datasets."""
    return all(os.path.isfile(os.path.join(folder, name)) for name in (SHARDED_FACTS, SHARDED_FEATURES))


def parts_of_folder(folder: Path, problems: Problems) -> Iterator[tuple[str, tuple[Path, ...]]] | None:
    """Name and files of each recording of a dataset; None if the folder is none.

    Raises InputError for a dataset that cannot be understood. problems: called with a line for what is left out.
    """
    if is_buffer(folder):
        from pantok.formats import replay

        return ((name, (folder,)) for name in replay.parts_of(folder))
    if is_sharded(folder):
        from pantok.formats import rlds

        return rlds.parts_of_folder(folder, problems)
    if not is_dataset(folder):
        return None
    from pantok.formats import lerobot_meta

    dataset = lerobot_meta.open_dataset(folder)
    if dataset is None:
        return None
    for fault in dataset.faults:
        problems(fault)
    return ((name, episode.paths) for name, episode in dataset.episodes.items())


def parts_of_file(path: Path) -> tuple[str, ...]:
    """Names of the recordings in a file; ("",) if it is one, or cannot be read, which is said when it is."""
    reader = _reader_of(path)
    try:
        return ("",) if reader is None else reader.parts_of(path)
    except InputError:
        return ("",)


def may_hold_several(path: Path) -> bool:
    """Whether it is a file, by its name, or a folder that is read like one, that may hold several."""
    return _kind_of(path) is not None


def is_shard(path: Path) -> bool:
    """Whether a file is one of an RLDS dataset, by its name."""
    return bool(SHARD.fullmatch(path.name))


def part_again(episode: str, paths: Sequence[Path]) -> str:
    """Which part of `paths` the episode of that id was read from; "" if they are all its own."""
    words = episode.split("/")
    endings = ("/".join(words[k:]) for k in range(len(words)))
    return next((name for name in endings if _holds(paths[0], name)), "")


class _Reader(Protocol):
    """A module that reads files which hold several recordings."""

    def parts_of(self, path: Path) -> tuple[str, ...]: ...

    def holds(self, path: Path, part: str) -> bool: ...

    def read_part(
        self,
        path: Path,
        part: str,
        rules: Mapping[str, Any],
        problems: Problems,
        *,
        size: int | None = None,
        fps: Fraction | None = None,
    ) -> list[Track]: ...


def _kind_of(path: Path) -> str | None:
    """The module that reads what a file, or a folder that is read like one, holds several of; None if it is neither."""
    if path.suffix.lower() in SUFFIXES:
        return "hdf5"
    if is_shard(path):
        return "rlds"
    return "replay" if is_buffer(path) else None


def _reader_of(path: Path) -> _Reader | None:
    kind = _kind_of(path)
    return None if kind is None else cast(_Reader, import_module(f"pantok.formats.{kind}"))


def _holds(path: Path, part: str) -> bool:
    if reader := _reader_of(path):
        return reader.holds(path, part)
    dataset = _dataset_of(path)
    return dataset is not None and part in dataset.episodes


def read_part(
    path: Path, part: str, rules: Mapping[str, Any], problems: Problems, *, size: int | None, fps: Fraction | None
) -> list[Track]:
    """The tracks that one of its files holds of a part. Raises InputError."""
    if reader := _reader_of(path):
        return reader.read_part(path, part, rules, problems, size=size, fps=fps)
    from pantok.formats import lerobot

    dataset = _dataset_of(path)
    if dataset is None or part not in dataset.episodes:
        raise InputError(path, f"holds no {part}", "give the whole dataset")
    return lerobot.read_file(dataset, part, path, problems, size=size, fps=fps)


def _dataset_of(path: Path) -> Dataset | None:
    """The dataset that a file lies in."""
    from pantok.formats import lerobot_meta

    root = lerobot_meta.root_of(path.absolute())
    return lerobot_meta.open_dataset(root) if root is not None else None
