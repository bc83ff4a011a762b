"""Windows of ids a second: the loader beside a bare numpy map of the same ids.

    python benchmarks/loader.py STORE.zarr [--length 4096] [--seconds 5]

Both give shuffled windows of the default layout, in one process and one thread. `kept`: the store is small enough to be
arranged once. `cut`: it is not, and every window is arranged from the codes. The map holds ids alone, arranged before;
the loader also gives kinds, levels, instants and documents.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pantok import loader
from pantok.loader import StreamDataset


def rate(step: Callable[[], int], seconds: float) -> float:
    """Windows a second; what comes first is not counted."""
    step()
    began, windows = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        windows += step()
    return windows / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    rows = []
    for name, kept in (("loader, kept", 1 << 40), ("loader, cut", 0)):
        loader._KEPT_IDS = kept
        began = time.perf_counter()
        batches = iter(StreamDataset(args.store, length=args.length, batch_size=8))
        next(batches)
        first = time.perf_counter() - began
        rows.append((name, rate(lambda it=batches: len(next(it)["ids"]), args.seconds), first))
    plain = StreamDataset(args.store, length=args.length, batch_size=64, shuffle=False, epochs=1)
    ids = np.concatenate([batch["ids"].numpy().astype(np.uint32) for batch in plain])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids.npy"
        np.save(path, ids)
        mapped, rng = np.load(path, mmap_mode="r"), np.random.default_rng(0)

        def bare() -> int:
            torch.from_numpy(mapped[rng.integers(0, len(mapped), 8)].astype(np.int64))
            return 8

        rows.append(("numpy map of ids, take", rate(bare, args.seconds), 0.0))
    print(f"{ids.size} ids in {len(ids)} windows of {args.length}\n")
    print("| what | windows/s | million ids/s | first batch, s |\n|---|---|---|---|")
    for name, windows, first in rows:
        print(f"| {name} | {windows:,.0f} | {windows * args.length / 1e6:.1f} | {first:.2f} |")


if __name__ == "__main__":
    main()
