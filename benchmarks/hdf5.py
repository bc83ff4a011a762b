"""What it costs to read HDF5: an hour of pictures in one file, and ten thousand demonstrations in another.

python benchmarks/hdf5.py [--frames 108000] [--side 96] [--demos 10000]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from pantok.formats.hdf5 import parts_of, read_part

PART = 1000  # frames written at a time
READ = 200  # demonstrations that are read


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=108_000)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--demos", type=int, default=10_000)
    args = parser.parse_args()
    print("| what | CPU, s | peak memory of the process, MB |")
    print("|---|---|---|")

    def row(what: str, began: float) -> None:
        print(f"| {what} | {time.process_time() - began:.2f} | {peak_mb():.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.hdf5"
        noise = np.random.default_rng(0).integers(0, 256, (PART, args.side, args.side, 3), np.uint8)
        with h5py.File(path, "w") as file:
            file.attrs["fps"] = 30
            shape = (args.frames, *noise.shape[1:])
            film = file.create_dataset("observations/images/cam", shape, "u1", chunks=(1, *noise.shape[1:]))
            for first in range(0, args.frames, PART):
                film[first : first + PART] = noise[: args.frames - first]
            file["action"] = np.zeros((args.frames, 7), np.float32)
        row(f"a file of {path.stat().st_size / 1e6:.0f} MB, as it was made", time.process_time())
        began = time.process_time()
        tracks = {track.name: track for track in read_part(path, "", {}, print)}
        row("its tracks", began)
        began = time.process_time()
        count = sum(len(block) for block in tracks["video.cam"].blocks())
        assert count == args.frames, count
        row(f"{count} pictures, as YUV", began)
        began = time.process_time()
        with h5py.File(path, "r") as file:
            for first in range(0, args.frames, 32):
                file["observations/images/cam"][first : first + 32]
        row("of that, reading with h5py alone", began)
        path.unlink()
        path = Path(folder) / "many.hdf5"
        with h5py.File(path, "w") as file:
            file.attrs["fps"] = 20
            for number in range(args.demos):
                file[f"data/demo_{number}/actions"] = np.zeros((20, 7))
                file[f"data/demo_{number}/obs/q"] = np.zeros((20, 7))
        began = time.process_time()
        parts = parts_of(path)
        assert len(parts) == args.demos, len(parts)
        row(f"the names of {len(parts)} demonstrations", began)
        began = time.process_time()
        for part in parts[:READ]:
            read_part(path, part, {}, print)
        row(f"the tracks of {READ} of them", began)


if __name__ == "__main__":
    main()
