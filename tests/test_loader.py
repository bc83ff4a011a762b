"""The loader: every window once, whatever the ranks, workers and interruptions; what a batch holds."""

from __future__ import annotations

from copy import copy
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pantok.errors import OptionError, StoreError
from pantok.formats.store import Store
from pantok.layout import COLUMNS, KINDS, Layout, arrange
from pantok.loader import StreamDataset, Windows
from pantok.loader_memory import Memory
from tests.store_streams import a_stream, a_vocabulary

VOCABULARY = a_vocabulary()
EPISODES = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loader") / "s.zarr"
    Store.create(path, VOCABULARY).write(a_stream(n, VOCABULARY, 12 + n) for n in range(EPISODES))
    return path


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 400), min_size=1, max_size=20),
    length=st.integers(2, 150),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_windows_hold_every_id_once(lengths: list[int], length: int, seed: int, epoch: int, shuffle: bool) -> None:
    windows = Windows(lengths, length, seed, shuffle)
    seen = [np.zeros(n, int) for n in lengths]
    short = 0
    for index in range(len(windows)):
        parts = windows.parts(epoch, index)
        size = sum(p.stop - p.start for p in parts)
        short += size < length
        assert 0 < size <= length
        for part in parts:
            seen[part.episode][part.start : part.stop] += 1
    assert all((s == 1).all() for s in seen) and short <= 1
    # A pure function: asked again in another order, by another object, the answers are the same.
    again = Windows(lengths, length, seed, shuffle)
    again.parts(epoch + 1, 0)
    assert [again.parts(epoch, i) for i in range(len(again))] == [windows.parts(epoch, i) for i in range(len(windows))]


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(50, 90))
    first = [Windows(lengths, 64, 0, True).parts(0, i) for i in range(5)]
    assert first != [Windows(lengths, 64, 0, True).parts(1, i) for i in range(5)]
    assert first != [Windows(lengths, 64, 1, True).parts(0, i) for i in range(5)]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_window_is_lost_or_repeated_over_ranks_and_interruptions(store: Path, data: st.DataObject) -> None:
    """A job runs on some ranks, stops, and goes on with others: together one epoch, each window once."""
    seen: list[int] = []
    state = None
    opened = StreamDataset(store, length=97, batch_size=1, rank=0, world=1, epochs=1)
    total = len(opened.windows)
    while state is None or state["epoch"] == 0:
        world, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        ranks = [copy(opened) for _ in range(world)]  # what it has open is shared, which is quicker
        for number, rank in enumerate(ranks):
            rank.rank, rank.world, rank.batch_size = number, world, size
        steps = data.draw(st.integers(1, 6))
        for rank in ranks:
            if state is not None:
                rank.load_state_dict(state)
        foreseen = ranks[0].state_after(steps)
        for rank in ranks:
            seen += [w for batch in islice(rank, steps) for w in batch["window"].tolist()]
        if ranks[0].state_dict()["epoch"] == 0:
            assert ranks[0].state_dict() == foreseen
        state = ranks[0].state_dict()
    assert sorted(seen) == list(range(total))


