"""What a vocabulary makes of codes that were stored: the error of decoding them under it, and the digits that mend it.

What is unusual: nothing is encoded again. Each stored code becomes the code that stands for it now (itself, unless it
was merged or pruned), and what that decodes to is held against the recording, or where that is gone against what the
store's own vocabulary makes of the stored codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pantok.evolve.lineage import codes_of
from pantok.evolve.objective import digit_bits, gaps
from pantok.stream import LevelCodes, TrackTokens
from pantok.vocabulary import Vocabulary

_SAMPLED = 96  # coordinates of a sample (pixels of a frame) whose residuals stand for all
_SHARE = 100  # eps is one in so many of the standard deviation where the store's own decode is the truth


def as_in_use(newest: Vocabulary, written: Vocabulary, tokens: TrackTokens) -> TrackTokens:
    """The track's codes, written under `written`, as codes of `newest` that are in use there.

    Raises VocabularyError if the two are not related.
    """
    levels = []
    for number, level in enumerate(tokens.levels):
        codes = codes_of(newest, written, tokens.modality, number)
        if newest.states[tokens.modality].levels[number].role != "digit":
            codes = newest.states[tokens.modality].redirects(number)[codes]
        levels.append(LevelCodes(codes[level.codes], level.splits))
    return replace(tokens, levels=tuple(levels))


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Of one modality: root mean square error in the units of the recording, of the store's own decode (0 where that is
    the truth) and under the vocabulary; the eps of the digits, and their bits a second under the vocabulary."""

    modality: str
    own_error: float
    error: float
    eps: float
    digit_bits_per_second: float
    seconds: float


@dataclass
class Distortions:
    """Gathers residuals track by track; `found` when all are in."""

    _squares: dict[str, list[float]] = field(default_factory=dict)
    _residuals: dict[str, list[tuple[np.ndarray, float]]] = field(default_factory=dict)

    def add(self, modality: str, truth: np.ndarray, own: np.ndarray, now: np.ndarray, seconds: float) -> None:
        """truth, own, now: (N, ...) of the recording, of the store's own decode and of that under the vocabulary."""
        true, before, after = (np.asarray(a, np.float64).reshape(len(truth), -1) for a in (truth, own, now))
        (gap, there), (of_own, _) = gaps(true, after), gaps(true, before)
        if not there.any():
            return
        sums = self._squares.setdefault(modality, [0.0] * 5)
        held = np.where(there, true, 0)
        mean = held.sum(0) / np.maximum(there.sum(0), 1)
        spread = float((np.where(there, held - mean, 0) ** 2).sum())
        for k, value in enumerate([float((of_own * of_own).sum()), float((gap * gap).sum()), spread, there.sum()]):
            sums[k] += value
        sums[4] += seconds
        some = np.linspace(0, gap.shape[1] - 1, min(gap.shape[1], _SAMPLED)).astype(int)
        self._residuals.setdefault(modality, []).append((gap[:, some], gap.shape[1] / len(some)))

    def found(self) -> tuple[Distortion, ...]:
        """Of each modality. eps: half the store's own error, so that every vocabulary is judged by the same; where the
        own decode is the truth, a hundredth of the standard deviation of what it says."""
        out = []
        for modality, (own, now, spread, count, seconds) in self._squares.items():
            own_error = float(np.sqrt(own / count))
            eps = own_error / 2 if own_error > 0 else float(np.sqrt(spread / count)) / _SHARE
            eps = max(eps, 1e-12)
            bits = sum(scale * float(digit_bits(gap, eps).sum()) for gap, scale in self._residuals[modality])
            out.append(
                Distortion(
                    modality=modality, own_error=own_error, error=float(np.sqrt(now / count)), eps=eps,
                    digit_bits_per_second=bits / max(seconds, 1e-9), seconds=seconds,
                )
            )  # fmt: skip
        return tuple(out)


def digits_of(distortions: Sequence[Distortion]) -> float:
    """Bits a second of the digits of all modalities."""
    return float(sum(d.digit_bits_per_second for d in distortions))
