"""`pantok export`: what is written, read back as its readers do, is the sequences that the layout makes."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pantok.formats import id_exports
from pantok.formats.store import Store
from pantok.layout import Layout, TokenSequence, arrange
from tests.store_streams import a_stream, a_vocabulary

LENGTH = 100
VOCABULARY = a_vocabulary()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "s.zarr"
    Store.create(path, VOCABULARY).write(a_stream(n, VOCABULARY) for n in range(4))
    return path


def expected(store: Path, length: int | None = LENGTH) -> list[tuple[str, int, TokenSequence]]:
    opened = Store.open(store)
    found = []
    for episode in opened.episodes:
        whole = arrange(opened.read(episode), Layout(), opened.vocabulary)
        step = length or len(whole)
        found += [(episode, k, whole.cut(k, k + step)) for k in range(0, len(whole), step)]
    return found


def assert_records(found: list[dict], store: Path) -> None:
    wanted = expected(store)
    assert len(found) == len(wanted) > 8
    for record, (episode, start, sequence) in zip(found, wanted, strict=True):
        assert (record["episode"], record["start"]) == (episode, start)
        for name, dtype in id_exports.COLUMNS.items():
            values = np.asarray(record[name])
            assert values.dtype == dtype and np.array_equal(values, getattr(sequence, name)), name


@pytest.fixture(params=[False, True], ids=["one shard", "many shards"])
def shards(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setattr(id_exports, "SHARD_BYTES", 5000)
    return request.param


def export(store: Path, form: str, out: Path, length: int | None = LENGTH) -> id_exports.Exported:
    opened = Store.open(store)
    records = [id_exports.Record(e, k, s) for e, k, s in expected(store, length)]
    out.mkdir()
    return id_exports.write(iter(records), form, out, {"size": opened.vocabulary.size})


def read_tars(out: Path) -> list[dict]:
    samples: dict[str, dict] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                name, _, suffix = entry.name.partition(".")
                data = tar.extractfile(entry).read()
                sample = samples.setdefault(name, {})
                if suffix == "json":
                    sample.update(json.loads(data))
                else:
                    sample[suffix.removesuffix(".npy")] = np.load(io.BytesIO(data))
    return list(samples.values())


def test_webdataset(made: Path, tmp_path: Path, shards: bool) -> None:
    export(made, "webdataset", tmp_path / "out")
    assert (len(list((tmp_path / "out").glob("*.tar"))) > 1) == shards
    assert_records(read_tars(tmp_path / "out"), made)


def test_parquet(made: Path, tmp_path: Path, shards: bool) -> None:
    export(made, "parquet", tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.parquet"))
    assert (len(files) > 1) == shards
    rows: list[dict] = []
    for path in files:
        table = pq.read_table(path)
        columns = {
            n: table[n].to_numpy() if n in id_exports.COLUMNS else table[n].to_pylist() for n in table.schema.names
        }
        rows += [{n: values[k] for n, values in columns.items()} for k in range(len(table))]
    assert_records(rows, made)


def read_mds(out: Path) -> list[dict]:
    """By the description of the format in the documentation of mosaicml-streaming."""
    rows = []
    for shard in json.loads((out / "index.json").read_text())["shards"]:
        data = (out / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        (count,) = struct.unpack_from("<I", data)
        assert count == shard["samples"]
        offsets = np.frombuffer(data, "<u4", count + 1, 4)
        assert json.loads(data[4 + 4 * (count + 1) : offsets[0]])["column_names"] == shard["column_names"]
        for begin, end in pairwise(offsets):
            sample, row = data[begin:end], {}
            sizes = list(shard["column_sizes"])
            variable = [k for k, size in enumerate(sizes) if size is None]
            for k, size in zip(variable, np.frombuffer(sample, "<u4", len(variable)), strict=True):
                sizes[k] = int(size)
            at = 4 * len(variable)
            for name, encoding, size in zip(shard["column_names"], shard["column_encodings"], sizes, strict=True):
                value, at = sample[at : at + size], at + size
                if encoding == "str":
                    row[name] = value.decode()
                elif encoding == "int":
                    row[name] = int.from_bytes(value, "little", signed=True)
                else:
                    axes, width = value[0] >> 2, 1 << (value[0] & 3)
                    assert axes == 1
                    row[name] = np.frombuffer(value[1 + width :], encoding.removeprefix("ndarray:"))
                    assert len(row[name]) == int.from_bytes(value[1 : 1 + width], "little")
            assert at == len(sample)
            rows.append(row)
    return rows


def test_mds(made: Path, tmp_path: Path, shards: bool) -> None:
    export(made, "mds", tmp_path / "out")
    assert (len(list((tmp_path / "out").glob("*.mds"))) > 1) == shards
    assert_records(read_mds(tmp_path / "out"), made)


def read_megatron(out: Path) -> tuple[list[np.ndarray], list[int]]:
    index = (out / "ids.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    at = 9 + 25
    lengths = np.frombuffer(index, "<i4", sequences, at)
    pointers = np.frombuffer(index, "<i8", sequences, at + 4 * sequences)
    starts = np.frombuffer(index, "<i8", documents, at + 12 * sequences)
    assert len(index) == at + 12 * sequences + 8 * documents
    dtype = {4: np.dtype("<i4"), 8: np.dtype("<u2")}[code]
    data = (out / "ids.bin").read_bytes()
    assert len(data) == lengths.sum() * dtype.itemsize
    return [np.frombuffer(data, dtype, n, p) for n, p in zip(lengths, pointers, strict=True)], starts.tolist()


@pytest.mark.parametrize("length", [None, LENGTH])
def test_megatron(made: Path, tmp_path: Path, length: int | None) -> None:
    export(made, "megatron", tmp_path / "out", length)
    sequences, starts = read_megatron(tmp_path / "out")
    wanted = expected(made, length)
    assert all(np.array_equal(a, b[2].ids) for a, b in zip(sequences, wanted, strict=True))
    assert VOCABULARY.size > 65_536 and sequences[0].dtype == np.int32
    assert starts == [k for k, w in enumerate(wanted) if w[1] == 0] + [len(wanted)]


def test_megatron_takes_two_bytes_where_all_ids_fit(made: Path, tmp_path: Path) -> None:
    sequence = expected(made)[0][2]
    low = TokenSequence(
        sequence.ids % 65_536, *(getattr(sequence, n) for n in ("kind", "level", "track", "time_ns", "tracks"))
    )
    for size, dtype in ((65_536, np.uint16), (65_537, np.int32)):
        out = tmp_path / str(size)
        out.mkdir()
        id_exports.write([id_exports.Record("e", 0, low)], "megatron", out, {"size": size})
        (found,), _ = read_megatron(out)
        assert found.dtype == dtype and np.array_equal(found, low.ids)


def test_mosaicml_streaming_reads_it(made: Path, tmp_path: Path) -> None:
    """Runs where it is installed."""
    streaming = pytest.importorskip("streaming", exc_type=ImportError)
    export(made, "mds", tmp_path / "out")
    assert_records(list(streaming.StreamingDataset(local=str(tmp_path / "out"), shuffle=False, batch_size=1)), made)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_it(made: Path, tmp_path: Path) -> None:
    """Runs where it is installed."""
    webdataset = pytest.importorskip("webdataset", exc_type=ImportError)
    export(made, "webdataset", tmp_path / "out")
    urls = [str(p) for p in sorted((tmp_path / "out").glob("*.tar"))]
    rows = [
        {**sample["json"], **{n: sample[f"{n}.npy"] for n in id_exports.COLUMNS}}
        for sample in webdataset.WebDataset(urls, shardshuffle=False).decode()
    ]
    assert_records(rows, made)


def test_datasets_reads_it(made: Path, tmp_path: Path) -> None:
    """Runs where Hugging Face's library is installed."""
    datasets = pytest.importorskip("datasets", exc_type=ImportError)
    export(made, "parquet", tmp_path / "out")
    files = [str(p) for p in sorted((tmp_path / "out").glob("*.parquet"))]
    read = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert_records(list(read.with_format("numpy")), made)


