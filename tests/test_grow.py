"""Growth adds codes where they pay, and changes nothing for what was well described."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import tokenizers
from pantok.errors import OptionError
from pantok.evolve.distortion import Distortions
from pantok.evolve.grow import GrowConfig, grow, grown_book
from pantok.evolve.judge import coded
from pantok.experience import Clock, Track
from pantok.formats.vocab import load_vocabulary
from pantok.quantizers.gated import Life, nearest_living
from pantok.tokenizers.audio import AudioConfig, AudioOptions, AudioTokenizer
from pantok.tokenizers.numeric import NumericConfig, NumericTokenizer
from pantok.vocabulary import Level, TokenizerState

SAMPLES = Path(__file__).parent.parent / "sample_data"


def slow_nearest(x: np.ndarray, book: np.ndarray, life: Life) -> tuple[list[int], list[float]]:
    """The definition, one vector and one code at a time."""
    gone = set(life.retired[:, 0].tolist())
    starts = [0, *life.blocks[:, 0].tolist(), len(book)]
    codes, gaps = [], []
    for v in x:
        best, near = 0, float("inf")
        for number in range(len(starts) - 1):
            if number and near <= life.blocks[number - 1, 1]:
                continue
            for k in range(starts[number], starts[number + 1]):
                d = float(((v.astype(float) - book[k]) ** 2).sum())
                if k not in gone and d < near:
                    best, near = k, d
        codes.append(best)
        gaps.append(near)
    return codes, gaps


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.data())
def test_the_search_is_what_it_says(seed, blocks, data):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, blocks)
    book = rng.integers(-20, 20, (int(sizes.sum()), 3)).astype(np.float32)
    firsts = np.cumsum(sizes)[:-1]
    life = Life(np.stack([firsts, rng.integers(0, 300, blocks - 1)], 1).astype(np.int64).reshape(-1, 2))
    gone = data.draw(st.sets(st.integers(1, len(book) - 1)) if len(book) > 1 else st.just(set()))
    life = life.without(np.array(sorted(gone), np.uint32), np.zeros(len(gone), np.uint32))
    x = rng.integers(-25, 25, (30, 3)).astype(np.float32)
    codes, gaps = nearest_living(x, book, life)
    want, distances = slow_nearest(x, book, life)
    assert codes.tolist() == want and gaps.tolist() == distances


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 500))
def test_what_was_well_described_gets_the_same_codes(seed, threshold):
    """The law: within the threshold the codes are those of the book before it grew."""
    rng = np.random.default_rng(seed)
    book = rng.integers(-30, 30, (12, 4)).astype(np.float32)
    more = np.concatenate([book, rng.integers(-30, 30, (9, 4)).astype(np.float32)])
    x = rng.integers(-30, 30, (200, 4)).astype(np.float32)
    before, gap = nearest_living(x, book, None)
    after, new_gap = nearest_living(x, more, Life().grown(12, threshold))
    near = gap <= threshold
    assert np.array_equal(before[near], after[near])
    assert (new_gap <= gap).all() and np.array_equal(after[~near & (new_gap == gap)], before[~near & (new_gap == gap)])


def test_a_block_has_to_pay():
    rng = np.random.default_rng(0)
    centres = rng.integers(-400, 400, (32, 4))
    known = np.concatenate([centres + 300, centres - 300]).astype(np.float32)

    def around(c: np.ndarray, n: int) -> np.ndarray:
        return np.rint(c[rng.integers(0, len(c), n)] + rng.normal(size=(n, 4)) * 4).astype(np.float32)

    new = rng.integers(1000, 3000, (16, 4))
    mixed = lambda n: np.concatenate([around(known, 3 * n), around(new, n)])  # noqa: E731
    found = grown_book("a", mixed(600), mixed(100), known, Life(), price=None, most=256, far=0.5, seed=0)
    assert 16 <= found.added <= 32
    assert found.before - found.after > 10
    # Of what the book was made for, sixteen codes more take away next to nothing.
    none = grown_book(
        "a", around(known, 2400), around(known, 400), known, Life(), price=None, most=256, far=0.5, seed=0
    )
    assert none.added == 0


def sound(name: str, seconds: float, skip: float = 0.0) -> Track:
    values, rate = soundfile.read(SAMPLES / name, dtype="int16", always_2d=True)
    part = values[int(skip * rate) : int((skip + seconds) * rate), :1]
    return Track.of_array("audio.mic", np.ascontiguousarray(part), Clock.regular(rate, len(part)))


@pytest.fixture(scope="module")
def of_speech() -> AudioTokenizer:
    return AudioTokenizer.fit([sound("speech/austen-2.wav", 5.0)], AudioConfig(size=64, tick_size=64, seconds=12.0))


@pytest.fixture(scope="module")
def grown(of_speech):
    return grow(of_speech.state(), [sound("music/guitar.flac", 5.0)], GrowConfig(most=64, far=0.75))


def error_db(tokenizer: AudioTokenizer, track: Track) -> tuple[float, int]:
    tokens = tokenizer.encode(track, AudioOptions(quality=0.4))
    values = track.read()[0].astype(float)
    error = ((values - tokenizer.decoded(tokens)) ** 2).sum()
    return float(10 * np.log10((values**2).sum() / error)), sum(len(lv.codes) for lv in tokens.levels)


def test_music_after_speech(of_speech, grown):
    state, growths = grown
    assert state.descends(of_speech.state()) and not of_speech.state().descends(state)
    assert sum(g.added for g in growths) > 100
    after = AudioTokenizer.from_state(state)
    assert after.state().digest == state.digest
    held = sound("music/guitar.flac", 1.4, skip=4.5)
    (worse, many), (better, fewer) = error_db(of_speech, held), error_db(after, held)
    assert better > worse + 0.4 and fewer < 1.05 * many
    old = sound("speech/austen-2.wav", 3.0)
    assert error_db(after, old)[0] >= error_db(of_speech, old)[0] - 0.1


def test_old_streams_decode_to_the_same_samples(of_speech, grown):
    tokens = of_speech.encode(sound("speech/austen-2.wav", 3.0))
    after = AudioTokenizer.from_state(grown[0])
    assert np.array_equal(of_speech.decoded(tokens), after.decoded(tokens))


def test_what_lies_within_every_threshold_is_encoded_as_before(of_speech, grown):
    """Thresholds beyond anything that the old recording holds: the same codes, level by level."""
    state = grown[0]
    tensors = {
        n: (np.array([[b[0], 1 << 40] for b in t]) if n.endswith(".blocks") else t) for n, t in state.tensors.items()
    }
    strict = AudioTokenizer.from_state(replace(state, tensors=tensors))
    track = sound("speech/austen-2.wav", 3.0)
    for a, b in zip(of_speech.encode(track).levels, strict.encode(track).levels, strict=True):
        assert np.array_equal(a.codes, b.codes) and np.array_equal(a.splits, b.splits)


def test_the_same_whatever_the_blocks(grown):
    tokenizer = AudioTokenizer.from_state(grown[0])
    track = sound("music/guitar.flac", 2.0)
    whole = tokenizer.encode(track)
    encoder = tokenizer.encoder(track)
    for block in track.blocks(777):
        encoder.push(block)
    for a, b in zip(whole.levels, encoder.finish().levels, strict=True):
        assert np.array_equal(a.codes, b.codes)


def test_what_cannot_grow_is_refused(of_speech):
    with pytest.raises(OptionError, match="cannot extend text"):
        grow(TokenizerState("text", {}, (Level("text", 10, "text"),)), [sound("music/guitar.flac", 1.0)])
    with pytest.raises(OptionError, match="grow far"):
        GrowConfig(far=1.0)


def a_book(seed: int, sizes: tuple[int, ...] = (90, 80, 70)):
    """A book of three stages on vectors of 8 coefficients, as `video_exact` makes it."""
    from pantok.tokenizers.video_exact import make_book

    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(96, 8)))[0].T
    return make_book(directions, [rng.normal(size=(n, 8)) * 300 / (k + 1) for k, n in enumerate(sizes)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200_000))
def test_video_codes_of_what_was_well_described_stay(seed, threshold):
    """Stage after stage: as long as no stage was off by more than its threshold the codes are the old ones."""
    old = a_book(seed % 7)
    rng = np.random.default_rng(seed)
    more = tuple(np.rint(rng.normal(size=(20, 8)) * 200).astype(np.int16) for _ in old.codes)
    codes = tuple(np.concatenate([c, m]) for c, m in zip(old.codes, more, strict=True))
    lives = tuple(Life().grown(len(c), threshold) for c in old.codes)
    new = replace(old, codes=codes, lives=lives)
    x = np.concatenate([np.rint(rng.normal(size=(300, 8)) * 250), np.ones((300, 1))], 1).astype(np.float32)
    cost = np.full(3, 500.0)
    before, saved = old.deepen(x, cost)
    after, more_saved = new.deepen(x, cost)
    left = x[:, :8].astype(np.float64)
    same = np.ones(300, bool)
    for stage in range(3):
        tried = before[stage] >= 0
        left = left - np.where(tried[:, None], old.codes[stage][before[stage]], 0)
        same &= ~tried | ((left**2).sum(1) <= threshold)
        assert np.array_equal(before[stage][same], after[stage][same])
        assert np.array_equal(saved[stage][same], more_saved[stage][same])
    assert (more_saved[0] >= saved[0]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 400_000))
def test_and_stay_where_a_book_got_directions(seed, threshold):
    """The same in more directions: what is nowhere further off than a threshold, in all of them, is as it was."""
    from pantok.tokenizers.video_exact import Book

    old = a_book(seed % 7)
    rng = np.random.default_rng(seed)
    basis = np.concatenate([old.basis, a_book(8).basis[:3]])  # lookups need no right angles
    codes = tuple(
        np.concatenate([np.pad(c, ((0, 0), (0, 3))), np.rint(rng.normal(size=(20, 11)) * 200).astype(np.int16)])
        for c in old.codes
    )
    lives = tuple(Life().grown(len(c), threshold) for c in old.codes)
    new = Book(basis, codes, old.starts, lives, first_dims=8)
    x = np.rint(rng.normal(size=(300, 11)) * 250 * rng.random((300, 1)))
    cost, ones = np.full(3, 20_000.0 * float(old.unit**2)), np.ones((300, 1))
    before, saved = old.deepen(np.concatenate([x[:, :8], ones], 1).astype(np.float32), cost)
    after, more_saved = new.deepen(np.concatenate([x, ones], 1).astype(np.float32), cost)
    left, same = x, np.ones(300, bool)
    for stage in range(3):
        table = np.pad(old.codes[stage], ((0, 0), (0, 3))).astype(np.float64)
        tried = before[stage] >= 0
        mine, _ = old.search(stage, np.concatenate([left[:, :8], ones], 1).astype(np.float32))
        same &= ((left - table[mine]) ** 2).sum(1) <= threshold
        assert np.array_equal(before[stage][same], after[stage][same])
        assert np.array_equal(saved[stage][same], more_saved[stage][same])
        left = left - np.where(tried[:, None], table[before[stage]], 0)
    assert np.array_equal(new.pixels[0][: len(old.codes[0])], old.pixels[0])


def test_a_living_search_without_news_is_the_plain_one():
    old = a_book(1)
    rng = np.random.default_rng(3)
    x = np.concatenate([np.rint(rng.normal(size=(500, 8)) * 250), np.ones((500, 1))], 1).astype(np.float32)
    gone = np.array([5, 17], np.uint32)
    for lives, same in (
        (tuple(Life().grown(len(c), 1 << 40) for c in old.codes), True),
        (tuple(Life().without(gone, gone + 1) for c in old.codes), False),
    ):
        codes = tuple(np.concatenate([c, c[:3]]) for c in old.codes) if same else old.codes
        living = replace(old, codes=codes, lives=lives)
        share = rng.uniform(0.1, 2.0, 500)
        for cost in (np.zeros(3), np.full(3, 4000.0)):
            found, taken = living.deepen(x, cost, share)
            plain, saved = old.deepen(x, cost, share)
            if same:
                assert np.array_equal(found, plain) and np.array_equal(taken, saved)
            else:
                assert np.isin(plain, gone).any() and not np.isin(found, gone).any()
        assert np.array_equal(living.pixels[0][: len(old.codes[0])], old.pixels[0])


def test_pieces_of_numbers_grow_and_spell_the_same():

    def track(seed: int, wave) -> Track:
        t = np.arange(3000) / 50
        rng = np.random.default_rng(seed)
        values = np.stack([wave(t) + rng.normal(size=3000) * 0.002, wave(t + 1) * 0.5], 1).astype(np.float32)
        return Track.of_array("proprio.arm", values, Clock.regular(50, 3000), channels=("a", "b"))

    calm, jerky = track(0, np.sin), track(1, lambda t: np.sign(np.sin(3 * t)) + np.sin(9 * t))
    old = NumericTokenizer.fit([calm], NumericConfig(size=1000, rounds=1))
    state, (growth,) = grow(old.state(), [jerky])
    assert growth.added >= 16 and growth.after < growth.before and state.descends(old.state())
    new = NumericTokenizer.from_state(state)
    assert new.pieces.merges[: len(old.pieces.merges)].tolist() == old.pieces.merges.tolist()
    spelled = [new.pieces.expansion(k) for k in range(new.pieces.size)]
    assert len(set(spelled)) == len(spelled) and max(map(len, spelled)) <= new.config.longest
    tokens = old.encode(jerky)
    assert np.array_equal(old.decoded(tokens), new.decoded(tokens))
    again = new.encode(jerky)
    assert len(again.levels[0].codes) < len(tokens.levels[0].codes)
    bound = max(c["bound"] for c in again.header["channels"])
    assert np.abs(new.decoded(again) - jerky.read()[0]).max() <= bound


def test_silent_channels_hide_nothing_of_the_others():
    """A column that is empty throughout, and samples in which another says nothing, left no row to be judged by."""
    rng = np.random.default_rng(5)
    plain = np.cumsum(rng.normal(size=(400, 2)), 0)
    wide = np.concatenate(
        [plain, np.full((400, 1), np.nan), np.where(np.arange(400)[:, None] % 3, np.inf, plain[:, :1])], 1
    )
    tracks = [
        Track.of_array("proprio", v, Clock.regular(50, 400), channels=tuple("abcd"[: v.shape[1]]))
        for v in (plain, wide)
    ]
    state = NumericTokenizer.fit(tracks, NumericConfig(size=700)).state()
    alone, beside = (coded(state, [track]) for track in tracks)
    assert alone.error > 0
    assert (alone.samples, beside.samples) == (800, 800 + 134)
    assert beside.error == pytest.approx(alone.error, rel=0.2)
    eps = dict.fromkeys(("proprio/a", "proprio/b", "proprio/d"), 0.001)
    assert (beside.digits(eps) >= alone.digits(eps)).all()
    made = tokenizers.load(state)
    decoded = [made.decoded(made.encode(track)) for track in tracks]
    found = []
    for truth, now in zip((plain, wide[:, :3]), (decoded[0], decoded[1][:, :3]), strict=True):
        sums = Distortions()
        sums.add("numeric", tuple("abc"[: truth.shape[1]]), truth, truth, now, 8.0)
        found += sums.found()
    assert found[1].error == pytest.approx(found[0].error, rel=1e-9)
    assert found[1].eps == pytest.approx(found[0].eps, rel=1e-9)


def test_each_channel_of_numbers_is_judged_by_an_eps_of_its_own():
    """A torque beside a counter to a million costs the digits that it costs alone, not none."""
    rng = np.random.default_rng(6)
    torque, counter = np.sin(np.arange(500) / 7), np.arange(500.0) * 2000
    units = ("proprio/torque", "proprio/counter")
    truth = np.stack([torque, counter], 1)
    own = truth + rng.normal(size=truth.shape) * [0.01, 5000]
    now = own.copy()
    now[:, 0] = 0  # a vocabulary that says nothing of the torque
    found = []
    for some in ([0, 1], [0]):
        sums = Distortions()
        sums.add("numeric", tuple(units[k] for k in some), truth[:, some], own[:, some], now[:, some], 10.0)
        found += sums.found()
    both, alone = found
    error = float(np.sqrt(((own - truth)[:, 0] ** 2).mean()))
    assert both.by_unit["proprio/torque"] == alone.eps == pytest.approx(error / 2)
    assert both.digit_bits_per_second > alone.digit_bits_per_second > 200
    state = NumericTokenizer.fit([Track.of_array("proprio", truth, Clock.regular(50, 500))]).state()
    told = coded(state, [Track.of_array("proprio", truth, Clock.regular(50, 500))])
    half = {unit: size / 2 for unit, size in told.errors.items()}
    assert half["proprio/0"] < 1e-4 * half["proprio/1"]
    assert told.digits(half).sum() > 1.5 * told.digits({u: max(half.values()) for u in half}).sum()


def test_judged_in_bits(of_speech, grown):
    """What describes better costs less in all; codes that describe nothing cost their own bits."""
    from pantok.evolve import codebooks
    from pantok.evolve.judge import judge

    music = [sound("music/guitar.flac", 4.5)]
    before, after = judge(of_speech.state(), grown[0], music)
    assert after.bits < before.bits and after.error < before.error
    assert after.bits == pytest.approx(after.id_bits + after.digit_bits + after.cost.dictionary_bits_per_second)
    assert before.cost.dictionary_bits == 0 < after.cost.dictionary_bits
    useless = codebooks.appended(of_speech.state(), 8, np.full((64, 8), 900), 1 << 40, {"left.1": np.zeros(64)})
    before, after = judge(of_speech.state(), useless, music)
    assert after.bits > before.bits and after.error == before.error
    assert (
        judge(of_speech.state(), grown[0], music, serves=60.0)[1].bits
        > judge(of_speech.state(), grown[0], music)[1].bits
    )


def test_pictures_of_a_new_kind(vocabulary):
    """Robots after film: old streams decode as before, new codes are found, retired ones are not."""
    from itertools import islice

    from pantok.evolve import codebooks
    from pantok.formats.container import read_container
    from pantok.tokenizers.video import VideoTokenizer

    (track,) = read_container(SAMPLES / "robot" / "arm-01.mp4", size=48)
    frames = np.concatenate([b.values for b in islice(track.blocks(4), 8)])
    robot = Track.of_array(track.name, frames, Clock.regular(track.rate, len(frames)), info=track.info)
    old = load_vocabulary(vocabulary).states["video"]
    state, growths = grow(old, [robot], GrowConfig(most=16))
    assert state.descends(old) and sum(g.added for g in growths) >= 16
    first, later = VideoTokenizer.from_state(old), VideoTokenizer.from_state(state)
    assert later.state().digest == state.digest
    wide = {n.split(".")[1] for n in state.tensors if n.endswith(".basis") and n.startswith("life.")}
    assert wide and "coarse" not in wide, "the directions of latents stay"
    for name in wide:
        one, other = first.books.by_name[name], later.books.by_name[name]
        assert np.array_equal(other.basis[: len(one.basis)], one.basis)
        for mine, theirs in zip(other.codes, one.codes, strict=True):
            assert not mine[: len(theirs), len(one.basis) :].any()
    tensor = next(n for n in state.tensors if n.startswith("life.") and n.endswith(".beyond"))
    forged = {**state.tensors, tensor: state.tensors[tensor] + 1}
    later_still = codebooks.without(state, 4, np.array([0], np.uint32), np.array([1], np.uint32))
    assert later_still.descends(state) and not replace(state, tensors=forged).descends(state)
    tokens, again = first.encode(robot), later.encode(robot)
    assert np.array_equal(first.decoded(tokens), later.decoded(tokens))
    used = [k for k, lv in enumerate(again.levels) if (lv.codes >= old.levels[k].cardinality).any()]
    assert used
    level = used[-1]
    codes = np.unique(again.levels[level].codes)[1:].astype(np.uint32)
    without = VideoTokenizer.from_state(codebooks.without(state, level, codes, np.zeros_like(codes)))
    assert not np.isin(without.encode(robot).levels[level].codes, codes).any()
    assert np.array_equal(later.decoded(again), without.decoded(again))
