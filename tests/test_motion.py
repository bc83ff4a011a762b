"""What moves is carried on, until the next picture; the ridge that starts there, and runs from before there was one."""

from __future__ import annotations

import copy
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from pantok.experience import Clock
from pantok.formats.store import Store
from pantok.layout import Layout
from pantok.stream import TokenStream, TrackTokens
from pantok.vocabulary import Vocabulary
from pantok.world_model.baselines import CopyLast, inputs_of, score
from pantok.world_model.components import components
from pantok.world_model.grounded import GroundedHead, GroundedPredictor, Table
from pantok.world_model.grounding import Grounding
from pantok.world_model.motion import carried
from pantok.world_model.observations import ObservationConfig, Observations, ObservationSpace, TrackSpace
from pantok.world_model.ridge import Ridge, ridges
from pantok.world_model.step_grid import StepGrid

LINES, COLUMNS = 16, 20
STEP_NS = 200_000_000


def scene(seed: int, lines: int, columns: int) -> np.ndarray:
    """float64 (lines, columns, 3): grey levels, smooth enough to be read between pixels."""
    rough = np.random.default_rng(seed).normal(size=(lines, columns, 3))
    for axis in (0, 1):
        rough = sum(np.roll(rough, k, axis) for k in range(-2, 3))
    return 120 + 45 * rough / rough.std()


def between(picture: np.ndarray, y: float, x: float, lines: int, columns: int) -> np.ndarray:
    """The part of a picture that begins at (y, x), between pixels."""
    top, left = int(y), int(x)
    part = picture[top : top + lines + 1, left : left + columns + 1]
    part = part[:-1] + (y - top) * np.diff(part, axis=0)
    return part[:, :-1] + (x - left) * np.diff(part, axis=1)


# ---------------------------------------------------------------------- the picture
def test_a_square_that_moves_is_found_and_carried_on() -> None:
    ground, square = scene(1, 32, 56), scene(2, 18, 18)

    def shot(frame: int) -> np.ndarray:
        picture = ground.copy()
        picture[7 : 7 + 18, 4 + frame : 4 + frame + 18] = square  # a pixel a frame to the right
        return picture.clip(0, 255)

    before, last, truth = shot(6), shot(7), shot(11)
    found = carried(before, last, 4)
    assert found.dtype == np.float32 and found.shape == (32, 56, 3)
    inside = np.s_[12:20, 20:28]  # of the square, where it will be
    assert np.abs(found - truth)[inside].mean() < 6 < 30 < np.abs(last - truth)[inside].mean()
    # What does not move stays, and what was covered is shown by no hypothesis.
    still = np.ones((32, 56), bool)
    still[3:29, 5:44] = False
    assert np.abs(found - truth)[still].mean() < 6
    # Further off: the same motion, carried on for longer.
    later = carried(before, last, 6)
    assert np.abs(later - shot(13))[12:20, 22:30].mean() < 8
    assert np.array_equal(found, carried(before.astype(np.float32), last, 4))


def test_what_stands_still_stays_and_what_is_new_is_a_blur() -> None:
    picture = scene(3, 24, 30).clip(0, 255)
    assert np.abs(carried(picture, picture, 4) - picture).mean() < 1
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert np.allclose(carried(flat, flat, 4), 77, atol=1e-3)
    # A cut says nothing of what moves: the mean over what is possible has less contrast than any picture.
    cut = carried(scene(4, 24, 30), picture, 4)
    assert np.isfinite(cut).all() and cut.std() < 0.8 * picture.std()
    one = np.full((1, 1, 3), 9, np.uint8)
    assert np.allclose(carried(one, one, 4), 9)


