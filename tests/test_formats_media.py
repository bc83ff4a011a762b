"""Media files as tracks: every container, odd stamps, damage, constant memory, and the way back."""

from __future__ import annotations

import struct
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pantok.errors import InputError
from pantok.experience import NS, Block, Track
from pantok.formats import container_audio, container_texts, container_video
from pantok.formats.ahead import ahead
from pantok.formats.container_video import at_rate
from pantok.formats.folder import EpisodeFiles, read_episode
from pantok.pixels import planes
from tests.media_files import MS, Pictures, Sound, make_media, moving_pictures, psnr, read, times_of, tones

# Containers


@pytest.mark.parametrize(
    ("name", "picture", "sound", "tick_ns"),
    [
        ("a.mp4", "libx264", "aac", 1),
        ("a.mov", "mpeg4", "pcm_s16le", 1),
        ("a.mkv", "libx264", "flac", MS),
        ("a.webm", "libvpx", "libopus", MS),
        ("a.avi", "mpeg4", "pcm_s16le", 1),
        ("a.ts", "mpeg2video", "mp2", 11_112),
        ("a.flv", "libx264", "aac", MS),
    ],
)
def test_containers(tmp_path: Path, name: str, picture: str, sound: str, tick_ns: int) -> None:
    frames, voice = moving_pictures(15), tones(24_000)
    base = Fraction(1, 25)
    path = make_media(
        tmp_path / name,
        Pictures(values=frames, height=32, width=48, codec=picture, base=base),
        Sound(values=voice, codec=sound),
    )
    tracks, said = read(path)
    assert list(tracks) == ["video", "audio"]
    values, clock = tracks["video"].read()
    assert len(values) == 15
    start = clock.start_ns
    assert np.abs(clock.times_ns - start - np.arange(15) * 40 * MS).max() <= tick_ns
    assert 0 <= start <= (30 * MS if name == "a.ts" else 100 * MS)
    assert psnr(values, frames) > 25
    heard, clock = tracks["audio"].read()
    assert (clock.rate, heard.shape[1]) == (48_000, 2)
    assert abs(len(heard) - 24_000) <= 2 * 1152
    assert abs(clock.start_ns - start) <= 50 * MS
    assert said == []
    # What its header says of their lengths; some say that of the whole alone.
    assert [t.told_s for t in tracks.values()] == pytest.approx([0.6, 0.5], abs=0.2)


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.nut"])
@pytest.mark.parametrize(("height", "width"), [(17, 33), (2, 2), (1, 1), (54, 96)])
def test_lossless_codecs_of_any_size_are_read_bit_for_bit(tmp_path: Path, name: str, height: int, width: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, *moving_pictures(1, height, width).shape[1:]), np.uint8)
    path = make_media(tmp_path / name, Pictures(values=frames, height=height, width=width, codec="ffv1"))
    tracks, _ = read(path)
    assert (tracks["video"].info["height"], tracks["video"].info["width"]) == (height, width)
    assert np.array_equal(tracks["video"].read()[0], frames)


def test_resampling_in_space_and_time(tmp_path: Path) -> None:
    path = make_media(tmp_path / "a.mp4", Pictures(values=moving_pictures(50, 60, 90), height=60, width=90))
    for size, expected in ((30, (30, 45)), (31, (31, 46)), ((20, 10), (10, 20))):
        track = read(path, size=size)[0]["video"]
        assert (track.info["height"], track.info["width"]) == expected
    for fps, count in ((Fraction(5), 10), (Fraction(30000, 1001), 60), (Fraction(1, 2), 1)):
        values, clock = read(path, fps=fps)[0]["video"].read()
        assert len(values) == count
        assert clock.rate == fps or count == 1


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
@pytest.mark.parametrize("unit_ns", [1, 11_111, MS])
def test_stamps_that_are_rounded_give_no_picture_more(fps: Fraction, unit_ns: int) -> None:
    def rounded(number: int) -> int:
        return round(number * NS / fps / unit_ns) * unit_ns

    for count in range(1, 64):
        frames = ((rounded(n), rounded(n + 1) - rounded(n), n) for n in range(count))
        assert len([*at_rate(frames, fps)]) == count
    doubled = at_rate(((rounded(n), rounded(n + 1) - rounded(n), n) for n in range(9)), 2 * fps)
    assert [frame for _, _, frame in doubled][::2] == [*range(9)]


