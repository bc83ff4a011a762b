"""Sequences that are laid out once: they say what arranging says, wherever they are kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pantok import layout_laid
from pantok import layout_laid_kernels as kernels
from pantok.evolve.compose import ComposeConfig, Corpus, learn
from pantok.evolve.compositions import Compositions, with_compositions
from pantok.formats import store_laid
from pantok.formats.sequences import read_sequences
from pantok.formats.store import Store
from pantok.formats.store_columns import episode_columns
from pantok.formats.store_laid import LaidEpisodes, arrange
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.layout import Arranged, Columns, Layout, TokenSequence, write
from pantok.layout_columns import Numbering
from pantok.layout_laid import Laid, lay_out
from pantok.loader import StreamDataset
from pantok.vocabulary import Vocabulary
from tests.store_streams import a_stream, a_vocabulary

FIELDS = ("ids", "kind", "level", "track", "time_ns", "role")
LAYOUTS = [
    Layout(), Layout(latents=True, marks="needed"), Layout(marks="none"), Layout(step_ids=40, latents=True),
    Layout(max_ids={"video": 9}),
]  # fmt: skip


@pytest.fixture(scope="module", params=["level", "unit", "track"])
def composed(request: pytest.FixtureRequest, store: Path) -> Vocabulary:
    own = load_vocabulary(store / "vocabulary")
    config = ComposeConfig(merges=200, least=2, across=request.param)
    corpus = Corpus.of(list(read_sequences(store, Layout.preset("default"), own)), config.across)
    return with_compositions(own, learn(corpus, own.size, config))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stores of what numpy drew, with vectors, in a vocabulary of more than 65,536 ids."""
    paths = [tmp_path_factory.mktemp("laid") / f"{name}.zarr" for name in "ab"]
    for n, path in enumerate(paths):
        Store.create(path, a_vocabulary()).write(a_stream(10 * n + k, a_vocabulary(), 12 + k) for k in range(5))
    return paths


