"""`pantok decode --to lerobot`: the episodes of a store as one LeRobot dataset.

A dataset has rows of one rate, and the same features in every episode. A row is an instant of the first camera (of the
actions where there is none); of what was recorded on another clock it holds the last sample before, or the first.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pantok.commands import common
from pantok.commands.decode_part import Decoding
from pantok.errors import InputError, OptionError, OutputError, PantokError
from pantok.experience import NS, Block, Clock

if TYPE_CHECKING:
    from pantok.formats.lerobot_out import DatasetWriter
    from pantok.formats.media_out import Signal
    from pantok.formats.store import Store
    from pantok.stream import TokenStream, TrackTokens

_OUTCOMES = ("done", "success", "terminated", "truncated")
"""Channels of flags that LeRobot has under names of their own."""
_TASKS = ("text.task", "text.language_instruction", "text")
_REFERENCES = ("video", "action", "proprio")


@dataclass(frozen=True)
class Feature:
    """One column of the dataset, or one camera. channel: of the track, where it is one alone."""

    track: str
    shape: tuple[object, ...]
    """Of a camera (height, width, matrix, range), of numbers (dtype, names of channels)."""
    channel: int | None = None


def write_dataset(
    run: common.Run,
    store: Store,
    wanted: Sequence[str],
    names: Sequence[str],
    part: Decoding,
    folder: Path,
    *,
    rate: Fraction | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Writes the episodes as one dataset; those that cannot be a part of it are problem lines.

    rate: rows a second; that of the first camera, or of the actions, if None. Raises OptionError if that is not the
    same in all of them, or if something else than a dataset is in the place of one.
    """
    from pantok.formats.lerobot_out import DatasetWriter

    place = Path(os.path.abspath(folder))
    if place == Path.cwd():
        raise OptionError("-o", "is the folder that you are in", "name one below it")
    common.refuse_existing(folder, dry_run or (force and _may_replace(folder)))

    def read(name: str) -> TokenStream:
        return store.read(name, [t for t in store.episodes[name].tracks if t in names])

    told: dict[str, str] = {}  # episode -> the track whose instants are its rows
    rates: set[Fraction | None] = set()
    found: list[dict[str, Feature]] = []
    homeless: set[str] = set()
    for name in wanted:
        try:
            stream = read(name)
        except (OptionError, OutputError):
            raise
        except PantokError as error:
            run.problem(error)
            continue
        reference = _reference(stream, part)
        if reference is None:
            run.problem(f"{name}: has no camera, no actions and no numbers in that range (left out)")
            continue
        told[name] = reference.name
        rates.add(part.clock(reference).rate)
        found.append(_features(stream, part))
        said = _said_by(stream)
        homeless |= {t.name for t in stream.tracks.values() if t.modality in ("audio", "text")} - {said and said.name}
    if not told:
        raise InputError(store.path, "holds no episode for a dataset", "see the lines above")
    rate = rate or _common_rate(rates)
    features = _common_features(run, found)
    if not features:
        raise InputError(store.path, "its episodes have no numbers and no cameras in common", "--episode chooses some")
    if homeless:
        run.say(f"A dataset has no place for {', '.join(sorted(homeless))} (left out)")
    cameras = {key: f for key, f in features.items() if _is_camera(f)}
    numbers = {key: f for key, f in features.items() if not _is_camera(f)}
    if dry_run:
        run.say(f"Would write {folder}: {len(told)} episodes of {float(rate):g} rows a second: {', '.join(features)}")
        run.end({"store": str(store.path), "written": [], "features": list(features), "fps": str(rate)})
        return
    facts = {
        key: dict(zip(("height", "width", "matrix", "full_range"), f.shape, strict=True)) for key, f in cameras.items()
    }
    kinds = {key: (str(f.shape[0]), tuple(str(n) for n in f.shape[1:])) for key, f in numbers.items()}
    writer = DatasetWriter(place, rate, kinds, facts)
    try:
        with run.progress() as bar:
            task = bar.add_task("decode", total=len(told), note="")
            written = 0
            for name, reference_name in told.items():
                bar.update(task, note=name)
                try:
                    _add(writer, read(name), part, reference_name, rate, cameras, numbers)
                    written += 1
                except (OptionError, OutputError):
                    raise
                except PantokError as error:
                    run.problem(f"{error}; {name} is left out")
                bar.advance(task)
        if not written:
            raise InputError(store.path, "holds no episode that can be decoded", "see the lines above")
        writer.finish()
    finally:
        writer.abandon()
    run.say(f"Wrote {folder}: {written} episodes of {float(rate):g} rows a second: {', '.join(features)}")
    run.end({"store": str(store.path), "written": [str(folder)], "features": list(features), "fps": str(rate)})


def _may_replace(folder: Path) -> bool:
    """Whether it is a dataset; what cannot be understood is nobody's to delete."""
    from pantok.formats.lerobot_meta import open_dataset
    from pantok.formats.shared import is_dataset

    try:
        return is_dataset(folder) and open_dataset(folder) is not None
    except InputError:
        return False


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _is_camera(feature: Feature) -> bool:
    return _kind(feature.track) == "video"


