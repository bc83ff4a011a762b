"""PSNR and SSIM: against scikit-image's numbers, against the definition written out, and blind to how it is cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import pixels
from pantok.metrics.video import K1, K2, PEAK, VideoMeter, psnr_db, ssim


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Two 37 x 53 pictures: waves and steps, and the same with a coarser scale and some grain."""
    y, x = np.mgrid[0:37, 0:53]
    a = np.rint(120 + 70 * np.sin(x / 7) * np.cos(y / 5) + 30 * ((x + y) % 11 > 5)).clip(0, 255).astype(np.uint8)
    b = ((a // 24) * 24 + (x * 7 + y * 13) % 9).clip(0, 255).astype(np.uint8)
    return a, b


def random_frames(seed: int, count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, pixels.frame_bytes(height, width)), dtype=np.uint8)


def test_same_numbers_as_scikit_image() -> None:
    # scikit-image 0.26.0 on these pictures: structural_similarity(a, b, gaussian_weights=True, sigma=1.5,
    # use_sample_covariance=False, data_range=255) and peak_signal_noise_ratio(a, b, data_range=255).
    a, b = pictures()
    assert ssim(a[None], b[None])[0] == pytest.approx(0.9181172076554646, abs=1e-6)
    assert psnr_db(float(np.mean((a.astype(float) - b) ** 2))) == pytest.approx(27.837131416908512, abs=1e-9)


def test_ssim_is_the_definition_written_out() -> None:
    a, b = (p[:14, :13].astype(np.float64) for p in pictures())
    g = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / np.outer(g, g).sum()
    c1, c2, found = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2, []
    for i in range(4):
        for j in range(3):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a[None].astype(np.uint8), b[None].astype(np.uint8))[0] == pytest.approx(np.mean(found), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 23), max_size=5), share=st.sampled_from([0.2, 0.5, 1.0]))
def test_scores_do_not_depend_on_how_the_frames_are_cut(cuts: list[int], share: float) -> None:
    height, width = 17, 19
    original, decoded = random_frames(1, 23, height, width), random_frames(2, 23, height, width)
    whole, pieces = (VideoMeter(height, width, versions=2, share=share) for _ in range(2))
    whole.update(original, [decoded, original])
    edges = [0, *sorted(cuts), 23]
    for a, b in pairwise(edges):
        pieces.update(original[a:b], [decoded[a:b], original[a:b]])
    for one, other in zip(whole.scores(), pieces.scores(), strict=True):
        assert (one.psnr_rgb_db, one.psnr_luma_db) == (other.psnr_rgb_db, other.psnr_luma_db)
        assert one.ssim == pytest.approx(other.ssim, abs=1e-9) and one.sampled_frames == other.sampled_frames
    # The second version is the original itself.
    assert whole.scores()[1].psnr_rgb_db == math.inf and whole.scores()[1].ssim == pytest.approx(1, abs=1e-6)


def test_psnr_is_that_of_the_pooled_error_in_luma_and_rgb() -> None:
    height, width = 12, 15
    original, decoded = random_frames(3, 6, height, width), random_frames(4, 6, height, width)
    decoded[:3] = original[:3]  # three perfect frames must not lift the figure to infinity
    meter = VideoMeter(height, width, matrix="bt709", full_range=True)
    meter.update(original, [decoded])
    scores = meter.scores()[0]
    y0, y1 = (pixels.planes(f, height, width)[0].astype(float) for f in (original, decoded))
    r0, r1 = (pixels.to_rgb(f, height, width, "bt709", True).astype(float) for f in (original, decoded))
    assert scores.psnr_luma_db == pytest.approx(10 * math.log10(255**2 / ((y0 - y1) ** 2).mean()))
    assert scores.psnr_rgb_db == pytest.approx(10 * math.log10(255**2 / ((r0 - r1) ** 2).mean()))


def test_a_share_of_the_frames_is_spread_and_luma_sees_them_all() -> None:
    height, width = 16, 16
    original = random_frames(5, 400, height, width)
    decoded = original.copy()
    decoded[399, 0] ^= 255  # one luma byte of the last frame
    meter = VideoMeter(height, width, share=0.25)
    meter.update(original, [decoded])
    scores = meter.scores()[0]
    assert 98 <= scores.sampled_frames <= 102 and scores.frames == 400
    assert math.isfinite(scores.psnr_luma_db)


def test_pictures_below_the_window_and_no_pictures_at_all() -> None:
    meter = VideoMeter(10, 64)
    assert math.isnan(meter.scores()[0].psnr_luma_db) and math.isnan(meter.scores()[0].ssim)
    frames = random_frames(6, 2, 10, 64)
    meter.update(frames, [frames])
    assert meter.scores()[0].psnr_luma_db == math.inf and math.isnan(meter.scores()[0].ssim)
