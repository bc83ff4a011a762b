"""Growth of the books of sound: loudness level by level, then shapes stage by stage, each on what the levels before it,
grown already, leave over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from pantok.errors import NothingToLearnError
from pantok.evolve import codebooks
from pantok.evolve.grow import GrowConfig, LevelGrowth, grown_book, most_of
from pantok.experience import Track
from pantok.quantizers.gated import Life, lives_of, nearest_living
from pantok.tokenizers import audio_fit as fit
from pantok.tokenizers.audio import AudioTokenizer
from pantok.tokenizers.audio_bands import LEAST_LEFT, LOUDEST, MOST_LEFT, OCTAVE, RATIOS, UNIT_BINS
from pantok.tokenizers.audio_code import LONGEST, NAMES, SHAPE, SHAPE_UNIT, STAGES, WIDEST
from pantok.tokenizers.audio_loudness import PARTS, means, refined
from pantok.tokenizers.audio_sample import listened
from pantok.tokenizers.base import Report
from pantok.vocabulary import TokenizerState

_FOLDS = 5  # every fifth segment is held out
_PRIOR = 4.0  # vectors of usual error that count beside those that a code was learned from
_SEGMENT_TICKS = 25  # 2 s


def grow_audio(
    state: TokenizerState, tracks: Sequence[Track], config: GrowConfig, seed: int, report: Report
) -> tuple[TokenizerState, list[LevelGrowth]]:
    """See `grow.grow`. Raises NothingToLearnError if the recordings are silent."""
    report("listening", 0.0)
    samples = listened(tracks, config.seconds, _SEGMENT_TICKS)
    if len(samples) < 2:
        raise NothingToLearnError("recordings", "hold less than 4 s of sound to learn from", "give longer ones")
    parts = [s for i, s in enumerate(samples) if i % _FOLDS != _FOLDS - 1], samples[_FOLDS - 1 :: _FOLDS]
    if not parts[1]:
        parts = samples[:-1], samples[-1:]
    state, growths = _loudness(state, parts, config, seed, report)
    state, growths = _shapes(state, parts, config, seed, report, growths)
    return state, growths


def _loudness(
    state: TokenizerState,
    parts: tuple[list[fit.Sample], list[fit.Sample]],
    config: GrowConfig,
    seed: int,
    report: Report,
) -> tuple[TokenizerState, list[LevelGrowth]]:
    growths: list[LevelGrowth] = []
    # What is left of each sample's loudness, band by band.
    left = [[s.bands.loudness(s.frames) for s in samples] for samples in parts]
    for number, part in enumerate(PARTS):
        if part.group == "band":
            continue  # its codes are steps of 1.5 dB: there is nothing to learn
        report("loudness", 0.4 * number / len(PARTS))
        books = AudioTokenizer.from_state(state).books
        book, life = books.loudness[part.name], books.lives.get(part.name, Life())
        targets: list[np.ndarray] = []
        for samples, rest in zip(parts, left, strict=True):
            found = [np.zeros((0, book.shape[1]))]
            for s, q in zip(samples, rest, strict=True):
                at = part.bands(s.bands)
                if at.stop > at.start:
                    group, cells = s.rows.group(part.group)
                    wide = np.pad(q[:, at], ((0, 0), (0, book.shape[1] - (at.stop - at.start))), mode="edge")
                    found.append(means(wide, group, len(cells)))
            targets.append(np.concatenate(found).astype(np.float32))
        bound = LOUDEST if part.group == "tick" else 2 * LOUDEST
        growth = grown_book(
            part.name, targets[0], targets[1], book, life,
            price=None, most=most_of(config, len(book), growths),
            far=config.far_of("audio") if len(book) > 64 else 0.0, seed=seed + number, spread=partial(_whole, bound),
        )  # fmt: skip
        growths.append(growth)
        if growth.added:
            state = codebooks.appended(state, codebooks.level_of(state, part.name), growth.rows, growth.threshold)
        books = AudioTokenizer.from_state(state).books
        for samples, rest in zip(parts, left, strict=True):
            for i, s in enumerate(samples):
                at = part.bands(s.bands)
                if at.stop > at.start:
                    group, cells = s.rows.group(part.group)
                    life_now = books.lives.get(part.name)
                    step = refined(books.loudness[part.name], rest[i][:, at], group, len(cells), life_now)[1]
                    rest[i] = rest[i].copy()
                    rest[i][:, at] -= step
    return state, growths


def _shapes(
    state: TokenizerState,
    parts: tuple[list[fit.Sample], list[fit.Sample]],
    config: GrowConfig,
    seed: int,
    report: Report,
    growths: list[LevelGrowth],
) -> tuple[TokenizerState, list[LevelGrowth]]:
    growths = list(growths)
    books = AudioTokenizer.from_state(state).books
    vectors = [fit.shape_vectors(books, samples) for samples in parts]
    for stage in range(STAGES):
        report("shapes", 0.4 + 0.6 * stage / STAGES)
        name = NAMES[SHAPE + stage]
        book, life = books.shape[stage], books.lives.get(name, Life())
        grids = [np.clip(np.rint(v), -WIDEST, WIDEST).astype(np.float32) for v, _ in vectors]
        growth = grown_book(
            name, grids[0], grids[1], book, life,
            price=None, most=most_of(config, len(book), growths), far=config.far_of("audio"),
            seed=seed + 50 + stage, spread=_short,
        )  # fmt: skip
        growths.append(growth)
        if growth.added:
            state = _with_shapes(state, stage, growth, vectors[0][0], grids[0])
            books = AudioTokenizer.from_state(state).books
        over, life_now = books.left[stage], lives_of(state).get(name)
        for i, ((left, need), grid) in enumerate(zip(vectors, grids, strict=True)):
            if len(left):
                codes, _ = nearest_living(grid, books.shape[stage], life_now)
                need = need + over[codes]
                left = (left - books.shape[stage][codes]) / RATIOS[over[codes] - LEAST_LEFT][:, None]
                vectors[i] = left[need > fit.WATER], need[need > fit.WATER]
    return state, growths


def _with_shapes(
    state: TokenizerState, stage: int, growth: LevelGrowth, left: np.ndarray, grid: np.ndarray
) -> TokenizerState:
    """The new shapes with what each leaves over on average, in the unit of its stage."""
    level = codebooks.level_of(state, growth.level)
    size = state.levels[level].cardinality
    beside = {codebooks.beside(state, level)[0]: np.zeros(growth.added)}
    tried = codebooks.appended(state, level, growth.rows, growth.threshold, beside)
    book = np.asarray(tried.tensors[growth.level], np.float32)
    codes, _ = nearest_living(grid, book, lives_of(tried)[growth.level])
    gap = ((left - book[codes]) ** 2).sum(1)
    new = codes >= size
    seen = np.bincount(codes, minlength=len(book))[size:]
    usual = float(gap[new].mean()) if new.any() else float(gap.mean())
    # Vectors that a code was learned from lie nearer to it than others will.
    energy = (np.bincount(codes, gap, len(book))[size:] + _PRIOR * usual) / (seen + _PRIOR)
    share = OCTAVE * np.log2(np.maximum(energy / (UNIT_BINS * SHAPE_UNIT**2), 1e-9))
    over = np.clip(np.rint(share), LEAST_LEFT, MOST_LEFT)
    return codebooks.appended(state, level, growth.rows, growth.threshold, {next(iter(beside)): over})


def _whole(bound: int, rows: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rows), -bound, bound)


def _short(rows: np.ndarray) -> np.ndarray:
    """Whole numbers, no longer than a shape may be."""
    rows = np.rint(rows)
    long = np.sqrt((rows**2).sum(1, keepdims=True)) / LONGEST
    return np.trunc(rows / np.maximum(long, 1))
