"""PSNR and SSIM of video, one block of frames at a time, on planar YUV 4:2:0 as the tokenizer gives it.

What differs from the usual: PSNR is that of the mean squared error over *all* samples (a mean of each frame's
PSNR is lifted without bound by one perfect frame), and SSIM is Wang's own definition, over the positions where
the whole window lies inside the picture, so that a flat border or a black bar does not score for free.

    >>> grey, near = np.full((2, 24 * 16 * 3 // 2), 128, np.uint8), np.full((2, 24 * 16 * 3 // 2), 130, np.uint8)
    >>> meter = VideoMeter(16, 24)
    >>> meter.update(grey, [near])
    >>> round(meter.scores()[0].psnr_luma_db, 2)    # 10 log10(255^2 / 2^2)
    42.11

Shapes: N frames, H W picture, F = bytes of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pantok import pixels

PEAK = 255.0
WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
"""Window and constants of Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment: from error
visibility to structural similarity", IEEE TIP 13(4), 2004, section III."""
_AT_ONCE = 4  # frames; more leave the cache and take twice as long
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class VideoScores:
    """psnr_*_db: decibels, inf where nothing differs. ssim: mean over positions and frames, nan below 11 x 11."""

    frames: int
    sampled_frames: int
    psnr_rgb_db: float
    psnr_luma_db: float
    ssim: float


def psnr_db(mean_squared_error: float, peak: float = PEAK) -> float:
    """10 log10(peak^2 / MSE); inf for 0, nan for nan."""
    return 10 * math.log10(peak * peak / mean_squared_error) if mean_squared_error else math.inf


def ssim(x_NHW: np.ndarray, y_NHW: np.ndarray) -> np.ndarray:
    """float64 (N,): mean structural similarity of 8-bit pictures, (13) of Wang et al. 2004. nan below 11 x 11."""
    return _Ssim(x_NHW)(y_NHW)


class _Ssim:
    """One picture stack against many: what depends on the original alone is computed once."""

    def __init__(self, x_NHW: np.ndarray) -> None:
        self.defined = min(x_NHW.shape[1:]) >= WINDOW
        if self.defined:
            # Variances do not move with the mean, and float32 keeps more of them about mid-grey.
            self.x = x_NHW.astype(np.float32) - 128
            self.mean = _smooth(self.x)
            self.square = _smooth(self.x * self.x) - self.mean * self.mean

    def __call__(self, y_NHW: np.ndarray) -> np.ndarray:
        if not self.defined:
            return np.full(len(y_NHW), np.nan)
        y = y_NHW.astype(np.float32) - 128
        mean = _smooth(y)
        both = _smooth(self.x * y) - self.mean * mean
        spread = self.square + _smooth(y * y) - mean * mean
        c1, c2 = np.float32((K1 * PEAK) ** 2), np.float32((K2 * PEAK) ** 2)
        mx, my = self.mean + 128, mean + 128
        similar = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (spread + c2))
        return similar.mean((1, 2), dtype=np.float64)


def _taps() -> np.ndarray:
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    return (weights / weights.sum()).astype(np.float32)


_TAPS = _taps()


def _smooth(x_NHW: np.ndarray) -> np.ndarray:
    """The Gaussian mean at each position whose window lies inside: (N, H - 10, W - 10). Symmetric taps are paired."""
    for axis in (1, 2):
        size, half = x_NHW.shape[axis] - WINDOW + 1, WINDOW // 2

        def shifted(k: int, x: np.ndarray = x_NHW, axis: int = axis, size: int = size) -> np.ndarray:
            return x[:, k : k + size] if axis == 1 else x[:, :, k : k + size]

        total = shifted(half) * _TAPS[half]
        pair = np.empty_like(total)
        for k in range(half):
            np.add(shifted(k), shifted(WINDOW - 1 - k), out=pair)
            pair *= _TAPS[k]
            total += pair
        x_NHW = total
    return x_NHW


class VideoMeter:
    """Several decoded versions of one video against it, in one pass and constant memory.

    share: of the frames on which RGB and SSIM, which cost most, are measured; luma PSNR sees every frame. The
        frames are those of a golden-ratio sequence: evenly spread, and in step with no tick or key frame.
    matrix, full_range: how YUV becomes RGB, see `pantok.pixels`.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        versions: int = 1,
        matrix: str = "bt601",
        full_range: bool = False,
        share: float = 1.0,
    ) -> None:
        assert 0 < share <= 1 and versions > 0, (share, versions)
        self.height, self.width, self.matrix, self.full_range, self.share = height, width, matrix, full_range, share
        self.frames = self.sampled = 0
        self._luma = np.zeros(versions)
        self._rgb = np.zeros(versions)
        self._ssim = np.zeros(versions)

    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        """original and each of decoded: uint8 (N, F), the same N frames."""
        assert all(version.shape == original.shape for version in decoded), [v.shape for v in (original, *decoded)]
        for i in range(0, len(original), _AT_ONCE):
            part = slice(i, i + _AT_ONCE)
            self._update(original[part], [version[part] for version in decoded])

    def _update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        y0 = pixels.planes(original, self.height, self.width)[0]
        number = np.arange(self.frames, self.frames + len(original))
        chosen = np.flatnonzero((number == 0) | ((number * GOLDEN) % 1.0 < self.share))
        self.frames += len(original)
        self.sampled += len(chosen)
        if len(chosen):
            rgb0 = self._to_rgb(original[chosen])
            similarity = _Ssim(y0[chosen])
        for i, version in enumerate(decoded):
            y1 = pixels.planes(version, self.height, self.width)[0]
            self._luma[i] += _squared_error(y0, y1)
            if len(chosen):
                self._rgb[i] += _squared_error(rgb0, self._to_rgb(version[chosen]))
                self._ssim[i] += similarity(y1[chosen]).sum()

    def scores(self) -> tuple[VideoScores, ...]:
        """One for each version, over all frames so far; nan before the first."""
        area = self.height * self.width
        luma, sampled = max(self.frames, 1) * area, max(self.sampled, 1)
        nothing = math.nan if not self.frames else 0.0
        return tuple(
            VideoScores(
                frames=self.frames,
                sampled_frames=self.sampled,
                psnr_rgb_db=psnr_db(float(self._rgb[i]) / (sampled * area * 3) + nothing),
                psnr_luma_db=psnr_db(float(self._luma[i]) / luma + nothing),
                ssim=float(self._ssim[i]) / sampled + nothing,
            )
            for i in range(len(self._luma))
        )

    def _to_rgb(self, frames: np.ndarray) -> np.ndarray:
        return pixels.to_rgb(frames, self.height, self.width, self.matrix, self.full_range)


def _squared_error(a: np.ndarray, b: np.ndarray) -> int:
    """Sum of squared differences of uint8 arrays, exact."""
    difference = np.abs(np.subtract(a, b, dtype=np.int16)).astype(np.uint8)
    counts = np.bincount(difference.reshape(-1), minlength=256)
    return int((counts * np.arange(256, dtype=np.int64) ** 2).sum())
