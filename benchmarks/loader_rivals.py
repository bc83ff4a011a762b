"""Windows a second: the loader beside what other trainers read, the same windows exported by `pantok export`.

    python benchmarks/loader_rivals.py STORE.zarr [--length 4096] [--rounds 4]

Rivals that are not installed are left out; they belong into an environment of their own that also holds pantok:
webdataset, mosaicml-streaming, litdata, datasets. One process, one thread, files in the page cache. Everybody gives
ids, kinds, levels and instants of each window as numpy arrays or tensors; shuffled, but for `in order`. Tracks, roles,
documents, loss masks and bounds are the loader's alone (25 bytes an id against 14), and so is the choice of another
layout without another export. Slices by turns, the best of each.
"""

from __future__ import annotations

import argparse
import importlib
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


def best(contenders: dict[str, Iterator[int]], rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Of each the most windows a second, by the clock and by processor time, in slices that they take by turns."""
    found = dict.fromkeys(contenders, (0.0, 0.0))
    for _ in range(rounds):
        for name, windows in contenders.items():
            next(windows)
            began, cpu, given = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < seconds:
                given += next(windows)
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            found[name] = max(found[name][0], given / wall), max(found[name][1], given / spent)
    return found


def ours(store: Path, length: int) -> Iterator[int]:
    for batch in StreamDataset(store, length=length, batch_size=64):
        yield len(batch["ids"])


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


def lit(folder: Path, store: Path, length: int) -> Iterator[int]:
    litdata = importlib.import_module("litdata")
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
    data = litdata.StreamingDataset(str(folder), shuffle=True)
    for sample in chain.from_iterable(data for _ in count()):
        yield _taken(sample)


def _taken(sample: Any) -> int:
    for name in COLUMNS:
        torch.from_numpy(np.array(sample[name]))
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    args = parser.parse_args()
    torch.set_num_threads(1)
    contenders: dict[str, Iterator[int]] = {"pantok.loader": ours(args.store, args.length)}
    with tempfile.TemporaryDirectory() as folder:

        def exported(form: str) -> Path:
            out = Path(folder) / form
            if not out.exists():
                words = ["export", str(args.store), "--to", form, "-o", str(out), "--length", str(args.length), "-q"]
                subprocess.run([sys.executable, "-m", "pantok", *words], check=True)
            return out

        rivals: list[tuple[str, Callable[[], Iterator[int]]]] = [
            ("mosaicml-streaming", lambda: mds(exported("mds"))),
            ("litdata", lambda: lit(Path(folder) / "lit", args.store, args.length)),
            ("webdataset", lambda: tars(exported("webdataset"))),
            ("datasets (Arrow)", lambda: arrow(exported("parquet"), True)),
            ("datasets (Arrow), in order", lambda: arrow(exported("parquet"), False)),
        ]
        for name, make in rivals:
            try:
                windows = make()
                next(windows)
                contenders[name] = windows
            except ImportError as error:
                print(f"{name}: left out, {error}", file=sys.stderr)
        rows = best(contenders, args.rounds, args.seconds)
    print("| loader | windows/s | million ids/s | million ids a CPU second | of pantok's |\n|---|---|---|---|---|")
    most = rows["pantok.loader"][0]
    for name, (wall, cpu) in rows.items():
        million = args.length / 1e6
        print(f"| {name} | {wall:,.0f} | {wall * million:.1f} | {cpu * million:.1f} | {wall / most:.3f} |")


if __name__ == "__main__":
    main()
