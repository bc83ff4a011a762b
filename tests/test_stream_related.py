"""Stores of vocabularies that were merged or pruned since are streamed and exported under the newest, by its tables."""

from dataclasses import replace

import numpy as np
import pytest

from pantok.errors import VocabularyError
from pantok.evolve import lineage
from pantok.formats.id_plan import Planner
from pantok.formats.sequences import read_sequences
from pantok.formats.store import Store
from pantok.layout import Layout, arrange
from pantok.loader import StreamDataset
from pantok.vocabulary import NOTHING, Vocabulary
from tests.store_streams import a_stream, a_vocabulary

LAB = a_vocabulary(seed=3)
HOME = a_vocabulary(seed=0)


def merged() -> Vocabulary:
    """HOME, grown by what it took over from LAB: half of LAB's codes are some of its own, half are new."""
    rng = np.random.default_rng(5)
    video = HOME.states["video"]
    tables, levels = {}, []
    for spec in video.levels:
        n, table = spec.cardinality, rng.permutation(spec.cardinality).astype(np.uint32)
        if spec.role == "code":
            table[n // 2 :] = np.arange(n, n + n - n // 2)
            spec = replace(spec, cardinality=n + n - n // 2)
        tables[spec.name] = table
        levels.append(spec)
    grown = HOME.with_state(replace(video, levels=tuple(levels)))
    return replace(grown, remaps={LAB.states["video"].digest: tables})


def pruned(vocabulary: Vocabulary) -> Vocabulary:
    state = vocabulary.states["audio"]
    gone = np.stack([np.arange(0, 200, 2), np.where(np.arange(0, 200, 2) % 3, 255, NOTHING)], 1).astype(np.uint32)
    tensors = {**state.tensors, "life.gain.retired": gone}
    return vocabulary.with_state(replace(state, tensors=tensors))


@pytest.fixture
def lab(tmp_path):
    """Episodes without text: the two have different text models."""
    store = Store.create(tmp_path / "lab.zarr", LAB)
    for number in range(3):
        stream = a_stream(number, LAB)
        store.write([replace(stream, tracks={n: t for n, t in stream.tracks.items() if t.modality != "text"})])
    return store


def expected(store: Store, newest: Vocabulary, in_use: bool) -> list[np.ndarray]:
    """Id by id: the sequences under the store's own vocabulary, each id looked up in the table of the lineage."""
    table = np.arange(store.vocabulary.size, dtype=np.int64)
    for modality, state in store.vocabulary.states.items():
        for k, spec in enumerate(state.levels):
            if modality != "text" and spec.role != "digit":
                table[store.vocabulary.table(modality, k)] = lineage.table(
                    newest, store.vocabulary, modality, k, in_use=in_use
                )
    return [table[arrange(store.read(n), Layout(), store.vocabulary).ids] for n in store.episodes]


@pytest.mark.parametrize("in_use", [False, True])
def test_ids_are_those_of_the_tables(lab, in_use):
    newest = pruned(merged())
    assert lineage.unread(newest, LAB) == []
    data = StreamDataset(lab.path, length=4096, shuffle=False, epochs=1, vocabulary=newest, in_use=in_use)
    found = np.concatenate([window["ids"].numpy().ravel() for window in data])
    whole = np.concatenate(expected(lab, newest, in_use))
    assert np.array_equal(found[: len(whole)], whole) and (found[len(whole) :] == newest.control("pad")).all()
    if in_use:
        assert set(np.unique(whole)) & set(np.flatnonzero(~newest.live())) <= {
            int(newest.table("audio", 0)[c]) for c in range(0, 200, 2) if c % 3 == 0
        }
    else:
        assert [s.ids.tolist() for s, _ in read_sequences(lab.path, Layout(), newest)] == [
            ids.tolist() for ids in expected(lab, newest, False)
        ]
    planned = Planner(lab.path, Layout(), newest, in_use).head(8)["columns"]
    listed = {(c["track"], c["level"]): c for c in planned}
    column = listed["video.front", 2]
    assert column["table"] == lineage.table(newest, LAB, "video", 2).tolist()


def test_two_stores_of_which_one_vocabulary_has_taken_over_the_other(lab, tmp_path):
    home = Store.create(tmp_path / "home.zarr", merged())
    stream = a_stream(9, merged())
    home.write([replace(stream, tracks={n: t for n, t in stream.tracks.items() if t.modality != "text"})])
    data = StreamDataset([lab.path, home.path], length=4096, shuffle=False, epochs=1, vocabulary=merged())
    assert data.vocabulary.id == merged().id
    ids = np.concatenate([w["ids"].numpy().ravel() for w in data])
    video = ids[np.isin(ids, merged().table("video", 2))]
    wanted = sum(len(s.tracks["video.front"].levels[2].codes) for st in (lab, home) for s in map(st.read, st.episodes))
    assert len(video) == wanted


def test_what_has_no_table_is_refused(lab, tmp_path):
    with pytest.raises(VocabularyError, match=f"{LAB.id[:12]}.*{HOME.id[:12]}"):
        StreamDataset(lab.path, vocabulary=HOME)
    words = Store.create(tmp_path / "words.zarr", LAB)
    words.write([a_stream(0, LAB)])
    wordless = Vocabulary.build({m: s for m, s in merged().states.items() if m != "text"})
    with pytest.raises(VocabularyError, match=LAB.id[:12]):
        Store.open(words.path, replace(wordless, remaps=merged().remaps))
