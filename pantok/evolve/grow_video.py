"""Growth of the books of video: what the encoder looks up in a closed loop over the new recordings, stage after stage.

What is unusual: the transforms grow too. Books were learned in the principal directions of what was seen first; what
these cannot say of the new kind no code in them says either. A book gets the principal directions of what its own leave
over, where those hold enough of it; old codes are zero there, so that every one means what it meant and is found as it
was. It gets some once, with its first growth, so that thresholds of later ones are distances in the same space. The
coarse book gets none: its directions are those of latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pantok.errors import NothingToLearnError
from pantok.evolve import codebooks
from pantok.evolve.grow import GrowConfig, LevelGrowth, grown_book, most_of
from pantok.experience import Track
from pantok.quantizers.gated import Life
from pantok.quantizers.threads import one_thread_of_blas
from pantok.tokenizers import video_living as living
from pantok.tokenizers.base import Report
from pantok.tokenizers.video import VideoTokenizer
from pantok.tokenizers.video_books import Books
from pantok.tokenizers.video_control import VideoOptions, lambda_of
from pantok.tokenizers.video_exact import Book
from pantok.tokenizers.video_fit import Pool, Run, code_run, directions, sample_runs, trades
from pantok.vocabulary import BASIS, LIFE, TokenizerState

_FOLDS = 4  # every fourth run is held out
_ROUNDS = 2  # codes of the second are learned from what the first left over
_DIRECTIONS = 24  # that a book gets
_WORTH = 0.04  # least share of held-out energy that they have to hold
_HOPE = 3.2 * 10  # squared error over lambda that a stage has to find: that of a code of ten bits


@one_thread_of_blas()
def grow_video(
    state: TokenizerState, tracks: Sequence[Track], config: GrowConfig, seed: int, report: Report
) -> tuple[TokenizerState, list[LevelGrowth]]:
    """See `grow.grow`. Raises NothingToLearnError if the recordings hold no frames."""
    runs = sample_runs(tracks, config.megabytes * 1_000_000, report)
    if not runs:
        raise NothingToLearnError("recordings", "hold no frames to learn from")
    held = runs[_FOLDS - 1 :: _FOLDS] or runs[-1:]
    learned = [r for k, r in enumerate(runs) if k % _FOLDS != _FOLDS - 1] or runs
    before = state
    growths: list[LevelGrowth] = []
    for turn in range(_ROUNDS):
        pools = [_collected(VideoTokenizer.from_state(state).books, part, report) for part in (learned, held)]
        # Each round begins anew from the vocabulary as it was: what is looked up depends on what was drawn before.
        state, growths = _grown(before, pools, config, seed + 100 * turn, report)
        if state is before:
            break
    return state, growths


def _collected(books: Books, runs: Sequence[Run], report: Report) -> Pool:
    """What is looked up when the runs are coded, at finer and coarser trades too."""
    lam = lambda_of(VideoOptions().quality)
    pool = Pool(dict(zip(Books.NAMES, (5_000, 20_000, 20_000, 40_000, 40_000), strict=True)))
    for n, (run, trade) in enumerate(zip(runs, trades(lam), strict=False)):
        for _ in code_run(run, books, trade, pool.tap):
            pass
        report("coding", (n + 1) / len(runs))
    return pool


def _grown(
    state: TokenizerState, pools: Sequence[Pool], config: GrowConfig, seed: int, report: Report
) -> tuple[TokenizerState, list[LevelGrowth]]:
    """Stage after stage of each book, each on what those before it, grown already, leave over."""
    lam = lambda_of(VideoOptions().quality)
    growths: list[LevelGrowth] = []
    books = VideoTokenizer.from_state(state).books
    for number, name in enumerate(Books.NAMES):
        report(f"codes of {name}", number / len(Books.NAMES))
        book = books.by_name[name]
        rows = [pool.rows(name, book.width) for pool in pools]
        narrow, place = state, len(growths)
        state = _widened(state, name, book, rows)
        book = VideoTokenizer.from_state(state).books.by_name[name]
        left = [book.project(r.astype(np.float32))[:, :-1] if len(r) else np.zeros((0, len(book.basis))) for r in rows]
        for stage, level in enumerate(living.LEVELS[name][: len(book.codes)]):
            book = VideoTokenizer.from_state(state).books.by_name[name]
            left = [x[(x * x).sum(1) * book.unit**2 > _HOPE * lam] if len(x) else x for x in left]
            codes = book.codes[stage].astype(np.float32)
            life = book.lives[stage] if book.lives else Life()
            growth = grown_book(
                level, left[0].astype(np.float32), left[1].astype(np.float32), codes, life,
                price=None, most=most_of(config, len(codes), growths), far=config.far_of("video"),
                seed=seed + 10 * number + stage, spread=book.bearable, about_zero=True,
            )  # fmt: skip
            growths.append(growth)
            if growth.added:
                state = _appended(state, codebooks.level_of(state, level), growth)
                book = VideoTokenizer.from_state(state).books.by_name[name]
            left = [_left_over(book, stage, x) for x in left]
        if not any(growth.added for growth in growths[place:]):
            state = narrow
    return state, growths


def _widened(state: TokenizerState, name: str, book: Book, rows: Sequence[np.ndarray]) -> TokenizerState:
    """The state with directions that a book lacks, if they hold enough of what is held out. rows: int16 (n, V), those
    to learn from and those held out."""
    if name == "coarse" or any(book.lives) or book.first_dims or min(map(len, rows)) < _DIRECTIONS:
        return state
    basis = book.basis / book.scale
    over = [r - (r @ basis.T) @ basis for r in (part.astype(np.float64) for part in rows)]
    more = directions(np.rint(over[0]).astype(np.int16), min(_DIRECTIONS, book.width - len(basis)))
    more = np.linalg.qr(np.concatenate([basis, more]).T)[0].T[len(basis) :]  # at right angles to the old ones too
    if (((over[1] @ more.T) ** 2).sum()) < _WORTH * (rows[1].astype(np.float64) ** 2).sum():
        return state
    return replace(
        state, tensors={**state.tensors, f"{LIFE}{name}.{BASIS}": np.rint(more * book.scale).astype(np.int16)}
    )


def _appended(state: TokenizerState, level: int, growth: LevelGrowth) -> TokenizerState:
    tensor, beside = codebooks.tensor_of(state, level), codebooks.beside(state, level)
    assert tensor is not None
    dims = np.asarray(state.tensors[tensor]).shape[1]
    beyond = dict.fromkeys(beside, growth.rows[:, dims:])
    return codebooks.appended(state, level, growth.rows[:, :dims], growth.threshold, beyond)


def _left_over(book: Book, stage: int, left: np.ndarray) -> np.ndarray:
    if not len(left):
        return left
    x = np.concatenate([left, np.ones((len(left), 1))], 1).astype(np.float32)
    codes, _ = book.search(stage, x)
    found = codes >= 0
    out = left.copy()
    out[found] -= book.codes[stage][codes[found]]
    return out
