"""What tracks and channels are called after the columns that they are made of.

What is unusual: names of columns that lie in groups are paths, `observations/images/cam_high`, and of a path only what
tells one column from another is kept. Groups that say no more than that something was observed are dropped, and of
pictures those that say no more than that they are pictures; what would be called the same keeps its whole path. A name
without slashes stays as it is, and so does one of a table that has no groups.

    >>> paths = ("action", "observations/qpos", "observations/images/cam_high", "obs/sensor_data/hand/rgb")
    >>> list(labels({p: kind_of(p, path=True) for p in paths}, paths[2:]).values())
    ['action', 'qpos', 'cam_high', 'hand']
    >>> labels({"obs/a/x": "proprio", "observation/a/x": "proprio"}, ())
    {'obs/a/x': 'obs.a.x', 'observation/a/x': 'observation.a.x'}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

_GROUPS = (("action", ("action", "cmd")), ("reward", ("reward",)))
_SEEN = {"obs", "observation", "observations"}
_NO_MORE = {"data", "steps", "trajectory"}
_SHOWING = {"images", "image", "rgb_images", "rgb", "color", "cameras", "sensor_data"}


def kind_of(name: str, path: bool = False) -> str:
    """`action`, `reward` or `proprio`: how a column's name begins; of one in a group, how the path does.

    What lies among observations is none of the first two: `obs/actions` are those that the robot was told before.
    """
    low = name.lower()
    if not path or "/" not in low:
        low = low.replace("observation.", "")
        return next((kind for kind, starts in _GROUPS if low.startswith(starts)), "proprio")
    first = next((word for word in low.split("/") if word not in _NO_MORE), "")
    if first in _SEEN:
        return "proprio"
    words = [first, *first.split("_")]  # joint_action/left_arm
    return next((kind for kind, starts in _GROUPS if any(word.startswith(starts) for word in words)), "proprio")


def labels(kinds: Mapping[str, str], shown: Collection[str]) -> dict[str, str]:
    """What each column is called within its kind. kinds: by name. shown: those that are pictures."""
    short = {name: _short(name, name in shown) for name in kinds}
    count = Counter((kind, name in shown, short[name]) for name, kind in kinds.items())
    again = {name for name, kind in kinds.items() if count[kind, name in shown, short[name]] > 1}
    return {name: name.replace("/", ".") if name in again else short[name] for name in kinds}


def _short(name: str, shown: bool) -> str:
    if "/" not in name:
        return name
    words = name.split("/")
    while len(words) > 1 and words[0].lower() in _SEEN | _NO_MORE:
        del words[0]
    if shown:
        words = [word for word in words if word.lower() not in _SHOWING] or words[-1:]
    return ".".join(words)
