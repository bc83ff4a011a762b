"""The grammar of layouts: which tracks and levels become ids, in which order, and how many.

What is unusual: a budget is a cut, never a choice. Codes stand coarse first, so a unit (what one track says in one of
its ticks) or a step that has more ids than it may have is cut short, and what stays is a coarser state that decodes.
(Of video that is cut before its coarse codes nothing is seen: a budget should leave room for those; a small view, which
has few, is a matter of `encode --size`.)

A layout as a TOML file; every key is optional, `preset` names what the others change:

    preset = "default"
    tracks = ["text*", "video*", "proprio*", "action*", "reward*"]   # order within a step: the action after the state
    first = ["text.goal"]           # before everything else, whatever their times
    drop = ["video.wrist"]          # left out
    step_s = 0.2
    marks = "needed"                # "all", "needed", "none"; false is "none"
    step_ids = 256                  # at most so many ids a step, its <tick> included
    latents = false
    [levels]                        # by track name or modality: how many levels, or the last one by its name
    video = "coarse"
    audio = 2
    [max_ids]                       # by track name or modality: most ids of a unit, its marker aside
    "video.front" = 16
    [roles]                         # patterns of track names; observation where none fits
    "cmd*" = "action"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pantok.config import from_mapping
from pantok.errors import OptionError
from pantok.vocabulary import Level

KINDS = ("control", "text", "code", "mode", "digit", "latent")
"""What an id is, as numbered in `TokenSequence.kind`."""
ROLES = ("observation", "action", "reward", "text", "control")
"""What an id is for, as numbered in `TokenSequence.role`; control: of no track."""
MARKS = ("none", "needed", "all")
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "sketch": {"levels": {"video": "moved"}},
    "coarse": {"levels": {"video": "coarse", "audio": "gain.frame", "numeric": 1}},
    "video-only": {"tracks": ("video*",)},
    "action-conditioned": {"tracks": ("video*", "proprio*", "imu*", "action*", "reward*")},
    "text-first": {"first": ("text*",)},
}


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def levels(self) -> Sequence[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """tracks: patterns of track names, in their order within a step; a track belongs to the first that matches, one
    that matches none is left out. first: patterns of tracks that stand before everything else, whatever their times.
    drop: patterns of tracks that are left out. levels: how many levels to keep, or the name of the last one, by track
    name or modality; all where nothing is said. step_s: seconds of a step.

    marks: `all` puts <tick> before a step and the begin marker of its modality before each unit; `needed` leaves out
    a unit's marker where its ids tell which it is (it has some, and the unit before it in its step is of another
    modality); `none` leaves out both, and then a sequence is told apart only with the counts of its stream. True and
    False are `all` and `none`.
    max_ids: the most ids of a unit, its begin marker aside, by track name or modality. step_ids: the most ids of a
    step, its <tick> included (0: no bound): its longest units are cut to a common length; if it has more units than
    ids, the last ones drop out.
    latents: whether each unit ends with a placeholder id for each of its latents, which stand beside the ids.
    roles: the role (see ROLES) of tracks by pattern, the first that fits; an observation where none does.
    """

    tracks: tuple[str, ...] = ("text*", "video*", "audio*", "*", "action*", "reward*")
    first: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    levels: Mapping[str, int | str] = field(default_factory=dict)
    step_s: float = 0.2
    marks: str | bool = "all"
    max_ids: Mapping[str, int] = field(default_factory=dict)
    step_ids: int = 0
    latents: bool = False
    roles: Mapping[str, str] = field(
        default_factory=lambda: {"action*": "action", "reward*": "reward", "text*": "text"}
    )

    def __post_init__(self) -> None:
        if isinstance(self.marks, bool):
            object.__setattr__(self, "marks", "all" if self.marks else "none")
        if self.marks not in MARKS:
            raise OptionError("layout marks", f"cannot be {self.marks}", f"known: {', '.join(MARKS)}")
        if not 1e-3 <= self.step_s <= 3600:
            raise OptionError("layout step_s", f"{self.step_s} is out of range", "choose 0.001 to 3600 seconds")
        if not self.tracks:
            raise OptionError("layout tracks", "names no track", 'e.g. tracks = ["video*", "action*"]')
        for name, count in self.levels.items():
            if not isinstance(count, str) and count < 1:
                raise OptionError(f"layout levels {name}", f"{count} leaves nothing", "leave the track out of `tracks`")
        for name, most in self.max_ids.items():
            if most < 1:
                raise OptionError(f"layout max_ids {name}", f"{most} leaves nothing", "leave the track out of `tracks`")
        if self.step_ids and not 2 <= self.step_ids <= 1 << 20:
            raise OptionError("layout step_ids", f"{self.step_ids} is out of range", "choose 2 or more, 0 for no bound")
        for pattern, role in self.roles.items():
            if role not in ROLES:
                raise OptionError(f"layout roles {pattern}", f"cannot be {role}", f"known: {', '.join(ROLES)}")

    @classmethod
    def preset(cls, name: str) -> Layout:
        """One of PRESETS. Raises OptionError."""
        if name not in PRESETS:
            raise OptionError(f"layout {name}", "is no preset and no file", f"known: {', '.join(PRESETS)}")
        return cls(**PRESETS[name])

    @classmethod
    def of(cls, what: str | Path | Mapping[str, Any] | Layout) -> Layout:
        """A layout as it is, by its settings, by the name of a preset, or from a TOML file (which may name a `preset`
        that it changes). Raises OptionError."""
        if isinstance(what, Layout):
            return what
        if isinstance(what, (str, Path)) and not str(what).endswith(".toml"):
            return cls.preset(str(what))
        if isinstance(what, Mapping):
            settings = dict(what)
        else:
            try:
                settings = tomllib.loads(Path(what).read_text(encoding="utf-8"))
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise OptionError(f"layout {what}", f"cannot be read: {error}", "see `Layout`") from error
        settings = {name.replace("-", "_"): value for name, value in settings.items()}
        base = settings.pop("preset", None)
        given = from_mapping(cls, {**PRESETS.get(base or "default", {}), **settings}, "layout")
        return given if base is None else replace(cls.preset(base), **{k: getattr(given, k) for k in settings})

    def place(self, track: str) -> int:
        """The track's place within a step; -1 if it is left out. `first` is asked before `tracks`; of several patterns
        the longest wins, then the first."""
        # Asked of every track of every episode that a job opens, and the names are few.
        found = self._places.get(track)
        if found is None:
            found = self._places[track] = self._found(track)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        return {}

    def _found(self, track: str) -> int:
        if any(fnmatchcase(track, pattern) for pattern in self.drop):
            return -1
        for patterns, base in ((self.first, len(self.tracks)), (self.tracks, 0)):
            fitting = [(len(p), -i) for i, p in enumerate(patterns) if fnmatchcase(track, p)]
            if fitting:
                return base - max(fitting)[1]
        return -1

    def is_early(self, track: str) -> bool:
        """Whether it stands before everything else."""
        return self.place(track) >= len(self.tracks)

    def keeps(self, track: str) -> bool:
        return self.place(track) >= 0

    def role(self, track: str) -> str:
        """One of ROLES."""
        return next((role for pattern, role in self.roles.items() if fnmatchcase(track, pattern)), "observation")

    def depth(self, track: _Named, specs: Sequence[Level] = ()) -> int:
        """Levels of the track that are kept. specs: its modality's, which are asked where a level is named.

        Raises OptionError for a name that is not among them.
        """
        said = self.levels.get(track.name, self.levels.get(track.modality))
        if isinstance(said, str):
            names = [spec.name for spec in specs]
            if said not in names:
                raise OptionError(
                    f"layout levels {track.modality}", f"has no level {said}", f"known: {', '.join(names)}"
                )
            said = names.index(said) + 1
        return len(track.levels) if said is None else min(said, len(track.levels))

    def most(self, track: _Named) -> int:
        """The most ids of a unit; -1 where nothing is said."""
        return self.max_ids.get(track.name, self.max_ids.get(track.modality, -1))