# Stamps


@pytest.mark.parametrize(("name", "base"), [("a.mp4", Fraction(1, 90_000)), ("a.mkv", Fraction(1, 1000))])
def test_variable_frame_rate_keeps_every_instant(tmp_path: Path, name: str, base: Fraction) -> None:
    gaps = np.random.default_rng(3).integers(1, 200, 40)
    stamps = (np.cumsum(gaps) - gaps[0]) * (base.denominator // 1000)
    path = make_media(
        tmp_path / name, Pictures(values=moving_pictures(40), height=32, width=48, base=base, stamps=stamps.tolist())
    )
    track = read(path)[0]["video"]
    clock = track.read()[1]
    assert clock.rate is None
    assert clock.times_ns.tolist() == [s * 1000 // base.denominator * MS for s in stamps.tolist()]
    steady = read(path, fps=Fraction(20))[0]["video"].read()[1]
    assert steady.rate == 20


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(25, 2)])
def test_regular_rates_are_exact(tmp_path: Path, rate: Fraction) -> None:
    path = make_media(tmp_path / "a.mp4", Pictures(values=moving_pictures(30), height=32, width=48, base=1 / rate))
    clock = read(path)[0]["video"].read()[1]
    assert (clock.rate, clock.start_ns, clock.count) == (rate, 0, 30)


def test_b_frames_come_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    frames = moving_pictures(20)
    options = {"bf": "3", "crf": "10", "g": "20"}
    path = make_media(tmp_path / "a.mp4", Pictures(values=frames, height=32, width=48, options=options))
    values, clock = read(path)[0]["video"].read()
    assert psnr(values, frames) > 35
    assert clock.rate == 25


