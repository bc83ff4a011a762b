"""What the ticks of a track say in a step: the last pictures, the loudness of bands, the last values and their mean.

All take the step of each tick and give (step, float32 features) for each step in which one of the `ticks` begins, which
are those of whole steps, holding one tick of samples at a time; `seen` gives the last tick of the step in its place.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pantok import pixels
from pantok.stream import TrackTokens
from pantok.tokenizers import Tokenizer

FLOOR = 1e-10
"""Power that counts as silence: -100 dB of full scale."""


def seen(
    track: TrackTokens, tokenizer: Tokenizer, shape: tuple[int, int], step: np.ndarray, ticks: range
) -> Iterator[tuple[int, np.ndarray]]:
    """Of the last tick of each step: its number, and its last two frames, (2, lines, columns, 3), twice the last if it
    has but one."""
    height, width = int(track.header["height"]), int(track.header["width"])
    down, across = area_weights(height, shape[0]), area_weights(width, shape[1])
    matrix, full = str(track.info.get("matrix", "bt601")), bool(track.info.get("full_range", False))
    last_of = np.append(step[1:] != step[:-1], True)
    at = ticks.start * track.tick
    for block in tokenizer.decode(track, start=at, stop=ticks.stop * track.tick):
        for tick in range(at // track.tick, -(-(at + len(block)) // track.tick)):
            end = min((tick + 1) * track.tick, track.clock.count)
            if last_of[tick] and at < end <= at + len(block):
                frames = block.values[max(end - 2, tick * track.tick, at) - at : end - at]
                rgb = pixels.to_rgb(frames, height, width, matrix, full).astype(np.float32)
                small = [np.einsum("ly,yxc,mx->lmc", down, each, across, optimize=True) for each in rgb]
                yield tick, np.stack([small[0], small[-1]])
        at += len(block)


def heard(
    track: TrackTokens, tokenizer: Tokenizer, edges_hz: np.ndarray, step: np.ndarray, ticks: range
) -> Iterator[tuple[int, np.ndarray]]:
    """dB in each band of each channel, the mean over the ticks that begin in a step; (channels * bands)."""
    rate = sample_rate(track)
    window = np.hanning(track.tick + 2)[1:-1].astype(np.float32)
    bins = np.clip(np.rint(edges_hz * track.tick / rate).astype(int), 0, track.tick // 2 + 1)
    total: np.ndarray | float = 0.0
    count = 0
    for tick, samples in _by_tick(track, tokenizer, ticks):
        samples = samples.reshape(len(samples), -1)
        scaled = samples / 32768 if samples.dtype.kind == "i" else samples
        padded = np.zeros((track.tick, scaled.shape[1]), np.float32)
        padded[: len(scaled)] = scaled
        power = np.abs(np.fft.rfft(padded * window[:, None], axis=0)) ** 2 / (window**2).sum() / track.tick
        sums = np.concatenate([np.zeros((1, power.shape[1])), np.cumsum(power, 0)])
        total = total + (sums[np.maximum(bins[1:], bins[:-1] + 1).clip(max=len(power))] - sums[bins[:-1]])
        count += 1
        if tick + 1 == len(step) or step[tick + 1] != step[tick]:
            yield int(step[tick]), (10 * np.log10(total / count + FLOOR)).T.ravel().astype(np.float32)
            total, count = 0.0, 0


def felt(track: TrackTokens, tokenizer: Tokenizer, step: np.ndarray, ticks: range) -> Iterator[tuple[int, np.ndarray]]:
    """The last value and the mean of each channel over the rows of the ticks that begin in a step; (2 * channels)."""
    rows: list[np.ndarray] = []
    held: np.ndarray | None = None
    for tick, values in _by_tick(track, tokenizer, ticks):
        rows.append(values.reshape(len(values), -1).astype(np.float64))
        if tick + 1 < len(step) and step[tick + 1] == step[tick]:
            continue
        block, rows = np.concatenate(rows), []
        held = np.zeros(block.shape[1]) if held is None else held
        filled = np.concatenate([held[None], block])
        known = np.isfinite(filled)
        at = np.maximum.accumulate(np.where(known, np.arange(len(filled))[:, None], 0), axis=0)
        filled = np.take_along_axis(filled, at, 0)[1:]
        held = filled[-1]
        yield int(step[tick]), np.concatenate([held, filled.mean(0)]).astype(np.float32)


def _by_tick(track: TrackTokens, tokenizer: Tokenizer, ticks: range) -> Iterator[tuple[int, np.ndarray]]:
    """(tick, its samples), in order, whatever blocks the tokenizer gives."""
    tick, held = ticks.start, np.zeros((0, 0))
    for block in tokenizer.decode(track, start=ticks.start * track.tick, stop=ticks.stop * track.tick):
        held = np.concatenate([held, block.values]) if len(held) else block.values
        at = 0
        while len(held) - at >= track.tick:
            yield tick, held[at : at + track.tick]
            tick, at = tick + 1, at + track.tick
        held = held[at:]
    if len(held):
        yield tick, held


def area_weights(size: int, small: int) -> np.ndarray:
    """float32 (small, size), rows of sum 1: how much of each new line is of each old one."""
    edges = np.linspace(0, size, small + 1)
    low, high = edges[:-1, None], edges[1:, None]
    old = np.arange(size)[None]
    share = np.minimum(high, old + 1) - np.maximum(low, old)
    return (share.clip(min=0) / (high - low)).astype(np.float32)


def sample_rate(track: TrackTokens) -> float:
    rate = track.info.get("sample_rate") or track.clock.rate
    assert rate is not None, track.name
    return float(rate)


def mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))
