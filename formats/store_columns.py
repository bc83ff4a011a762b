"""Episodes of a store as columns for the compiled loops of layouts, and how long each one's sequence is.

What is unusual: to know how many ids an episode has under a layout no code is read, only how many codes its ticks have.
What was found is kept in the store, `.cache/lengths-<hash>.npy`, by segment and row: segments never change, so an entry
is true for ever, and the next job begins at once. The cache may be removed at any time; where the store cannot be
written to there is none.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pantok.config import to_mapping
from pantok.formats.store_facts import canonical
from pantok.formats.store_manifest import EpisodeInfo
from pantok.formats.store_root import CACHE
from pantok.formats.store_segment import Segment
from pantok.layout_columns import Column, EpisodeColumns, Numbering, TrackColumns

if TYPE_CHECKING:
    from pantok.formats.store import Store
    from pantok.formats.store_laid import LaidEpisodes

_ENTRY = np.dtype([("key", "S16"), ("ids", "<i8")])
_WORTH_KEEPING = 64
"""Fewer episodes than this are looked at anew each time."""


def episode_columns(store: Store, episode: str, numbering: Numbering, codes: bool = True) -> EpisodeColumns:
    """The columns of what the layout keeps of an episode. codes: False leaves them out, but for how many they are.

    Raises StoreError for what is missing or damaged, OptionError for a level that a track does not have.
    """
    info = store.episodes[episode]
    segment, row = store.find(info)
    line = segment.line(row)
    kept = [facts for facts in line["tracks"] if numbering.layout.keeps(facts["track"])]
    words = [facts["track"] for facts in kept if segment.about(facts["folder"])["modality"] == "text"]
    spelled = []
    if words and numbering.respelling is not None:
        read = store.read(episode, words, check=False).tracks
        spelled = [numbering.respelling.track(read[name]) for name in words]
        kept = [facts for facts in kept if facts["track"] not in words]
    tracks = [_track(segment, facts, numbering, codes) for facts in kept]
    tracks += [TrackColumns.of(track, numbering.depth(track), False) for track in spelled]
    return EpisodeColumns(episode, tracks)


def _track(segment: Segment, facts: dict[str, Any], numbering: Numbering, with_codes: bool) -> TrackColumns:
    folder = f"tracks/{facts['folder']}"
    about = segment.about(facts["folder"])
    depth = numbering.depth_of(facts["track"], about["modality"], about["levels"])
    columns = []
    for k in range(depth):
        first, rows = facts["codes"][k]
        if with_codes and rows:
            array = segment.array(f"{folder}/codes_{k:02d}")
            segment.fits(array, first, rows)
            pieces, offset, chunk_rows = array.pieces(first, first + rows)
            held = 0 if array.is_mapped else rows * array.dtype.itemsize
            columns.append(Column(tuple(pieces), rows, offset, chunk_rows, held))
        else:
            columns.append(Column((), rows))
    spread = [(level.get("column", -1), level.get("count", 0)) for level in about["levels"][:depth]]
    latents, latent_spread, latent_rows = None, (-1, 0), 0
    if numbering.layout.latents and facts["latents"] is not None:
        begin, latent_rows = facts["latents"]
        latent_spread = (about["latents"].get("column", -1), about["latents"].get("count", 0))
        latents = _latents(segment, f"{folder}/latents", begin)
    counts = None
    if any(column >= 0 for column, _ in [*spread, latent_spread]):
        first, ticks = facts["ticks"]
        counts = segment.array(f"{folder}/counts").read(first, first + ticks, check=False)
    return TrackColumns(
        facts["track"], about["modality"], segment.clock(facts, False), facts["tick"], tuple(columns), counts,
        tuple(spread), latents, latent_spread, latent_rows,
    )  # fmt: skip


def _latents(segment: Segment, name: str, begin: int) -> Callable[[int, int], np.ndarray]:
    return lambda first, last: segment.array(name).read(begin + first, begin + last, check=False)


def lengths(
    store: Store, episodes: Sequence[str], numbering: Numbering, kept: LaidEpisodes | None = None
) -> np.ndarray:
    """int64 (E,): ids of each episode's sequence. kept: knows some, and may lay out and keep what it does not have yet.

    Raises as `episode_columns` does."""
    from pantok.layout_composed import Composed, arranged

    if kept is not None:
        found = kept.lengths(episodes)
        lacking = [episodes[k] for k in np.flatnonzero(found < 0).tolist()]
        if lacking and kept.keeps:
            kept.keep(lacking)
            found = kept.lengths(episodes)
            lacking = [episodes[k] for k in np.flatnonzero(found < 0).tolist()]
        if lacking:  # there was no room, or nobody asked for it
            found[found < 0] = lengths(store, lacking, numbering)
        return found

    composes = numbering.compositions is not None  # then the codes themselves say how many ids there are
    infos = [store.episodes[episode] for episode in episodes]
    path = store.path / CACHE / f"lengths-{cache_name(store, numbering)}.npy"
    known = _load(path) if len(infos) >= _WORTH_KEEPING else np.zeros(0, _ENTRY)
    keys = np.array([key_of(info) for info in infos], "S16")
    found = np.full(len(infos), -1, np.int64)
    if len(known):
        at = np.minimum(np.searchsorted(known["key"], keys), len(known) - 1)
        found = np.where(known["key"][at] == keys, known["ids"][at], -1)
    missing = np.flatnonzero(found < 0)
    for k in sorted(missing.tolist(), key=lambda k: (infos[k].segment, infos[k].row)):
        columns = episode_columns(store, infos[k].id, numbering, codes=composes)
        sequence = arranged(columns, numbering)
        found[k] = len(sequence)
        if isinstance(sequence, Composed):  # it has looked at every id: once is enough
            numbering.spans[infos[k].segment, infos[k].row] = sequence.spans
    if len(missing) >= _WORTH_KEEPING:
        new = np.empty(len(missing), _ENTRY)
        new["key"], new["ids"] = keys[missing], found[missing]
        _save(path, np.concatenate([known, new]))
    return found


def cache_name(store: Store, numbering: Numbering) -> str:
    """Of all that decides what ids an episode of the store has: 24 hexadecimal digits."""
    said = [1, store.vocabulary_id, numbering.vocabulary.id, to_mapping(numbering.layout)]
    said += ["in use"] if numbering.in_use else []
    return hashlib.sha256(canonical(said)).hexdigest()[:24]


def key_of(info: EpisodeInfo) -> bytes:
    """What an episode is known by for ever."""
    # 15 bytes: numpy drops a zero at the end, which the sixteenth never is.
    return hashlib.sha256(f"{info.segment}/{info.row}".encode()).digest()[:15] + b"."


def _load(path: Path) -> np.ndarray:
    with suppress(OSError, ValueError, EOFError):
        known = np.load(path, mmap_mode="r", allow_pickle=False)
        if known.dtype == _ENTRY and known.ndim == 1:
            return known
    return np.zeros(0, _ENTRY)


def _save(path: Path, entries: np.ndarray) -> None:
    """Puts the table there whole, or not at all. Two jobs that do so at once lose nothing but time."""
    entries = entries[np.unique(entries["key"], return_index=True)[1]]
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, entries)
            os.chmod(name, path.parent.stat().st_mode & 0o666)  # who may read the store may read it
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
