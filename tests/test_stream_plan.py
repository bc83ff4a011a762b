"""`pantok stream --format plan` and `--format wds`, followed by programs that know nothing of pantok."""

import gc
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pantok.commands.stream import _count, _records, _state, _windows
from pantok.errors import StoreError
from pantok.formats import id_streams
from pantok.formats.id_plan import Planner, write
from pantok.formats.store import Store
from pantok.formats.store_merge import MergeConfig, compact, pack
from pantok.layout import Layout
from pantok.loader import StreamDataset
from tests.store_streams import a_long_stream, a_stream, a_vocabulary

VOCABULARY = a_vocabulary()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Units of every shape, segments of one and of several episodes, a level of three chunks."""
    store = Store.create(tmp_path_factory.mktemp("plan") / "home.zarr", VOCABULARY)
    store.write(a_stream(n, VOCABULARY, 9 + n) for n in range(5))
    compact(store, MergeConfig(episodes=3))
    store.write([a_long_stream()])
    return store.path


def follow(lines: list[bytes]) -> dict[tuple[int, int], np.ndarray]:
    """What a trainer does: maps the files of the store and puts codes where the plan says. {(epoch, window): ids}"""
    head, *windows = map(json.loads, lines)
    assert head["plan"] == 1
    made = {}
    for window in windows:
        ids = np.full(head["length"], head["pad"])
        for document in window["documents"]:
            for codes in document["codes"]:
                column = head["columns"][codes["column"]]
                found = np.concatenate(
                    [
                        np.memmap(Path(head["store"]) / file, column["dtype"], "r", at, (count,))
                        for file, at, count in codes["runs"]
                    ]
                ).astype(np.int64)
                found = np.array(column["table"])[found] if "table" in column else found + column["first"]
                at = 0
                for place, count in codes["places"]:
                    ids[place : place + count] = found[at : at + count]
                    at += count
                assert at == len(found)
            for place, id, count in document["fixed"]:
                ids[place : place + count] = id
        made[window["epoch"], window["window"]] = ids
    return made


def plan(data: StreamDataset, token: str = "") -> list[bytes]:
    """What `pantok stream --format plan` writes, in this process."""
    if token:
        data.load_state_dict(_state(token, data))
    out = io.BytesIO()
    write(Planner(data._sources[0].path, data.layout, data.vocabulary), _windows(data), out, data.length)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("layout", ["default", "coarse", "text-first"])
@pytest.mark.parametrize("length", [64, 4096])
def test_a_plan_leads_to_the_same_ids(made, layout, length) -> None:
    episodes = [f"episode-{n:03d}" for n in range(5)] if length == 64 else None
    data = StreamDataset(made, layout, length=length, batch_size=3, seed=4, epochs=1, episodes=episodes)
    planned = follow(plan(data))
    rows = [(batch["window"][k], batch["ids"][k]) for batch in data for k in range(len(batch["ids"]))]
    expected = {(0, int(window)): ids.numpy() for window, ids in rows}
    assert planned.keys() == expected.keys() and len(planned) > 1
    for key, ids in expected.items():
        np.testing.assert_array_equal(planned[key], ids)


def test_a_plan_goes_on_and_is_shared_like_every_stream(made) -> None:
    def made_with(**more):
        return StreamDataset(made, "coarse", length=256, batch_size=16, epochs=2, **more)

    whole = plan(made_with())
    token = json.loads(whole[7])["resume"]
    assert plan(made_with(), token)[1:] == whole[8:]
    shares = [plan(made_with(rank=r, world=2))[1:] for r in range(2)]

    def key(line: bytes):
        return [json.loads(line)[name] for name in ("epoch", "window", "documents")]

    assert sorted(map(key, [*shares[0], *shares[1]]), key=str) == sorted(map(key, whole[1:]), key=str)


def test_the_command_writes_a_plan(made, pantok) -> None:
    done = pantok("stream", made, "--format", "plan", "--layout", "coarse", "--length", "1024")
    assert done.code == 0, done.err
    data = StreamDataset(made, "coarse", length=1024, batch_size=64, epochs=1, shuffle=False)
    assert done.out.encode().splitlines() == plan(data)


def test_a_packed_store_has_no_plan(made, tmp_path) -> None:
    pack(Store.open(made), tmp_path / "packed.zarr", MergeConfig())
    planner = Planner(tmp_path / "packed.zarr", Layout.preset("default"), VOCABULARY)
    with pytest.raises(StoreError, match=r"cannot be mapped.*--plain"):
        planner.document("episode-001", 0, 60, 0)
    data = list(StreamDataset(tmp_path / "packed.zarr", length=512, shuffle=False, epochs=1))
    plain = list(StreamDataset(made, length=512, shuffle=False, epochs=1))
    for a, b in zip(data, plain, strict=True):
        np.testing.assert_array_equal(a["ids"], b["ids"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_tar_reads_as_webdataset_reads_it(made, tmp_path) -> None:
    def written(form: str) -> bytes:
        data, out = StreamDataset(made, "coarse", length=512, batch_size=4, epochs=1, shuffle=False), io.BytesIO()
        id_streams.write(_records(data), form, out, _count(data), 512)
        return out.getvalue()

    data, lines = written("wds"), [json.loads(line) for line in written("jsonl").splitlines()]
    samples: dict[str, dict] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as tar:
        for entry in tar:
            name, suffix = entry.name.split(".", 1)
            body = tar.extractfile(entry).read()
            samples.setdefault(name, {})[suffix] = (
                json.loads(body) if suffix == "json" else np.load(io.BytesIO(body), allow_pickle=False)
            )
    assert list(samples) == [f"0000-{k:010d}" for k in range(len(lines))]
    for sample, line in zip(samples.values(), lines, strict=True):
        assert sample["json"] == {k: line[k] for k in ("epoch", "window", "resume")}
        for name in ("ids", "kind", "level", "document", "time_ns"):
            np.testing.assert_array_equal(sample[f"{name}.npy"], line[name])
    path = tmp_path / "home.tar"
    path.write_bytes(data)
    wds = pytest.importorskip("webdataset")
    read = list(wds.WebDataset(str(path), shardshuffle=False).decode())
    assert [s["__key__"] for s in read] == list(samples)
    np.testing.assert_array_equal(read[3]["ids.npy"], lines[3]["ids"])
    gc.collect()
