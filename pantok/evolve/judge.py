"""Whether a grown vocabulary is worth it: recordings coded under the old and the new one, all told in bits a second.

What is unusual: rate and quality are not traded by taste. Both vocabularies code the same seconds at the same settings;
what either leaves unsaid is charged as the digits that would bring every sample to within the same eps (half the root
mean square error of the old one, in numbers each channel's own), and the new codes themselves are charged, spread over
the recordings that they are to serve. See `objective`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pantok import tokenizers
from pantok.errors import NothingToLearnError
from pantok.evolve import codebooks
from pantok.evolve.makeup import Makeup
from pantok.evolve.objective import (
    Cost,
    Passage,
    Unsaid,
    codebook_bits,
    cost,
    gaps,
    held_out,
    sums_of,
    units_of,
)
from pantok.experience import NS, Clock, Track
from pantok.vocabulary import BASIS, LIFE, TokenizerState

_SPAN_NS = NS  # of a group of ticks that is held out, or not, together
_STEP = 0.5  # codes are whole numbers


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Of one modality, under one vocabulary: J and what it is made of, bits a second; ids a second; root mean square
    error in the units of the recording."""

    cost: Cost
    ids_per_second: float
    id_bits: float
    digit_bits: float
    error: float

    @property
    def bits(self) -> float:
        return self.cost.bits_per_second


def judge(
    old: TokenizerState, new: TokenizerState, tracks: Sequence[Track], *, seconds: float = 20.0, serves: float = 3600.0
) -> tuple[Judged, Judged]:
    """Both tokenizers on the first `seconds` of the tracks, an equal share of each.

    serves: seconds of recordings that the new codes' own bits are spread over. Raises NothingToLearnError for less than
    2 s of them.
    """
    parts = [beginning(t, seconds / len(tracks)) for t in tracks]
    before = coded(old, parts)
    if before.seconds.sum() < 2:
        raise NothingToLearnError("recordings", "are too short to judge a vocabulary on", "give more of them")
    eps = {unit: error / 2 for unit, error in before.errors.items()}
    return (
        _judged(old, before, eps, 0.0, serves),
        _judged(new, coded(new, parts), eps, _dictionary(old, new), serves),
    )


def beginning(track: Track, seconds: float) -> Track:
    """The first `seconds` of a track, in memory."""
    rate = track.rate or (track.clock.rate if track.clock is not None else None)
    values: list[np.ndarray] = []
    times: list[np.ndarray] = []
    count = 0
    most = int(seconds * rate) if rate is not None else None
    start: int | None = None
    for block in track.blocks(4096 if track.modality != "video" else 16):
        values.append(block.values)
        count += len(block)
        if block.times_ns is not None and len(block):
            times.append(block.times_ns)
            start = int(block.times_ns[0]) if start is None else start
            if most is None and int(block.times_ns[-1]) - start > seconds * NS:
                break
        if most is not None and count >= most:
            break
    whole = np.concatenate(values)[: most or count]
    clock = track.clock.cut(0, len(whole)) if track.clock is not None else None
    if clock is None and times:
        clock = Clock.of_times(np.concatenate(times)[: len(whole)], track.rate)
    elif clock is None:
        assert rate is not None
        clock = Clock.regular(rate, len(whole))
    return replace(
        Track.of_array(track.name, whole, clock, channels=track.channels, units=track.units, info=track.info),
        rate=track.rate,
    )


@dataclass(frozen=True, eq=False)
class Told:
    """Tracks coded: ids of the modality's levels in one row, each of a group; seconds of each group float64 (G,); root
    mean square error in the units of the recording, of all and by unit (`units_of`); samples, all channels or pixels
    counted. unsaid: of each group.
    """

    ids: np.ndarray
    group: np.ndarray
    seconds: np.ndarray
    unsaid: Sequence[Unsaid]
    error: float
    errors: Mapping[str, float]
    samples: int

    def digits(self, eps: Mapping[str, float]) -> np.ndarray:
        """float64 (G,): bits of the digits that bring every sample of a group to within its unit's eps."""
        return np.array([unsaid.bits(eps) for unsaid in self.unsaid])


