"""Logs of robots (bags of ROS 1 and ROS 2, MCAP) as tracks: each topic on its own clock, all on one zero.

Which time is a message's: the stamp in its header, when a sensor took it; else when it was published; else when it was
logged. It is decided once for each topic, and kept in the track's info as `time`: a time is taken if every message has
it, it advances (nine of ten are distinct), and it lies within a minute of the log's own (median), as stamps of another
clock, counting from a computer's start or of a simulation, do not. `time = "log_time"` in episode.toml takes one for
all topics. Messages are put in the order of their times; of those at the same instant the first is kept.

Times that are dates become times from the first instant of the file; the date is `epoch_ns` in the info of each track,
by which `dates` puts files beside it on the same clock.

What is unusual: the file is walked through once. Numbers become columns some thousand messages at a time; of pictures
only the stamps and the places are kept, and they are fetched again each time that the track is read.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import InputError
from pantok.experience import NS, Clock, Track
from pantok.formats import bag_folder
from pantok.formats.dates import DATED_NS, moved, moved_clock
from pantok.formats.files import Problems
from pantok.formats.log_stream import Channel, Damage, Place
from pantok.formats.mcap_file import Unreadable
from pantok.formats.mcap_messages import MACHINE, MOST, OTHER, Gathered, Reader, TooLong, says_words, short, unit_of
from pantok.formats.mcap_pictures import TYPES as PICTURES
from pantok.formats.mcap_pictures import reason, video_track
from pantok.formats.table_clock import clock_of_stamps, offset_of
from pantok.formats.table_columns import distinct
from pantok.formats.tables import flavours, numeric_track, side_by_side, spoken
from pantok.formats.texts import Span
from pantok.formats.texts import track_of as text_track

TIMES = ("header.stamp", "publish_time", "log_time")
_FAR_NS = 60 * NS
_LARGEST_NS = 2**62
_ACTION = re.compile(r"(cmd|command|action|goal)s?")


@dataclass
class _Topic:
    """What was found of one topic. places: of pictures. why: it is left out, if somebody may miss it."""

    name: str
    type: str
    reader: Reader | None = None
    why: str | None = None
    logs: array[int] = field(default_factory=lambda: array("Q"))
    published: array[int] = field(default_factory=lambda: array("Q"))
    places: list[Place] = field(default_factory=list)
    seen: bool = False

    @property
    def shows(self) -> bool:
        return self.type in PICTURES

    def add(self, log: int, publish: int, content: bytes, place: Place) -> None:
        if self.why is not None or self.reader is None:
            return
        if self.shows:
            if not self.seen and (first := self.reader.one(content)) is not None:
                self.seen, self.why = True, reason(self.type, first)
            self.places.append(place)
        self.logs.append(log)
        self.published.append(publish)
        try:
            self.reader.add(content)
        except TooLong:
            self.why, self.reader = f"more than {MOST} numbers in a message", None


@dataclass(frozen=True)
class _Timed:
    """A topic with its messages in the order of their times. name: what its tracks are called behind their kind.

    columns: of numbers and words; of pictures there are none. order: which of the messages that decoded are kept, in
    order; dropped: how many are not, being at the instant of one before. which: whose time it is, one of `TIMES`.
    """

    topic: _Topic
    name: str
    columns: Gathered
    order: np.ndarray
    dropped: int
    clock: Clock
    which: str


def read_log(
    path: Path, rules: Mapping[str, Any], problems: Problems, *, size: int | None = None, fps: Fraction | None = None
) -> list[Track]:
    """The tracks of a log: numbers and words in memory, pictures as they are read. rules: what episode.toml says.

    size, fps: of pictures. Raises InputError for what is no log, or holds nothing that can be read; what was left out
    or is damaged goes to `problems`, one line for each kind.
    """
    said = rules.get("time")
    if said is not None and said not in TIMES:
        raise InputError(path, f"its time is {said!r} by episode.toml", f"one of {', '.join(TIMES)}")
    damage = Damage()
    topics = _scanned(path, damage)
    names = {_plain(topic.name) for topic in topics}
    actions = {_plain(name) for name in rules.get("actions", ())}
    if actions - names:
        raise InputError(
            path,
            f"has no topic {min(actions - names)}, an action by episode.toml",
            f"it has {', '.join(sorted(names))}",
        )
    timed = [
        one
        for name, topic in zip(distinct([_plain(topic.name) for topic in topics]), topics, strict=True)
        if (one := _timed(topic, name, said)) is not None
    ]
    zero = min((one.clock.start_ns for one in timed), default=0)
    zero = zero if zero > DATED_NS else 0
    tracks: list[Track] = []
    for one in timed:
        facts = {"time": one.which} | ({"epoch_ns": zero} if zero else {})
        clock = moved_clock(one.clock, -zero)
        if one.topic.shows:
            found = _pictures(path, one, clock, problems, size, fps)
        else:
            kind = _kind(one.topic.name, _plain(one.topic.name) in actions)
            found = [*_numbers(one, kind, clock), *_words(path, one, clock)]
        tracks += [replace(track, info={**track.info, **facts}) for track in found]
    for line in _told(damage, topics, timed):
        problems(f"{path}: {line}")
    if not tracks:
        what = "holds no topic that can be read" if topics else "holds no messages"
        raise InputError(path, what, "check what was recorded, and whether the file is whole")
    return [moved(track, offset_of(rules)) for track in tracks]


def _told(damage: Damage, topics: Sequence[_Topic], timed: Sequence[_Timed]) -> Iterator[str]:
    """A line for each kind of thing that is not as it should be."""
    if damage.said():
        yield damage.said()
    read = [(topic, topic.reader) for topic in topics if topic.reader is not None and topic.why is None]
    lost = [f"{reader.failed} of {len(topic.logs)} of {topic.name}" for topic, reader in read if reader.failed]
    again = [f"{one.dropped} of {one.topic.name}" for one in timed if one.dropped]
    uneven = [f"{', '.join(one.columns.uneven)} of {one.topic.name}" for one in timed if one.columns.uneven]
    left = [
        f"{topic.name} ({topic.type or 'no type'}{topic.why and f': {topic.why}'})"
        for topic in topics
        if topic.why is not None
    ]
    for what, which in (
        ("messages that do not decode (left out; the others are kept)", lost),
        ("messages at the instant of one before them (left out)", again),
        ("lists of different lengths (left out)", uneven),
        ("topics that are not read", left),
    ):
        if which:
            yield f"{what}: {', '.join(which)}"


def _scanned(path: Path, damage: Damage) -> list[_Topic]:
    """Every topic of the file with its messages, those decoded that are not pictures."""
    topics: dict[Channel, _Topic] = {}

    def wanted(channel: Channel) -> bool:
        if channel not in topics:  # several publishers of the same are one
            topics[channel] = topic = _Topic(channel.topic, short(channel.type))
            if OTHER.fullmatch(topic.type):
                topic.why = ""
            elif not MACHINE.fullmatch(topic.type):
                try:
                    topic.reader = Reader(channel, stamps_only=topic.shows)
                except Unreadable as error:
                    topic.why = str(error)
        return topics[channel].reader is not None

    for channel, log, publish, content, place in bag_folder.messages(path, wanted, damage):
        topics[channel].add(log, publish, content, place)
    return list(topics.values())


def _timed(topic: _Topic, name: str, said: str | None) -> _Timed | None:
    """The topic on its clock; None, and `why` in the topic, if nothing of it can be read."""
    if topic.reader is None or topic.why is not None or not topic.logs:
        return None
    columns = topic.reader.gathered()
    kept = columns.kept
    if len(columns.numbers) > MOST:
        topic.why = f"more than {MOST} numbers in a message"
    elif not len(kept) or not (topic.shows or columns.numbers or columns.words):
        topic.why = "neither numbers nor words" if len(kept) else "no message decodes"
    if topic.why is not None:
        return None
    logs = np.array(topic.logs, np.uint64)[kept].clip(0, _LARGEST_NS).astype(np.int64)
    published = np.array(topic.published, np.uint64)[kept].clip(0, _LARGEST_NS).astype(np.int64)
    which, times = _times({"header.stamp": columns.stamps, "publish_time": published, "log_time": logs}, said)
    order = np.argsort(times, kind="stable")
    order = order[np.diff(times[order], prepend=-1) > 0]
    return _Timed(topic, name, columns, order, len(kept) - len(order), clock_of_stamps(times[order], 1), which)


def _times(found: Mapping[str, np.ndarray | None], said: str | None) -> tuple[str, np.ndarray]:
    """Which of the times of a topic's messages are its own, int64 nanoseconds (n,)."""
    logs = found["log_time"]
    assert logs is not None
    if said is not None and found[said] is not None:
        return said, found[said]  # type: ignore[return-value]
    sound = _advances(logs)
    for which in TIMES[:2]:
        times = found[which]
        if times is None or not _advances(times) or (which == "publish_time" and (times == logs).all()):
            continue
        if not sound or np.median(np.abs(times - logs)) <= _FAR_NS:
            return which, times
    return "log_time", logs


