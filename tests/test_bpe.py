"""Pieces: they spell what they were made of, in the fewest codes, and about as few as a peer's."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.quantizers.bpe import PAD, Pieces, train
from pantok.tokenizers.numeric_band import differences


def matrix(runs: list[list[int]]) -> np.ndarray:
    longest = max(map(len, runs))
    return np.array([run + [PAD] * (longest - len(run)) for run in runs], np.int64)


def source(rows: int = 400, length: int = 50, seed: int = 0) -> np.ndarray:
    """Motifs of a small alphabet with noise between them."""
    rng = np.random.default_rng(seed)
    motifs = [rng.integers(0, 12, rng.integers(3, 9)).tolist() for _ in range(40)]
    runs = []
    for _ in range(rows):
        run: list[int] = []
        while len(run) < length:
            run += motifs[rng.integers(40)] if rng.random() < 0.8 else [int(rng.integers(12))]
        runs.append(run[:length])
    return matrix(runs)


runs_of_three = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(learned=runs_of_three, coded=runs_of_three)
def test_expanding_gives_back_what_was_segmented(learned: list[list[int]], coded: list[list[int]]) -> None:
    pieces = train(matrix(learned), 3, 12)
    codes, counts = pieces.segment(matrix(coded))
    symbols, lengths = pieces.expand(codes)
    assert symbols.tolist() == [v for run in coded for v in run]
    ends = np.cumsum(counts)
    per_run = [int(lengths[e - c : e].sum()) for e, c in zip(ends, counts, strict=True)]
    assert per_run == [len(run) for run in coded], "no piece reaches over the end of a run"


def fewest(run: list[int], pieces: Pieces) -> int:
    """The reference: textbook dynamic programming in plain Python."""
    spelled = {pieces.expansion(c) for c in range(pieces.size)}
    best = [0] + [10**9] * len(run)
    for end in range(1, len(run) + 1):
        for begin in range(end):
            if tuple(run[begin:end]) in spelled:
                best[end] = min(best[end], best[begin] + 1)
    return best[-1]


@settings(max_examples=100, deadline=None)
@given(learned=runs_of_three, coded=runs_of_three)
def test_no_segmentation_is_shorter(learned: list[list[int]], coded: list[list[int]]) -> None:
    pieces = train(matrix(learned), 3, 10)
    counts = pieces.segment(matrix(coded))[1]
    assert counts.tolist() == [fewest(run, pieces) for run in coded]


def test_as_few_codes_as_sentencepiece_or_fewer() -> None:
    learned, held = source(), source(seed=1)
    size = 300
    pieces = train(learned, 12, size)
    lines = ["".join(chr(0x4E00 + v) for v in run) for run in learned.tolist()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=size + 3, model_type="bpe", minloglevel=2,
        character_coverage=1.0, normalization_rule_name="identity", add_dummy_prefix=False,
    )  # fmt: skip
    peer = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    theirs = sum(len(peer.encode("".join(chr(0x4E00 + v) for v in run))) for run in held.tolist())
    ours = int(pieces.segment(held)[1].sum())
    assert pieces.size == size
    assert ours <= theirs * 1.02


def test_what_must_not_merge_does_not() -> None:
    pieces = train(source(), 12, 100, mergeable=6, longest=5)
    spelled = [pieces.expansion(c) for c in range(12, pieces.size)]
    assert spelled
    assert all(max(e) < 6 and len(e) <= 5 for e in spelled)


def test_a_piece_of_later_pieces_is_refused() -> None:
    with pytest.raises(AssertionError, match="earlier"):
        Pieces(3, np.array([[0, 3]]))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(2, 100))
def test_stillness_is_one_code(length: int) -> None:
    pieces = train(matrix([[0, 1, 2, 0, 1, 2, 1, 1]]), 3, 40, still=[(1, length)], longest=100)
    assert pieces.segment(np.ones((1, length), np.int64))[1].tolist() == [1]


def paths(low: list[int], count: list[int]) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for lo, n in zip(low, count, strict=True):
        found = [path + [lo + j] for path in found for j in range(n)]
    return found


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(), order=st.integers(0, 2), group=st.integers(1, 6), seed=st.integers(0, 99), size=st.integers(1, 5)
)
def test_the_path_is_the_cheapest_of_all(data: st.DataObject, order: int, group: int, seed: int, size: int) -> None:
    """Against every path in the band, each spelled by textbook dynamic programming (residuals beyond 2 by bytes, two
    codes of a zigzag below 5, three of one from 256 on)."""
    reach, wide = 2, 5
    motifs = np.random.default_rng(seed).integers(0, 5, (12, 6))
    pieces = train(motifs, 2 * reach + 1, 14)
    lows = st.integers(-3, 3) | st.integers(-200, 200)
    low = data.draw(st.lists(lows, min_size=size, max_size=size))
    count = data.draw(st.lists(st.integers(1, 3), min_size=size, max_size=size))
    cut = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    arrays = np.array(low), np.array(count), np.array(cut)
    path, codes = pieces.path(*arrays, order=order, reach=reach, wide=wide, group=group)
    assert (path >= arrays[0]).all()
    assert (path < arrays[0] + arrays[1]).all()

    def spelled(path: list[int]) -> int:
        total, run = 0, []
        for i, residual in enumerate(differences(np.array(path), order, group).tolist()):
            if run and (cut[i] or i % group == 0 or abs(residual) > reach):
                total, run = total + fewest(run, pieces), []
            if abs(residual) > reach:
                total += 2 if max(2 * residual, -2 * residual - 1) < 256 else 3
            else:
                run.append(residual + reach)
        return total + fewest(run, pieces) if run else total

    assert codes == spelled(path.tolist()) == min(spelled(p) for p in paths(low, count))
