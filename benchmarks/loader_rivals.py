"""Windows a second: the loader beside what other trainers read, the same windows, as equal columns.

    python benchmarks/loader_rivals.py STORE.zarr [--length 4096] [--rounds 4]

Rivals that are not installed are left out; they belong into an environment of their own that also holds pantok:
webdataset, mosaicml-streaming, litdata, datasets, zarrs. One process, one thread, files in the page cache. Two tables:

- ids, kinds, levels and instants of each window, as numpy arrays or tensors; shuffled, but for `in order`. Rivals have
  what `pantok export` writes (litdata its own writer), ids of four bytes, 14 bytes an id; the loader gives the same
  four, ids of eight bytes, 18 together: of a copy of the store after `pantok store arrange`, and `from codes` without.
  Below it the loader with all of its columns, 25 bytes an id. Rivals give window after window, as views of their files
  where they can; the loader gives batches of 64, and so does `litdata, batches of 64` (torch's default_collate).
- ids alone, as random windows of a plain Zarr v3 array (uint32, uncompressed, in shards) read by zarr-python and by
  zarrs: in chunks of 1 MiB, and in chunks that are a window each and begin where it does, which is the best that a
  chunked array can be for this and fits no other length.

Everybody first goes once through all windows, uncounted (the loader opens the episodes then). Slices by turns, the best
of each.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pantok.loader import StreamDataset

COLUMNS = ("ids", "kind", "level", "time_ns")


def best(
    contenders: dict[str, Iterator[int]], rounds: int, seconds: float, warm: int
) -> dict[str, tuple[float, float]]:
    """Of each the most windows a second, by the clock and by processor time, in slices that they take by turns."""
    found = dict.fromkeys(contenders, (0.0, 0.0))
    for windows in contenders.values():
        began, given = time.perf_counter(), 0
        while given < warm and time.perf_counter() - began < 5:
            given += next(windows)
    for _ in range(rounds):
        for name, windows in contenders.items():
            next(windows)
            began, cpu, given = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < seconds:
                given += next(windows)
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            found[name] = max(found[name][0], given / wall), max(found[name][1], given / spent)
    return found


def ours(store: Path, length: int, columns: tuple[str, ...] | None) -> Iterator[int]:
    for batch in StreamDataset(store, length=length, batch_size=64, columns=columns):
        yield len(batch["window"])


def mds(folder: Path) -> Iterator[int]:
    streaming = importlib.import_module("streaming")
    data = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=1)
    for sample in chain.from_iterable(data for _ in count()):
        yield _taken(sample)


def tars(folder: Path) -> Iterator[int]:
    webdataset = importlib.import_module("webdataset")
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    data = webdataset.WebDataset(urls, shardshuffle=False).shuffle(200).decode()
    for sample in chain.from_iterable(data for _ in count()):
        yield _taken({name: sample[f"{name}.npy"] for name in COLUMNS})


def arrow(folder: Path, shuffle: bool) -> Iterator[int]:
    datasets = importlib.import_module("datasets")
    files = [str(p) for p in sorted(folder.glob("*.parquet"))]
    data = datasets.Dataset.from_parquet(files, cache_dir=str(folder / "cache")).with_format("numpy")
    rng = np.random.default_rng(0)
    for k in count():
        at = rng.integers(0, len(data), 8) if shuffle else np.arange(8 * k, 8 * k + 8) % len(data)
        yield len(data[at]["ids"])


def lit(folder: Path, store: Path, length: int, batch: int) -> Iterator[int]:
    litdata = importlib.import_module("litdata")
    if not folder.exists():
        _write_lit(folder, store, length)
    data = litdata.StreamingDataset(str(folder), shuffle=True)
    samples = chain.from_iterable(data for _ in count())
    if batch == 1:
        for sample in samples:
            yield _taken(sample)
    while True:
        together = torch.utils.data.default_collate([next(samples) for _ in range(batch)])
        yield len(together["ids"])


def _write_lit(folder: Path, store: Path, length: int) -> None:
    writer = importlib.import_module("litdata.streaming.writer").BinaryWriter(str(folder), chunk_bytes="64MB")
    at = 0
    for batch in StreamDataset(store, length=length, batch_size=64, shuffle=False, epochs=1):
        for row in range(len(batch["ids"])):
            # As the exports have them: ids of four bytes.
            sample = {name: batch[name][row].numpy() for name in COLUMNS}
            writer[at] = {**sample, "ids": sample["ids"].astype(np.uint32)}
            at += 1
    writer.done()
    writer.merge()


def _taken(sample: Any) -> int:
    for name in COLUMNS:
        column = np.asarray(sample[name])
        torch.from_numpy(column if column.flags.writeable else column.copy())
    return 1


def zarr_windows(folder: Path, store: Path, length: int, chunk: int, pipeline: str) -> Iterator[int]:
    """Random windows of an array of all ids. chunk: ids of one."""
    zarr = importlib.import_module("zarr")
    importlib.import_module(pipeline.partition(".")[0])
    path = folder / f"ids-{chunk}.zarr"
    if not path.exists():
        plain = StreamDataset(store, length=length, batch_size=64, shuffle=False, epochs=1, columns=("ids",))
        ids = np.concatenate([batch["ids"].numpy().astype(np.uint32).ravel() for batch in plain])
        shard = chunk * max(1, (64 << 20) // (4 * chunk))
        made = zarr.create_array(
            store=str(path), shape=ids.shape, dtype="uint32", chunks=(chunk,), shards=(shard,), compressors=None
        )
        made[:] = ids
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        array = zarr.open_array(str(path), mode="r")
    rng, whole = np.random.default_rng(0), array.shape[0] // length
    while True:
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            for at in (rng.integers(0, whole, 8) * length).tolist():
                torch.from_numpy(np.asarray(array[at : at + length]))
        yield 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        laid = folder / "laid.zarr"
        shutil.copytree(args.store, laid, ignore=shutil.ignore_patterns(".cache"))
        subprocess.run([sys.executable, "-m", "pantok", "store", "arrange", str(laid), "-q"], check=True)

        def exported(form: str) -> Path:
            out = folder / form
            if not out.exists():
                words = ["export", str(args.store), "--to", form, "-o", str(out), "--length", str(args.length), "-q"]
                subprocess.run([sys.executable, "-m", "pantok", *words], check=True)
            return out

        def of_zarr(chunk: int, pipeline: str) -> Callable[[], Iterator[int]]:
            return lambda: zarr_windows(folder, args.store, args.length, chunk, pipeline)

        python, rust = "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"
        table(
            "four columns",
            {
                "pantok.loader": lambda: ours(laid, args.length, COLUMNS),
                "pantok.loader, all columns": lambda: ours(laid, args.length, None),
                "pantok.loader, from codes": lambda: ours(args.store, args.length, COLUMNS),
                "pantok.loader, from codes, all columns": lambda: ours(args.store, args.length, None),
                "litdata": lambda: lit(folder / "lit", args.store, args.length, 1),
                "litdata, batches of 64": lambda: lit(folder / "lit", args.store, args.length, 64),
                "datasets (Arrow), in order": lambda: arrow(exported("parquet"), False),
                "datasets (Arrow)": lambda: arrow(exported("parquet"), True),
                "mosaicml-streaming": lambda: mds(exported("mds")),
                "webdataset": lambda: tars(exported("webdataset")),
            },
            args,
        )
        table(
            "ids alone",
            {
                "pantok.loader": lambda: ours(laid, args.length, ("ids",)),
                "pantok.loader, from codes": lambda: ours(args.store, args.length, ("ids",)),
                "zarrs, a chunk a window": of_zarr(args.length, rust),
                "zarrs, chunks of 1 MiB": of_zarr(1 << 18, rust),
                "zarr-python, a chunk a window": of_zarr(args.length, python),
                "zarr-python, chunks of 1 MiB": of_zarr(1 << 18, python),
            },
            args,
        )


def table(title: str, makers: dict[str, Callable[[], Iterator[int]]], args: argparse.Namespace) -> None:
    contenders: dict[str, Iterator[int]] = {}
    for name, make in makers.items():
        try:
            windows = make()
            next(windows)
            contenders[name] = windows
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    rows = best(contenders, args.rounds, args.seconds, len(StreamDataset(args.store, length=args.length).windows))
    print(f"| {title} | windows/s | million ids/s | million ids a CPU second | of pantok's | by CPU |")
    print("|---|---|---|---|---|---|")
    most, least = rows["pantok.loader"]
    for name, (wall, cpu) in rows.items():
        million = args.length / 1e6
        shares = f"{wall / most:.3f} | {cpu / least:.3f}"
        print(f"| {name} | {wall:,.0f} | {wall * million:.1f} | {cpu * million:.1f} | {shares} |")
    print(flush=True)


if __name__ == "__main__":
    main()
