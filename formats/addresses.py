"""Where a store lies: a path, or an address in object storage such as `s3://bucket/home.zarr`.

What is unusual: `pathlib` makes `s3:/bucket` of `s3://bucket`. A `Place` is a path that writes itself with both
slashes, so that messages and documents name what the user named.
"""

from __future__ import annotations

import re
from pathlib import Path

_SCHEME = re.compile(r"^(s3|gs|az|memory):/")


def is_remote(path: str | Path) -> bool:
    """Whether a store's path is an address in object storage, with one slash or two."""
    return _SCHEME.match(str(path)) is not None


def address(path: str | Path) -> str:
    """The address in full, without a slash at its end."""
    return re.sub(r"^(\w+):/+", r"\1://", str(path)).rstrip("/")


class Place(type(Path())):  # type: ignore[misc]
    """A path, or an address that looks like one.

    >>> str(Place("s3://bucket/home.zarr")), str(Place("s3://bucket") / "home.zarr"), str(Place("home.zarr"))
    ('s3://bucket/home.zarr', 's3://bucket/home.zarr', 'home.zarr')
    """

    def __str__(self) -> str:
        text = super().__str__()
        return address(text) if _SCHEME.match(text) else text
