"""Single pictures as cameras and screens write them: EXIF says how they were held, profiles what their colours mean."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pantok.formats.container import read_container
from pantok.pixels import planes

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: np.rot90(p, 2),
    4: lambda p: p[::-1],
    5: lambda p: p.T,
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).T,
    8: lambda p: np.rot90(p, 1),
}
"""By EXIF's `Orientation` (CIPA DC-008, 4.6.4): what is stored, as it is to be shown."""


def picture(codec: str, form: str) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = 48, 32, form
    context.time_base = 1
    ramp = (np.arange(32)[:, None, None] * 4 + np.arange(48)[None, :, None] * 2 + [0, 20, 40]).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(ramp, "rgb24").reformat(format=form)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def exif(orientation: int) -> bytes:
    """A TIFF header and a directory of one entry."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, orientation, 0)


def jpeg(orientation: int | None = None) -> bytes:
    data = picture("mjpeg", "yuvj420p")
    if orientation is None:
        return data
    told = b"Exif\0\0" + exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(told) + 2) + told + data[2:]


def png(form: str = "rgb24", orientation: int | None = None, profile: str | None = None) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = picture("png", form)
    extra = b""
    if profile is not None:
        extra += chunk(b"iCCP", profile.encode() + b"\0\0" + zlib.compress(bytes(128)))
    if orientation is not None:
        extra += chunk(b"eXIf", exif(orientation))
    head = 8 + 25  # signature, IHDR
    return data[:head] + extra + data[head:]


def shown(path: Path, content: bytes) -> tuple[int, int, np.ndarray]:
    path.write_bytes(content)
    track = read_container(path)[0]
    height, width = track.info["height"], track.info["width"]
    return height, width, np.array(planes(track.read()[0], height, width)[0][0])


@pytest.mark.parametrize("orientation", [*UPRIGHT])
def test_photos_are_set_upright(tmp_path: Path, orientation: int) -> None:
    stored = shown(tmp_path / "stored.jpg", jpeg())[2]
    height, width, luma = shown(tmp_path / "photo.jpg", jpeg(orientation))
    assert (height, width) == ((48, 32) if orientation > 4 else (32, 48))
    assert np.array_equal(luma, UPRIGHT[orientation](stored))


@pytest.mark.parametrize("form", ["rgb24", "rgba", "gray", "rgb48be", "ya8"])
def test_a_colour_profile_costs_nothing(tmp_path: Path, form: str) -> None:
    plain, named = png(form), png(form, profile="Display P3")
    for number in range(3):  # what is freed twice shows when it is freed
        assert np.array_equal(shown(tmp_path / "a.png", plain)[2], shown(tmp_path / f"{number}.png", named)[2])


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_png_is_turned_too(tmp_path: Path, orientation: int) -> None:
    stored = shown(tmp_path / "stored.png", png())[2]
    luma = shown(tmp_path / "held.png", png(orientation=orientation, profile="sRGB"))[2]
    assert np.array_equal(luma, UPRIGHT[orientation](stored))
