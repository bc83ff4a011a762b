"""Figures, counts and paths as people read them."""

from __future__ import annotations

import shlex


def counted(count: int, what: str) -> str:
    """`1 episode`, `2 episodes`."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def figure(value: float | None, digits: int = 1) -> str:
    """`1,234.5`; a dash for what cannot be said.

    >>> figure(1234.56), figure(None)
    ('1,234.6', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def shell(*paths: object) -> str:
    """Paths as they are typed on a command line.

    >>> shell("a b.mp4", "c.mp4")
    "'a b.mp4' c.mp4"
    """
    return shlex.join(map(str, paths))


def human_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
