"""Arrays of a token store: plain Zarr v3 that can be mapped into memory as it lies.

What is unusual: shard files are written here, not by the zarr library (which is 3 to 7 times slower at it and
forces nothing to the disk), in the one order that makes them mappable: inner chunks of equal size, one after
another, each followed by its CRC-32C, the index last. An array is then a strided view of its file,

    np.ndarray((chunks, C), dtype, mapped, strides=(C * itemsize + 4, itemsize))

and any Zarr v3 reader opens the same file. What Zarr reads as fill value when an object is missing is an error here.

Every array is cut along its first axis only. Shape suffixes: N rows, C rows of an inner chunk, D width of a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import StoreError
from pantok.formats.store_disk import crc32c, present, reason, write_file
from pantok.formats.store_shard import REMEDY as _REMEDY
from pantok.formats.store_shard import Fault, Shard, pack, packing

CHUNK_BYTES = 1 << 20
"""An inner chunk is at most this large: what one checksum covers, and what a reader over a network fetches."""
CHUNKS_A_SHARD = 64
"""A shard is at most 64 MiB."""
_ABSENT = np.uint64(2**64 - 1)
_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
Objects = dict[str, list[Any]]
"""{path within the segment: [bytes, crc32c in hexadecimal]}"""


def grid(rows: int, row_bytes: int) -> tuple[int, int]:
    """(rows of an inner chunk, inner chunks of a shard) for an array of `rows`.

    The fewest chunks of at most 1 MiB, of equal size: a small array is one chunk of its own length, and a large one
    is padded by less than a row for each chunk.

    >>> grid(5000, 2), grid(524_289, 2), grid(100_000_000, 2)
    ((5000, 1), (262145, 2), (523561, 64))
    """
    chunks = max(1, -(-rows // max(1, CHUNK_BYTES // row_bytes)))
    chunk_rows = max(1, -(-rows // chunks))
    return chunk_rows, min(max(1, -(-rows // chunk_rows)), CHUNKS_A_SHARD)


def fill_value(dtype: np.dtype) -> Any:
    """What stands where nothing was written; never a value that means something."""
    if dtype.kind == "u":
        return int(np.iinfo(dtype).max)
    return int(np.iinfo(dtype).min) if dtype.kind == "i" else float("nan")


def group_json(**attributes: Any) -> bytes:
    return _json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def array_json(shape: tuple[int, ...], dtype: np.dtype, packed: bool = False) -> bytes:
    chunk_rows, chunks = grid(shape[0], _row_bytes(shape, dtype))
    fill = fill_value(dtype)
    sharding = {
        "chunk_shape": [chunk_rows, *shape[1:]],
        "codecs": [_BYTES, packing(dtype), _CRC] if packed else [_BYTES, _CRC],
        "index_codecs": [_BYTES, _CRC],
        "index_location": "end",
    }
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [chunk_rows * chunks, *shape[1:]]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if fill != fill else fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
        }
    )


def write_object(root: Path, name: str, objects: Objects, *parts: bytes | memoryview) -> None:
    """Writes a file below `root`, forces it to the disk and notes its size and checksum in `objects`."""
    crc = size = 0
    for part in parts:
        crc, size = crc32c(part, crc), size + len(part)
    write_file(root / name, *parts)
    objects[name] = [size, f"{crc:08x}"]


def write_array(root: Path, name: str, objects: Objects, parts: list[np.ndarray], packed: bool = False) -> None:
    """Writes the array `name` below `root`: `parts`, all of one dtype and width, one after another along axis 0.

    packed: compress each chunk (`store_shard.packing`); then it cannot be mapped.
    """
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    assert values.ndim and all(p.dtype == values.dtype for p in parts), [p.dtype for p in parts]
    row_bytes = _row_bytes(values.shape, values.dtype)
    chunk_rows, chunks = grid(len(values), row_bytes)
    (root / name).mkdir(parents=True)
    write_object(root, f"{name}/zarr.json", objects, array_json(values.shape, values.dtype, packed))
    for shard, first in enumerate(range(0, len(values), chunk_rows * chunks)):
        index = np.full((chunks, 2), _ABSENT, "<u8")
        pieces: list[bytes | memoryview] = []
        end = 0
        for k, lo in enumerate(range(first, min(first + chunk_rows * chunks, len(values)), chunk_rows)):
            chunk = values[lo : lo + chunk_rows]
            if len(chunk) < chunk_rows:
                padded = np.full((chunk_rows, *values.shape[1:]), fill_value(values.dtype), values.dtype)
                padded[: len(chunk)] = chunk
                chunk = padded
            data = pack(chunk) if packed else chunk.reshape(-1).view(np.uint8).data
            pieces += [data, crc32c(data).to_bytes(4, "little")]
            index[k] = end, len(data) + 4
            end += len(data) + 4
        tail = index.tobytes()
        pieces += [tail, crc32c(tail).to_bytes(4, "little")]
        key = ".".join(["c", str(shard)] + ["0"] * (values.ndim - 1))
        write_object(root, f"{name}/{key}", objects, *pieces)


class MappedArray:
    """An array of a store, read through memory maps of its shard files; packed ones chunk by chunk.

    Raises StoreError, at once or on reading, for what is missing or damaged; nothing is ever read as fill value.
    """

    def __init__(self, path: Path, metadata: bytes | None = None, io: str = "mmap") -> None:
        """metadata: the content of the array's zarr.json, if it has been read. io: one of `store_shard.IO`."""
        self.path, self._io = path, io
        if metadata is None:
            present(path / "zarr.json")
        try:
            meta = json.loads((path / "zarr.json").read_bytes() if metadata is None else metadata)
            self.shape: tuple[int, ...] = tuple(meta["shape"])
            self.dtype = np.dtype(meta["data_type"]).newbyteorder("<")
            self._shard_rows = int(meta["chunk_grid"]["configuration"]["chunk_shape"][0])
            codec = meta["codecs"][0]
            inner = codec.get("configuration", {})
            self._chunk_rows = int(inner.get("chunk_shape", [self._shard_rows])[0])
        except FileNotFoundError as error:
            raise StoreError(path / "zarr.json", "is missing", _REMEDY) from error
        except OSError as error:
            raise StoreError(path / "zarr.json", f"cannot be read: {reason(error)}", "check its permissions") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise StoreError(path / "zarr.json", f"is not the metadata of an array: {error}", _REMEDY) from error
        self._row_bytes = _row_bytes(self.shape, self.dtype)
        names = [[c.get("name") for c in inner.get(k, [])] for k in ("codecs", "index_codecs")]
        tail = list(self.shape[1:])
        ours = (
            codec.get("name") == "sharding_indexed"
            and names[1] == ["bytes", "crc32c"]
            and inner.get("index_location", "end") == "end"
            and inner["chunk_shape"][1:] == tail
            and meta["chunk_grid"]["configuration"]["chunk_shape"][1:] == tail
            and meta["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
        )
        self.is_hot = ours and names[0] == ["bytes", "crc32c"]
        """Whether it can be mapped."""
        self.is_mapped = self.is_hot and io == "mmap"
        self.is_packed = ours and names[0] == ["bytes", "blosc", "crc32c"]
        self._shards: dict[int, Shard] = {}

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shards(self) -> int:
        return -(-len(self) // self._shard_rows)

    def shard(self, number: int) -> Shard:
        if number not in self._shards:
            key = ".".join(["c", str(number)] + ["0"] * (len(self.shape) - 1))
            first = number * self._shard_rows
            rows = min(self._shard_rows, len(self) - first)
            slots = self._shard_rows // self._chunk_rows
            self._shards[number] = Shard(
                self.path / key, first, rows, (self._chunk_rows, *self.shape[1:]), self.dtype, slots,
                self.is_packed, self._io,
            )  # fmt: skip
        return self._shards[number]

    def views(self) -> Iterator[np.ndarray]:
        """For each shard a read-only strided view (chunks, C) or (chunks, C, D); the last is padded with fill value."""
        for number in range(self.shards):
            shard = self.shard(number)
            if shard.view is None:
                raise StoreError(shard.file, "its chunks do not stand in order, so that it cannot be mapped", _REMEDY)
            yield shard.view

    def read(self, first: int = 0, last: int | None = None, check: bool = True) -> np.ndarray:
        """Rows [first, last): a read-only view where they lie in one chunk, else a copy.

        check: compare the checksum of every chunk that is touched, and raise StoreError where it differs.
        """
        last = self.shape[0] if last is None else last
        assert 0 <= first <= last <= self.shape[0], (first, last, self.shape)
        if not check and self.is_hot:  # the way of training loops: one window of one chunk
            number, row = divmod(first, self._shard_rows)
            chunk, row = divmod(row, self._chunk_rows)
            shard = self._shards.get(number)
            if shard is not None and shard.view is not None and row + last - first <= self._chunk_rows:
                return shard.view[chunk, row : row + last - first]
        if first == last:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        if not (self.is_hot or self.is_packed):
            return self._read_foreign(first, last)
        if check and self.is_hot:  # packed chunks are always compared
            for fault in self.faults(first, last):
                raise StoreError(fault.file, f"{fault.problem}: rows {fault.first} to {fault.last - 1}", _REMEDY)
        lo, hi = first // self._shard_rows, -(-last // self._shard_rows)
        parts = []
        for number in range(lo, hi):
            shard = self.shard(number)
            parts += shard.pieces(max(first - shard.first, 0), min(last - shard.first, shard.rows))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def pieces(self, first: int, last: int) -> tuple[list[np.ndarray], int, int]:
        """(the rows [first, last) by the chunks that they lie in, read-only views where it is mapped, rows of the first
        chunk that come before them, rows of a whole chunk). What has other codecs is read, and then is one piece."""
        if not (self.is_hot or self.is_packed) or first == last:
            return [self.read(first, last, check=False)], 0, max(last - first, 1)
        parts = []
        for number in range(first // self._shard_rows, -(-last // self._shard_rows)):
            shard = self.shard(number)
            parts += shard.pieces(max(first - shard.first, 0), min(last - shard.first, shard.rows))
        return parts, first % self._chunk_rows, self._chunk_rows

    def runs(self, first: int, last: int) -> Iterator[tuple[Path, int, int]]:
        """Where the rows [first, last) lie: (file, byte of the first, rows that follow it without a gap).

        Raises StoreError if the array is packed.
        """
        if not self.is_hot:
            raise StoreError(
                self.path, "is packed, so that it cannot be mapped", "`pantok store pack --plain` copies it"
            )
        while first < last:
            shard = self.shard(first // self._shard_rows)
            at, rows = shard.run_of(first - shard.first)
            rows = min(rows, last - first)
            yield shard.file, at, rows
            first += rows

    def faults(self, first: int = 0, last: int | None = None) -> Iterator[Fault]:
        """Every run of the rows [first, last) that is missing or whose checksum differs."""
        last = len(self) if last is None else last
        for number in range(first // self._shard_rows, -(-last // self._shard_rows)):
            start = number * self._shard_rows
            stop = min(start + self._shard_rows, len(self))
            try:
                shard = self.shard(number)
            except StoreError as error:
                yield Fault(Path(error.thing), error.problem, max(first, start), min(last, stop))
                continue
            yield from shard.faults(max(first, start) - start, min(last, stop) - start)

    def _read_foreign(self, first: int, last: int) -> np.ndarray:
        """Written with other codecs: the zarr library decodes, after a look that no object is missing."""
        import zarr

        for number in range(first // self._shard_rows, -(-last // self._shard_rows)):
            key = ".".join(["c", str(number)] + ["0"] * (len(self.shape) - 1))
            if not ((self.path / key).exists() or (self.path / key.replace(".", "/")).exists()):
                raise StoreError(self.path / key, "is missing", _REMEDY)
        try:
            return np.asarray(zarr.open_array(self.path, mode="r")[first:last])
        except (ValueError, OSError, RuntimeError) as error:
            raise StoreError(self.path, f"cannot be decoded: {error}", _REMEDY) from error


def map_codes(path: Path) -> list[np.ndarray]:
    """For each shard of the array at `path` a read-only strided (chunks, C) view of the file, checksums skipped."""
    return list(MappedArray(path).views())


def _row_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()
