"""Sequences of ids as the files that other trainers read: webdataset, MDS, Parquet, Megatron.

What is unusual: all four are written from one stream of records, a shard at a time, so that memory does not grow with
the store; MDS and Megatron are written from their layout on disk alone, without the libraries that read them.

    webdataset   shard-000000.tar ...       each record NAME.ids.npy, .kind.npy, .level.npy, .time_ns.npy, .json
    mds          shard.00000.mds ... index.json   columns as below, `ndarray:dtype`; for mosaicml-streaming
    parquet      ids-00000.parquet ...      columns as below, lists; for Hugging Face datasets, pandas, Spark
    megatron     ids.bin, ids.idx           ids alone, each record a sequence, each episode a document

Beside them `about.json` says what was exported.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pantok.errors import OutputError
from pantok.formats.files import is_free
from pantok.layout import TokenSequence

COLUMNS: Mapping[str, type] = {"ids": np.uint32, "kind": np.uint8, "level": np.uint8, "time_ns": np.int64}
"""Of each record, arrays (N,); see `pantok.layout.TokenSequence`."""
SHARD_BYTES = 64 << 20
ABOUT = "about.json"


@dataclass(frozen=True)
class Record:
    """A run of one episode: its ids from place `start` of its sequence on."""

    episode: str
    start: int
    sequence: TokenSequence

    def column(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(getattr(self.sequence, name), COLUMNS[name])


@dataclass(frozen=True)
class Exported:
    """What was written."""

    records: int
    ids: int


def may_replace(path: Path) -> None:
    """Raises OutputError unless `path` is an export, an empty folder, or not there: to replace a folder of recordings
    or a store would lose them."""
    if is_free(path):
        return
    try:
        ours = json.loads((path / ABOUT).read_bytes())["format"] in WRITERS
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise OutputError(path, "is there and is not an export, so it is not replaced", "remove it or rename -o")


def write(records: Iterable[Record], form: str, out: Path, about: Mapping[str, Any]) -> Exported:
    """Writes `records`, those of an episode one after another, into the folder `out`, which must be empty.

    form: a key of WRITERS. about: facts for `about.json`; `size` is how many ids the vocabulary has.
    """
    counted = [0, 0]

    def counting() -> Iterator[Record]:
        for record in records:
            counted[0] += 1
            counted[1] += len(record.sequence)
            yield record

    WRITERS[form](counting(), out, int(about["size"]))
    done = Exported(*counted)
    facts = {"format": form, **about, "records": done.records, "ids": done.ids}
    (out / ABOUT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return done


def _shards(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in lists of about SHARD_BYTES, at least one record each."""
    width = sum(np.dtype(t).itemsize for t in COLUMNS.values())
    shard: list[Record] = []
    size = 0
    for record in records:
        if shard and size + len(record.sequence) * width > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(record)
        size += len(record.sequence) * width
    if shard:
        yield shard


def _webdataset(records: Iterable[Record], out: Path, size: int) -> None:
    number = 0
    for k, shard in enumerate(_shards(records)):
        with tarfile.open(out / f"shard-{k:06d}.tar", "w") as tar:
            for record in shard:
                members = {f"{name}.npy": _npy(record.column(name)) for name in COLUMNS}
                members["json"] = json.dumps({"episode": record.episode, "start": record.start}).encode()
                for suffix, data in members.items():
                    # The reader takes what stands before the first dot for the name of the sample.
                    entry = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                number += 1


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _parquet(records: Iterable[Record], out: Path, size: int) -> None:
    for k, shard in enumerate(_shards(records)):
        offsets = pa.array(np.cumsum([0, *(len(r.sequence) for r in shard)]), pa.int64())
        lists = {
            name: pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([r.column(name) for r in shard])))
            for name in COLUMNS
        }
        facts = {"episode": pa.array([r.episode for r in shard]), "start": pa.array([r.start for r in shard])}
        pq.write_table(pa.table({**facts, **lists}), out / f"ids-{k:05d}.parquet", compression="zstd")


_MDS_COLUMNS = {
    "episode": "str",
    "start": "int",
    **{name: f"ndarray:{np.dtype(dtype).name}" for name, dtype in COLUMNS.items()},
}


def _mds(records: Iterable[Record], out: Path, size: int) -> None:
    """A shard: count, offsets of the samples (uint32), its configuration as JSON, the samples. A sample: the sizes of
    its values of variable size (uint32), then all values, by the names of the columns."""
    names = sorted(_MDS_COLUMNS)
    config = {
        "version": 2, "format": "mds", "compression": None, "hashes": [], "size_limit": SHARD_BYTES,
        "column_names": names, "column_encodings": [_MDS_COLUMNS[n] for n in names],
        "column_sizes": [8 if n == "start" else None for n in names],
    }  # fmt: skip
    head = json.dumps(config, sort_keys=True).encode()
    entries = []
    for k, shard in enumerate(_shards(records)):
        samples = []
        for record in shard:
            values = [_mds_value(record, name) for name in names]
            sizes = [len(v) for n, v in zip(names, values, strict=True) if n != "start"]
            samples.append(np.array(sizes, "<u4").tobytes() + b"".join(values))
        first = 4 + 4 * (len(samples) + 1) + len(head)
        offsets = np.cumsum([first, *map(len, samples)])
        path = out / f"shard.{k:05d}.mds"
        with path.open("wb") as file:
            file.write(struct.pack("<I", len(samples)) + offsets.astype("<u4").tobytes() + head)
            file.writelines(samples)
        raw = {"basename": path.name, "bytes": int(offsets[-1]), "hashes": {}}
        entries.append({**config, "samples": len(samples), "raw_data": raw, "zip_data": None})
    (out / "index.json").write_text(json.dumps({"version": 2, "shards": entries}, sort_keys=True), encoding="utf-8")


def _mds_value(record: Record, name: str) -> bytes:
    if name == "episode":
        return record.episode.encode()
    if name == "start":
        return struct.pack("<q", record.start)
    # One axis (1 << 2), its length a uint32 (2).
    values = record.column(name)
    return bytes([1 << 2 | 2]) + struct.pack("<I", len(values)) + values.tobytes()


def _megatron(records: Iterable[Record], out: Path, size: int) -> None:
    """ids.bin: ids one after another, uint16 if all fit, else int32. ids.idx: lengths and offsets of the sequences, and
    which of them begin a document."""
    code, dtype = (8, np.dtype("<u2")) if size <= 65_536 else (4, np.dtype("<i4"))
    lengths: list[int] = []
    documents, last = [0], None
    with (out / "ids.bin").open("wb") as file:
        for record in records:
            if last is not None and record.episode != last:
                documents.append(len(lengths))
            last = record.episode
            file.write(record.sequence.ids.astype(dtype).data)
            lengths.append(len(record.sequence))
    documents.append(len(lengths))
    pointers = np.cumsum([0, *lengths])[:-1] * dtype.itemsize
    with (out / "ids.idx").open("wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(lengths), len(documents)))
        file.write(np.array(lengths, "<i4").tobytes() + pointers.astype("<i8").tobytes())
        file.write(np.array(documents, "<i8").tobytes())


WRITERS: Mapping[str, Callable[[Iterable[Record], Path, int], None]] = {
    "webdataset": _webdataset,
    "mds": _mds,
    "parquet": _parquet,
    "megatron": _megatron,
}