def check_parts(laid: Laid, expected: TokenSequence) -> None:
    assert len(laid) == len(expected)
    rng = np.random.default_rng(0)
    cuts = [(0, len(laid)), *np.sort(rng.integers(0, len(laid) + 1, (12, 2)), 1).tolist()]
    for start, stop in cuts:
        part, whole = laid.cut(start, stop), expected.cut(start, stop)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(part, field), getattr(whole, field), field)
        for track, values in whole.latents.items():
            np.testing.assert_array_equal(part.latents.get(track, values[:0]), values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_laid_out_says_what_arranging_says(
    store: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.setattr(layout_laid, "_AT_ONCE", 100)
    opened, held = [Store.open(store), Store.open(made[0])], set()
    for here, name in [(one, name) for one in opened for name in one.episodes]:
        numbering = Numbering(layout, here.vocabulary)
        plain = Arranged(episode_columns(here, name, numbering), layout, here.vocabulary, numbering)
        laid = lay_out(plain, numbering)
        assert laid is not None and len(laid.runs) < len(laid)
        assert laid.has_latents == plain.has_latents
        held.add(laid.has_latents)
        check_parts(laid, plain.cut())
        masks = []
        for episode in (plain, laid):
            columns = Columns.empty(len(plain), ["loss_mask", "document"])
            places = np.array([[episode.address, 0, len(plain), 0, 0, 7]])
            write([episode], places, np.zeros((1, 256), np.uint8), columns)
            masks.append(columns.loss_mask)
            assert (columns.document == 7).all()
        np.testing.assert_array_equal(*masks)
    assert (True in held) == layout.latents


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_composed_ids_are_laid_out_as_composing_the_sequence_gives_them(
    store: Path, composed: Vocabulary, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    monkeypatch.setattr(layout_laid, "_AT_ONCE", 100)
    here, opened = Store.open(store, composed), Compositions.of(composed)
    numbering = Numbering(layout, composed)
    for name in here.episodes:
        plain = Arranged(episode_columns(here, name, numbering), layout, composed, numbering)
        laid, expected = lay_out(plain, numbering), opened.sequence(plain.cut())  # merge after merge
        assert laid is not None and len(expected) < len(plain)
        check_parts(laid, expected)


def test_composed_ids_keep_their_vectors(made: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_laid, "_AT_ONCE", 100)
    layout, own = Layout(latents=True), a_vocabulary()
    config = ComposeConfig(merges=50, least=2)
    later = with_compositions(
        own, learn(Corpus.of(list(read_sequences(made[0], layout, own)), "level"), own.size, config)
    )
    here, opened, numbering, held = Store.open(made[0], later), Compositions.of(later), Numbering(layout, later), 0
    for name in here.episodes:
        plain = Arranged(episode_columns(here, name, numbering), layout, later, numbering)
        laid, expected = lay_out(plain, numbering), opened.sequence(plain.cut())
        assert laid is not None and len(expected) < len(plain)
        check_parts(laid, expected)
        held += sum(map(len, expected.latents.values()))
    assert held


def test_ids_take_two_bytes_where_they_can(store: Path) -> None:
    own = Store.open(store).vocabulary
    name = next(iter(Store.open(store).episodes))
    for size, width in ((own.size, 2), (1 << 17, 4)):
        named = np.arange(own.size, size)
        later = with_compositions(own, Compositions(named, np.zeros((len(named), 2), np.int64)))
        numbering = Numbering(Layout(), later)
        plain = Arranged(episode_columns(Store.open(store), name, numbering), Layout(), later, numbering)
        laid = lay_out(plain, numbering)
        assert laid is not None and laid.ids.itemsize == width
        check_parts(laid, plain.cut())


def batches(store: Path, vocabulary: Vocabulary | None = None, **options: object) -> list[np.ndarray]:
    data = StreamDataset(store, length=64, batch_size=3, epochs=1, vocabulary=vocabulary, **options)
    return [batch[name].numpy() for batch in data for name in ("ids", "level", "time_ns", "role", "document", "parts")]


def same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_packs_in_the_cache_are_read_as_what_they_were_made_of(
    store: Path, composed: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "s.zarr"
    shutil.copytree(store, here)
    with monkeypatch.context() as without:
        without.setattr(LaidEpisodes, "keeps", False)
        expected = batches(here, composed)
    assert not list(here.glob(".cache/laid-*/*")), "nothing is written where nothing is kept"
    monkeypatch.setattr(store_laid, "_WORTH_KEEPING", 1)
    monkeypatch.setattr(store_laid, "_PACK", 1)  # a pack an episode
    made = batches(here, composed)
    packs = sorted(here.glob(".cache/laid-*/*"))
    assert len(packs) == len(Store.open(here).episodes) and all(p.suffix == ".pack" for p in packs)
    bytes_of = [p.read_bytes() for p in packs]
    with monkeypatch.context() as later:
        later.setattr(store_laid, "lay_out", None)  # no episode is laid out again
        read = [batches(here, composed, io=io) for io in ("mmap", "pread")]
    packs[0].write_bytes(bytes_of[0][:-20])  # a pack that is none is made again
    packs[1].unlink()
    again = batches(here, composed)
    assert [p.read_bytes() for p in packs] == bytes_of
    monkeypatch.setattr(store_laid._Stage, "close", lambda self: False)  # a disk that is full
    for pack in packs:
        pack.unlink()
    unwritten = batches(here, composed)
    for found in (made, *read, again, unwritten):
        assert same(found, expected)


def test_jobs_read_what_the_command_laid_out(
    store: Path, composed: Vocabulary, tmp_path: Path, pantok, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "s.zarr"
    shutil.copytree(store, here)
    plain, latents = batches(here), batches(here, layout=Layout(latents=True))
    assert not list(here.glob(".cache/laid-*")), "a plain job lays nothing out"
    (tmp_path / "l.toml").write_text("latents = true\n")
    save_vocabulary(composed, tmp_path / "later.vocab")
    for words in ([], ["--layout", tmp_path / "l.toml"], ["--vocab", tmp_path / "later.vocab"]):
        said = json.loads(pantok("store", "arrange", here, "--json", *words).out)
        assert said["laid"] == said["episodes"] == len(Store.open(here)) and said["swept"] == 0
        assert json.loads(pantok("store", "arrange", here, "--json", *words).out)["laid"] == 0
    assert pantok("verify", here).code == 0
    expected = batches(here, composed)
    with monkeypatch.context() as later:
        later.setattr("pantok.loader_source.episode_columns", None)  # no code is looked at
        assert same(batches(here), plain) and same(batches(here, composed), expected)
        assert same(batches(here, threads=2, io="pread"), plain)
    assert same(batches(here, layout=Layout(latents=True)), latents)
    assert same(batches([here, store]), batches([store, store])), "laid out and not, in one batch"
    pack = next(p for p in here.glob(".cache/laid-*/*.pack"))
    pack.write_bytes(pack.read_bytes()[:-1000] + b"?" + pack.read_bytes()[-999:])
    found = pantok("verify", here)
    assert found.code == 3 and str(pack.relative_to(here)) in found.out


def test_vectors_stand_in_the_order_of_their_placeholders_whatever_is_laid_out(
    made: list[Path], tmp_path: Path
) -> None:
    layout, here = Layout(latents=True), tmp_path / "a.zarr"
    shutil.copytree(made[0], here)
    arrange(Store.open(here), layout)
    found, expected = (
        list(StreamDataset([one, made[1]], layout, length=64, batch_size=12, epochs=1)) for one in (here, made[0])
    )
    assert any(b["latents"] and len(set(b["source"].tolist())) > 1 for b in expected)
    for batch, whole in zip(found, expected, strict=True):
        assert batch["latents"].keys() == whole["latents"].keys() and torch.equal(batch["ids"], whole["ids"])
        assert all(torch.equal(batch["latents"][track], values) for track, values in whole["latents"].items())


def test_only_what_is_new_is_laid_out_and_what_is_gone_is_removed(store: Path, tmp_path: Path) -> None:
    here = tmp_path / "s.zarr"
    own = Store.open(store)
    names = list(own.episodes)
    Store.create(here, own.vocabulary).write([own.read(names[0])])
    assert arrange(Store.open(here), Layout()).laid == 1
    Store.open(here).write([own.read(name) for name in names[1:]])
    done = arrange(Store.open(here), Layout())
    assert done.laid == len(names) - 1 and done.ids == StreamDataset(here).windows.ids
    Store.open(here).remove([names[0]])
    gone = arrange(Store.open(here), Layout())
    assert (gone.episodes, gone.laid, gone.swept) == (len(names) - 1, 0, 1)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=16, max_size=400), st.integers(0, 3000), st.integers(1, 2500), st.integers(0, 2**31 - 1))
def test_runs_that_say_anything_write_nothing_beyond_their_part(junk: bytes, first: int, n: int, mark: int) -> None:
    runs = np.frombuffer(junk[: len(junk) // 16 * 16], "<i8").reshape(-1, 2).copy()
    ids = np.arange(first + n, dtype=np.uint16)
    marks = np.full(len(ids) // kernels.EVERY + 1, mark, np.int32)
    laid = Laid(ids, runs, marks, ("a",), (lambda lo, hi: np.zeros((hi - lo, 1), np.float16),), 3)
    columns = Columns.empty(n + 200)
    for column in vars(columns).values():
        column[:] = 1
    places = np.array([[laid.address, first, first + n, 100, 0, 5]])
    rows = np.empty((n, 3), np.int64)
    kernels.write(
        places, np.zeros((1, 256), np.uint8), n + 200, columns.ids, columns.kind, columns.level, columns.track,
        columns.role, columns.time_ns, columns.loss_mask, columns.document, rows,
    )  # fmt: skip
    for name, column in vars(columns).items():
        assert (column[:100] == 1).all() and (column[100 + n :] == 1).all(), name
    assert (columns.document[100 : 100 + n] == 5).all()
