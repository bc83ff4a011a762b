"""How a token store comes to be: whole or not at all, on a disk and in object storage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pantok.errors import StoreError
from pantok.formats.addresses import address, is_remote
from pantok.formats.store_disk import mirror_at, publish, reason, staged, sweep_stages
from pantok.formats.store_manifest import FOLDER, commit_name
from pantok.formats.store_remote import mirror_of
from pantok.formats.store_root import may_replace, write_empty
from pantok.vocabulary import Vocabulary


def lay(path: str | Path, vocabulary: Vocabulary, force: bool) -> None:
    """Makes an empty store at `path`. force: in the place of a store that is there. Raises StoreError."""
    if is_remote(path):
        _lay_remote(path, vocabulary, force)
        return
    with appearing(Path(path), vocabulary, force):
        pass


@contextmanager
def appearing(path: Path, vocabulary: Vocabulary, force: bool) -> Iterator[Path]:
    """Where an empty store is staged, to be filled; when the block ends, it takes its place at `path`, whole. force: in
    that of a store that is there. Raises StoreError."""
    full = path.absolute()
    may_replace(path, force)
    try:
        full.parent.mkdir(parents=True, exist_ok=True)
        sweep_stages(full.parent, path.name)
        with staged(full.parent, path.name) as stage:
            write_empty(stage, vocabulary)
            yield stage
            publish(stage, full, replace=force)
    except FileExistsError as error:
        raise StoreError(path, "is there already", "--force replaces it, -o gives another name") from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(path, f"cannot be written: {reason(error)}", "free space or choose another -o") from error


def _lay_remote(path: str | Path, vocabulary: Vocabulary, force: bool) -> None:
    """The birth is put last, and only if there is none: who has put it has made the store."""
    if force:
        raise StoreError(address(path), "is not replaced in object storage", "remove it there, or rename -o")
    folder = mirror_of(path)
    if (folder / "zarr.json").exists():
        raise StoreError(address(path), "is there already", "-o gives another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged(folder.parent, folder.name) as stage:
        write_empty(stage, vocabulary)
        birth = (stage / FOLDER / commit_name(0)).read_bytes()
        (stage / FOLDER / commit_name(0)).unlink()
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stage, folder)
    mirror = mirror_at(folder)
    mirror.put(folder)
    if not mirror.put_if_absent(folder / FOLDER / commit_name(0), birth):
        raise StoreError(address(path), "is there already", "-o gives another name")
