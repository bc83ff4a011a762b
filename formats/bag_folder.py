"""A bag of ROS 2 that its recorder split into several files, as one log.

The folder has a `metadata.yaml` that lists them. Messages are put in the order of their times by who reads them, so the
order of the files decides nothing, and one that is damaged or missing costs what it held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from pantok.errors import InputError
from pantok.formats import bag_file, mcap_file
from pantok.formats.files import listed_bags
from pantok.formats.log_stream import Channel, Damage, Fetching, Message, Place


def messages(path: Path, wanted: Callable[[Channel], bool], damage: Damage) -> Iterator[Message]:
    """As of a file of a log; path: the folder, or a file. Raises InputError if none of its files can be read."""
    if not path.is_dir():
        yield from _reader(path).messages(path, wanted, damage)
        return
    failed: list[InputError] = []
    files = listed_bags(path)
    there = {number: file for number, file in enumerate(files) if file.is_file()}
    damage.ended = True
    damage.besides += [f"{f.name} is not there (the others are kept)" for n, f in enumerate(files) if n not in there]
    for number, file in there.items():
        own = Damage()
        try:
            for channel, log, publish, content, place in _reader(file).messages(file, wanted, own):
                yield channel, log, publish, content, Place(place.record, place.number, number)
        except InputError as error:
            failed.append(error)
            damage.besides.append(f"{file.name} {error.problem} (left out; the others are kept)")
        else:
            damage.besides += [f"{file.name}: {own.said()}"] if own.said() else []
    if failed and len(failed) == len(there):
        raise failed[0]


def fetched(path: Path) -> Fetching:
    """As of a file of a log; path: the folder, or a file. Raises InputError."""
    if path.is_dir():
        return _Fetched(path)
    found: Fetching = _reader(path).fetched(path)
    return found


class _Fetched:
    """Messages of several files, of which one is open at a time."""

    def __init__(self, path: Path) -> None:
        self._files = listed_bags(path)
        self._open: tuple[int, Fetching] | None = None

    def __enter__(self) -> _Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open[1].__exit__(*_)
            self._open = None

    def at(self, place: Place) -> bytes | None:
        """As of `Fetching`."""
        if self._open is None or self._open[0] != place.file:
            self.__exit__(None, None, None)
            file = self._files[place.file]
            self._open = place.file, _reader(file).fetched(file).__enter__()
        return self._open[1].at(place)


def _reader(path: Path) -> ModuleType:
    return bag_file if path.suffix.lower() in bag_file.SUFFIXES else mcap_file
