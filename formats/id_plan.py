"""Windows of ids as places in the files of a store: a trainer maps the store itself, and no code goes through the pipe.

What is unusual: the plan is enough. Its first line says which files' codes are which ids; each later line, for a
window, where the codes of every column lie in which file and where in the window they go, and the ids that stand in no
file (markers). Ten lines in any language follow it (`tests/test_stream_plan.py` has them in numpy).

    {"plan": 1, "store", "vocabulary_id", "ids", "length", "pad", "columns": [column, ...]}
        column: {"track", "level", "modality", "dtype", "first"}, or "table" in the place of first: the id of code c is
        first + c, or table[c]
    {"epoch", "window", "resume", "documents": [document, ...]}
        document: {"episode", "span": [place, place after], "codes": [codes, ...], "fixed": [[place, id, count], ...]}
        codes: {"column", "runs": [[file, byte offset, codes], ...], "places": [[place, codes], ...]}

Codes of the runs, one after another, go to the places, one after another. What no document's span holds is padding.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns
from pantok.formats.store_segment import Segment
from pantok.layout import KINDS, Arranged, Layout
from pantok.layout_columns import Numbering
from pantok.stream import smallest_dtype
from pantok.vocabulary import Vocabulary

_NO_CODE = tuple(KINDS.index(kind) for kind in ("control", "latent"))
_OPEN = 64


class Planner:
    """Says where the windows of a store's episodes lie. Raises StoreError for a packed store."""

    def __init__(self, path: str | Path, layout: Layout, vocabulary: Vocabulary, in_use: bool = False) -> None:
        self.store = Store.open(path, vocabulary)
        self._vocabulary = vocabulary
        self._numbering = Numbering(layout, vocabulary, in_use).of_codes(self.store.vocabulary)
        self._columns: dict[tuple[str, int, str], int] = {}
        self._listed: list[dict[str, Any]] = []
        self._open: OrderedDict[str, _Episode] = OrderedDict()
        if layout.latents:
            raise StoreError(path, "has no plan with latents", "choose a layout without them, or --format arrow")
        for name, track in sorted(self.store.sizes_by_track().items()):
            if layout.keeps(name):
                if track.modality == "text" and self._numbering.respelling is not None:
                    raise StoreError(
                        path, "holds text of another text model, and a plan names codes as they lie",
                        "choose --format arrow, or a layout without text",
                    )  # fmt: skip
                for level in range(self._numbering.depth_of(name, track.modality, track.codes)):
                    for dtype in self._dtypes(track.modality, level):
                        self._columns[name, level, dtype] = len(self._listed)
                        self._listed.append(self._column(name, track.modality, level, dtype))

    def _dtypes(self, modality: str, level: int) -> list[str]:
        """Of a level's codes in the files: more than one if it grew over 255 or 65,535 codes."""
        versions = [v for v in map(self.store.version, self.store.vocabulary_ids) if modality in v.states]
        sizes = [v.levels(modality)[level].cardinality for v in versions]
        return list(dict.fromkeys(smallest_dtype(n).newbyteorder("<").str for n in sizes))

    def _column(self, track: str, modality: str, level: int, dtype: str) -> dict[str, Any]:
        table = self._numbering.table(modality, level)
        ids = {"first": int(table[0])} if (np.diff(table) == 1).all() else {"table": table.tolist()}
        return {"track": track, "level": level, "modality": modality, "dtype": dtype, **ids}

    def head(self, length: int) -> dict[str, Any]:
        """The first line."""
        v = self._vocabulary
        about = {"vocabulary_id": v.id, "ids": v.size, "length": length, "pad": v.control("pad")}
        return {"plan": 1, "store": str(self.store.path), **about, "columns": self._listed}

    def document(self, episode: str, start: int, stop: int, at: int) -> dict[str, Any]:
        """Where the ids [start, stop) of an episode's sequence lie, which go to the place `at` of a window."""
        found = self._open.get(episode)
        if found is None:
            found = self._open[episode] = _Episode(self.store, episode, self._numbering)
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(episode)
        codes, fixed = found.places(start, stop, at)
        listed = [
            {"column": self._columns[track, level, found.dtype(track, level)], "runs": runs, "places": places}
            for track, level, runs, places in codes
        ]
        return {"episode": episode, "span": [at, at + stop - start], "codes": listed, "fixed": fixed}


