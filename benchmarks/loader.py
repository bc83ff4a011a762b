"""Windows of ids a second: the loader beside bare numpy maps of the same ids and the machine's own rates.

    python benchmarks/loader.py STORE.zarr [--length 4096] [--rounds 5] [--layout default]

All give shuffled windows of the same layout from the page cache. The loader makes every window from the store's codes:
ids, kinds, levels, tracks, roles, instants, documents, loss masks (25 bytes an id), or ids alone. `map, same columns`
copies all of these from maps of files that were arranged before; `map, ids alone` ids. Contenders take turns in short
slices after one whole epoch, and the best slice of each counts, so that what else the machine does falls on all alike;
"a CPU second" is by processor time of the whole process. Then the first batch, the first epoch (in which every episode
is opened) and the memory of a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pantok.loader import StreamDataset

COLUMNS = ("ids", "time_ns", "document", "kind", "level", "track", "role", "loss_mask")
BATCH = 64
FRESH = """
import time, sys
import torch
from pantok.loader import StreamDataset
began, cpu = time.perf_counter(), time.process_time()
dataset = StreamDataset(sys.argv[1], sys.argv[3], length=int(sys.argv[2]), batch_size=64)
data = iter(dataset)
next(data)
first = time.perf_counter() - began, time.process_time() - cpu
def held():
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line[:3] == "Rss"}
before, began, cpu = held(), time.perf_counter(), time.process_time()
ids = sum(next(data)["ids"].numel() for _ in range(len(dataset) - 1))
epoch = ids / (time.perf_counter() - began) / 1e6, ids / (time.process_time() - cpu) / 1e6
for _ in range(1000):
    next(data)
print(*first, *epoch, before["RssAnon"], held()["RssAnon"], held()["RssFile"])
"""


def loader(
    store: Path, layout: str, length: int, threads: int, columns: tuple[str, ...] | None = None
) -> Iterator[int]:
    for batch in StreamDataset(
        store, layout, length=length, batch_size=BATCH, threads=threads, columns=columns
    ):  # fmt: skip
        yield len(batch["window"])


def maps(folder: Path, names: tuple[str, ...]) -> Iterator[int]:
    columns = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names]
    rng = np.random.default_rng(0)
    while True:
        at = rng.integers(0, len(columns[0]), BATCH)
        for column in columns:
            torch.from_numpy(column[at])
        yield BATCH


def copies(target: np.ndarray, source: np.ndarray) -> Iterator[int]:
    """Whole copies of an array, 16 MiB at a time; each step says how many bytes."""
    step = 16 << 20
    while True:
        for at in range(0, len(source), step):
            piece = source[at : at + step]
            target[: len(piece)] = piece
            yield len(piece)


def best(
    contenders: dict[str, Iterator[int]], rounds: int, seconds: float, warm: int = 1
) -> dict[str, tuple[float, float]]:
    """Of each the most it gave a second, by the clock and by processor time."""
    found = dict.fromkeys(contenders, (0.0, 0.0))
    for steps in contenders.values():
        given = 0
        while given < warm:
            given += next(steps)
    for _ in range(rounds):
        for name, steps in contenders.items():
            next(steps)
            began, cpu, given = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < seconds:
                given += next(steps)
            wall, spent = time.perf_counter() - began, time.process_time() - cpu
            found[name] = max(found[name][0], given / wall), max(found[name][1], given / spent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--layout", default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = StreamDataset(args.store, args.layout, length=args.length, batch_size=64, shuffle=False, epochs=1)
        count = len(plain.windows)
        files = None
        at = 0
        for batch in plain:
            if files is None:
                files = {
                    c: np.lib.format.open_memmap(
                        folder / f"{c}.npy", "w+", batch[c].numpy().dtype, (count, args.length)
                    )
                    for c in COLUMNS
                }
            for c in COLUMNS:
                files[c][at : at + len(batch[c])] = batch[c].numpy()
            at += len(batch["ids"])
        del files
        contenders = {
            "loader, one thread": loader(args.store, args.layout, args.length, 0),
            "loader, two threads": loader(args.store, args.layout, args.length, 2),
            "loader, ids alone": loader(args.store, args.layout, args.length, 0, ("ids",)),
            "loader, ids alone, two threads": loader(args.store, args.layout, args.length, 2, ("ids",)),
            "map, same columns": maps(folder, COLUMNS),
            "map, ids alone": maps(folder, ("ids",)),
        }
        found = best(contenders, args.rounds, args.seconds, count)
        for steps in contenders.values():
            steps.close()
        source = np.asarray(np.load(folder / "ids.npy", mmap_mode="r")).reshape(-1).view(np.uint8)
        target = np.ones(16 << 20, np.uint8)
        rates = best(
            {"memcpy": copies(target, np.ones(64 << 20, np.uint8)), "copy from a map": copies(target, source)}, 5, 0.3
        )
    print(f"{plain.windows.ids:,} ids in {count:,} windows of {args.length}, layout {args.layout}\n")
    print("| what | windows/s | million ids/s | million ids a CPU second |\n|---|---|---|---|")
    for what, (wall, cpu) in found.items():
        print(f"| {what} | {wall:,.0f} | {wall * args.length / 1e6:,.0f} | {cpu * args.length / 1e6:,.0f} |")
    print("\n| the machine | GB/s | GB a CPU second |\n|---|---|---|")
    for what, (wall, cpu) in rates.items():
        print(f"| {what} | {wall / 1e9:.1f} | {cpu / 1e9:.1f} |")
    words = [sys.executable, "-c", FRESH, str(args.store), str(args.length), args.layout]
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    wall, cpu, epoch, epoch_cpu, before, after, mapped = map(float, out)
    print(f"\nfirst batch {wall:.2f} s after import ({cpu:.2f} s of processor)", end="")
    print(f"; the first epoch {epoch:.0f} million ids/s, {epoch_cpu:.0f} a CPU second", end="")
    print(f"; memory {before:.0f} MB then, {after:.0f} MB after 1,000 batches, and {mapped:.0f} MB of mapped files")


if __name__ == "__main__":
    main()
