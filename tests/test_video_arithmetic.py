"""What video codes are made of: exact products, sites of pictures, nearest codes and k-means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import pixels
from pantok.quantizers.kmeans import kmeans, nearest, residual_kmeans
from pantok.tokenizers.video_exact import EXACT, Book, make_book, reach_of
from pantok.tokenizers.video_grid import REACH, SITE, Grid, Reference


@pytest.mark.parametrize("sites", [1, 3, 4, 16])
def test_products_are_exact_integers(sites: int) -> None:
    """For the largest residuals that bytes can make, float32 gives the integers that int64 gives."""
    rng = np.random.default_rng(sites)
    width, dims = sites * SITE, 24
    directions = np.linalg.qr(rng.normal(size=(width, dims)))[0].T
    book = make_book(directions, [rng.normal(size=(50, dims)) * 3000])
    weights = np.tile(np.repeat([1, 2], (64, 32)), sites)
    aligned = np.where(directions[0] > 0, 255, -255) * weights  # all of one sign: the largest products there are
    residuals = np.concatenate([rng.integers(-255, 256, (40, width)) * weights, aligned[None]]).astype(np.float32)
    y = book.project(residuals)
    exact = residuals.astype(np.int64) @ book.basis.T.astype(np.int64)
    assert np.abs(exact).max() < EXACT
    assert np.array_equal(y[:, :-1], np.rint(exact / (book.scale * book.unit)))
    codes, gain = book.search(0, y)
    c = book.codes[0].astype(np.int64)
    score = (c * c).sum(1) // 2 - y[:, :-1].astype(np.int64) @ c.T
    assert np.abs(score).max() < EXACT
    assert np.array_equal(codes, score.argmin(1)) and np.array_equal(gain, -2.0 * book.unit**2 * score.min(1))


def test_a_book_that_could_round_is_refused() -> None:
    basis = np.full((1, SITE), 4000, np.int16)
    with pytest.raises(AssertionError):
        Book(basis, (np.zeros((1, 1), np.int16),), (np.array([0, 1]),))
    book = make_book(np.eye(1, SITE), [np.ones((1, 1))])
    with pytest.raises(AssertionError):
        Book(book.basis, (np.full((1, 1), 32_000, np.int16),), (np.array([0, 1]),))
    assert reach_of(SITE) >= np.sqrt(64 * 255**2 + 32 * 510**2)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_sites_are_a_rearrangement(height: int, width: int, seed: int) -> None:
    grid = Grid(height, width)
    frames = np.random.default_rng(seed).integers(0, 256, (2, pixels.frame_bytes(height, width))).astype(np.uint8)
    assert np.array_equal(grid.to_frames(grid.to_sites(frames)), frames)


def test_displaced_sites_are_windows_of_the_picture() -> None:
    grid, rng = Grid(64, 96), np.random.default_rng(0)
    sites = grid.to_sites(rng.integers(0, 256, (1, pixels.frame_bytes(64, 96))).astype(np.uint8))
    picture = Reference(grid, sites[0])
    vectors = rng.integers(-REACH // 2, REACH // 2 + 1, (4 * grid.blocks, 2)) * 2  # whole samples
    luma = grid.to_planes(picture.fetch(vectors)[None])[0][0]
    around = np.pad(grid.to_planes(sites)[0][0], 40, "edge")
    for quad, (y, x) in enumerate(zip(*grid._corners, strict=True)):
        dy, dx = vectors[quad] // 2
        window = around[40 + y + dy : 56 + y + dy, 40 + x + dx : 56 + x + dx]
        assert np.array_equal(luma[y : y + 16, x : x + 16], window)
    some = np.arange(0, 4 * grid.blocks, 3)
    assert np.array_equal(
        picture.fetch(vectors[some], some).reshape(-1, 4, SITE), picture.fetch(vectors).reshape(-1, 4, SITE)[some]
    )
    half = np.zeros((4 * grid.blocks, 2), int)
    half[:, 1] = 1
    a = around.astype(int)[40:104]
    want = np.clip((5 * (a[:, 40:136] + a[:, 41:137]) - a[:, 39:135] - a[:, 42:138] + 4) >> 3, 0, 255)
    assert np.array_equal(grid.to_planes(picture.fetch(half)[None])[0][0], want)


def test_nearest_is_the_nearest_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(500, 7)) + 1e4, rng.normal(size=(40, 7)) + 1e4
    codes, distance = nearest(x, c)
    full = ((x[:, None] - c) ** 2).sum(2)
    picked = full[np.arange(500), codes]
    assert np.allclose(picked, full.min(1), rtol=1e-2, atol=1e-2) and np.allclose(
        distance, picked, rtol=1e-2, atol=1e-2
    )


def test_kmeans_uses_every_code_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    x = rng.laplace(size=(4000, 6)) * np.array([9, 5, 3, 2, 1, 1])
    threads, books = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            books.append(kmeans(x, 128, seed=3))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(books[0], books[1])
    codes, distance = nearest(x, books[0])
    assert np.bincount(codes, minlength=128).min() > 0
    from scipy.cluster.vq import kmeans2

    peer, label = kmeans2(x, 128, iter=10, minit="++", seed=3)
    assert distance.mean() < 1.1 * ((x - peer[label]) ** 2).sum(1).mean()
    stages = residual_kmeans(x, (32, 16), seed=0)
    assert [s.shape for s in stages] == [(32, 6), (16, 6)]


def test_kmeans_of_few_vectors_has_few_codes() -> None:
    assert kmeans(np.zeros((9, 3)), 5, seed=0).shape == (1, 3)
    book = kmeans(np.eye(3).repeat(50, 0), 5, seed=0)
    assert book.shape == (3, 3) and np.allclose(np.sort(book, 0), np.sort(np.eye(3), 0), atol=1e-5)
    weights = np.array([1.0, 0.0, 3.0])
    assert np.allclose(kmeans(np.array([[0.0], [9.0], [4.0]]), 1, seed=0, weights=weights), [[3.0]], atol=0.01)