def test_workers_change_nothing(store: Path) -> None:
    data = StreamDataset(store, length=128, batch_size=2, epochs=2, seed=4)
    alone = list(data)
    shared = list(DataLoader(StreamDataset(store, length=128, batch_size=2, epochs=2, seed=4), None, num_workers=2))
    assert len(alone) == len(shared) == 2 * len(data)
    for a, b in zip(alone, shared, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if key != "latents":
                assert value == b[key] if key == "tracks" else torch.equal(value, b[key]), key


def test_a_batch_holds_what_the_layout_says(store: Path) -> None:
    layout = Layout(latents=True, step_s=0.5)
    opened = Store.open(store)
    whole = [arrange(opened.read(e), layout, VOCABULARY) for e in opened.episodes]
    data = StreamDataset(store, layout, length=200, batch_size=3, epochs=1, shuffle=False)
    batches = list(data)
    ids = np.concatenate([b["ids"].numpy().reshape(-1) for b in batches])
    document = np.concatenate([b["document"].numpy().reshape(-1) for b in batches])
    assert np.array_equal(ids[document >= 0], np.concatenate([w.ids for w in whole]))
    assert (ids[document < 0] == VOCABULARY.control("pad")).all() and len(ids) % 200 == 0
    names = [np.array([*b["tracks"], *[""] * 256])[:256][b["track"].numpy()].reshape(-1) for b in batches]
    names_of = [np.array([*w.tracks, *[""] * 256])[:256][w.track] for w in whole]
    assert np.array_equal(np.concatenate(names)[document >= 0], np.concatenate(names_of))
    for name, key in (("kind", "kind"), ("level", "level"), ("time_ns", "time_ns")):
        column = np.concatenate([b[key].numpy().reshape(-1) for b in batches])[document >= 0]
        assert np.array_equal(column, np.concatenate([getattr(w, name) for w in whole]))
    latents = np.concatenate([b["latents"]["audio.mic"].numpy() for b in batches if "audio.mic" in b["latents"]])
    assert np.array_equal(latents, np.concatenate([w.latents["audio.mic"] for w in whole if "audio.mic" in w.latents]))
    for batch in batches:
        bounds = batch["cu_seqlens"].numpy()
        assert bounds[0] == 0 and bounds[-1] == batch["ids"].numel() and (np.diff(bounds) > 0).all()
        flat = batch["document"].reshape(-1).numpy() + 1000 * np.repeat(np.arange(len(batch["ids"])), 200)
        assert np.array_equal(np.flatnonzero(np.diff(flat)) + 1, bounds[1:-1])
        masked = batch["ids"][~batch["loss_mask"]].unique().tolist()
        assert set(masked) <= {VOCABULARY.control(n) for n in ("bos", "pad", "latent")}
        is_latent = batch["kind"] == KINDS.index("latent")
        assert int(is_latent.sum()) == sum(len(v) for v in batch["latents"].values())


@pytest.mark.parametrize(
    "layout", [Layout(), Layout(latents=True, step_s=0.5, marks="all"), Layout(step_ids=9), Layout(marks="none")]
)
def test_a_column_says_the_same_whatever_others_are_wanted(
    store: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"length": 200, "batch_size": 3, "epochs": 1, "io": "pread"}
    whole = list(StreamDataset(store, layout, **options))
    always = whole[0].keys() - COLUMNS.keys()
    assert whole[0].keys() - always == COLUMNS.keys()
    taken: list[int] = []
    take = Memory.take
    monkeypatch.setattr(Memory, "take", lambda self, size: taken.append(size) or take(self, size))
    for names in (*([name] for name in COLUMNS), ["loss_mask", "time_ns"], ["kind", "ids", "kind"]):
        taken.clear()
        data = StreamDataset(store, layout, columns=names, **options)
        for batch, expected in zip(data, whole, strict=True):
            assert batch.keys() == {*names, *always}
            for name in (*names, "parts", "cu_seqlens", "window"):
                assert torch.equal(batch[name], expected[name]), name
                assert batch[name].dtype == expected[name].dtype
            for track, values in expected["latents"].items():
                assert torch.equal(batch["latents"][track], values)
        # No more memory is asked for than those columns fill.
        width = sum(COLUMNS[name].itemsize for name in set(names))
        assert taken == [batch["window"].numel() * 200 * width for batch in whole]


def test_a_state_is_of_no_columns(store: Path) -> None:
    ids, times = (StreamDataset(store, length=100, columns=[name]) for name in ("ids", "time_ns"))
    for _ in islice(ids, 3):
        pass
    times.load_state_dict(ids.state_dict())
    assert torch.equal(next(iter(times))["window"], next(iter(ids))["window"])
    for wrong in (["ids", "tokens"], [], "idss"):
        with pytest.raises(OptionError, match="known: ids, time_ns, document"):
            StreamDataset(store, columns=wrong)


def test_faults_are_named(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no episode nowhere"):
        StreamDataset(store, episodes=["nowhere"])
    Store.create(tmp_path / "empty.zarr", VOCABULARY)
    with pytest.raises(StoreError, match="no episodes"):
        StreamDataset(tmp_path / "empty.zarr")
    for wrong in ({"length": 1}, {"batch_size": 0}, {"rank": 2, "world": 2}, {"rank": 0}):
        with pytest.raises(OptionError):
            StreamDataset(store, **wrong)
    data = StreamDataset(store, seed=1)
    with pytest.raises(OptionError, match="seed"):
        data.load_state_dict({"epoch": 0, "window": 0, "seed": 2})
