"""Frames as planar YUV 4:2:0, the form in which codecs hold them, and their conversion to RGB.

A frame is a flat uint8 vector: the Y plane (height x width), then U, then V, each of
ceil(height/2) x ceil(width/2). Half the bytes of RGB, and no conversion between decoder and tokenizer.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from pantok.experience import Clock, Track

# Kr, Kb of ITU-R BT.601 and BT.709.
_MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def frame_bytes(height: int, width: int) -> int:
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


def planes(frames: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views Y (n, H, W), U and V (n, ceil(H/2), ceil(W/2)) of frames (n, frame_bytes)."""
    h2, w2 = (height + 1) // 2, (width + 1) // 2
    y_end, u_end = height * width, height * width + h2 * w2
    n = len(frames)
    return (
        frames[:, :y_end].reshape(n, height, width),
        frames[:, y_end:u_end].reshape(n, h2, w2),
        frames[:, u_end:].reshape(n, h2, w2),
    )


def pack(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Inverse of `planes`: uint8 (n, frame_bytes)."""
    n = len(y)
    return np.concatenate([p.reshape(n, -1) for p in (y, u, v)], axis=1).astype(np.uint8, copy=False)


def to_rgb(frames: np.ndarray, height: int, width: int, matrix: str = "bt601", full_range: bool = False) -> np.ndarray:
    """uint8 (n, H, W, 3). Chroma is repeated, not interpolated, so that the map has no reach across samples."""
    y, u, v = (p.astype(np.float32) for p in planes(frames, height, width))
    u, v = (np.repeat(np.repeat(c, 2, 1), 2, 2)[:, :height, :width] - 128.0 for c in (u, v))
    if full_range:
        gain = 1.0
    else:
        y, gain = (y - 16.0) * (255.0 / 219.0), 255.0 / 224.0
    kr, kb = _MATRICES[matrix]
    kg = 1.0 - kr - kb
    red = y + (2 * (1 - kr) * gain) * v
    blue = y + (2 * (1 - kb) * gain) * u
    green = y - (2 * kb * (1 - kb) / kg * gain) * u - (2 * kr * (1 - kr) / kg * gain) * v
    return np.clip(np.rint(np.stack([red, green, blue], -1)), 0, 255).astype(np.uint8)


def from_rgb(rgb: np.ndarray, matrix: str = "bt601", full_range: bool = False) -> np.ndarray:
    """uint8 (n, frame_bytes) from uint8 (n, H, W, 3); chroma is the mean of each 2x2 (edges repeated)."""
    n, height, width, _ = rgb.shape
    kr, kb = _MATRICES[matrix]
    r, g, b = (rgb[..., i].astype(np.float32) for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if not full_range:
        y, u, v = y * (219.0 / 255.0) + 16.0, u * (224.0 / 255.0), v * (224.0 / 255.0)
    pad = ((0, 0), (0, height % 2), (0, width % 2))
    u, v = (
        np.pad(c, pad, "edge").reshape(n, (height + 1) // 2, 2, (width + 1) // 2, 2).mean((2, 4)) + 128.0
        for c in (u, v)
    )
    return pack(*(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in (y, u, v)))


def track(name: str, rgb: np.ndarray, rate: Fraction | int, start_ns: int = 0) -> Track:
    """A video track of pictures that a program holds. rgb: uint8 (n, height, width, 3); rate: pictures a second."""
    _, height, width, _ = rgb.shape
    facts = {"height": height, "width": width, "matrix": "bt601", "full_range": False}
    return Track.of_array(name, from_rgb(rgb), Clock.regular(rate, len(rgb), start_ns), info=facts)