def _advances(times: np.ndarray) -> bool:
    return bool((times > 0).all() and (times < _LARGEST_NS).all() and len(np.unique(times)) * 10 >= len(times) * 9)


def _plain(topic: str) -> str:
    """`/arm/joint_states` is `arm.joint_states`."""
    return topic.strip("/").replace("/", ".") or "topic"


def _kind(topic: str, said: bool) -> str:
    """By the words of the last part of a topic's name, or by its first part: `/arm/joint_commands`, `/action/arm`."""
    parts = topic.lower().strip("/").split("/")
    words = set(parts[-1].split("_"))
    if said or any(_ACTION.fullmatch(word) for word in words) or _ACTION.fullmatch(parts[0]):
        return "action"
    return "reward" if words & {"reward", "rewards"} else "proprio"


def _numbers(one: _Timed, kind: str, clock: Clock) -> list[Track]:
    """A track for each type of number that the topic has."""
    numbers = one.columns.numbers
    labels = flavours(values.dtype for values in numbers.values())
    base = kind if one.name == kind else f"{kind}.{one.name.removeprefix(f'{kind}.')}"
    tracks = []
    for dtype, label in labels.items():
        names = [name for name, values in numbers.items() if values.dtype == dtype]
        parts = {name: numbers.pop(name)[one.order] for name in names}
        units = tuple(unit_of(one.topic.type, name) for name in parts)
        channels = tuple(parts)
        values = side_by_side(parts)
        tracks.append(numeric_track(base + label, values, clock, channels, units if any(units) else ()))
    return sorted(tracks, key=lambda track: track.name)


