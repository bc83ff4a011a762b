"""What `pantok vocab score` measures beside the n-gram: a trained world model's bits, and the error of decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.commands import common
from pantok.errors import VocabularyError

if TYPE_CHECKING:
    from pantok.evolve.distortion import Distortion
    from pantok.formats.store import Store
    from pantok.vocabulary import Vocabulary

EPISODES = 16
"""Of a store are decoded at most, evenly spread."""

Tick = Callable[[str, float], None]


def held_out_of(store: Store, folder: Path) -> tuple[str, ...]:
    """The episodes of the store that a run held out; none if it held out others. Raises StoreError for no run."""
    from pantok.formats.runs import RunFolder

    held = tuple(n for n in RunFolder(folder).config["held_out"] if n in store)
    return held if len(held) < len(store) else ()


def model_bits(
    folder: Path, path: Path, vocabulary: Vocabulary, episodes: Sequence[str], windows: int, tick: Tick
) -> dict[str, Any]:
    """What a trained world model needs for episodes of a store, as `measure` reports it.

    Raises VocabularyError if it was trained under another vocabulary than the one to be judged.
    """
    from pantok.commands.run_windows import RunWindows
    from pantok.formats.runs import RunFolder
    from pantok.world_model.measure import measure

    trained = RunFolder(folder).config["vocabulary_id"]
    if trained != vocabulary.id:
        raise VocabularyError(
            folder, f"was trained under vocabulary {trained[:12]}, not under {vocabulary.id[:12]}",
            f"score the vocabulary of the run, {folder / 'vocabulary'}, or train one under this",
        )  # fmt: skip
    mine = RunWindows.of(folder, path, vocabulary, episodes, windows, "best")
    found = measure(mine.model, mine.batches(lambda done: tick("bits of the model", done)))
    return {"run": str(folder), "episodes": list(episodes), **found.report(mine.rate(found.elements))}


def distortions(
    path: Path, vocabulary: Vocabulary, recordings: Path | None, seconds: float, tick: Tick
) -> tuple[Distortion, ...]:
    """The error of decoding the first `seconds` of episodes of a store under a vocabulary.

    recordings: where the recordings are; None to compare with the store's own decode. Raises InputError for one that
    is missing, VocabularyError if the vocabulary is not related to the store's.
    """
    import numpy as np

    from pantok.encode import Codec
    from pantok.evolve.distortion import Distortions, as_in_use
    from pantok.evolve.judge import beginning
    from pantok.evolve.objective import units_of
    from pantok.formats.store import Store

    store, found = Store.open(path), Distortions()
    own, now = Codec(store.vocabulary), Codec(vocabulary)
    names = list(store.episodes)
    names = [names[k] for k in np.unique(np.linspace(0, len(names) - 1, min(len(names), EPISODES)).astype(int))]
    for number, name in enumerate(names):
        stream = store.read(name)
        truths = None if recordings is None else common.recording_of(stream, recordings).tracks
        for track in stream.tracks.values():
            if track.modality == "text" or not track.clock.count:
                continue
            tick(f"{name} {track.name}", number / len(names))
            count = track.clock.span(None, track.clock.start_ns + round(seconds * 1e9))[1]
            kept = as_in_use(vocabulary, store.vocabulary, track)
            mine, later = (
                np.concatenate([b.values for b in c.tokenizer(track.modality).decode(t, start=0, stop=count)])
                for c, t in ((own, track), (now, kept))
            )
            if truths is None:
                truth = mine
            else:
                truth = beginning(truths[track.name], seconds + 1).read()[0][: len(mine)]
                mine, later = mine[: len(truth)], later[: len(truth)]
            units = units_of(track.modality, track.name, track.channels, truth[:1].size)
            seconds_of = len(truth) * track.clock.duration_ns / track.clock.count / 1e9
            found.add(track.modality, units, truth, mine, later, seconds_of)
    return found.found()
