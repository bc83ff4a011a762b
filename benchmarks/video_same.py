"""Whether a change to the video encoder costs quality: bits and PSNR of clips, and two such lists compared.

    python benchmarks/video_same.py --vocab X.vocab -o before.json CLIP [CLIP ...]    # then change the encoder
    python benchmarks/video_same.py --vocab X.vocab -o after.json CLIP [CLIP ...]
    python benchmarks/video_same.py --compare before.json after.json

Whole numbers of quality from 1 to 7, at most 200 frames a clip, PSNR of RGB from the mean squared error of all frames.
Compared are decibels at equal bits, at the bits that qualities 2, 4 and 6 took before; CLIP@128 reads with 128 lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from pantok import pixels
from pantok.encode import Codec
from pantok.experience import Clock, Track
from pantok.formats.container import read_container
from pantok.formats.vocab import load_vocabulary
from pantok.tokenizers.video import VideoOptions


def curve(tokenizer, path: str, size: int | None) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR) at each quality."""
    track = next(t for t in read_container(Path(path), size=size) if t.modality == "video")
    frames = np.concatenate([block.values for block in track.blocks()])[:200]
    height, width = track.info["height"], track.info["width"]
    info = {"height": height, "width": width}
    clip = Track.of_array("video.clip", frames, Clock.regular(track.rate or 25, len(frames)), info=info)
    rgb, out = pixels.to_rgb(frames, height, width), []
    for quality in range(1, 8):
        tokens = tokenizer.encode(clip, VideoOptions(quality=quality))
        made = pixels.to_rgb(tokenizer.decoded(tokens), height, width)
        error = np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(rgb, made, strict=True)])
        bits = sum(
            len(c.codes) * np.log2(lv.cardinality) for c, lv in zip(tokens.levels, tokenizer.levels, strict=True)
        )
        out.append((float(bits) / len(frames) / height / width, float(10 * np.log10(255**2 / error))))
    return out


def compare(before: dict, after: dict) -> None:
    means = []
    for name, old in before.items():
        bits, quality = np.log([b for b, _ in old])[[1, 3, 5]], np.array([q for _, q in old])[[1, 3, 5]]
        gain = np.interp(bits, np.log([b for b, _ in after[name]]), [q for _, q in after[name]]) - quality
        means.append(gain.mean())
        print(f"{name:24s} {np.round(gain, 3)} mean {gain.mean():+.3f} dB")
    print(f"mean {np.mean(means):+.3f}, least {min(means):+.3f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--compare", nargs=2, type=Path)
    args = parser.parse_args()
    if args.compare:
        compare(*(json.loads(path.read_text()) for path in args.compare))
        return
    tokenizer = Codec(load_vocabulary(args.vocab)).tokenizer("video")
    made = {}
    for clip in args.clips:
        path, _, size = clip.partition("@")
        made[f"{Path(path).stem}@{size or 'own'}"] = curve(tokenizer, path, int(size) if size else None)
        args.output.write_text(json.dumps(made))


if __name__ == "__main__":
    main()
