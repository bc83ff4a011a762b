"""What killed writers left of a store in object storage, and segments that no reader needs: found, and removed.

What is unusual: nothing tells a dead writer from a living one there but time. What stands in no commit and has not been
touched for a day (`store_disk.STALE_S`) is taken for dead; it is listed and asked for again right before it goes. A
writer that takes more than a day over one segment has to be told from this by nobody running `store compact` meanwhile.

    segments/<name>/            objects of a segment that no commit lists, or whose episodes have all been replaced
    vocabularies/.stage-<h>/    what `Mirror.put_whole` put aside: readers of a vocabulary whose writer died half-way
                                find its files there, so they are put in their place first
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pantok.formats import store_disk
from pantok.formats.store_manifest import Manifest
from pantok.formats.store_remote import Mirror, aside_of
from pantok.formats.store_vocabularies import folders
from pantok.formats.vocab import MANIFEST, read_manifest

if TYPE_CHECKING:
    from pantok.formats.store import Store

ASIDE = "vocabularies/.stage-"


def strays(mirror: Mirror, manifest: Manifest) -> Iterator[str]:
    """The folders (keys) of what stands in no commit: left by a killed writer, or being written. No object is read."""
    for key in mirror.folders("segments/"):
        if key.rpartition("/")[2] not in manifest.known:
            yield key
    placed = {aside for aside, _ in _asides(mirror)}
    yield from (key for key in mirror.folders("vocabularies/") if key.startswith(ASIDE) and key not in placed)


def sweep(store: Store, manifest: Manifest, mirror: Mirror) -> list[str]:
    """Removes what no live episode lies in and nobody has touched for a day; the names of its folders."""
    removed = []
    for key in mirror.folders("segments/"):
        name = key.rpartition("/")[2]
        if name in manifest.segments or not (objects := _idle(mirror, key)):
            continue
        store.refresh()  # another writer may have listed it again
        if name not in manifest.segments:
            # Without its COMMIT.json it is no segment, should this die half-way.
            mirror.delete(sorted(objects, key=lambda one: not one.endswith("/COMMIT.json")))
            shutil.rmtree(mirror.folder / key, ignore_errors=True)
            removed.append(name)
    placed = dict(_asides(mirror))
    for key in mirror.folders("vocabularies/"):
        if key.startswith(ASIDE) and (objects := _idle(mirror, key)):
            if key in placed:
                mirror.put_missing(mirror.folder / placed[key], read_manifest(mirror.folder / placed[key])["files"])
            mirror.delete(objects)
            removed.append(key.rpartition("/")[2])
    return removed


def _asides(mirror: Mirror) -> Iterator[tuple[str, str]]:
    """(where it was put aside, where it is) of each vocabulary after the first; all its files are in the mirror."""
    for folder in folders(mirror.folder)[1:]:
        key = folder.relative_to(mirror.folder).as_posix()
        yield aside_of(key, (folder / MANIFEST).read_bytes()), key


def _idle(mirror: Mirror, key: str) -> list[str]:
    """The objects below a folder, if none of them was touched within a day; else none."""
    objects = mirror.objects(f"{key}/")
    newest = max(objects.values(), default=0.0)
    return list(objects) if time.time() - newest >= store_disk.STALE_S else []
