"""What a vocabulary makes of codes that were stored: the error of decoding them under it, and the digits that mend it.

What is unusual: nothing is encoded again. Each stored code becomes the code that stands for it now (itself, unless it
was merged or pruned), and what that decodes to is held against the recording, or where that is gone against what the
store's own vocabulary makes of the stored codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pantok.evolve.lineage import codes_of
from pantok.evolve.objective import LEAST_EPS, Unsaid, gaps, sums_of
from pantok.stream import LevelCodes, TrackTokens
from pantok.vocabulary import Vocabulary

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
    the truth) and under the vocabulary; the eps of the digits, and their bits a second under the vocabulary.

    by_unit: eps of each channel of numbers that has an error or changes, of which `eps` is the root mean square; of
    sound and pictures eps itself.
    """

    modality: str
    own_error: float
    error: float
    eps: float
    by_unit: Mapping[str, float]
    digit_bits_per_second: float
    seconds: float


@dataclass
class Distortions:
    """Gathers residuals track by track; `found` when all are in."""

    _squares: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """By modality and unit: squared errors of the own decode and of that under the vocabulary, squared deviations from
    the mean, and how many samples those are."""
    _residuals: dict[str, list[Unsaid]] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)

    def add(
        self, modality: str, units: tuple[str, ...], truth: np.ndarray, own: np.ndarray, now: np.ndarray, seconds: float
    ) -> None:
        """truth, own, now: (N, ...) of the recording, of the store's own decode and of that under the vocabulary.
        units: as `units_of` has them."""
        true, before, after = (np.asarray(a, np.float64).reshape(len(truth), -1) for a in (truth, own, now))
        (gap, there), (of_own, _) = gaps(true, after), gaps(true, before)
        if not there.any():
            return
        held = np.where(there, true, 0)
        mean = held.sum(0) / np.maximum(there.sum(0), 1)
        spread = np.where(there, held - mean, 0)
        sums = np.stack([sums_of(a, units) for a in (of_own * of_own, gap * gap, spread * spread, there)], 1)
        known = self._squares.setdefault(modality, {})
        for unit, row in zip(units, sums, strict=True):
            known[unit] = known.get(unit, 0.0) + row
        self._seconds[modality] = self._seconds.get(modality, 0.0) + seconds
        self._residuals.setdefault(modality, []).append(Unsaid.of(gap, units))

    def found(self) -> tuple[Distortion, ...]:
        """Of each modality. eps: half the store's own error in each unit, so that every vocabulary is judged by the
        same; where the own decode is the truth, a hundredth of the standard deviation of what it says."""
        out = []
        for modality, known in self._squares.items():
            eps = {unit: size for unit, row in known.items() if (size := _eps(row)) > LEAST_EPS}
            own, now, _, count = np.sum(list(known.values()), 0)
            bits = sum(unsaid.bits(eps) for unsaid in self._residuals[modality])
            mean = max(float(np.sqrt(sum(known[unit][3] * eps[unit] ** 2 for unit in eps) / count)), LEAST_EPS)
            seconds = self._seconds[modality]
            out.append(
                Distortion(
                    modality=modality, own_error=float(np.sqrt(own / count)), error=float(np.sqrt(now / count)),
                    eps=mean, by_unit=eps, digit_bits_per_second=bits / max(seconds, 1e-9), seconds=seconds,
                )
            )  # fmt: skip
        return tuple(out)


def _eps(sums: np.ndarray) -> float:
    """Of one unit, see `Distortions`; the least of a channel in which nothing was, or nothing changed."""
    own, _, spread, _ = sums / max(sums[3], 1)
    return max(float(np.sqrt(own) / 2 if own > 0 else np.sqrt(spread) / _SHARE), LEAST_EPS)


def digits_of(distortions: Sequence[Distortion]) -> float:
    """Bits a second of the digits of all modalities."""
    return float(sum(d.digit_bits_per_second for d in distortions))
