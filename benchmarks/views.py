"""Pictures for few ids: what the layout `coarse` shows of a store, and what a store of small views does.

    python benchmarks/views.py STORE SMALL [SMALL ...]

STORE has the video as it is to be seen; each SMALL is of the same recordings and vocabulary, for instance by `pantok
encode --size 64 --bits-per-second video=1k`. Ids are those of the codes, a tick of four frames. PSNR is of RGB against
what STORE decodes to, small views drawn to its size. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pantok import pixels
from pantok.encode import Codec
from pantok.formats.store import Store
from pantok.layout import Layout, arrange, restore
from pantok.stream import TrackTokens


def pictures(codec: Codec, track: TrackTokens) -> np.ndarray:
    """float32 (frames, height, width, 3)."""
    planes = np.concatenate([block.values for block in codec.decode(track)])
    rgb = pixels.to_rgb(planes, int(track.header["height"]), int(track.header["width"]))
    return rgb.astype(np.float32)


def ids_a_tick(track: TrackTokens) -> float:
    return sum(len(level.codes) for level in track.levels) / track.ticks


def psnr(whole: np.ndarray, seen: np.ndarray) -> float:
    stretched = torch.nn.functional.interpolate(
        torch.from_numpy(seen).permute(0, 3, 1, 2), size=whole.shape[1:3], mode="bilinear"
    )
    error = np.mean((stretched.permute(0, 2, 3, 1).numpy() - whole) ** 2)
    return float(10 * np.log10(255**2 / error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("small", type=Path, nargs="+")
    args = parser.parse_args()
    opened, layout = Store.open(args.store), Layout.preset("coarse")
    codec = Codec(opened.vocabulary)
    columns = ["all levels, ids", "`coarse`, ids", "dB", *(c for s in args.small for c in (f"{s.stem}, ids", "dB"))]
    print(f"| video | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for episode in opened.episodes:
        stream = opened.read(episode)
        for name, track in stream.tracks.items():
            if track.modality != "video":
                continue
            whole = pictures(codec, track)
            kept = restore(arrange(stream, layout, opened.vocabulary).ids, stream, layout, opened.vocabulary)
            seen = [kept.tracks[name], *(Store.open(s).read(episode).tracks[name] for s in args.small)]
            found = [f"{ids_a_tick(t):.1f} | {psnr(whole, pictures(codec, t)):.1f}" for t in seen]
            print(f"| {episode} | {ids_a_tick(track):.0f} | {' | '.join(found)} |")


if __name__ == "__main__":
    main()
