"""The Arrow pipe: gigabytes a second from `pantok stream` into a reader, beside `cat` of the same bytes.

    python benchmarks/stream_pipe.py STORE.zarr [--rounds 5] [--bytes 2000000000] [--length 4096] [--batch 64]

The stream is written to a file once (in memory, where /dev/shm is there); then by turns `pantok stream ... | reader`
and `cat file | reader`. Readers: one that throws the bytes away, and pyarrow's, which makes record batches of them.
Time is counted from the first byte that comes out, so that it is of the pipe and not of importing; the start is told
apart. A CPU second is of the stream's own process, less that of a stream of one epoch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from pantok.loader import StreamDataset


def raw(pipe, limit: int) -> int:
    got = 0
    while got < limit and (piece := pipe.read(1 << 20)):
        got += len(piece)
    return got


def arrow(pipe, limit: int) -> int:
    got, reader = 0, pa.ipc.open_stream(pipe)
    for batch in reader:
        got += batch.nbytes
        if got >= limit:
            break
    return got


def spent() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rate(words: list[str], read, limit: int) -> tuple[float, float, int]:
    """(seconds to the first byte, gigabytes a second from there on, bytes)."""
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=1 << 20) as child:
        assert child.stdout is not None
        child.stdout.peek(1)
        first = time.perf_counter()
        got = read(child.stdout, limit)
        last = time.perf_counter()
        child.stdout.close()
        child.wait()
    return first - began, got / (last - first) / 1e9, got


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=2_000_000_000)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    size = len(StreamDataset(given.store, length=given.length).windows) * given.length * 18
    epochs = max(1, -(-given.bytes // size))
    words = [sys.executable, "-m", "pantok", "stream", given.store, "--shuffle", "--repeat", str(epochs)]
    words += ["--length", str(given.length), "--batch", str(given.batch)]
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        file = Path(folder) / "stream.arrow"
        used = []
        for many in ("1", str(epochs)):
            before = spent()
            with open(file, "wb") as out:
                subprocess.run([many if word == str(epochs) else word for word in words], stdout=out, check=True)
            used.append((file.stat().st_size, spent() - before))
        whole = file.stat().st_size
        (few, start_cpu), (many_bytes, cpu) = used
        batch_mb = 18 * given.length * given.batch / 1e6
        print(f"{given.store}, {epochs} epochs, {whole / 1e9:.2f} GB, {batch_mb:.1f} MB a batch")
        if epochs > 1:
            print(f"into a file in memory: {(many_bytes - few) / (cpu - start_cpu) / 1e9:.2f} GB a CPU second\n")
        print("| reader | pantok stream, GB/s | cat, GB/s | share | first byte after, s |")
        print("|---|---|---|---|---|")
        for name, read in (("thrown away", raw), ("pyarrow record batches", arrow)):
            ours, theirs, starts = [], [], []
            for _ in range(given.rounds):
                start, speed, got = rate(words, read, 1 << 62)
                assert read is arrow or got == whole, (got, whole)
                ours.append(speed)
                starts.append(start)
                theirs.append(rate(["cat", str(file)], read, 1 << 62)[1])
            share = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            print(f"| {name} | {max(ours):.2f} | {max(theirs):.2f} | {share:.2f} | {statistics.median(starts):.2f} |")


if __name__ == "__main__":
    main()
