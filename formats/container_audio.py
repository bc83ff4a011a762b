"""Sound of a media file (PyAV): interleaved samples, in their own precision, at the instants of the container.

What is unusual: rate and channels are those of the first decoded frame (HE-AAC doubles what its header says). The
samples themselves are the clock; stamps only start it and show gaps, which are filled with silence, and overlaps,
which are cut, so that sound stays with its pictures. Priming samples are left out as FFmpeg leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Block, Track
from pantok.formats.container import (
    FAULTS,
    Damage,
    announce,
    first_frame,
    frames_of,
    language_of,
    opened,
    steady,
    told_seconds,
)
from pantok.formats.files import Problems
from pantok.formats.soundfiles import silence_what_is_no_sound

_GAP_NS = 30_000_000  # what stamps may be off before it counts as a gap: mkv rounds to whole ms, mp3 by a frame
_FRAME = 4096  # samples in the longest frame of the codecs that fill up their last
_WHOLE = {"s16", "s16p", "u8", "u8p"}


def audio_track(path: Path, index: int, name: str, zero_ns: int, problems: Problems) -> Track:
    """The sound of one stream: int16 where it is held in 16 bits or less, else float32; values (n, channels).

    Raises InputError if not one frame of it decodes.
    """
    frame = first_frame(path, index)
    if frame is None or not frame.sample_rate or not frame.layout.nb_channels:
        raise InputError(f"{path} {name}", "holds no sound that can be decoded", "export it again")
    with opened(path) as container:
        stream = container.streams[index]
        codec, end = stream.codec_context.name, _end(container, stream, int(frame.sample_rate), zero_ns)
        spoken, told_s = language_of(stream), told_seconds(container, stream)
    rate_hz, layout = int(frame.sample_rate), frame.layout
    dtype = "int16" if frame.format.name in _WHOLE else "float32"
    channels = layout.nb_channels
    info = {"sample_rate": rate_hz, "dtype": dtype, "codec": codec, "layout": layout.name, **spoken}

    def blocks() -> Iterator[Block]:
        return _blocks(path, index, name, rate_hz, layout.name, channels, np.dtype(dtype), zero_ns, end, problems)

    named = tuple(f"c{i}" for i in range(channels))
    return Track(name, blocks, None, Fraction(rate_hz), named, info=info, told_s=told_s)


def _end(container: Any, stream: Any, rate_hz: int, zero_ns: int) -> int | None:
    """The sample before which the container says to stop: codecs fill their last frame up. None where it does not."""
    exact = stream.duration and stream.time_base and rate_hz % stream.time_base.denominator == 0
    if "mov" not in container.format.name.split(",") or not exact:
        return None
    ticks = Fraction((stream.start_time or 0) + stream.duration) * stream.time_base
    return int(ticks * rate_hz) - round(Fraction(zero_ns * rate_hz, NS))


def _blocks(
    path: Path,
    index: int,
    name: str,
    rate_hz: int,
    layout: str,
    channels: int,
    dtype: np.dtype,
    zero_ns: int,
    end: int | None,
    problems: Problems,
) -> Iterator[Block]:
    """Blocks of about a second. What lies beyond `end` is left out if it is less than one frame of a codec."""
    damage = Damage()
    waiting: list[np.ndarray] = []
    begin, count = 0, 0  # of what is waiting: the number of its first sample, counted from the clock's zero; samples
    started = False
    for at, values in _placed(path, index, rate_hz, layout, channels, dtype, zero_ns, damage, end is not None):
        if not started:
            begin, started = at, True
        if end is not None and 0 < at + len(values) - end < len(values) <= _FRAME:
            values = values[: end - at]
        waiting.append(values)
        count += len(values)
        while count >= rate_hz:
            whole = np.concatenate(waiting)
            yield _block(whole[:rate_hz], begin, rate_hz)
            waiting, begin, count = [whole[rate_hz:]], begin + rate_hz, count - rate_hz
    if count:
        yield _block(np.concatenate(waiting), begin, rate_hz)
    announce(path, name, damage, problems)


def _block(values: np.ndarray, begin: int, rate_hz: int) -> Block:
    second, rest = divmod(begin, rate_hz)
    inside = (np.arange(rest, rest + len(values), dtype=np.int64) * NS * 2 + rate_hz) // (2 * rate_hz)
    return Block(values, second * NS + inside)


def _placed(
    path: Path,
    index: int,
    rate_hz: int,
    layout: str,
    channels: int,
    dtype: np.dtype,
    zero_ns: int,
    damage: Damage,
    stamped: bool,
) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first sample, samples), without gap or overlap.

    stamped: the container counts to the sample, and says how much of the last frame is sound.
    """
    after: int | None = None
    resampler = None
    frames = steady(frames_of(path, index, damage, zero_ns), damage)
    following = next(frames, None)
    while following is not None:
        at_ns, _, frame = following
        following = next(frames, None)
        if frame.sample_rate == rate_hz and frame.layout.nb_channels == channels:
            parts = [_samples(frame, channels, dtype)]
        else:  # the recording changed its rate or channels on the way
            try:
                resampler = resampler or av.AudioResampler(
                    format="s16" if dtype == np.int16 else "flt", layout=layout, rate=rate_hz
                )
                parts = [_samples(f, channels, dtype) for f in resampler.resample(frame)]
            except FAULTS:
                resampler = None
                damage.lost += 1
                continue
        for values in parts:
            damage.unsound += silence_what_is_no_sound(values)
        if following is None and stamped and len(parts) == 1:
            parts = [parts[0][: _length(frame, rate_hz)]]
        begin = (at_ns * rate_hz * 2 + NS) // (2 * NS)
        for values in parts:
            if after is not None:
                late = begin - after
                if abs(late) * NS > _GAP_NS * rate_hz:
                    damage.gaps += 1
                    if late > 0:
                        yield from _silence(after, late, rate_hz, channels, dtype)
                        after = begin
                    else:
                        values = values[-late:]
            else:
                after = begin
            if len(values):
                yield after, values
            after += len(values)
            begin += len(values)


def _length(frame: Any, rate_hz: int) -> int | None:
    """Samples that the container counts of a frame; None where it does not say."""
    if not frame.duration or not frame.time_base:
        return None
    return int(frame.duration * Fraction(frame.time_base) * rate_hz) or None


def _silence(begin: int, count: int, rate_hz: int, channels: int, dtype: np.dtype) -> Iterator[tuple[int, np.ndarray]]:
    for at in range(0, count, rate_hz):
        yield begin + at, np.zeros((min(rate_hz, count - at), channels), dtype)


def _samples(frame: Any, channels: int, dtype: np.dtype) -> np.ndarray:
    """The samples of a frame as (n, channels) of int16, or float32 with full scale 1; memory of its own."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    if values.dtype == np.uint8:
        values = (values.astype(np.int16) - 128) << 8
    elif values.dtype.kind == "i":
        bits = values.dtype.itemsize * 8
        values = (values.astype(np.float64) / 2.0 ** (bits - 1)).astype(np.float32)
    if values.dtype == dtype:
        return np.ascontiguousarray(values)
    if dtype == np.int16:  # a stream that began in 16 bits and went on in more
        return np.clip(np.rint(np.asarray(values, np.float64) * 32768), -32768, 32767).astype(np.int16)
    if values.dtype == np.int16:
        return (values / 32768.0).astype(np.float32)
    return values.astype(np.float32)
