"""Numbers: the bound for every bit pattern, exactness of integers, and the laws of every tokenizer."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError, TokenError, VocabularyError
from pantok.experience import Block, Clock, Track
from pantok.quantizers import bpe
from pantok.quantizers.bounded import Grid, digits_for, theorem_digits
from pantok.stream import LevelCodes, TrackTokens
from pantok.tokenizers import numeric_encoder
from pantok.tokenizers.numeric import NumericConfig, NumericOptions, NumericTokenizer, certificate
from pantok.tokenizers.numeric_band import differences, held
from pantok.tokenizers.numeric_channel import sums
from pantok.tokenizers.numeric_symbols import Alphabet


def smooth(rows: int = 730, channels: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None] / 50
    return np.sin(t * rng.uniform(0.5, 3, channels) + rng.uniform(0, 6, channels)) + rng.normal(
        0, 0.003, (rows, channels)
    )


def track_of(values: np.ndarray, name: str = "proprio.arm") -> Track:
    return Track.of_array(name, values, Clock.regular(50, len(values), 7), info={"dtype": str(values.dtype)})


@pytest.fixture(scope="module")
def fitted() -> NumericTokenizer:
    return NumericTokenizer.fit([track_of(smooth())], NumericConfig(size=800))


def worst(decoded: np.ndarray, values: np.ndarray) -> Fraction:
    """The largest error in exact arithmetic, over finite samples; what is not finite must come back as it is."""
    decoded, values = decoded.ravel(), values.ravel()
    finite = np.isfinite(values)
    assert np.array_equal(decoded[~finite], values[~finite], equal_nan=True)
    assert np.isfinite(decoded[finite]).all()
    return max(
        (abs(Fraction(float(a)) - Fraction(float(b))) for a, b in zip(decoded[finite], values[finite], strict=True)),
        default=Fraction(0),
    )


@settings(max_examples=300, deadline=None)
@given(
    bits=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    exponent=st.floats(-30, 30),
)
@example([0x7F800001, 0x3F800000], "float32", 0.0)  # a NaN that signals
@example([0x7C01, 0x3C00], "float16", -2.0)
def test_the_bound_holds_for_every_bit_pattern(
    fitted: NumericTokenizer, bits: list[int], dtype: str, exponent: float
) -> None:
    unsigned = np.dtype(dtype.replace("float", "uint"))
    values = np.array(bits, np.uint64).astype(unsigned).view(dtype)[:, None]
    bound = 10.0**exponent
    tokens = fitted.encode(track_of(values), NumericOptions(max_error=bound))
    assert worst(fitted.decoded(tokens), values) <= Fraction(bound)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=120),
    bound=st.floats(1e-4, 1.0),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_every_prefix_of_digits_is_bounded(
    fitted: NumericTokenizer, values: list[float], bound: float, dtype: str
) -> None:
    array = np.array(values, dtype)[:, None]
    tokens = fitted.encode(track_of(array, "proprio.other"), NumericOptions(max_error=bound, max_error_relative=1.0))
    (channel,) = certificate(tokens)
    for kept in range(channel["digits"] + 1):
        decoded = fitted.decoded(tokens, levels=1 + kept)
        assert worst(decoded, array) <= Fraction(bound) * fitted.config.base ** (channel["digits"] - kept)


def test_a_million_samples_of_every_kind_keep_their_bound(fitted: NumericTokenizer) -> None:
    rng = np.random.default_rng(3)
    count = 350_000
    kinds = [
        rng.normal(size=count).astype(np.float32),
        (rng.standard_cauchy(count) * 10.0 ** rng.integers(-3, 6, count)).astype(np.float64),
        rng.integers(0, 2**16, count, dtype=np.uint16).view(np.float16),
    ]
    for values in kinds:
        with np.errstate(invalid="ignore"):
            bound = 0.01
            tokens = fitted.encode(track_of(values.reshape(-1, 7)), NumericOptions(max_error=bound))
            decoded = fitted.decoded(tokens).ravel()
            finite = np.isfinite(values)
            assert np.array_equal(decoded[~finite], values[~finite], equal_nan=True)
            gap = np.abs(decoded[finite].astype(np.longdouble) - values[finite].astype(np.longdouble))
            assert gap.max() <= bound


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"]),
)
def test_integers_are_exact_or_within_their_bound(fitted: NumericTokenizer, data: st.DataObject, dtype: str) -> None:
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = np.array(data.draw(st.lists(st.integers(low, high), min_size=1, max_size=130)), dtype)[:, None]
    assert np.array_equal(fitted.decoded(fitted.encode(track_of(values))), values)
    bound = data.draw(st.integers(0, 1000))
    decoded = fitted.decoded(fitted.encode(track_of(values), NumericOptions(max_error=bound)))
    assert decoded.dtype == values.dtype
    if dtype != "bool":
        assert max(abs(int(a) - int(b)) for a, b in zip(decoded.ravel(), values.ravel(), strict=True)) <= bound


@settings(max_examples=100, deadline=None)
@given(
    index=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30),
    empty=st.lists(st.booleans(), min_size=30, max_size=30),
    order=st.integers(0, 2),
    group=st.integers(1, 9),
)
def test_differences_are_undone_even_where_they_wrap(
    index: list[int], empty: list[bool], order: int, group: int
) -> None:
    """In holes, of which no difference is kept, nothing moves."""
    array, holes = np.array(index, np.int64), np.array(empty[: len(index)], bool)
    still = array.copy()
    for row in np.flatnonzero(holes):
        still[row] = still[row - 1] if row % group else 0
    assert np.array_equal(held(array, holes, group), still)
    found = np.where(holes, 0, differences(still, order, group))
    back = [sums(found[i : i + group], order, holes[i : i + group]) for i in range(0, len(array), group)]
    back = np.concatenate([np.zeros(0, np.int64), *back])
    assert np.array_equal(back[~holes], array[~holes]) and (not order or np.array_equal(back, still))


def same(a: TrackTokens, b: TrackTokens) -> bool:
    return a.header == b.header and all(
        np.array_equal(x.codes, y.codes) and np.array_equal(x.splits, y.splits)
        for x, y in zip(a.levels, b.levels, strict=True)
    )


def test_codes_do_not_depend_on_the_blocks(fitted: NumericTokenizer) -> None:
    values = smooth(333)
    values[100, 1], values[200] = np.nan, 1e9
    whole = fitted.encode(track_of(values))
    for size in (1, 7, 50, 400):
        encoder = fitted.encoder(track_of(values))
        for i in range(0, len(values), size):
            encoder.push(Block(values[i : i + size]))
        assert same(encoder.finish(), whole)


def test_a_long_track_does_not_depend_on_the_blocks(fitted: NumericTokenizer) -> None:
    # Of a channel of more than ten groups some tell which grid and order pay.
    rows = 11 * fitted.config.tick * fitted.config.key_ticks + 123
    values = smooth(rows, 2, seed=5)
    values[4100, 0] = np.nan
    whole = fitted.encode(track_of(values))
    assert any(channel["parts"] > 1 for channel in whole.header["channels"])
    for size in (37, 400, 4001):
        encoder = fitted.encoder(track_of(values))
        for i in range(0, rows, size):
            encoder.push(Block(values[i : i + size]))
        assert same(encoder.finish(), whole)
    decoded = fitted.decoded(whole)
    for start, stop in ((3990, 4010), (4399, 4400), (rows - 1, rows)):
        part = fitted.decoded(whole, start=start, stop=stop)
        assert np.array_equal(part, decoded[start:stop], equal_nan=True)


def test_a_range_is_a_slice_of_the_whole(fitted: NumericTokenizer) -> None:
    values = smooth(1234)
    tokens = fitted.encode(track_of(values), NumericOptions(max_error=1e-5))
    whole = fitted.decoded(tokens)
    for start, stop in ((0, 1), (399, 401), (400, 800), (1200, 1234), (5, 5), (1233, 9999)):
        assert np.array_equal(fitted.decoded(tokens, start=start, stop=stop), whole[start:stop])


def test_digits_and_prefixes_improve(fitted: NumericTokenizer) -> None:
    values = smooth(500)
    tokens = fitted.encode(track_of(values), NumericOptions(max_error=1e-5))
    digits = certificate(tokens)[0]["digits"]
    assert digits >= 2
    errors = [np.abs(fitted.decoded(tokens, levels=1 + k) - values).max() for k in range(digits + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 1e-5
    assert np.abs(fitted.decoded(tokens, levels=0)).max() == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(["float16", "float32", "float64", "int8", "int64", "bool"]))
def test_any_codes_decode_to_the_right_shape(fitted: NumericTokenizer, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    values = np.clip(smooth(130, 3) * 50, -100, 100).astype(dtype)
    tokens = fitted.encode(track_of(values), NumericOptions(max_error=1e-3))
    for level, spec in zip(tokens.levels, fitted.levels, strict=True):
        level.codes[:] = rng.integers(0, spec.cardinality, len(level.codes))
    decoded = fitted.decoded(tokens)
    assert decoded.shape == values.shape
    assert decoded.dtype == values.dtype


def test_a_wrong_code_is_named(fitted: NumericTokenizer) -> None:
    tokens = fitted.encode(track_of(smooth(60)))
    tokens.levels[0].codes[3] = fitted.levels[0].cardinality
    with pytest.raises(TokenError, match="level 0 position 3"):
        fitted.decoded(tokens)


def test_fitting_is_deterministic_and_survives_its_state(fitted: NumericTokenizer) -> None:
    again = NumericTokenizer.fit([track_of(smooth())], NumericConfig(size=800))
    assert again.state().digest == fitted.state().digest
    loaded = NumericTokenizer.from_state(fitted.state())
    tokens = loaded.encode(track_of(smooth(seed=1)))
    assert same(tokens, fitted.encode(track_of(smooth(seed=1))))


def test_fitting_takes_residuals_as_wide_as_64_bits() -> None:
    """From one end of the words to the other is -2^63, whose size no int64 holds."""
    values = np.where(np.arange(400) // 20 % 2, np.uint64(2**63), np.uint64(0))[:, None]
    track = track_of(values)
    tokenizer = NumericTokenizer.fit([track], NumericConfig(size=400))
    tokens = tokenizer.encode(track)
    assert np.array_equal(tokenizer.decoded(tokens), values)
    spelled = tokenizer.runs_of(tokens)
    assert spelled.min() >= -1 and spelled.max() < tokenizer.alphabet.small


def test_channels_are_told_apart_and_bounds_go_by_name(fitted: NumericTokenizer) -> None:
    values = smooth(300, 3)
    values[:, 1] = np.where(np.arange(300) // 40 % 2, 1.0, -1.0)
    values[:, 2] = 0.25
    track = Track.of_array("action.arm", values, Clock.regular(50, 300), channels=("x", "grip", "still"))
    options = NumericOptions(max_error={"grip": 1e-6, "action": 0.5})
    kinds = {c["name"]: (c["kind"], c["bound"]) for c in certificate(fitted.encode(track, options))}
    assert kinds == {"x": ("smooth", 0.5), "grip": ("step", 1e-6), "still": ("step", 0.5)}
    tokens = fitted.encode(track, options)
    assert np.abs(fitted.decoded(tokens) - values)[:, 1].max() <= 1e-6
    with pytest.raises(OptionError):
        NumericOptions(max_error=-1.0)


def test_what_does_not_move_costs_little(fitted: NumericTokenizer) -> None:
    still = fitted.encode(track_of(np.full((500, 4), 0.3)))
    moving = fitted.encode(track_of(smooth(500)))
    # The least the format can say: a code for each channel and tick, and where it stands at each of the two keys.
    assert len(still.levels[0].codes) == 4 * (10 + 2)
    assert 4 * len(still.levels[0].codes) < len(moving.levels[0].codes)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8"])
def test_a_sensor_that_is_silent_costs_little(fitted: NumericTokenizer, dtype: str) -> None:
    values = smooth(500).astype(dtype)
    whole = len(fitted.encode(track_of(values)).levels[0].codes)
    values[:, 0] = np.nan
    values[60:260, 1] = -values[:200, 0]  # a NaN with a sign
    values[:, 2][np.arange(500) % 10 > 0] = np.nan  # slower than the others
    values[200:400, 3] = np.inf  # out of range
    values[450, 3] = -np.inf
    tokens = fitted.encode(track_of(values))
    assert np.array_equal(np.isnan(fitted.decoded(tokens)), np.isnan(values))
    assert worst(fitted.decoded(tokens), values) <= max(Fraction(c["bound"]) for c in certificate(tokens))
    dead = fitted.encode(track_of(np.where(values[:, :1] > 0, 0, values[:, :1])))
    assert len(dead.levels[0].codes) == 10, "a code for each tick"
    assert len(tokens.levels[0].codes) < 2 * whole, "holes in bytes would be forty times as many"
    assert [len(fitted.decoded(tokens, start=a, stop=b)) for a, b in ((55, 61), (250, 270))] == [6, 20]
    assert np.array_equal(fitted.decoded(tokens, start=255, stop=270), fitted.decoded(tokens)[255:270], equal_nan=True)


@pytest.mark.parametrize("spread", [150, 2000])
def test_exact_samples_of_sixteen_bits_take_two_codes(fitted: NumericTokenizer, spread: int) -> None:
    values = np.random.default_rng(0).normal(0, spread, (500, 1)).astype(np.int16)
    tokens = fitted.encode(track_of(values))
    assert np.array_equal(fitted.decoded(tokens), values)
    assert len(tokens.levels[0].codes) <= 2 * 500


def test_digits_are_of_numbers_alone(fitted: NumericTokenizer) -> None:
    values = smooth(430, 3)
    values[:, 0] = np.nan
    values[:, 1][np.arange(430) % 7 > 0] = np.inf
    tokens = fitted.encode(track_of(values), NumericOptions(max_error=1e-6))
    assert [c["digits"] for c in certificate(tokens)] == [3, 3, 3]
    finite = np.isfinite(values)
    for place in range(3):
        found = [len(tokens.levels[1 + place].of_tick(tick)) for tick in range(tokens.ticks)]
        assert found == [int(finite[50 * tick : 50 * tick + 50].sum()) for tick in range(tokens.ticks)]
    for tick in range(tokens.ticks):
        codes = [level.of_tick(tick) for level in tokens.levels]
        for k in range(1, 4):
            more = fitted.due(tokens, tick, codes[:k])
            assert more(codes[k].tolist()) is False and more(codes[k][1:].tolist()) is True
    decoded = fitted.decoded(tokens)
    assert worst(decoded, values) <= Fraction(1e-6)
    assert np.array_equal(fitted.decoded(tokens, start=403, stop=421), decoded[403:421], equal_nan=True)
    # As it was: every sample has its digits, and nothing in the header says otherwise.
    level, middle = np.zeros((430, 3), np.int64), 7
    before = [tokens.levels[0]]
    for place in range(3):
        level[...] = middle
        level.T[finite.T] = np.concatenate([_by_channel(tokens.levels[1 + place], finite, c) for c in range(3)])
        parts = [level[i : i + 50].T.ravel() for i in range(0, 430, 50)]
        before.append(LevelCodes.of_counts(np.concatenate(parts).astype(np.uint8), np.array([len(p) for p in parts])))
    before.append(tokens.levels[4])
    header = {k: v for k, v in tokens.header.items() if k != "digits"}
    old = replace(tokens, levels=tuple(before), header=header)
    assert np.array_equal(fitted.decoded(old), decoded, equal_nan=True)
    assert fitted.due(old, 8, [before[0].of_tick(8)])([7] * 89) is True


def _by_channel(level: LevelCodes, finite: np.ndarray, channel: int) -> np.ndarray:
    """The digits of one channel, of all ticks."""
    found = []
    for tick in range(len(level.splits) - 1):
        counts = finite[50 * tick : 50 * tick + 50].sum(0)
        found.append(np.split(level.of_tick(tick), np.cumsum(counts)[:-1])[channel])
    return np.concatenate(found)


def test_a_nan_that_says_something_stays_what_it_is(fitted: NumericTokenizer) -> None:
    values = smooth(60, 2)
    values.view(np.uint64)[7, 0] = 0x7FF00000000007A2  # R's NA
    decoded = fitted.decoded(fitted.encode(track_of(values)))
    assert decoded.view(np.uint64)[7, 0] == 0x7FF00000000007A2


def test_vocabularies_without_a_symbol_for_nan_are_as_they_were() -> None:
    alphabet = Alphabet(64, version=2)
    old = NumericTokenizer(NumericConfig(), bpe.Pieces(alphabet.size, np.zeros((0, 2), np.int32)), {}, version=2)
    again = NumericTokenizer.from_state(old.state())
    assert again.state().config["format"] == 2 and again.levels == old.levels
    with pytest.raises(VocabularyError, match="its pieces are"):
        NumericTokenizer.from_state(replace(old.state(), config={**old.state().config, "format": 3}))
    values = smooth(60, 1)
    values[3] = np.nan
    tokens = again.encode(track_of(values))
    decoded = again.decoded(tokens)
    assert worst(decoded, values) <= Fraction(certificate(tokens)[0]["bound"])
    assert len(tokens.levels[0].of_tick(0)) > 50 + 9, "nine more: that a sample follows, and its bytes"


def test_an_empty_track_is_empty(fitted: NumericTokenizer) -> None:
    tokens = fitted.encode(track_of(np.zeros((0, 3))))
    assert tokens.clock.count == 0
    assert fitted.decoded(tokens).shape[0] == 0


@settings(max_examples=200, deadline=None)
@given(
    steps=st.integers(1, 200), dims=st.integers(1, 64), radius=st.floats(1e-3, 1e3), eps=st.floats(1e-6, 1e2),
    base=st.integers(2, 256),
)  # fmt: skip
def test_theorem_1_count_is_the_least_that_suffices(
    steps: int, dims: int, radius: float, eps: float, base: int
) -> None:
    """Cells of side eps / sqrt(TD) in every coordinate: that many digits, and not one fewer (exact arithmetic)."""
    digits = theorem_digits(steps, dims, radius, eps, base)
    need = steps * dims * (Fraction(radius) / Fraction(eps)) ** 2
    assert Fraction(base) ** (2 * digits) >= need
    assert digits == 0 or Fraction(base) ** (2 * (digits - 1)) < need


@settings(max_examples=200, deadline=None)
@given(coarse=st.floats(1e-3, 10), ratio=st.floats(1, 1e4), steps=st.integers(1, 200), dims=st.integers(1, 64))
def test_digits_never_exceed_the_count_of_theorem_1(coarse: float, ratio: float, steps: int, dims: int) -> None:
    """Refining a range of 2 * coarse to +-bound needs no more digits than the theorem's for eps = 2 * bound."""
    bound = coarse / ratio
    assert digits_for(coarse, bound, 15, 4) <= theorem_digits(steps, dims, 2 * coarse, 2 * bound, 15)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 0.003, 0.02, 1.0]), bound=st.floats(1e-3, 0.1))
