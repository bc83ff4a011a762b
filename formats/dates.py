"""Tables and logs whose times are dates, beside recordings whose times begin at zero: all on one clock.

What is unusual: nothing, until one looks: a robot's log says 1714564800.25 s, its video says 0. A video's container may
say when it was made (`creation_time`), which is when the recording began or, with some phones, when it ended; that of
the two is taken under which video and table overlap more. It counts in whole seconds: what needs to be closer says so
in episode.toml. Where nothing says, both begin together, and a line says that.

What was subtracted is kept in the track's info as `epoch_ns`, nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pantok.experience import NS, Block, Clock, Track
from pantok.formats.files import Problems

DATED_NS = 10**17
"""Clocks that begin later than this (in 1973, if it is a date) tell dates; no recording lasts for three years."""


def aligned(
    read: Sequence[tuple[Path, Mapping[str, object], Sequence[Track]]], problems: Problems
) -> list[tuple[Path, Mapping[str, object], list[Track]]]:
    """The tracks of an episode's files, those with dates moved to the clock of those without, if there are both."""
    files = [(path, rules, list(tracks)) for path, rules, tracks in read]
    dated = [(path, t) for path, _, tracks in files for t in tracks if _since(t) is not None]
    plain = [path for path, rules, tracks in files for t in tracks if _since(t) is None and not _is_moved(rules)]
    if not dated:
        return files
    if not plain:
        # Logs begin at zero, at the first of them; beside tables, which keep their dates, they have dates too.
        kept = any(is_dated(t) for _, t in dated) or any(_is_moved(rules) for _, rules, _ in files)
        epoch = 0 if kept else min(_since(t) or 0 for _, t in dated)
    else:
        spans = [_span(track) for _, track in dated]
        first, last = min(s for s, _ in spans), max(e for _, e in spans)
        said = next((e for path in dict.fromkeys(plain) if (e := _epoch(path, first, last)) is not None), None)
        epoch = first if said is None else said
        if said is None:
            path = dated[0][0]
            problems(
                f"{path}: its times are dates and {plain[0].name} does not say when it was recorded; both begin "
                f'together (say it in episode.toml: [files."{plain[0].name}"] offset_s = {first // NS})'
            )
    return [
        (path, rules, [t if _since(t) is None else _dated_from(t, epoch) for t in tracks])
        for path, rules, tracks in files
    ]


def _since(track: Track) -> int | None:
    """The date that is zero on the track's clock, nanoseconds since 1970; None if nothing says it."""
    return int(track.info["epoch_ns"]) if "epoch_ns" in track.info else 0 if is_dated(track) else None


def is_dated(track: Track) -> bool:
    """Whether the track's clock is known to tell dates; that of a container is not known before it is read."""
    if track.clock is None:
        return track.begins_ns is not None and track.begins_ns > DATED_NS
    return track.clock.count > 0 and track.clock.start_ns > DATED_NS


def moved_clock(clock: Clock, offset_ns: int) -> Clock:
    """The same instants, `offset_ns` later."""
    if clock.rate is not None:
        return Clock.regular(clock.rate, clock.count, clock.start_ns + offset_ns)
    return Clock.irregular(clock.times_ns + offset_ns)


def moved(track: Track, offset_ns: int) -> Track:
    """The track with its clock moved."""
    if not offset_ns:
        return track
    if track.info.get("ends_ns"):
        ends = [None if end is None else end + offset_ns for end in track.info["ends_ns"]]
        track = replace(track, info={**track.info, "ends_ns": ends})
    clock = None if track.clock is None else moved_clock(track.clock, offset_ns)
    source = track.open

    def blocks() -> Iterator[Block]:
        for block in source():
            yield block if block.times_ns is None else replace(block, times_ns=block.times_ns + offset_ns)

    begins_ns = None if track.begins_ns is None else track.begins_ns + offset_ns
    return replace(track, open=blocks, clock=clock, begins_ns=begins_ns)


def _dated_from(track: Track, epoch_ns: int) -> Track:
    """The track with `epoch_ns` at zero; with 0 its times are dates themselves."""
    track = moved(track, (_since(track) or 0) - epoch_ns)
    info = {key: value for key, value in track.info.items() if key != "epoch_ns"}
    return replace(track, info=info | ({"epoch_ns": epoch_ns} if epoch_ns else {}))


def _is_moved(rules: Mapping[str, object]) -> bool:
    """Whether episode.toml moved the file's clock to dates."""
    from pantok.formats.table_clock import offset_of

    return offset_of(rules) > DATED_NS


def _span(track: Track) -> tuple[int, int]:
    """The dates of its beginning and its end; of pictures that are not read yet, as far as it is told."""
    since = _since(track) or 0
    if track.clock is None:
        begins = since + (track.begins_ns or 0)
        return begins, begins + round((track.told_s or 0) * NS)
    return since + track.clock.start_ns, since + track.clock.start_ns + track.clock.duration_ns


def _epoch(path: Path, first_ns: int, last_ns: int) -> int | None:
    """When a container's recording began, nanoseconds since 1970, if it says so and the dates from `first_ns` to
    `last_ns` lie at least partly within it."""
    said = _creation(path)
    if said is None:
        return None
    made_ns, length_ns = said
    best, most = None, 0
    for begin in (made_ns, made_ns - length_ns):
        # A second on either side: that is how finely it is said.
        overlap = min(last_ns, begin + length_ns) - max(first_ns, begin) + NS
        if overlap > most:
            best, most = begin, overlap
    return best


def _creation(path: Path) -> tuple[int, int] | None:
    """`creation_time` of a media file and its length, in nanoseconds; None where it is none or does not say."""
    from pantok.errors import InputError
    from pantok.formats.container import opened

    try:
        with opened(path) as container:
            said = [container.metadata, *(s.metadata for s in container.streams)]
            length = container.duration
    except InputError:
        return None
    text = next((m["creation_time"] for m in said if m.get("creation_time")), None)
    if text is None or not length:
        return None
    try:
        made = datetime.fromisoformat(str(text).strip())
    except ValueError:
        return None
    made = made if made.tzinfo else made.replace(tzinfo=UTC)
    seconds = made - datetime(1970, 1, 1, tzinfo=UTC)
    nanoseconds = (seconds.days * 86_400 + seconds.seconds) * NS + seconds.microseconds * 1000
    return (nanoseconds, int(length) * 1000) if nanoseconds > DATED_NS else None