def test_the_command(made: Path, tmp_path: Path, pantok) -> None:
    out = tmp_path / "out"
    done = pantok("export", made, "--to", "webdataset", "-o", out, "--length", LENGTH, "--json")
    assert done.code == 0, done.err
    assert_records(read_tars(out), made)
    said, about = json.loads(done.out), json.loads((out / "about.json").read_text())
    assert said["records"] == about["records"] == len(expected(made))
    assert said["ids"] == sum(len(w[2]) for w in expected(made)) and about["vocabulary_id"] == VOCABULARY.id
    again = pantok("export", made, "--to", "parquet", "-o", out)
    assert again.code == 2 and "--force" in again.err and list(out.glob("*.tar"))
    one = next(iter(Store.open(made).episodes))
    assert pantok("export", made, "--to", "parquet", "-o", out, "--episode", one, "-f").code == 0
    assert not list(out.glob("*.tar")) and pq.read_table(next(out.glob("*.parquet")))["episode"].to_pylist() == [one]
    wrong = pantok("export", made, "--to", "parquet", "-o", tmp_path / "x", "--episode", "nowhere")
    assert wrong.code == 2 and "nowhere" in wrong.err
    assert pantok("export", made, "--to", "parquet", "-o", made, "-f").code == 2 and (made / "zarr.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"], "nothing half done is left"


def test_force_replaces_an_export_alone(made: Path, tmp_path: Path, pantok) -> None:
    """A folder of recordings, another store, the folder that the store itself lies in: none of them is lost."""
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "ep1.csv").write_text("t,x\n0,1\n")
    before = sorted(made.parent.rglob("*"))
    for out in (tmp_path / "recordings", tmp_path / "recordings" / "ep1.csv", made.parent):
        done = pantok("export", made, "--to", "parquet", "-o", out, "-f")
        assert done.code == 1 and "is not an export, so it is not replaced" in done.err
    assert (tmp_path / "recordings" / "ep1.csv").read_text() == "t,x\n0,1\n"
    assert sorted(made.parent.rglob("*")) == before
    for form in ("parquet", "megatron"):
        assert pantok("export", made, "--to", form, "-o", tmp_path / "out", "-f").code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["about.json", "ids.bin", "ids.idx"]
    nowhere = pantok("export", made, "--to", "mds", "-o", "/proc/out")
    assert nowhere.code == 1 and nowhere.err.startswith("Error: /proc/out: cannot be written")
