"""Sound files through libsndfile (wav, flac, ogg, aiff, ...): one track, a second at a time. MP3 is FFmpeg's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from pantok.errors import InputError
from pantok.experience import Block, Clock, Track
from pantok.formats.files import Problems, check_readable, once, replaced, unreadable

SUFFIXES = frozenset(f".{s.lower()}" for s in soundfile.available_formats()) | {".ogg", ".opus", ".aif", ".oga"}
_MAGIC = {b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"dns.", b"caff"}
_WHOLE = {"PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW"}


def read_soundfile(path: Path, name: str = "audio", problems: Problems = lambda line: None) -> Track:
    """int16 (n, channels) where the file holds 16 bits or less, else float32. Raises InputError.

    A file that ends, or is damaged, before the end that its header promises gives what comes before, and NaN and
    infinities become silence; `problems` is told.
    """
    check_readable(path)
    with open(path, "rb") as file:
        known = file.read(4) in _MAGIC
    if not known:  # libsndfile would take noise for MPEG audio
        raise InputError(path, "is no sound file that libsndfile knows", "check that it plays")
    try:
        with soundfile.SoundFile(str(path)) as facts:
            comment = facts.comment
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(path, "is damaged", "copy or record it again; check that it plays") from error
    if "MPEG" in facts.subtype:  # each read seeks, after which MPEG audio is garbled for thousands of samples
        raise InputError(path, "is MPEG audio, which libsndfile reads whole or not at all", "read it as a container")
    if facts.frames == 0:
        raise InputError(path, "holds no samples", "record it again, or remove it")
    whole = facts.subtype in _WHOLE
    dtype = "int16" if whole else "float32"

    rate, promised = facts.samplerate, facts.frames
    problems = once(problems)

    def blocks() -> Iterator[Block]:
        done = bad = 0
        try:
            with soundfile.SoundFile(str(path)) as file:
                while len(values := file.read(rate, dtype=dtype, always_2d=True)):
                    bad += silence_what_is_no_sound(values)
                    yield Block(values)
                    done += len(values)
        except OSError as error:
            raise unreadable(path, error) from error
        except soundfile.LibsndfileError as error:
            if not done:
                raise InputError(path, f"cannot be read: {_plain(error)}", "copy or export it again") from error
        if bad:
            problems(f"{path}: {bad} samples are NaN or infinite (they are silence now; record or export it again)")
        if done < promised:
            problems(
                f"{path}: ends at {done / rate:.1f} s of the {promised / rate:.1f} s that its header promises "
                "(what could be read is kept; copy or export it again)"
            )

    clock = Clock.regular(Fraction(facts.samplerate), facts.frames)
    channels = tuple(f"c{i}" for i in range(facts.channels))
    info = {"sample_rate": facts.samplerate, "dtype": dtype} | _language(comment)
    return Track(name, blocks, clock, clock.rate, channels, info=info)


def _language(comment: str) -> dict[str, str]:
    """What `write_wav` wrote of it."""
    said, _, language = comment.partition(": ")
    return {"language": language} if said == "language" and len(language) == 3 else {}


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".").lower()


def silence_what_is_no_sound(values: np.ndarray) -> int:
    """Sets NaN and infinities to zero, in place; returns how many there were."""
    if values.dtype.kind != "f":
        return 0
    bad = ~np.isfinite(values)
    values[bad] = 0
    return int(bad.sum())


def write_wav(
    path: Path, blocks: Iterator[Block], rate_hz: int, channels: int, dtype: str, language: str | None = None
) -> None:
    """PCM of the samples' own precision: 16 bits for int16, 32-bit float for float32. Written whole or not at all.

    language: written as the file's comment, for a .wav has no place of its own for it. Raises OutputError where the
    system refuses.
    """
    subtype = "PCM_16" if dtype == "int16" else "FLOAT"
    with replaced(path) as temporary, open(temporary, "w+b") as raw:
        told = _Told(raw)
        with soundfile.SoundFile(told, "w", rate_hz, channels, subtype, format="WAV") as file:
            if language:
                file.comment = f"language: {language}"
            for block in blocks:
                file.write(np.ascontiguousarray(block.values))
                if told.error is not None:
                    break
        if told.error is not None:
            raise told.error
        raw.flush()


class _Told:
    """A file that keeps what the system said of a failed write: libsndfile would swallow it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            self._raw.write(content)
        except OSError as error:
            self.error = self.error or error
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(lambda: self._raw.seek(offset, whence))

    def tell(self) -> int:
        return self._try(self._raw.tell)

    def read(self, count: int = -1) -> bytes:
        return self._raw.read(count)

    def flush(self) -> None:
        self._try(self._raw.flush)

    def _try(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except OSError as error:
            self.error = self.error or error
            return 0
