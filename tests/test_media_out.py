"""Pictures with sound that are written come back as they were, at their instants."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pantok.experience import NS, Block, Clock
from pantok.formats.media_out import Signal, changes_in, write_media
from pantok.pixels import planes
from tests.media_files import MS, moving_pictures, psnr, read, tones


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


def test_what_a_container_cannot_hold_is_known_beforehand(tmp_path: Path) -> None:
    frames, hum = moving_pictures(4, 17, 33), tones(5_500, 11_000, 1)
    facts = {"height": 17, "width": 33}
    for lossless, expected in ((False, ["34x18 for 33x17", "11,025 Hz for 11,000"]), (True, [])):
        picture = Signal(iter([Block(frames)]), Clock.regular(Fraction(8), 4), facts)
        sound = Signal(iter([Block(hum)]), Clock.regular(Fraction(11_000), len(hum)), {"dtype": "int16"}, 1)
        said = changes_in(picture, sound, lossless=lossless)
        assert len(said) == len(expected)
        assert all(e in s for e, s in zip(expected, said, strict=True)), said
        write_media(tmp_path / "a.mp4", picture, sound, lossless=lossless)
        tracks, _ = read(tmp_path / "a.mp4")
        assert (tracks["video"].info["width"] == 33, tracks["audio"].rate == 11_000) == (lossless, lossless)
    assert not changes_in(Signal(iter(()), picture.clock, {"height": 18, "width": 34}))
