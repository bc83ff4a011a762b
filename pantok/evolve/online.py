"""Growth while recordings are encoded: one episode after another, within a stated number of new codes.

What is unusual: growth is tried where there is cause. The first seconds of an episode are coded under the vocabulary as
it is, and told in bits a sample, of codes and of the digits that would bring every sample to within an eps that the
first episode sets, or, of a channel of numbers, the first in which it moves. Growth is learned from an episode that
costs more than those for which growth did not pay, and what was learned is kept only if it makes the same seconds
cheaper, its own codes counted (`judge`). So recordings of the kind that the vocabulary knows cost a few seconds' coding
each, and no codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pantok.errors import InputError, OptionError
from pantok.evolve.grow import GROWS, LEAST, GrowConfig, facts, grow
from pantok.evolve.judge import beginning, coded, judge
from pantok.experience import Track
from pantok.tokenizers.base import Report, silent
from pantok.vocabulary import TokenizerState, Vocabulary


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """How a vocabulary grows while it encodes.

    max_new: ids that the vocabulary may get more than it had at first, over all episodes and runs.
    seconds: of each track of an episode that are looked at to see whether it is badly described.
    surprise: how many times the bits of episodes for which growth did not pay an episode has to cost.
    serves: seconds of recordings that the bits of new codes are spread over.
    grow: how codes are learned from an episode.
    """

    max_new: int = 4096
    seconds: float = 6.0
    surprise: float = 1.1
    serves: float = 3600.0
    grow: GrowConfig = field(default_factory=lambda: GrowConfig(seconds=90.0, megabytes=48))

    def __post_init__(self) -> None:
        if not LEAST <= self.max_new <= 1 << 24:
            raise OptionError("--max-new", f"{self.max_new} is out of range", f"choose {LEAST} to {1 << 24}")
        if not self.seconds > 0 or not self.surprise >= 1 or not self.serves > 0:
            raise OptionError("grow", "seconds and serves have to be positive, surprise 1 or more")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Growth of one modality on one episode: bits a second there before and after, and what each level gained."""

    modality: str
    added: int
    before: float
    after: float
    levels: list[dict[str, Any]]


class Grower:
    """Grows vocabularies episode by episode; remembers what was seen, to know what is new."""

    def __init__(self, config: OnlineConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed
        self._eps: dict[str, float] = {}
        """By unit (`objective.units_of`)."""
        self._usual: dict[str, float] = {}
        """Bits a sample of the costliest episode for which growth did not pay."""

    @property
    def knowledge(self) -> dict[str, dict[str, float]]:
        """What was learned from episodes so far; given to another, it goes on as this would."""
        return {"eps": dict(self._eps), "usual": dict(self._usual)}

    @knowledge.setter
    def knowledge(self, said: Mapping[str, Mapping[str, float]]) -> None:
        self._eps, self._usual = dict(said["eps"]), dict(said["usual"])

    def grown(
        self,
        vocabulary: Vocabulary,
        tracks: Sequence[Track],
        left: int,
        report: Callable[[str], Report] = lambda modality: silent,
    ) -> tuple[Vocabulary, list[Step]]:
        """The vocabulary with at most `left` codes more for what it describes badly in the tracks of an episode.

        A modality gets at most half of what is left, so that something is left for what comes later. The same
        vocabulary and no steps if nothing pays.
        """
        steps: list[Step] = []
        for modality in GROWS:
            mine = [t for t in tracks if t.modality == modality]
            if not mine or modality not in vocabulary.states or left < LEAST:
                continue
            step = self._step(vocabulary.states[modality], mine, left, report(modality))
            if step is not None:
                state, told = step
                vocabulary, left = vocabulary.with_state(state), left - told.added
                steps.append(told)
        return vocabulary, steps

    def _step(
        self, state: TokenizerState, tracks: Sequence[Track], left: int, report: Report
    ) -> tuple[TokenizerState, Step] | None:
        config, modality = self.config, state.modality
        try:
            now = self._bits(state, tracks)
            if now <= config.surprise * self._usual.get(modality, -1.0):
                return None
            limit = replace(config.grow, total=max(LEAST, left // 2))
            made, growths = grow(state, tracks, limit, seed=self.seed, report=report)
            if made.digest != state.digest:
                before, after = judge(state, made, tracks, serves=config.serves)
                if after.bits < before.bits:
                    self._usual[modality] = max(self._usual.get(modality, 0.0), self._bits(made, tracks))
                    added = sum(a.cardinality - b.cardinality for a, b in zip(made.levels, state.levels, strict=True))
                    assert added <= left, (added, left)
                    step = Step(
                        modality=modality, added=added, before=before.bits, after=after.bits, levels=facts(growths)
                    )
                    return made, step
        except InputError:
            return None  # too short, or silent: encoding will say if it is worse than that
        self._usual[modality] = max(self._usual.get(modality, 0.0), now)
        return None

    def _bits(self, state: TokenizerState, tracks: Sequence[Track]) -> float:
        """Bits a sample of the beginnings of the tracks, by evenly coded ids and digits to the eps of their units."""
        parts = [beginning(track, self.config.seconds) for track in tracks]
        told = coded(state, parts)
        for unit, error in told.errors.items():
            if error > 0:  # a channel that stood still has no error, and no scale of its own
                self._eps.setdefault(unit, error / 2)
        size = sum(level.cardinality for level in state.levels)
        return (len(told.ids) * float(np.log2(size)) + float(told.digits(self._eps).sum())) / max(told.samples, 1)
