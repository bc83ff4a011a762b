"""One array of a store: our map of it, what zarr reads of it, and the grid of its chunks."""

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from pantok.errors import StoreError
from pantok.formats.store_array import CHUNK_BYTES, MappedArray, fill_value, grid, map_codes, write_array
from pantok.formats.store_disk import crc32c


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((0,), np.uint8),
        ((1,), np.uint16),
        ((1000,), np.uint32),
        ((CHUNK_BYTES // 2 + 1,), np.uint16),
        ((3_333_333,), np.uint8),
        ((400_001,), np.int64),
        ((10 * CHUNK_BYTES - 3,), np.uint8),
        ((0, 7), np.float16),
        ((90_000, 33), np.float16),
        ((123_457, 5), np.uint16),
    ],
)
def test_the_map_is_what_zarr_reads(tmp_path, monkeypatch, shape, dtype):
    monkeypatch.setattr("pantok.formats.store_array.CHUNKS_A_SHARD", 4)  # several shards without 64 MiB
    rng = np.random.default_rng(0)
    values = np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)
    if dtype == np.float16:
        values = np.nan_to_num(values, posinf=1, neginf=-1)
    write_array(tmp_path, "a", {}, [values[: shape[0] // 3], values[shape[0] // 3 :]])
    ours = MappedArray(tmp_path / "a")
    theirs = zarr.open_array(tmp_path / "a", mode="r")
    assert ours.is_hot and ours.shape == theirs.shape == shape and ours.dtype == theirs.dtype == dtype
    np.testing.assert_array_equal(theirs[...], values)
    np.testing.assert_array_equal(ours.read(), values)
    views = map_codes(tmp_path / "a")
    rows = [np.concatenate([np.zeros((0, *shape[1:]), dtype), *view]) for view in views]
    if rows:
        np.testing.assert_array_equal(np.concatenate(rows)[: shape[0]], values)
        padding = np.concatenate(rows)[shape[0] :]
        assert np.isnan(padding).all() if dtype == np.float16 else (padding == fill_value(np.dtype(dtype))).all()
        assert len(padding) < sum(len(view) for view in views)
    for _ in range(20):
        lo, hi = sorted(rng.integers(0, shape[0] + 1, 2))
        np.testing.assert_array_equal(ours.read(lo, hi), values[lo:hi])
        np.testing.assert_array_equal(ours.read(lo, min(hi, lo + 9), check=False), values[lo : min(hi, lo + 9)])
    assert not any(view.flags.writeable for view in views)


@given(st.integers(0, 10**9), st.sampled_from([1, 2, 4, 8, 66, 5000]))
def test_the_grid_covers_and_wastes_little(rows, row_bytes):
    chunk_rows, chunks = grid(rows, row_bytes)
    count = -(-rows // chunk_rows)
    assert chunk_rows * row_bytes <= max(CHUNK_BYTES, row_bytes)
    assert 1 <= chunks <= 64
    assert 0 <= count * chunk_rows - rows < max(count, 1) or rows == 0
    assert count <= -(-rows // (CHUNK_BYTES // row_bytes)), "no more chunks than it takes"


@pytest.mark.parametrize("shards", [None, (4000,)])
def test_a_compressed_array_is_read_through_zarr(tmp_path, shards):
    """An archive packed by another program: still no fill value where an object is missing."""
    values = np.random.default_rng(0).integers(0, 9, 10_000).astype(np.uint16)
    array = zarr.create_array(
        tmp_path / "a", shape=(10_000,), dtype="u2", chunks=(1000,), shards=shards, fill_value=65535
    )
    array[:] = values
    ours = MappedArray(tmp_path / "a")
    assert not ours.is_hot
    np.testing.assert_array_equal(ours.read(123, 9876), values[123:9876])
    (tmp_path / "a/c/1").unlink()
    np.testing.assert_array_equal(ours.read(0, 1000), values[:1000])
    with pytest.raises(StoreError, match=r"c\.1: is missing"):
        ours.read(0, 6000)


def test_chunks_in_another_order_are_read_and_not_mapped(tmp_path, monkeypatch):
    """Zarr lets the chunks of a shard stand anywhere; the index says where."""
    monkeypatch.setattr("pantok.formats.store_array.CHUNK_BYTES", 1000)
    values = np.random.default_rng(0).integers(0, 9, 2000).astype(np.uint16)
    write_array(tmp_path, "a", {}, [values])
    whole = (tmp_path / "a/c.0").read_bytes()
    chunks, size = 4, 1004
    body = b"".join(whole[k * size : (k + 1) * size] for k in reversed(range(chunks)))
    index = np.array([[(chunks - 1 - k) * size, size] for k in range(chunks)], "<u8").tobytes()
    (tmp_path / "a/c.0").write_bytes(body + index + crc32c(index).to_bytes(4, "little"))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)
    np.testing.assert_array_equal(MappedArray(tmp_path / "a").read(), values)
    with pytest.raises(StoreError, match="do not stand in order"):
        map_codes(tmp_path / "a")
    index = index[:16] + b"\xff" * 16 + index[32:]
    (tmp_path / "a/c.0").write_bytes(body + index + crc32c(index).to_bytes(4, "little"))
    assert (zarr.open_array(tmp_path / "a", mode="r")[500:1000] == 65535).all(), "a hole that Zarr reads"
    with pytest.raises(StoreError, match=r"lacks its chunk 1"):
        MappedArray(tmp_path / "a").read()
