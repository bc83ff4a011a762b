"""Media that is cut off, spoilt or no media at all: one error, or what is left of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pantok.errors import InputError
from pantok.formats.folder import find_episodes, read_episode
from tests.media_files import Pictures, Sound, cut, make_media, moving_pictures, read, tones


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
