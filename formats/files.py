"""Files on disk: read with one-line errors, identified by content, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pantok.errors import InputError, OutputError, PantokError
from pantok.experience import Source

Problems = Callable[[str], None]
"""Takes one line for each thing that was wrong with a file and could be passed over."""

BAG_FACTS = "metadata.yaml"
"""What lists the files of a bag of ROS 2."""
PICTURES = frozenset({
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".pnm", ".qoi",
})  # fmt: skip
"""Suffixes of pictures."""
_BAG = re.compile(r"[\w.-]+\.(?:mcap|db3)(?![\w.])")


def once(problems: Problems) -> Problems:
    """The same, but a line that was said is not said again: a recording is read several times, its faults stay."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            problems(line)

    return say


def check_readable(path: Path) -> None:
    """Raises InputError for what no reader could open: missing, a folder, a pipe, empty, forbidden."""
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise InputError(path, "is a folder, not a file", "name the files in it, or rename it")
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(path, "is not a regular file", "copy what it gives to a file first")
        if facts.st_size == 0:
            raise InputError(path, "is empty (0 bytes)", "copy or record it again")
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> InputError:
    """What the system said, as a line with a remedy."""
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return InputError(path, "is a link to a file that is not there", "mend the link, or remove it")
    return InputError(
        path, f"cannot be read: {(error.strerror or str(error)).lower()}", "check the path and its permissions"
    )


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises InputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, byte order mark removed. Raises InputError: no other encoding is guessed."""
    return decode_text(path, read_bytes(path))


def decode_text(path: Path, content: bytes) -> str:
    """UTF-8, or UTF-16 that says so by its byte order mark; any other byte is an InputError, never a replacement."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise InputError(path, "begins as UTF-16 and does not go on so", "save it as UTF-8") from error
    if b"\0" in content[:4096]:
        raise InputError(path, "is not text", f"check what it is; {path.suffix or 'a text'} it is not")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            path, f"is not UTF-8 text (byte {error.start})", f"iconv -f latin1 -t utf8 {path.name} > new{path.suffix}"
        ) from error


def source_of(path: Path) -> Source:
    """Path, size and sha256 of a file, or of a folder that is one recording; computed once while it has not changed.

    Raises InputError.
    """
    try:
        facts = [p.stat() for p in _within(path)]
        size, newest_ns = sum(f.st_size for f in facts), max((f.st_mtime_ns for f in facts), default=0)
        return Source(str(path), size, _sha256(str(path), size, newest_ns))
    except OSError as error:
        raise unreadable(path, error) from error


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder. Raises OSError."""
    return sum(p.stat().st_size for p in _within(path))


def listed_bags(folder: Path) -> list[Path]:
    """The files of a split bag of ROS 2, all that its `metadata.yaml` lists, of which some may not be there.

    Nothing of a folder that is no bag, or a bag of one file, which is a recording by itself.
    """
    facts = folder / BAG_FACTS
    if not os.path.isfile(facts):
        return []
    try:
        said = facts.read_text("utf-8", "replace")
    except OSError:
        return []
    listed = [folder / name for name in dict.fromkeys(_BAG.findall(said))]
    whole = "rosbag2_bagfile_information" in said and len(listed) > 1 and any(path.is_file() for path in listed)
    return listed if whole else []


def numbered_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names; none of a Zarr store."""
    if any(os.path.exists(folder / name) for name in ("zarr.json", ".zgroup")):
        return []
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_file()]
    except OSError:
        return []
    pictures = [name for name in names if os.path.splitext(name)[1].lower() in PICTURES]

    def place(name: str) -> tuple[list[int], str]:
        return [int(digits) for digits in re.findall(r"\d+", name)], name

    return [folder / name for name in sorted(pictures, key=place)]


def _within(path: Path) -> list[Path]:
    """A file itself; the files of a folder that is one recording, in an order that is the same everywhere."""
    if not path.is_dir():
        return [path]
    bags = listed_bags(path)  # what else lies in the folder is no part of the bag
    if not bags and (pictures := numbered_pictures(path)):
        return pictures
    return sorted(p for p in ((*bags, path / BAG_FACTS) if bags else path.rglob("*")) if p.is_file())


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    return sha256_of(Path(path))


def sha256_of(path: Path) -> str:
    """Of the content of a file; of a folder, of its files' names and contents. Raises OSError."""
    if not path.is_dir():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for inner in _within(path):
        whole.update(f"{sha256_of(inner)} {inner.relative_to(path).as_posix()}\n".encode())
    return whole.hexdigest()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` with its suffix; on leaving well it is forced to disk and renamed to `path`.

    On any error the temporary file is removed and what stood at `path` before is untouched. Raises OutputError where
    the system refuses to write.
    """
    temporary = path.with_name(f".{path.stem[:150]}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except PantokError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Whether nothing is there, or an empty folder: what may be written to without losing anything."""
    return not (path.exists() or path.is_symlink()) or (path.is_dir() and not any(path.iterdir()))


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are missing. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def _sync_folder(folder: Path) -> None:
    """The rename itself on disk; a few file systems cannot, and lose nothing but this promise."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> OutputError:
    """What the system said, as a line with a remedy; keeps the errno."""
    said = os.strerror(error.errno).lower() if error.errno else str(error)
    problem, remedy = f"cannot be written: {said}", "check the folder and its permissions"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        problem, remedy = "the disk is full", "free some space and run the same command again"
    elif error.errno == errno.EFBIG:
        remedy = "raise the limit on the size of files, `ulimit -f`, or write to another disk"
    made = OutputError(path, problem, remedy)
    made.errno = error.errno
    return made
