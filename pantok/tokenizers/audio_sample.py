"""A bounded sample of sound to learn from: segments of a few seconds, spread over all recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from operator import itemgetter

import numpy as np

from pantok.errors import InputError
from pantok.experience import Track
from pantok.tokenizers import audio_fit
from pantok.tokenizers.audio_bands import bands_of
from pantok.tokenizers.audio_loudness import Rows
from pantok.tokenizers.audio_transform import TICK_FRAMES, hop_of, lapped, to_integers, to_mid_side
from pantok.tokenizers.spread import groups

TICKS_PER_SECOND = 12.5
_SEGMENT_TICKS = 50  # of a segment: 4 s
_LOTS = 64  # segments of a recording, one of which is drawn


def rate_and_hop(track: Track) -> tuple[Fraction, int]:
    """Rate and hop. Raises InputError for a track that has no regular clock."""
    rate = track.rate or (track.clock.rate if track.clock is not None else None)
    if rate is None:
        raise InputError(track.name, "has no regular clock", "sound needs a sample rate")
    return rate, hop_of(rate)


def listened(tracks: Sequence[Track], seconds: float, segment_ticks: int = _SEGMENT_TICKS) -> list[audio_fit.Sample]:
    """Segments (4 s) of sound to learn from, `seconds` at most, an equal share of each recording, over its length; of
    more recordings than that one segment each of as many as it takes, drawn by lot."""
    length = segment_ticks / TICKS_PER_SECOND
    most = int(seconds / max(len(tracks), 1) / length)
    order = np.arange(len(tracks)) if most else np.random.default_rng(0).permutation(len(tracks))
    samples: list[tuple[int, audio_fit.Sample]] = []
    heard = 0.0
    for place in order.tolist():
        hop = rate_and_hop(tracks[place])[1]
        segments = _segments(tracks[place], TICK_FRAMES * hop * segment_ticks)
        for values in _spread(segments, most) if most else _one(segments, place):
            sample = _sample(to_mid_side(to_integers(values)), hop)
            if sample.frames.any():
                samples.append((place, sample))
                heard += len(values) / (hop * TICK_FRAMES * TICKS_PER_SECOND)
        if not most and heard >= seconds:
            break
    return [sample for _, sample in sorted(samples, key=itemgetter(0))]


def _segments(track: Track, size: int) -> Iterator[np.ndarray]:
    """All whole segments of `size` samples (size, C); of a track that is shorter, what there is."""
    for number, values in enumerate(groups(track.blocks(size), size)):
        if len(values) == size or not number:
            yield values.reshape(len(values), -1)


def _spread(segments: Iterator[np.ndarray], most: int) -> list[np.ndarray]:
    """At most `most` segments, evenly spread, however many there turn out to be."""
    kept: list[np.ndarray] = []
    step = 1
    for number, segment in enumerate(segments):
        if number % step == 0:
            kept.append(segment)
            if len(kept) > most:
                kept, step = kept[::2], 2 * step
    return kept


def _one(segments: Iterator[np.ndarray], seed: int) -> list[np.ndarray]:
    """One of the first segments, each as likely as the others."""
    rng, kept = np.random.default_rng(seed), list[np.ndarray]()
    for number, segment in enumerate(islice(segments, _LOTS)):
        if rng.integers(number + 1) == 0:
            kept = [segment]
    return kept


def _sample(sound: np.ndarray, hop: int) -> audio_fit.Sample:
    """Frames of samples (n, C) that stand alone."""
    hops = -(-len(sound) // hop)
    padded = np.pad(sound, ((hop, (hops + 1) * hop - len(sound)), (0, 0)))
    transform = lapped(hop)
    by_channel = np.stack([transform.forward(np.ascontiguousarray(c)) for c in padded.T])
    rows = Rows.of(0, -(-len(sound) // (TICK_FRAMES * hop)), sound.shape[1], hops + 1)
    return audio_fit.Sample(bands_of(transform.bins), rows, by_channel[rows.channel, rows.frame])
