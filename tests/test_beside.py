"""Rivals on the same ids as the model, and intervals that cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pantok.evolve.predictor import NGram
from pantok.world_model.baselines import xz_bits
from pantok.world_model.beside import _compared, counted, ngram_bits, xz_rate
from pantok.world_model.inputs import Inputs
from pantok.world_model.intervals import resampled


def windows(ids: np.ndarray, predict: np.ndarray, document: np.ndarray | None = None) -> Inputs:
    none = torch.zeros(ids.shape, dtype=torch.int64)
    documents = none if document is None else torch.from_numpy(document)
    return Inputs(
        ids=torch.from_numpy(ids), role=none, time_s=none.double(), ordinal=none, index=none, document=documents,
        predict=torch.from_numpy(predict), window=torch.arange(len(ids)), latents={},
    )  # fmt: skip


def batch(ids: np.ndarray) -> dict[str, torch.Tensor]:
    return {"ids": torch.from_numpy(ids), "document": torch.zeros(ids.shape, dtype=torch.int32)}


def test_the_ngram_is_asked_about_predicted_ids_alone() -> None:
    """Ids that follow one another for certain cost next to nothing, those drawn at random their two bits."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 4, (60, 40))
    ids = np.stack([drawn, drawn + 4], 2).reshape(60, 80)
    ngram = counted([batch(ids[:25]), batch(ids[25:50])], 8)
    second = np.tile([False, True], (10, 40))
    certain, random = (float(ngram_bits(ngram, [windows(ids[50:], m)]).mean()) / 40 for m in (second, ~second))
    assert certain < 0.05 and random == pytest.approx(2, abs=0.15)


def test_padding_is_no_context_and_documents_are_apart() -> None:
    ids = np.tile(np.array([0, 1, 2, 3, 0, 1, 7, 7]), (4, 1))
    document = np.tile(np.array([0, 0, 0, 0, 1, 1, -1, -1]), (4, 1))
    ngram = counted([{"ids": torch.from_numpy(ids), "document": torch.from_numpy(document)}], 8)
    apart = NGram(8)
    for said in 4 * ([0, 1, 2, 3], [0, 1]):
        apart.count(np.array(said))
    some = np.array([0, 1, 2, 3, 7, 0])
    assert ngram.distinct == apart.distinct and np.array_equal(ngram.bits(some), apart.bits(some))
    predict = document >= 0
    assert np.isfinite(ngram_bits(ngram, [windows(ids, predict, document)])).all()


def test_xz_is_given_the_predicted_ids_as_one_sequence() -> None:
    rng = np.random.default_rng(1)
    ids, predict = rng.integers(0, 200, (16, 300)), rng.random((16, 300)) < 0.7
    found = xz_rate([windows(ids[:8], predict[:8]), windows(ids[8:], predict[8:])], 10.0)
    assert found["value"] == pytest.approx(xz_bits(ids[predict]) / predict.sum() * 10)
    low, high = found["95"]
    assert low < found["value"] < high and high - low < 0.1 * found["value"]


def test_intervals_cover_the_mean() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(100):
        drawn = rng.exponential(3.0, 80)
        low, high = resampled(drawn, np.ones(80), seed=seed)["95"]
        covered += low <= 3.0 <= high
    assert 86 <= covered <= 99
    assert resampled(np.array([2.0]), np.array([4.0])) == {"value": 0.5, "95": None}


def test_gains_are_drawn_together() -> None:
    """A model that is better at every step is surely better, though the steps differ far more than that."""
    rng = np.random.default_rng(3)
    hard, of = rng.exponential(50, 300), np.repeat(np.arange(30), 10)
    errors = {"copy_last": 2 * hard, "ridge": hard, "without_backbone": hard, "model": 0.97 * hard}
    found = _compared(errors, np.ones(300), of, decibels=True)
    low, high = found["gain_95"]["ridge"]
    assert low == pytest.approx(10 * np.log10(1 / 0.97)) == high
    assert found["ridge"]["95"][0] < found["model"]["value"] < found["ridge"]["95"][1]
    assert found["ridge"]["value"] == pytest.approx(10 * np.log10(255**2 / hard.mean()))
    missed = _compared({**errors, "model": 0.5 * hard}, hard, of, decibels=False)
    assert missed["model"]["value"] == pytest.approx(0.5) and missed["gain_95"]["copy_last"][0] == pytest.approx(1.5)
