"""Cameras in logs of robots: the right pictures, in whatever form they were sent, fetched when they are read."""

from __future__ import annotations

import base64
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from mcap import stream_reader

from pantok import pixels
from pantok.experience import Track
from pantok.formats import mcap_file
from pantok.formats.mcap_log import read_log
from tests.media_files import moving_pictures
from tests.robot_logs import MS, T0, Sent, bag, camera, colours, encoded, header, raw_log, read

IMAGE = "sensor_msgs/msg/Image"


def as_rgb(track: Track) -> np.ndarray:
    """A pixel of each tile, int (n, rows, columns, 3)."""
    said = {key: track.info[key] for key in ("matrix", "full_range")}
    rgb = pixels.to_rgb(track.read()[0], track.info["height"], track.info["width"], **said)
    return rgb.astype(int)[:, 6::16, 6::16]


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_pictures_of_a_camera(tmp_path: Path, codec: str) -> None:
    want, sent = colours(12), camera(colours(12), codec)
    sent[4], sent[5] = sent[5], sent[4]  # logged in another order than taken
    sent[7][2]["data"] = b"\xff\xd8\xff nothing"  # type: ignore[index]
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    track = tracks["video.front.image.compressed"]
    assert said == [] and (track.info["width"], track.info["height"], track.rate) == (48, 32, 25)
    for _ in range(2):
        clock = track.read()[1]
        kept = [i for i in range(12) if i != 7]
        assert np.abs(as_rgb(track) - want[kept][:, 6::16, 6::16]).max() <= 6
        assert (clock.times_ns == np.array(kept) * 40 * MS).all()
    lines: list[str] = []
    small = read_log(tmp_path / "a.mcap", {}, lines.append, size=16, fps=Fraction(50))[0]
    values, clock = small.read()
    assert (values.shape, clock.rate, clock.count) == ((24, pixels.frame_bytes(16, 24)), 50, 24)
    assert len(lines) == 1 and lines[0].endswith("1 of 12 pictures cannot be decoded (left out; the others are kept)")


def pixels_of(rgb: np.ndarray, encoding: str) -> tuple[bytes, int]:
    """A picture in rows that are padded to a multiple of 64 bytes, and their length."""
    form = {
        "rgb8": "rgb24",
        "bgr8": "bgr24",
        "rgba8": "rgba",
        "bgra8": "bgra",
        "mono8": "gray",
        "yuv422_yuy2": "yuyv422",
    }
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=form[encoding])
    rows = frame.to_ndarray().reshape(rgb.shape[0], -1)
    step = -(-rows.shape[1] // 64) * 64 + 64
    return np.pad(rows, ((0, 0), (0, step - rows.shape[1]))).tobytes(), step


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422_yuy2"])
def test_plain_pixels(tmp_path: Path, encoding: str) -> None:
    want = colours(3)
    if encoding == "mono8":
        want = want[..., :1].repeat(3, 3)
    sent: list[Sent] = []
    for i, rgb in enumerate(want):
        data, step = pixels_of(rgb, encoding)
        content = {
            "header": header(T0 + i),
            "height": 32,
            "width": 48,
            "encoding": encoding,
            "step": step,
            "data": data,
        }
        sent.append(("/cam", IMAGE, content, T0 + i))
    tracks, said = read(bag(tmp_path / "a.mcap", sent))
    assert said == []
    assert np.abs(as_rgb(tracks["video.cam"]) - want[:, 6::16, 6::16]).max() <= 6


def test_packets_of_video(tmp_path: Path) -> None:
    """As Foxglove's agents send them: H.264 without frames that come before their time."""
    values = moving_pictures(20)
    player = av.CodecContext.create("libx264", "w")
    player.width, player.height, player.pix_fmt, player.time_base = 48, 32, "yuv420p", Fraction(1, 25)
    player.options = {"tune": "zerolatency", "crf": "1", "g": "8"}
    sent: list[Sent] = []
    for i, value in enumerate(values):
        frame = av.VideoFrame.from_ndarray(value.reshape(48, 48), "yuv420p")
        frame.pts = i
        for packet in player.encode(frame):
            content = {"timestamp": header(T0 + i * 40 * MS)["stamp"], "data": bytes(packet), "format": "h264"}
            sent.append(("/cam", "foxglove_msgs/msg/CompressedVideo", content, T0 + i * 40 * MS))
    assert len(sent) == 20
    track = read(bag(tmp_path / "a.mcap", sent))[0]["video.cam"]
    found, clock = track.read()
    assert np.abs(found.astype(int) - values).max() <= 12 and (clock.times_ns == np.arange(20) * 40 * MS).all()
    assert track.glance is not None
    assert next(track.glance(0.5)).times_ns.tolist() == [k * 40 * MS for k in range(16, 20)]  # from a keyframe on


def test_pictures_in_json(tmp_path: Path) -> None:
    want = colours(3)
    sent = [
        ("/cam", T0 + i * MS, {"format": "jpeg", "data": base64.b64encode(encoded(rgb)).decode()})
        for i, rgb in enumerate(want)
    ]
    schema = ("foxglove.CompressedImage", "jsonschema", b'{"type": "object"}')

    path = raw_log(
        tmp_path / "a.mcap", [(t, n, json.dumps(c).encode()) for t, n, c in sent], encoding="json", schema=schema
    )
    assert np.abs(as_rgb(read(path)[0]["video.cam"]) - want[:, 6::16, 6::16]).max() <= 6


def test_pictures_are_fetched_when_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of a camera is never in memory: counted are the pictures fetched and the chunks unpacked."""
    sent = camera(colours(100))
    chunks, fetched = [], []
    unpacked, at = stream_reader.breakup_chunk, mcap_file.Fetched.at
    monkeypatch.setattr(stream_reader, "breakup_chunk", lambda *a, **how: chunks.append(1) or unpacked(*a, **how))
    monkeypatch.setattr(mcap_file.Fetched, "at", lambda self, place: fetched.append(place) or at(self, place))
    path = bag(tmp_path / "a.mcap", sent, chunk_size=4 << 10)
    track = read(path)[0]["video.front.image.compressed"]
    whole = len(chunks) - 1  # the first is unpacked again for the first picture
    assert len(fetched) == 1 and whole > 10
    fetched.clear()
    chunks.clear()
    blocks = track.blocks()
    assert len(next(blocks)) == 32 and len(fetched) == 32 and len(chunks) < whole / 2
    assert sum(map(len, blocks)) == 68 and len(fetched) == 100 and len(chunks) == whole
    chunks.clear()
    assert track.glance is not None and track.told_s == 4.0
    assert next(track.glance(0.9)).times_ns[0] == 90 * 40 * MS and len(chunks) <= -(-whole // 10) + 1
