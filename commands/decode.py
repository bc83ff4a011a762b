"""`pantok decode`: token streams back into files that a person can open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common
from pantok.errors import OptionError, OutputError, PantokError

if TYPE_CHECKING:
    from pantok.encode import Codec
    from pantok.experience import Clock
    from pantok.formats.media_out import Signal
    from pantok.stream import TokenStream, TrackTokens


@click.command("decode")
@click.argument("store", type=common.STORE)
@common.output("The folder to write to.")
@click.option("--episode", "episodes", multiple=True, help="Decode this episode (or pattern) alone; may be repeated.")
@click.option("--track", "tracks", multiple=True, help="Decode this track (or pattern) alone; may be repeated.")
@click.option("--levels", type=click.IntRange(min=1), help="Use the first LEVELS levels of each track only.")
@click.option("--start", "start_ns", type=common.SECONDS, help="Begin at this time (12.5 or 1:02.5).")
@click.option("--end", "end_ns", type=common.SECONDS, help="End before this time.")
@click.option("--lossless", is_flag=True, help="FFV1 and WAV instead of H.264 and AAC, so that others can measure.")
@common.force
@common.dry_run
@common.as_json
@common.quiet
def command(
    store: Path,
    output: Path,
    episodes: tuple[str, ...],
    tracks: tuple[str, ...],
    levels: int | None,
    start_ns: int | None,
    end_ns: int | None,
    lossless: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn token streams back into video, sound, motion and text.

    Each episode becomes EPISODE.mp4 with its sound (or .wav), .parquet of its numbers, and .txt, .srt, .vtt or .jsonl
    of its text, whichever holds its times and language; further tracks of a kind EPISODE@TRACK.mp4, .wav and so on.
    Given as recordings, these files are the same episode again. Times are those of the recording; --start and --end
    decode that range without the rest.

    \b
    Example:
      pantok decode home.zarr --episode kitchen-03 -o out/
    """
    from pantok.encode import Codec
    from pantok.formats.files import make_folder
    from pantok.formats.store import Store

    run = common.Run(quiet, as_json)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise OptionError("--start", "is not before --end", "give a range of time")
    source = Store.open(store)
    wanted = common.choose(source.episodes, episodes, "--episode")
    names = common.choose({t for e in wanted for t in source.episodes[e].tracks}, tracks, "--track")
    codec = Codec(source.vocabulary)
    written: list[str] = []
    changes: dict[str, str] = {}
    with run.progress() as bar:
        task = bar.add_task("decode", total=len(wanted), note="")
        for episode in wanted:
            bar.update(task, note=episode)
            try:
                present = [t for t in source.episodes[episode].tracks if t in names]
                stream = source.read(episode, present)
                plan = Plan(codec, stream, output, levels, (start_ns, end_ns), lossless)
                for path in plan.outputs:
                    common.refuse_existing(path, force or dry_run)
                for path, write in plan.outputs.items():
                    if not dry_run:
                        make_folder(path.parent)
                        write(path)
                    written.append(str(path))
                    if path in plan.changes:
                        changes[str(path)] = f" ({'; '.join(plan.changes[path])}; --lossless keeps it)"
            except (OptionError, OutputError):
                raise
            except PantokError as error:
                run.problem(error)
            bar.advance(task)
    for line in written[:20]:
        run.say(f"{'Would write' if dry_run else 'Wrote'} {line}{changes.get(line, '')}")
    if len(written) > 20:
        run.say(f"… and {len(written) - 20} more in {output}")
    if not written and not run.problems:
        run.problem(f"{store}: holds nothing in that range (see `pantok info {store}`)")
    run.end({"store": str(store), "written": written})


