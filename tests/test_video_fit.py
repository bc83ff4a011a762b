"""What of a mean is chance is taken out of it."""

from __future__ import annotations

import numpy as np
import pytest

from pantok.quantizers.kmeans import shrunk
from pantok.tokenizers.video_books import Books
from pantok.tokenizers.video_fit import DIRECTIONS


def means(rows: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    return np.stack(
        [rows[codes == k].mean(0) if (codes == k).any() else np.full(rows.shape[1], 7.0) for k in range(count)]
    )


def test_shrunk_means_are_nearer_to_what_they_stand_for() -> None:
    """Directions of much and of little scatter among codes; codes of three rows and of thirty."""
    rng = np.random.default_rng(0)
    spread = np.array([20.0, 5.0, 1.0, 0.0])
    true = rng.normal(size=(400, 4)) * spread
    codes = np.repeat(np.arange(400), np.where(np.arange(400) % 2, 3, 30))
    rows = true[codes] + rng.normal(0, 6, (len(codes), 4))
    plain = means(rows, codes, 400)
    made = shrunk(plain, rows, codes)
    error = [((x - true) ** 2).mean(0) for x in (plain, made)]
    assert (error[1] < error[0]).all()
    assert (error[1] < [1.0 * error[0][0], 0.9 * error[0][1], 0.3 * error[0][2], 0.1 * error[0][3]]).all()
    share = np.abs(made).sum(0) / np.abs(plain).sum(0)
    assert (np.diff(share) < 0).all(), "least is kept where codes differ least"
    few, many = (np.abs(made[k::2, 1]).sum() / np.abs(plain[k::2, 1]).sum() for k in (1, 0))
    assert few < many < 1


def test_shrinking_by_hand() -> None:
    """Two codes of two rows each: scatter 2 * 4 / (4 - 2) = 4, chance of a mean 4 / 2 = 2, of what they are 100 - 2."""
    rows, codes = np.array([[9.0], [11.0], [-9.0], [-11.0]]), np.array([0, 0, 1, 1])
    rows[:, 0] += np.array([-1, 1, 1, -1]) * (np.sqrt(2) - 1)  # so that each is the square root of two off
    assert shrunk(means(rows, codes, 2), rows, codes) == pytest.approx(np.array([[9.8], [-9.8]]))


def test_codes_of_no_row_stay() -> None:
    rows, codes = np.array([[3.0, 1.0], [3.2, 1.4], [5.0, 2.0]]), np.array([0, 0, 2])
    book = means(rows, codes, 4)
    made = shrunk(book, rows, codes)
    assert np.array_equal(made[[1, 3]], book[[1, 3]]) and np.isfinite(made).all()
    assert np.array_equal(shrunk(book, rows[:0], codes[:0]), book)


def test_every_book_is_told_its_directions() -> None:
    assert set(DIRECTIONS) == set(Books.NAMES)
