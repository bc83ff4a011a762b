"""What the ticks ahead show again is worth more: laws of the handing on, and what it brings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.tokenizers import video_ahead_kernels as kernels
from pantok.tokenizers.video import VideoTokenizer
from pantok.tokenizers.video_ahead import Ahead, Glimpse, glimpsed, weights
from pantok.tokenizers.video_control import VideoOptions
from pantok.tokenizers.video_grid import Grid
from tests.test_video import film, psnr, tokenizer, track_of  # noqa: F401  (fixtures)

GRID = Grid(96, 128)
QUADS = 4 * GRID.blocks


def handed_on(moves: np.ndarray, stays: np.ndarray, seen: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Slowly: every eighth of a quad is handed to the quad that it lies in."""
    out = np.zeros((rows, columns))
    for q in range(rows * columns):
        top = np.clip(8 * (q // columns) + moves[q, 0], 0, 8 * (rows - 1))
        left = np.clip(8 * (q % columns) + moves[q, 1], 0, 8 * (columns - 1))
        for y in range(top, top + 8):
            for x in range(left, left + 8):
                out[y // 8, x // 8] += stays[q] * (1 + seen[q]) / 64
    return out.ravel()


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 6), seed=st.integers(0, 1000))
def test_what_is_handed_on_is_all_that_stays(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = rows * columns
    moves, stays, seen = rng.integers(-40, 41, (count, 2)), rng.random(count), rng.random(count) * 5
    out = np.zeros(count)
    kernels.hand_on(moves, stays, seen, rows, columns, out)
    assert np.allclose(out, handed_on(moves, stays, seen, rows, columns), rtol=1e-12)
    assert out.sum() == pytest.approx((stays * (1 + seen)).sum(), rel=1e-12)


def pictures(shift: int) -> np.ndarray:
    """uint8 (8, N, 96): last frames of ticks, of a noise that moves `shift` pixels to the right each time."""
    noise = np.kron(np.random.default_rng(5).integers(30, 220, (40, 200)), np.ones((4, 4))).astype(np.uint8)
    frames = np.full((8, 96 * 128 * 3 // 2), 128, np.uint8)
    for k in range(8):
        at = 300 - k * shift
        frames[k, : 96 * 128] = noise[32:128, at : at + 128].ravel()
    return GRID.to_sites(frames)


def glimpses(shift: int) -> list[Glimpse]:
    seen: list[Glimpse] = []
    for sites in pictures(shift):
        seen.append(glimpsed(GRID, sites, seen[-1] if seen else None))
    return seen


def test_what_stands_still_is_worth_more_with_every_tick() -> None:
    seen = glimpses(0)
    assert all(np.all(g.stays == 1) and not g.moves.any() for g in seen[1:])
    for count in range(7):
        assert np.allclose(weights(GRID, seen[1 : 1 + count]), min(0.5 + 0.3 * count, 2.0))


def test_what_moves_is_followed_until_it_is_gone() -> None:
    seen = glimpses(16)
    assert all(np.mean((g.moves == (0, -8)).all(1) & (g.stays == 1)) > 0.7 for g in seen[1:])
    worth = weights(GRID, seen[1:]).reshape(GRID.rows, GRID.columns, 2, 2).transpose(0, 2, 1, 3).reshape(6, 8)
    assert np.allclose(worth[:, 2:], 2.0 - 0.3 * np.arange(6), atol=0.05), worth  # the left column is new each time
    stopped = weights(GRID, [])
    assert (stopped == 0.5).all()


def test_nothing_is_looked_at_beyond_a_key_and_no_more_waits_than_may() -> None:
    ahead = Ahead(GRID, 3, 5)
    frames = np.full((4, 96 * 128 * 3 // 2), 90, np.uint8)
    taken = []
    for _ in range(12):
        ahead.add(frames)
        while len(ahead) > ahead.ticks:
            taken.append(ahead.take()[1])
    while len(ahead):
        taken.append(ahead.take()[1])
    later = [min(3, 4 - k % 5, 11 - k) for k in range(12)]
    assert all(w is not None and np.allclose(w, 0.5 + 0.3 * n) for w, n in zip(taken, later, strict=True))
    none = Ahead(GRID, 0, 5)
    none.add(frames)
    assert none.take()[1] is None
    assert [Ahead(g, 8, 5).ticks for g in (GRID, Grid(1080, 1920), Grid(2160, 3840))] == [8, 6, 1]


def test_looking_ahead_makes_a_better_trade(tokenizer: VideoTokenizer, film: np.ndarray) -> None:  # noqa: F811
    """More decibels at equal bits, on a film most of which stands still."""
    bits = np.log2([lv.cardinality for lv in tokenizer.levels])
    curves = []
    for ahead in (0, 8):
        curve = []
        for quality in (1.0, 3.0, 5.0):
            tokens = tokenizer.encode(track_of(film, 96, 128), VideoOptions(quality=quality, ahead=ahead))
            spent = sum(len(lv.codes) * b for lv, b in zip(tokens.levels, bits, strict=True))
            curve.append((np.log(spent), psnr(film, tokenizer.decoded(tokens))))
        curves.append(np.array(curve).T)
    at = np.linspace(max(c[0, 0] for c in curves), min(c[0, -1] for c in curves), 20)
    plain, looked = (np.interp(at, *c) for c in curves)
    assert np.mean(looked - plain) > 0.05, np.mean(looked - plain)
