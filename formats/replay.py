"""Replay buffers of Diffusion Policy and its kin, Zarr folders or `.zarr.zip`, as episodes.

A buffer is arrays of rows, `data/action`, `data/img`, in which episodes follow each other; `meta/episode_ends` says
where each ends. What lies in it is read as any table is (`tables`); pictures stay there until they are looked at.

Source of the layout: `diffusion_policy/common/replay_buffer.py` of real-stanford/diffusion_policy.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from pantok.errors import InputError
from pantok.experience import Track
from pantok.formats.files import Problems, unreadable
from pantok.formats.rows import Rows, stays_in_file
from pantok.formats.shared import EPISODE_ENDS
from pantok.formats.table_clock import RATE_NAMES
from pantok.formats.table_columns import Columns, tell_left
from pantok.formats.tables import tracks_of

_DATA = "data"
_DAMAGED = "is damaged, or compressed by a codec that is not there"


def parts_of(path: Path) -> tuple[str, ...]:
    """`episode_000000`, …: the names of the episodes. Raises InputError for what is no buffer."""
    return tuple(_spans(path))


def holds(path: Path, part: str) -> bool:
    return part in _spans(path)


def read_part(
    path: Path,
    part: str,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The tracks of one episode. Raises InputError for what cannot be read, or an unknown rate."""
    span = _spans(path).get(part)
    if span is None:
        raise InputError(path, f"holds no {part or 'episode'}", "check that it is whole")
    first, last = span
    columns = Columns(count=last - first, part=part, grouped=True)
    with _opened(path) as buffer:
        columns.facts = {name: value for name, value in buffer.attrs.items() if name in RATE_NAMES}
        for name, array in _arrays(path, buffer, columns.left):
            if array.shape[0] < last:
                columns.left[name] = f"has {array.shape[0]} rows, and the last episode ends at another"
                continue
            try:
                if stays_in_file(array.shape):
                    rows = Rows(lambda: _opened(path), f"{_DATA}/{name}", array, (first, last))
                    rows[:1]  # whether its codec is there
                    columns.numbers[name] = cast(np.ndarray, rows)
                else:
                    columns.add(name, np.asarray(array[first:last]))
            except Exception:  # as in `_opened`
                columns.left[name] = _DAMAGED
    tell_left(path, columns, problems)
    return tracks_of(path, columns, rules, problems, size=size, fps=fps)


def _arrays(path: Path, buffer: Any, left: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Name and array of what lies in `data`, by name; what cannot be opened goes to `left`, with the reason.

    Each is opened by itself: the library gives none of a group if it does not know the codec of one.
    """
    inside = _names(path, _mtime_ns(path))
    if not inside:
        raise InputError(path, f"has no {_DATA}", "copy or record it again")
    groups: set[str] = {""}
    for name in sorted(inside):
        below, _, last = name.rpartition("/")
        if below not in groups or last.startswith(".") or last == "zarr.json":
            continue
        try:
            item = buffer[f"{_DATA}/{name}"]
        except Exception:  # as in `_opened`
            left[name] = _DAMAGED
            continue
        if not hasattr(item, "shape"):
            groups.add(name)
        elif item.shape:
            yield name, item


@lru_cache(maxsize=64)
def _names(path: Path, mtime_ns: int) -> set[str]:
    """Of all folders below `data`, by their path in it."""
    if path.is_dir():
        top = path / _DATA
        return {Path(at, name).relative_to(top).as_posix() for at, names, _ in os.walk(top) for name in names}
    with zipfile.ZipFile(path) as archive:
        files = (PurePosixPath(name) for name in archive.namelist() if name.startswith(f"{_DATA}/"))
        return {above.relative_to(_DATA).as_posix() for file in files for above in file.parents if above.parts[1:]}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import zarr
    from zarr.storage import LocalStore, ZipStore

    try:
        store = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(path, mode="r", read_only=True)
        group = zarr.open_group(store, mode="r")
    except PermissionError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # zipfile, json and zarr raise their own kinds on damaged files
        raise InputError(path, "is not a Zarr group, or is damaged", "copy or record it again") from error
    try:
        yield group
    finally:
        store.close()


def _spans(path: Path) -> dict[str, tuple[int, int]]:
    return _spans_once(path, _mtime_ns(path))


def _mtime_ns(path: Path) -> int:
    try:
        return (path / EPISODE_ENDS if path.is_dir() else path).stat().st_mtime_ns
    except OSError as error:
        raise unreadable(path, error) from error


@lru_cache(maxsize=64)
def _spans_once(path: Path, mtime_ns: int) -> dict[str, tuple[int, int]]:
    """Where each episode begins and ends."""
    with _opened(path) as buffer:
        try:
            said = np.asarray(buffer[EPISODE_ENDS][:]).reshape(-1)
            with np.errstate(invalid="ignore"):
                ends = said.astype(np.int64)
        except Exception as error:  # as in `_opened`
            remedy = "it is no replay buffer: unpack it, or leave it out"
            raise InputError(path, f"has no {EPISODE_ENDS}", remedy) from error
    begins = np.concatenate([[0], ends[:-1]])
    if not len(ends) or (ends <= begins).any() or (ends != said).any():
        raise InputError(path, f"its {EPISODE_ENDS} do not rise", "record it again")
    pairs = zip(begins.tolist(), ends.tolist(), strict=True)
    return {f"episode_{number:06d}": pair for number, pair in enumerate(pairs)}
