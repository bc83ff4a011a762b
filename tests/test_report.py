"""The reference codecs give back the same samples in the same places, and the page holds what it shows."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from pantok import pixels
from pantok.errors import InputError
from pantok.evaluate import Point, TrackQuality
from pantok.experience import Block, Clock, Source
from pantok.formats import reference
from pantok.formats.originals import locate
from pantok.formats.report import Page, TrackReport, render
from pantok.formats.report_charts import Curve, line_chart, number, traces, usage
from pantok.formats.report_exhibits import Pictures, Sound, image_url, sound_url, spectrogram
from pantok.metrics.video import VideoMeter
from pantok.rates import rates
from pantok.stream import LevelCodes, TrackTokens
from pantok.vocabulary import Level


def moving(count: int, height: int, width: int) -> np.ndarray:
    """uint8 (count, frame_bytes): coloured waves that drift, with fixed grain."""
    y, x = np.mgrid[0:height, 0:width]
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    rgb = [
        np.stack([128 + 80 * np.sin((x + t) / 9), 128 + 60 * np.cos((y - t) / 7), 90 + 0.3 * (x + y)], -1) + grain
        for t in range(count)
    ]
    return pixels.from_rgb(np.clip(rgb, 0, 255).astype(np.uint8))


def noise(rate: int, channels: int, dtype: type, seconds: float = 2.1) -> np.ndarray:
    """Low-pass noise, so that a codec at a middling rate follows its waveform."""
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=(round(rate * seconds), channels)), axis=0)
    hz = np.fft.rfftfreq(round(rate * seconds), 1 / rate)[:, None]
    samples = np.fft.irfft(spectrum * np.exp(-hz / 400), round(rate * seconds), axis=0)
    samples *= 0.5 / np.abs(samples).max()
    return np.rint(samples * 32767).astype(np.int16) if dtype is np.int16 else samples.astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (95, 127)])
def test_x264_comes_near_the_rate_with_every_frame_in_place(height: int, width: int) -> None:
    frames = moving(40, height, width)
    target = 0.2 * frames.shape[0] * height * width

    def blocks() -> Iterator[Block]:
        return iter((Block(frames[:7]), Block(frames[7:])))

    nearest, *rest = reference.x264_points(blocks, height, width, Fraction(30000, 1001), [target, target / 3])
    assert nearest.bits == pytest.approx(target, rel=0.1)
    assert (
        all(abs(p.bits - target) >= abs(nearest.bits - target) for p in rest) and min(p.bits for p in rest) < target / 2
    )
    decoded = np.concatenate([b.values for b in nearest.blocks()])
    assert decoded.shape == frames.shape
    # In step: each decoded frame is nearer to its own original than to its neighbour's.
    own, next_ = VideoMeter(height, width), VideoMeter(height, width)
    own.update(frames, [decoded])
    next_.update(frames[1:], [decoded[:-1]])
    assert own.scores()[0].psnr_rgb_db > 25 and own.scores()[0].psnr_luma_db > next_.scores()[0].psnr_luma_db + 2


def test_a_rate_that_x264_cannot_reach_gives_its_own_end() -> None:
    frames = moving(8, 64, 64)
    nearest, *_ = reference.x264_points(lambda: iter([Block(frames)]), 64, 64, None, [10.0])
    assert nearest.setting.startswith("crf 51,")


@pytest.mark.parametrize(("rate", "channels", "dtype"), [(16000, 1, np.int16), (44100, 2, np.float32)])
def test_opus_comes_near_the_rate_with_every_sample_in_place(rate: int, channels: int, dtype: type) -> None:
    samples = noise(rate, channels, dtype)
    target = 24_000 * channels
    nearest, *_ = reference.opus_points(lambda: iter([Block(samples)]), rate, channels, [target])
    assert nearest.bits * rate / len(samples) == pytest.approx(target, rel=0.1)
    decoded = np.concatenate([b.values for b in nearest.blocks()])
    assert decoded.shape == samples.shape and decoded.dtype == samples.dtype
    a, b = samples[:, 0].astype(float), decoded[:, 0].astype(float)
    size = 2 * len(a)
    lag = int(np.argmax(np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)))
    assert lag == 0
    assert 10 * np.log10((a @ a) / ((a - b) @ (a - b))) > 10


def test_opus_has_nothing_to_say_of_five_channels() -> None:
    assert reference.opus_points(lambda: iter(()), 48000, 5, [64000]) == ()


def test_pictures_and_sound_come_back_from_the_page() -> None:
    picture = pixels.to_rgb(moving(1, 50, 61), 50, 61)[0]
    url = image_url(picture)
    assert np.array_equal(opened(url), picture)  # PNG: to the bit
    large = np.kron(picture, np.ones((6, 6, 1), np.uint8))
    assert image_url(large).startswith("data:image/jpeg")
    assert np.abs(opened(image_url(large)).astype(int) - large).mean() < 2
    samples = noise(16000, 2, np.float32)
    with av.open(io.BytesIO(data_of(sound_url(samples, 16000)))) as file:
        decoded = np.concatenate([f.to_ndarray().reshape(-1, 2) for f in file.decode(audio=0)])
    assert np.array_equal(decoded, np.rint(samples * 32767).astype(np.int16))


def test_a_spectrogram_shows_a_tone_where_it_is() -> None:
    rate = 16000
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate, dtype=np.float32)[:, None]
    picture, loudest = spectrogram(tone, rate)
    row = int(picture.sum((1, 2)).argmax())
    mel = (159.5 - row) / 160 * 2595 * np.log10(1 + 8000 / 700)
    assert 700 * (10 ** (mel / 2595) - 1) == pytest.approx(1000, abs=40)
    quiet, _ = spectrogram(tone * 0.01, rate, loudest)
    assert quiet.astype(int).sum() < picture.astype(int).sum()


def test_charts_are_well_formed_and_leave_out_what_cannot_be_drawn() -> None:
    curve = Curve(
        "a <codec> & more", ((1.0, 30.0), (0.0, 20.0), (2.0, float("inf")), (4.0, 36.0)), ("w", "x", "y", "z")
    )
    chart = ElementTree.fromstring(line_chart([curve], "bits/pixel", "PSNR < dB"))
    tips = [t.text for t in chart.iter("title")]
    assert tips == ["w: 30 at 1", "z: 36 at 4"]
    assert line_chart([Curve("none", ((0.0, 1.0),))], "x", "y") == ""
    values = np.sin(np.arange(5000) / 50)
    values[1000:2000] = np.nan
    for length in (5000, 300, 1):
        drawn = traces(values[:length], values[:length], np.arange(length) / 100, "joint")
        assert len(drawn) < 30_000 and ElementTree.fromstring(drawn) is not None and "nan" not in drawn
    assert traces(values[1000:1100], values[1000:1100], np.arange(100.0), "joint") == ""
    # A quarter of the codes used: the drawn area ends at a quarter of the width.
    counts = np.zeros(1024, np.int64)
    counts[5:261] = 7
    path = next(p.get("d") for p in ElementTree.fromstring(usage(counts, "level")).iter("path"))
    assert max(float(x) for x in re.findall(r"[ML]([\d.]+)", str(path))) == pytest.approx(220 / 4)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (1234.4, "1234"), (45678.0, "45.7k"), (3.4e6, "3.4M"), (1e-6, "1.0e-06")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_page_asks_for_nothing_and_its_pictures_open(tmp_path: Path) -> None:
    page = render(a_page())
    found = Reader()
    found.feed(page)
    assert not [u for u in found.urls if not u.startswith(("data:", "#"))]
    assert "script" not in found.tags and "link" not in found.tags and "http" not in page.replace("http-equiv", "")
    assert found.open_tags == []
    pictures = [u for u in found.urls if u.startswith("data:image")]
    # Two moments of original, decoded, reference and difference; three prefixes of one; three spectrograms.
    assert len(pictures) == 2 * 4 + 2 + 4
    assert all(opened(u).ndim == 3 for u in pictures)
    assert "front &lt;1&gt;" in page and "<1>" not in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
def test_the_page_opens_in_a_browser(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render(a_page()), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    shot = tmp_path / "shot.png"
    subprocess.run(
        [*command, "--window-size=1200,2400", f"--screenshot={shot}", f"file://{tmp_path}/report.html"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    with av.open(str(shot)) as file:
        picture = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (2400, 1200, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2000  # pictures and text, not an empty or broken page


def test_originals_are_found_again_and_proven(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "a.mp4"
    path.write_bytes(b"recording")
    source = Source(str(path), 9, hashlib.sha256(b"recording").hexdigest())
    assert locate([source]) == (path,)
    moved = tmp_path / "new" / "old" / "a.mp4"
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    with pytest.raises(InputError, match=r"missing \(--sources DIR"):
        locate([source])
    assert locate([source], tmp_path / "new") == (moved,)
    deep = tmp_path / "new" / "x" / "a.mp4"
    deep.parent.mkdir()
    moved.rename(deep)
    assert locate([source], tmp_path / "new") == (deep,)
    (tmp_path / "new" / "y").mkdir()
    (tmp_path / "new" / "y" / "a.mp4").write_bytes(b"another..")
    with pytest.raises(InputError, match="holds 2 files named"):
        locate([source], tmp_path / "new")
    with pytest.raises(InputError, match="another sha256"):
        locate([source], tmp_path / "new" / "y")
    (tmp_path / "new" / "y" / "a.mp4").write_bytes(b"short")
    bracketed = tmp_path / "take" / "1" / "take[1].mp4"
    bracketed.parent.mkdir(parents=True)
    bracketed.write_bytes(b"recording")
    assert locate([Source("/gone/take[1].mp4", 9, source.sha256)], tmp_path / "take") == (bracketed,)
    with pytest.raises(InputError, match="has changed: 5 bytes, 9 when"):
        locate([source], tmp_path / "new" / "y")


class Reader(HTMLParser):
    """Every tag and every address that the page names, and the tags that were left open."""

    VOID = ("meta", "img", "br", "link", "input")
    SELF_CLOSED = ("line", "circle", "path", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.tags: set[str] = set()
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open_tags.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag, (tag, self.getpos())


def data_of(url: str) -> bytes:
    return base64.b64decode(url.split(",", 1)[1], validate=True)


def opened(url: str) -> np.ndarray:
    with av.open(io.BytesIO(data_of(url))) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def point(codec: str, levels: int | None, **quality: float) -> Point:
    return Point(
        codec=codec,
        setting=f"levels 1..{levels}" if levels else "crf 30",
        levels=levels,
        tokens=100 * (levels or 0),
        bits=1000.0 * (levels or 2),
        entropy_bits=900.0 * (levels or 2),
        quality=quality,
        identical=False,
        encode_seconds=0.5,
        decode_seconds=0.1,
    )


def a_page() -> Page:
    """A video of two levels beside x264 and a sound of one beside Opus, with their exhibits."""
    frames, info = moving(12, 48, 64), {"height": 48, "width": 64}
    levels = (LevelCodes.of_counts(np.arange(12, dtype=np.uint8), np.full(12, 1)),) * 2
    video = TrackTokens("video.front <1>", "video", Clock.regular(25, 12), 1, levels, info=info)
    pictures = Pictures(info, (2, 6))
    pictures(0, frames[:5], [frames[:5]] * 3)
    pictures(5, frames[5:], [frames[5:]] * 3)
    samples = noise(16000, 1, np.float32, 0.5)
    level = (LevelCodes.of_counts(np.arange(25, dtype=np.uint8), np.full(25, 1)),) * 2
    audio = TrackTokens("audio", "audio", Clock.regular(16000, 8000), 320, level, info={"sample_rate": 16000})
    sound = Sound(16000)
    sound(0, samples, [samples] * 3)
    tracks = []
    for tokens, exhibit, codec, keys in (
        (video, pictures, "x264", ("psnr_rgb_db", "psnr_luma_db", "ssim")),
        (audio, sound, "Opus", ("si_sdr_db", "mel_distance", "pesq_wb", "stoi")),
    ):
        rate = rates(tokens, (Level("coarse", 32), Level("fine", 64)))
        quality = TrackQuality(
            track=tokens.name,
            modality=tokens.modality,
            samples=rate.samples,
            of_samples=rate.samples,
            seconds=rate.seconds,
            values=rate.values,
            prefixes=tuple(point("pantok", k, **dict.fromkeys(keys, 20.0 + k)) for k in (1, 2)),
            references=(point(codec, None, **dict.fromkeys(keys, 30.0)),),
            encode_speed=2.0,
            decode_speed=10.0,
        )
        tracks.append(TrackReport(episode="kitchen", rate=rate, quality=quality, exhibit=exhibit))
    tracks.append(TrackReport(episode="garden", rate=rates(video, (Level("coarse", 32), Level("fine", 64)))))
    return Page(title="home.zarr", facts={"measured": "whole tracks"}, tracks=tracks, problems=["garden: is missing"])
