"""The vocabularies of a store's segments: the one that the store was made with, and those that grew out of it.

What is unusual: a store may change its vocabulary, for nothing that it holds changes by it. Codes of a vocabulary mean
the same in all that grew out of it (`Vocabulary.reads`), so segments of successive vocabularies are read as one under
the newest. A vocabulary is put there whole, forced to the disk and given the next number, before a segment is written
under it; a segment never names one that is not there. Whoever loses the race for a number has to look at the winner's.

    vocabulary/             the first: see `store_root`
    vocabularies/0001/      the second, a vocabulary directory as any other; its lineage says how it came about
    vocabularies/0002/      ...

In object storage nothing can be renamed: see `store_remote.Mirror.put_whole`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pantok.errors import StoreError, VocabularyError
from pantok.formats.store_disk import mirror_at, present, publish, reason, staged, sweep_stages
from pantok.formats.vocab import MANIFEST, load_vocabulary, read_lineage, read_manifest, write_vocabulary
from pantok.vocabulary import Vocabulary

FOLDER = "vocabularies"
FIRST = "vocabulary"


def folders(store: Path) -> list[Path]:
    """The directories of a store's vocabularies, the oldest first. Raises StoreError if one is missing."""
    if mirror_at(store) is not None:
        number = 1
        while _fetched(store / FOLDER / f"{number:04d}"):
            number += 1
    numbers = sorted(int(name) for name in _names(store) if name.isdecimal())
    for wanted, number in enumerate(numbers, 1):
        if wanted != number:
            raise StoreError(store / FOLDER / f"{wanted:04d}", "is missing", "restore it from a copy")
    return [store / FIRST, *(store / FOLDER / f"{number:04d}" for number in numbers)]


def _fetched(folder: Path) -> bool:
    """Whether a store in object storage has a vocabulary of this number; then it is in the mirror."""
    if not present(folder / MANIFEST):
        return False
    for name in read_manifest(folder)["files"]:
        if not present(folder / name):
            raise StoreError(folder / name, "is missing", "restore it from a copy")
    return True


def ids(store: Path, first: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The ids of a store's vocabularies, the oldest first. first: of the one that it was made with.

    known: those that have been read before. Raises StoreError, VocabularyError.
    """
    found = folders(store)
    here = (known or (first,))[: len(found)]
    return here + tuple(read_manifest(folder)["vocabulary_id"] for folder in found[len(here) :])


def newest_folder(store: Path) -> Path:
    """Where the vocabulary lies under which a store is read and written."""
    return folders(store)[-1]


def lines_of(store: Path) -> list[dict[str, Any]]:
    """The lineage of a store's newest vocabulary."""
    return read_lineage(newest_folder(store))


def add(store: Path, vocabulary: Vocabulary, lineage: Iterable[Mapping[str, Any]], number: int) -> bool:
    """Puts a vocabulary there as the `number`th after the first; False if another writer was quicker.

    Raises StoreError if the disk refuses.
    """
    parent, mirror = store / FOLDER, mirror_at(store)
    try:
        parent.mkdir(exist_ok=True)
        sweep_stages(parent)
        with staged(parent, f"{number:04d}") as stage:
            write_vocabulary(vocabulary, stage, lineage)
            if mirror is not None and not mirror.put_whole(stage, parent / f"{number:04d}", MANIFEST):
                return False
            publish(stage, parent / f"{number:04d}", replace=False)
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(
            parent, f"cannot be written: {reason(error)}", "what was committed stays; free space and run again"
        ) from error
    return True


def copy(store: Path, to: Path) -> None:
    """Writes all but the first vocabulary of a store into another, as they are."""
    for number, folder in enumerate(folders(store)[1:], 1):
        add(to, load_vocabulary(folder), read_lineage(folder), number)


def faults(store: Path) -> Iterator[tuple[Path, str]]:
    """(path, what is wrong) with the vocabularies after the first: each file compared, each read and related."""
    try:
        found = folders(store)[1:]
    except StoreError as error:
        yield Path(str(error.thing)), error.problem
        found = [store / FOLDER / name for name in sorted(_names(store)) if name.isdecimal()]
    before: Vocabulary | None = None
    with suppress(VocabularyError):
        before = load_vocabulary(store / FIRST)
    for folder in found:
        try:
            files = {MANIFEST, *read_manifest(folder)["files"]}
            now = load_vocabulary(folder)
            read_lineage(folder)
        except VocabularyError as error:
            yield Path(str(error.thing)), error.problem
            before = None
            continue
        if before is not None and not now.reads(before):
            yield folder, f"vocabulary {now.id[:12]} did not grow out of {before.id[:12]}"
        before = now
        for inner, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(inner) / name
                if str(path.relative_to(folder)) not in files:
                    yield path, "does not belong to the store"


def strays(store: Path) -> list[Path]:
    """What else lies beside them: what a killed writer left staged begins with a dot."""
    return [store / FOLDER / name for name in sorted(_names(store)) if not name.isdecimal()]


def _names(store: Path) -> list[str]:
    try:
        return os.listdir(store / FOLDER)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(store / FOLDER, f"cannot be read: {reason(error)}", "check its permissions") from error
