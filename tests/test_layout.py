"""Layouts: a sequence gives back its codes, any part of it is that slice of the whole, the order is what was asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.encode import Codec
from pantok.errors import OptionError, TokenError
from pantok.formats.store import Store
from pantok.layout import KINDS, PRESETS, Arranged, Layout, arrange, restore
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from tests.layout_reference import sequence
from tests.store_streams import a_stream, a_vocabulary

VOCABULARY = a_vocabulary()
LAYOUTS = {
    **{name: Layout.preset(name) for name in PRESETS},
    "latents": Layout(latents=True, step_s=1.0),
    "bare": Layout(marks=False, latents=True, step_s=0.5),
    "needed": Layout(marks="needed", latents=True, step_s=2.0),
    "few": Layout(max_ids={"video": 7, "proprio.arm/ä %": 3}, levels={"video": "coarse", "text": 1}, marks="needed"),
    "tight": Layout(step_ids=5, step_s=0.5, marks=True, latents=True, first=("text*",)),
    "tight, bare": Layout(step_ids=11, step_s=0.7, marks=False, drop=("audio*",)),
}
COLUMNS = ("ids", "kind", "level", "track", "role", "time_ns")


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=15, deadline=None)
@given(number=st.integers(0, 30), ticks=st.integers(0, 20))
def test_a_sequence_is_what_the_grammar_says_and_gives_back_its_codes(name: str, number: int, ticks: int) -> None:
    layout, stream = LAYOUTS[name], a_stream(number, VOCABULARY, ticks)
    found, expected = arrange(stream, layout, VOCABULARY), sequence(stream, layout, VOCABULARY)
    assert len(found) == len(expected) == len(Arranged(stream, layout, VOCABULARY))
    for column in COLUMNS:
        said = [getattr(place, column.removesuffix("s") if column == "ids" else column) for place in expected]
        assert getattr(found, column).tolist() == said, column
    # Restoring must not look at codes; nor at counts, where there are marks.
    blank = {n: t.with_levels(0) if layout.marks != "none" else blanked(t, layout) for n, t in stream.tracks.items()}
    like = TokenStream(stream.id, blank, stream.vocabulary_id)
    again = restore(found.ids, like, layout, VOCABULARY)
    assert list(again.tracks) == [n for n, t in stream.tracks.items() if layout.keeps(n) and t.ticks]
    codes = [place.code for place in expected if place.code is not None]
    restored = [
        (n, tick, k, code)
        for n, track in again.tracks.items()
        for tick in range(track.ticks)
        for k, level in enumerate(track.levels)
        for code in level.of_tick(tick).tolist()
    ]
    assert sorted(restored) == sorted(codes)
    for n, track in again.tracks.items():
        assert [lv.codes.dtype for lv in track.levels] == [lv.codes.dtype for lv in stream.tracks[n].levels]
        # What is kept of a tick is the beginning of what it had, coarse first: it decodes.
        for tick in range(track.ticks):
            had = [c for lv in stream.tracks[n].levels for c in lv.of_tick(tick).tolist()]
            has = [c for lv in track.levels for c in lv.of_tick(tick).tolist()]
            assert has == had[: len(has)]


def blanked(track: TrackTokens, layout: Layout) -> TrackTokens:
    levels = tuple(LevelCodes(np.zeros_like(level.codes), level.splits) for level in track.levels)
    return replace(track, levels=levels)


@pytest.mark.parametrize("step_ids", [2, 3, 8, 50])
def test_a_step_has_no_more_ids_than_it_may(step_ids: int) -> None:
    layout = Layout(step_ids=step_ids, step_s=0.5)
    ids = arrange(a_stream(1, VOCABULARY, 40), layout, VOCABULARY).ids
    steps = np.diff(np.flatnonzero(np.isin(ids, [VOCABULARY.control("tick"), VOCABULARY.control("eos")])))
    assert steps.max() == step_ids and len(steps) > 20


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 8), data=st.data())
def test_any_part_is_that_slice_of_the_whole(number: int, data: st.DataObject) -> None:
    layout = LAYOUTS[data.draw(st.sampled_from([*LAYOUTS]))]
    spacing = data.draw(st.sampled_from([1, 40, 4096]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pantok.layout._SPACING", spacing)
        arranged = Arranged(a_stream(number, VOCABULARY), layout, VOCABULARY)
    whole = arranged.cut()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    part = arranged.cut(start, stop)
    for column in COLUMNS:
        assert np.array_equal(getattr(part, column), getattr(whole, column)[start:stop]), column
    latent = whole.kind == KINDS.index("latent")
    for k, name in enumerate(whole.tracks):
        if name in whole.latents:
            mine = latent & (whole.track == k)
            rows = whole.latents[name][mine[:start].sum() : mine[:stop].sum()]
            assert np.array_equal(part.latents.get(name, rows[:0]), rows)


def test_order_within_a_step_and_of_levels() -> None:
    stream = a_stream(1, VOCABULARY)
    sequence = arrange(stream, Layout(step_s=0.5), VOCABULARY)
    places = [Layout().place(name) for name in sequence.tracks]
    assert places == sorted(places)
    ticks = np.flatnonzero(sequence.ids == VOCABULARY.control("tick"))
    for begin, end in zip(ticks, [*ticks[1:], len(sequence) - 1], strict=True):
        inside = sequence.track[begin + 1 : end].astype(int)
        assert (np.diff(inside) >= 0).all()
        times = sequence.time_ns[begin:end]
        first = sequence.time_ns.min()
        assert ((times - first) // 500_000_000 == (times[0] - first) // 500_000_000).all()
    begins = np.isin(sequence.ids, [VOCABULARY.control(f"{m}_begin") for m in ("video", "audio", "numeric", "text")])
    unit = np.cumsum(begins)
    coded = np.isin(sequence.kind, [KINDS.index(k) for k in ("code", "mode", "digit", "text")])
    same = unit[coded][1:] == unit[coded][:-1]
    assert (np.diff(sequence.level[coded].astype(int))[same] >= 0).all(), "coarse first within a unit"


def test_text_first_stands_before_everything() -> None:
    sequence = arrange(a_stream(0, VOCABULARY), Layout.preset("text-first"), VOCABULARY)
    is_text = np.flatnonzero(sequence.kind == KINDS.index("text"))
    others = np.flatnonzero(np.isin(sequence.kind, [KINDS.index(k) for k in ("code", "mode", "digit")]))
    assert len(is_text) and is_text.max() < others.min()


def test_ids_are_what_the_vocabulary_says() -> None:
    stream = a_stream(3, VOCABULARY, 1)
    sequence = arrange(stream, Layout(tracks=("video*",)), VOCABULARY)
    video = stream.tracks["video.front"]
    expected = [VOCABULARY.control("bos"), VOCABULARY.control("tick"), VOCABULARY.control("video_begin")]
    for k, level in enumerate(video.levels):
        expected += VOCABULARY.ids("video", k, level.codes).tolist()
    assert sequence.ids.tolist() == [*expected, VOCABULARY.control("eos")]


def test_layouts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "video-only"\nstep_s = 0.5\n[levels]\nvideo = 2\n')
    layout = Layout.of(path)
    assert layout == Layout(tracks=("video*",), step_s=0.5, levels={"video": 2})
    for text, told in (("steps = 3", "steps"), ("step_s = 0", "step_s"), ("tracks = []", "no track"), ("[", "read")):
        path.write_text(text)
        with pytest.raises(OptionError, match=told):
            Layout.of(path)
    with pytest.raises(OptionError, match="no preset"):
        Layout.of("defualt")


def test_what_is_no_whole_sequence_is_refused() -> None:
    stream = a_stream(2, VOCABULARY)
    sequence = arrange(stream, Layout(), VOCABULARY)
    with pytest.raises(TokenError, match="units"):
        restore(sequence.ids[: len(sequence) // 2], stream, Layout(), VOCABULARY)


@pytest.mark.parametrize("preset", ["coarse", "sketch"])
def test_what_a_preset_keeps_shows_the_picture(store: Path, preset: str) -> None:
    """A part of the ids, from which every modality decodes to its whole length, and video to a picture."""
    opened = Store.open(store)
    codec = Codec(opened.vocabulary)
    layout = Layout.preset(preset)
    for episode in opened.episodes:
        stream = opened.read(episode)
        ids = arrange(stream, layout, opened.vocabulary).ids
        for name, track in restore(ids, stream, layout, opened.vocabulary).tracks.items():
            blocks = [block.values for block in codec.decode(track)]
            assert sum(map(len, blocks)) == track.clock.count
            if track.modality == "video":
                whole = np.concatenate([block.values for block in codec.decode(stream.tracks[name])]).astype(float)
                few, all_of_them = (sum(len(lv.codes) for lv in t.levels) for t in (track, stream.tracks[name]))
                assert few < all_of_them
                assert np.mean((np.concatenate(blocks) - whole) ** 2) < np.var(whole) / 2
