"""Sound: the same codes however it arrives, every sample back, any prefix, any instant, any codes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.errors import InputError, OptionError, TokenError, VocabularyError
from pantok.experience import Block, Clock, Track
from pantok.metrics.audio import as_float, mel_distance, pesq_wb, reason, si_sdr, stoi
from pantok.stream import LevelCodes, TrackTokens
from pantok.tokenizers.audio import AudioConfig, AudioOptions, AudioTokenizer
from pantok.tokenizers.audio_bands import AMPLITUDES, Bands, loudness_of
from pantok.tokenizers.audio_transform import Lapped, hop_of
from pantok.vocabulary import TokenizerState

SAMPLES = Path(__file__).parent.parent / "sample_data"
RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)


def track(values: np.ndarray, rate: int = 16000) -> Track:
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    return Track.of_array(
        "audio.mic", values, Clock.regular(rate, len(values)), channels=names, info={"dtype": str(values.dtype)}
    )


def read(name: str) -> tuple[np.ndarray, int]:
    values, rate = soundfile.read(SAMPLES / name, dtype="int16", always_2d=True)
    return values, rate


def room(seed: int) -> np.ndarray:
    """4 s of a quiet room: even noise of -66 dB of full scale."""
    return np.rint(np.random.default_rng(seed).normal(size=(64000, 1)) * 2**15 * 10 ** (-66 / 20)).astype(np.int16)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read("speech/austen-2.wav")[0]


@pytest.fixture(scope="module")
def music() -> tuple[np.ndarray, int]:
    values, rate = read("music/guitar.flac")
    return values[: 3 * rate], rate


@pytest.fixture(scope="module")
def tokenizer(music: tuple[np.ndarray, int]) -> AudioTokenizer:
    voice, rate = read("speech/austen-1.flac")
    heard = [track(voice, rate), track(*music), track(room(1))]
    return AudioTokenizer.fit(heard, AudioConfig(size=64, tick_size=64))


def same(a: TrackTokens, b: TrackTokens) -> bool:
    return a.clock.count == b.clock.count and all(
        np.array_equal(x.codes, y.codes) and np.array_equal(x.splits, y.splits)
        for x, y in zip(a.levels, b.levels, strict=True)
    )


def bits(tokenizer: AudioTokenizer, tokens: TrackTokens) -> float:
    return sum(len(lv.codes) * np.log2(s.cardinality) for lv, s in zip(tokens.levels, tokenizer.levels, strict=True))


def encoded_in(tokenizer: AudioTokenizer, t: Track, size: int | None, options: AudioOptions) -> TrackTokens:
    encoder = tokenizer.encoder(t, options)
    for block in t.blocks(size):
        encoder.push(block)
    return encoder.finish()


# -- the transform and its integers


@pytest.mark.parametrize("hop", [40, 160, 221, 320, 441, 800])
def test_transform_is_an_orthonormal_mdct(hop: int) -> None:
    """Against the definition in float64, and back."""
    rng = np.random.default_rng(hop)
    x = np.rint(rng.normal(size=6 * hop) * 2**20)
    x[:hop] = x[-hop:] = 0
    lapped = Lapped(hop)
    n, k = np.arange(2 * hop)[:, None], np.arange(hop)
    basis = np.sqrt(2 / hop) * np.cos(np.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5))
    basis *= lapped.window[:, None]
    assert np.allclose(lapped.window[:hop] ** 2 + lapped.window[hop:] ** 2, 1)  # Princen and Bradley's condition
    want = np.stack([x[i * hop : (i + 2) * hop] @ basis for i in range(5)])
    got = lapped.forward(x)
    assert np.abs(got - want).max() < 2**-13 * np.abs(want).max()
    assert np.abs(lapped.inverse(got) - x[hop:-hop]).max() < 2**-13 * np.abs(x).max()


def test_every_partial_sum_is_exact() -> None:
    """Bounds of the docstring at the largest hop: products stay below 2^53 for the loudest sound there is."""
    lapped = Lapped(hop_of(Fraction(192_000)))
    cosines = np.abs(lapped._cosines)
    assert (2.0**24 * np.sqrt(2) * cosines.sum(0)).max() < 2**53
    assert np.sqrt(lapped.bins) * 2.0**28 * np.sqrt((cosines**2).sum(1)).max() < 2**53


@given(st.integers(0, 2**52))
@settings(max_examples=200, deadline=None)
def test_loudness_is_the_rounded_logarithm(energy: int) -> None:
    q = int(loudness_of(np.array([energy]))[0])
    want = np.clip(8 * (np.log2(max(energy, 1)) - 12), 0, 320)
    assert abs(q - want) <= 0.5 + 1e-6
    assert np.isclose(AMPLITUDES[q], 2.0 ** (6 + q / 16), rtol=1e-6)


@pytest.mark.parametrize("bins", [40, 160, 220, 320, 441, 640, 800])
def test_bands_partition_the_bins(bins: int) -> None:
    bands = Bands(bins)
    frames = np.random.default_rng(0).integers(-(2**20), 2**20, (3, bins)).astype(float)
    assert np.array_equal(bands.to_bins(bands.to_units(frames)), frames)
    for g in range(bands.count):
        inside = np.repeat(bands.band_U == g, 8)[:bins]
        assert inside.any()
        energy = (frames[:, inside].astype(np.int64) ** 2).sum(1) // inside.sum()
        assert np.array_equal(bands.loudness(frames)[:, g], loudness_of(energy))


# -- the laws


@pytest.mark.parametrize("options", [AudioOptions(), AudioOptions(bits_per_second=6000, latents=True)])
@pytest.mark.parametrize("size", [7, 1000, 20000])
def test_codes_do_not_depend_on_blocks(
    tokenizer: AudioTokenizer, speech: np.ndarray, size: int, options: AudioOptions
) -> None:
    t = track(speech[: 2000 if size == 7 else 40000])
    whole, cut = encoded_in(tokenizer, t, None, options), encoded_in(tokenizer, t, size, options)
    assert same(whole, cut)
    if options.latents:
        assert np.array_equal(whole.latents.values, cut.latents.values)  # type: ignore[union-attr]


def test_codes_do_not_depend_on_blocks_of_one(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    t = track(speech[9000:12000])
    assert same(encoded_in(tokenizer, t, None, AudioOptions()), encoded_in(tokenizer, t, 1, AudioOptions()))


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=6), st.sampled_from([None, 4000.0]))
@settings(max_examples=15, deadline=None)
def test_codes_do_not_depend_on_any_cut(tokenizer, speech, cuts, rate) -> None:  # type: ignore[no-untyped-def]
    t, options = track(speech[: sum(cuts)]), AudioOptions(bits_per_second=rate)
    encoder = tokenizer.encoder(t, options)
    at = 0
    for n in cuts:
        encoder.push(Block(speech[at : min(at + n, len(speech))]))
        at += n
    assert same(encoded_in(tokenizer, track(speech[:at]), None, options), encoder.finish())


def test_codes_do_not_depend_on_threads(tokenizer: AudioTokenizer, music: tuple[np.ndarray, int]) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = tokenizer.encode(track(*music))
        torch.set_num_threads(4)
        assert same(one, tokenizer.encode(track(*music)))
    finally:
        torch.set_num_threads(threads)


def test_fit_is_deterministic(speech: np.ndarray) -> None:
    config = AudioConfig(size=32, tick_size=32)
    a, b = (AudioTokenizer.fit([track(speech)], config, seed=3).state() for _ in range(2))
    assert a.digest == b.digest
    assert a.digest != AudioTokenizer.fit([track(speech)], config, seed=4).state().digest


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_length_rate_and_type_come_back(tokenizer: AudioTokenizer, rate: int, channels: int, dtype: str) -> None:
    hop = hop_of(Fraction(rate))
    rng = np.random.default_rng(rate)
    noise = rng.normal(size=(9 * hop, channels)) * 0.1
    for n in (0, 1, hop - 1, hop, hop + 1, 4 * hop - 1, 4 * hop, 4 * hop + 1, 8 * hop, 9 * hop):
        x = noise[:n].astype(np.float32) if dtype == "float32" else np.rint(noise[:n] * 32767).astype(np.int16)
        t = track(x, rate)
        tokens = tokenizer.encode(t)
        tokens.check(tuple(lv.cardinality for lv in tokenizer.levels))
        y = tokenizer.decoded(tokens)
        assert y.shape == x.shape and y.dtype == x.dtype and tokens.clock.rate == rate, (n, y.shape, y.dtype)
        assert np.isfinite(y).all() and np.abs(y).max(initial=0) <= 32767


@pytest.mark.parametrize("levels", [None, 4, 8])
def test_any_range_equals_that_slice_of_the_whole(
    tokenizer: AudioTokenizer, music: tuple[np.ndarray, int], levels: int | None
) -> None:
    tokens = tokenizer.encode(track(*music))
    whole = tokenizer.decoded(tokens, levels=levels)
    rng = np.random.default_rng(0)
    edges = [(0, 1), (len(whole) - 1, len(whole)), (3527, 3529), (len(whole) - 900, len(whole) + 5)]
    for start, stop in edges + [tuple(sorted(rng.integers(0, len(whole), 2).tolist())) for _ in range(6)]:
        part = tokenizer.decoded(tokens, levels=levels, start=start, stop=stop)
        assert np.array_equal(part, whole[start:stop]), (start, stop)


def test_decoding_reads_no_tick_before_the_one_asked_for(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    tokens = tokenizer.encode(track(speech))
    start = 10 * tokens.tick
    blank = tuple(
        LevelCodes(np.where(np.arange(len(lv.codes)) < lv.splits[10], 0, lv.codes), lv.splits) for lv in tokens.levels
    )
    assert np.array_equal(
        tokenizer.decoded(replace(tokens, levels=blank), start=start), tokenizer.decoded(tokens, start=start)
    )


def test_every_prefix_decodes_and_each_stage_adds(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    tokens = tokenizer.encode(track(speech), AudioOptions(quality=0.65))
    original = as_float(speech)
    versions = [as_float(tokenizer.decoded(tokens, levels=k)) for k in range(len(tokenizer.levels) + 1)]
    assert all(v.shape == original.shape and np.isfinite(v).all() for v in versions)
    first = [lv.name for lv in tokenizer.levels].index("shape.1")
    ratios = [si_sdr(original, v) for v in versions[first:]]
    assert all(b > a for a, b in pairwise(ratios)), ratios  # type: ignore[operator]
    assert ratios[1] > 0 and ratios[-1] > 12  # type: ignore[operator]
    mel = [mel_distance(original, versions[k], 16000) for k in (0, 2, first, first + 1)]
    assert mel == sorted(mel, reverse=True), mel


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 7, 40, 400]), st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None)
def test_any_codes_in_any_number_decode(tokenizer, seed, most, channels) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    ticks = int(rng.integers(1, 12))
    levels = []
    for spec in tokenizer.levels:
        counts = rng.integers(0, most + 1, ticks)
        levels.append(LevelCodes.of_counts(rng.integers(0, spec.cardinality, counts.sum()).astype(np.uint16), counts))
    count = ticks * 1280 - int(rng.integers(0, 1280))
    header = {"hop": 320, "channels": channels, "key_every": 1}
    tokens = TrackTokens(
        "audio.dream", "audio", Clock.regular(16000, count), 1280, tuple(levels), header, {"dtype": "float32"}
    )
    y = tokenizer.decoded(tokens)
    assert y.shape == (count, channels) and np.isfinite(y).all() and np.abs(y).max() <= 1


def test_code_out_of_range_is_named(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    tokens = tokenizer.encode(track(speech[:8000]))
    tokens.levels[0].codes[3] = 250
    with pytest.raises(TokenError, match="level 0 position 3"):
        tokenizer.decoded(tokens)


# -- length follows the signal


def test_silence_costs_nothing_and_a_quiet_room_little(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    silence = np.zeros((16000 * 4, 1), np.int16)
    tokens = tokenizer.encode(track(silence))
    assert sum(len(lv.codes) for lv in tokens.levels) == 0
    assert not tokenizer.decoded(tokens).any()
    quiet = tokenizer.encode(track(room(0)))
    assert bits(tokenizer, quiet) < bits(tokenizer, tokenizer.encode(track(speech[:64000]))) / 8
    held = tokenizer.encode(track(room(0)), AudioOptions(bits_per_second=9200))
    assert bits(tokenizer, held) / 4 < 9200 / 4


@pytest.mark.parametrize("rate", [4000.0, 9200.0, 16000.0])
def test_rate_is_held(tokenizer: AudioTokenizer, speech: np.ndarray, rate: float) -> None:
    got = bits(tokenizer, tokenizer.encode(track(speech), AudioOptions(bits_per_second=rate))) / (len(speech) / 16000)
    assert 0.85 * rate < got < 1.08 * rate


def test_same_in_both_channels_costs_as_one(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    mono = bits(tokenizer, tokenizer.encode(track(speech)))
    both = tokenizer.encode(track(np.repeat(speech, 2, 1)))
    assert bits(tokenizer, both) < 1.05 * mono
    y = tokenizer.decoded(both)
    assert np.array_equal(y[:, 0], y[:, 1])


# -- what comes in


def test_quality_of_speech_it_has_not_heard(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    """A worked example: fitted on 7 s of another sentence, with 64 codes."""
    y = tokenizer.decoded(tokenizer.encode(track(speech), AudioOptions(bits_per_second=9200)))
    assert pesq_wb(as_float(speech), as_float(y), 16000) > 2.0  # type: ignore[operator]


def test_float_and_integer_sound_agree(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    as_float32 = (speech / 32768).astype(np.float32)
    assert same(tokenizer.encode(track(speech)), tokenizer.encode(track(as_float32)))


def test_state_round_trip(tokenizer: AudioTokenizer, speech: np.ndarray) -> None:
    state = tokenizer.state()
    again = AudioTokenizer.from_state(state)
    assert again.state().digest == state.digest and again.levels == tokenizer.levels
    options = AudioOptions(latents=True)
    assert same(tokenizer.encode(track(speech), options), again.encode(track(speech), options))
    with pytest.raises(VocabularyError, match="format"):
        AudioTokenizer.from_state(TokenizerState("audio", {**state.config, "format": 99}, state.levels, state.tensors))


def test_little_sound_gives_fewer_codes(speech: np.ndarray) -> None:
    little = AudioTokenizer.fit([track(speech[:4000])])
    assert all(lv.cardinality <= 256 for lv in little.levels)
    assert len(little.decoded(little.encode(track(speech)))) == len(speech)


def test_bad_sound_is_named(tokenizer: AudioTokenizer) -> None:
    x = np.zeros((3000, 1), np.float32)
    x[2500] = np.nan
    with pytest.raises(InputError, match="sample 2500"):
        encoded_in(tokenizer, track(x), 1000, AudioOptions())
    with pytest.raises(InputError, match="samples a second"):
        tokenizer.encode(track(np.zeros((8, 1), np.int16), 50))
    with pytest.raises(InputError, match="no regular clock"):
        tokenizer.encoder(Track("audio.mic", lambda: iter(())))
    with pytest.raises(InputError, match="no sound"):
        AudioTokenizer.fit([track(np.zeros((100, 1), np.int16))])
    with pytest.raises(OptionError):
        AudioOptions(bits_per_second=0)
    with pytest.raises(OptionError):
        AudioConfig(size=3)


# -- the measures


def test_si_sdr_by_hand() -> None:
    a = np.array([1.0, -1.0, 1.0, -1.0])
    e = np.array([1.0, 1.0, -1.0, -1.0]) / 10  # orthogonal to a
    assert si_sdr(a, 3 * (a + e)) == pytest.approx(20)
    assert si_sdr(a, 2 * a) == float("inf")
    assert si_sdr(0 * a, a) is None


def test_mel_distance_of_a_gain(speech: np.ndarray) -> None:
    """A tenth of the amplitude is 1 in log10, in each of the two windows, where nothing reaches the floor."""
    loud = np.random.default_rng(0).normal(size=16000)
    assert mel_distance(loud, loud / 10, 16000) == pytest.approx(2, abs=0.01)
    assert mel_distance(loud, loud, 16000) == 0


def test_pesq_and_stoi_say_why_not(speech: np.ndarray) -> None:
    x = as_float(speech)
    assert pesq_wb(x, x, 16000) > 4.6 and stoi(x, x, 16000) == pytest.approx(1)  # type: ignore[operator]
    assert pesq_wb(x, x, 8000) is None and "16 kHz" in str(reason("pesq_wb", 8000))
    assert pesq_wb(0 * x, x, 16000) is None and stoi(0 * x, 0 * x, 16000) is None
    up = np.repeat(x, 3, axis=0)
    assert pesq_wb(up, up, 48000) > 4.5  # type: ignore[operator]
