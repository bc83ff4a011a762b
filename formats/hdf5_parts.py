"""Which groups of an HDF5 file are episodes.

They are the groups within one group that are called by a word and a number, all by the same word, and hold datasets of
the same names: `data/demo_0`, `data/demo_1`; `traj_0`; `episode_000001`. Where the word is one for an episode (demo,
traj, episode, trial, rollout ...), one such group suffices, whatever lies beside it. Any other word, or none, needs at
least two, nothing else beside them or above that holds rows, and must not be one for what a robot has several of:
`robot_0` and `robot_1` are two arms, `cam_0` and `cam_1` two eyes, of one episode. Groups called `mask`, which list
names of episodes, are passed over. Else the whole file is one episode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pantok.formats.rows import FAULTS

_EPISODES = {
    "demo", "demos", "demonstration", "traj", "trajectory", "episode", "ep", "eps", "trial", "rollout", "take", "run",
    "path", "sequence", "seq", "recording", "session", "attempt",
}  # fmt: skip
_OF_ONE = {
    "robot", "arm", "hand", "finger", "leg", "foot", "head", "joint", "link", "gripper", "tool", "motor", "wheel",
    "cam", "camera", "eye", "view", "image", "rgb", "depth", "lidar", "imu", "sensor", "mic", "device", "marker",
    "agent", "user", "actor", "body", "object", "obj", "left", "right", "level", "layer", "field", "channel",
    "stream", "topic", "frame", "step", "chunk", "block", "c", "x", "t",
}  # fmt: skip
_NUMBERED = re.compile(r"(.*?)[\W_]*([0-9]+)")
_DEPTH, _LOOKED_AT = 2, 5
LISTS = {"mask"}
"""Groups that list names of episodes."""


@dataclass(frozen=True)
class Parts:
    """groups: of each episode, by its name, in natural order; empty if the file is one. beside: what is in none."""

    groups: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


def find_parts(file: Any) -> Parts:
    """The episodes of an open file."""
    beside: list[str] = []
    found = list(_search(file, "", _DEPTH, beside, alone=True))
    short = {where.rsplit("/", 1)[-1]: where for where in found}
    named = short if len(short) == len(found) else {where: where for where in found}
    return Parts({name: named[name] for name in sorted(named, key=natural)}, tuple(beside) if found else ())


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which demo_2 comes before demo_10."""
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in re.split(r"([0-9]+)", name) if p]


def is_group(group: Any, name: str) -> bool:
    """Also of a link to what is not there: it may have been a group."""
    try:
        return hasattr(group.get(name, default=None, getclass=True) or group, "keys")
    except FAULTS:
        return True


def _search(group: Any, prefix: str, depth: int, beside: list[str], *, alone: bool) -> Iterator[str]:
    """alone: nothing above holds rows, or other groups."""
    names = [name for name in group if isinstance(name, str)] if hasattr(group, "keys") else []
    groups = [name for name in names if is_group(group, name) and name not in LISTS]
    rows = [name for name in names if name not in groups and name not in LISTS and _has_rows(group, name)]
    numbered = _numbered(group, groups, not rows and alone)
    if numbered:
        yield from (prefix + name for name in numbered)
        beside += [prefix + name for name in (*groups, *rows) if name not in numbered]
    elif depth:
        above = alone and len(groups) == 1 and not rows
        for name in groups:
            nearby: list[str] = []
            try:
                inside = list(_search(group[name], f"{prefix}{name}/", depth - 1, nearby, alone=above))
            except FAULTS:
                inside = []
            beside += nearby if inside else [prefix + name]
            yield from inside
        beside += [prefix + name for name in rows]


def _numbered(group: Any, groups: list[str], alone: bool) -> list[str]:
    """Those of the groups within a group that are episodes."""
    told = {name: said[1] for name in groups if (said := _NUMBERED.fullmatch(name))}
    words = {name: re.split(r"[\W_]+", stem.lower())[-1] for name, stem in told.items()}
    known = [name for name, word in words.items() if word in _EPISODES]
    names = known or list(told)
    if not names or len({told[name] for name in names}) > 1:
        return []
    own = re.findall("[a-z]+", (group.name or "").rsplit("/", 1)[-1].lower())
    others = {words[names[0]], *own, *(word.removesuffix("s") for word in own)}
    if not known and (len(names) < 2 or len(names) < len(groups) or not alone or others & _OF_ONE):
        return []
    step = max(1, -(-len(names) // _LOOKED_AT))
    held = [set(_datasets(group, name, 3)) for name in names[::step]]
    filled = [h for h in held if h]  # one that was begun and given up holds none
    return names if not filled or set.intersection(*filled) else []


def _datasets(group: Any, name: str, depth: int) -> Iterator[str]:
    try:
        inner = group[name]
        for child in inner if hasattr(inner, "keys") else ():
            if not isinstance(child, str) or not is_group(inner, child):
                yield str(child)
            elif depth:
                yield from (f"{child}/{below}" for below in _datasets(inner, child, depth - 1))
    except FAULTS:
        return


def _has_rows(group: Any, name: str) -> bool:
    try:
        shape: tuple[int, ...] = getattr(group[name], "shape", None) or ()
    except FAULTS:
        return False
    return bool(shape) and shape[0] > 1
