"""The loader over several stores, splits, stages, threads and workers: each window once, bit for bit the same."""

from __future__ import annotations

import json
from collections import Counter
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pantok.errors import OptionError, StoreError, TokenError
from pantok.formats import store_array, store_columns
from pantok.formats.store import Store
from pantok.layout import ROLES, Layout, arrange
from pantok.loader import Stage, StreamDataset
from pantok.loader_memory import Memory
from tests.store_streams import a_stream, a_vocabulary

VOCABULARY = a_vocabulary()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three stores of one vocabulary, the last with several episodes a segment; none has an id of another."""
    folder = tmp_path_factory.mktemp("mixtures")
    made = []
    for k, count in enumerate((3, 2, 6)):
        store = Store.create(folder / f"{k}.zarr", VOCABULARY)
        streams = [a_stream(10 * k + n, VOCABULARY, 5 + n) for n in range(count)]
        if k < 2:
            store.write(streams)
        else:
            store.write_segment(streams)
        made.append(store.path)
    return made


def ids_of(path: Path, layout: Layout) -> list[np.ndarray]:
    store = Store.open(path)
    return [arrange(store.read(e), layout, VOCABULARY).ids for e in store.episodes]


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        if key == "tracks":
            assert value == b[key]
        elif key == "latents":
            assert value.keys() == b[key].keys() and all(torch.equal(v, b[key][n]) for n, v in value.items())
        else:
            assert torch.equal(value, b[key]), key


def test_stores_without_weights_are_seen_once_an_epoch(stores: list[Path]) -> None:
    layout = Layout(latents=True)
    data = StreamDataset(stores, layout, length=61, batch_size=3, epochs=1, seed=3)
    seen = Counter()
    for batch in data:
        rows = zip(batch["ids"], batch["document"], batch["source"].tolist(), strict=True)
        for ids, document, source in rows:
            seen[source] += int((document >= 0).sum())
            pad = VOCABULARY.control("pad")
            assert (ids[document < 0] == pad).all() and (ids[document >= 0] != pad).all()
    assert [seen[k] for k in range(3)] == [sum(map(len, ids_of(path, layout))) for path in stores]
    together = Counter(int(i) for b in StreamDataset(stores, layout, length=61, epochs=1) for i in b["ids"].flatten())
    expected = Counter(int(i) for path in stores for ids in ids_of(path, layout) for i in ids)
    assert {k: v for k, v in together.items() if k != VOCABULARY.control("pad")} == expected


def test_weights_are_kept_and_each_store_goes_through_its_own_epochs(stores: list[Path]) -> None:
    data = StreamDataset([(stores[0], 3.0), (stores[1], 1.0)], length=64, batch_size=4, epochs=12, seed=1)
    sources = torch.cat([b["source"] for b in data])
    assert float((sources == 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    size = len(StreamDataset(stores[1], length=64).windows)

    def texts(batches: list[torch.Tensor]) -> Counter:
        return Counter(row.numpy().tobytes() for row in batches)

    # An epoch of the lighter store within the mixture is a whole one, though the heavier has been through more.
    data = StreamDataset([(stores[0], 3.0), (stores[1], 1.0)], length=64, batch_size=4, epochs=12, seed=1)
    rows = [ids for b in data for ids, s in zip(b["ids"], b["source"], strict=True) if s == 1]
    first, second = texts(rows[:size]), texts(rows[size : 2 * size])
    ids = sorted(int(i) for row in rows[:size] for i in row if i != VOCABULARY.control("pad"))
    assert ids == sorted(int(i) for part in ids_of(stores[1], Layout()) for i in part)
    assert first != second


@settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_a_mixture_goes_on_with_other_ranks(stores: list[Path], data: st.DataObject) -> None:
    """Mixture, packing and all modalities together, interrupted at will: the windows that come are those of a job that
    was left alone, bit for bit."""
    weights = data.draw(st.sampled_from([None, (2.0, 1.0, 0.5)]))
    mixture = stores if weights is None else list(zip(stores, weights, strict=True))

    layout = Layout(latents=True, marks="needed")
    opened = StreamDataset(mixture, layout, length=83, rank=0, world=1, epochs=2)

    def job(rank: int, world: int, size: int, epochs: int) -> StreamDataset:
        mine = copy(opened)  # what it has open is shared, which is quicker
        mine.rank, mine.world, mine.batch_size, mine.epochs = rank, world, size, epochs
        return mine

    alone = {(int(b["epoch"]), int(b["window"])): b for b in job(0, 1, 1, 2)}
    seen: dict[tuple[int, int], torch.Tensor] = {}
    state = None
    while state is None or state["epoch"] < 2:
        world, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
        steps = data.draw(st.integers(1, 9))
        states = []
        for rank in range(world):
            # To the epoch's end: a rank for which nothing is left there has one batch less.
            mine = job(rank, world, size, 1 if state is None else state["epoch"] + 1)
            if state is not None:
                mine.load_state_dict(json.loads(json.dumps(state)))
            for batch in islice(mine, steps):
                for row, window in enumerate(batch["window"].tolist()):
                    key = int(batch["epoch"]), window
                    assert key not in seen
                    seen[key] = batch["ids"][row]
                    assert torch.equal(batch["time_ns"][row], alone[key]["time_ns"][0])
                    assert torch.equal(batch["role"][row], alone[key]["role"][0])
            states.append(mine.state_dict())
        assert all(s == states[0] for s in states) and len(json.dumps(states[0])) < 200
        state = states[0]
    assert seen.keys() == alone.keys()
    assert all(torch.equal(ids, alone[key]["ids"][0]) for key, ids in seen.items())


def test_a_state_fits_no_other_data(stores: list[Path]) -> None:
    state = StreamDataset(stores[0], length=64).state_dict()
    StreamDataset(stores[0], length=64).load_state_dict(state)
    for other in (
        StreamDataset(stores[1], length=64),
        StreamDataset(stores[0], length=32),
        StreamDataset(stores[0], "video-only", length=64),
        StreamDataset([(stores[0], 1.0), (stores[1], 1.0)], length=64),
        StreamDataset(stores[0], length=64, shuffle=False),
        StreamDataset(stores[0], length=64, curriculum=[Stage(epochs=1.0), Stage()]),
    ):
        with pytest.raises(OptionError, match="is of data"):
            other.load_state_dict(state)


def test_threads_change_nothing_and_stop_when_left(stores: list[Path]) -> None:
    settings = {"length": 50, "batch_size": 2, "epochs": 2, "seed": 8}
    alone, ahead = (list(StreamDataset(stores, threads=n, **settings)) for n in (0, 3))
    assert len(alone) == len(ahead)
    for a, b in zip(alone, ahead, strict=True):
        assert_same(a, b)
    data = StreamDataset(stores, threads=2, **settings)
    taken = list(islice(data, 5))
    rest = StreamDataset(stores, **settings)
    rest.load_state_dict(data.state_dict())  # what was made ahead and not taken comes again
    for a, b in zip(alone, [*taken, *rest], strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_workers_resume_where_each_of_them_stood(
    stores: list[Path], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """What torchdata's StatefulDataLoader does: a state of each worker's own dataset, put back into each."""
    settings = {"length": 50, "batch_size": 2, "epochs": 1, "rank": 0, "world": 1}
    expected = [b["window"].tolist() for b in StreamDataset(stores, **settings)]

    def worker(number: int, state: dict | None, count: int | None) -> tuple[list[list[int]], dict]:
        class Info:
            id, num_workers = number, 3

        monkeypatch.setattr("pantok.loader.get_worker_info", lambda: Info)
        data = StreamDataset(stores, **settings)
        if state is not None:
            data.load_state_dict(state)
        return [b["window"].tolist() for b in islice(data, count)], data.state_dict()

    before = [worker(k, None, stop) for k in range(3)]
    after = [worker(k, state, None) for k, (_, state) in enumerate(before)]
    each = [mine + later for (mine, _), (later, _) in zip(before, after, strict=True)]
    turns = [each[turn % 3][turn // 3] for turn in range(len(expected))]
    assert turns == expected and sum(map(len, each)) == len(expected)


def test_splits_part_the_episodes(stores: list[Path]) -> None:
    shares = {"train": 0.2, "valid": 0.8}
    found = {}
    for name in shares:
        found[name] = StreamDataset(stores[2], split=name, splits=shares).episodes[0]
    together = [e for episodes in found.values() for e in episodes]
    assert sorted(together) == sorted(Store.open(stores[2]).episodes) and len(found["train"]) > 0
    with pytest.raises(StoreError, match="no episode in the split none"):
        StreamDataset(stores[2], split="none", splits={"all": 1.0, "none": 0.0})
    with pytest.raises(OptionError, match="known: train, valid, test"):
        StreamDataset(stores[2], split="validation")
    # The same episodes in another store, beside others, are in the same split.
    everywhere = StreamDataset([stores[1], stores[2]], split="train", splits=shares).episodes[1]
    assert everywhere == found["train"]


def test_stages_see_coarse_levels_first(stores: list[Path]) -> None:
    stages = [Stage(levels={"video": 1, "audio": "gain.frame", "numeric": 1}, epochs=0.5), Stage()]
    data = StreamDataset(stores[0], length=64, batch_size=2, curriculum=stages, epochs=2)
    by_epoch: dict[int, list[dict]] = {0: [], 1: []}
    for batch in data:
        by_epoch[int(batch["epoch"])].append(batch)
    assert max(int(b["level"].max()) for b in by_epoch[0]) == 0 < max(int(b["level"].max()) for b in by_epoch[1])
    whole = StreamDataset(stores[0], Layout(levels=stages[0].levels), length=64, batch_size=2)
    assert sum(len(b["ids"]) for b in by_epoch[0]) == -(-len(whole.windows) // 2)
    left = StreamDataset(stores[0], length=64, batch_size=2, curriculum=stages, epochs=2)
    steps = len(by_epoch[0]) + 2
    state = left.state_after(steps)
    left.load_state_dict(state)
    for a, b in zip(left, by_epoch[1][2:], strict=True):
        assert_same(a, b)


def test_tokens_and_roles(stores: list[Path]) -> None:
    assert StreamDataset(stores[0], length=100, tokens=450).batch_size == 4
    for wrong in ({"tokens": 99, "length": 100}, {"tokens": 500, "batch_size": 3}):
        with pytest.raises(OptionError):
            StreamDataset(stores[0], **wrong)
    layout = Layout(roles={"proprio*": "action", "text*": "text"})
    batch = next(iter(StreamDataset(stores[0], layout, length=400, batch_size=3)))
    names = [*batch["tracks"]]
    for track, role in zip(batch["track"].flatten().tolist(), batch["role"].flatten().tolist(), strict=True):
        said = "control" if track == 255 else layout.role(names[track])
        assert ROLES[role] == said
    assert {ROLES[r] for r in batch["role"].unique().tolist()} >= {"action", "observation", "control"}


def test_other_vocabularies_are_refused(stores: list[Path], tmp_path: Path) -> None:
    other = a_vocabulary(1)
    Store.create(tmp_path / "other.zarr", other).write([a_stream(1, other)])
    with pytest.raises(StoreError, match="none reads the others"):
        StreamDataset([stores[0], tmp_path / "other.zarr"])
    for wrong in ([], [(stores[0], 1.0), stores[1]], [(stores[0], 0.0)]):
        with pytest.raises(OptionError):
            StreamDataset(wrong)


def test_lengths_are_kept_in_the_store(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_columns, "_WORTH_KEEPING", 2)
    first = StreamDataset(stores[2], length=64)
    lengths = first._curriculum.orders[0].sources[0].lengths
    assert lengths.tolist() == [len(ids) for ids in ids_of(stores[2], Layout())]
    kept = list((stores[2] / ".cache").iterdir())
    assert len(kept) == 1 and not list(Store.open(stores[2]).verify())

    def no(*_: object, **__: object) -> None:
        raise AssertionError("looked at an episode")

    with monkeypatch.context() as patch:
        patch.setattr(store_columns, "episode_columns", no)
        assert StreamDataset(stores[2], length=64).windows.ids == lengths.sum()
        with pytest.raises(AssertionError, match="looked"):
            _ = StreamDataset(stores[2], "video-only", length=64).windows
    kept[0].write_bytes(b"\x93NUMPY what is this")  # damaged: made anew
    assert StreamDataset(stores[2], length=64).windows.ids == lengths.sum()


def test_codes_across_chunks_and_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of many small chunks, in several shard files, each episode beginning anywhere in them."""
    monkeypatch.setattr(store_array, "CHUNK_BYTES", 96)
    monkeypatch.setattr(store_array, "CHUNKS_A_SHARD", 4)
    store = Store.create(tmp_path / "s.zarr", VOCABULARY)
    streams = [a_stream(n, VOCABULARY, 9 + n) for n in range(5)]
    store.write_segment(streams)
    layout = Layout(latents=True)
    expected = [arrange(s, layout, VOCABULARY) for s in streams]
    data = StreamDataset(store.path, layout, length=57, batch_size=4, shuffle=False, epochs=1)
    batches = list(data)
    kept = torch.cat([b["document"].flatten() for b in batches]) >= 0
    for name in ("ids", "kind", "level", "time_ns", "role"):
        found = torch.cat([b[name].flatten() for b in batches])[kept].numpy()
        assert np.array_equal(found, np.concatenate([getattr(e, name) for e in expected])), name
    latents = np.concatenate([b["latents"]["audio.mic"].numpy() for b in batches if "audio.mic" in b["latents"]])
    assert np.array_equal(latents, np.concatenate([e.latents["audio.mic"] for e in expected if e.latents]))


