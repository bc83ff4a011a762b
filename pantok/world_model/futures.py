"""What is around a future: clocks that go on, the place where it begins, latents of before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from pantok.experience import Clock
from pantok.layout import Arranged, Layout
from pantok.stream import Latents, LevelCodes, TokenStream, TrackTokens


def first_tick(track: TrackTokens, start_ns: int) -> int:
    """The first tick that begins at start_ns or later."""
    times = track.clock.at(np.arange(track.ticks, dtype=np.int64) * track.tick)
    return int(np.searchsorted(times, start_ns, "left"))


def place_of(arranged: Arranged, stream: TokenStream, start_ns: int) -> int:
    """Where the first unit that begins at start_ns or later stands, with the <tick> before it."""
    units = arranged.units()
    last = None
    for track, tick, step, place, _ in units.tolist():
        tokens = stream.tracks[arranged.tracks[track]]
        if int(tokens.clock.at(np.array([tick * tokens.tick]))[0]) >= start_ns:
            return place - (step != last and place > 0)
        last = step
    return len(arranged) - 1


def extended(stream: TokenStream, layout: Layout, start_ns: int, stop_ns: int) -> TokenStream:
    """The stream's clocks up to stop_ns, without codes. A regular clock goes on; another one has what was recorded."""
    tracks = {}
    for name, track in stream.tracks.items():
        if not layout.keeps(name) or not track.ticks:
            continue
        clock = track.clock
        if clock.rate is not None:
            first = int(clock.at(np.zeros(1, np.int64))[0])
            needed = -(-(stop_ns - first) * clock.rate.numerator // (10**9 * clock.rate.denominator))
            whole = max(1, -(-needed // track.tick)) * track.tick
            clock = Clock.regular(Fraction(clock.rate), int(whole), first)
        ticks = -(-clock.count // track.tick)
        empty = tuple(LevelCodes(lv.codes[:0], np.zeros(ticks + 1, np.int64)) for lv in track.levels)
        latents = None
        if track.latents is not None:
            each = int(np.diff(track.latents.splits).max(initial=0))
            latents = Latents(
                np.zeros((each * ticks, track.latents.values.shape[1]), np.float16), np.arange(ticks + 1) * each
            )
        tracks[name] = replace(track, clock=clock, levels=empty, latents=latents if layout.latents else None)
    return replace(stream, tracks=tracks)


def latents_of(old: TrackTokens, drawn: Mapping[int, list[np.ndarray]], ticks: int, first: int) -> Latents | None:
    if old.latents is None:
        return None
    kept = min(first, old.ticks)
    values = [old.latents.values[: old.latents.splits[kept]]]
    counts = np.zeros(ticks, np.int64)
    counts[:kept] = np.diff(old.latents.splits)[:kept]
    for tick in range(first, ticks):
        found = drawn.get(tick, [])
        counts[tick] = len(found)
        if found:
            values.append(np.stack(found).astype(np.float16))
    return Latents(np.concatenate(values), np.concatenate([[0], np.cumsum(counts)]))
