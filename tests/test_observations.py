"""What a world model is measured against: steps, pictures, loudness and values, the ridge, and xz."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import pixels
from pantok.errors import InputError, OptionError
from pantok.experience import Clock, Track
from pantok.formats.store import Store
from pantok.layout import Layout, arrange
from pantok.stream import TokenStream, TrackTokens
from pantok.tokenizers import Tokenizer, load
from pantok.vocabulary import Vocabulary
from pantok.world_model import senses
from pantok.world_model.baselines import CopyLast, TrackScore, inputs_of, known_ahead, score, xz_bits
from pantok.world_model.components import Thinned, components
from pantok.world_model.observations import ObservationConfig, Observations, ObservationSpace, TrackSpace
from pantok.world_model.ridge import Ridge
from pantok.world_model.step_grid import StepGrid
from tests.driven_pendulum import pendulum_episodes, pendulum_space


@pytest.fixture(scope="module")
def home(store: Path) -> Store:
    return Store.open(store)


@pytest.fixture(scope="module")
def space(home: Store) -> ObservationSpace:
    layout = Layout(step_s=0.1)
    return ObservationSpace.fit(
        (home.read(i) for i in home.episodes), home.vocabulary, layout, ObservationConfig(dims=9)
    )


@pytest.mark.parametrize("step_s", [0.07, 0.2, 1 / 3])
def test_steps_are_those_of_the_sequence(home: Store, step_s: float) -> None:
    layout = Layout(step_s=step_s)
    for name in home.episodes:
        stream = home.read(name)
        steps = StepGrid.of(stream, layout)
        sequence = arrange(stream, layout, home.vocabulary)
        ticks = np.flatnonzero(sequence.ids == home.vocabulary.control("tick"))
        mine = {int(s) for t in stream.tracks.values() for s in steps.of_ticks(t)}
        assert len(mine) == len(ticks) and max(mine) == steps.count - 1
        # Within a step all instants are its own.
        for first, last in pairwise([*ticks.tolist(), len(sequence) - 1]):
            inside = (sequence.time_ns[first:last] - steps.first_ns) // steps.width_ns
            assert len(set(inside.tolist())) == 1


def test_a_picture_is_the_last_frame_of_its_step(home: Store, space: ObservationSpace) -> None:
    stream = home.read("film-01")
    seen = space.vectors(stream, pictures=True)
    track = stream.tracks["video"]
    decoded = load(home.vocabulary.states["video"]).decoded(track)
    height, width = int(track.header["height"]), int(track.header["width"])
    rgb = pixels.to_rgb(decoded, height, width, track.info["matrix"], track.info["full_range"]).astype(np.float64)
    steps = StepGrid.of(stream, space.layout)
    lines, columns = space.track("video").shape
    for step in np.flatnonzero(seen.present[:, space.names.index("video")]).tolist():
        tick = int(np.flatnonzero(steps.of_ticks(track) == step)[-1])
        frame = rgb[min((tick + 1) * track.tick, len(rgb)) - 1]
        # The mean over the area of each new pixel, the slow way: every pixel cut into lines x columns parts.
        fine = frame.repeat(lines, 0).repeat(columns, 1).reshape(lines, height, columns, width, 3).mean((1, 3))
        assert np.abs(seen.pictures["video"][step] - fine).max() <= 0.51
    assert seen.values.dtype == np.float32 and seen.values.shape == (steps.count, space.width)


def test_what_is_not_said_is_as_it_was(home: Store, space: ObservationSpace) -> None:
    seen = space.vectors(home.read("film-01"), pictures=True)
    video = space.names.index("video")
    absent = np.flatnonzero(~seen.present[1:, video]) + 1
    assert len(absent), "steps of 0.1 s and ticks of four frames: some steps have none"
    part = space.slices["video"]
    assert np.array_equal(seen.values[absent, part], seen.values[absent - 1, part])
    walk = space.vectors(home.read("street/walk"), pictures=True)
    assert not walk.present[:, space.names.index("proprio")].any()
    assert not walk.values[:, space.slices["proprio"]].any()


def test_numbers_are_the_last_and_the_mean(home: Store, space: ObservationSpace) -> None:
    stream = home.read("film-01")
    seen = space.vectors(stream)
    track = stream.tracks["proprio"]
    values = load(home.vocabulary.states["numeric"]).decoded(track)
    part = space.track("proprio")
    raw = part.raw(seen.values[:, space.slices["proprio"]])
    # 50 rows are one tick, which begins in step 0.
    assert np.allclose(raw[0], [*values[-1], *values.mean(0)], atol=1e-5)


class Rows(Tokenizer):
    """Gives back an array, in blocks of seven."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def decode(self, tokens: TrackTokens, **which: object):  # type: ignore[no-untyped-def, override]
        return Track.of_array("x", self.values, Clock.regular(50, len(self.values))).blocks(7)

    levels = fit = encoder = state = from_state = None  # type: ignore[assignment]


