"""Rates are what the codes say, quality is what the samples say, and nothing depends on how blocks are cut."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import InputError
from pantok.evaluate import Certificate, Other, aligned, evaluate, some_prefixes
from pantok.experience import Block, Clock, Track
from pantok.metrics.meters import NumericMeter
from pantok.rates import codebook_use, measured_samples, rates
from pantok.stream import Latents, LevelCodes, TrackTokens
from pantok.tokenizers.text import TextConfig, TextTokenizer
from pantok.vocabulary import Level


def two_levels(count: int = 40, tick: int = 4) -> TrackTokens:
    """Ten ticks at 20 samples a second: one of 3 codes each, then two of 16 codes in every other tick."""
    ticks = -(-count // tick)
    coarse = LevelCodes.of_counts(np.arange(ticks, dtype=np.uint8) % 2, np.ones(ticks, np.int64))
    fine = LevelCodes.of_counts(np.zeros(2 * (ticks // 2), np.uint8), np.array([0, 2] * (ticks // 2)))
    return TrackTokens(
        "audio.mic",
        "audio",
        Clock.regular(Fraction(20), count),
        tick,
        (coarse, fine),
        channels=("left", "right"),
        latents=Latents(np.zeros((ticks, 6), np.float16), np.arange(ticks + 1)),
    )


LEVELS = (Level("coarse", 3), Level("fine", 16))


def test_rates_worked_by_hand() -> None:
    rate = rates(two_levels(), LEVELS)
    coarse, fine = rate.levels
    assert rate.seconds == 2.0 and rate.samples == 40 and rate.values == 80
    assert (coarse.tokens, fine.tokens, rate.tokens) == (10, 10, 20)
    assert coarse.bits == pytest.approx(10 * math.log2(3)) and fine.bits == 40.0
    assert coarse.bits_per_second == pytest.approx(5 * math.log2(3)) and fine.tokens_per_second == 5.0
    assert coarse.entropy_bits == pytest.approx(10.0) and coarse.perplexity == pytest.approx(2.0)
    assert fine.entropy_bits == 0.0 and fine.perplexity == 1.0  # one code alone tells nothing
    assert (coarse.used, fine.used) == (2, 1)
    assert rate.latent_bits == 10 * 6 * 16
    assert rate.bits_per_value == pytest.approx(rate.bits / 80)


def test_rates_of_the_first_ticks_are_those_of_the_cut_track() -> None:
    rate = rates(two_levels(), LEVELS, 5)
    assert (rate.levels[0].tokens, rate.levels[1].tokens) == (5, 4)
    assert rate.samples == 20 and rate.seconds == 1.0 and rate.latent_bits == 5 * 6 * 16


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), cardinality=st.integers(1, 300), count=st.integers(0, 500))
def test_entropy_lies_between_nothing_and_the_logarithm(seed: int, cardinality: int, count: int) -> None:
    codes = np.random.default_rng(seed).integers(0, cardinality, count).astype(np.uint16)
    tokens = TrackTokens("audio", "audio", Clock.regular(1, 1), 1, (LevelCodes.of_counts(codes, np.array([count])),))
    level = rates(tokens, (Level("only", cardinality),)).levels[0]
    assert 0 <= level.entropy_bits <= level.bits + 1e-9
    p = np.unique(codes, return_counts=True)[1] / max(count, 1)
    assert level.entropy_bits == pytest.approx(-count * float((p * np.log2(p)).sum()), abs=1e-6)
    assert level.perplexity <= level.used + 1e-9


def test_codebook_use_adds_tracks_up() -> None:
    one, other = rates(two_levels(40), LEVELS), rates(two_levels(8), LEVELS)
    coarse, fine = codebook_use([one, other])
    assert coarse.counts.tolist() == [6, 6, 0] and fine.counts[0] == 12
    assert (coarse.used, coarse.perplexity, fine.perplexity) == (2, 2.0, 1.0)


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=4))
def test_streams_cut_in_any_way_come_out_in_step(cuts: list[list[int]]) -> None:
    total = 17
    values = np.arange(total)

    def stream(sizes: list[int]) -> Iterator[Block]:
        edges = np.minimum(np.cumsum([0, *sizes]), total)
        yield from (Block(values[a:b]) for a, b in zip(edges, [*edges[1:], total], strict=True))

    rows = list(aligned([stream(sizes) for sizes in cuts]))
    for k in range(len(cuts)):
        assert np.array_equal(np.concatenate([row[k] for row in rows]), values)
    assert all(len(part) == len(row[0]) for row in rows for part in row)


def test_the_measured_part_is_whole_ticks_within_the_limit() -> None:
    tokens = two_levels(38)
    assert [measured_samples(tokens, s) for s in (None, 0.0, 0.21, 1.0, 1.3, 1.9, 99.0)] == [38, 4, 4, 20, 24, 38, 38]


def test_prefixes_are_spread_and_leave_out_levels_without_codes() -> None:
    level, empty = (LevelCodes.of_counts(np.zeros(n, np.uint8), np.array([n])) for n in (1, 0))

    def chosen(*levels: LevelCodes) -> tuple[int, ...]:
        return some_prefixes(TrackTokens("audio", "audio", Clock.regular(1, 1), 1, levels))

    assert chosen(level, level, level) == (1, 2, 3) and chosen(level) == (1,)
    assert chosen(level, empty, level, level, empty, empty) == (1, 3, 6) and chosen(empty, empty) == (2,)
    assert chosen(*[level] * 30) == (1, 5, 9, 13, 18, 22, 26, 30)


def test_whole_numbers_are_compared_exactly_and_each_channel_by_itself() -> None:
    meter = NumericMeter(1)
    low, high = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    meter.update(np.array([[high, low, 3]]), [np.array([[high - 1, high, 3]])])
    assert meter.max_errors(0) == (1.0, 2.0**64, 0.0)
    flags = NumericMeter(1)
    flags.update(np.array([[True, False]]), [np.array([[False, False]])])
    assert flags.max_errors(0) == (1.0, 0.0)


def test_a_certificate_holds_until_one_sample_of_one_channel_is_beyond() -> None:
    def held(*errors: float, kept: bool = True) -> bool:
        return Certificate(channels=("a", "b"), bounds=(0.1, 0.0), errors=errors, kept=kept).holds

    assert (
        held(0.1, 0.0)
        and not held(0.1, 1e-9)
        and not held(np.nextafter(0.1, 1), 0.0)
        and not held(0.1, 0.0, kept=False)
    )


def test_numeric_errors_leave_out_what_is_not_finite_and_say_whether_it_came_back() -> None:
    meter = NumericMeter(2)
    original = np.array([[1.0, np.nan], [np.inf, -4.0]])
    meter.update(original, [np.array([[1.5, np.nan], [np.inf, -4.0]]), np.array([[1.0, 0.0], [np.inf, -3.0]])])
    meter.update(np.array([[2.0, 2.0]]), [np.array([[2.0, 2.0]])] * 2)
    kept, lost = meter.scores()
    assert kept == {"max_error": 0.5, "rms_error": 0.25, "same_nonfinite": 1.0}
    assert lost == {"max_error": 1.0, "rms_error": 0.5, "same_nonfinite": 0.0}
    assert math.isnan(NumericMeter(1).scores()[0]["max_error"])


@pytest.mark.filterwarnings("error")
def test_an_error_whose_square_no_float_holds_is_infinite_without_a_warning() -> None:
    meter = NumericMeter(1)
    meter.update(np.array([[1e300], [0.0]]), [np.array([[2e300], [0.0]])])
    assert meter.scores()[0] == {"max_error": 1e300, "rms_error": math.inf, "same_nonfinite": 1.0}


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.train(["the robot moves the red block", "and then it stops"] * 20, TextConfig(size=300))


def spans(*pieces: str) -> Track:
    values = np.empty(len(pieces), object)
    values[:] = pieces
    return Track.of_array("text", values, Clock.irregular(np.arange(len(pieces)) * 10**9))


def test_a_whole_evaluation_beside_another_codec(text: TextTokenizer) -> None:
    track = spans("the robot", "stops", "the block", "moves")
    tokens = text.encode(track)
    seen: list[tuple[int, list[str], int]] = []

    def watch(at: int, original: np.ndarray, versions: Sequence[np.ndarray]) -> None:
        seen.append((at, original.tolist(), len(versions)))

    forgetful = np.array(["the robot", "stopped", "", "moves"], object)
    other = Other(codec="memory", setting="poor", bits=64, encode_seconds=1.0, blocks=lambda: iter([Block(forgetful)]))
    quality = evaluate(track, tokens, text, others=[other], watch=watch)
    (whole,), (reference,) = quality.prefixes, quality.references
    assert whole.quality == {"exact": 1.0} and whole.identical and whole.levels == 1
    assert whole.tokens == len(tokens.levels[0].codes) and whole.bits == whole.tokens * math.log2(300)
    assert reference.quality == {"exact": 0.5} and not reference.identical and reference.bits == 64
    assert quality.encode_speed > 0 and quality.decode_speed > 0 and quality.seconds == 4.0
    assert [s for _, part, _ in seen for s in part] == ["the robot", "stops", "the block", "moves"]
    assert all(count == 2 for _, _, count in seen)
    part = evaluate(track, tokens, text, samples=2, encode_seconds=0)
    assert part.samples == 2 and part.of_samples == 4 and part.prefixes[0].tokens < whole.tokens
    assert math.isnan(part.encode_speed)


def test_another_recording_is_refused(text: TextTokenizer) -> None:
    tokens = text.encode(spans("the robot", "stops", "moves"))
    with pytest.raises(InputError, match="3"):
        evaluate(spans("the robot", "stops"), tokens, text)
