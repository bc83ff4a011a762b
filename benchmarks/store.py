"""How fast the token store writes, reads, opens and verifies, beside bare numpy on the same bytes in the same run.

    python benchmarks/store.py [--mib 128] [--episodes 10000]

Prints a markdown table. Files are in the page cache; everything the store writes is forced to the disk (fsync), numpy's
`tofile` is timed with and without. Each figure is the best of three, rivals taking turns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from pantok.experience import Clock, Source
from pantok.formats.store import Store
from pantok.formats.store_manifest import Manifest
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Level, TokenizerState, Vocabulary

VOCABULARY = Vocabulary.build({"audio": TokenizerState("audio", {}, (Level("gain", 256), Level("shape", 60_000)))})
WINDOW = 4096


def best(*ways: Callable[[], object], rounds: int = 3) -> list[float]:
    """Seconds of each way, the best of `rounds`, taking turns so that a busy machine is busy for all."""
    seconds = [float("inf")] * len(ways)
    for _ in range(rounds):
        for k, way in enumerate(ways):
            began = time.perf_counter()
            way()
            seconds[k] = min(seconds[k], time.perf_counter() - began)
    return seconds


def an_episode(name: str, codes: np.ndarray, ticks: int) -> TokenStream:
    counts = np.full(ticks, len(codes) // ticks)
    counts[0] += len(codes) - counts.sum()
    levels = (
        LevelCodes.of_counts(np.zeros(ticks, np.uint16), np.ones(ticks, int)),
        LevelCodes.of_counts(codes, counts),
    )
    track = TrackTokens("audio.mic", "audio", Clock.regular(16000, 320 * ticks), 320, levels)
    return TokenStream(name, {"audio.mic": track}, VOCABULARY.id, (Source(f"/tape/{name}.wav", 1, "0" * 64),))


def large(folder: Path, mib: int) -> list[tuple[str, str, str]]:
    codes = np.random.default_rng(0).integers(0, 60_000, mib << 19).astype(np.uint16)
    size = codes.nbytes / 1e6
    stream = an_episode("long", codes, 10_000)
    store = Store.create(folder / "large.zarr", VOCABULARY)

    def write() -> None:
        store.write([stream])
        store.remove(["long"])
        store.sweep()

    def to_file(sync: bool) -> None:
        with open(folder / "bare", "wb") as file:
            codes.tofile(file)
            if sync:
                os.fsync(file.fileno())

    ours, bare, bare_synced = best(write, lambda: to_file(False), lambda: to_file(True))
    rows = [
        (
            "write one long level",
            f"{size / ours:.0f} MB/s",
            f"{size / bare_synced:.0f} (tofile + fsync), {size / bare:.0f} (tofile)",
        )
    ]
    store.write([stream])
    level = store.segment(store.segments[0]).codes("audio.mic", 1)
    array = zarr.open_array(level.path, mode="r")
    out = np.empty_like(codes)

    def fill(check: bool) -> None:
        out[:] = level.read(check=check)

    checked, unchecked, numpy, plain = best(
        lambda: fill(True),
        lambda: fill(False),
        lambda: np.copyto(out, np.fromfile(folder / "bare", np.uint16)),
        lambda: array[:],
    )
    rows.append(("read all of it, checksums compared", f"{size / checked:.0f} MB/s", f"{size / numpy:.0f} (fromfile)"))
    rows.append(("read all of it, not compared", f"{size / unchecked:.0f} MB/s", f"{size / plain:.0f} (zarr-python)"))
    mapped = np.asarray(np.memmap(folder / "bare", np.uint16, "r"))
    starts = np.random.default_rng(1).integers(0, len(codes) - WINDOW, 20_000)
    batch = np.empty((64, WINDOW), np.uint16)

    def windows(read: Callable[[int], np.ndarray], count: int) -> Callable[[], None]:
        def run() -> None:
            for k, at in enumerate(starts[:count].tolist()):
                batch[k % 64] = read(at)

        return run

    ours, bare, plain = best(
        windows(lambda at: level.read(at, at + WINDOW, check=False), 20_000),
        windows(lambda at: mapped[at : at + WINDOW], 20_000),
        windows(lambda at: array[at : at + WINDOW], 50),
    )
    each = [20_000 / ours, 20_000 / bare, 50 / plain]
    rows.append(
        (
            f"random windows of {WINDOW} codes",
            f"{each[0]:,.0f} /s",
            f"{each[1]:,.0f} (numpy map), {each[2]:,.0f} (zarr-python)",
        )
    )
    (verify,) = best(lambda: list(store.verify()))
    rows.append(("verify", f"{size / verify:.0f} MB/s", ""))
    return rows


def many(folder: Path, episodes: int) -> list[tuple[str, str, str]]:
    rng = np.random.default_rng(2)
    store = Store.create(folder / "many.zarr", VOCABULARY)
    streams = [an_episode(f"e{i}", rng.integers(0, 60_000, 5000).astype(np.uint16), 500) for i in range(200)]
    began, cpu = time.perf_counter(), time.process_time()
    store.write(streams)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    rows = [("commit an episode of 10 s (11 kB)", f"{200 / wall:.0f} /s, {1000 * cpu / 200:.1f} ms CPU each", "")]
    (seconds,) = best(lambda: [store.read(f"e{i}") for i in range(200)])
    rows.append(("read such an episode", f"{200 / seconds:.0f} /s", ""))
    # The manifest alone at scale: real entries, under other names.
    manifest = Manifest.load(store.path)
    entry = manifest.read("0000000001.json")["add"][0]
    began = time.process_time()
    for i in range(manifest.number, episodes):
        manifest.commit(add=[{**entry, "segment": f"s{i}", "episodes": [[f"x{i}", *entry["episodes"][0][1:]]]}])
    cpu = time.process_time() - began
    files = list((store.path / "manifest").iterdir())
    size = sum(f.stat().st_size for f in files)
    rows.append(
        (
            f"{episodes} commits",
            f"{1000 * cpu / (episodes - 200):.2f} ms CPU each",
            f"{size / 1e6:.1f} MB in all, rolls included",
        )
    )
    (seconds,) = best(lambda: Store.open(store.path).episodes)
    rows.append((f"open a store of {episodes} episodes", f"{seconds:.2f} s", ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=128, help="size of the long level")
    parser.add_argument("--episodes", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = large(Path(folder), options.mib) + many(Path(folder), options.episodes)
    print("| what | store | beside it |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
