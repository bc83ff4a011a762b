"""What was written under the first of five vocabularies is read under the fifth, and what is not related is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok.encode import Codec
from pantok.errors import VocabularyError
from pantok.evolve import codebooks, lineage
from pantok.formats.store import Store
from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary
from pantok.vocabulary import NOTHING, Level, TokenizerState, Vocabulary
from tests.test_vocabulary_grown import audio, composition, grown, retired


def slow_id(newest: Vocabulary, ancestor: Vocabulary, number: int) -> int:
    """The id in `newest` of an id of `ancestor`, one at a time, from the definition."""
    modality, level, code = ancestor.locate(number)
    for candidate in range(newest.size):
        if newest.locate(candidate) == (modality, level, code):
            status, to = newest.status(candidate)
            return to if status == "deprecated" else candidate
    raise AssertionError(number)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["gain", "shape", "retire", "compose", "video"]), min_size=1, max_size=6))
def test_tables_equal_a_slow_reference(steps):
    vocabulary = Vocabulary.build({"audio": audio((4, 6))})
    history, rng = [vocabulary], np.random.default_rng(len(steps))
    for number, step in enumerate(steps):
        state = vocabulary.states["audio"]
        if step in ("gain", "shape"):
            vocabulary = vocabulary.with_state(grown(state, ("gain", "shape").index(step), 3, seed=number))
        elif step == "retire":
            alive = codebooks.in_use(state, 0)
            if len(alive) > 2:
                gone, to = rng.choice(alive, 2, replace=False)
                vocabulary = vocabulary.with_state(retired(state, 0, [(int(gone), int(to))]))
        elif step == "compose" and "composition" not in vocabulary.states:
            vocabulary = vocabulary.with_state(composition(4))
        elif step == "video" and "video" not in vocabulary.states:
            vocabulary = vocabulary.with_state(replace(audio((5, 5)), modality="video"))
        history.append(vocabulary)
    for ancestor in history:
        assert lineage.related(vocabulary, ancestor)
        got = lineage.ids(vocabulary, ancestor, in_use=True)
        assert got.tolist() == [slow_id(vocabulary, ancestor, n) for n in range(ancestor.size)]
        # Nothing was renumbered here, so that without redirection every id is itself.
        assert np.array_equal(lineage.ids(vocabulary, ancestor), np.arange(ancestor.size))


def test_tables_over_a_change_of_the_text_model():
    words = [TokenizerState("text", {}, (Level("text", n, "text"),), {}, {"model": bytes([n])}) for n in (90, 100)]
    old = Vocabulary.build({"text": words[0], "audio": audio()})
    new = Vocabulary.build({"text": words[1], "audio": grown(audio(), 0, 4)})
    got = lineage.ids(new, old)
    assert (got[:90] == NOTHING).all()
    assert got[old.control("eos")] == new.control("eos")
    assert new.locate(int(got[old.table("audio", 0)[3]])) == ("audio", 0, 3)


def test_a_merged_vocabulary_is_read_by_its_table():
    lab = Vocabulary.build({"audio": audio(seed=3)})
    home = Vocabulary.build({"audio": grown(audio(), 0, 4)})
    home = replace(home, remaps={lab.states["audio"].digest: {"gain": np.array([0, 8, 2, 9, 4, 10, 6, 11], np.uint32)}})
    assert lineage.related(home, lab)
    assert lineage.table(home, lab, "audio", 0).tolist() == home.table("audio", 0)[[0, 8, 2, 9, 4, 10, 6, 11]].tolist()


def test_the_unrelated_is_refused_and_both_are_named():
    home, lab = (Vocabulary.build({"audio": audio(seed=s)}) for s in (0, 3))
    with pytest.raises(VocabularyError) as caught:
        lineage.table(home, lab, "audio", 0)
    assert home.id[:12] in str(caught.value) and lab.id[:12] in str(caught.value)
    assert not lineage.related(home, lab)
    with pytest.raises(VocabularyError, match="there is none there"):
        lineage.table(Vocabulary.build({}), lab, "audio", 0)


@pytest.fixture
def five(vocabulary, tmp_path):
    """Five successive vocabularies on disk: as fitted, grown, with a composition, pruned, grown again."""
    first = load_vocabulary(vocabulary)
    state = first.states["audio"]
    level = codebooks.level_of(state, "gain.tick")
    made = [first]

    def more(state: TokenizerState, seed: int) -> TokenizerState:
        rows = np.random.default_rng(seed).integers(0, 200, (7, state.tensors["gain.tick"].shape[1]))
        state = codebooks.appended(state, level, rows, 50)
        shape = codebooks.level_of(state, "shape.1")
        rows = np.random.default_rng(seed).integers(-300, 300, (5, 8))
        return codebooks.appended(state, shape, rows, 900, {"left.1": np.full(5, -3)})

    made.append(made[-1].with_state(more(state, 1)))
    made.append(made[-1].with_state(composition(6)))
    made.append(made[-1].with_state(codebooks.without(made[-1].states["audio"], level, np.array([0]), np.array([1]))))
    made.append(made[-1].with_state(more(made[-1].states["audio"], 2)))
    paths = [tmp_path / f"v{k}.vocab" for k in range(5)]
    lines = []
    for k, (v, path) in enumerate(zip(made, paths, strict=True)):
        lines.append(lineage.line("grow" if k else "born", v, made[k - 1 : k] if k else []))
        save_vocabulary(v, path, lineage=lines)
    return paths


def test_a_store_of_the_first_reads_under_the_fifth(store, five):
    newest = load_vocabulary(five[-1])
    opened = Store.open(store, newest)
    own, later = Codec(opened.vocabulary), Codec(newest)
    for episode in opened.episodes:
        stream = opened.read(episode)
        for name, track in stream.tracks.items():
            mine = np.concatenate([b.values for b in own.decode(track)])
            theirs = np.concatenate([b.values for b in later.decode(track)])
            assert np.array_equal(mine, theirs), name
            for level, codes in enumerate(track.levels):
                table = lineage.table(newest, opened.vocabulary, track.modality, level)
                assert np.array_equal(table[codes.codes], opened.vocabulary.ids(track.modality, level, codes.codes)), (
                    name,
                    level,
                )
    tree = [load_vocabulary(path) for path in five]
    for k, v in enumerate(tree):
        assert all(v.reads(older) for older in tree[: k + 1]) and not any(v.decodes(newer) for newer in tree[k + 1 :])
    assert [entry["vocabulary_id"] for entry in read_lineage(five[-1])] == [v.id for v in tree]
    assert list(lineage.forebears(read_lineage(five[-1]), newest.states["audio"])) == [
        *dict.fromkeys(v.states["audio"].digest for v in tree)
    ]


def test_commands(five, pantok, tmp_path, store):
    done = pantok("vocab", "diff", five[0], five[4], "--json")
    assert done.code == 0 and '"reads": true' in done.out and "gain.tick" in done.out
    done = pantok("vocab", "diff", five[4], five[0])
    assert done.code == 3 and "does not read" in done.err
    done = pantok("vocab", "lineage", five[4])
    assert done.code == 0 and done.out.count("grow") == 4
    other = load_vocabulary(five[0])
    save_vocabulary(Vocabulary.build({"audio": audio()}), tmp_path / "other.vocab")
    done = pantok("vocab", "diff", tmp_path / "other.vocab", five[0])
    assert done.code == 3 and other.id[:12] in done.err
