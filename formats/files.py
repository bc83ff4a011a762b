"""Files on disk: read with one-line errors, identified by content, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pantok.errors import InputError
from pantok.experience import Source


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, byte order mark removed. Raises InputError: no other encoding is guessed."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            path, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8, e.g. iconv -f latin1 -t utf8"
        ) from error


def source_of(path: Path) -> Source:
    """Path, size and sha256; computed once for a file that has not changed. Raises InputError."""
    try:
        stat = path.stat()
        return Source(str(path), stat.st_size, _sha256(str(path), stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check the path and its permissions") from error


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` with its suffix; on leaving well it is forced to disk and renamed to `path`."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
