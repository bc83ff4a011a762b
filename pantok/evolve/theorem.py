"""Two ways to say a signal within a bound, and what each costs: more ids, or more of them for each sample.

The paper's Theorem 1: T steps of D coordinates that lie within a range of width W are told apart to within eps, in
Euclidean distance over the whole, by a vocabulary of M ids and N ids in a row, if

    scale up the vocabulary       N = T,            M = ceil(sqrt(T D) W / eps) ^ D
    scale out the expression      N = T D ceil(log_M(sqrt(T D) W / eps)),    any M

What is unusual: the bound of `pantok` is on each sample, not on the whole, so both are also told for that: a cell of
side 2 eps in place of eps / sqrt(T D). Digits are counted in integers, so that no logarithm rounds the wrong way.

    >>> plan = Plan(steps=50, coordinates=7, width=2.0, eps=1e-3)
    >>> plan.cells, plan.digits(256), plan.scaled_out(256), round(plan.vocabulary_bits, 2)
    (1000, 2, 700, 69.76)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pantok.errors import OptionError
from pantok.evolve.objective import gaps
from pantok.experience import Track
from pantok.stream import TrackTokens
from pantok.vocabulary import TokenizerState

BASES = (2, 4, 16, 64, 256, 1024, 4096, 16384, 65536)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What Theorem 1 says of a signal. steps: T. coordinates: D. width: W, of the widest coordinate. eps: the bound.

    whole: whether eps bounds the Euclidean distance of the whole signal, as in the paper, or each sample of it.
    """

    steps: int
    coordinates: int
    width: float
    eps: float
    whole: bool = False

    def __post_init__(self) -> None:
        if not (self.eps > 0 and math.isfinite(self.eps)):
            raise OptionError("theorem eps", f"{self.eps} is no bound", "give a positive number in the track's unit")
        if not (self.width >= 0 and math.isfinite(self.width)) or self.steps < 1 or self.coordinates < 1:
            raise OptionError("theorem", f"has no signal of {self.steps} x {self.coordinates}, width {self.width}")

    @property
    def cells(self) -> int:
        """Cells of a coordinate that are told apart."""
        side = self.eps / math.sqrt(self.steps * self.coordinates) if self.whole else 2 * self.eps
        return max(1, math.ceil(self.width / side))

    def digits(self, base: int) -> int:
        """Digits in `base` that number the cells."""
        digits, reach = 0, 1
        while reach < self.cells:
            digits, reach = digits + 1, reach * base
        return digits

    def scaled_out(self, base: int) -> int:
        """Ids with a vocabulary of `base`: T D digits(base)."""
        return self.steps * self.coordinates * self.digits(base)

    @property
    def vocabulary_bits(self) -> float:
        """log2 of the ids that one id a step takes: D log2 cells. The vocabulary has 2 to that power ids."""
        return self.coordinates * math.log2(self.cells)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A signal and its code. steps, coordinates, width: as in `Plan`. vocabulary: ids that the code draws from. ids: of
    the code. bits: of them at log2 of their levels' cardinality. max_error: found by decoding them."""

    steps: int
    coordinates: int
    width: float
    vocabulary: int
    ids: int
    bits: float
    max_error: float


def measured(state: TokenizerState, tokens: TrackTokens, eps: float) -> Measured:
    """What the tokenizer of numbers makes of a track, taken as `tokens` decode, within `eps` in every sample.

    Raises OptionError for a bound that is none.
    """
    from pantok.tokenizers.numeric import NumericOptions, NumericTokenizer

    if not eps > 0:
        raise OptionError("theorem eps", f"{eps} is no bound", "give a positive number in the track's unit")
    tokenizer = NumericTokenizer.from_state(state)
    values = tokenizer.decoded(tokens)
    track = Track.of_array(
        tokens.name, values, tokens.clock, channels=tokens.channels, units=tokens.units, info=tokens.info
    )
    again = tokenizer.encode(track, NumericOptions(max_error=eps))
    flat, back = (v.reshape(len(v), -1).astype(np.float64) for v in (values, tokenizer.decoded(again)))
    gap, finite = gaps(flat, back)
    low, high = np.where(finite, flat, np.inf).min(0), np.where(finite, flat, -np.inf).max(0)
    wide = (high - low)[finite.any(0)]
    used = [(len(level.codes), spec.cardinality) for level, spec in zip(again.levels, state.levels, strict=True)]
    return Measured(
        steps=flat.shape[0],
        coordinates=flat.shape[1],
        width=float(wide.max()) if len(wide) else 0.0,
        vocabulary=max(n for _, n in used[:1]) + max((n for count, n in used[1:] if count), default=0),
        ids=sum(count for count, _ in used),
        bits=float(sum(count * math.log2(n) for count, n in used)),
        max_error=float(np.abs(gap).max(initial=0.0)),
    )
