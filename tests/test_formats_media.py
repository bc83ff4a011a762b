"""Media files as tracks: every container, odd stamps, damage, constant memory, and the way back."""

from __future__ import annotations

import os
import shutil
import struct
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pantok.errors import InputError
from pantok.experience import NS, Block, Clock, Track
from pantok.formats import container_audio, container_video
from pantok.formats.ahead import ahead
from pantok.formats.container import probe, read_container
from pantok.formats.folder import find_episodes, read_episode
from pantok.formats.media_out import Signal, write_media
from pantok.formats.soundfiles import read_soundfile, write_wav
from pantok.pixels import planes
from tests.media_files import MS, Pictures, Sound, make_media, moving_pictures, tones


def read(path: Path, **how: object) -> tuple[dict[str, Track], list[str]]:
    said: list[str] = []
    return {t.name: t for t in read_container(path, problems=said.append, **how)}, said


def times_of(track: Track) -> np.ndarray:
    return track.read()[1].times_ns


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


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
    facts = {f.modality: f for f in probe(path)}
    assert (facts["video"].width, facts["video"].height, facts["audio"].channels) == (48, 32, 2)


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


# Damage


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seconds of pictures and sound in several containers."""
    folder = tmp_path_factory.mktemp("film")
    frames = moving_pictures(50)
    kinds = {"mp4": ("libx264", "aac"), "mkv": ("libx264", "flac"), "avi": ("mpeg4", "pcm_s16le"),
             "ts": ("mpeg2video", "mp2"), "webm": ("libvpx", "libopus")}  # fmt: skip
    return {
        suffix: make_media(
            folder / f"film.{suffix}",
            Pictures(values=frames, height=32, width=48, codec=picture, options={"g": "10"}),
            Sound(values=tones(96_000), codec=sound),
        )
        for suffix, (picture, sound) in kinds.items()
    }


def cut(path: Path, to: Path, share: float) -> Path:
    to.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return to


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts", "webm"])
def test_a_file_that_is_cut_off_gives_what_is_left(tmp_path: Path, film: dict[str, Path], suffix: str) -> None:
    path = cut(film[suffix], tmp_path / f"cut.{suffix}", 0.6)
    tracks, said = read(path)
    whole = read(film[suffix])[0]["video"].read()[0]
    values, _ = tracks["video"].read()
    assert 10 < len(values) < 45
    assert np.array_equal(values[:10], whole[:10])
    assert len(tracks["audio"].read()[0]) > 20_000
    if suffix != "ts":  # a transport stream has no header that could promise more
        assert said
    for line in said:
        assert line.startswith(str(path))
        assert line.endswith("(what could be read is kept; copy or export it again)")
    again = len(said)
    tracks["video"].read()
    assert len(said) == again  # said once


def test_a_film_that_lost_its_index_is_refused(tmp_path: Path, film: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"cut.mp4: is not a media file, or is cut off before its index \(check"):
        read(cut(film["mp4"], tmp_path / "cut.mp4", 0.5))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "webm"])
def test_flipped_bits_are_input_errors_and_nothing_else(tmp_path: Path, film: dict[str, Path], suffix: str) -> None:
    content = film[suffix].read_bytes()
    rng = np.random.default_rng(11)
    decoded = 0
    for trial in range(12):
        spoilt = bytearray(content)
        for at in rng.integers(0, len(spoilt), 4 ** (1 + trial % 4)):
            spoilt[at] = int(rng.integers(256))
        path = tmp_path / f"spoilt.{suffix}"
        path.write_bytes(spoilt)
        try:
            tracks, said = read(path)
            for track in tracks.values():
                values, clock = track.read()
                decoded += len(values)
                assert (np.diff(clock.times_ns) > 0).all()
        except InputError:
            continue
        assert all(str(path) in line and line.endswith(")") for line in said)
    assert decoded > 1000


def test_what_is_no_media_file(tmp_path: Path, film: dict[str, Path]) -> None:
    for name, content, expected in (
        ("empty.mp4", b"", "is empty"),
        ("words.mp4", b"this is not a film\n" * 50, "is not a media file"),
        ("noise.mkv", np.random.default_rng(0).bytes(5000), "is not a media file"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n", "is"),
        ("meta.mp4", b";FFMETADATA1\ntitle=x\n", "is"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert expected in str(caught.value)
        assert caught.value.remedy
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "pipe.mp4")


def test_a_wrong_suffix_does_no_harm(tmp_path: Path, film: dict[str, Path]) -> None:
    shutil.copy(film["mkv"], tmp_path / "one.wav")
    shutil.copy(film["mp4"], tmp_path / "two.avi")
    soundfile.write(tmp_path / "three.flac", tones(480), 48_000, format="WAV")
    soundfile.write(tmp_path / "a: b%d.wav", tones(480), 48_000)
    expected = {"one": {"video", "audio"}, "two": {"video", "audio"}, "three": {"audio"}, "a: b%d": {"audio"}}
    for files in find_episodes([tmp_path]):
        said: list[str] = []
        episode = read_episode(files, None, said.append)
        assert set(episode.tracks) == expected.pop(files.id)
        for track in episode.tracks.values():
            assert len(track.read()[0])
        assert said == []
    assert expected == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, film: dict[str, Path]) -> None:
    path = Path(shutil.copy(film["mp4"], tmp_path / "a.mp4"))
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read: permission denied"):
        read(path)


# Sound files


@pytest.mark.parametrize(
    ("name", "subtype", "dtype"),
    [("a.wav", "PCM_16", "int16"), ("b.wav", "PCM_24", "float32"), ("c.wav", "FLOAT", "float32"),
     ("d.flac", "PCM_16", "int16"), ("e.ogg", "VORBIS", "float32"), ("f.mp3", "MPEG_LAYER_III", "float32"),
     ("g.aiff", "PCM_U8", "int16"), ("h.wav", "DOUBLE", "float32"), ("i.au", "ULAW", "int16")],
)  # fmt: skip
def test_sound_files(tmp_path: Path, name: str, subtype: str, dtype: str) -> None:
    wave = tones(30_000, 22_050, 2, "float32")
    soundfile.write(tmp_path / name, wave, 22_050, subtype)
    (files,) = find_episodes([tmp_path])
    track = read_episode(files).tracks["audio"]
    values, clock = track.read()
    assert values.dtype == dtype
    assert (clock.rate, clock.start_ns) == (22_050, 0)
    assert len(values) == 30_000
    scaled = values / (32_768.0 if dtype == "int16" else 1.0)
    # Where the blocks meet as well as within them.
    assert np.abs(scaled - wave)[2000:-2000].max() < 0.02
    assert [len(b) for b in track.blocks()] == [22_050, 30_000 - 22_050]


def test_what_is_no_sound_becomes_silence_and_is_said_once(tmp_path: Path) -> None:
    values = np.sin(np.arange(40_000) / 20).astype(np.float32)[:, None].repeat(2, 1)
    values[500:510], values[20_000, 1] = np.nan, -np.inf
    path = tmp_path / "a.wav"
    soundfile.write(path, values, 16_000, "FLOAT")
    expected = np.where(np.isfinite(values), values, 0)
    said: list[str] = []
    for track in (read_soundfile(path, problems=said.append), *read_container(path, problems=said.append)):
        for _ in range(2):
            assert np.array_equal(np.concatenate([b.values for b in track.blocks()]), expected)
    assert len(said) == 2 and all(
        line.startswith(str(path)) and "21 samples are NaN or infinite" in line for line in said
    )


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg"])
def test_sound_that_is_cut_off_gives_what_is_left(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / f"a.{suffix}", rng.integers(-9000, 9000, (60_000, 1)).astype(np.int16), 8000)
    path = cut(tmp_path / f"a.{suffix}", tmp_path / f"cut.{suffix}", 0.5)
    said: list[str] = []
    track = read_soundfile(path, problems=said.append)
    count = sum(len(b) for b in track.blocks())
    assert 16_000 < count < 40_000
    list(track.blocks())
    assert len(said) == (suffix == "flac")  # of the others libsndfile measures what there is
    assert all("ends at" in line and "of the 7.5 s that its header promises" in line for line in said)


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


# The way back


@pytest.mark.parametrize(("height", "width"), [(32, 48), (17, 33)])
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(7, 3), "ms", "ns"])
@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_written_comes_back_at_its_instants(
    tmp_path: Path, height: int, width: int, rate: Fraction | str, lossless: bool
) -> None:
    frames = moving_pictures(20, height, width)
    gaps = np.random.default_rng(2).integers(5 * MS, 300 * MS, 20) // (MS if rate == "ms" else 1)
    if isinstance(rate, str):
        clock, base = Clock.irregular(np.cumsum(gaps) * (MS if rate == "ms" else 1)), "1/1000"
    else:
        clock, base = Clock.regular(rate, 20, 40 * MS), str(1 / rate)
    facts = {"height": height, "width": width, "matrix": "bt709", "full_range": True, "time_base": base}
    voice = tones(22_050, 44_100, 1)
    late = 40 * MS if height == 32 else 10 * MS  # more, and less, than the priming of AAC
    sound_clock = Clock.regular(44_100, len(voice), late)
    write_media(
        tmp_path / "a.mp4",
        Signal(iter([Block(frames[:7]), Block(frames[7:])]), clock, facts),
        Signal(iter([Block(voice[:9999]), Block(voice[9999:])]), sound_clock, {"dtype": "int16"}, 1),
        lossless=lossless,
    )
    tracks, said = read(tmp_path / "a.mp4")
    assert said == []
    values, back = tracks["video"].read()
    assert np.abs(back.times_ns - clock.times_ns).max() <= 1
    info = tracks["video"].info
    assert (info["matrix"], info["full_range"]) == ("bt709", True)
    heard, at = tracks["audio"].read()
    assert len(heard) == len(voice)
    assert abs(at.start_ns - late) <= NS // 44_100
    if lossless:
        assert (info["height"], info["width"]) == (height, width)
        assert np.array_equal(values, frames)
        assert np.array_equal(heard, voice)
    else:
        assert (info["height"], info["width"]) == (height + height % 2, width + width % 2)
        luma = planes(values, info["height"], info["width"])[0][:, :height, :width]
        assert psnr(luma, planes(frames, height, width)[0]) > 33
        assert np.sqrt(np.mean((heard[4000:18_000, 0] - voice[4000:18_000, 0] / 32_768) ** 2)) < 0.01


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_lossless_sound_comes_back_bit_for_bit(tmp_path: Path, dtype: str, channels: int) -> None:
    raw = np.random.default_rng(1).integers(-32_768, 32_768, (30_000, channels)).astype(np.int16)
    values = raw if dtype == "int16" else (raw / 32_768 * 1.5).astype(np.float32)
    write_wav(tmp_path / "a.wav", iter([Block(values[:100]), Block(values[100:])]), 44_100, channels, dtype)
    back, clock = read_soundfile(tmp_path / "a.wav").read()
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)
    assert clock.rate == 44_100
    frames = moving_pictures(3)
    write_media(
        tmp_path / "a.mp4",
        Signal(iter([Block(frames)]), Clock.regular(4, 3), {"height": 32, "width": 48}),
        Signal(iter([Block(values)]), Clock.regular(44_100, 30_000), {"dtype": dtype}, channels),
        lossless=True,
    )
    back, _ = read(tmp_path / "a.mp4")[0]["audio"].read()
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)