class Plan:
    """What one episode becomes: for each file, the function that writes it, and what its container makes it change."""

    def __init__(
        self,
        codec: Codec,
        stream: TokenStream,
        folder: Path,
        levels: int | None,
        range_ns: tuple[int | None, int | None],
        lossless: bool,
    ) -> None:
        self._codec, self._levels, self._range, self._lossless = codec, levels, range_ns, lossless
        self._stem = folder / stream.id
        self.outputs: dict[Path, Callable[[Path], None]] = {}
        self.changes: dict[Path, tuple[str, ...]] = {}
        tracks = [t for t in stream.tracks.values() if self._clock(t).count]
        # By name, `audio` first: in which order a segment lists its tracks depends on the episodes beside them.
        sounds = sorted((t for t in tracks if t.modality == "audio"), key=lambda t: t.name)
        pictures = sorted((t for t in tracks if t.modality == "video"), key=lambda t: t.name)
        # A picture takes the sound of its own container along; in lossless form sound is a .wav of its own, unless it
        # begins at another time than 0, which a .wav cannot say. A container names at most eight channels.
        fits = bool(sounds) and len(sounds[0].channels) <= 8
        late = bool(sounds) and int(self._clock(sounds[0]).start_ns) != 0
        voice = sounds[0] if fits and pictures and (late or not lossless) else None
        for number, picture in enumerate(pictures):
            self._add_video(picture, voice if number == 0 else None)
        for sound in sounds:
            if sound is not voice:
                self._add_sound(sound)
        self._add_numbers([t for t in tracks if t.modality == "numeric"])
        for text in (t for t in tracks if t.modality == "text"):
            self._add_text(text)

    def _clock(self, track: TrackTokens) -> Clock:
        return track.clock.cut(*track.clock.span(*self._range))

    def _path(self, track: TrackTokens, suffix: str, plain: bool) -> Path:
        """EPISODE.suffix, or EPISODE@TRACK.suffix where that does not tell the track or is taken."""
        from pantok.formats.track_names import of_track

        path = self._stem.with_name(self._stem.name + suffix)
        if plain and path not in self.outputs:
            return path
        return self._stem.with_name(of_track(self._stem.name, track.name) + suffix)

    def _signal(self, track: TrackTokens) -> Signal:
        from pantok.formats.media_out import Signal

        start, end = self._range
        blocks = self._codec.decode(track, levels=self._levels, start_ns=start, end_ns=end)
        facts = {**track.info, **track.header}
        return Signal(blocks, self._clock(track), facts, max(1, len(track.channels)), track.name)

    def _add_video(self, picture: TrackTokens, voice: TrackTokens | None) -> None:
        from pantok.formats.media_out import changes_in, write_media

        seen, heard = self._signal(picture), self._signal(voice) if voice is not None else None
        path = self._path(picture, ".mp4", picture.name == "video")
        self.outputs[path] = lambda path: write_media(path, seen, heard, lossless=self._lossless)
        if found := changes_in(seen, heard, lossless=self._lossless):
            self.changes[path] = found

    def _add_sound(self, sound: TrackTokens) -> None:
        def write(path: Path) -> None:
            from pantok.formats.soundfiles import write_wav

            signal = self._signal(sound)
            assert signal.clock.rate is not None
            dtype, language = signal.info.get("dtype", "int16"), signal.info.get("language")
            write_wav(path, signal.blocks, int(signal.clock.rate), signal.channels, dtype, language)

        self.outputs[self._path(sound, ".wav", sound.name == "audio")] = write

    def _add_numbers(self, tracks: list[TrackTokens]) -> None:
        """One table for the tracks that share a clock; the first takes the episode's name."""
        groups: list[list[TrackTokens]] = []
        for track in tracks:
            mine = self._clock(track)
            for group in groups:
                theirs = self._clock(group[0])
                if mine.count == theirs.count and (mine.times_ns == theirs.times_ns).all():
                    group.append(track)
                    break
            else:
                groups.append([track])
        for number, group in enumerate(groups):
            self.outputs[self._path(group[0], ".parquet", number == 0)] = self._table_writer(group)

    def _table_writer(self, group: list[TrackTokens]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            import numpy as np

            from pantok.formats.tables import write_parquet

            tables, clock = {}, self._clock(group[0])
            for track in group:
                values, filled = np.zeros((0, 0)), 0
                for block in self._signal(track).blocks:
                    rows = block.values.reshape(len(block), -1)
                    if not filled:
                        values = np.empty((clock.count, rows.shape[1]), rows.dtype)
                    values[filled : filled + len(rows)] = rows
                    filled += len(rows)
                assert filled == clock.count, (filled, clock.count)
                tables[track.name] = (values, track.channels or tuple(str(i) for i in range(values.shape[1])))
            write_parquet(path, clock, tables)

        return write

    def _add_text(self, text: TrackTokens) -> None:
        from pantok.formats.texts import suffix_for, write_texts

        spans, language = list(self._spans(text)), text.info.get("language")
        path = self._path(text, suffix_for(spans, language), text.name == "text")
        self.outputs[path] = lambda path: write_texts(path, spans, language)

    def _spans(self, text: TrackTokens) -> Iterator[tuple[int, int | None, str]]:
        first, last = text.clock.span(*self._range)
        ends = (text.info.get("ends_ns") or [None] * text.clock.count)[first:last]
        signal = self._signal(text)
        values = [str(v) for block in signal.blocks for v in block.values]
        yield from zip(self._clock(text).times_ns.tolist(), ends, values, strict=True)
