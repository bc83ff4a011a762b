"""Means with their 95% intervals, by resampling what is independent: windows or episodes, never single ids."""

from __future__ import annotations

from typing import Any

import numpy as np

Interval = dict[str, Any]
"""{"value": float, "95": [low, high] or None where there is but one thing to resample}"""


def resampled(sums: np.ndarray, counts: np.ndarray, scale: float = 1.0, seed: int = 0, draws: int = 1000) -> Interval:
    """sum(sums) / sum(counts) * scale, and its 95% interval over resampled items. sums, counts: (N,).

    >>> resampled(np.array([2.0, 4.0]), np.array([1.0, 1.0]))["value"]
    3.0
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    value = float(sums.sum() / max(counts.sum(), 1e-12) * scale)
    if len(sums) < 2:
        return {"value": value, "95": None}
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    means = sums[drawn].sum(1) / np.maximum(counts[drawn].sum(1), 1e-12) * scale
    return {"value": value, "95": [float(q) for q in np.quantile(means, (0.025, 0.975))]}
