"""Tokens for chunks of arm motion (50 rows): ours with a guarantee, DCT + BPE as FAST describes it, plain binning.

    python benchmarks/numeric.py [--size 2048]

Prints a markdown table. Smooth motion: minimum-jerk moves of 7 joints between random points with noise of 0.002, 400
chunks to learn from, 100 others to measure. Sample arm: the float tracks of sample_data/robot/arm-*.parquet, first 80%
to learn from. Errors are in units of the half range. FAST (Pertsch et al. 2025, §V): a DCT of each joint over the
chunk, coefficients times a scale rounded, all joints interleaved from low to high frequency, then BPE; its pieces here
are trained and, in its favour, chosen by our trainer and shortest segmentation. Speeds are of CPU time, one run.
Then, what holes (NaN) in a table cost.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
from scipy.fft import dct, idct

from pantok.experience import Clock, Track
from pantok.quantizers import bpe
from pantok.tokenizers.numeric import NumericConfig, NumericOptions, NumericTokenizer

ROWS = 50
Row = tuple[str, float, float, int, float]


def moves(rng: np.random.Generator, count: int) -> np.ndarray:
    """Chunks (count, 50, 7) of minimum-jerk motion."""
    t = np.linspace(0, 1, ROWS)[:, None]
    rise = 10 * t**3 - 15 * t**4 + 6 * t**5
    start, goal = rng.uniform(-1, 1, (count, 1, 7)), rng.uniform(-1, 1, (count, 1, 7))
    return start + (goal - start) * rise[None] + rng.normal(0, 0.002, (count, ROWS, 7))


def arm() -> tuple[np.ndarray, np.ndarray]:
    """Chunks of all float columns of the arm recordings, scaled to a half range of 1: to learn from, to measure."""
    learned, held = [], []
    for path in sorted(Path(__file__).parents[1].glob("sample_data/robot/arm-*.parquet")):
        table = pyarrow.parquet.read_table(path).to_pydict()
        columns = []
        for name, cells in table.items():
            column = np.array(cells)
            if column.dtype.kind == "f" and "time" not in name and name not in ("t", "t_s"):
                columns.append(column.reshape(len(column), -1))
        values = np.concatenate(columns, 1).astype(np.float64)
        chunks = values[: len(values) // ROWS * ROWS].reshape(-1, ROWS, values.shape[1])
        cut = len(chunks) * 4 // 5
        learned.append(chunks[:cut])
        held.append(chunks[cut:])
    first, second = np.concatenate(learned), np.concatenate(held)
    low, high = first.min((0, 1)), first.max((0, 1))
    half = np.where(high > low, (high - low) / 2, 1.0)
    return (first - low) / half - 1, (second - low) / half - 1


def ours(learned: np.ndarray, held: np.ndarray, size: int, bound: float) -> Row:
    def track(chunks: np.ndarray) -> Track:
        values = chunks.reshape(-1, chunks.shape[2])
        return Track.of_array("action", values, Clock.regular(50, len(values)))

    # A key at every chunk: each is coded without the ones before it, as the others do.
    made = NumericTokenizer.fit([track(learned)], NumericConfig(size=size, key_ticks=1, relative=bound))
    made.encode(track(held[:1]), NumericOptions(max_error=bound))
    started = time.process_time()
    tokens = made.encode(track(held), NumericOptions(max_error=bound, max_error_relative=bound))
    spent = time.process_time() - started
    worst = float(np.abs(made.decoded(tokens).reshape(held.shape) - held).max())
    return f"pantok, bound {bound}", len(tokens.levels[0].codes) / len(held), worst, made.levels[0].cardinality, spent


def fast(learned: np.ndarray, held: np.ndarray, size: int, scale: float) -> Row:
    def coefficients(chunks: np.ndarray) -> np.ndarray:
        return np.rint(dct(chunks, axis=1, norm="ortho") * scale).astype(np.int64).reshape(len(chunks), -1)

    first = coefficients(learned)
    low, high = int(first.min()), int(first.max())
    pieces = bpe.train(first - low, high - low + 1, max(size, high - low + 1), longest=256)
    pieces.segment(first[:1] - low)
    started = time.process_time()
    codes, _ = pieces.segment(np.clip(coefficients(held), low, high) - low)
    spent = time.process_time() - started
    back = (pieces.expand(codes)[0] + low).reshape(held.shape)
    worst = float(np.abs(idct(back / scale, axis=1, norm="ortho") - held).max())
    return f"DCT + BPE (FAST), scale {scale:g}", len(codes) / len(held), worst, pieces.size, spent


def binning(held: np.ndarray) -> Row:
    started = time.process_time()
    codes = np.clip(np.floor((held + 1) * 128), 0, 255).astype(np.uint8)
    spent = time.process_time() - started
    return "256 bins", codes.size / len(held), float(np.abs((codes + 0.5) / 128 - 1 - held).max()), 256, spent


def holes(size: int) -> None:
    """Codes for a second (50 rows) of smooth motion of one channel in which there are holes, by a vocabulary of half of
    the same: as tables have them in which sensors with clocks of their own stand side by side."""
    rng = np.random.default_rng(1)
    moving = moves(rng, 80).reshape(-1, 7)[:, :1]
    row = np.arange(len(moving))[:, None]
    kinds = {
        "none": row < 0,
        "one of ten, at random": rng.random(moving.shape) < 0.1,
        "five seconds of ten": row // 250 % 2 == 0,
        "nine of ten rows": row % 10 > 0,
        "all": row >= 0,
    }
    tracks = [
        Track.of_array("proprio", np.where(empty, np.nan, moving), Clock.regular(50, len(moving)))
        for empty in kinds.values()
    ]
    half = [
        Track.of_array("proprio", t.read()[0][: len(moving) // 2], t.clock.cut(0, len(moving) // 2)) for t in tracks
    ]
    made = NumericTokenizer.fit(half, NumericConfig(size=size))
    print("\n| NaN | codes a second |\n|---|---|")
    for name, track in zip(kinds, tracks, strict=True):
        print(f"| {name} | {len(made.encode(track).levels[0].codes) / len(moving) * ROWS:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    size = parser.parse_args().size
    rng = np.random.default_rng(0)
    print("| motion | tokenizer | codes | tokens a chunk | bits a chunk | max error | samples/s |")
    print("|---|---|---|---|---|---|---|")
    for name, learned, held in (("smooth", moves(rng, 400), moves(rng, 100)), ("sample arm", *arm())):
        rows = [ours(learned, held, size, 0.01), *(fast(learned, held, size, s) for s in (10, 100)), binning(held)]
        for label, tokens, worst, codes, spent in rows:
            bits = tokens * math.log2(codes)
            speed = held.size / max(spent, 1e-9)
            label = f"{name} 50x{held.shape[2]} | {label} | {codes} | {tokens:.1f} | {bits:.0f}"
            print(f"| {label} | {worst:.4f} | {speed:,.0f} |", flush=True)
    holes(size)


if __name__ == "__main__":
    main()
