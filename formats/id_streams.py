"""Windows of ids as bytes for another program: Arrow IPC, JSON lines, a tar for webdataset, or one numpy array.

What is unusual: every record says where the stream can be taken up again (`resume`), so that a reader that stops in
the middle loses nothing. Arrow is the stream format of IPC, one record batch at a time, each flushed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

COLUMNS = {"ids": np.uint32, "kind": np.uint8, "level": np.uint8, "document": np.int32, "time_ns": np.int64}
"""Of each window, arrays (length,); see `pantok.loader.StreamDataset`."""
FORMATS = ("arrow", "jsonl", "npy", "wds")


def write(batches: Iterator[Mapping[str, Any]], form: str, out: BinaryIO, count: int, length: int) -> None:
    """Writes batches of windows to `out` until they end. `count` windows of `length` ids are expected, for npy.

    Each batch: the columns as arrays (B, L); epoch int, window (B,), resume: a text for each window.
    Raises BrokenPipeError when the reader has gone.
    """
    if form == "arrow":
        _arrow(batches, out)
    elif form == "jsonl":
        for batch in batches:
            for row in range(len(batch["ids"])):
                record = {name: batch[name][row].tolist() for name in COLUMNS}
                facts = {"epoch": batch["epoch"], "window": int(batch["window"][row]), "resume": batch["resume"][row]}
                out.write(json.dumps({**facts, **record}, separators=(",", ":")).encode() + b"\n")
            out.flush()
    elif form == "wds":
        _tar(batches, out)
    else:
        head = {"descr": np.dtype(np.uint32).str, "fortran_order": False, "shape": (count, length)}
        np.lib.format.write_array_header_1_0(out, head)
        for batch in batches:
            out.write(np.ascontiguousarray(batch["ids"], np.uint32).data)
        out.flush()


def _tar(batches: Iterator[Mapping[str, Any]], out: BinaryIO) -> None:
    """A sample a window: `<epoch>-<window>.<column>.npy` for each column, and `.json`. No entry's time is kept."""
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for batch in batches:
            for row in range(len(batch["ids"])):
                window = int(batch["window"][row])
                facts = {"epoch": batch["epoch"], "window": window, "resume": batch["resume"][row]}
                members = {f"{name}.npy": _npy(batch[name][row].astype(dtype)) for name, dtype in COLUMNS.items()}
                members["json"] = json.dumps(facts, separators=(",", ":")).encode()
                for suffix, data in members.items():
                    # webdataset takes what stands before the first dot for the name of the sample.
                    entry = tarfile.TarInfo(f"{batch['epoch']:04d}-{window:010d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
            out.flush()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def schema(metadata: Mapping[str, str]) -> pa.Schema:
    lists = [pa.field(name, pa.list_(pa.from_numpy_dtype(dtype))) for name, dtype in COLUMNS.items()]
    facts = [pa.field("epoch", pa.int64()), pa.field("window", pa.int64()), pa.field("resume", pa.string())]
    return pa.schema([*facts, *lists], metadata={k: str(v) for k, v in metadata.items()})


def _arrow(batches: Iterator[Mapping[str, Any]], out: BinaryIO) -> None:
    writer = kept = None
    for batch in batches:
        if writer is None:
            kept = schema(batch["about"])
            writer = pa.ipc.new_stream(out, kept)
        rows, length = batch["ids"].shape
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * length)
        lists = [
            pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(batch[name], dtype).reshape(-1)))
            for name, dtype in COLUMNS.items()
        ]
        facts = [pa.array([batch["epoch"]] * rows, pa.int64()), pa.array(batch["window"]), pa.array(batch["resume"])]
        writer.write_batch(pa.record_batch([*facts, *lists], schema=kept))
        out.flush()
    if writer is not None:
        writer.close()