def test_damage_is_named(tmp_path: Path) -> None:
    """Counts that do not add up are refused before a code is read; a code that its level lacks is named."""
    stream = a_stream(2, VOCABULARY, 8)
    video = stream.tracks["video.front"]
    wrong = replace(video.levels[1], codes=np.full_like(video.levels[1].codes, 255))
    broken = replace(stream, tracks={"video.front": replace(video, levels=(video.levels[0], wrong, video.levels[2]))})
    with pytest.raises(TokenError, match="video level 1 position 0: code 255"):
        arrange(broken, Layout(), VOCABULARY)
    store = Store.create(tmp_path / "s.zarr", VOCABULARY)
    store.write([a_stream(0, VOCABULARY, 8)])
    data = StreamDataset(store.path, length=64)
    counts = next(store.path.glob("segments/*/tracks/*video*/counts/c.0.0"))
    counts.write_bytes(bytes([counts.read_bytes()[0] ^ 1]) + counts.read_bytes()[1:])
    with pytest.raises(TokenError, match=r"video.front level \d: holds"):
        next(iter(data))


def test_memory_is_used_again_only_when_nobody_looks(stores: list[Path]) -> None:
    memory = Memory()
    first = memory.take(4096)
    kept = torch.from_numpy(first[100:200].view(np.int32).reshape(5, 5))
    address = first.__array_interface__["data"][0]
    del first
    assert memory.take(4096).__array_interface__["data"][0] != address
    del kept
    assert memory.take(4096).__array_interface__["data"][0] == address
    # A batch that is kept is not written over by those that follow.
    data = StreamDataset(stores, length=64, batch_size=2, threads=2)
    batches = iter(data)
    first_batch = next(batches)
    copies = {name: value.clone() for name, value in first_batch.items() if isinstance(value, torch.Tensor)}
    for _ in islice(batches, 20):
        pass
    assert all(torch.equal(first_batch[name], value) for name, value in copies.items())
