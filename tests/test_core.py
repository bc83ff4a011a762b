"""Clocks, pixels, configurations, streams and the vocabulary: laws and worked examples."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantok import pixels
from pantok.config import from_mapping, to_mapping
from pantok.errors import OptionError, TokenError, VocabularyError
from pantok.experience import NS, Clock, Track
from pantok.stream import LevelCodes, TrackTokens, smallest_dtype
from pantok.vocabulary import CONTROL, DIGITS, Level, TokenizerState, Vocabulary, merge

rates = st.fractions(min_value=Fraction(1, 60), max_value=200_000, max_denominator=1001)


@given(rate=rates, start=st.integers(-(10**15), 10**18), seconds=st.integers(0, 10**9))
def test_regular_clock_is_the_exact_instant_rounded_once(rate: Fraction, start: int, seconds: int) -> None:
    index = int(seconds * rate)
    exact = Fraction(index) / rate * NS
    got = int(Clock.regular(rate, index + 1, start).at(np.array(index)))
    assert abs(got - start - exact) <= Fraction(1, 2)


def test_a_day_of_ntsc_frames_does_not_drift() -> None:
    frames = 24 * 3600 * 30000 // 1001
    clock = Clock.regular(Fraction(30000, 1001), frames + 1)
    assert int(clock.at(np.array(frames // 30000 * 30000))) == frames // 30000 * 1001 * NS


@given(rate=rates, count=st.integers(1, 200), lo=st.integers(0, 250), hi=st.integers(0, 250))
def test_span_selects_what_lies_inside(rate: Fraction, count: int, lo: int, hi: int) -> None:
    clock = Clock.regular(rate, count, 17)
    start, end = (int(Fraction(v) / rate * NS) for v in (lo, hi))
    first, last = clock.span(start, end)
    inside = (clock.times_ns >= start) & (clock.times_ns < end)
    assert np.flatnonzero(inside).tolist() == list(range(first, last))


def test_clock_of_times_is_regular_only_if_it_is() -> None:
    regular = Clock.regular(Fraction(25), 10, 3)
    assert Clock.of_times(regular.times_ns, Fraction(25)).rate == 25
    bent = regular.times_ns.copy()
    bent[5] += 1000
    assert Clock.of_times(bent, Fraction(25)).rate is None


def test_track_blocks_cut_as_asked() -> None:
    track = Track.of_array("proprio.arm", np.arange(10)[:, None], Clock.irregular(np.arange(10) * 7))
    blocks = list(track.blocks(4))
    assert [len(b) for b in blocks] == [4, 4, 2]
    assert np.concatenate([b.times_ns for b in blocks]).tolist() == (np.arange(10) * 7).tolist()
    assert track.modality == "numeric"
    assert track.kind == "proprio"


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_yuv_and_rgb_agree_on_flat_colours(matrix: str, full: bool, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (20, 1, 1, 3), np.uint8)
    rgb = np.broadcast_to(colours, (20, *size, 3))
    frames = pixels.from_rgb(rgb, matrix, full)
    assert frames.shape == (20, pixels.frame_bytes(*size))
    back = pixels.to_rgb(frames, *size, matrix, full)
    assert np.abs(back.astype(int) - rgb).max() <= 3
    assert np.array_equal(pixels.pack(*pixels.planes(frames, *size)), frames)


def test_yuv_of_known_colours() -> None:
    """Studio-range BT.601: white is (235, 128, 128), pure red is (81, 90, 240), as in the standard's tables."""
    for colour, yuv in (((255, 255, 255), (235, 128, 128)), ((255, 0, 0), (81, 90, 240)), ((0, 0, 0), (16, 128, 128))):
        frame = pixels.from_rgb(np.full((1, 2, 2, 3), colour, np.uint8))
        assert (int(frame[0, 0]), int(frame[0, 4]), int(frame[0, 5])) == yuv


@dataclass(frozen=True, kw_only=True)
class Settings:
    size: int = 1
    quality: float = 0.5
    fps: Fraction | None = None
    bands: tuple[int, ...] = ()


def test_configuration_takes_what_fits_and_names_what_does_not() -> None:
    got = from_mapping(Settings, {"size": 2, "quality": 1, "fps": "30000/1001", "bands": [1, 2]})
    assert got == Settings(size=2, quality=1.0, fps=Fraction(30000, 1001), bands=(1, 2))
    assert from_mapping(Settings, to_mapping(got)) == got
    with pytest.raises(OptionError, match="did you mean quality"):
        from_mapping(Settings, {"qualty": 1})
    for wrong in ({"size": "big"}, {"size": True}, {"fps": "x"}, {"bands": 3}, {"quality": [1]}):
        with pytest.raises(OptionError):
            from_mapping(Settings, wrong)