Rows.__abstractmethods__ = frozenset()


def test_what_is_no_number_is_as_before() -> None:
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, 4.0], [np.nan, 6.0]])
    track = TrackTokens("x", "numeric", Clock.regular(50, 4), 1, ())
    found = list(senses.felt(track, Rows(values), np.array([0, 0, 2, 2]), range(4)))
    assert [s for s, _ in found] == [0, 2]
    assert np.allclose(found[0][1], [1, 0, 1, 0]) and np.allclose(found[1][1], [3, 6, 3, 5])


def test_loudness_is_in_decibels_and_in_its_band() -> None:
    rate, tick = 16_000, 1280
    t = np.arange(5 * tick) / rate
    tone = np.stack([0.5 * np.sin(2 * np.pi * 1000 * t), np.zeros(len(t))], 1).astype(np.float32)
    track = TrackTokens("audio", "audio", Clock.regular(rate, len(t)), tick, ())
    edges = np.array([100.0, 800.0, 1200.0, 8000.0])
    found = list(senses.heard(track, Rows(tone), edges, np.array([0, 0, 0, 1, 1]), range(5)))
    assert [s for s, _ in found] == [0, 1]
    for _, loud in found:
        # Mean square 0.125 is -9 dB; half of it is at the positive frequency.
        assert loud.shape == (6,) and abs(loud[1] - 10 * math.log10(0.125 / 2)) < 0.1
        assert loud[0] < -60 and loud[2] < -60 and np.allclose(loud[3:], -100, atol=1e-3)


@given(st.integers(1, 40), st.integers(1, 40))
def test_area_weights_keep_the_mean(size: int, small: int) -> None:
    weights = senses.area_weights(size, small)
    assert np.allclose(weights.sum(1), 1, atol=1e-5) and np.allclose(weights.sum(0), small / size, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 9999))
def test_all_components_give_everything_back(n: int, features: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, features)).astype(np.float32) * 50
    mean, basis, variance = components(rows, 64)
    assert np.allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-4)
    assert np.allclose((rows - mean) @ basis.T @ basis + mean, rows, atol=1e-2)
    assert (np.diff(variance) <= 1e-6 * variance[0]).all() and np.isclose(variance.sum(), rows.var(0).sum(), rtol=1e-3)


def test_components_are_the_best_there_are() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 200)) + 0.1 * rng.normal(size=(60, 200))).astype(np.float32)
    mean, basis, _ = components(rows, 3)
    left = ((rows - mean) - (rows - mean) @ basis.T @ basis) ** 2
    s = np.linalg.svd(rows - rows.mean(0), compute_uv=False)
    assert np.isclose(left.sum(), (s[3:] ** 2).sum(), rtol=1e-4)


def test_frames_undo_vectors(home: Store, space: ObservationSpace) -> None:
    full = ObservationSpace.fit(
        (home.read(i) for i in home.episodes), home.vocabulary, Layout(step_s=0.1), ObservationConfig(lines=16)
    )
    seen = full.vectors(home.read("film-01"), pictures=True)
    assert np.abs(full.frames(seen.values).astype(int) - seen.pictures["video"]).max() <= 1
    assert np.array_equal(full.frames(seen.values[:, full.slices["video"]], "video"), full.frames(seen.values))
    # Errors of vectors are errors of pixels: the scale is one number.
    part = full.track("video")
    moved = seen.values + np.where(full.of_track == full.names.index("video"), 0.01, 0).astype(np.float32)
    pixel = ((full.pictured(moved, "video") - full.pictured(seen.values, "video")) ** 2).sum((1, 2, 3))
    assert np.allclose(pixel, part.width * (0.01 * part.scale[0]) ** 2, rtol=1e-2)
    with pytest.raises(OptionError, match="is no video"):
        space.frames(seen.values, "proprio")
    with pytest.raises(OptionError, match="is not among the observations"):
        space.frames(seen.values, "video.none")


