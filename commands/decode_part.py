"""What of a stream is decoded, some levels, some range of time, as signals, tables and words; and as which files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from pantok.encode import Codec
    from pantok.experience import Clock
    from pantok.formats.media_out import Signal
    from pantok.stream import TokenStream, TrackTokens


@dataclass(frozen=True)
class Decoding:
    """levels: so many of each track, all if None. range_ns: from when to when, None where it is not bounded."""

    codec: Codec
    levels: int | None
    range_ns: tuple[int | None, int | None]

    def clock(self, track: TrackTokens) -> Clock:
        return track.clock.cut(*track.clock.span(*self.range_ns))

    def signal(self, track: TrackTokens) -> Signal:
        from pantok.formats.media_out import Signal

        start, end = self.range_ns
        blocks = self.codec.decode(track, levels=self.levels, start_ns=start, end_ns=end)
        facts = {**track.info, **track.header}
        return Signal(blocks, self.clock(track), facts, max(1, len(track.channels)), track.name)

    def table(self, track: TrackTokens) -> np.ndarray:
        """(n, C) of a track of numbers, in its own dtype."""
        import numpy as np

        values, filled, count = np.zeros((0, 0)), 0, self.clock(track).count
        for block in self.signal(track).blocks:
            rows = block.values.reshape(len(block), -1)
            if not filled:
                values = np.empty((count, rows.shape[1]), rows.dtype)
            values[filled : filled + len(rows)] = rows
            filled += len(rows)
        assert filled == count, (filled, count)
        return values

    def spans(self, text: TrackTokens) -> Iterator[tuple[int, int | None, str]]:
        """Start, end (if it is known) and words of what a track of text says."""
        first, last = text.clock.span(*self.range_ns)
        ends = (text.info.get("ends_ns") or [None] * text.clock.count)[first:last]
        values = [str(v) for block in self.signal(text).blocks for v in block.values]
        yield from zip(self.clock(text).times_ns.tolist(), ends, values, strict=True)


class Plan:
    """What one episode becomes: for each file, the function that writes it, and what its container makes it change."""

    def __init__(self, part: Decoding, stream: TokenStream, folder: Path, lossless: bool) -> None:
        self._part, self._lossless = part, lossless
        self._stem = folder / stream.id
        self.outputs: dict[Path, Callable[[Path], None]] = {}
        self.changes: dict[Path, tuple[str, ...]] = {}
        # By name: in which order a segment lists its tracks depends on the episodes beside them.
        tracks = sorted((t for t in stream.tracks.values() if self._part.clock(t).count), key=lambda t: t.name)
        sounds = [t for t in tracks if t.modality == "audio"]
        pictures = [t for t in tracks if t.modality == "video"]
        # A picture takes the sound of its own container along; in lossless form sound is a .wav of its own, unless it
        # begins at another time than 0, which a .wav cannot say. A container names at most eight channels.
        fits = bool(sounds) and len(sounds[0].channels) <= 8
        late = bool(sounds) and int(self._part.clock(sounds[0]).start_ns) != 0
        voice = sounds[0] if fits and pictures and (late or not lossless) else None
        for number, picture in enumerate(pictures):
            self._add_video(picture, voice if number == 0 else None)
        for sound in sounds:
            if sound is not voice:
                self._add_sound(sound)
        self._add_numbers([t for t in tracks if t.modality == "numeric"])
        for text in (t for t in tracks if t.modality == "text"):
            self._add_text(text)

    def _path(self, track: TrackTokens, suffix: str, plain: bool) -> Path:
        """EPISODE.suffix, or EPISODE@TRACK.suffix where that does not tell the track or is taken."""
        from pantok.formats.track_names import of_track

        path = self._stem.with_name(self._stem.name + suffix)
        if plain and path not in self.outputs:
            return path
        return self._stem.with_name(of_track(self._stem.name, track.name) + suffix)

    def _add_video(self, picture: TrackTokens, voice: TrackTokens | None) -> None:
        from pantok.formats.media_out import changes_in, write_media

        seen, heard = self._part.signal(picture), self._part.signal(voice) if voice is not None else None
        path = self._path(picture, ".mp4", picture.name == "video")
        self.outputs[path] = lambda path: write_media(path, seen, heard, lossless=self._lossless)
        if found := changes_in(seen, heard, lossless=self._lossless):
            self.changes[path] = found

    def _add_sound(self, sound: TrackTokens) -> None:
        def write(path: Path) -> None:
            from pantok.formats.soundfiles import write_wav

            signal = self._part.signal(sound)
            assert signal.clock.rate is not None
            dtype, language = signal.info.get("dtype", "int16"), signal.info.get("language")
            write_wav(path, signal.blocks, int(signal.clock.rate), signal.channels, dtype, language)

        self.outputs[self._path(sound, ".wav", sound.name == "audio")] = write

    def _add_numbers(self, tracks: list[TrackTokens]) -> None:
        """One table for the tracks that share a clock; the first takes the episode's name."""
        groups: list[list[TrackTokens]] = []
        for track in tracks:
            mine = self._part.clock(track)
            for group in groups:
                theirs = self._part.clock(group[0])
                if mine.count == theirs.count and (mine.times_ns == theirs.times_ns).all():
                    group.append(track)
                    break
            else:
                groups.append([track])
        for number, group in enumerate(groups):
            self.outputs[self._path(group[0], ".parquet", number == 0)] = self._table_writer(group)

    def _table_writer(self, group: list[TrackTokens]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            from pantok.formats.tables import write_parquet

            tables = {}
            for track in group:
                values = self._part.table(track)
                tables[track.name] = (values, track.channels or tuple(str(i) for i in range(values.shape[1])))
            write_parquet(path, self._part.clock(group[0]), tables)

        return write

    def _add_text(self, text: TrackTokens) -> None:
        from pantok.formats.texts import suffix_for, write_texts

        spans, language = list(self._part.spans(text)), text.info.get("language")
        path = self._path(text, suffix_for(spans, language), text.name == "text")
        self.outputs[path] = lambda path: write_texts(path, spans, language)