def tokens(codes: list[int], splits: list[int], count: int = 2) -> TrackTokens:
    level = LevelCodes(np.array(codes, np.uint8), np.array(splits, np.int64))
    return TrackTokens("audio", "audio", Clock.regular(10, count), 1, (level,))


def test_wrong_codes_are_named() -> None:
    tokens([1, 2, 3], [0, 1, 3]).check((4,))
    with pytest.raises(TokenError, match="level 0 position 2: code 9"):
        tokens([1, 2, 9], [0, 1, 3]).check((4,))
    with pytest.raises(TokenError, match="2 ticks"):
        tokens([1, 2, 3], [0, 1, 3], count=5).check((4,))
    with pytest.raises(TokenError, match="levels"):
        tokens([], [0, 0, 0]).check((4, 4))
    assert tokens([1, 2, 3], [0, 1, 3]).with_levels(0).levels[0].splits.tolist() == [0, 0, 0]


def test_smallest_dtype_keeps_one_value_free() -> None:
    assert [smallest_dtype(k) for k in (255, 256, 65535, 65536)] == [np.uint8, np.uint16, np.uint16, np.uint32]


def state(modality: str, *cardinalities: int, seed: int = 0) -> TokenizerState:
    rng = np.random.default_rng(seed)
    levels = tuple(Level(f"l{i}", k) for i, k in enumerate(cardinalities))
    return TokenizerState(modality, {"seed": seed}, levels, {"book": rng.normal(size=(4, 2)).astype(np.float32)})


def text_state(size: int) -> TokenizerState:
    return TokenizerState("text", {}, (Level("text", size, "text"),), {}, {"model": b"x"})


def test_ids_are_disjoint_complete_and_invertible() -> None:
    v = Vocabulary.build({"audio": state("audio", 256, 16), "video": state("video", 1024), "text": text_state(500)})
    seen = np.concatenate([v.table(m, k) for m in v.states for k in range(len(v.levels(m)))])
    rest = len(CONTROL) + DIGITS
    assert len(set(seen.tolist())) == len(seen) == v.size - rest
    for modality in v.states:
        for level, spec in enumerate(v.levels(modality)):
            for code in (0, spec.cardinality - 1):
                number = int(v.ids(modality, level, np.array([code]))[0])
                assert v.locate(number) == (modality, level, code)
    assert v.ids("text", 0, np.array([7])).tolist() == [7], "text ids stay as they are"
    with pytest.raises(TokenError):
        v.locate(v.size)
    with pytest.raises(TokenError, match="code 16"):
        v.ids("audio", 1, np.array([3, 16]))


def test_a_vocabulary_grows_at_its_end_and_reads_what_it_read() -> None:
    small = Vocabulary.build({"text": text_state(500), "audio": state("audio", 256)})
    large = small.with_state(state("video", 1024))
    assert large.reads(small)
    assert not small.reads(large)
    assert large.id != small.id
    assert large.extents[: len(small.extents)] == small.extents
    assert large.with_state(state("video", 1024)) is large
    with pytest.raises(VocabularyError, match="already has a tokenizer for video"):
        large.with_state(state("video", 1024, seed=1))
    with pytest.raises(VocabularyError, match="has no tokenizer for numeric"):
        large.levels("numeric")


def test_the_vocabulary_id_is_of_content() -> None:
    build = lambda seed: Vocabulary.build({"audio": state("audio", 256, seed=seed)})  # noqa: E731
    assert build(0).id == build(0).id != build(1).id


def test_merge_extends_the_first_and_renumbers_only_for_text() -> None:
    home = Vocabulary.build({"audio": state("audio", 256)})
    lab = Vocabulary.build({"video": state("video", 1024), "audio": state("audio", 256)})
    both = merge([home, lab])
    assert both.reads(home)
    assert both.decodes(lab)
    assert set(both.states) == {"audio", "video"}
    worded = merge([home, lab], text_state(100))
    assert worded.table("text", 0).tolist() == list(range(100))
    assert not worded.reads(home)
    assert worded.decodes(home)
    other = Vocabulary.build({"audio": state("audio", 256, seed=1)})
    with pytest.raises(VocabularyError, match="different tokenizers for audio"):
        merge([home, other])