def test_a_space_is_kept_as_arrays(home: Store, space: ObservationSpace) -> None:
    arrays, facts = space.to_arrays()
    again = ObservationSpace.from_arrays(arrays, facts, home.vocabulary, space.layout)
    stream = home.read("film-01")
    assert np.array_equal(again.vectors(stream).values, space.vectors(stream).values)
    with pytest.raises(InputError, match="format 7 is not known"):
        ObservationSpace.from_arrays(arrays, {**facts, "format": 7}, home.vocabulary, space.layout)


@pytest.mark.parametrize("lone_first", [True, False])
def test_tracks_of_one_name_and_other_channels(home: Store, lone_first: bool) -> None:
    """Sound in stereo here and in mono there: what there is most of is observed, whichever comes first."""
    film = home.read("film-01")
    rate, channels = 16_000, len(film.tracks["audio"].channels)
    noise = np.random.default_rng(0).integers(-3000, 3000, (rate // 4, 3 - channels)).astype(np.int16)
    heard = Track.of_array("audio", noise, Clock.regular(rate, len(noise)), channels=tuple("ab"[: 3 - channels]))
    lone = load(home.vocabulary.states["audio"]).encode(heard)
    other = TokenStream("other", {"audio": lone}, home.vocabulary.id)
    streams = [other, film] if lone_first else [film, other]
    found = ObservationSpace.fit(streams, home.vocabulary, Layout(step_s=0.1))
    assert found.track("audio").fits(film.tracks["audio"]) and not found.track("audio").fits(lone)
    alone = ObservationSpace.fit([film], home.vocabulary, Layout(step_s=0.1))
    np.testing.assert_array_equal(found.vectors(film).values, alone.vectors(film).values)
    assert not found.vectors(other).present.any()


def test_nothing_to_observe(home: Store) -> None:
    stream = home.read("film-01", tracks=("text",))
    with pytest.raises(InputError, match="no episode has a track that can be observed"):
        ObservationSpace.fit([stream], home.vocabulary)


@given(st.integers(2, 9), st.lists(st.integers(0, 20), max_size=12))
def test_a_thinned_sequence_is_even_however_it_comes(most: int, parts: list[int]) -> None:
    whole, pieces = Thinned(most), Thinned(most)
    rows = np.arange(sum(parts), dtype=np.float32)[:, None]
    whole.add(rows)
    at = 0
    for n in parts:
        pieces.add(rows[at : at + n])
        at += n
    assert np.array_equal(whole.rows(), pieces.rows())
    kept = whole.rows().ravel()
    assert len(kept) <= most and len(set(np.diff(kept).tolist())) <= 1
    if len(rows):
        assert kept[0] == 0 and 2 * len(kept) >= min(len(rows), most)


# ---------------------------------------------------------------------- baselines
@pytest.mark.parametrize("ahead", [False, True])
def test_the_ridge_without_penalty_is_least_squares(ahead: bool) -> None:
    space = pendulum_space(ahead)
    train, test = pendulum_episodes()[:4], pendulum_episodes()[4:6]
    ridge = Ridge.fit(space, train, test, penalties=(0.0,))
    assert len(known_ahead(space)) == (2 if ahead else 0)
    x = np.concatenate([inputs_of(space, e) for e in train]).astype(np.float64)
    y = np.concatenate([e.values[1:] for e in train]).astype(np.float64)
    solution = np.linalg.lstsq(np.concatenate([x, np.ones((len(x), 1))], 1), y, rcond=1e-10)[0]
    part = space.slices["proprio"]
    for episode in test:
        new = inputs_of(space, episode).astype(np.float64)
        expected = np.concatenate([new, np.ones((len(new), 1))], 1) @ solution
        assert np.allclose(ridge.predict(episode)[:, part], expected[:, part], atol=2e-3)


def test_the_ridge_beats_copy_last_and_is_kept_as_arrays() -> None:
    space = pendulum_space()
    episodes = pendulum_episodes()
    ridge = Ridge.fit(space, episodes[:3], episodes[3:4])
    report = score(space, {"copy": CopyLast(space), "ridge": ridge}, episodes[4:])
    assert report["ridge"]["proprio"].nmse < 0.5 * report["copy"]["proprio"].nmse < 0.5
    assert "action" not in report["ridge"]
    again = Ridge.from_arrays(*ridge.to_arrays(), space)
    assert np.array_equal(again.predict(episodes[0]), ridge.predict(episodes[0]))
    assert again.penalties == ridge.penalties


def test_where_nothing_can_be_foretold_nothing_changes() -> None:
    rng = np.random.default_rng(0)
    part = TrackSpace("proprio", "numeric", np.zeros(20, np.float32), np.ones(20, np.float32))
    space = ObservationSpace(ObservationConfig(), Layout(), Vocabulary.build({}), [part])
    walks = [
        Observations(
            str(i), rng.normal(size=(15, 20)).cumsum(0).astype(np.float32), np.ones((15, 1), bool), np.arange(15)
        )
        for i in range(4)
    ]
    ridge = Ridge.fit(space, walks[:2], walks[2:])
    assert ridge.penalties == {"proprio": math.inf}
    assert np.array_equal(ridge.predict(walks[3]), CopyLast(space).predict(walks[3]))
    with pytest.raises(InputError, match="no episode has two steps"):
        Ridge.fit(space, [], [])


def test_pictures_of_predictors(home: Store, space: ObservationSpace) -> None:
    episodes = [space.vectors(home.read(i), pictures=True) for i in home.episodes]
    ridge = Ridge.fit(space, episodes, episodes, least=1)
    assert Ridge.fit(space, episodes, episodes, least=10**6).penalties["video"] == math.inf
    report = score(space, {"copy": CopyLast(space), "ridge": ridge}, episodes)
    changes = [np.diff(e.pictures["video"].astype(float), axis=0)[e.present[1:, 0]] for e in episodes]
    assert space.names[0] == "video"
    squared = np.concatenate([c.ravel() for c in changes]) ** 2
    assert np.isclose(report["copy"]["video"].psnr_db, 10 * math.log10(255**2 / squared.mean()))
    assert report["ridge"]["video"].psnr_db > report["copy"]["video"].psnr_db
    assert ((ridge.carry["video"] >= 0) & (ridge.carry["video"] <= 1)).all()
    # What stays is foretold whole, also what the components leave out.
    still = replace(episodes[0], values=episodes[0].values[:1].repeat(2, 0), moved=None)
    copy = Ridge(space, np.zeros_like(ridge.weights), np.zeros_like(ridge.bias), {"video": np.float32(1)}, {})
    picture = episodes[0].pictures["video"][:1]
    assert np.allclose(copy.picture("video", copy.predict(still), still.values[:1], picture), picture, atol=1e-3)


def test_a_score_of_the_mean_is_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(3, 2, (100, 4))
    found = TrackScore()
    for part in np.split(truth, 5):
        found.add(truth.mean(0) - part, part)
    assert np.isclose(found.nmse, 1) and len(found.by_episode) == 5


@pytest.mark.parametrize("top", [200, 60_000, 1_000_000])
def test_xz_is_near_the_entropy_of_noise_and_finds_repeats(top: int) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, top, 4000)
    bits = xz_bits(noise)
    assert math.log2(top) < bits / len(noise) < 1.2 * math.log2(top) + 1.5
    assert xz_bits(np.tile(noise[:40], 100)) < 0.06 * bits


def test_clocks_of_other_rates() -> None:
    """Ticks of NTSC film: a step's ticks are counted by instants, not by rates."""
    clock = Clock.regular(Fraction(30_000, 1001), 90, start_ns=5_000)
    track = TrackTokens("video", "video", clock, 4, ())
    steps = StepGrid.of(TokenStream("x", {"video": track}, ""), Layout())
    begins = clock.times_ns[::4]
    assert steps.of_ticks(track).tolist() == [int((b - 5_000) // 200_000_000) for b in begins]
    assert steps.count == 15 and steps.times_ns[1] == 200_005_000


def test_a_span_of_steps_is_that_part_of_the_whole(store: Path) -> None:
    opened = Store.open(store)
    layout = Layout()
    space = ObservationSpace.fit((opened.read(n) for n in opened.episodes), opened.vocabulary, layout)
    for name in opened.episodes:
        stream = opened.read(name)
        whole = space.vectors(stream, pictures=True)
        for first, last in ((0, 1), (1, 3), (2, None), (3, 3), (0, 99)):
            part = space.vectors(stream, pictures=True, first=first, last=last)
            assert np.array_equal(part.values, whole.values[first:last]), (name, first, last)
            assert np.array_equal(part.present, whole.present[first:last])
            assert np.array_equal(part.times_ns, whole.times_ns[first:last])
            for track, pictures in part.pictures.items():
                assert np.array_equal(pictures, whole.pictures[track][first:last])
    only = space.vectors(stream, only=())
    assert not only.values.any() and len(only.values) == len(whole.values)
