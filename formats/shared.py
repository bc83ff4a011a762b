"""Recordings that share files: LeRobot datasets (`lerobot`), HDF5 of many demonstrations (`hdf5`), replay buffers
(`replay`).

Each is a *part* with a name (`episode_000003`, `demo_3`), and an episode of its own: its id ends in that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.errors import InputError
from pantok.formats.files import Problems

if TYPE_CHECKING:
    from pantok.experience import Track
    from pantok.formats.lerobot_meta import Dataset

SUFFIXES = frozenset({".hdf5", ".h5", ".hdf", ".he5"})
"""Files that may hold several."""


def parts_of_folder(folder: Path, problems: Problems) -> Iterator[tuple[str, tuple[Path, ...]]] | None:
    """Name and files of each recording of a dataset; None if the folder is none.

    Raises InputError for a dataset that cannot be understood. problems: called with a line for what is left out.
    """
    from pantok.formats import lerobot_meta, replay

    if replay.is_buffer(folder):
        return ((name, (folder,)) for name in replay.parts_of(folder))
    dataset = lerobot_meta.open_dataset(folder) if lerobot_meta.is_dataset(folder) else None
    if dataset is None:
        return None
    for fault in dataset.faults:
        problems(fault)
    return ((name, episode.paths) for name, episode in dataset.episodes.items())


def parts_of_file(path: Path) -> tuple[str, ...]:
    """Names of the recordings in a file; ("",) if it is one, or cannot be read, which is said when it is."""
    from pantok.formats import hdf5, replay

    try:
        if path.suffix.lower() in SUFFIXES:
            return hdf5.parts_of(path)
        return replay.parts_of(path) if replay.is_buffer(path) else ("",)
    except InputError:
        return ("",)


def may_hold_several(path: Path) -> bool:
    """Whether it is a file, by its name, or a folder that is read like one, that may hold several."""
    from pantok.formats import replay

    return path.suffix.lower() in SUFFIXES or replay.is_buffer(path)


def part_again(episode: str, paths: Sequence[Path]) -> str:
    """Which part of `paths` the episode of that id was read from; "" if they are all its own."""
    words = episode.split("/")
    endings = ("/".join(words[k:]) for k in range(len(words)))
    return next((name for name in endings if _holds(paths[0], name)), "")


def _holds(path: Path, part: str) -> bool:
    from pantok.formats import hdf5, replay

    if path.suffix.lower() in SUFFIXES:
        return hdf5.holds(path, part)
    if replay.is_buffer(path):
        return replay.holds(path, part)
    dataset = _dataset_of(path)
    return dataset is not None and part in dataset.episodes


def read_part(
    path: Path, part: str, rules: Mapping[str, Any], problems: Problems, *, size: int | None, fps: Fraction | None
) -> list[Track]:
    """The tracks that one of its files holds of a part. Raises InputError."""
    from pantok.formats import hdf5, lerobot, replay

    if path.suffix.lower() in SUFFIXES:
        return hdf5.read_hdf5(path, part, rules, problems, size=size, fps=fps)
    if replay.is_buffer(path):
        return replay.read_buffer(path, part, rules, problems, size=size, fps=fps)
    dataset = _dataset_of(path)
    if dataset is None or part not in dataset.episodes:
        raise InputError(path, f"holds no {part}", "give the whole dataset")
    return lerobot.read_file(dataset, part, path, problems, size=size, fps=fps)


def _dataset_of(path: Path) -> Dataset | None:
    """The dataset that a file lies in."""
    from pantok.formats import lerobot_meta

    root = lerobot_meta.root_of(path.absolute())
    return lerobot_meta.open_dataset(root) if root is not None else None
