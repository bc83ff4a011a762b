"""What `pantok simulate --html` shows: what came, what each future holds, and the last moment repeated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pantok.formats.report_exhibits import shrunk, unit
from pantok.formats.report_futures import CAME, COPIED, Motion, Part, Pictures, Sounds, Words

if TYPE_CHECKING:
    from pantok.encode import Codec
    from pantok.stream import TokenStream, TrackTokens

COLUMNS = 8
WIDEST = 240
"""Of a picture in the sheet, pixels."""
SOUND_NS = 10_000_000_000
"""Of sound that goes into the page."""
NS = 1_000_000_000


class Sheet:
    """recorded: the episode. future: any of its futures; they have the same clocks. Times in nanoseconds."""

    def __init__(self, codec: Codec, recorded: TokenStream, future: TokenStream, start_ns: int, stop_ns: int) -> None:
        self._codec, self._recorded, self._start, self._stop = codec, recorded, start_ns, stop_ns
        self._videos, self._others = {}, dict[str, dict[str, np.ndarray]]()
        self._like = future
        for name, track in future.tracks.items():
            if _count(track, start_ns, stop_ns) and track.modality == "video":
                self._videos[name] = _Video(codec, recorded.tracks[name], track, start_ns, stop_ns)
            elif _count(track, start_ns, stop_ns):
                came = recorded.tracks[name]
                self._others[name] = {CAME: self._values(came)} if _count(came, start_ns, stop_ns) else {}

    def add(self, name: str, future: TokenStream) -> None:
        """One more future, under a name."""
        for track, video in self._videos.items():
            video.add(name, future.tracks[track])
        for track, rows in self._others.items():
            rows[name] = self._values(future.tracks[track])

    @property
    def psnr_db(self) -> dict[str, dict[str, list[float]]]:
        """By track and row: of each second with a recording, and of all of them last."""
        return {name: found for name, video in self._videos.items() if (found := video.psnr_db())}

    def parts(self) -> list[Part]:
        """In the order of the episode's tracks."""
        found: list[Part] = []
        for name, track in self._like.tracks.items():
            if name in self._videos:
                found.append(self._videos[name].part())
            elif name in self._others:
                rows = self._others[name]
                if track.modality == "audio":
                    from pantok.world_model.senses import sample_rate

                    found.append(Sounds(name, round(sample_rate(track)), {k: unit(v) for k, v in rows.items()}))
                elif track.modality == "text":
                    found.append(Words(name, {k: " ".join(str(w) for w in v.reshape(-1)) for k, v in rows.items()}))
                else:
                    found.append(self._motion(name, track, rows))
        return found

    def _motion(self, name: str, track: TrackTokens, rows: dict[str, np.ndarray]) -> Motion:
        first, last = track.clock.span(self._start, self._stop)
        times = (track.clock.at(np.arange(first, last)) - self._start) / NS
        channels = tuple(track.channels) or tuple(str(k) for k in range(next(iter(rows.values())).shape[1]))
        whole = {}
        for row, values in rows.items():
            whole[row] = np.full((len(times), len(channels)), np.nan)
            whole[row][: len(values)] = values[: len(times)].reshape(-1, len(channels))
        return Motion(name, times, channels, whole)

    def _values(self, track: TrackTokens) -> np.ndarray:
        stop = min(self._stop, self._start + SOUND_NS) if track.modality == "audio" else self._stop
        blocks = [b.values for b in self._codec.decode(track, start_ns=self._start, end_ns=stop)]
        return np.concatenate(blocks) if blocks else np.zeros((0, max(1, len(track.channels))))


class _Video:
    """Frames are decoded one after another; those of the sheet's columns are kept."""

    def __init__(self, codec: Codec, came: TrackTokens, like: TrackTokens, start_ns: int, stop_ns: int) -> None:
        self._codec, self._came, self._span = codec, came, (start_ns, stop_ns)
        first, last = like.clock.span(start_ns, stop_ns)
        self._times = (like.clock.at(np.arange(first, last)) - start_ns) / NS
        count = len(self._times)
        self._chosen = sorted({round(k * (count - 1) / max(1, COLUMNS - 1)) for k in range(min(COLUMNS, count))})
        self._name, self._rows = like.name, dict[str, list[np.ndarray | None]]()
        self._errors: dict[str, np.ndarray] = {}
        self._second = self._times.astype(np.int64)
        before = came.clock.span(start_ns, None)[0] - 1
        last_one = None
        if before >= 0:
            last_one = next(_rgb(came, codec.tokenizer("video").decoded(came, start=before, stop=before + 1)))
        kept = self._rows[CAME] = [None] * len(self._chosen)
        copied = np.full(count, np.nan)
        for k, frame in zip(range(count), self._frames(came), strict=False):
            if k in self._chosen:
                kept[self._chosen.index(k)] = shrunk(frame, WIDEST)
            if last_one is not None:
                copied[k] = _error(frame, last_one)
        if last_one is not None:
            self._errors[COPIED] = copied
            self._copied = [shrunk(last_one, WIDEST)] * len(self._chosen)

    def add(self, name: str, future: TrackTokens) -> None:
        kept = self._rows[name] = [None] * len(self._chosen)
        errors, came = np.full(len(self._times), np.nan), self._frames(self._came)
        for k, frame in zip(range(len(errors)), self._frames(future), strict=False):
            truth = next(came, None)
            if k in self._chosen:
                kept[self._chosen.index(k)] = shrunk(frame, WIDEST)
            if truth is not None:
                errors[k] = _error(truth, frame)
        self._errors[name] = errors

    def part(self) -> Pictures:
        rows = dict(self._rows)
        if COPIED in self._errors:
            rows[COPIED] = list(self._copied)
        if not any(picture is not None for picture in rows[CAME]):
            del rows[CAME]
        return Pictures(self._name, [float(self._times[k]) for k in self._chosen], rows, self.psnr_db())

    def psnr_db(self) -> dict[str, list[float]]:
        found = {}
        # Copy-last stands below the futures.
        for name in sorted(self._errors, key=lambda n: n == COPIED):
            errors = self._errors[name]
            there = ~np.isnan(errors)
            if there.any():
                of = self._second[there]
                sums, counts = np.bincount(of, errors[there]), np.bincount(of)
                means = [*(sums[counts > 0] / counts[counts > 0]), errors[there].mean()]
                found[name] = [99.0 if e == 0 else float(10 * np.log10(255**2 / e)) for e in means]
        return found

    def _frames(self, track: TrackTokens) -> Iterator[np.ndarray]:
        for block in self._codec.decode(track, start_ns=self._span[0], end_ns=self._span[1]):
            yield from _rgb(track, block.values)


def _rgb(track: TrackTokens, frames: np.ndarray) -> Iterator[np.ndarray]:
    from pantok import pixels

    height, width = int(track.header["height"]), int(track.header["width"])
    matrix, full = str(track.info.get("matrix", "bt601")), bool(track.info.get("full_range", False))
    yield from pixels.to_rgb(frames, height, width, matrix, full)


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a.astype(np.float32) - b) ** 2))


def _count(track: TrackTokens, start_ns: int, stop_ns: int) -> int:
    first, last = track.clock.span(start_ns, stop_ns)
    return last - first
