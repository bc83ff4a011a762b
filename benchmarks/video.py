"""Quality, bits and speed of the video tokenizer against a plain floor, on clips that it was not fitted on.

    python benchmarks/video.py CLIP [CLIP ...]

For each clip: fitted on the first 80 percent of its frames, measured on the last 20. Bits are those of all codes of all
levels, log2 of the cardinality each. The floor is what a page of code gives: PCA of 4x8x8 RGB patches to 64
dimensions, residual k-means of 1,024 codes a stage, the same number of stages everywhere. PSNR is of RGB, from the
mean squared error over the whole part. `still` is a clip's first test frame held for two seconds; `speed` is paired:
CPU time of reading and encoding over that of reading and resizing to the same size in RGB.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction

import av
import numpy as np
import torch

from pantok import pixels
from pantok.experience import Clock, Track
from pantok.quantizers.kmeans import nearest, residual_kmeans
from pantok.stream import TrackTokens
from pantok.tokenizers.video import VideoOptions, VideoTokenizer

FLOOR_STAGES = 4
STEPS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)


def read(path: str) -> tuple[np.ndarray, int, int, Fraction]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = [f.reformat(format="yuv420p") for f in container.decode(stream)]
        rate = stream.average_rate
    height, width = frames[0].height, frames[0].width
    planes = [
        np.concatenate([np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width].ravel() for p in f.planes])
        for f in frames
    ]
    return np.stack(planes), height, width, Fraction(rate or 25)


def track_of(frames: np.ndarray, height: int, width: int, rate: Fraction) -> Track:
    return Track.of_array(
        "video.clip", frames, Clock.regular(rate, len(frames)), info={"height": height, "width": width}
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = [np.mean((x.astype(np.float32) - y) ** 2) for x, y in zip(a, b, strict=True)]
    return float(10 * np.log10(255**2 / max(np.mean(error), 1e-6)))


def bits_of(tokens: TrackTokens, tokenizer: VideoTokenizer) -> np.ndarray:
    return np.array(
        [len(c.codes) * np.log2(lv.cardinality) for c, lv in zip(tokens.levels, tokenizer.levels, strict=True)]
    )


def entropy_of(tokens: TrackTokens) -> float:
    """Bits under the zeroth-order entropy of each level's own codes."""
    total = 0.0
    for level in tokens.levels:
        if len(level.codes):
            p = np.unique(level.codes, return_counts=True)[1] / len(level.codes)
            total -= float((p * np.log2(p)).sum()) * len(level.codes)
    return total


def patches(rgb: np.ndarray) -> np.ndarray:
    n, h, w = len(rgb) // 4, rgb.shape[1] // 8, rgb.shape[2] // 8
    cut = rgb[: 4 * n, : 8 * h, : 8 * w].reshape(n, 4, h, 8, w, 8, 3)
    return cut.transpose(0, 2, 4, 1, 3, 5, 6).reshape(n * h * w, 768)


