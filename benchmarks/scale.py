"""A store of ten million episodes and 100 GB: how long opening, looking up and `pantok info` take, and their memory.

    python benchmarks/scale.py [--episodes 10000000] [--gigabytes 100] [--folder DIR]

The episodes' lines are written as commits of 50,000 each, the index by the code that every store uses; their columns
are one sparse array whose shards have true indexes and no data (so `pantok verify` would refuse it). One episode is
real. Prints a markdown table; each figure is of a fresh process, the best of three.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pantok.experience import Clock
from pantok.formats.store import Store
from pantok.formats.store_array import array_json, grid
from pantok.formats.store_disk import crc32c, put_if_absent, seal
from pantok.formats.store_manifest import FOLDER, Manifest, commit_name
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Level, TokenizerState, Vocabulary

VOCABULARY = Vocabulary.build({"audio": TokenizerState("audio", {}, (Level("gain", 256), Level("shape", 60_000)))})
A_COMMIT = 50_000
AT_ONCE = 1_500_000

MEASURE = """
import sys, time
def peak():
    return int([x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')][0])
import pantok.formats.store as module
before = peak()
began = time.perf_counter()
store = module.Store.open(sys.argv[1])
opened = time.perf_counter() - began
began = time.perf_counter()
for name in sys.argv[2:]:
    store.episodes[name]
found = (time.perf_counter() - began) / len(sys.argv[2:])
began = time.perf_counter()
store.sizes()
sized = time.perf_counter() - began
began = time.perf_counter()
store.read("real")
read = time.perf_counter() - began
after = peak()
print(opened, found, sized, read, len(store), before, after)
"""


def fill(path: Path, episodes: int, gigabytes: int) -> None:
    store = Store.create(path, VOCABULARY)
    levels = (
        LevelCodes.of_counts(np.zeros(50, np.uint8), np.ones(50, int)),
        LevelCodes.of_counts(np.arange(500, dtype=np.uint16), np.full(50, 10)),
    )
    track = TrackTokens("audio.mic", "audio", Clock.regular(16000, 16000), 320, levels)
    store.write([TokenStream("real", {"audio.mic": track}, VOCABULARY.id)])
    rows = gigabytes * 10**9 // 2
    sparse(path / "segments" / "sparse" / "codes", rows)
    each = rows // max(episodes, 1)
    tracks = {"audio.mic": ["audio", 320 * 50, 50, 10**9, [50, each], None]}
    made = 0
    while made < episodes:
        manifest = Manifest.load(path)
        number = manifest.number
        stop = min(made + AT_ONCE, episodes)
        while made < stop:
            ids = range(made, min(made + A_COMMIT, stop))
            lines = [
                [f"house-{k % 977:03d}/{k:08d}", f"{k:032x}", f"{k:064x}", k * 10**9, 10**9,
                 [[f"/tape/{k:08d}.wav", 32044, f"{k:064x}"]], tracks]
                for k in ids
            ]  # fmt: skip
            number += 1
            entry = {"segment": f"sparse-{number:06d}", "bytes": len(ids) * 2 * each, "commit_sha256": "0" * 64}
            commit = {"format": 1, "number": number, "unix_time": int(time.time()), "add": [{**entry, "episodes": lines}], "remove": []}  # noqa: E501 # fmt: skip
            put_if_absent(path / FOLDER / commit_name(number), seal(commit))
            made = ids[-1] + 1
        manifest.refresh()
        manifest.put_index()
        print(f"{made} episodes", file=sys.stderr)


def sparse(folder: Path, rows: int) -> None:
    """An array of `rows` uint16 whose shards are holes but for their indexes."""
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_bytes(array_json((rows,), np.dtype("<u2")))
    chunk_rows, chunks = grid(rows, 2)
    whole = 2 * chunk_rows + 4
    for shard, first in enumerate(range(0, rows, chunk_rows * chunks)):
        held = min(chunks, -(-(rows - first) // chunk_rows))
        index = np.full((chunks, 2), 2**64 - 1, "<u8")
        index[:held, 0], index[:held, 1] = np.arange(held) * whole, whole
        tail = index.tobytes()
        with open(folder / f"c.{shard}", "wb") as file:
            file.truncate(held * whole)
            file.seek(held * whole)
            file.write(tail + crc32c(tail).to_bytes(4, "little"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000_000)
    parser.add_argument("--gigabytes", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="Keep the store here; one that is there is measured again.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = (options.folder or Path(temporary)) / "scale.zarr"
        if not path.exists():
            began = time.process_time()
            fill(path, options.episodes, options.gigabytes)
            print(f"made in {time.process_time() - began:.0f} s of CPU", file=sys.stderr)
        draw = np.random.default_rng(0).integers(0, options.episodes, 200)
        names = [f"house-{k % 977:03d}/{k:08d}" for k in draw.tolist()]
        runs = []
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", MEASURE, path, *names], capture_output=True, check=True)
            runs.append([float(x) for x in done.stdout.split()])
        began = time.perf_counter()
        info = subprocess.run([sys.executable, "-m", "pantok", "info", path], capture_output=True, check=True)
        whole = time.perf_counter() - began
        best = np.min(runs, axis=0)
        files = [os.stat(Path(d) / f) for d, _, names in os.walk(path) for f in names]
        index = max((path / FOLDER / "index").iterdir())
        print("| what | measured |\n|---|---|")
        size, held = sum(f.st_size for f in files) / 1e9, sum(512 * f.st_blocks for f in files) / 1e9
        print(f"| episodes, bytes of the files, bytes on the disk | {best[4]:,.0f}, {size:.0f} GB, {held:.1f} GB |")
        print(f"| index | {index.stat().st_size / 1e9:.2f} GB |")
        print(f"| open | {best[0]:.3f} s |")
        print(f"| find an episode by its id | {1e6 * best[1]:.0f} µs |")
        print(f"| totals of every track and level | {1e3 * best[2]:.1f} ms |")
        print(f"| read an episode of a second | {1e3 * best[3]:.1f} ms |")
        print(f"| peak memory of that process (of which imports) | {best[6] / 1024:.0f} MB ({best[5] / 1024:.0f} MB) |")
        print(f"| `pantok info`, the whole process | {whole:.2f} s |")
        assert f"{int(best[4])} episodes".encode() in info.stdout, info


if __name__ == "__main__":
    main()
