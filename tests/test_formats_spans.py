"""Spans of a film that many recordings share: each picture is that of the whole film, whatever its codec and rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pantok.experience import NS, Clock
from pantok.formats.container_video import Span, video_track

LENGTHS = (17, 1, 30, 9, 26)


def filmed(path: Path, codec: str, options: dict[str, str], rate: Fraction, first: int) -> None:
    """Pictures that differ, the first of which is shown `first` pictures after zero."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.options = "yuv420p", options
        for i in range(sum(LENGTHS)):
            grey = np.full((32, 32, 3), i * 7 % 256, np.uint8)
            grey[i % 4 * 8 :][:8, i // 4 % 4 * 8 :][:, :8] = 255
            frame = av.VideoFrame.from_ndarray(grey)
            frame.pts, frame.time_base = first + i, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("codec", "options", "rate", "first"),
    [
        ("libx264", {}, Fraction(30000, 1001), 3),
        ("libx264", {"g": "250"}, Fraction(30), 0),
        ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, Fraction(10), 17),
        ("mpeg4", {"bf": "2"}, Fraction(50), 0),  # its keyframes are shown later than they are decoded
    ],
    ids=lambda v: str(v) if isinstance(v, str | Fraction) else "",
)
def test_each_picture_of_a_span_is_that_of_the_film(
    codec: str, options: dict[str, str], rate: Fraction, first: int, tmp_path: Path
) -> None:
    path, at = tmp_path / "film.mp4", 0
    said: list[str] = []
    filmed(path, codec, options, rate, first)
    whole = {size: video_track(path, 0, "video", 0, size, None, said.append).read()[0] for size in (None, 16)}
    for count in LENGTHS:
        span = Span(start_ns=round(float((at + first) / rate) * NS), rate=rate, count=count)
        for size, fps in ((None, None), (16, None), (None, rate / 2)):
            track = video_track(path, 0, "video", 0, size, fps, said.append, span)
            values, clock = track.read()
            step = 1 if fps is None else 2
            assert np.array_equal(values, whole[size][at : at + count : step]), (at, size, fps)
            even = Clock.regular(rate / step, len(values))
            assert np.array_equal(clock.times_ns, even.times_ns) and (clock.rate == even.rate or len(values) == 1)
            if fps is not None:
                continue
            assert track.glance is not None
            glanced = [row for block in track.glance(0.5) for row in block.values]
            assert len(glanced) >= len(values) // 2 - 1
            assert all(np.array_equal(*pair) for pair in zip(glanced, values[-len(glanced) :], strict=False))
        at += count
    assert not said
