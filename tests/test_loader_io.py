"""Reading without maps, and states of torchdata's loader: the same windows, whatever way they are come by."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pantok.errors import OptionError, StoreError
from pantok.formats import store_array, store_shard
from pantok.formats.store import Store
from pantok.formats.store_merge import MergeConfig, pack
from pantok.layout import Layout
from pantok.loader import StreamDataset
from tests.conftest import run_pantok_for_bytes
from tests.store_streams import a_stream, a_vocabulary
from tests.test_loader_mixtures import assert_same

VOCABULARY = a_vocabulary()
LAYOUT = Layout(latents=True)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of many small chunks in several shard files, each of which is large enough to be mapped; it packed."""
    folder = tmp_path_factory.mktemp("io")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_array, "CHUNK_BYTES", 96)
        patch.setattr(store_array, "CHUNKS_A_SHARD", 4)
        plain = Store.create(folder / "plain.zarr", VOCABULARY)
        plain.write_segment([a_stream(n, VOCABULARY, 9 + n) for n in range(5)])
        pack(plain, folder / "packed.zarr", MergeConfig())
    return plain.path, folder / "packed.zarr"


@pytest.fixture
def all_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_shard, "MAP_FROM_BYTES", 1)


def maps_of(path: Path) -> int:
    return sum(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.usefixtures("all_mapped")
def test_what_is_read_is_what_is_mapped(stores: tuple[Path, Path]) -> None:
    settings = {"length": 57, "batch_size": 4, "epochs": 1, "seed": 4}
    plain = StreamDataset(stores[0], LAYOUT, **settings)
    expected = list(plain)
    assert maps_of(stores[0]) > 5
    for path in stores:
        copied = copied_of(path)
        data = StreamDataset(copied, LAYOUT, io="pread", **settings)
        for found, batch in zip(data, expected, strict=True):
            assert_same(found, batch)
        assert maps_of(copied) == 0
    again = StreamDataset(copied, LAYOUT, io="pread", **settings)  # a worker opens it the same way
    loader = torch.utils.data.DataLoader(again, batch_size=None, num_workers=1)
    assert_same(next(iter(loader)), expected[0])
    with pytest.raises(OptionError, match="io read: is no way to read"):
        StreamDataset(stores[0], io="read")


def test_stream_reads_so_too(stores: tuple[Path, Path]) -> None:
    """Both ways give the same bytes, of a packed store as well."""
    said = [
        run_pantok_for_bytes("stream", path, "--format", "npy", "--length", "64", "--io", io)
        for path, io in ((stores[0], "mmap"), (stores[0], "pread"), (stores[1], "pread"))
    ]
    assert said[0][0] == 0 and len(said[0][1]) > 1000 and said[0] == said[1] == said[2]


def copied_of(path: Path) -> Path:
    return Path(shutil.copytree(path, path.with_name(f"copy-{path.name}")))


@pytest.mark.usefixtures("all_mapped")
@pytest.mark.parametrize("which", [0, 1])
def test_what_an_open_episode_holds_is_counted(stores: tuple[Path, Path], which: int) -> None:
    """A few codes of a packed chunk do not keep the chunk; the bound of what is open knows of all that is read."""
    from pantok.formats.store_columns import episode_columns
    from pantok.layout_columns import Numbering, Packed

    numbering = Numbering(Layout(), VOCABULARY)
    store = Store.open(stores[which], io="pread")
    for episode in store.episodes:
        columns = episode_columns(store, episode, numbering)
        pieces = [piece for track in columns.tracks for column in track.levels for piece in column.pieces]
        roots = [piece if piece.base is None else memoryview(piece.base).nbytes for piece in pieces]
        owned = sum(root.nbytes if isinstance(root, np.ndarray) else root for root in roots)
        assert owned == sum(column.held for track in columns.tracks for column in track.levels) > 0
        assert Packed(columns, numbering).nbytes > owned


def test_a_file_that_is_cut_or_gone_has_a_name(stores: tuple[Path, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(stores[0], tmp_path / "s.zarr"))
    data = StreamDataset(path, "video-only", length=64, io="pread")
    assert len(data.windows)  # opened, no code read
    shard = next(path.glob("segments/*/tracks/*video*/codes_00/c.0"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:40])
    with pytest.raises(StoreError, match=r"c\.0.*is cut short"):
        list(islice(data, 20))
    shard.unlink()
    with pytest.raises(StoreError, match=r"c\.0: is missing"):
        list(islice(data, 20))


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("stop", [1, 2, 7, 11])
def test_a_state_of_torchdata_goes_on_with_other_workers(
    stores: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, workers: int, every: int, stop: int
) -> None:
    """States as its StatefulDataLoader writes them: of each worker's dataset, some steps ago."""
    settings = {"length": 57, "batch_size": 4, "epochs": 2, "seed": 4}
    expected = [b["window"].tolist() for b in StreamDataset(stores[0], **settings)]
    step = stop // every * every

    def after(batches: int, worker: int) -> dict:
        if workers:
            info = type("Info", (), {"id": worker, "num_workers": workers})
            monkeypatch.setattr("pantok.loader.get_worker_info", lambda: info)
        data = StreamDataset(stores[0], **settings)
        list(islice(data, batches))
        state = data.state_dict()
        monkeypatch.undo()
        return state

    if workers:
        each = {
            f"worker_{k}": {"worker_id": k, "dataset_state": after(len(range(k, step, workers)), k)}
            for k in range(workers)
        }
        state = {"_snapshot": {"_worker_snapshots": each}, "_steps_since_snapshot": stop - step}
    else:
        state = {"dataset_state": after(stop, 0), "_num_yielded": stop}
    data = StreamDataset(stores[0], **settings)
    data.load_state_dict(state)
    assert expected[:stop] + [b["window"].tolist() for b in data] == expected


@pytest.mark.filterwarnings("default:.*deprecated")
def test_torchdata_itself(stores: tuple[Path, Path]) -> None:
    loaders = pytest.importorskip("torchdata.stateful_dataloader", exc_type=ImportError)
    settings = {"length": 57, "batch_size": 4, "epochs": 2, "seed": 4}
    expected = [b["window"].tolist() for b in StreamDataset(stores[0], **settings)]
    loader = loaders.StatefulDataLoader(StreamDataset(stores[0], **settings), batch_size=None, num_workers=2)
    begun = iter(loader)
    taken = [next(begun)["window"].tolist() for _ in range(5)]
    data = StreamDataset(stores[0], **settings)
    data.load_state_dict(loader.state_dict())
    rest = loaders.StatefulDataLoader(data, batch_size=None, num_workers=1)
    assert taken + [b["window"].tolist() for b in rest] == expected
