"""Sound files through libsndfile (wav, flac, ogg, mp3, aiff, ...): one track, a second at a time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from pantok.errors import InputError
from pantok.experience import Block, Clock, Track
from pantok.formats.files import replaced

SUFFIXES = frozenset(f".{s.lower()}" for s in soundfile.available_formats()) | {".ogg", ".opus", ".aif", ".oga"}
_WHOLE = {"PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW"}


def read_soundfile(path: Path, name: str = "audio") -> Track:
    """int16 (n, channels) where the file holds 16 bits or less, else float32. Raises InputError."""
    try:
        facts = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        why = "is empty (0 bytes)" if empty else "is not sound, or is damaged"
        raise InputError(path, why, "copy or record it again; check that it plays") from error
    if facts.frames == 0:
        raise InputError(path, "holds no samples", "record it again, or remove it")
    whole = facts.subtype in _WHOLE
    dtype = "int16" if whole else "float32"

    def blocks() -> Iterator[Block]:
        try:
            with soundfile.SoundFile(str(path)) as file:
                while len(values := file.read(facts.samplerate, dtype=dtype, always_2d=True)):
                    yield Block(values)
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(path, f"cannot be read to its end: {error}", "copy or export it again") from error

    clock = Clock.regular(Fraction(facts.samplerate), facts.frames)
    channels = tuple(f"c{i}" for i in range(facts.channels))
    info = {"sample_rate": facts.samplerate, "dtype": dtype}
    return Track(name, blocks, clock, clock.rate, channels, info=info)


def write_wav(path: Path, blocks: Iterator[Block], rate_hz: int, channels: int, dtype: str) -> None:
    """PCM of the samples' own precision: 16 bits for int16, 32-bit float for float32. Written whole or not at all."""
    subtype = "PCM_16" if dtype == "int16" else "FLOAT"
    with (
        replaced(path) as temporary,
        soundfile.SoundFile(str(temporary), "w", rate_hz, channels, subtype, format="WAV") as file,
    ):
        for block in blocks:
            file.write(np.ascontiguousarray(block.values))
