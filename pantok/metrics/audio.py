"""How far decoded sound is from the recording: SI-SDR, mel distance, PESQ-WB, STOI.

What is unusual: a measure that does not apply gives None and `reason` says why, never a made-up worst value; both
sounds are compared sample by sample, with no search for a shift that would make them fit.

Sounds are float arrays (n,) or (n, C) in [-1, 1] (`as_float`); channels are measured one by one and averaged.

    >>> t = np.arange(16000) / 16000
    >>> tone = np.sin(2 * np.pi * 440 * t)
    >>> round(si_sdr(tone, 0.5 * tone + 0.05 * np.cos(2 * np.pi * 440 * t)), 2)    # the gain does not count
    20.0
    >>> reason("pesq_wb", 8000)
    'PESQ-WB is defined at 16 kHz, the sound has 8000 Hz'
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

PESQ_HZ, STOI_HZ = 16_000, 10_000
MEL_WINDOWS = ((2048, 150), (512, 80))
"""Window length in samples and mel bands. Those that Codec-SUPERB and the DAC evaluation scripts name."""
MEL_FLOOR = 1e-5


def as_float(samples: np.ndarray) -> np.ndarray:
    """float64 in [-1, 1] from int16 or float samples."""
    return samples / 32768.0 if samples.dtype == np.int16 else samples.astype(np.float64)


def si_sdr(original: np.ndarray, decoded: np.ndarray) -> float | None:
    """Scale-invariant signal to distortion ratio in dB; inf where nothing but the scale differs, None for silence.

    J. Le Roux, S. Wisdom, H. Erdogan, J. Hershey, "SDR: half-baked or well done?", ICASSP 2019, (3); means removed.
    """
    return _by_channel(_si_sdr, original, decoded)


def mel_distance(original: np.ndarray, decoded: np.ndarray, rate_hz: int) -> float:
    """Mean absolute difference of log10 mel spectra, summed over the windows of MEL_WINDOWS; 0 is identical.

    Magnitudes of a Hann window with a hop of a quarter, triangular Slaney filters from 0 Hz to half the rate,
    log10 of at least 1e-5: the mel term of R. Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN",
    NeurIPS 2023, with the log magnitude taken to the first power.
    """
    return (
        _by_channel(lambda a, b: sum(_mel_distance(a, b, rate_hz, *w) for w in MEL_WINDOWS), original, decoded) or 0.0
    )


def pesq_wb(original: np.ndarray, decoded: np.ndarray, rate_hz: int) -> float | None:
    """PESQ wide-band (ITU-T P.862.2), 1.04 to 4.64; None where `reason` gives one, or where either is silent.

    Rates above 16 kHz are resampled to it, as Codec-SUPERB does.
    """
    if reason("pesq_wb", rate_hz) is not None:
        return None
    import pesq

    def measure(a: np.ndarray, b: np.ndarray) -> float | None:
        if not a.any() or not b.any():
            return None  # it divides by the power of each
        try:
            return float(pesq.pesq(PESQ_HZ, a, b, "wb"))
        except (pesq.PesqError, ValueError):  # no speech, shorter than a quarter of a second, or too faint to level
            return None

    return _by_channel(measure, *(_resampled(x, rate_hz, PESQ_HZ) for x in (original, decoded)))


def stoi(original: np.ndarray, decoded: np.ndarray, rate_hz: int) -> float | None:
    """Short-time objective intelligibility (C. Taal et al., IEEE TASLP 2011), 0 to 1; None as for `pesq_wb`."""
    if reason("stoi", rate_hz) is not None:
        return None
    import pystoi

    def measure(a: np.ndarray, b: np.ndarray) -> float | None:
        if not a.any():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns, and answers 1e-5, where too little sounds
            try:
                return float(pystoi.stoi(a, b, STOI_HZ))
            except (RuntimeWarning, ValueError):
                return None

    return _by_channel(measure, *(_resampled(x, rate_hz, STOI_HZ) for x in (original, decoded)))


def reason(measure: str, rate_hz: int) -> str | None:
    """Why `pesq_wb` or `stoi` cannot be measured at this rate in this installation; None if it can."""
    name, package, hz = {
        "pesq_wb": ("PESQ-WB", "pesq", PESQ_HZ),
        "stoi": ("STOI", "pystoi", STOI_HZ),
    }[measure]
    if rate_hz < hz:
        return f"{name} is defined at {hz // 1000} kHz, the sound has {rate_hz} Hz"
    if find_spec(package) is None:
        return f"{name} needs the package {package} (pip install 'pantok[eval]')"
    return None


Measure = Callable[[np.ndarray, np.ndarray], float | None]


def _by_channel(measure: Measure, original: np.ndarray, decoded: np.ndarray) -> float | None:
    """The mean over channels of those that have a value."""
    assert original.shape == decoded.shape, (original.shape, decoded.shape)
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (original, decoded))
    values = [measure(np.ascontiguousarray(x), np.ascontiguousarray(y)) for x, y in zip(a.T, b.T, strict=True)]
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _si_sdr(a: np.ndarray, b: np.ndarray) -> float | None:
    if not len(a):
        return None
    a, b = a - a.mean(), b - b.mean()
    energy = float(a @ a)
    if energy == 0:
        return None
    target = (float(b @ a) / energy) * a
    signal, noise = float(target @ target), float((b - target) @ (b - target))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal else float("-inf")


def _mel_distance(a: np.ndarray, b: np.ndarray, rate_hz: int, window: int, mels: int) -> float:
    if not len(a):
        return 0.0
    filters = _mel_filters(rate_hz, window, mels)
    logs = [np.log10(np.maximum(_magnitudes(x, window) @ filters, MEL_FLOOR)) for x in (a, b)]
    return float(np.abs(logs[0] - logs[1]).mean())


def _magnitudes(x: np.ndarray, window: int) -> np.ndarray:
    """(frames, window // 2 + 1), the sound mirrored by half a window at both ends, padded with zeros where short."""
    half = window // 2
    x = np.pad(x, half, mode="reflect") if len(x) > half else np.pad(x, half)
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[:: window // 4]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.abs(np.fft.rfft(frames * hann, axis=1))


@lru_cache(maxsize=8)
def _mel_filters(rate_hz: int, window: int, mels: int) -> np.ndarray:
    """(window // 2 + 1, mels): triangles of equal area on Slaney's scale (linear to 1 kHz, logarithmic above)."""
    step = np.log(6.4) / 27  # Slaney, Auditory Toolbox, 1998

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + float(np.log(hz / 1000)) / step

    points = np.linspace(0, to_mel(rate_hz / 2), mels + 2)
    edges = np.where(points < 15, points * 200 / 3, 1000 * np.exp(step * (np.maximum(points, 15) - 15)))
    hz = np.arange(window // 2 + 1)[:, None] * rate_hz / window
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def _resampled(x: np.ndarray, rate_hz: int, to_hz: int) -> np.ndarray:
    if rate_hz == to_hz:
        return np.asarray(x, np.float64)
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(rate_hz, to_hz)
    return resample_poly(np.asarray(x, np.float64), to_hz // common, rate_hz // common, axis=0)
