"""`pantok info STORE --layout NAME`: how many ids a second of experience becomes, and what a step looks like."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pantok.commands import common, phrases
from pantok.errors import StoreError

_LOOKED_AT = 64
"""Episodes, spread evenly over the store, from which the rates are taken."""


def show_layout(run: common.Run, path: Path, layout: str, episode: str | None) -> None:
    """Ids a second by track, level and kind; and the runs of ids of the first step. Ends the run."""
    from pantok.formats.store import Store
    from pantok.formats.store_columns import episode_columns
    from pantok.layout import KINDS, Arranged, Layout
    from pantok.layout_columns import Numbering

    store, chosen = Store.open(path), Layout.of(layout)
    if episode is not None and episode not in store:
        store.read(episode)  # says what there is
    if not len(store):
        raise StoreError(path, "holds no episodes", "encode some first")
    step = max(1, len(store) // _LOOKED_AT)
    names = [episode] if episode is not None else list(islice(store.episodes, 0, step * _LOOKED_AT, step))
    numbering = Numbering(chosen, store.vocabulary)
    counts: Counter[tuple[str, int, str]] = Counter()
    ids, duration_ns, first = 0, 0, None
    for name in names:
        arranged = Arranged(episode_columns(store, name, numbering), chosen, store.vocabulary, numbering)
        sequence = arranged.cut()
        ids += len(sequence)
        duration_ns += store.episodes[name].duration_ns
        key = (sequence.track.astype(np.int64) * 256 + sequence.level) * 256 + sequence.kind
        for value, n in zip(*np.unique(key, return_counts=True), strict=True):
            counts[_named(int(value), sequence.tracks, KINDS)] += int(n)
        if first is None:
            first = name, _runs(sequence, store.vocabulary.control("tick"), KINDS)
    assert first is not None
    seconds = duration_ns / 1e9
    rates: list[dict[str, Any]] = [
        {"track": track, "level": level, "kind": kind, "ids": n, "ids_per_second": n / seconds if seconds else None}
        for (track, level, kind), n in sorted(counts.items())
    ]
    rows = [[r["track"] or "-", str(r["level"]), r["kind"], str(r["ids"]), _figure(r["ids_per_second"])] for r in rates]
    each = ids / seconds if seconds else None
    some = f"{len(names)} of " if 1 < len(names) < len(store) else ""  # else the title would say what the store holds
    count = phrases.counted(len(store) if some else len(names), "episode")
    run.table(
        f"{path}, layout {layout}: {_figure(each)} ids a second, from {some}{count}, {phrases.human_seconds(seconds)}",
        ["track", "level", "kind", "ids", "ids/s"],
        rows,
    )
    name, runs = first
    run.table(
        f"the first step of {name}", ["ids", "track", "level", "kind"],
        [[str(r["ids"]), r["track"] or "-", str(r["level"]), r["kind"]] for r in runs],
    )  # fmt: skip
    run.end(
        {"store": str(path), "layout": layout, "episodes": len(names), "episodes_held": len(store),
         "seconds": seconds, "ids": ids, "ids_per_second": each, "rates": rates,
         "first_step": {"episode": name, "runs": runs}}
    )  # fmt: skip


def _named(key: int, tracks: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[str, int, str]:
    """(track, '' for none; level; kind)."""
    rest, kind = divmod(key, 256)
    track, level = divmod(rest, 256)
    return tracks[track] if track < len(tracks) else "", level, kinds[kind]


def _runs(sequence: Any, tick: int, kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Runs of like ids from the beginning to the second step."""
    ticks = np.flatnonzero(sequence.ids == tick)
    stop = int(ticks[1]) if len(ticks) > 1 else len(sequence)
    key = ((sequence.track.astype(np.int64) * 256 + sequence.level) * 256 + sequence.kind)[:stop]
    edges = np.flatnonzero(np.diff(key)) + 1
    starts = [0, *edges.tolist()]
    runs = []
    for start, end in zip(starts, [*starts[1:], stop], strict=True):
        track, level, kind = _named(int(key[start]), sequence.tracks, kinds)
        runs.append({"ids": end - start, "track": track, "level": level, "kind": kind})
    return runs


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
