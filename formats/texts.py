"""Text files: .txt (one span at the start), .srt, .vtt and .jsonl (spans with times), and the way back.

A line of .jsonl is an object with `text` and one of `start_ns`, `start_s`, `start`, `time`, `t` (all but the first in
seconds), and `end_ns`, `end_s` or `end` if it has one. The language of a text (`eng`) is what a .vtt says at its top
(`Language: eng`), or `language` in every line of a .jsonl. Times in subtitles are exact milliseconds. Spans may
overlap, and come out in the order of their starts. Lines end with LF, CRLF or CR and with nothing else: texts may hold
U+2028 and its kin, at which Python's `splitlines` would cut them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats.files import read_text, replaced

SUFFIXES = frozenset({".txt", ".srt", ".vtt", ".jsonl"})
_CUE = re.compile(r"^\s*((?:\d+:)?\d+:\d\d[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d+:\d\d[.,]\d{1,3})(?:\s.*)?$")
_LANGUAGE = re.compile(r"Language:\s*(\S+)\s*$")
_LARGEST_NS = 2**62
Span = tuple[int, int | None, str]
"""start ns, end ns if it has one, text"""


def read_texts(path: Path, name: str = "text") -> Track:
    """A text track: values are an object array of str; info["ends_ns"] where spans have ends, info["language"] where it
    is said. Raises InputError."""
    content, said = read_text(path), set[str]()
    if path.suffix.lower() == ".txt":
        spans: list[Span] = [(0, None, content)]
    elif path.suffix.lower() == ".jsonl":
        spans = list(_json_lines(path, content, said))
    else:
        spans = list(_cues(content))
        head = _lines(content.split("-->", 1)[0]) if path.suffix.lower() == ".vtt" else []
        said = {found[1] for line in head if (found := _LANGUAGE.match(line))}
    if not any(text for _, _, text in spans):
        raise InputError(path, "holds no text", "remove it, or give it content")
    language = said.pop() if len(said) == 1 else ""
    return track_of(path, name, spans, **({"language": language} if language else {}))


def track_of(thing: object, name: str, spans: list[Span], **info: Any) -> Track:
    """The text track of spans, put in order. Raises InputError, which names `thing`, for times that are none."""
    for number, (start, end, text) in enumerate(spans, 1):
        _check(f"{thing} span {number}", start, end, text)
    spans.sort(key=lambda span: span[0])
    values = np.empty(len(spans), object)
    values[:] = [text for _, _, text in spans]
    clock = Clock.irregular(np.array([start for start, _, _ in spans], np.int64))
    ends = [end for _, end, _ in spans]
    if any(end is not None for end in ends):
        info["ends_ns"] = ends
    return Track.of_array(name, values, clock, info=info)


def read_corpus(paths: Iterable[Path]) -> Iterator[str]:
    """Every text in files, and in the text files of folders, to train a text model on. Raises InputError."""
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        for file in files:
            if file.suffix.lower() in SUFFIXES - {".txt"}:
                yield from (str(text) for text in read_texts(file).read()[0])
            else:
                yield read_text(file)


def _check(thing: str, start: int, end: int | None, text: str) -> None:
    if not 0 <= abs(start) < _LARGEST_NS or (end is not None and not start <= end < _LARGEST_NS):
        raise InputError(thing, f"lasts from {start / NS:g} s to {(end or 0) / NS:g} s", "mend its times")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(thing, f"holds half a character at {error.start}", "write it again as UTF-8") from error


def _lines(content: str) -> list[str]:
    return content.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _cues(content: str) -> Iterator[Span]:
    """The cues of .srt and .vtt: what follows a line of times, up to the next blank line."""
    lines = _lines(content)
    at = 0
    while at < len(lines):
        found = _CUE.match(lines[at])
        at += 1
        if not found:
            continue
        text = []
        while at < len(lines) and lines[at].strip() and not _CUE.match(lines[at]):
            text.append(lines[at])
            at += 1
        yield _clock_ns(found[1]), _clock_ns(found[2]), "\n".join(text)


def _clock_ns(stamp: str) -> int:
    *large, seconds = stamp.replace(",", ".").split(":")
    whole = 0
    for part in large:
        whole = whole * 60 + int(part)
    return int((whole * 60 + Fraction(seconds)) * NS)


def _json_lines(path: Path, content: str, said: set[str]) -> Iterator[Span]:
    """The spans; what they say of their language, `` for nothing, is added to `said`."""
    for number, line in enumerate(_lines(content), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, start = row["text"], _json_ns(row, ("start_ns", "start_s", "start", "time", "t"))
            if not isinstance(text, str) or start is None:
                raise KeyError("text or start")
            said.add(str(row.get("language") or ""))
            yield start, _json_ns(row, ("end_ns", "end_s", "end")), text
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise InputError(
                f"{path} line {number}", "is not an object with text and a start", 'e.g. {"start": 1.5, "text": "go"}'
            ) from error


def _json_ns(row: dict[str, Any], names: Sequence[str]) -> int | None:
    for name in names:
        if row.get(name) is not None:
            if isinstance(row[name], bool):
                raise TypeError(name)
            return round(Fraction(str(row[name])) * (1 if name.endswith("_ns") else NS))
    return None


def suffix_for(spans: Sequence[Span], language: str | None = None) -> str:
    """The plainest form that says all of it: .txt for one text without times, .srt if it holds them exactly, or .jsonl;
    .vtt in the place of .srt, and not .txt, where there is a language to be told.

    Subtitles have whole milliseconds, need ends, and know no blank lines within a text. A file with a byte of nought is
    not taken for text, and a byte order mark is not taken for a part of it.
    """
    if any("\0" in text or text.startswith("\ufeff") for _, _, text in spans):
        return ".jsonl"
    if language is None and len(spans) == 1 and spans[0][:2] == (0, None):
        return ".txt"
    whole = all(0 <= start < 100 * 3600 * NS and end is not None for start, end, _ in spans)
    if not whole or list(_cues(_subtitles(spans))) != list(spans):
        return ".jsonl"
    return ".srt" if language is None else ".vtt"


def _subtitles(spans: Sequence[Span], mark: str = ",") -> str:
    """Cues; `mark` stands before their milliseconds."""
    cues = []
    for number, (start, end, text) in enumerate(spans, 1):
        until = end if end is not None else start + NS
        cues.append(f"{number}\n{_stamp(start, mark)} --> {_stamp(until, mark)}\n{text}\n")
    return "\n".join(cues)


def write_texts(path: Path, spans: Sequence[Span], language: str | None = None) -> None:
    """By suffix: .txt (the texts, one after another), .srt and .vtt (whole milliseconds), .jsonl (exact nanoseconds).
    The last two say the language."""
    if path.suffix == ".txt":
        content = "\n".join(text for _, _, text in spans)
    elif path.suffix == ".srt":
        content = _subtitles(spans)
    elif path.suffix == ".vtt":
        head = "WEBVTT" if language is None else f"WEBVTT\nLanguage: {language}"
        content = f"{head}\n\n{_subtitles(spans, '.')}"
    else:
        more = {} if language is None else {"language": language}
        rows = ({"start_ns": s, **({} if e is None else {"end_ns": e}), "text": t, **more} for s, e, t in spans)
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replaced(path) as temporary:
        temporary.write_text(content, encoding="utf-8", newline="")


def _stamp(time_ns: int, mark: str) -> str:
    ms = (time_ns + 500_000) // 1_000_000
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{ms:03d}"
