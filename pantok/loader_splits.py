"""Which episodes are for training and which are kept from it.

What is unusual: an episode's split depends on nothing but what it was recorded from, so it stays when others are added
or removed, and two episodes of one file, or one file stored twice, are never on both sides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pantok.errors import OptionError

SPLITS: Mapping[str, float] = {"train": 0.9, "valid": 0.05, "test": 0.05}


def group_of(episode: str, sources: Sequence[Any], by: str = "source") -> str:
    """What decides an episode's split.

    by: `source`, the content of the first file that it was recorded from (its path where the content is not known, the
    id where there is no file); `episode`, its id; else a regular expression: what its first group (or all of it)
    matches in the id, the whole id where it does not match. Raises OptionError for an expression that is none.

    >>> group_of("kitchen-03", (), r"^(.+)-\\d+$")
    'kitchen'
    """
    if by == "episode":
        return episode
    if by == "source":
        return (sources[0].sha256 or sources[0].path) if sources else episode
    try:
        found = re.search(by, episode)
    except re.error as error:
        raise OptionError(
            f"loader split_by {by}", f"is no regular expression: {error}", "or: source, episode"
        ) from error
    return episode if found is None else found.group(1 if found.re.groups else 0) or episode


def split_of(group: str, splits: Mapping[str, float] = SPLITS) -> str:
    """The name of the split that a group is in; shares are of the groups, on average.

    >>> [split_of(name) for name in ("a", "b", "kitchen", "garden")]
    ['train', 'train', 'train', 'train']
    """
    check_splits(splits)
    place = int.from_bytes(hashlib.sha256(f"split:{group}".encode()).digest()[:8], "big") / 2**64
    total = sum(splits.values())
    # From the end, so that a larger share of training leaves the test split as it was.
    for name in reversed(list(splits)):
        place -= splits[name] / total
        if place < 0:
            return name
    return next(iter(splits))


def check_splits(splits: Mapping[str, float]) -> None:
    """Raises OptionError for shares that are none."""
    if not splits or any(share < 0 for share in splits.values()) or not sum(splits.values()) > 0:
        raise OptionError("loader splits", f"{dict(splits)} are no shares", 'e.g. {"train": 0.9, "valid": 0.1}')
