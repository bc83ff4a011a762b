"""Recordings that share files: LeRobot datasets (`lerobot`), HDF5 files of many demonstrations (`hdf5`).

Each is a *part* with a name (`episode_000003`, `demo_3`), and an episode of its own: its id ends in that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pantok.errors import InputError
from pantok.formats.files import Problems

if TYPE_CHECKING:
    from pantok.experience import Track


def parts_of_folder(folder: Path) -> Iterator[tuple[str, tuple[Path, ...]]] | None:
    """Name and files of each recording of a dataset; None if the folder is none.

    Raises InputError for a dataset that cannot be understood.
    """
    from pantok.formats import lerobot

    dataset = lerobot.open_dataset(folder) if lerobot.is_dataset(folder) else None
    if dataset is None:
        return None
    return ((name, episode.paths) for name, episode in dataset.episodes.items())


def part_again(episode: str, paths: Sequence[Path]) -> str:
    """Which part of `paths` the episode of that id was read from; "" if they are all its own."""
    from pantok.formats import lerobot

    root = lerobot.root_of(paths[0].absolute())
    dataset = lerobot.open_dataset(root) if root is not None else None
    if dataset is None:
        return ""
    words = episode.split("/")
    endings = ("/".join(words[k:]) for k in range(len(words)))
    return next((name for name in endings if name in dataset.episodes), "")


def read_part(path: Path, part: str, problems: Problems, *, size: int | None, fps: Fraction | None) -> list[Track]:
    """The tracks that one of its files holds of a part. Raises InputError."""
    from pantok.formats import lerobot

    root = lerobot.root_of(path.absolute())
    dataset = lerobot.open_dataset(root) if root is not None else None
    if dataset is None or part not in dataset.episodes:
        raise InputError(path, f"holds no {part}", "give the whole dataset")
    return lerobot.read_file(dataset, part, path, problems, size=size, fps=fps)
