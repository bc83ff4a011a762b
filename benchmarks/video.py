"""Quality, bits and speed of the video tokenizer against a plain floor, on parts of clips that it was not fitted on.

    python benchmarks/video.py [--apart] [--effort N] CLIP [CLIP ...]

Fitted on the first 80 percent of all clips together (or, with --apart, of each clip by itself), measured on the last 20
of each. Bits are those of all codes of all levels, log2 of the cardinality each. The floor is what a page of code
gives, fitted on the same frames: PCA of 4x8x8 RGB patches to 64 dimensions, residual k-means of 1,024 codes a stage,
the same number of stages everywhere. PSNR is of RGB, from the mean squared error over the whole part. `still` is a
clip's first test frame held for eight seconds; `speed` is paired: CPU time of reading and encoding over that of reading
and resizing to the same size in RGB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Clip:
    path: str
    frames: np.ndarray
    height: int
    width: int
    rate: Fraction

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def cut(self) -> int:
        return int(len(self.frames) * 0.8)

    @property
    def train(self) -> np.ndarray:
        return self.frames[: self.cut]

    @property
    def test(self) -> np.ndarray:
        return self.frames[self.cut :]

    @classmethod
    def read(cls, path: str) -> Clip:
        with av.open(path) as container:
            stream = container.streams.video[0]
            frames = [f.reformat(format="yuv420p") for f in container.decode(stream)]
            rate = stream.average_rate
        height, width = frames[0].height, frames[0].width
        planes = [
            np.concatenate([np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width].ravel() for p in f.planes])
            for f in frames
        ]
        return cls(path, np.stack(planes), height, width, Fraction(rate or 25))


def track_of(frames: np.ndarray, clip: Clip) -> Track:
    info = {"height": clip.height, "width": clip.width}
    return Track.of_array("video.clip", frames, Clock.regular(clip.rate, len(frames)), info=info)


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


class Floor:
    """PCA of patches and residual k-means, the same depth everywhere."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        rng = np.random.default_rng(0)
        every = max(1, sum(c.cut for c in clips) // 400)
        x = np.concatenate([patches(pixels.to_rgb(_ticks(c.train, every), c.height, c.width)) for c in clips])
        x = x[rng.permutation(len(x))[:60_000]].astype(np.float64)
        self._mean = x.mean(0)
        self._basis = np.linalg.eigh(np.cov(x.T))[1][:, :-65:-1]
        self._books = residual_kmeans((x - self._mean) @ self._basis, [1024] * FLOOR_STAGES, seed=0, iterations=10)

    def curve(self, rgb: np.ndarray) -> list[tuple[float, float]]:
        """(bits per pixel, PSNR) of 1 .. FLOOR_STAGES stages; what does not fill a patch is left out of its PSNR."""
        y = patches(rgb).astype(np.float32)
        left, made, out = (y - self._mean) @ self._basis, 0.0, []
        for stage, book in enumerate(self._books):
            codes, _ = nearest(left.astype(np.float32), book)
            left, made = left - book[codes], made + book[codes]
            error = np.mean((np.clip(np.rint(made @ self._basis.T + self._mean), 0, 255) - y) ** 2)
            out.append(((stage + 1) * np.log2(len(book)) / 256, float(10 * np.log10(255**2 / error))))
        return out


def _ticks(frames: np.ndarray, every: int) -> np.ndarray:
    """Every so many groups of four frames."""
    whole = frames[: len(frames) // 4 * 4].reshape(-1, 4, frames.shape[1])
    return whole[::every].reshape(-1, frames.shape[1])


def at_bits(curve: list[tuple[float, float]], bits: float) -> float | None:
    """PSNR at a rate by lines through the curve in the logarithm of bits; None outside it."""
    x, y = np.log([b for b, _ in curve]), [q for _, q in curve]
    return float(np.interp(np.log(bits), x, y)) if x[0] <= np.log(bits) <= x[-1] else None


def fitted(clips: Sequence[Clip]) -> tuple[VideoTokenizer, Floor]:
    began, cpu = time.perf_counter(), time.process_time()
    tokenizer = VideoTokenizer.fit([track_of(c.train, c) for c in clips])
    print(f"\nfit {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU\n", flush=True)
    return tokenizer, Floor(clips)


def measure(clip: Clip, tokenizer: VideoTokenizer, floor: Floor, effort: int) -> None:
    test, area = clip.test, len(clip.test) * clip.height * clip.width
    rgb = pixels.to_rgb(test, clip.height, clip.width)
    print(f"\n## {clip.name}: {clip.width}x{clip.height}, {clip.cut + len(test)} frames\n")
    print("| | bits/pixel | entropy | PSNR dB | encode ms/frame | decode ms/frame |\n|---|---|---|---|---|---|")
    curve: list[tuple[float, float]] = []
    levels, prefix = np.zeros(0), list[float]()
    for step in STEPS:
        t0 = time.process_time()
        tokens = tokenizer.encode(track_of(test, clip), VideoOptions(quality=step, effort=effort))
        t1 = time.process_time()
        decoded = tokenizer.decoded(tokens)
        t2 = time.process_time()
        curve.append(
            (bits_of(tokens, tokenizer).sum() / area, psnr(rgb, pixels.to_rgb(decoded, clip.height, clip.width)))
        )
        print(
            f"| quality {step:g} | {curve[-1][0]:.4f} | {entropy_of(tokens) / area:.4f} "
            f"| {curve[-1][1]:.2f} | {(t1 - t0) / len(test) * 1e3:.1f} | {(t2 - t1) / len(test) * 1e3:.1f} |",
            flush=True,
        )
        if step == 5.0:
            levels = bits_of(tokens, tokenizer) / area
            for k in range(len(levels)):
                made = tokenizer.decoded(tokens, levels=k + 1)
                prefix.append(psnr(rgb, pixels.to_rgb(made, clip.height, clip.width)))
    for bits, quality in floor.curve(rgb):
        mine = at_bits(curve, bits)
        gain = f"{mine - quality:+.2f} dB above it at its bits" if mine is not None else "out of range"
        print(f"| floor; {gain} | {bits:.4f} | | {quality:.2f} | | |", flush=True)
    mine = at_bits(curve, 0.08)
    print(f"| at 0.08 | 0.0800 | | {'out of range' if mine is None else f'{mine:.2f}'} | | |")
    still = np.repeat(test[:1], round(8 * clip.rate), 0)
    tokens = tokenizer.encode(track_of(still, clip))
    rate = bits_of(tokens, tokenizer).sum() / len(still) / clip.height / clip.width
    print(f"| still, quality 5 | {rate:.4f} | | | | |\n")
    print("| level | codes | bits/pixel | prefix PSNR dB | used |\n|---|---|---|---|---|")
    used = tokenizer.metrics["used"]
    for level, bits, quality in zip(tokenizer.levels, levels, prefix, strict=True):
        print(f"| {level.name} | {level.cardinality} | {bits:.4f} | {quality:.2f} | {used[level.name]:.3f} |")
    print(f"\nspeed: {speed(clip.path, tokenizer):.1f} times the CPU of reading and resizing", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--apart", action="store_true", help="fit each clip by itself")
    parser.add_argument("--effort", type=int, default=1, help="as of `pantok encode`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = [Clip.read(path) for path in args.clips]
    for group in [[c] for c in clips] if args.apart else [clips]:
        tokenizer, floor = fitted(group)
        for clip in group:
            measure(clip, tokenizer, floor, args.effort)


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
        clip = Clip.read(path)
        tokenizer.encode(track_of(clip.frames, clip))
        return time.process_time() - t0

    pairs = [(encoded(), decoded()) for _ in range(3)]
    return min(e for e, _ in pairs) / min(d for _, d in pairs)


if __name__ == "__main__":
    main()