def coded(state: TokenizerState, parts: Sequence[Track]) -> Told:
    """Codes and what they leave unsaid, in groups of about a second."""
    tokenizer = tokenizers.load(state)
    offsets = np.cumsum([0, *(lv.cardinality for lv in state.levels)])
    ids, groups, seconds, unsaid = [], [], [], []
    sums: dict[str, np.ndarray] = {}  # by unit: squared errors, and how many
    number = 0
    for part in parts:
        tokens = tokenizer.encode(part)
        truth, clock = part.read()
        truth = truth.reshape(len(truth), -1)
        gap, there = gaps(truth, tokenizer.decoded(tokens).reshape(len(truth), -1))
        units = units_of(state.modality, part.name, part.channels, gap.shape[1])
        for unit, row in zip(units, np.stack([sums_of(a, units) for a in (gap * gap, there)], 1), strict=True):
            sums[unit] = sums.get(unit, 0.0) + row
        per_tick = clock.duration_ns / max(tokens.ticks, 1)
        size = max(1, round(_SPAN_NS / max(per_tick, 1)))
        left = Unsaid.of(gap, units)
        for first in range(0, tokens.ticks, size):
            last = min(first + size, tokens.ticks)
            codes = [lv.cut(first, last).codes.astype(np.int64) + offsets[k] for k, lv in enumerate(tokens.levels)]
            # Within a tick coarse levels come first, as in a sequence.
            ticks = [np.repeat(np.arange(last - first), np.diff(lv.splits[first : last + 1])) for lv in tokens.levels]
            order = np.argsort(np.concatenate(ticks), kind="stable")
            ids.append(np.concatenate(codes)[order])
            groups.append(np.full(len(order), number))
            seconds.append((last - first) * per_tick / NS)
            unsaid.append(left.cut(first * tokens.tick, last * tokens.tick))
            number += 1
    errors = {unit: float(np.sqrt(square / max(count, 1))) for unit, (square, count) in sums.items()}
    square, count = sum(sums.values(), np.zeros(2))
    error = float(np.sqrt(square / max(count, 1)))
    return Told(
        np.concatenate(ids), np.concatenate(groups), np.array(seconds), unsaid, error, errors, int(count)
    )  # fmt: skip


def _judged(
    state: TokenizerState, told: Told, eps: Mapping[str, float], dictionary: float, serves: float
) -> Judged:  # fmt: skip
    held = held_out(len(told.seconds))
    passage = Passage(told.ids, told.group, told.seconds)
    size = sum(lv.cardinality for lv in state.levels)
    levels = np.repeat(np.arange(len(state.levels)), [lv.cardinality for lv in state.levels])
    ids = cost(passage.taken(~held), passage.taken(held), size, makeup=Makeup(levels))
    digits = told.digits(eps)[held]
    whole = replace(ids, bits=ids.bits + digits, dictionary_bits=dictionary, served_seconds=serves)
    return Judged(
        cost=whole,
        ids_per_second=ids.ids_per_second,
        id_bits=ids.id_bits_per_second,
        digit_bits=float(digits.sum() / told.seconds[held].sum()),
        error=told.error,
    )


def _dictionary(old: TokenizerState, new: TokenizerState) -> float:
    """Bits of the codes that `new` has and `old` has not."""
    total = 0.0
    for level, (a, b) in enumerate(zip(old.levels, new.levels, strict=True)):
        more, name = b.cardinality - a.cardinality, codebooks.tensor_of(new, level)
        if more and name is not None:
            rows = np.concatenate(
                [np.asarray(new.tensors[name], np.float64)]
                + [codebooks.entries(new, level, n) for n in codebooks.beside(new, level) if n.startswith(LIFE)], 1
            )  # fmt: skip
            total += codebook_bits(more, rows.shape[1], float(rows.max() - rows.min()), _STEP)
        elif more:  # pieces of numbers: pairs of codes
            total += 2 * more * float(np.log2(b.cardinality))
    since = [n for n in new.tensors if n.startswith(LIFE) and n.endswith(f".{BASIS}") and n not in old.tensors]
    return total + sum(8.0 * np.asarray(new.tensors[n]).nbytes for n in since)
