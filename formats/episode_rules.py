"""What an `episode.toml` says of the files beside it; what cannot be obeyed is an error that says what can.

The keys: see `_RULES`, and `EPISODES.md`.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatch
from fractions import Fraction
from pathlib import Path
from typing import Any

from pantok.errors import InputError
from pantok.experience import NS
from pantok.formats.files import Problems, read_text

RULES = "episode.toml"
_NAME = re.compile(r"[A-Za-z][\w-]*(\.[\w.-]+)?")


class Rules:
    """What the episode.toml of each folder says of its files; one that cannot be obeyed is a problem, said once."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._tables: dict[Path, Mapping[str, Mapping[str, Any]] | None] = {}
        self.failed: list[InputError] = []

    def of(self, path: Path) -> Mapping[str, Any] | None:
        """The tables whose pattern fits, later ones over earlier; None if the folder's rules cannot be read."""
        folder = path.parent
        if folder not in self._tables:
            try:
                self._tables[folder] = read_rules(folder / RULES, self._problems)
            except InputError as error:
                self._tables[folder] = None
                self.failed.append(error)
                self._problems(f"{error}; the recordings beside it are left out")
        tables = self._tables[folder]
        if tables is None:
            return None
        fitting = [t for pattern, t in tables.items() if path.name == pattern or fnmatch(path.name, pattern)]
        return {key: value for t in fitting for key, value in t.items()}


def read_rules(path: Path, problems: Problems = lambda line: None) -> Mapping[str, Mapping[str, Any]]:
    """The tables of an episode.toml by their pattern; none if there is no such file.

    Raises InputError for what is not TOML, an unknown key, or a value of the wrong kind. A plain name that no file
    has goes to `problems`.
    """
    if not os.path.isfile(path):
        return {}
    try:
        whole = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, f"is not TOML: {error}", "formats/EPISODES.md shows one") from error
    _known(path, "", whole, {"files"})
    tables = whole.get("files", {})
    for pattern, table in tables.items() if isinstance(tables, dict) else [("", None)]:
        if not isinstance(table, dict):
            raise InputError(path, f"says {pattern or 'files'} = ...", '[files."*.csv"] begins a table of rules')
        where = f'[files."{pattern}"]'
        _known(path, where, table, _RULES)
        for key, value in table.items():
            fits, wanted = _RULES[key]
            if not fits(value):
                raise InputError(path, f"{where} has {key} = {value!r}", f"{key} is {wanted}")
        if not set(pattern) & set("*?[") and not (path.parent / pattern).exists():
            problems(f"{path}: {where} fits no file (check its spelling)")
    return tables


def _known(path: Path, where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    wrong = sorted(set(table) - set(known))
    if wrong:
        near = get_close_matches(wrong[0], known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(path, f"{where} has {wrong[0]}".strip(), f"{hint}known: {', '.join(sorted(known))}")


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10  # NaN is not


def _is_rate(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and Fraction(1, 10**6) <= Fraction(str(value)) <= NS
    except (ValueError, ZeroDivisionError):
        return False


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "time": (lambda v: isinstance(v, str), "the name of a column"),
    "unit": (lambda v: v in ("s", "ms", "us", "ns"), "s, ms, us or ns"),
    "rate_hz": (_is_rate, 'rows a second: 50, or "30000/1001"'),
    "offset_s": (_is_number, "a number of seconds"),
    "offset_ns": (lambda v: isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**62, "whole nanoseconds"),
    "actions": (_are_names, "a list of columns"),
    "pictures": (_are_names, "a list of arrays"),
    "ignore": (lambda v: isinstance(v, bool), "true or false"),
    "name": (lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v)), 'such as "video.front" or "wrist"'),
}
