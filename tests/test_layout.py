"""Layouts: a sequence gives back its codes, any part of it is that slice of the whole, the order is what was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError, TokenError
from pantok.layout import KINDS, PRESETS, Arranged, Layout, arrange, restore
from pantok.stream import TokenStream
from tests.store_streams import a_stream, a_vocabulary

VOCABULARY = a_vocabulary()
LAYOUTS = {**{name: Layout.preset(name) for name in PRESETS}, "latents": Layout(latents=True, step_s=1.0)}


def assert_same_codes(found: TokenStream, stream: TokenStream, layout: Layout) -> None:
    kept = [name for name in stream.tracks if layout.keeps(name) and stream.tracks[name].ticks]
    assert list(found.tracks) == kept
    for name in kept:
        track, mine = found.tracks[name], stream.tracks[name]
        for k, (a, b) in enumerate(zip(track.levels, mine.levels, strict=True)):
            expected = b if k < layout.depth(mine) else mine.with_levels(k).levels[k]
            assert np.array_equal(a.codes, expected.codes) and np.array_equal(a.splits, expected.splits)
            assert a.codes.dtype == b.codes.dtype


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(number=st.integers(0, 30), ticks=st.integers(0, 20))
def test_a_sequence_gives_back_its_codes(name: str, number: int, ticks: int) -> None:
    layout, stream = LAYOUTS[name], a_stream(number, VOCABULARY, ticks)
    sequence = arrange(stream, layout, VOCABULARY)
    assert len(sequence) == len(Arranged(stream, layout, VOCABULARY))
    assert sequence.ids[0] == VOCABULARY.control("bos") and sequence.ids[-1] == VOCABULARY.control("eos")
    empty = TokenStream(
        stream.id, {n: t.with_levels(0) for n, t in stream.tracks.items()}, stream.vocabulary_id
    )  # restoring must not look at codes
    assert_same_codes(restore(sequence.ids, empty, layout, VOCABULARY), stream, layout)


@settings(max_examples=60, deadline=None)
@given(number=st.integers(0, 8), data=st.data())
def test_any_part_is_that_slice_of_the_whole(number: int, data: st.DataObject) -> None:
    layout = LAYOUTS["latents"]
    arranged = Arranged(a_stream(number, VOCABULARY), layout, VOCABULARY)
    whole = arranged.cut()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    part = arranged.cut(start, stop)
    for column in ("ids", "kind", "level", "track", "time_ns"):
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
