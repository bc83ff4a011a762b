"""Encoding a video, against PyAV merely decoding and resizing the same file: pairs in one run, median of the ratios.

    python benchmarks/encode_speed.py FILE --vocab X.vocab [--size 256] [--pairs 5]

Both sides read the file through the same number of decoder threads and resize to the same size. The encoding side
is the whole path: decode, resize, tokenize. Ratio = time(PyAV) / time(pantok): 0.5 means half as fast. The CPU columns
are of all threads, the least of the pairs: they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import av

from pantok.encode import Codec
from pantok.formats.container import read_container
from pantok.formats.vocab import load_vocabulary


def decode_only(path: Path, width: int, height: int) -> int:
    frames = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            frame.reformat(width, height, "yuv420p")
            frames += 1
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--size", type=int, help="shorter side in pixels; native by default")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    tokenizer = Codec(load_vocabulary(args.vocab)).tokenizer("video")

    ratios, rows, cpu = [], [], []
    for _ in range(args.pairs):
        track = next(t for t in read_container(args.file, size=args.size) if t.modality == "video")
        height, width = track.info["height"], track.info["width"]
        began, cpu0 = time.perf_counter(), time.process_time()
        frames = decode_only(args.file, width, height)
        middle, cpu1 = time.perf_counter(), time.process_time()
        tokens = tokenizer.encode(track)
        ended, cpu2 = time.perf_counter(), time.process_time()
        assert tokens.clock.count == frames, (tokens.clock.count, frames)
        ratios.append((middle - began) / (ended - middle))
        rows.append((frames / (middle - began), frames / (ended - middle)))
        cpu.append(((cpu1 - cpu0) / frames * 1e3, (cpu2 - cpu1) / frames * 1e3))
    pyav, pantok = (statistics.median(r[i] for r in rows) for i in (0, 1))
    least = [min(c[i] for c in cpu) for i in (0, 1)]
    print(
        "| file | size | frames | PyAV frames/s | pantok frames/s | ratio: median (least to most) "
        "| PyAV CPU ms/frame | pantok CPU ms/frame |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {args.file.name} | {width}x{height} | {frames} | {pyav:.0f} | {pantok:.0f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"| {least[0]:.2f} | {least[1]:.2f} |"
    )


if __name__ == "__main__":
    main()
