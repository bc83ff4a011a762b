"""Codes made one or out of use: what was written stays, encoders avoid them, and what it costs is as was said."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import tokenizers
from pantok.errors import StoreError, VocabularyError
from pantok.evolve import codebooks, lineage
from pantok.evolve.merge import duplicates, join, usual_distance, with_text
from pantok.evolve.prune import entropy, prune
from pantok.experience import Clock, Track
from pantok.formats.id_plan import Planner
from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns
from pantok.formats.usage import count_codes
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.layout import Arranged, Layout
from pantok.layout_columns import Numbering
from pantok.loader import StreamDataset
from pantok.tokenizers.audio import AudioConfig, AudioTokenizer
from pantok.tokenizers.numeric import NumericConfig, NumericTokenizer
from pantok.tokenizers.text import TextTokenizer
from pantok.vocabulary import Level, TokenizerState, Vocabulary
from tests.test_vocabulary_grown import audio, grown


def noise(seed: int, seconds: float = 1.0, rate: int = 16000) -> Track:
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    tone = np.sin(np.arange(n) * 0.05 * (1 + seed)) * 8000 * (1 + np.sin(np.arange(n) / 900))
    values = np.clip(tone + rng.normal(size=n) * 900, -32768, 32767).astype(np.int16)[:, None]
    return Track.of_array("audio.mic", values, Clock.regular(rate, n))


def test_prune_counts_as_it_says():
    state = audio((6, 20))
    gains = np.array([[0, 0, 0], [10, 0, 0], [11, 0, 0], [0, 50, 0], [0, 52, 0], [90, 0, 0]], np.int16)
    state = replace(state, tensors={**state.tensors, "gain": gains})
    uses = np.array([400, 300, 2, 200, 4, 0])
    vocabulary = Vocabulary.build({"audio": state})
    pruned, (facts,) = prune(vocabulary, {("audio", 0): uses}, below=0.1)
    assert pruned.states["audio"].retired(0).tolist() == [[2, 1], [4, 3], [5, 1]]
    assert (facts.before, facts.after, facts.uses, facts.changed) == (6, 3, 906, 6)
    rows = gains.astype(float)
    now = np.array([400, 302, 0, 204, 0, 0])
    mean = (uses[:, None] * rows).sum(0) / 906
    spread = (uses * ((rows - mean) ** 2).sum(1)).sum()
    assert facts.added_error == pytest.approx((2 * 1 + 4 * 4) / spread)
    assert facts.bits_before == pytest.approx(entropy(uses)) and facts.bits_after == pytest.approx(entropy(now))
    assert pruned.extents == vocabulary.extents and pruned.decodes(vocabulary)
    # What was retired once counts for what stands for it; too few codes say nothing.
    again, report = prune(pruned, {("audio", 0): uses}, below=0.1)
    assert not report and again.id == pruned.id
    assert prune(vocabulary, {("audio", 0): uses // 50}, below=0.1)[1] == []
    # A code that came after the store was written is not rare for not being there.
    younger, (facts,) = prune(vocabulary, {("audio", 0): np.array([400, 300, 2, 200, 4, -1])}, below=0.1)
    assert younger.states["audio"].retired(0)[:, 0].tolist() == [2, 4] and facts.after == 4


def test_pruned_codes_are_not_chosen_and_old_streams_decode_as_before(vocabulary, store):
    old = load_vocabulary(vocabulary)
    state = old.states["audio"]
    track = noise(1)
    before = tokenizers.load(state)
    written = before.encode(track)
    counts = {
        ("audio", k): np.bincount(lv.codes, minlength=state.levels[k].cardinality)
        for k, lv in enumerate(written.levels)
    }
    new, report = prune(old, counts, below=0.9)
    assert len(report) >= 3
    after = tokenizers.load(new.states["audio"])
    assert np.array_equal(before.decoded(written), after.decoded(written))
    again = after.encode(track)
    for k, level in enumerate(again.levels):
        gone = new.states["audio"].retired(k)[:, 0]
        assert not np.isin(level.codes, gone).any(), k
    assert any(len(new.states["audio"].retired(k)) for k in range(len(state.levels)))
    assert tokenizers.load(after.state()).state().digest == new.states["audio"].digest
    assert codebooks.in_use(new.states["audio"], 1).size < state.levels[1].cardinality
    # The counts of a whole store, under a descendant of its vocabulary.
    found = count_codes(store, new)
    assert sum(int(n.clip(0).sum()) for n in found.values()) > 1000
    level = codebooks.level_of(new.states["audio"], "gain.tick")
    rows = np.zeros((2, new.states["audio"].tensors["gain.tick"].shape[1]))
    later = new.with_state(codebooks.appended(new.states["audio"], level, rows, 9))
    counted = count_codes(store, later)["audio", level]
    # Words of another text model are other words: they are not counted, and the store says what is not read.
    worded = with_text(new, TokenizerState("text", {}, (Level("text", 300, "text"),), {}))
    others = count_codes(store, worded)
    assert set(others) == {key for key in found if key[0] != "text"}
    np.testing.assert_array_equal(others["audio", level], found["audio", level])
    with pytest.raises(VocabularyError, match=r"whose audio .* does not read"):
        Store.open(store, Vocabulary.build({**new.states, "audio": audio(seed=5)}))
    assert counted[-2:].tolist() == [-1, -1] and np.array_equal(counted[:-2], found["audio", level])


def test_text_is_read_under_another_text_model(vocabulary, store):
    """Spelled anew: the same words at the same times, everything else as it was; from streams and from the files."""
    old = load_vocabulary(vocabulary)
    new = with_text(old, _words().state())
    opened = Store.open(store, new)
    mine, theirs = tokenizers.load(new.states["text"]), tokenizers.load(old.states["text"])
    assert mine.state().digest != theirs.state().digest and lineage.related(new, old)
    seen = 0
    for name in opened.episodes:
        written, read = opened.read(name), lineage.translated(new, old, opened.read(name))
        for track in written.tracks.values():
            other = read.tracks[track.name]
            if track.modality != "text":
                assert other is track or all(
                    np.array_equal(a.codes, b.codes) for a, b in zip(track.levels, other.levels, strict=True)
                )
                continue
            assert mine.decoded(other).tolist() == theirs.decoded(track).tolist()
            assert np.array_equal(other.clock.times_ns, track.clock.times_ns)
            seen += other.levels[0].codes.size
        sequence = Arranged(read, Layout(), new).cut()
        numbering = Numbering(Layout(), new).of_codes(old)
        from_files = Arranged(episode_columns(opened, name, numbering), Layout(), new, numbering).cut()
        for column in ("ids", "kind", "level", "time_ns"):
            assert np.array_equal(getattr(sequence, column), getattr(from_files, column)), column
    assert seen > 10
    data = StreamDataset(store, length=256, batch_size=2, vocabulary=new, rank=0, world=1)
    ids = data.batch(0, [0])["ids"]
    assert int(ids.max()) < new.size
    with pytest.raises(StoreError, match="another text model"):
        Planner(store, Layout(), new)


def test_a_level_loses_no_more_than_it_may():
    state = audio((6, 20))
    gains = np.array([[0, 0, 0], [10, 0, 0], [11, 0, 0], [0, 50, 0], [0, 90, 0], [90, 0, 0]], np.int16)
    vocabulary = Vocabulary.build({"audio": replace(state, tensors={**state.tensors, "gain": gains})})
    uses = np.array([400, 300, 2, 200, 4, 0])
    whole, (all_of_it,) = prune(vocabulary, {("audio", 0): uses}, below=0.1)
    assert whole.states["audio"].retired(0)[:, 0].tolist() == [2, 4, 5] and all_of_it.spared == 0
    for share, gone in ((1.0, [2, 4, 5]), (0.99, [2, 5]), (1e-9, [5])):
        most = share * all_of_it.added_error
        some, (facts,) = prune(vocabulary, {("audio", 0): uses}, below=0.1, max_loss=most)
        assert some.states["audio"].retired(0)[:, 0].tolist() == gone and facts.spared == 3 - len(gone)
        assert facts.added_error <= most and facts.after == 6 - len(gone)
    assert prune(vocabulary, {("audio", 0): np.maximum(uses, 1)}, below=0.1, max_loss=0.0)[1] == []


def test_the_command_states_the_loss_and_bounds_it(pantok, vocabulary, store, tmp_path):
    out, more = tmp_path / "small.vocab", tmp_path / "smaller.vocab"
    done = pantok(
        "vocab", "prune", vocabulary, "--on", store, "-o", out, "--below", "0.9", "--max-loss", "0.01", "--json"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert {"added error", "spared"} <= set(said["levels"][0]) and 0 < said["after"]["worst_added_error"] <= 0.01
    assert load_vocabulary(out).reads(load_vocabulary(vocabulary))
    forced = pantok("vocab", "prune", vocabulary, "--on", store, "-o", more, "--below", "0.9", "--force", "--json")
    shown = pantok("vocab", "prune", vocabulary, "--on", store, "-o", tmp_path / "y", "--below", "0.9", "--dry-run")
    assert "added error" in shown.err and not (tmp_path / "y").exists()
    assert forced.code == 0 and json.loads(forced.out)["after"]["worst_added_error"] > 0.01
    assert int(load_vocabulary(more).live().sum()) < int(load_vocabulary(out).live().sum())
    none = pantok("vocab", "prune", out, "--on", store, "-o", tmp_path / "x", "--below", "0", "--max-loss", "0")
    assert none.code == 2 and "--max-loss" in none.err and not (tmp_path / "x").exists()
    lineage = pantok("vocab", "lineage", out)
    assert "prune" in lineage.out and "ids_in_use" in lineage.out


def sounds(seed: int) -> AudioTokenizer:
    return AudioTokenizer.fit(
        [noise(seed, 6.0), noise(seed + 1, 6.0)], AudioConfig(size=32, tick_size=16, seconds=12.0)
    )


@pytest.fixture(scope="module")
def two() -> tuple[AudioTokenizer, AudioTokenizer]:
    return sounds(0), sounds(5)


def test_two_vocabularies_of_one_transform_become_one(two):
    home, lab = (Vocabulary.build({"audio": t.state()}) for t in two)
    both, facts = join(home, lab)
    assert both.reads(home) and not both.decodes(lab) and lineage.related(both, lab)
    appended = sum(f.appended for f in facts)
    assert both.size == home.size + appended and appended > 0
    assert sum(f.codes for f in facts) == appended + sum(f.shared for f in facts)
    # Every code of the second is a code here that decodes to nearly the same.
    state = both.states["audio"]
    for level, spec in enumerate(lab.levels("audio")):
        there = codebooks.vectors(lab.states["audio"], level)
        codes = lineage.codes_of(both, lab, "audio", level)
        assert len(codes) == spec.cardinality and int(codes.max()) < state.levels[level].cardinality
        if there is not None:
            (fact,) = [f for f in facts if f.level == spec.name]
            gap = np.sqrt(((codebooks.vectors(state, level)[codes] - there) ** 2).sum(1))
            assert gap.max() <= 0.25 * fact.usual + 1e-6
            fresh = codes >= home.levels("audio")[level].cardinality
            assert fresh.sum() == fact.appended and (gap[fresh] == 0).all()
    # It describes what the second was made for better than the first does, and what the first was made for as before.
    joined = tokenizers.load(state)
    for track, least in ((noise(5), 0.5), (noise(0), -0.3)):
        truth = track.read()[0].astype(float)
        errors = [((truth - t.decoded(t.encode(track))) ** 2).sum() for t in (two[0], joined)]
        assert 10 * np.log10(errors[0] / errors[1]) > least
    assert join(both, home)[0].id == both.id
    assert join(both, lab)[0].size - both.size < appended / 4


def test_what_was_written_under_an_ancestor_of_the_second_is_read_too(two):
    home, lab = (Vocabulary.build({"audio": t.state()}) for t in two)
    level = codebooks.level_of(lab.states["audio"], "gain.tick")
    rows = np.full((3, lab.states["audio"].tensors["gain.tick"].shape[1]), 17)
    later = lab.with_state(codebooks.appended(lab.states["audio"], level, rows, 10))
    lines = [lineage.line("born", lab, []), lineage.line("grow", later, [lab])]
    both, _ = join(home, later, lineage=lines)
    old, new = (lineage.codes_of(both, v, "audio", level) for v in (lab, later))
    assert np.array_equal(old, new[: len(old)]) and len(new) == len(old) + 3


def test_near_duplicates_become_one():
    state = audio((7, 20))
    gains = np.array([[0, 0, 0], [100, 0, 0], [101, 0, 0], [0, 100, 0], [0, 101, 0], [0, 99, 0], [0, 0, 50]], np.int16)
    state = replace(state, tensors={**state.tensors, "gain": gains})
    vocabulary = Vocabulary.build({"audio": state})
    usual = usual_distance(gains.astype(float))
    assert usual == 1.0
    assert duplicates(vocabulary, within=0.5)[1] == []
    merged, facts = duplicates(vocabulary, within=1.0)
    assert merged.states["audio"].redirects(0).tolist() == [0, 1, 1, 3, 3, 3, 6]
    (fact,) = [f for f in facts if f.level == "gain"]
    assert (fact.codes, fact.shared, fact.difference) == (7, 3, 1.0)
    assert merged.decodes(vocabulary) and merged.extents == vocabulary.extents
    counts = {("audio", 0): np.array([1, 1, 9, 0, 5, 0, 1])}
    merged, _ = duplicates(vocabulary, within=1.0, counts=counts)
    assert merged.states["audio"].redirects(0)[[1, 2, 4]].tolist() == [2, 2, 4]


def numbers(seed: int) -> Vocabulary:
    rng = np.random.default_rng(seed)
    t = np.arange(1500) / 50
    values = np.stack([np.sin(t * (1 + seed)) + rng.normal(size=1500) * 0.01, np.floor(t * 3) % (4 + seed)], 1)
    track = Track.of_array("proprio.arm", values.astype(np.float32), Clock.regular(50, 1500), channels=("a", "b"))
    return Vocabulary.build({"numeric": NumericTokenizer.fit([track], NumericConfig(size=1400, rounds=1)).state()})


def test_pieces_of_numbers_are_joined_exactly():
    home, lab = numbers(0), numbers(3)
    both, (fact,) = join(home, lab)
    assert both.reads(home) and fact.shared + fact.appended == fact.codes
    mine, theirs = (NumericTokenizer.from_state(v.states["numeric"]).pieces for v in (both, lab))
    codes = lineage.codes_of(both, lab, "numeric", 0)
    assert all(mine.expansion(int(codes[k])) == theirs.expansion(k) for k in range(theirs.size))


def test_transforms_that_differ_are_refused(two):
    home = Vocabulary.build({"audio": two[0].state()})
    state = two[1].state()
    lab = Vocabulary.build({"audio": replace(state, tensors={**state.tensors, "tilt": state.tensors["tilt"] + 1})})
    with pytest.raises(VocabularyError, match=r"their tilt differ.*vocab grow"):
        join(home, lab)
    words = [TokenizerState("text", {}, (Level("text", n, "text"),), {}, {"model": b"m"}) for n in (90, 100)]
    with pytest.raises(VocabularyError, match="name the text model to keep"):
        join(Vocabulary.build({"text": words[0]}), Vocabulary.build({"text": words[1]}))


HOSTILE = (
    "<video> <v0:7> <|visual token 7|> [audio_0_12] <0x41> \x00\x01 <bos></s><pad> audio:gain.tick:5 level_3 "
    "act_begin tick 831 id831 <extra_id_0> ▁▁ \ud7ff \U0001f600 ﷽ <|endoftext|> video_begin\tlatent"
)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_forges_a_code(text):
    """Whatever is written, its ids are the text model's own: below the first control id, with codes all around."""
    model = _words()
    vocabulary = Vocabulary.build({"text": model.state(), "audio": audio()})
    grown_one = vocabulary.with_state(grown(audio(), 0, 5))
    for said in (text, HOSTILE, HOSTILE + text, " ".join(e.name for e in grown_one.extents) + text):
        track = Track.of_array("text.caption", np.array([said], object), Clock.of_times(np.zeros(1, np.int64)))
        (level,) = model.encode(track).levels
        ids = grown_one.ids("text", 0, level.codes)
        assert not len(ids) or int(ids.max()) < grown_one.control("bos")
        assert {grown_one.locate(int(i))[0] for i in ids} <= {"text"}


