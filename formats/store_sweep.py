"""Clearing up in a token store: what killed writers left, and what no reader needs any more.

What is unusual: what a killed writer had finished is not thrown away but listed, and so not encoded again. On a disk a
lock tells the dead from the living (`store_disk.StageLock`). Object storage has none: see `store_remote_sweep`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from pantok.formats.store_disk import StageLock, mirror_at, sweep_stages
from pantok.formats.store_index import FOLDER as INDEX
from pantok.formats.store_manifest import FOLDER, Manifest
from pantok.formats.store_remote_sweep import sweep
from pantok.formats.store_segment import is_intact, is_merged, manifest_entry

if TYPE_CHECKING:
    from pantok.formats.store import Store


def clear(store: Store, manifest: Manifest) -> None:
    """Before a first write: removes what killed writers staged, and lists what they had finished."""
    folder = store.path / "segments"
    sweep_stages(folder)
    sweep_stages(store.path / FOLDER)
    with suppress(FileNotFoundError):
        sweep_stages(store.path / FOLDER / INDEX)
    store.refresh()
    for name in sorted(os.listdir(folder)):
        if name in manifest.known or name == "zarr.json" or name.startswith("."):
            continue
        lock = StageLock.take(folder / name)
        if lock is None:
            continue
        try:
            store.refresh()
            if name in manifest.known or not (folder / name).is_dir():
                continue
            if is_intact(folder / name, store.vocabulary_ids) and not is_merged(folder / name):
                entry = manifest_entry(folder / name)
                if not any(row[0] in manifest.episodes for row in entry["episodes"]):
                    if (mirror := mirror_at(folder)) is not None:
                        mirror.put(folder / name)  # it may have died while it sent them
                    manifest.commit(add=[entry])
                    continue
            shutil.rmtree(folder / name, ignore_errors=True)
        finally:
            lock.close()
    with suppress(OSError):
        manifest.mend_rolls()


def remove_dead(store: Store, manifest: Manifest) -> list[str]:
    """Removes the segments that no live episode lies in; their names."""
    store.refresh()
    if (mirror := mirror_at(store.path)) is not None:
        return sweep(store, manifest, mirror)
    at, live, removed = manifest.number, manifest.segments, []
    for name in list(manifest.known):
        folder = store.path / "segments" / name
        lock = StageLock.take(folder) if name not in live else None
        if lock is None:
            continue
        try:
            store.refresh()  # under the lock: another writer may have listed it again
            if manifest.number != at:
                at, live = manifest.number, manifest.segments
            if name not in live:
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(name)
        finally:
            lock.close()
    return removed
