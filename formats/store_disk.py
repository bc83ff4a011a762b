"""Files that survive a kill, a full disk and a power cut: what vocabularies and token stores are written with.

What is unusual: a JSON file is *sealed*, its last key is the CRC-32C of every byte before it, so that one flipped
bit anywhere, even in white space, is found without a second file; and whoever stages a directory holds a lock on
it (`flock`, which the kernel drops when the process dies), so that what a killed writer left is told from what a
living one is still writing without looking at process numbers or at clocks.

    >>> unseal(seal({"format": 1}), "here")
    {'format': 1}
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

STALE_S = 86_400
"""Where the file system has no locks, a stage untouched for this long is taken for dead."""

_counter = itertools.count()
MIRRORS: dict[str, Any] = {}
"""Directories that stand for stores in object storage, each with what fetches files into it (`store_remote.Mirror`)."""


def mirror_at(path: Path) -> Any:
    """The mirror that a path lies in, None if it is an ordinary one."""
    if MIRRORS:
        text = str(path)
        for folder, mirror in MIRRORS.items():
            if text.startswith(folder + os.sep) or text == folder:
                return mirror
    return None


def present(path: Path) -> bool:
    """Whether a file is there; in a mirror it is fetched first."""
    if path.exists():
        return True
    mirror = mirror_at(path)
    return mirror is not None and mirror.present(path)


class SealError(ValueError):
    """A sealed JSON file that is not what was written."""


def crc32c(data: bytes | memoryview, before: int = 0) -> int:
    """CRC-32C (Castagnoli, as in RFC 3720) of bytes; `before` continues an earlier one."""
    # The C function takes bytes and arrays, but no memoryview.
    return google_crc32c.extend(before, data if isinstance(data, bytes) else np.frombuffer(data, np.uint8))


def crc32c_of_file(path: Path) -> tuple[int, int]:
    """(bytes, crc32c) of a file, read in pieces of 4 MiB."""
    size = crc = 0
    present(path)
    with open(path, "rb") as file:
        while piece := file.read(4 << 20):
            size += len(piece)
            crc = crc32c(piece, crc)
    return size, crc


def seal(value: Mapping[str, Any]) -> bytes:
    """JSON in the given order of keys, one line, with the checksum of all that stands before it as its last key."""
    body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    assert len(body) > 2 and "crc32c" not in value, value
    return body[:-1] + b',"crc32c":"%08x"}\n' % crc32c(body[:-1])


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """What was sealed, without the checksum. Raises SealError in words that begin with `name`."""
    tail = b',"crc32c":"00000000"}\n'
    body, end = data[: -len(tail)], data[-len(tail) :]
    if not data:
        raise SealError(f"{name} is empty")
    if len(data) <= len(tail) or end[:11] != tail[:11] or end[19:] != tail[19:]:
        raise SealError(f"{name} is damaged or cut short: it does not end in its checksum")
    computed = b"%08x" % crc32c(body)
    if end[11:19] != computed:
        raise SealError(
            f"{name} is damaged: its checksum is {computed.decode()}, it says {end[11:19].decode(errors='replace')}"
        )
    value = json.loads(body + b"}")
    assert isinstance(value, dict), name
    return value


def write_file(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a new file and forces it to the disk."""
    with open(path, "xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Forces the names in a directory to the disk (a rename is not durable before)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: Path) -> None:
    """Forces the names in a directory and all below it to the disk; the files have been forced already."""
    for folder, _, _ in os.walk(path, topdown=False):
        sync_directory(Path(folder))


def put_if_absent(path: Path, data: bytes) -> bool:
    """Makes `path` with all of `data` at once, on the disk; False if it is there already.

    A hard link to a finished temporary file; where the file system has none, a rename that replaces nothing; where
    it has neither, an exclusive create: then a kill may leave part of the file, which its seal shows.
    """

    def write(file: BinaryIO) -> None:
        file.write(data)

    return put_file_if_absent(path, write)


def put_file_if_absent(path: Path, write: Callable[[BinaryIO], None]) -> bool:
    """As `put_if_absent`, with what `write` puts into a file."""
    while True:
        staged = path.with_name(f".put-{os.getpid()}-{next(_counter)}-{path.name}")
        try:
            with open(staged, "xb") as file:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write(file)
                file.flush()
                os.fsync(file.fileno())
                code = _link(staged, path)
        finally:
            with suppress(OSError):
                staged.unlink()
        if code == 0:
            sync_directory(path.parent)
            return True
        if code == errno.EEXIST:
            return False
        # Swept in the moment between its making and its lock: once more.


def _link(staged: Path, path: Path) -> int:
    """Gives a finished file its name if that is free: 0, EEXIST if it is not, ENOENT if the file has been swept."""
    try:
        os.link(staged, path)
        return 0
    except FileExistsError:
        return errno.EEXIST
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return errno.ENOENT
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
    code = _renameat2(staged, path, 1)
    if code in (0, errno.EEXIST, errno.ENOENT):
        return code
    try:
        write_file(path, staged.read_bytes())
        return 0
    except FileExistsError:
        return errno.EEXIST


class StageLock:
    """A directory or file that this process is working on: locked until `close` or death."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd

    @classmethod
    def take(cls, path: Path, wait: bool = False) -> StageLock | None:
        """The lock, or None if another process holds it or the path is gone."""
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            here, held = os.stat(path), os.fstat(fd)
            if (here.st_dev, here.st_ino) == (held.st_dev, held.st_ino):
                return cls(path, fd)
        except BlockingIOError:
            pass
        except FileNotFoundError:
            pass
        except OSError:
            # No locks here: only age tells.
            if time.time() - os.fstat(fd).st_mtime > STALE_S:
                return cls(path, fd)
        os.close(fd)
        return None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def staged(parent: Path, name: str) -> Iterator[Path]:
    """A new locked directory `.stage-<name>.<pid>.<n>` in `parent`, removed at the end unless it has been renamed."""
    lock = None
    while lock is None:
        path = parent / f".stage-{name}.{os.getpid()}.{next(_counter)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue  # of a process that had our number
        # Between the two a sweep may take it for dead; then another is made. Without locks the age is nought.
        lock = StageLock.take(path)
        if lock is None and path.is_dir() and not _locks_work(path):
            lock = StageLock(path, os.open(path, os.O_RDONLY))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        lock.close()


def _locks_work(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def sweep_stages(parent: Path, name: str = "") -> list[str]:
    """Removes what killed writers left staged in `parent`; the names removed. What a living one holds stays.

    name: only what was to become `name`.
    """
    removed = []
    for entry in sorted(os.listdir(parent)):
        if not entry.startswith((f".stage-{name}.", f".stage-old-{name}.") if name else (".stage-", ".put-")):
            continue
        lock = StageLock.take(parent / entry)
        if lock is None:
            continue
        try:
            if (parent / entry).is_dir():
                shutil.rmtree(parent / entry, ignore_errors=True)
            else:
                (parent / entry).unlink(missing_ok=True)
            removed.append(entry)
        finally:
            lock.close()
    return removed


def publish(stage: Path, path: Path, replace: bool) -> None:
    """Gives a finished directory its name, at once and durably; with `replace` in exchange for what has it.

    Raises FileExistsError if `path` is there and `replace` is not given.
    """
    sync_tree(stage)
    if replace and path.is_dir() and not path.is_symlink():
        if not _exchange(stage, path):
            # No atomic exchange on this file system: a kill between the two renames leaves the old one aside.
            aside = path.with_name(f".stage-old-{path.name}.{os.getpid()}.{next(_counter)}")
            os.rename(path, aside)
            os.rename(stage, path)
            shutil.rmtree(aside, ignore_errors=True)
        # after an exchange the stage's name holds the old one: its owner removes it
    else:
        try:
            os.rename(stage, path)  # an empty directory may stand there, nothing else
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
            raise
    sync_directory(path.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps two names in one step; False where that is not to be had."""
    return _renameat2(a, b, 2) == 0


def _renameat2(a: Path, b: Path, flags: int) -> int:
    """Linux `renameat2`: flags 1 (RENAME_NOREPLACE) or 2 (RENAME_EXCHANGE). 0, or the number of the error."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    at_cwd = -100
    return ctypes.get_errno() if call(at_cwd, os.fsencode(a), at_cwd, os.fsencode(b), flags) else 0


def reason(error: OSError) -> str:
    """What the system says, without the path, which the message names already."""
    return (error.strerror or str(error)).lower()