def _words(path: Path, one: _Timed, clock: Clock) -> list[Track]:
    """Of a topic of strings a span for each message; of words beside others one for each stretch that says the same."""
    tracks: list[Track] = []
    for said, words in one.columns.words.items() if says_words(one.topic.type) else ():
        words = words[one.order]
        name = one.name if len(one.columns.words) == 1 else f"{one.name}.{said}"
        if one.topic.type == "std_msgs/String":
            spans: list[Span] = [(t, None, w) for t, w in zip(clock.times_ns.tolist(), words, strict=True) if w]
            tracks += [text_track(f"{path} {one.topic.name}", f"text.{name}", spans)] if spans else []
        else:
            tracks += spoken(name, words, clock)
    return tracks


def _pictures(
    path: Path, one: _Timed, clock: Clock, problems: Problems, size: int | None, fps: Fraction | None
) -> list[Track]:
    """The topic as video, if it can be decoded."""
    assert one.topic.reader is not None
    places = [one.topic.places[n] for n in one.columns.kept[one.order]]
    show = one.topic.reader.one
    name, kind = f"video.{one.name}", one.topic.type
    track = video_track(path, name, kind, places, bag_folder.fetched, show, clock, problems, size, fps)
    if track is None:
        one.topic.why = "its first pictures cannot be decoded"
    return [] if track is None else [track]
