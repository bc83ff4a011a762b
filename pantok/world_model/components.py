"""Principal components of a bounded sample, and the sample: evenly spaced rows of a sequence of unknown length."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh


class Thinned:
    """At most `most` rows of all that were added, evenly spaced, whatever their number: when it is full, every other
    row goes, and from then on only every other one is taken. The same rows however they are added. met: how many they
    were."""

    def __init__(self, most: int) -> None:
        assert most >= 2, most
        self._most, self._stride, self.met = most, 1, 0
        self._rows: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """rows: (n, features)."""
        for row in rows:
            if self.met % self._stride == 0:
                if len(self._rows) == self._most:
                    self._rows = self._rows[::2]
                    self._stride *= 2
                if self.met % self._stride == 0:
                    self._rows.append(row.astype(np.float32))
            self.met += 1

    def rows(self) -> np.ndarray:
        """float32 (n, features)"""
        return np.stack(self._rows) if self._rows else np.zeros((0, 0), np.float32)


def components(rows: np.ndarray, dims: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean float32 (features,), orthonormal rows float32 (D, features), variance along each float64 (D,), the largest
    first. rows: (n, features). D is at most `dims` and the rank of what varies. The sign of a component is nobody's
    choice: its largest loading is positive.
    """
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean
    n, features = centred.shape
    # Through the smaller of the two second moments; they have the same eigenvalues.
    wide = n < features
    moment = centred @ centred.T if wide else centred.T @ centred
    most = min(dims, len(moment))
    power, vectors = eigh(moment, subset_by_index=(len(moment) - most, len(moment) - 1))
    power, vectors = power[::-1], vectors[:, ::-1]
    keep = power > max(float(power[0]), 1e-12) * 1e-9
    keep[0] = True
    basis = (centred.T @ vectors[:, keep] if wide else vectors[:, keep]).T
    q, r = np.linalg.qr(basis.T)  # of nearly orthogonal columns: orthonormal to the last bit
    basis = (q * np.where(np.diag(r) < 0, -1.0, 1.0)).T
    basis *= np.where(basis[np.arange(len(basis)), np.abs(basis).argmax(1)] < 0, -1.0, 1.0)[:, None]
    return mean.astype(np.float32), basis.astype(np.float32), power[keep].clip(min=0) / n
