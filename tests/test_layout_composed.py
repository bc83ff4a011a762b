"""A store read under a vocabulary with compositions: any part of the composed sequence, which expands to the plain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pantok import layout_composed
from pantok.evolve.compose import ComposeConfig, Corpus, learn
from pantok.evolve.compositions import Compositions, with_compositions
from pantok.evolve.objective import Passage
from pantok.formats import store_laid
from pantok.formats.sequences import read_sequences
from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.layout import COLUMNS, Layout, arrange
from pantok.layout_columns import Numbering
from pantok.loader import StreamDataset
from pantok.vocabulary import Vocabulary


@pytest.fixture(scope="module", params=["level", "unit"])
def composed(request: pytest.FixtureRequest, store: Path) -> Vocabulary:
    own = load_vocabulary(store / "vocabulary")
    config = ComposeConfig(merges=200, least=2, across=request.param)
    corpus = Corpus.of(list(read_sequences(store, Layout.preset("default"), own)), config.across)
    return with_compositions(own, learn(corpus, own.size, config))


@pytest.mark.parametrize("latents", [False, True])
def test_any_part_is_a_part_of_the_whole_and_expands_to_what_was_stored(
    store: Path, composed: Vocabulary, monkeypatch: pytest.MonkeyPatch, latents: bool
) -> None:
    monkeypatch.setattr(layout_composed, "_SPAN", 64)
    monkeypatch.setattr(layout_composed, "_AT_ONCE", 300)
    here, opened = Store.open(store, composed), Compositions.of(composed)
    layout = Layout(latents=latents)
    numbering = Numbering(layout, composed)
    rng = np.random.default_rng(0)
    for name in here.episodes:
        episode = layout_composed.arranged(episode_columns(here, name, numbering), numbering)
        assert isinstance(episode, layout_composed.Composed)
        plain = arrange(here.read(name), layout, composed)
        whole = opened.sequence(plain)
        assert len(episode) == len(whole) < len(plain)
        np.testing.assert_array_equal(opened.expand(episode.cut().ids)[0], plain.ids)
        for _ in range(20):
            start, stop = np.sort(rng.integers(0, len(whole) + 1, 2)).tolist()
            part, expected = episode.cut(start, stop), whole.cut(start, stop)
            for field in ("ids", "kind", "level", "track", "time_ns", "role"):
                np.testing.assert_array_equal(getattr(part, field), getattr(expected, field), field)
            assert {n: v.tolist() for n, v in part.latents.items() if len(v)} == {
                n: v.tolist() for n, v in expected.latents.items() if len(v)
            }


def test_many_ids_in_a_row_are_composed_as_merge_after_merge() -> None:
    rng = np.random.default_rng(3)
    for length in (1, 2, 40, 400, 4000):
        ids = np.minimum(rng.geometric(0.3, length), 9)
        corpus = Corpus(Passage(ids, np.zeros(length, np.int64), np.ones(1)), rng.random(length) > 0.01)
        pairs = learn(corpus, 10, ComposeConfig(merges=60, least=2, longest=64))
        for expected, found in zip(pairs.apply(ids, corpus.joins), pairs.read(ids, corpus.joins), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("latents", [False, True])
def test_a_column_says_the_same_whatever_others_are_wanted(
    store: Path, composed: Vocabulary, monkeypatch: pytest.MonkeyPatch, latents: bool
) -> None:
    monkeypatch.setattr(store_laid.LaidEpisodes, "keeps", False)
    options = {"length": 64, "epochs": 1, "vocabulary": composed}
    whole = list(StreamDataset(store, Layout(latents=latents), **options))
    for names in (*([name] for name in COLUMNS), ["role", "document"]):
        for batch, expected in zip(
            StreamDataset(store, Layout(latents=latents), columns=names, **options), whole, strict=True
        ):
            assert batch.keys() & COLUMNS.keys() == set(names)
            for name in names:
                np.testing.assert_array_equal(batch[name].numpy(), expected[name].numpy(), name)


def test_the_loader_reads_an_old_store_under_it(store: Path, composed: Vocabulary) -> None:
    plain, later = (StreamDataset(store, length=64, shuffle=False, epochs=1, vocabulary=v) for v in (None, composed))
    pad, opened = composed.control("pad"), Compositions.of(composed)
    batches = list(later)
    assert later.windows.ids < plain.windows.ids
    ids = np.concatenate([b["ids"].numpy().ravel() for b in batches])
    masked = np.concatenate([b["loss_mask"].numpy().ravel() for b in batches])
    np.testing.assert_array_equal(masked, (ids != pad) & (ids != composed.control("bos")))
    expected = np.concatenate([b["ids"].numpy().ravel() for b in plain])
    np.testing.assert_array_equal(opened.expand(ids[ids != pad])[0], expected[expected != pad])
    documents = [b["document"].numpy() for b in batches]
    assert all(((d >= 0) == (b["ids"].numpy() != pad)).all() for d, b in zip(documents, batches, strict=True))


def test_stream_reads_under_a_later_vocabulary(store: Path, composed: Vocabulary, tmp_path: Path, pantok) -> None:
    save_vocabulary(composed, tmp_path / "later.vocab")
    done = pantok("stream", store, "--vocab", tmp_path / "later.vocab", "--format", "jsonl", "--length", 256)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert max(max(line["ids"]) for line in lines) >= load_vocabulary(store / "vocabulary").size
    refused = pantok("stream", store, "--vocab", tmp_path / "later.vocab", "--format", "plan")
    assert refused.code != 0 and "composes ids" in refused.err