class _Episode:
    def __init__(self, store: Store, episode: str, numbering: Numbering) -> None:
        columns = episode_columns(store, episode, numbering)
        self._arranged = Arranged(columns, numbering.layout, numbering.vocabulary, numbering)
        self._units = self._arranged.units()
        self._segment, row = store.find(store.episodes[episode])
        self._root = store.path
        self._lines = {facts["track"]: facts for facts in self._segment.line(row)["tracks"]}
        self._splits: dict[tuple[str, int], np.ndarray] = {}

    def places(self, start: int, stop: int, at: int) -> tuple[list[tuple[str, int, Any, Any]], list[list[int]]]:
        """(track, level, runs, places) of all columns; (place, id, count) of what is in none."""
        # From the beginning of the unit that the window begins in, so that codes can be counted within units.
        unit = max(int(np.searchsorted(self._units[:, 3], start, "right")) - 1, 0)
        begin = min(start, int(self._units[unit, 3])) if len(self._units) else start
        cut = self._arranged.cut(begin, stop)
        place = np.arange(begin, stop)
        is_code = ~np.isin(cut.kind, _NO_CODE)
        key = cut.track.astype(np.int64) * 256 + cut.level
        codes = []
        for number in np.unique(key[is_code]).tolist():
            track, level = self._arranged.tracks[number // 256], number % 256
            mine = place[is_code & (key == number)]
            units = np.searchsorted(self._units[:, 3], mine, "right") - 1
            within = np.arange(len(mine)) - np.searchsorted(units, units, "left")
            rows = self._first(track, level)[self._units[units, 1]] + within
            rows, mine = rows[mine >= start], mine[mine >= start]
            if len(mine):
                runs = [run for first, n in _runs(rows) for run in self._bytes(track, level, first, n)]
                codes.append((track, level, runs, [[a + at - start, n] for a, n in _runs(mine)]))
        other = ~is_code & (place >= start)
        edges = np.flatnonzero((np.diff(place[other]) != 1) | (np.diff(cut.ids[other].astype(np.int64)) != 0)) + 1
        fixed = [
            [int(p[0]) + at - start, int(i[0]), len(p)]
            for p, i in zip(np.split(place[other], edges), np.split(cut.ids[other], edges), strict=True)
            if len(p)
        ]
        return codes, fixed

    def _first(self, track: str, level: int) -> np.ndarray:
        """The row of the array in which each tick's codes begin."""
        key = (track, level)
        if key not in self._splits:
            facts = self._lines[track]
            spread = self._segment.about(facts["folder"])["levels"][level]
            self._splits[key] = facts["codes"][level][0] + self._segment.splits(facts, spread, check=False)
        return self._splits[key]

    def dtype(self, track: str, level: int) -> str:
        """Of a level's codes in this episode's files."""
        return str(_array(self._segment, self._lines[track]["folder"], level).dtype.newbyteorder("<").str)

    def _bytes(self, track: str, level: int, first: int, count: int) -> Iterator[list[Any]]:
        array = _array(self._segment, self._lines[track]["folder"], level)
        yield from ([str(file.relative_to(self._root)), at, n] for file, at, n in array.runs(first, first + count))


def _array(segment: Segment, folder: str, level: int) -> Any:
    return segment.array(f"tracks/{folder}/codes_{level:02d}")


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Consecutive integers as (first, count)."""
    edges = np.flatnonzero(np.diff(values) != 1) + 1
    starts = np.concatenate([[0], edges])
    counts = np.diff(np.concatenate([starts, [len(values)]]))
    return list(zip(values[starts].tolist(), counts.tolist(), strict=True))


def write(planner: Planner, windows: Iterator[Mapping[str, Any]], out: BinaryIO, length: int) -> None:
    """Writes the head and a line a window. Each: epoch, window, resume, and parts [(episode, start, stop), ...]."""
    out.write(_line(planner.head(length)))
    for window in windows:
        documents, at = [], 0
        for episode, start, stop in window["parts"]:
            documents.append(planner.document(episode, start, stop, at))
            at += stop - start
        facts = {name: window[name] for name in ("epoch", "window", "resume")}
        out.write(_line({**facts, "documents": documents}))
        out.flush()


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