def floor(train: np.ndarray, test: np.ndarray) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR) of 1 .. FLOOR_STAGES stages; frames that do not fill a patch are left out of its PSNR."""
    rng = np.random.default_rng(0)
    x, y = patches(train), patches(test).astype(np.float32)
    x = x[rng.permutation(len(x))[:60_000]].astype(np.float64)
    mean = x.mean(0)
    basis = np.linalg.eigh(np.cov(x.T))[1][:, :-65:-1]
    books = residual_kmeans((x - mean) @ basis, [1024] * FLOOR_STAGES, seed=0, iterations=10)
    left, made, out = (y - mean) @ basis, 0.0, []
    for stage, book in enumerate(books):
        codes, _ = nearest(left.astype(np.float32), book)
        left, made = left - book[codes], made + book[codes]
        error = np.mean((np.clip(np.rint(made @ basis.T + mean), 0, 255) - y) ** 2)
        out.append(((stage + 1) * np.log2(len(book)) / 256, float(10 * np.log10(255**2 / error))))
    return out


def at_bits(curve: list[tuple[float, float]], bits: float) -> float | None:
    """PSNR at a rate by lines through the curve in the logarithm of bits; None outside it."""
    x, y = np.log([b for b, _ in curve]), [q for _, q in curve]
    return float(np.interp(np.log(bits), x, y)) if x[0] <= np.log(bits) <= x[-1] else None


def main(paths: list[str]) -> None:
    torch.set_num_threads(1)
    for path in paths:
        frames, height, width, rate = read(path)
        cut = int(len(frames) * 0.8)
        train, test = frames[:cut], frames[cut:]
        rgb = pixels.to_rgb(test, height, width)
        area = len(test) * height * width
        began, cpu = time.perf_counter(), time.process_time()
        tokenizer = VideoTokenizer.fit([track_of(train, height, width, rate)])
        print(f"\n## {path.rsplit('/', 1)[-1]}: {width}x{height}, {len(frames)} frames")
        print(f"fit {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU\n")
        print("| | bits/pixel | entropy | PSNR dB | encode ms/frame | decode ms/frame |\n|---|---|---|---|---|---|")
        curve: list[tuple[float, float]] = []
        for step in STEPS:
            options = VideoOptions(quality=step)
            t0 = time.process_time()
            tokens = tokenizer.encode(track_of(test, height, width, rate), options)
            t1 = time.process_time()
            decoded = tokenizer.decoded(tokens)
            t2 = time.process_time()
            made = pixels.to_rgb(decoded, height, width)
            curve.append((bits_of(tokens, tokenizer).sum() / area, psnr(rgb, made)))
            print(
                f"| quality {step:g} | {curve[-1][0]:.4f} | {entropy_of(tokens) / area:.4f} "
                f"| {curve[-1][1]:.2f} | {(t1 - t0) / len(test) * 1e3:.1f} | {(t2 - t1) / len(test) * 1e3:.1f} |",
                flush=True,
            )
            if step == 5.0:
                levels = bits_of(tokens, tokenizer) / area
                prefix = [
                    psnr(rgb, pixels.to_rgb(tokenizer.decoded(tokens, levels=k + 1), height, width))
                    for k in range(len(levels))
                ]
        for bits, quality in floor(pixels.to_rgb(train[:: max(1, cut // 200)], height, width), rgb):
            mine = at_bits(curve, bits)
            gain = f"{mine - quality:+.2f} dB above it at its bits" if mine is not None else "out of range"
            print(f"| floor; {gain} | {bits:.4f} | | {quality:.2f} | | |", flush=True)
        mine = at_bits(curve, 0.08)
        print(f"| at 0.08 | 0.0800 | | {'out of range' if mine is None else f'{mine:.2f}'} | | |")
        still = np.repeat(test[:1], round(2 * rate), 0)
        tokens = tokenizer.encode(track_of(still, height, width, rate))
        print(f"| still, quality 5 | {bits_of(tokens, tokenizer).sum() / len(still) / height / width:.4f} | | | | |\n")
        print("| level | codes | bits/pixel | prefix PSNR dB | used |\n|---|---|---|---|---|")
        used = tokenizer.metrics["used"]
        for level, bits, quality in zip(tokenizer.levels, levels, prefix, strict=True):
            print(f"| {level.name} | {level.cardinality} | {bits:.4f} | {quality:.2f} | {used[level.name]:.3f} |")
        print(f"\nspeed: {speed(path, tokenizer):.1f} times the CPU of reading and resizing", flush=True)


def speed(path: str, tokenizer: VideoTokenizer) -> float:
    """CPU of reading and encoding a clip over CPU of reading and resizing it; the least of three."""

    def decoded() -> float:
        t0 = time.process_time()
        with av.open(path) as container:
            for f in container.decode(video=0):
                f.reformat(width=f.width, height=f.height, format="rgb24")
        return time.process_time() - t0

    def encoded() -> float:
        t0 = time.process_time()
        frames, height, width, rate = read(path)
        tokenizer.encode(track_of(frames, height, width, rate))
        return time.process_time() - t0

    pairs = [(encoded(), decoded()) for _ in range(3)]
    return min(e for e, _ in pairs) / min(d for _, d in pairs)


if __name__ == "__main__":
    main(sys.argv[1:])