@pytest.mark.parametrize(
    ("rate", "ahead"),
    [
        (12, [4, 4, 4, 4, 4, 4]),  # ticks of a third of a second: one a step, or none
        (24, [8, 4, 4, 4, 4, 8, 8]),  # of a sixth: the next step has one, now and then two; of the first of two, both
        (60, [12, 8, 4, 12, 8, 4]),  # of a fifteenth: three a step
    ],
)
def test_how_far_the_next_picture_is(rate: int, ahead: list[int]) -> None:
    clock = Clock.regular(Fraction(rate), 4 * len(ahead))
    track = TrackTokens("video", "video", clock, 4, ())
    steps = StepGrid.of(TokenStream("x", {"video": track}, ""), Layout())
    found = steps.until_next(track)
    of = steps.of_ticks(track)
    last = np.append(of[1:] != of[:-1], True)
    if rate == 24:
        assert of.tolist() == [0, 0, 1, 2, 3, 4, 5]
        assert found[last].tolist() == [4, 4, 4, 4, 8, 4]
    else:
        assert found[last].tolist() == [12 if rate == 60 else 4] * int(last.sum())
    # It is no news of the future: the same if the recording had ended.
    shorter = replace(track, clock=Clock.regular(Fraction(rate), 8))
    assert np.array_equal(steps.until_next(shorter), found[:2])
    loose = replace(track, clock=Clock.irregular(clock.times_ns + 1000 * (np.arange(clock.count) % 2)))
    assert set(steps.until_next(loose).tolist()) == {4}


# ---------------------------------------------------------------------- the ridge and the head
def filmed(number: int, onward: float) -> tuple[np.ndarray, np.ndarray]:
    """float64 (13, LINES, COLUMNS, 3), the last frames of steps, and as many, the frames before them: a camera that
    pans over a scene, each time another and another way. onward: -1, and each step goes the other way than its last
    two frames say."""
    large = scene(100 + number, 70, 74)
    speed = np.random.default_rng([number, 9]).uniform(-2, 2, 2)  # pixels a step of four frames
    places = [np.array([26.0, 26.0]) + speed * (k - onward * frame / 4) for frame in (0, 1) for k in range(13)]
    shots = np.stack([between(large, *place, LINES, COLUMNS) for place in places]).clip(0, 255)
    return shots[:13], shots[13:]


def episodes_of(onward: float = 1, count: int = 14) -> tuple[ObservationSpace, list[Observations]]:
    shots = [filmed(k, onward) for k in range(count)]
    mean, basis, variance = components(np.concatenate([s[0].reshape(13, -1) for s in shots[:7]]), 40)
    unit = np.full(len(basis), np.sqrt(variance.mean()), np.float32)
    part = TrackSpace("video", "video", 0 * unit, unit, basis, mean, (LINES, COLUMNS))
    space = ObservationSpace(ObservationConfig(lines=LINES), Layout(), Vocabulary.build({}), [part])
    found = []
    for number, (last, before) in enumerate(shots):
        onward = np.stack([carried(b, now, 4) for b, now in zip(before, last, strict=True)])
        values, on = (part.standard(p.reshape(13, -1).astype(np.float32)) for p in (last, onward))
        small, large = (np.rint(p).clip(0, 255).astype(np.uint8) for p in (last, onward))
        found.append(
            Observations(
                f"pan-{number}", values, np.ones((13, 1), bool), np.arange(13, dtype=np.int64) * STEP_NS,
                {"video": small}, on - values, {"video": large},
            )
        )  # fmt: skip
    return space, found