def _features(stream: TokenStream, part: Decoding) -> dict[str, Feature]:
    """What each track of an episode is called in a dataset: by the names that are read as these tracks."""
    found: dict[str, Feature] = {}

    def add(key: str, feature: Feature) -> None:
        """Under that name, or one that says more where another track has it."""
        key = key.replace("/", ".")
        if key in found:
            key = f"observation.{feature.track.replace('/', '.')}"
            key += "" if feature.channel is None else f".{feature.shape[-1]}"
        free = (key, *(f"{key}.{number}" for number in range(2, len(found) + 3)))
        found[next(name for name in free if name not in found)] = feature

    for name, track in sorted(stream.tracks.items()):
        if not part.clock(track).count:
            continue
        label = name.partition(".")[2]
        if track.modality == "video":
            key = f"observation.images.{label}" if label else "observation.image"
            facts = {**track.info, **track.header}
            shape = (
                int(facts["height"]),
                int(facts["width"]),
                facts.get("matrix", "bt601"),
                bool(facts.get("full_range")),
            )
            add(key, Feature(name, shape))
        elif track.modality == "numeric":
            dtype, channels = str(track.info["dtype"]), track.channels
            if _kind(name) in ("action", "reward"):
                start = {"action": "action", "reward": "next.reward"}[_kind(name)]
                key = f"{start}.{label}" if label else start
            elif dtype == "bool" and set(channels) <= set(_OUTCOMES):
                for number, channel in enumerate(channels):
                    add(f"next.{channel}", Feature(name, (dtype, channel), number))
                continue
            else:
                whole = label if _kind(name) == "proprio" else name
                key = f"observation.{whole or ('state' if 'proprio.state' not in stream.tracks else 'numbers')}"
            add(key, Feature(name, (dtype, *channels)))
    return found


def _reference(stream: TokenStream, part: Decoding) -> TrackTokens | None:
    """The track whose instants are the rows."""
    tracks = [t for t in stream.tracks.values() if t.modality in ("video", "numeric") and part.clock(t).count]
    place = {kind: number for number, kind in enumerate(_REFERENCES)}
    return min(tracks, key=lambda t: (place.get(_kind(t.name), len(place)), t.name), default=None)


def _common_rate(rates: Collection[Fraction | None]) -> Fraction:
    first = next(iter(rates))
    if first is None or len(rates) > 1:
        said = sorted(f"{float(r):g} Hz" if r else "irregular" for r in rates)
        raise OptionError("--to lerobot", f"needs rows of one rate, here it is {' and '.join(said)}", "give --fps 30")
    return first


def _common_features(run: common.Run, found: Sequence[Mapping[str, Feature]]) -> dict[str, Feature]:
    """What every episode has in the same shape; what only some have is named."""
    every = Counter((key, f.shape) for features in found for key, f in features.items())
    kept = {key for (key, _), count in every.items() if count == len(found)}
    if left := sorted({key for key, _ in every} - kept):
        run.problem(f"{', '.join(left)}: not the same in every episode (left out; --track and --episode choose)")
    return {key: f for key, f in (found[0] if found else {}).items() if key in kept}


def _add(
    writer: DatasetWriter,
    stream: TokenStream,
    part: Decoding,
    reference: str,
    rate: Fraction,
    cameras: Mapping[str, Feature],
    numbers: Mapping[str, Feature],
) -> None:
    own = part.clock(stream.tracks[reference])
    count = own.count if own.rate == rate else max(1, round(own.duration_ns * rate / NS))
    times = Clock.regular(rate, count, own.start_ns).times_ns
    films = {}
    for key, feature in cameras.items():
        signal = part.signal(stream.tracks[feature.track])
        films[key] = replace(signal, blocks=_picked(signal, _last_before(signal.clock, times)))
    columns, tables = {}, {}
    for key, feature in numbers.items():
        track = stream.tracks[feature.track]
        if feature.track not in tables:
            tables[feature.track] = part.table(track)[_last_before(part.clock(track), times)]
        values = tables[feature.track]
        columns[key] = values if feature.channel is None else values[:, feature.channel : feature.channel + 1]
    writer.add(films, columns, _tasks(stream, part, times), stream.id)


def _last_before(clock: Clock, times: np.ndarray) -> np.ndarray:
    """For each instant the last sample at it or before, to a nanosecond; the first where there is none."""
    return np.clip(np.searchsorted(clock.times_ns, times + 1, "right") - 1, 0, clock.count - 1)


def _picked(signal: Signal, index: np.ndarray) -> Iterator[Block]:
    """The pictures of these numbers, which do not fall."""
    first = 0
    for block in signal.blocks:
        lo, hi = np.searchsorted(index, (first, first + len(block)))
        for at in range(lo, hi, len(block)):  # a picture that stands long is not held a thousand times
            yield Block(block.values[index[at : min(at + len(block), hi)] - first])
        first += len(block)


def _said_by(stream: TokenStream) -> TrackTokens | None:
    """The track whose words are the tasks."""
    texts = [t for t in stream.tracks.values() if t.modality == "text"]
    return min(texts, key=lambda t: (_TASKS.index(t.name) if t.name in _TASKS else len(_TASKS), t.name), default=None)


def _tasks(stream: TokenStream, part: Decoding, times: np.ndarray) -> list[str]:
    """What is to be done at each instant, in the words of the track that says it; "" where nothing is said."""
    text = _said_by(stream)
    said = [""] * len(times)
    for start_ns, end_ns, words in part.spans(text) if text is not None else ():
        lo = int(np.searchsorted(times + 1, start_ns))
        hi = len(times) if end_ns is None else int(np.searchsorted(times + 1, end_ns))
        said[lo:hi] = [words] * (hi - lo)
    return said
