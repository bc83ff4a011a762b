"""Sound files as tracks, and lossless sound written and read again, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pantok.experience import Block, Clock
from pantok.formats.container import read_container
from pantok.formats.folder import find_episodes, read_episode
from pantok.formats.media_out import Signal, write_media
from pantok.formats.soundfiles import read_soundfile, write_wav
from tests.media_files import cut, moving_pictures, read, tones


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
