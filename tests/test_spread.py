"""What is learned from of too much: bounded, spread evenly, and in step with no rhythm of the recordings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pantok import pixels
from pantok.experience import Block, Clock, Track
from pantok.formats import container_video
from pantok.formats.container import read_container
from pantok.tokenizers.audio_sample import listened
from pantok.tokenizers.numeric_sample import Sample, sampled
from pantok.tokenizers.spread import some, survives
from pantok.tokenizers.video_fit import sample_runs


@given(first=st.integers(0, 10**6), halvings=st.integers(0, 8))
def test_of_each_stretch_one_survives(first: int, halvings: int) -> None:
    size = 1 << halvings
    stretch = range(first * size, (first + 1) * size)
    left = [number for number in stretch if survives(number, halvings)]
    assert len(left) == 1
    assert all(survives(left[0], fewer) for fewer in range(halvings))


@pytest.mark.parametrize("rhythm", [2, 3, 8, 26])
def test_what_survives_is_of_every_beat(rhythm: int) -> None:
    beats = np.bincount([n % rhythm for n in range(40_000) if survives(n, 4)], minlength=rhythm)
    assert beats.sum() == 2500 and beats.min() > 0.7 * 2500 / rhythm and beats.max() < 1.3 * 2500 / rhythm


@example(189, 39)
@given(st.integers(0, 300), st.integers(1, 40))
def test_some_are_in_order_and_from_everywhere(count: int, most: int) -> None:
    chosen = some(range(count), most)
    assert len(chosen) == min(count, most) and chosen == sorted(set(chosen))
    if count > most:
        assert all(k * count // most <= n < -(-(k + 1) * count // most) for k, n in enumerate(chosen))


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.integers(1, 60), min_size=1, max_size=12), most=st.integers(1, 300))
def test_a_sample_of_rows_is_bounded_and_in_order(rows: list[int], most: int) -> None:
    sample, start = Sample(10, most), 0
    for count in rows:
        sample.add(Track("proprio", lambda: iter(())), np.arange(start, start + count)[:, None])
        start += count
    kept = [track.read()[0][:, 0] for track in sample.tracks()]
    numbers = np.concatenate(kept)
    assert (np.diff(numbers) > 0).all() and all((np.diff(part) == 1).all() for part in kept)
    assert len(numbers) <= max(most, 10)
    if start <= most:
        assert len(numbers) == start and len(kept) == len(rows), "recordings that fit are kept whole"


def test_of_many_short_episodes_numbers_are_learned_from_all_over_them() -> None:
    """The first rows of each would be at rest."""
    tracks = [
        Track.of_array("proprio", np.full((250, 2), k, float) + np.arange(250)[:, None] / 1000, Clock.regular(50, 250))
        for k in range(200)
    ]
    seen: list[int] = []
    learned, judged = sampled(tracks, 50, 8000, lambda share: None, lambda track, values: seen.append(len(values)))
    assert seen == [250] * 200, "of what a range is taken"
    for kept, most in ((learned, 8000), (judged, 2000)):
        values = [track.read()[0] for track in kept]
        assert most / 4 < sum(v.size for v in values) <= most
        episodes = {int(v[0, 0]) for v in values}
        assert len(episodes) == len(kept) and min(episodes) < 40 and max(episodes) > 160
    assert {len(track.read()[0]) for track in learned} == {200}


def test_of_a_table_of_thousands_of_columns_no_more_is_learned_from() -> None:
    """Four ticks of it were more than there is room for, and were taken all the same."""
    wide = Track.of_array("proprio", np.zeros((400, 900), np.float32), Clock.regular(50, 400))
    for kept, most in zip(sampled([wide], 50, 8000, lambda share: None), (8000, 2000), strict=True):
        assert most / 8 < sum(track.read()[0].size for track in kept) <= most


def counted(tracks: list[Track], read: list[int]) -> list[Track]:
    """The same, that write down which of them were opened."""

    def opener(place: int, track: Track) -> Track:
        def blocks() -> object:
            read.append(place)
            return track.open()

        return Track(track.name, blocks, track.clock, track.rate, track.channels, (), track.info)  # type: ignore[arg-type]

    return [opener(place, track) for place, track in enumerate(tracks)]


def test_of_many_films_as_many_are_read_as_there_is_room_for_twice() -> None:
    frame = pixels.frame_bytes(32, 32)
    film = Track(
        "video",
        lambda: iter([Block(np.zeros((24, frame), np.uint8))]),
        None,
        Fraction(25),
        info={"height": 32, "width": 32},
    )
    read: list[int] = []
    runs = sample_runs(counted([film] * 300, read), 20 * 24 * frame, lambda what, share: None)
    assert len(read) == 40 and read == sorted(read) and max(read) > 280 and 10 <= len(runs) <= 20


def test_of_more_sounds_than_segments_some_are_heard() -> None:
    rng = np.random.default_rng(0)
    sounds = [rng.normal(0, 0.1, (5 * 8000, 1)).astype(np.float32) * (k % 2) for k in range(60)]
    tracks = [Track.of_array("audio", s, Clock.regular(8000, len(s)), channels=("c0",)) for s in sounds]
    read: list[int] = []
    samples = listened(counted(tracks, read), 40.0)
    assert len(samples) == 10, "ten segments of four seconds, none of them silent"
    assert len(read) < 40 and len(set(read)) == len(read)


def test_long_films_are_looked_into_and_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film whose pictures say where they stand, by a bar of sixteen parts."""
    path, count = tmp_path / "film.mp4", 2000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"g": "50", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for number in range(count):
            picture = np.full((32, 64, 3), 16, np.uint8)
            picture[:, : 4 * (1 + 16 * number // count)] = 235
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    copied: list[int] = []
    copy = container_video.copy_frame
    monkeypatch.setattr(container_video, "copy_frame", lambda *args: copied.append(1) or copy(*args))
    (track,) = read_container(path)
    assert track.told_s == pytest.approx(80)
    frame = pixels.frame_bytes(32, 64)
    runs = sample_runs([track], 24 * 2 * frame, lambda what, share: None)
    assert len(copied) < count / 8 and len(runs) == 2
    copied.clear()
    places = {
        int((block.values[0, :64] > 128).sum()) // 4
        for share in (0.1, 0.4, 0.7, 0.95)
        for block in [next(track.glance(share))]  # type: ignore[misc]
    }
    assert len(places) == 4 and max(places) - min(places) > 10
    whole = sample_runs([track], 24 * count * frame, lambda what, share: None)
    assert sum(len(ticks) for run in whole for ticks in run.ticks) == count, "what there is room for is read through"