_MODEL: list[TextTokenizer] = []


def _words() -> TextTokenizer:
    if not _MODEL:
        corpus = [HOSTILE, "The rabbit looks around. " * 20, "audio video level code id token 0 1 2 3 4 5 6 7 8 9"]
        times = Clock.of_times(np.arange(3, dtype=np.int64))
        track = Track.of_array("text.caption", np.array(corpus, object), times)
        _MODEL.append(TextTokenizer.fit([track], tokenizers.config_of("text", {"size": 400})))
    return _MODEL[0]


def test_merge_command(pantok, vocabulary, tmp_path, two):
    for name, t in zip(("home", "lab"), two, strict=True):
        save_vocabulary(Vocabulary.build({"audio": t.state()}), tmp_path / name)
    done = pantok("vocab", "merge", tmp_path / "home", tmp_path / "lab", "-o", tmp_path / "both", "--duplicates")
    assert done.code == 0, done.err
    home, lab, both = (load_vocabulary(tmp_path / n) for n in ("home", "lab", "both"))
    assert both.reads(home) and lineage.related(both, lab)
    assert "Ids are unchanged from" in done.err
    gone = pantok("vocab", "merge", tmp_path / "home", tmp_path / "none", "-o", tmp_path / "x")
    assert gone.code == 1 and "none: there is no such vocabulary" in gone.err
