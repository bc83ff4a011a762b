"""The recordings that a token stream was made from, found again and proven to be the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pantok.errors import InputError
from pantok.experience import Source
from pantok.formats.files import sha256_of, size_of


def locate(sources: Sequence[Source], folder: Path | None = None) -> tuple[Path, ...]:
    """Where each source is now, in their order.

    folder: where to look instead of where they were: by as much of the path as it holds, else by name anywhere
        below. Raises InputError for a source that is missing, or whose size or sha256 is another.
    """
    return tuple(_same_content(_find(Path(source.path), folder), source) for source in sources)


def _find(path: Path, folder: Path | None) -> Path:
    if folder is None:
        if path.exists():
            return path
        raise InputError(path, "the original is missing", "--sources DIR says where the recordings are now")
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "--sources takes the folder that holds the recordings")
    for skip in range(len(path.parts)):
        there = folder.joinpath(*[p for p in path.parts[skip:] if p not in (path.anchor, "..")])
        if there.exists():
            return there
    # By the name itself: as a pattern `take[1].mp4` would not match. Folders that vanish meanwhile hold nothing.
    found = (Path(inner, path.name) for inner, *names in os.walk(folder) if any(path.name in n for n in names))
    below = sorted(p for p in found if p.exists())
    if len(below) == 1:
        return below[0]
    if below:
        raise InputError(
            folder, f"holds {len(below)} files named {path.name}", "name the folder that holds the right one"
        )
    raise InputError(folder, f"holds no {path.name}", "--sources DIR says where the recordings are now")


def _same_content(path: Path, source: Source) -> Path:
    remedy = "encode it again, or give the file that was encoded with --sources DIR"
    try:
        size = size_of(path)
        if size != source.size_bytes:
            raise InputError(path, f"has changed: {size} bytes, {source.size_bytes} when it was encoded", remedy)
        if source.sha256 and sha256_of(path) != source.sha256:
            raise InputError(path, "has changed since it was encoded (another sha256)", remedy)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check who may read it") from error
    return path
