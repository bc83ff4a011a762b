"""What recordings hold, as every command will read them: the tracks of each episode, before anything is encoded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pantok.commands import common, phrases
from pantok.errors import InputError

if TYPE_CHECKING:
    from pantok.experience import Track
    from pantok.formats.folder import EpisodeFiles

_NAMED = 4
"""Channels whose names are shown."""


def show_recordings(run: common.Run, path: Path) -> None:
    """Tables of episodes and of tracks; the files are opened, and tables and texts read, no picture or sound is."""
    found = common.find_episodes(run, (path,))
    common.show_plan(run, found)
    some = found if run.as_json else found[: common.SHOWN]
    tracks = {files.id: _tracks_of(run, files) for files in run.watched(some, len(some), "reading")}
    rows = []
    for name, told in tracks.items():
        for number, track in enumerate(told):
            rows.append(["" if number else name, *_row(track)])
    columns = ["episode", "track", "kind", "rate, Hz", "samples", "duration", "holds"]
    run.table("Tracks, as they will be read", columns, rows, words=("track", "kind", "holds"))
    common.say_unshown(run, len(found))
    document = common.plan_document(found)
    for told in document["episodes"]:
        told["tracks"] = tracks.get(told["id"], [])
    run.end(document)


def _tracks_of(run: common.Run, files: EpisodeFiles) -> list[dict[str, Any]]:
    """Facts of each track; none, and a problem line, where the episode cannot be read."""
    from pantok.formats.folder import read_episode

    try:
        episode = read_episode(files, problems=run.problem)
    except InputError as error:
        run.problem(error)
        return []
    return [_facts(track) for track in episode.tracks.values()]


def _facts(track: Track) -> dict[str, Any]:
    clock, rate = track.clock, track.rate or (track.clock.rate if track.clock is not None else None)
    return {
        "track": track.name,
        "modality": track.modality,
        "rate_hz": str(rate) if rate else None,
        "samples": clock.count if clock is not None else None,
        "start_ns": clock.start_ns if clock is not None else None,
        "duration_s": clock.duration_ns / 1e9 if clock is not None else track.told_s,
        "channels": list(track.channels),
        "units": list(track.units),
        "info": {k: v for k, v in track.info.items() if k != "ends_ns"},
    }


def _row(facts: dict[str, Any]) -> list[str]:
    from fractions import Fraction

    info, channels, seconds = facts["info"], facts["channels"], facts["duration_s"]
    spoken = f", {info['language']}" if "language" in info else ""
    if facts["modality"] == "video":
        holds = f"{info['width']}x{info['height']}, {info.get('codec', '')}"
    elif facts["modality"] == "text":
        holds = phrases.counted(facts["samples"], "piece") + spoken
    else:
        named = "" if facts["modality"] == "audio" else f": {', '.join(channels[:_NAMED])}"
        more = "" if len(channels) <= _NAMED or not named else ", …"
        kind = info.get("codec") or info.get("dtype", "")
        holds = f"{phrases.counted(len(channels), 'channel')} {kind}{named}{more}{spoken}"
    return [
        facts["track"],
        facts["modality"],
        f"{float(Fraction(facts['rate_hz'])):.6g}" if facts["rate_hz"] else "",
        "" if facts["samples"] is None else phrases.figure(facts["samples"], 0),
        phrases.human_seconds(seconds) if seconds else "",
        holds,
    ]
