"""What a training job says to the loader: checked, and brought into the form that the loader works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pantok.errors import OptionError, StoreError
from pantok.evolve.lineage import unread
from pantok.layout import COLUMNS
from pantok.loader_source import Source
from pantok.vocabulary import Vocabulary

Stores = str | Path | Sequence[str | Path | tuple[str | Path, float]]
"""A store; several; or several with a weight each."""


def columns_of(names: Sequence[str] | None) -> tuple[str, ...]:
    """The columns that are wanted, all if None, in the order of COLUMNS. Raises OptionError.

    >>> columns_of(["kind", "ids"])
    ('ids', 'kind')
    """
    wanted = tuple(COLUMNS) if names is None else (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in COLUMNS:
            raise OptionError(f"loader columns {name}", "is none", f"known: {', '.join(COLUMNS)}")
    if not wanted:
        raise OptionError("loader columns", "names none", f"known: {', '.join(COLUMNS)}")
    return tuple(name for name in COLUMNS if name in wanted)


def batch_size_of(length: int, windows: int | None, tokens: int | None) -> int:
    """Windows of a batch: as many as said, or as `tokens` ids hold; 8 by default. Raises OptionError."""
    if windows is not None and tokens is not None:
        raise OptionError("loader", "batch_size and tokens exclude each other", "give one of them")
    size = (8 if windows is None else windows) if tokens is None else tokens // max(length, 1)
    if length < 2 or size < 1:
        given = f"batch_size {size}" if tokens is None else f"tokens {tokens}"
        raise OptionError("loader", f"length {length} and {given}", "at least 2, and at least one window")
    return size


def of_torchdata(state: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """(the state of the dataset, batches taken since) in a state of torchdata's StatefulDataLoader."""
    if "_snapshot" not in state:
        return dict(state["dataset_state"]), 0
    # Batches come from the workers by turns, so the job was where the foremost of them is.
    each = [worker["dataset_state"] for worker in state["_snapshot"]["_worker_snapshots"].values()]
    foremost = max(each, key=lambda one: (one["epoch"], one["window"]))
    return {k: v for k, v in foremost.items() if k != "turn"}, int(state["_steps_since_snapshot"])


def weighted(stores: Stores) -> list[tuple[str | Path, float | None]]:
    """(path, weight) of each store; either all have a weight or none has. Raises OptionError."""
    if isinstance(stores, (str, Path)):
        return [(stores, None)]
    pairs: list[tuple[str | Path, float | None]] = []
    for entry in stores:
        pairs.append((entry, None) if isinstance(entry, (str, Path)) else (entry[0], float(entry[1])))
    if not pairs:
        raise OptionError("loader stores", "names none", "give at least one")
    if len({weight is None for _, weight in pairs}) > 1:
        raise OptionError("loader stores", "some have a weight and some have none", "weigh all of them, or none")
    return pairs


def common_vocabulary(sources: Sequence[Source]) -> Vocabulary:
    """The vocabulary, of those of the stores, that reads all of them. Raises StoreError."""
    for source in sources:
        mine = source.own
        if all(mine.id == other.own.id or mine.reads(other.own) or not unread(mine, other.own) for other in sources):
            return mine
    ids = ", ".join(f"{source.path} {source.own.id[:12]}" for source in sources)
    raise StoreError(
        sources[0].path, f"is mixed with stores of other vocabularies, and none reads the others ({ids})",
        "encode them under one vocabulary, or give `vocabulary=` one that reads them all",
    )  # fmt: skip


def place_of(rank: int | None, world: int | None) -> tuple[int, int]:
    """(rank, world) as said, else torch.distributed's. Raises OptionError."""
    if (rank is None) != (world is None):
        raise OptionError("loader", "rank and world go together", "give both or neither")
    if rank is None or world is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise OptionError("loader rank", f"{rank} is not below {world}", "count from 0")
    return rank, world
