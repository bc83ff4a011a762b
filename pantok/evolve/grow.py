"""New codes for what a vocabulary describes badly; everything that it described well stays as it was.

What is unusual: growth is gated. The vectors that an encoder really looks up are collected from recordings of the new
kind, by the very search that the encoder does; those further from every code than most are clustered, and the new codes
are eligible only that far out (`quantizers.gated`). So a recording that was well described gets the same codes as
before, by construction, and no code changes its meaning: ids, vectors and old streams stay. How many codes: as many as
pay. A block is kept if it takes away more error of recordings that it was not learned from than the bits by which it
lengthens a code would, spent as the level spends its own; it is then learned anew from those recordings as well.

Shapes: N vectors, K codes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from pantok.errors import InputError, OptionError
from pantok.experience import Track
from pantok.quantizers.gated import Life, nearest_living
from pantok.quantizers.kmeans import kmeans, nearest, shrunk
from pantok.tokenizers.base import Report, silent
from pantok.vocabulary import TokenizerState

GROWS = ("video", "audio", "numeric")
"""Modalities whose books can grow."""
FAR = {"video": 0.25, "audio": 0.7}
"""`GrowConfig.far` of a modality where nothing is said, measured in benchmarks/RESULTS.md: new shapes of sound gain
most where only what is far off is clustered; pictures lose by any gate, and with this one half of what they may."""
LEAST = 16
"""Codes of the smallest block that is tried; each that pays is tried twice as large."""
_LEAST_GROWTH = 64
MOST_VECTORS = 30_000  # of a k-means
_PER_CODE = 8  # vectors that a code must have been learned from
_ITERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class GrowConfig:
    """How a vocabulary is grown.

    far: share of the new recordings' vectors that lie nearer than new codes may reach. 0 lets a new code compete
        everywhere; nearer to 1, more of what was encoded before stays as it is. None for that of the modality, `FAR`.
    most: new codes of a level at most; None for as many again as it has, 64 at least.
    total: new codes of all levels of a modality at most; the first levels have the first claim. None for no limit.
    seconds: of sound to learn from, spread over the recordings; a fifth of it is held out.
    megabytes: of frames to learn from, spread over the recordings; a fourth of them is held out.
    """

    far: float | None = None
    most: int | None = None
    total: int | None = None
    seconds: float = 240.0
    megabytes: int = 160

    def __post_init__(self) -> None:
        if self.far is not None and not 0 <= self.far < 1:
            raise OptionError("grow far", f"{self.far} is out of range", "choose 0 to 0.95")
        if self.most is not None and not 0 <= self.most <= 60_000:
            raise OptionError("grow most", f"{self.most} is out of range", "choose 0 to 60000")
        if not self.seconds > 0 or not self.megabytes > 0:
            raise OptionError("grow seconds and megabytes", "have to be positive", "choose 60 to 600")

    def far_of(self, modality: str) -> float:
        return FAR.get(modality, 0.0) if self.far is None else self.far


@dataclass(frozen=True, kw_only=True)
class LevelGrowth:
    """What a level gained.

    vectors: looked up in the new recordings. codes: before; added: new ones, and their rows (added, D). before, after:
    error of held-out vectors over their own energy, by the nearest code, in dB, or what `unit` says; less is better.
    It is that of codes that had not seen them.
    threshold: squared distance from every older code beyond which the new ones are eligible.
    """

    level: str
    vectors: int
    codes: int
    added: int
    before: float
    after: float
    threshold: int
    rows: np.ndarray
    unit: str = "dB"


def grown_book(
    level: str,
    learned: np.ndarray,
    held: np.ndarray,
    book: np.ndarray,
    life: Life,
    *,
    price: float | None,
    most: int,
    far: float,
    seed: int,
    spread: Callable[[np.ndarray], np.ndarray] = lambda rows: rows,
    about_zero: bool = False,
) -> LevelGrowth:
    """New codes for `book` float32 (K, D), integers, learned from vectors `learned` and judged on `held`, both float32.

    price: decibels that a bit must take away; None for what the book's own bits take away.
    spread: makes rows legal for the level (rounded, within bounds).
    about_zero: whether codes of no meaning would be noughts, so that what is chance in a mean of few can be taken out.
    """
    none = np.zeros((0, book.shape[1]), np.float32)
    if len(learned) < _PER_CODE * LEAST or not len(held):
        return LevelGrowth(
            level=level,
            vectors=len(learned),
            codes=len(book),
            added=0,
            before=0.0,
            after=0.0,
            threshold=0,
            rows=none,
        )
    _, near = nearest_living(learned, book, life)
    _, near_held = nearest_living(held, book, life)
    threshold = int(np.floor(np.quantile(near, far))) if far else 0
    outside = learned[near > threshold]
    judged = near_held > threshold
    energy = float((held.astype(np.float64) ** 2).sum())
    start = float(near_held.sum())
    slope = price
    if slope is None:
        slope = 0.5 * _db(energy, start) / max(np.log2(len(book)), 1.0)

    def clustered(vectors: np.ndarray, size: int) -> np.ndarray:
        if len(vectors) > MOST_VECTORS:
            vectors = vectors[np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MOST_VECTORS])]
        made = kmeans(vectors, size, seed=seed, iterations=_ITERATIONS)
        if about_zero:
            made = shrunk(made, vectors, nearest(vectors, made)[0])
        return np.unique(spread(made).astype(np.float32), axis=0)

    best, rows, size, score = start, none, LEAST, 0.0
    while size <= min(most, len(outside) // _PER_CODE):
        made = clustered(outside, size)
        _, new = nearest_living(held[judged], made, None)
        after = start - float(np.maximum(near_held[judged] - new, 0).sum())
        worth = _db(start, after) - slope * float(np.log2(1 + len(made) / len(book)))
        if worth > score:
            best, rows, score = after, made, worth
        elif len(rows):
            break  # twice as many pay less
        size *= 2
    if len(rows):  # how many pay is known: now from what was held out, too
        rows = clustered(np.concatenate([outside, held[judged]]), len(rows))
    return LevelGrowth(
        level=level,
        vectors=len(learned),
        codes=len(book),
        added=len(rows),
        before=_db(start, energy),
        after=_db(best, energy),
        threshold=threshold,
        rows=rows,
    )


def most_of(config: GrowConfig, codes: int, before: Sequence[LevelGrowth] = ()) -> int:
    """How many codes a level of `codes` may get, when the levels `before` have got theirs."""
    most = max(codes, _LEAST_GROWTH) if config.most is None else config.most
    return most if config.total is None else max(0, min(most, config.total - sum(g.added for g in before)))


def _db(more: float, less: float) -> float:
    return float(10 * np.log10(max(more, 1e-12) / max(less, 1e-12)))


Grower = Callable[[TokenizerState, Sequence[Track], GrowConfig, int, Report], tuple[TokenizerState, list[LevelGrowth]]]


def grow(
    state: TokenizerState,
    tracks: Sequence[Track],
    config: GrowConfig | None = None,
    *,
    seed: int = 0,
    report: Report = silent,
) -> tuple[TokenizerState, list[LevelGrowth]]:
    """The tokenizer with codes for what it describes badly in `tracks`, and what each level gained.

    Raises NothingToLearnError if the tracks hold nothing to learn from, OptionError for a modality that cannot grow.
    """
    if state.modality not in GROWS:
        raise OptionError("grow", f"cannot extend {state.modality}", f"it extends {', '.join(GROWS)}")
    if not tracks:
        raise InputError("recordings", f"hold no {state.modality}")
    module = import_module(f"pantok.evolve.grow_{state.modality}")
    grower: Grower = getattr(module, f"grow_{state.modality}")
    return grower(state, tracks, config or GrowConfig(), seed, report)


def facts(growths: Sequence[LevelGrowth]) -> list[dict[str, Any]]:
    """The figures as JSON."""
    keep = ("level", "vectors", "codes", "added", "before", "after", "unit", "threshold")
    return [{k: getattr(g, k) for k in keep} for g in growths]
