"""A folder of numbered pictures as one film, as cameras, simulators and datasets write them frame by frame.

What is unusual: only a folder of which `episode.toml`, beside it, says when its pictures were taken is a film, by
`rate_hz` or by `time = "name"`; pictures without times are photographs, each a recording by itself. Nothing is opened
but the first picture until the film is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, overload

import numpy as np

from pantok.errors import InputError
from pantok.experience import Clock, Track
from pantok.formats.dates import moved
from pantok.formats.files import Problems, numbered_pictures
from pantok.formats.images import decoded, encoded_track
from pantok.formats.table_clock import UNIT_NS, clock_of_column, offset_of, rate_of

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def read_pictures(
    path: Path,
    rules: Mapping[str, Any],
    problems: Problems,
    *,
    size: int | None = None,
    fps: Fraction | None = None,
) -> list[Track]:
    """The film that a folder is. size, fps: as of `container.read_container`.

    Pictures are put in the order of the numbers in their names (`9.png` before `10.png`); those that do not decode are
    left out, and `problems` is told. Raises InputError where they are of several series, where the unit of their times
    is unknown or they stand still, and if the first cannot be decoded.
    """
    pictures = numbered_pictures(path)
    series = sorted({_NUMBER.sub("#", picture.stem) for picture in pictures})
    if len(series) > 1:
        what = f"holds pictures of several series ({series[0]}, {series[1]})"
        raise InputError(path, what, "put each into a folder of its own")
    cells = _Cells(pictures)
    if decoded(cells[0]) is None:
        raise InputError(pictures[0], "cannot be decoded", "copy it again, or write it as PNG or JPEG")
    track = encoded_track(
        "video", cells=cells, clock=_clock(path, pictures, rules), size=size, fps=fps,
        problems=lambda line: problems(f"{path} {line}"),
    )  # fmt: skip
    return [moved(track, offset_of(rules))]


def _clock(path: Path, pictures: Sequence[Path], rules: Mapping[str, Any]) -> Clock:
    """By their rate, if it is told, or by their names."""
    rate = rate_of(path, rules)
    if rate is not None:
        return Clock.regular(rate, len(pictures))
    said = [(_NUMBER.findall(picture.stem) or [""])[-1] for picture in pictures]
    if "" in said:
        raise InputError(pictures[said.index("")], "has no number in its name", "give rate_hz in episode.toml instead")
    unit = rules.get("unit")
    if any("." in text for text in said):  # seconds, as TUM has them; exact, for a float would round a date
        scale = UNIT_NS[unit or "s"]
        return clock_of_column(path, "name", np.array([int(Fraction(text) * scale) for text in said]), "ns")
    if max(map(int, said)) >= 1 << 62:
        raise InputError(path, f"its pictures are called {max(said)}, which is no time", "give rate_hz instead")
    return clock_of_column(path, "name", np.array([int(text) for text in said]), unit)


class _Cells(Sequence[bytes]):
    """What files hold, one after another, as it is asked for; nothing of one that has gone."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> _Cells: ...
    def __getitem__(self, at: int | slice) -> bytes | _Cells:
        if isinstance(at, slice):
            return _Cells(self._paths[at])
        try:
            return self._paths[at].read_bytes()
        except OSError:
            return b""
