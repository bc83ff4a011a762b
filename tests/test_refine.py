"""Refinement: never worse on vectors that were not learned from, the same on every run of as many steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError
from pantok.experience import Track
from pantok.formats.soundfiles import read_soundfile
from pantok.quantizers.kmeans import residual_kmeans
from pantok.quantizers.learned import errors, refine
from pantok.tokenizers import audio
from pantok.tokenizers.audio import AudioConfig, AudioTokenizer
from tests.conftest import SAMPLES


def _vectors(count: int, width: int, seed: int) -> np.ndarray:
    """Correlated, heavy-tailed whole numbers."""
    rng = np.random.default_rng(seed)
    mixed = rng.laplace(size=(count, width)) @ np.random.default_rng(width).normal(size=(width, width))
    return np.clip(np.rint(100 * mixed), -1300, 1300)


def _closed_form(vectors: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    return [np.rint(b).astype(np.float32) for b in residual_kmeans(vectors, sizes, seed=0, iterations=4)]


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.sampled_from([2, 8, 32]), min_size=1, max_size=3))
def test_what_was_held_out_is_never_described_worse(seed: int, sizes: list[int]) -> None:
    vectors, others = _vectors(3000, 4, seed), _vectors(800, 4, seed + 1)
    books = _closed_form(vectors[:400], sizes)
    refined = refine(books, vectors, steps=3, seed=seed, held_out=others)
    assert refined.before == errors(books, others)
    assert refined.after == errors(refined.codebooks, others)
    assert np.mean(np.array(refined.after) / np.array(refined.before)) <= 1
    assert refined.gain_db >= 0
    for book, start in zip(refined.codebooks, books, strict=True):
        assert book.dtype == np.float32
        assert book.shape == start.shape
        assert (book == np.rint(book)).all()


def test_more_vectors_than_the_sample_help() -> None:
    vectors, others = _vectors(20_000, 6, 0), _vectors(4000, 6, 1)
    books = _closed_form(vectors[:2000], [64, 64])
    refined = refine(books, vectors, steps=24, seed=0, held_out=others)
    assert refined.gain_db > 0.1
    assert refined.rounds >= 1
    assert refined.steps == 24


def test_as_many_steps_give_the_same_books() -> None:
    vectors = _vectors(6000, 4, 3)
    books = _closed_form(vectors[:500], [16, 16])
    first, second = (refine(books, vectors, steps=9, seed=1) for _ in range(2))
    assert first.after == second.after
    for a, b in zip(first.codebooks, second.codebooks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_books_that_cannot_be_bettered_come_back() -> None:
    vectors = np.repeat(np.array([[10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]]), 400, axis=0)
    books = [vectors[[0, 400, 800]].astype(np.float32)]
    refined = refine(books, vectors, steps=2)
    np.testing.assert_array_equal(refined.codebooks[0], books[0])
    assert refined.after == refined.before == (0.0,)


def test_nothing_to_learn_from_changes_nothing() -> None:
    books = [np.eye(4, dtype=np.float32) * 50]
    for vectors in (np.zeros((0, 4)), np.ones((3, 4))):
        np.testing.assert_array_equal(refine(books, vectors, steps=2).codebooks[0], books[0])


def test_time_ends_it() -> None:
    reached: list[float] = []
    vectors = _vectors(4000, 4, 7)
    refined = refine(_closed_form(vectors[:500], [16, 16]), vectors, seconds=0.5, report=reached.append)
    assert refined.steps > 0
    assert reached == sorted(reached)
    assert reached[-1] == 1.0


def test_a_budget_is_one_of_two() -> None:
    for budget in ({}, {"seconds": 1.0, "steps": 1}, {"seconds": -1.0}):
        with pytest.raises(OptionError, match="seconds or steps"):
            refine([np.eye(2)], np.eye(2), **budget)


@pytest.fixture(scope="module")
def speech() -> list[Track]:
    return [read_soundfile(SAMPLES / "speech" / n) for n in ("austen-1.flac", "austen-2.wav")]


def test_a_refined_sound_tokenizer_says_what_it_gained(speech: list[Track], monkeypatch: pytest.MonkeyPatch) -> None:
    config = AudioConfig(size=256, tick_size=64, refine_steps=2)
    assert AudioTokenizer.fit(speech, config).metrics["refined"] == {"kept": False, "gain_db": None, "seconds": 0.0}
    monkeypatch.setattr(audio, "_HELD_OUT", 2)  # there are two segments
    plain = AudioTokenizer.fit(speech, AudioConfig(size=256, tick_size=64))
    first, second = (AudioTokenizer.fit(speech, config) for _ in range(2))
    assert "refined" not in plain.metrics
    told = first.metrics["refined"]
    assert told["seconds"] > 0
    same = all(np.array_equal(a, b) for a, b in zip(plain.books.shape, first.books.shape, strict=True))
    assert told["kept"] == (told["gain_db"] > 0) == (not same)
    for name, tensor in first.state().tensors.items():
        np.testing.assert_array_equal(tensor, second.state().tensors[name], err_msg=name)
    with pytest.raises(OptionError, match="negative"):
        AudioConfig(refine_seconds=-1)
