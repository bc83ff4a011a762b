"""Windows of ids as bytes for another program: Arrow IPC, JSON lines, a tar for webdataset, or one numpy array.

What is unusual: every record says where the stream can be taken up again (`resume`), so that a reader that stops in
the middle loses nothing. Arrow is the stream format of IPC, one record batch at a time, each flushed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pantok import layout

USUAL = ("ids", "kind", "level", "document", "time_ns")
COLUMNS = {name: layout.COLUMNS[name] for name in dict.fromkeys((*USUAL, *layout.COLUMNS))} | {
    "ids": np.dtype(np.uint32)
}
"""What can be written of each window, arrays (length,); see `pantok.loader.StreamDataset`. Ids take four bytes here."""
FORMATS = ("arrow", "jsonl", "npy", "wds")


def write(
    batches: Iterator[Mapping[str, Any]], form: str, out: BinaryIO, count: int, length: int,
    columns: Sequence[str] = USUAL,
) -> None:  # fmt: skip
    """Writes batches of windows to `out` until they end. columns: of COLUMNS, what of each window; one of them for npy,
    of which `count` windows of `length` ids are expected.

    Each batch: the columns as arrays (B, L); epoch int, window (B,), resume: a text for each window; tracks: the names
    that the column `track` numbers, which each record carries with it.
    Raises BrokenPipeError when the reader has gone.
    """
    if form == "arrow":
        _arrow(batches, out, columns)
    elif form == "jsonl":
        for batch in batches:
            for row in range(len(batch["window"])):
                record = {name: batch[name][row].tolist() for name in columns}
                out.write(json.dumps({**_facts(batch, row, columns), **record}, separators=(",", ":")).encode() + b"\n")
            out.flush()
    elif form == "wds":
        _tar(batches, out, columns)
    else:
        (name,) = columns
        head = {"descr": COLUMNS[name].str, "fortran_order": False, "shape": (count, length)}
        np.lib.format.write_array_header_1_0(out, head)
        for batch in batches:
            out.write(np.ascontiguousarray(batch[name], COLUMNS[name]).data)
        out.flush()


def _facts(batch: Mapping[str, Any], row: int, columns: Sequence[str]) -> dict[str, Any]:
    facts = {"epoch": batch["epoch"], "window": int(batch["window"][row]), "resume": batch["resume"][row]}
    return {**facts, "tracks": batch["tracks"]} if "track" in columns else facts


def _tar(batches: Iterator[Mapping[str, Any]], out: BinaryIO, columns: Sequence[str]) -> None:
    """A sample a window: `<epoch>-<window>.<column>.npy` for each column, and `.json`. No entry's time is kept."""
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for batch in batches:
            for row in range(len(batch["window"])):
                facts = _facts(batch, row, columns)
                members = {f"{name}.npy": _npy(batch[name][row].astype(COLUMNS[name])) for name in columns}
                members["json"] = json.dumps(facts, separators=(",", ":")).encode()
                for suffix, data in members.items():
                    # webdataset takes what stands before the first dot for the name of the sample.
                    entry = tarfile.TarInfo(f"{facts['epoch']:04d}-{facts['window']:010d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
            out.flush()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def schema(metadata: Mapping[str, str], columns: Sequence[str] = USUAL) -> pa.Schema:
    lists = [pa.field(name, pa.list_(pa.from_numpy_dtype(COLUMNS[name]))) for name in columns]
    facts = [pa.field("epoch", pa.int64()), pa.field("window", pa.int64()), pa.field("resume", pa.string())]
    if "track" in columns:
        facts.append(pa.field("tracks", pa.list_(pa.string())))
    return pa.schema([*facts, *lists], metadata={k: str(v) for k, v in metadata.items()})


def _arrow(batches: Iterator[Mapping[str, Any]], out: BinaryIO, columns: Sequence[str]) -> None:
    writer = kept = None
    for batch in batches:
        if writer is None:
            kept = schema(batch["about"], columns)
            writer = pa.ipc.new_stream(out, kept)
        rows, length = batch[columns[0]].shape
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * length)
        lists = [
            pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(batch[name], COLUMNS[name]).reshape(-1)))
            for name in columns
        ]
        facts = [pa.array([batch["epoch"]] * rows, pa.int64()), pa.array(batch["window"]), pa.array(batch["resume"])]
        if "track" in columns:
            facts.append(pa.array([batch["tracks"]] * rows, pa.list_(pa.string())))
        writer.write_batch(pa.record_batch([*facts, *lists], schema=kept))
        out.flush()
    if writer is not None:
        writer.close()
