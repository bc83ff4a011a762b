"""Names of files that say which track they hold: EPISODE@TRACK.suffix, beside EPISODE.suffix.

Files that share a stem are one episode, so of two sounds or two cameras only one can be `ep1.wav` or `ep1.mp4`. The
other is `ep1@audio.1.wav`, `ep1@video.left.mp4`; what a name of a file cannot hold is escaped, as in addresses.

    >>> of_track("ep1", "text./task/say")
    'ep1@text.%2Ftask%2Fsay'
    >>> split("ep1@text.%2Ftask%2Fsay")
    ('ep1', 'text./task/say')
    >>> split("me@home.video")
    ('me@home.video', None)
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_KEPT = " !#$&'()+,;=@[]^`{}"  # besides letters, digits and -._~; the rest is no part of a name somewhere
_NAMED = re.compile(r"(.+)@((?:video|audio|text|proprio|action|reward)(?:\..+)?)", re.DOTALL)


def of_track(episode: str, track: str) -> str:
    """The name, without suffix, of a file that holds `track` of `episode`. Letters of all alphabets stay."""
    return f"{episode}@" + "".join(c if c.isalnum() else quote(c, safe=_KEPT) for c in track)


def split(stem: str) -> tuple[str, str | None]:
    """The episode of a file's name without suffix, and the track that it says it holds, if it does."""
    named = _NAMED.fullmatch(stem)
    return (named[1], unquote(named[2])) if named else (stem, None)
