"""What real codecs reach above the floor of `video.py`: the same clips, the same last 20 percent, PSNR of RGB.

    SVT_LOG=1 python -m benchmarks.video_codecs CLIP [CLIP ...]

x264 veryslow, x265 slower and SVT-AV1 preset 4, as PyAV has them, each with its entropy coder, at a ladder of constant
rate factors; bits are those of the packets, without x264's and x265's note on their own settings. Read off at the
floor's bits by lines through each curve in the logarithm of bits.
"""

from __future__ import annotations

import argparse

import av
import numpy as np
import torch

from benchmarks.video import Clip, Floor, at_bits, psnr
from pantok import pixels

CODECS = {
    "libx264": ("h264", {"preset": "veryslow", "threads": "2"}, range(18, 50, 3)),
    "libx265": ("hevc", {"preset": "slower", "x265-params": "log-level=none"}, range(18, 50, 3)),
    "libsvtav1": ("libdav1d", {"preset": "4"}, range(24, 64, 6)),
}
_NOTE = {"libx264": lambda unit: unit[0] & 31 == 6, "libx265": lambda unit: unit[0] >> 1 & 63 == 39}


def coded(clip: Clip, name: str, crf: int) -> tuple[float, np.ndarray]:
    """(bits per pixel, frames as `clip.test` has them)."""
    decoder, options, _ = CODECS[name]
    codec = av.CodecContext.create(name, "w")
    codec.width, codec.height, codec.pix_fmt = clip.width, clip.height, "yuv420p"
    codec.framerate, codec.time_base, codec.options = clip.rate, 1 / clip.rate, {**options, "crf": str(crf)}
    packets = []
    for number, picture in enumerate(clip.test):
        frame = av.VideoFrame.from_ndarray(picture.reshape(clip.height * 3 // 2, clip.width), format="yuv420p")
        frame.pts, frame.time_base = number, codec.time_base
        packets += [bytes(p) for p in codec.encode(frame)]
    packets += [bytes(p) for p in codec.encode(None)]
    bits = 8 * sum(map(len, packets))
    is_note = _NOTE.get(name, lambda unit: False)
    bits -= 8 * sum(len(unit) for unit in packets[0].split(b"\0\0\1") if unit and is_note(unit))
    reader, out = av.CodecContext.create(decoder, "r"), []
    for packet in (*packets, None):
        for frame in reader.decode(None if packet is None else av.Packet(packet)):
            out.append(frame.to_ndarray(format="yuv420p").reshape(-1))
    assert len(out) == len(clip.test), (name, crf, len(out), len(clip.test))
    return bits / (len(clip.test) * clip.height * clip.width), np.stack(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = [Clip.read(path) for path in args.clips]
    floor = Floor(clips)
    print("| clip | codec | dB above the floor at bits/pixel |\n|---|---|---|")
    for clip in clips:
        rgb = pixels.to_rgb(clip.test, clip.height, clip.width)
        for name, (_, _, factors) in CODECS.items():
            made = (coded(clip, name, crf) for crf in factors)
            curve = sorted((bits, psnr(rgb, pixels.to_rgb(out, clip.height, clip.width))) for bits, out in made)
            gains = [(bits, at_bits(curve, bits), quality) for bits, quality in floor.curve(rgb)]
            said = "; ".join(
                f"{mine - quality:+.2f} at {bits:.4f}" for bits, mine, quality in gains if mine is not None
            )
            print(f"| {clip.name} | {name} | {said} |", flush=True)


if __name__ == "__main__":
    main()
