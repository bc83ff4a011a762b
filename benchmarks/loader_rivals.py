"""Windows a second: the loader beside what other trainers read, the same windows exported by `pantok export`.

    python benchmarks/loader_rivals.py STORE.zarr [--length 4096] [--seconds 4]

Rivals that are not installed are left out; they belong into an environment of their own that also holds pantok:
webdataset, mosaicml-streaming, datasets. One process, one thread, files in the page cache. Everybody gives ids, kinds,
levels and instants of each window as numpy arrays or tensors; shuffled, but for `in order`. Documents, loss masks and
bounds are the loader's alone, and so is the choice of another layout without another export.
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


def rate(windows: Iterator[int], seconds: float) -> float:
    """Windows a second, after the first; each step of `windows` says how many it gave."""
    next(windows)
    began, given = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        given += next(windows)
    return given / (time.perf_counter() - began)


def ours(store: Path, length: int) -> Iterator[int]:
    for batch in StreamDataset(store, length=length, batch_size=8):
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


def _taken(sample: Any) -> int:
    for name in COLUMNS:
        torch.from_numpy(np.array(sample[name]))
    return 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [("pantok.loader", rate(ours(args.store, args.length), args.seconds))]
    with tempfile.TemporaryDirectory() as folder:

        def exported(form: str) -> Path:
            out = Path(folder) / form
            if not out.exists():
                words = ["export", str(args.store), "--to", form, "-o", str(out), "--length", str(args.length), "-q"]
                subprocess.run([sys.executable, "-m", "pantok", *words], check=True)
            return out

        rivals: list[tuple[str, Callable[[], Iterator[int]]]] = [
            ("mosaicml-streaming", lambda: mds(exported("mds"))),
            ("webdataset", lambda: tars(exported("webdataset"))),
            ("datasets (Arrow)", lambda: arrow(exported("parquet"), True)),
            ("datasets (Arrow), in order", lambda: arrow(exported("parquet"), False)),
        ]
        for name, windows in rivals:
            try:
                rows.append((name, rate(windows(), args.seconds)))
            except ImportError as error:
                print(f"{name}: left out, {error}", file=sys.stderr)
    print("| loader | windows/s | million ids/s | of pantok's |\n|---|---|---|---|")
    for name, windows in rows:
        print(f"| {name} | {windows:,.0f} | {windows * args.length / 1e6:.1f} | {windows / rows[0][1]:.3f} |")


if __name__ == "__main__":
    main()