def test_of_film_that_moves_the_head_knows_more_than_the_ridge() -> None:
    torch.set_num_threads(1)
    space, episodes = episodes_of()
    train, valid, test = episodes[:7], episodes[7:10], episodes[10:]
    ridge, moving = ridges(space, train, valid)
    assert ridge.gains == {} and 0.6 < moving.gains["video"] <= 1
    assert len(ridge.weights) == 2 * space.width and len(moving.weights) == 3 * space.width == space.width * 2 + 40
    tables = [Table.of(space, e) for e in (train, valid)]
    head = GroundedHead.alone(space, moving, *tables)
    rivals = {
        "copy": CopyLast(space), "ridge": ridge, "moving": moving, "head": GroundedPredictor(head, moving),
    }  # fmt: skip
    found = {name: r["video"].psnr_db for name, r in score(space, rivals, test).items()}
    assert found["ridge"] >= found["copy"] - 0.1, found
    assert found["moving"] > found["ridge"] + 2 and found["head"] > found["ridge"] + 2, found
    # The ridge on two does not know that there is motion.
    blind = [replace(e, moved=0 * e.moved) for e in train], [replace(e, moved=0 * e.moved) for e in valid]
    assert np.array_equal(ridges(space, *blind)[0].weights, ridge.weights)
    again = Ridge.from_arrays(*moving.to_arrays(), space)
    assert np.array_equal(again.predict(test[0]), moving.predict(test[0])) and again.gains == moving.gains
    # What a table gives is what it is fitted on: the last inputs are what pictures move by.
    inputs = tables[0].batch(tables[0].all_rows)[0].numpy()
    assert np.array_equal(inputs, np.concatenate([inputs_of(space, e) for e in train]))
    assert np.array_equal(inputs[:12, -40:], train[0].moved[:-1])


def test_where_motion_does_not_pay_there_is_none() -> None:
    space, episodes = episodes_of(onward=-1, count=8)
    ridge, moving = ridges(space, episodes[:4], episodes[4:])
    assert moving.gains == {"video": 0.0} and not moving.weights[2 * space.width :].any()
    assert np.array_equal(moving.weights[: 2 * space.width], ridge.weights)
    assert np.allclose(moving.predict(episodes[5]), ridge.predict(episodes[5]), atol=1e-6)
    few = ridges(space, *[episodes_of(count=4)[1][:3]] * 2, least=10**6)[1]
    assert few.gains == {"video": 0.0}


# ---------------------------------------------------------------------- runs from before
def test_a_run_from_before_there_was_motion_is_read(store: Path) -> None:
    opened = Store.open(store)

    def streams():
        return iter([opened.read("film-01")])

    space = ObservationSpace.fit(streams(), opened.vocabulary, config=ObservationConfig(motion=False, dims=12))
    arrays, facts = space.to_arrays()
    old = copy.deepcopy(dict(facts)) | {"format": 1}
    del old["config"]["motion"]
    read = ObservationSpace.from_arrays(arrays, old, opened.vocabulary, space.layout)
    assert not read.config.motion and read.moved_width == 0 and read.moves == {}
    stream = opened.read("film-01")
    seen = read.vectors(stream, pictures=True)
    assert seen.moved is not None and seen.moved.shape[1] == 0 and not seen.carried
    # Its ridge and head had no more inputs; what was kept of them has no gains and no second ridge.
    ridge = Ridge.fit(read, [seen], [seen], least=1)
    head = GroundedHead(read, ridge, 0)
    kept = {f"space/{k}": v for k, v in arrays.items()} | {f"ridge/{k}": v for k, v in ridge.to_arrays()[0].items()}
    kept |= {f"alone/{k}": v.detach().numpy() for k, v in head.state_dict().items()}
    facts_then = {"space": old, "ridge": {"penalties": ridge.to_arrays()[1]["penalties"]}}
    run = Grounding.from_arrays(
        {**kept, "spread": np.ones(read.width, np.float32)}, facts_then, opened.vocabulary, space.layout
    )
    assert run.moving is run.ridge and run.ridge.gains == {}
    inputs = torch.from_numpy(inputs_of(run.space, seen))
    assert np.allclose(run.alone(None, inputs).detach().numpy(), ridge.predict(seen), atol=1e-5)
    # And one of today comes back as it was, motion and all.
    made = Grounding.fit(streams, streams, opened.vocabulary, Layout())
    back = Grounding.from_arrays(*made.to_arrays(), opened.vocabulary, Layout())
    assert back.space.config.motion and back.moving.gains == made.moving.gains
    today = back.space.vectors(stream)
    assert np.array_equal(back.moving.predict(today), made.moving.predict(today))