@pytest.mark.parametrize("late", ["sound", "pictures"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_sound_and_pictures_keep_their_distance(tmp_path: Path, late: str, name: str) -> None:
    first = 12_000 if late == "sound" else 0
    stamps = range(10, 30) if late == "pictures" else range(20)
    path = make_media(
        tmp_path / name,
        Pictures(values=moving_pictures(20), height=32, width=48, stamps=list(stamps), codec="mpeg4"),
        Sound(values=tones(48_000), codec="flac" if name == "a.mkv" else "pcm_s16le", start=first),
    )
    tracks, _ = read(path)
    apart = times_of(tracks["audio"])[0] - times_of(tracks["video"])[0]
    assert abs(apart - (250 * MS if late == "sound" else -400 * MS)) <= MS


def test_gaps_in_sound_are_filled_and_said(tmp_path: Path) -> None:
    whole = tones(48_000)
    with_gap = make_media(tmp_path / "a.mkv", Sound(values=whole[:24_576], codec="flac"))
    later = make_media(tmp_path / "b.mkv", Sound(values=whole[24_576:], codec="flac", start=48_000))
    joined = tmp_path / "joined.mkv"
    import av

    with av.open(str(joined), "w") as out, av.open(str(with_gap)) as one, av.open(str(later)) as two:
        stream = out.add_stream_from_template(one.streams.audio[0])
        for source in (one, two):
            for packet in source.demux(audio=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    tracks, said = read(joined)
    values, clock = tracks["audio"].read()
    assert clock.rate == 48_000
    assert np.array_equal(values[:24_576], whole[:24_576])
    assert not values[24_576:47_900].any()
    assert np.array_equal(values[-(48_000 - 24_576) :], whole[24_576:])
    assert len(said) == 1
    assert "1 gaps or overlaps in the sound were filled" in said[0]


# Orientation


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into the first track header of an .mp4 (ISO/IEC 14496-12, 8.3.2)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4
    assert content[at] == 0, "version 0 has 32-bit times"
    a, b, c, d = (v << 16 for v in matrix)
    struct.pack_into(">9i", content, at + 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
    ],
)
def test_pictures_are_set_upright(tmp_path: Path, matrix: tuple[int, int, int, int], upright: object) -> None:
    frames = moving_pictures(3, 18, 30)
    path = make_media(
        tmp_path / "a.mp4", Pictures(values=frames, height=18, width=30, codec="libx264", options={"qp": "0"})
    )
    plain = read(path)[0]["video"].read()[0]
    track = read(turned(path, matrix))[0]["video"]
    height, width = track.info["height"], track.info["width"]
    assert (height, width) == ((30, 18) if matrix[0] == 0 else (18, 30))
    shown = planes(track.read()[0], height, width)
    for got, stored in zip(shown, planes(plain, 18, 30), strict=True):
        assert np.array_equal(got[1], upright(stored[1]))


# Streams


def test_streams_that_there_are_and_are_not(tmp_path: Path) -> None:
    film = Pictures(values=moving_pictures(5), height=32, width=48)
    mute = make_media(tmp_path / "mute.mp4", film)
    assert list(read(mute)[0]) == ["video"]
    heard = make_media(tmp_path / "heard.m4a", Sound(values=tones(4800, channels=1)))
    assert list(read(heard)[0]) == ["audio"]
    many = make_media(
        tmp_path / "many.mkv",
        film,
        Sound(values=tones(4800, channels=1), codec="flac"),
        Sound(values=tones(4800, 44_100, 2), codec="flac", rate=44_100),
        Pictures(values=moving_pictures(7, 16, 16), height=16, width=16),
        Sound(values=tones(4800, channels=6), codec="flac"),
    )
    tracks, _ = read(many)
    assert list(tracks) == ["video", "video.1", "audio", "audio.1", "audio.2"]
    assert [len(tracks[t].channels) for t in ("audio", "audio.1", "audio.2")] == [1, 2, 6]
    assert tracks["audio.1"].rate == 44_100
    assert tracks["video.1"].read()[1].count == 7
    assert np.array_equal(tracks["audio.2"].read()[0], tones(4800, channels=6))


def _with_subtitles(
    path: Path, film: Path, spoken: dict[str, list[tuple[int, int, bytes]]], codec: str = "srt"
) -> Path:
    """`film` and beside its streams those of `spoken`: by language (start ms, end ms, packet)."""
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        video = target.add_stream_from_template(source.streams.video[0])
        streams = []
        for language in spoken:
            streams.append(target.add_stream(codec))
            streams[-1].metadata["language"] = language
            streams[-1].codec_context.subtitle_header = b"[Script Info]\n"
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                target.mux(packet)
        for stream, cues in zip(streams, spoken.values(), strict=True):
            for start, end, content in cues:
                packet = av.Packet(content)
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = end - start, Fraction(1, 1000), stream
                target.mux(packet)
    return path


def test_subtitles_within_a_film_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = make_media(tmp_path / "film.avi", Pictures(values=moving_pictures(50), height=32, width=48, codec="mpeg4"))
    english = [(40, 500, b"Look,\n<i>there</i>"), (1000, 1500, "déjà".encode())]
    made = _with_subtitles(tmp_path / "ep.mkv", film, {"eng": english, "fre": [(40, 480, b"Regarde")], "und": []})
    tracks, said = read(made)
    assert said == []
    assert list(tracks) == ["video", "text", "text.1"]
    assert list(tracks["text"].read()[0]) == ["Look,\nthere", "déjà"]
    assert list(times_of(tracks["text"])) == [40 * MS, 1000 * MS]
    assert tracks["text"].info == {"language": "eng", "ends_ns": [500 * MS, 1500 * MS]}
    assert (list(tracks["text.1"].read()[0]), tracks["text.1"].info["language"]) == (["Regarde"], "fre")
    inside = _with_subtitles(tmp_path / "ep.mp4", film, {"ger": [(40, 500, b"\x00\x04Halt")]}, "mov_text")
    assert list(read(inside)[0]["text"].read()[0]) == ["Halt"]
    # A text that lies beside it stands in their place: the film is not gone through for them.
    (tmp_path / "ep.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nBeside it\n")
    searched: list[Path] = []
    monkeypatch.setattr(container_texts, "text_tracks", lambda path, *_: searched.append(path) or [])
    episode = read_episode(EpisodeFiles("ep", (made, tmp_path / "ep.srt")))
    assert list(episode.tracks) == ["video", "text"]
    assert list(episode.tracks["text"].read()[0]) == ["Beside it"]
    assert [Path(s.path).name for s in episode.sources] == ["ep.mkv", "ep.srt"]
    assert searched == []
    (tmp_path / "ep.srt").write_bytes(b"\xff")
    assert list(read_episode(EpisodeFiles("ep", (made, tmp_path / "ep.srt"))).tracks) == ["video"]
    assert searched == [made]


def test_subtitles_that_are_pictures_are_named(tmp_path: Path) -> None:
    film = make_media(tmp_path / "film.avi", Pictures(values=moving_pictures(10), height=32, width=48, codec="mpeg4"))
    made = _with_subtitles(tmp_path / "ep.mkv", film, {"eng": [(40, 200, b"\x16\x00\x00nothing")]}, "dvdsub")
    tracks, said = read(made)
    assert list(tracks) == ["video"]
    assert said == [f"{made}: subtitles that are pictures are not read (stream 1)"]


def test_single_pictures(tmp_path: Path) -> None:
    frames = moving_pictures(1, 20, 30)
    for name, codec, form in (("a.png", "png", "rgb24"), ("a.jpg", "mjpeg", "yuvj420p")):
        path = make_media(
            tmp_path / name, Pictures(values=frames, height=20, width=30, codec=codec, form=form), update="1"
        )
        values, clock = read(path)[0]["video"].read()
        assert (len(values), clock.count, clock.start_ns) == (1, 1, 0)
        full = read(path)[0]["video"].info["full_range"]
        luma = planes(values, 20, 30)[0].astype(float)
        expected = planes(frames, 20, 30)[0].astype(float)
        expected = (expected - 16) * 255 / 219 if full else expected
        assert np.abs(luma - np.clip(expected, 0, 255)).mean() < 4, name


# Constant memory: blocks that are alive at once are counted, whatever the length of the recording


def alive(monkeypatch: pytest.MonkeyPatch, module: object, track: Track) -> tuple[int, int]:
    """(most blocks alive at once, blocks) over one pass."""
    live: set[int] = set()
    most = made = 0

    def counted(values: np.ndarray, times_ns: np.ndarray | None = None) -> Block:
        nonlocal most, made
        block = Block(values, times_ns)
        made += 1
        live.add(made)
        weakref.finalize(block, live.discard, made)
        most = max(most, len(live))
        return block

    monkeypatch.setattr(module, "Block", counted)
    for block in track.open():
        del block
    return most, made


def test_a_long_film_is_read_in_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.tile(moving_pictures(32, 16, 16), (40, 1))
    path = make_media(
        tmp_path / "long.mkv",
        Pictures(values=frames, height=16, width=16, options={"preset": "ultrafast"}),
        Sound(values=tones(40 * 8000, 8000, 1), codec="flac", rate=8000),
    )
    tracks, _ = read(path)
    most, made = alive(monkeypatch, container_video, tracks["video"])
    assert made == 40
    assert most <= 5  # two wait, one is being filled, one is being handed over, one is with the reader
    most, made = alive(monkeypatch, container_audio, tracks["audio"])
    assert made == 40
    assert most <= 2
    sizes = [len(b) for b in tracks["audio"].blocks()]
    assert max(sizes) <= 8000


def test_reading_ahead_waits_for_the_reader_and_ends_with_it() -> None:
    made: list[int] = []
    closed: list[bool] = []

    def source() -> Iterator[Block]:
        try:
            for i in range(1000):
                made.append(i)
                yield Block(np.full(1, i))
        finally:
            closed.append(True)

    reading = ahead(source, 2)
    for taken in range(1, 51):
        assert next(reading).values[0] == taken - 1
        assert len(made) <= taken + 3
    reading.close()
    assert closed == [True]
    assert len(made) < 60

    def broken() -> Iterator[Block]:
        yield Block(np.zeros(1))
        raise InputError("a.mp4", "is broken", "mend it")

    reading = ahead(broken)
    next(reading)
    with pytest.raises(InputError, match=r"a\.mp4: is broken"):
        next(reading)
