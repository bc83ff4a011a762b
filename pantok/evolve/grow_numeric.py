"""Growth of the pieces of numbers: runs of residuals that the new recordings are full of become one code each.

What is unusual: nothing of what is decoded changes, for pieces only spell; so there is no threshold. Pairs are merged
on top of the pieces that there are, and as many are kept as shorten recordings that they were not learned from, a code
of K counting log2 K bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pantok.errors import NothingToLearnError
from pantok.evolve.grow import LEAST, GrowConfig, LevelGrowth, most_of
from pantok.experience import Track
from pantok.quantizers import bpe
from pantok.tokenizers.base import Report
from pantok.tokenizers.numeric import NumericOptions, NumericTokenizer
from pantok.tokenizers.numeric_sample import sampled
from pantok.vocabulary import TokenizerState


def grow_numeric(
    state: TokenizerState, tracks: Sequence[Track], config: GrowConfig, seed: int, report: Report
) -> tuple[TokenizerState, list[LevelGrowth]]:
    """See `grow.grow`; `far` and `seed` mean nothing here. Raises InputError if there are no rows."""
    tokenizer = NumericTokenizer.from_state(state)
    settings = tokenizer.config
    bound = NumericOptions(max_error_relative=settings.relative)
    learned, held = sampled(tracks, settings.tick, settings.samples, lambda f: report("reading", 0.4 * f))
    if not learned or not held:
        raise NothingToLearnError("numbers", "there are too few rows to learn from")
    found: list[np.ndarray] = []
    for number, track in enumerate([*learned, *held]):
        report("residuals", 0.4 + 0.4 * number / (len(learned) + len(held)))
        found.append(tokenizer.runs_of(tokenizer.encode(track, bound)))
    runs, judged = np.concatenate(found[: len(learned)]), np.concatenate(found[len(learned) :])
    report("pieces", 0.8)
    old = tokenizer.pieces
    most = most_of(config, old.size - old.alphabet)
    merges = _more(old, runs, most, tokenizer.config.longest)
    samples = max(int((judged != bpe.PAD).sum()), 1)

    def bits(count: int) -> float:
        pieces = bpe.Pieces(old.alphabet, np.concatenate([old.merges, merges[:count]]))
        return len(pieces.segment(judged)[0]) * float(np.log2(pieces.size)) / samples

    start = best = bits(0)
    kept, size = 0, LEAST
    while len(merges) and size // 2 < len(merges):
        count = min(size, len(merges))
        report("judging", 0.9)
        now = bits(count)
        if now < best:
            best, kept = now, count
        elif kept:
            break
        size *= 2
    growth = LevelGrowth(
        level="pieces", vectors=int((runs != bpe.PAD).sum()), codes=old.size, added=kept, before=start, after=best,
        unit="bits a sample", threshold=0, rows=merges[:kept],
    )  # fmt: skip
    if not kept:
        return state, [growth]
    table = np.concatenate([np.asarray(state.tensors["merges"]), merges[:kept]]).astype(state.tensors["merges"].dtype)
    levels = (replace(state.levels[0], cardinality=old.size + kept), *state.levels[1:])
    return replace(state, levels=levels, tensors={**state.tensors, "merges": table}), [growth]


def _more(old: bpe.Pieces, runs: np.ndarray, most: int, longest: int) -> np.ndarray:
    """int32 (at most `most`, 2): merges on top of `old`, most frequent first, none that spells what a piece does."""
    codes, counts = old.segment(runs)
    rows = np.full((len(runs), max(int(counts.max(initial=0)), 1)), bpe.PAD)
    rows[np.arange(rows.shape[1]) < counts[:, None]] = codes
    found = bpe.train(rows, old.size, old.size + most, longest=longest)
    known = {old.expansion(code): code for code in range(old.size)}
    number_of = {code: code for code in range(old.size)}
    made: list[tuple[int, int]] = []
    spelled = {code: said for said, code in known.items()}
    for number, (a, b) in enumerate(found.merges.tolist()):
        if a not in number_of or b not in number_of:
            continue  # of one that was too long
        left, right = number_of[a], number_of[b]
        said = spelled[left] + spelled[right]
        if len(said) > longest:
            continue
        if said not in known:
            known[said] = old.size + len(made)
            spelled[known[said]] = said
            made.append((left, right))
        number_of[old.size + number] = known[said]
    return np.array(made, np.int32).reshape(-1, 2)
