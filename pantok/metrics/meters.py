"""One interface to the measures of every modality: several decoded versions of one track against it, in one pass.

A meter takes blocks as they come and holds sums, not samples; sound alone is held, a segment at a time, because
PESQ and STOI look at whole utterances. Scores are plain mappings with stable keys; nan where a measure does not
apply (SSIM of a picture below 11 x 11, PESQ of silence), inf where nothing differs.

    >>> meter = NumericMeter(versions=1)
    >>> meter.update(np.array([[1.0, 2.0]]), [np.array([[1.0, 2.5]])])
    >>> meter.scores()[0]["max_error"]
    0.5
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pantok.metrics.video import VideoMeter

Scores = dict[str, float]


class Meter(ABC):
    """`update` with the same samples of the original and of each version; `scores` at the end, one for each version."""

    @abstractmethod
    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None: ...

    @abstractmethod
    def scores(self) -> tuple[Scores, ...]: ...


def meter_for(modality: str, info: Mapping[str, Any], versions: int, *, share: float = 1.0) -> Meter:
    """The meter of a modality. info: the track's own facts. share: of video frames, see VideoMeter."""
    if modality == "video":
        return PictureMeter(info, versions, share)
    if modality == "audio":
        return SoundMeter(int(info["sample_rate"]), versions)
    if modality == "text":
        return TextMeter(versions)
    return NumericMeter(versions)


class PictureMeter(Meter):
    """`psnr_rgb_db`, `psnr_luma_db`, `ssim`."""

    def __init__(self, info: Mapping[str, Any], versions: int, share: float = 1.0) -> None:
        self._meter = VideoMeter(
            int(info["height"]),
            int(info["width"]),
            versions=versions,
            matrix=info.get("matrix", "bt601"),
            full_range=bool(info.get("full_range", False)),
            share=share,
        )

    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        self._meter.update(original, decoded)

    def scores(self) -> tuple[Scores, ...]:
        return tuple(
            {"psnr_rgb_db": s.psnr_rgb_db, "psnr_luma_db": s.psnr_luma_db, "ssim": s.ssim} for s in self._meter.scores()
        )


class NumericMeter(Meter):
    """`max_error`, `rms_error` over the values that are finite in the original, in its units; `same_nonfinite`.

    same_nonfinite: 1.0 if every NaN and infinity of the original came back as itself and no other value became one.
    Differences of integers and booleans are exact, of floats float64. Rows are (n, channels) or (n,).
    """

    def __init__(self, versions: int) -> None:
        self._count = 0
        self._max = [np.zeros(0) for _ in range(versions)]
        self._squares = np.zeros(versions)
        self._kept = np.ones(versions, bool)

    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        x = original.reshape(len(original), -1)
        finite = np.isfinite(x)
        self._count += int(finite.sum())
        for i, version in enumerate(decoded):
            y = np.asarray(version, x.dtype).reshape(x.shape)
            self._kept[i] &= np.array_equal(x[~finite], y[~finite], equal_nan=True) and np.isfinite(y[finite]).all()
            error = np.where(finite, _absolute_difference(x, y), 0.0)
            self._max[i] = np.maximum(self._max[i] if len(self._max[i]) else 0.0, error.max(0, initial=0.0))
            with np.errstate(over="ignore"):  # beyond 1e154 it is infinite, and said so
                self._squares[i] += float((error * error).sum())

    def scores(self) -> tuple[Scores, ...]:
        nothing = 0.0 if self._count else math.nan
        return tuple(
            {
                "max_error": float(self._max[i].max(initial=0.0)) + nothing,
                "rms_error": math.sqrt(self._squares[i] / max(self._count, 1)) + nothing,
                "same_nonfinite": float(self._kept[i]),
            }
            for i in range(len(self._max))
        )

    def max_errors(self, version: int) -> tuple[float, ...]:
        """The largest error of each channel."""
        return tuple(map(float, self._max[version]))


def _absolute_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 of |x - y| for arrays of one dtype: whole numbers as far apart as 64 bits allow, booleans 0 or 1."""
    if x.dtype.kind in "iu":
        # Differences of unsigned words are right even where the signed one would overflow.
        return (np.maximum(x, y).astype(np.uint64) - np.minimum(x, y).astype(np.uint64)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.abs(x.astype(np.float64) - y.astype(np.float64))


class TextMeter(Meter):
    """`exact`: the share of pieces of text that came back letter for letter."""

    def __init__(self, versions: int) -> None:
        self._count = 0
        self._same = np.zeros(versions)

    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        self._count += len(original)
        for i, version in enumerate(decoded):
            self._same[i] += sum(a == b for a, b in zip(original.reshape(-1), version.reshape(-1), strict=True))

    def scores(self) -> tuple[Scores, ...]:
        return tuple({"exact": float(same) / self._count if self._count else math.nan} for same in self._same)


class SoundMeter(Meter):
    """`si_sdr_db`, `mel_distance`, `pesq_wb`, `stoi`: each the mean over segments of `segment_seconds`, weighted by
    their length.

    Segments keep memory bounded and give PESQ the length that it is meant for (ITU-T P.862.3: 6 to 30 s). A last
    piece shorter than half a segment joins the one before it. Segments where a measure has no value (PESQ and STOI
    of silence) are left out of its mean, and so are those where it is infinite, unless all are.
    """

    KEYS = ("si_sdr_db", "mel_distance", "pesq_wb", "stoi")

    def __init__(self, sample_rate: int, versions: int, *, segment_seconds: float = 10.0) -> None:
        self._rate, self._size = sample_rate, round(segment_seconds * sample_rate)
        self._held: list[list[np.ndarray]] = [[] for _ in range(versions + 1)]
        self._length = 0
        self._sums = np.zeros((versions, len(self.KEYS)))
        self._weights = np.zeros((versions, len(self.KEYS)))
        self._endless = np.zeros((versions, len(self.KEYS)))

    def update(self, original: np.ndarray, decoded: Sequence[np.ndarray]) -> None:
        for parts, values in zip(self._held, (original, *decoded), strict=True):
            parts.append(values)
        self._length += len(original)
        while self._length >= self._size + self._size // 2:
            self._measure(self._size)

    def scores(self) -> tuple[Scores, ...]:
        while self._length:
            self._measure(self._length if self._length < self._size + self._size // 2 else self._size)
        with np.errstate(invalid="ignore"):
            none_finite = np.where(self._endless, self._endless, np.nan)
            means = np.where(self._weights > 0, self._sums / np.maximum(self._weights, 1), none_finite)
        return tuple(dict(zip(self.KEYS, map(float, row), strict=True)) for row in means)

    def _measure(self, count: int) -> None:
        from pantok.metrics import audio

        whole = [np.concatenate(parts) for parts in self._held]
        original, *decoded = (audio.as_float(w[:count]) for w in whole)
        self._held = [[w[count:]] for w in whole]
        self._length -= count
        for i, version in enumerate(decoded):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # pesq divides by the peak, of silence too
                pesq_wb = audio.pesq_wb(original, version, self._rate)
            values = (
                audio.si_sdr(original, version),
                audio.mel_distance(original, version, self._rate),
                pesq_wb,
                audio.stoi(original, version, self._rate),
            )
            for k, value in enumerate(values):
                if value is not None and math.isinf(value):
                    self._endless[i, k] = value
                elif value is not None and not math.isnan(value):
                    self._sums[i, k] += value * count
                    self._weights[i, k] += count