def test_a_choice_of_points_is_never_longer_and_within_the_bound(
    fitted: NumericTokenizer, seed: int, noise: float, bound: float
) -> None:
    rng = np.random.default_rng(seed)
    values = smooth(130, 2, seed) + rng.normal(0, noise, (130, 2))
    plain = NumericTokenizer(replace(fitted.config, parts=1), fitted.pieces, fitted.ranges)
    track, options = track_of(values), NumericOptions(max_error=bound, max_error_relative=1e-6)
    tokens = fitted.encode(track, options)
    assert len(tokens.levels[0].codes) <= len(plain.encode(track, options).levels[0].codes)
    assert worst(fitted.decoded(tokens), values) <= Fraction(bound)


@settings(max_examples=100, deadline=None)
@given(
    bits=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    exponent=st.floats(-30, 30), parts=st.integers(1, 8),
)  # fmt: skip
def test_every_point_of_a_band_is_within_the_bound(bits: list[int], dtype: str, exponent: float, parts: int) -> None:
    values = np.array(bits, np.uint64).astype(dtype.replace("float", "uint")).view(dtype)
    grid = Grid(bound=10.0**exponent, digits=0, base=15, parts=parts)
    low, count = grid.band(values)
    assert not count[~np.isfinite(values)].any()
    for offset in range(parts + 1):
        inside = count > offset
        assert worst(grid.value(low + offset, values.dtype)[inside], values[inside]) <= Fraction(grid.bound)


def test_what_an_encoder_holds_is_a_few_bytes_a_number(
    fitted: NumericTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long wide table, spelled some ticks at a time: the same codes as all at once, in a fraction of the memory."""
    values = smooth(2000, 30).astype(np.float32)
    values[500:900, ::3] = np.nan
    track, options = track_of(values), NumericOptions(max_error=1e-4)
    whole = fitted.encode(track, options)
    monkeypatch.setattr(numeric_encoder, "_AT_ONCE", 1 << 12)
    tracemalloc.start()
    parts = fitted.encode(track, options)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 32 * values.size
    assert parts.header == whole.header
    for a, b in zip(parts.levels, whole.levels, strict=True):
        assert np.array_equal(a.codes, b.codes) and np.array_equal(a.splits, b.splits)
        assert a.codes.dtype == b.codes.dtype
