"""Smoothing of decoded pictures: exact, chosen by the encoder, free of codes, and without memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pantok import pixels
from pantok.errors import TokenError, VocabularyError
from pantok.experience import Block
from pantok.tokenizers import video as whole
from pantok.tokenizers.video import VideoConfig, VideoOptions, VideoTokenizer
from pantok.tokenizers.video_grid import Grid, Reference
from pantok.tokenizers.video_smooth import FOURS, MOST, REACH, Smoothing, Tally, reach
from pantok.tokenizers.video_smooth_fit import rounded
from tests.test_video import psnr, same, scene, track_of

SMALL = VideoConfig(size=32, vectors=1500, sample_megabytes=8, rounds=0, dims=16)


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    """Fitted on six runs, so that one is held out."""
    made = VideoTokenizer.fit([track_of(scene(144, 64, 96), 64, 96)], SMALL)
    assert made.smoothing is not None
    return made


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return scene(26, 60, 90, seed=4, speed=2)


def plain(tokenizer: VideoTokenizer) -> VideoTokenizer:
    state = tokenizer.state()
    kept = {name: t for name, t in state.tensors.items() if not name.startswith("smooth.")}
    return VideoTokenizer.from_state(replace(state, tensors=kept))


def summed(plane: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """int64 (7, h, w): what the neighbours of each four differ by, each no more than its limit."""
    lines, (h, w) = np.pad(plane.astype(np.int64), 3, "edge"), plane.shape
    apart = [[lines[3 + y : 3 + y + h, 3 + x : 3 + x + w] - lines[3:-3, 3:-3] for y, x in four] for four in FOURS]
    return np.stack([np.clip(a, -int(m), int(m)).sum(0) for a, m in zip(apart, limits, strict=True)])


def by_hand(frames: np.ndarray, height: int, width: int, smoothing: Smoothing, number: int) -> np.ndarray:
    made = []
    for k, planes in enumerate(pixels.planes(frames, height, width)):
        limits, weights = smoothing.limits[min(k, 1)], smoothing.weights[number - 1, min(k, 1)].astype(np.int64)
        pulls = [np.tensordot(weights, summed(p, limits), 1) for p in planes]
        made.append(np.stack([np.clip(p + ((t + 256) >> 9), 0, 255) for p, t in zip(planes, pulls, strict=True)]))
    return pixels.pack(*made)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 50), (37, 5), (40, 130)])
def test_loops_do_what_plain_arithmetic_does(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    limits = rng.integers(0, MOST + 1, (2, 7)).astype(np.uint8)
    smoothing = rounded(limits, rng.normal(size=(2, 2, 7)) * [[[0.05]], [[9.0]]])
    assert REACH - 1000 < reach(limits, smoothing.weights).max() <= REACH, "the second goes as far as sixteen bits do"
    frames = rng.choice(np.array([0, 3, 100, 120, 255], np.uint8), (3, pixels.frame_bytes(height, width)))
    for number in (0, 1, 2):
        made = frames.copy()
        smoothing.smooth(made, height, width, number)
        assert np.array_equal(made, by_hand(frames, height, width, smoothing, number) if number else frames)


def test_the_set_is_chosen_by_the_error_it_leaves() -> None:
    rng = np.random.default_rng(0)
    grid, limits = Grid(64, 40), np.full((2, 7), 20, np.uint8)
    smoothing = rounded(limits, np.array([-0.1, 0.06, 0.09])[:, None, None] * np.ones((3, 2, 7)))
    flat = np.full((1, pixels.frame_bytes(64, 40)), 90, np.uint8)
    noisy = (flat + rng.integers(-9, 10, flat.shape)).astype(np.uint8)
    decoded = Reference(grid, grid.to_sites(noisy)[0])
    tally = Tally(smoothing)
    assert tally.best == 0, "nothing was seen"
    for tick in range(8):  # a line in eight each time: all lines
        tally.add(tally.look(tick, flat, decoded, lambda: pytest.fail("there is none between")))
    columns = missing(noisy[0], flat[0], 64, 40, limits)
    assert np.array_equal(tally._products[0], np.triu(columns[0] @ columns[0].T)) and not tally._products[1].any()
    left = [((columns[0][7] - w[0] @ columns[0][:7] / 512) ** 2).sum() for w in smoothing.weights.astype(float)]
    assert tally.best == 1 + int(np.argmin(left)) and min(left) < (columns[0][7] ** 2).sum()
    other = Tally(smoothing)
    other.add(other.look(0, noisy, decoded, lambda: pytest.fail("there is none between")))
    assert other.best == 0, "there is nothing to take away"


def test_frames_between_count_as_often_as_there_are_of_them() -> None:
    """Each of them is looked at in its turn, chroma too, which is a better reason than luma here."""
    rng = np.random.default_rng(1)
    grid, limits = Grid(32, 48), np.full((2, 7), 20, np.uint8)
    smoothing = rounded(limits, np.array([[-0.1, 0.05], [0.1, -0.05]])[:, :, None] * np.ones((2, 2, 7)))
    flat = np.full((4, pixels.frame_bytes(32, 48)), 90, np.uint8)
    noisy = (flat + rng.integers(-9, 10, flat.shape)).astype(np.uint8)
    noisy[:, : 32 * 48] = 90 + (noisy[:, : 32 * 48].astype(int) - 90) // 4
    sites, tally, seen = grid.to_sites(noisy[:3]), Tally(smoothing), np.zeros(3, int)
    end = Reference(grid, grid.to_sites(flat)[3])  # as it should be: nothing to say
    for tick in range(48):  # every second one; three frames in turn, and eight shares of their lines
        tally.add(tally.look(tick, flat, end, lambda: sites))
        seen[tick // 2 % 3] += tick % 2 == 0
    expected = np.zeros((2, 8, 8), np.int64)
    for frame in noisy[:3]:
        for kind, columns in zip((0, 1, 1), missing(frame, flat[0], 32, 48, limits), strict=True):
            expected[kind] += np.triu(columns @ columns.T)
    assert seen.tolist() == [8, 8, 8]
    assert np.array_equal(tally._products, expected * np.array([6, 8])[:, None, None])
    assert tally.best == 1
    assert not tally.look(1, flat, end, lambda: pytest.fail("it is not looked at")).any()


def missing(made: np.ndarray, wanted: np.ndarray, height: int, width: int, limits: np.ndarray) -> list[np.ndarray]:
    """Of each plane int64 (8, pixels): what neighbours pull, and what is missing."""
    planes = [pixels.planes(frame[None], height, width) for frame in (made, wanted)]
    return [
        np.concatenate([summed(a[0], limits[min(k, 1)]), (b - a.astype(np.int64))]).reshape(8, -1)
        for k, (a, b) in enumerate(zip(*planes, strict=True))
    ]


def test_codes_are_what_they_are_without_it(tokenizer: VideoTokenizer, film: np.ndarray) -> None:
    """And pictures are better, in parts that nothing was learned from."""
    track, without = track_of(film, 60, 90), plain(tokenizer)
    assert tokenizer.metrics["held_out"] and tokenizer.metrics["smoothing_db"] > 0
    for quality in (2.0, 5.0):
        tokens, bare = (t.encode(track, VideoOptions(quality=quality)) for t in (tokenizer, without))
        assert same(tokens, bare) and tokens.header == {**bare.header, "smooth": tokens.header["smooth"]}
        smoothed, rough = tokenizer.decoded(tokens), without.decoded(bare)
        assert psnr(smoothed, film) > psnr(rough, film) + 0.1
        assert np.array_equal(smoothed, by_hand(rough, 60, 90, tokenizer.smoothing, tokens.header["smooth"]))
        assert np.array_equal(tokenizer.decoded(bare), rough), "what was written without it is read without it"
    again = VideoTokenizer.from_state(tokenizer.state())
    assert again.state().digest == tokenizer.state().digest and np.array_equal(again.decoded(tokens), smoothed)


def test_it_depends_on_no_other_picture(tokenizer: VideoTokenizer, film: np.ndarray) -> None:
    """Wherever decoding begins, in whatever parts frames came, whoever codes those between."""
    track = track_of(film, 60, 90)
    tokens = tokenizer.encode(track, VideoOptions(key_seconds=0.3))
    encoder = tokenizer.encoder(track, VideoOptions(key_seconds=0.3))
    for at in range(0, len(film), 7):
        encoder.push(Block(film[at : at + 7]))
    assert encoder.finish().header == tokens.header and tokens.header["smooth"] > 0
    decoded = tokenizer.decoded(tokens)
    some = np.concatenate([b.values for b in tokenizer.decode(tokens, start=9, stop=22)])
    assert np.array_equal(some, decoded[9:22])
    few = plain(tokenizer).decoded(replace(tokens, header={**tokens.header, "smooth": 0}), levels=4)
    assert np.array_equal(
        tokenizer.decoded(tokens, levels=4), by_hand(few, 60, 90, tokenizer.smoothing, tokens.header["smooth"])
    )


def test_a_picture_that_stands_still_stays(tokenizer: VideoTokenizer, film: np.ndarray) -> None:
    tokens = tokenizer.encode(track_of(np.repeat(film[:1], 40, 0), 60, 90), VideoOptions(quality=2.0))
    quiet = [t for t in range(tokens.ticks) if not any(len(lv.of_tick(t)) for lv in tokens.levels)]
    decoded = tokenizer.decoded(tokens)
    assert quiet and tokens.header["smooth"]
    for tick in quiet:
        assert (decoded[4 * tick : 4 * tick + 4] == decoded[4 * tick - 1]).all()


def test_what_does_not_fit_is_refused(tokenizer: VideoTokenizer, film: np.ndarray) -> None:
    tokens = tokenizer.encode(track_of(film[:5], 60, 90))
    for reader, number in ((tokenizer, len(tokenizer.smoothing) + 1), (tokenizer, -1), (plain(tokenizer), 1)):
        with pytest.raises(TokenError, match="smoothed by set"):
            reader.decoded(replace(tokens, header={**tokens.header, "smooth": number}))
    state = tokenizer.state()
    for name, value in (
        ("smooth.limits", np.full((2, 7), MOST + 1, np.uint8)),
        ("smooth.weights", np.full((1, 2, 7), 2000, np.int16)),
        ("smooth.weights", np.zeros((1, 2, 6), np.int16)),
    ):
        with pytest.raises(VocabularyError, match="smoothing"):
            VideoTokenizer.from_state(replace(state, tensors={**state.tensors, name: value}))


def test_one_that_does_not_help_what_is_held_out_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    harmful = rounded(np.full((2, 7), 20, np.uint8), np.full((1, 2, 7), -0.1))
    monkeypatch.setattr(whole, "learned_smoothing", lambda gathered: harmful)
    monkeypatch.setattr(Tally, "best", property(lambda self: 1))
    made = VideoTokenizer.fit([track_of(scene(48, 64, 96), 64, 96)], SMALL)
    assert made.smoothing is None and "smoothing_db" not in made.metrics
    assert not any(name.startswith("smooth") for name in made.state().tensors)
