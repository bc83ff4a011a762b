"""Growth: music after speech, robots after film, beside the vocabulary as it was, one fitted on both, and what merging
it with one fitted on the new kind alone gives.

    apt-get download asterisk-core-sounds-en-g722 sonic-pi-samples
    for deb in *.deb; do dpkg -x $deb sounds; done
    python benchmarks/grow.py --sounds sounds
    python benchmarks/grow.py --pictures sample_data
    python benchmarks/grow.py --pictures sample_data --robots arm/

Sound: learned from the first 80% of the files (by name) of the Asterisk prompts (one voice, 16 kHz) and of the Sonic Pi
samples of at least 3 s at 44.1 kHz, measured on the last 20%, 5 s at a time. Pictures: learned from the first 80% of
`film/bunny.mp4` and from `robot/arm-01.mp4`, `robot/quadruped-01.mp4`; measured on the last 10% of the film and on
`robot/arm-02.mp4`. With --robots, 24 recordings of benchmarks/world_model_recordings.py mujoco (an arm and a puck, 32 s
each) stand for those three: learned from every second of the first 14, measured on two of the last. Each vocabulary
codes each piece at three or four qualities; curves of signal to noise (sound) or PSNR (pictures) over the logarithm of
tokens (or bits, a code of K counting log2 K) are compared where they overlap, and the mean distance of pieces is given.
"As before": the share of ticks of which every code is what it was. Standard output is markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.audio import split
from benchmarks.audio import track as sound_track
from pantok.evolve.grow import GrowConfig, grow
from pantok.evolve.merge import join
from pantok.experience import Track
from pantok.formats.container import read_container
from pantok.tokenizers import load
from pantok.tokenizers.audio import AudioConfig, AudioOptions, AudioTokenizer
from pantok.tokenizers.base import Tokenizer
from pantok.tokenizers.video import VideoConfig, VideoTokenizer
from pantok.tokenizers.video_control import VideoOptions
from pantok.vocabulary import TokenizerState, Vocabulary

Curve = np.ndarray
"""float64 (qualities, 3): tokens, bits, decibels"""


def curve(tokenizer: Tokenizer, track: Track, options: Iterable[Any], peak: float | None) -> Curve:
    """peak: of a PSNR; None for signal to noise."""
    out = []
    for option in options:
        tokens = tokenizer.encode(track, option)
        truth = track.read()[0].astype(np.float64)
        gap = truth - tokenizer.decoded(tokens)
        energy = float((truth**2).mean()) if peak is None else peak**2
        sizes = [len(lv.codes) for lv in tokens.levels]
        bits = sum(n * float(np.log2(lv.cardinality)) for n, lv in zip(sizes, tokenizer.levels, strict=True))
        out.append((sum(sizes), bits, 10 * np.log10(energy / max(float((gap**2).mean()), 1e-9))))
    return np.array(out)


def above(one: Curve, other: Curve, axis: int) -> float:
    """Decibels of `other` over `one` at equal tokens (axis 0) or bits (1), mean over where both are."""
    a, b = (c[np.argsort(c[:, axis])] for c in (one, other))
    x, y = np.log(a[:, axis]), np.log(b[:, axis])
    at = np.linspace(max(x[0], y[0]), min(x[-1], y[-1]), 20)
    return float((np.interp(at, y, b[:, 2]) - np.interp(at, x, a[:, 2])).mean())


def same(one: Tokenizer, other: Tokenizer, tracks: Sequence[Track]) -> float:
    """Share of ticks of which every code of every level is the same."""
    equal = ticks = 0
    for track in tracks:
        a, b = (t.encode(track) for t in (one, other))
        pairs = list(zip(a.levels, b.levels, strict=True))
        equal += sum(all(np.array_equal(x.of_tick(t), y.of_tick(t)) for x, y in pairs) for t in range(a.ticks))
        ticks += a.ticks
    return equal / ticks


def compare(
    title: str,
    fit: Callable[[Sequence[Track]], Tokenizer],
    old: Sequence[Track],
    new: Sequence[Track],
    tests: dict[str, Sequence[Track]],
    options: Sequence[Any],
    peak: float | None,
    configs: Sequence[GrowConfig],
) -> None:
    began = time.process_time()
    first = fit(old)
    seconds = [time.process_time() - began]
    both = fit([*old, *new])
    seconds.append(time.process_time() - began - seconds[0])
    state: TokenizerState = first.state()
    made = {"fitted on both": (both, seconds[1])}
    for config in configs:
        began = time.process_time()
        grown, _ = grow(state, new, config)
        made[f"grown, far {config.far:g}"] = load(grown), time.process_time() - began
    began = time.process_time()
    alone = fit(new)
    made["fitted on the new kind alone"] = alone, time.process_time() - began
    began = time.process_time()
    joined, _ = join(*(Vocabulary.build({state.modality: t.state()}) for t in (first, alone)))
    made["those two merged"] = load(joined.states[state.modality]), time.process_time() - began
    print(f"\n{title}: fitted on the old kind in {seconds[0]:.0f} s of CPU time, {codes(first)} codes.\n")
    print("| vocabulary | codes | s | on | dB at equal tokens | dB at equal bits | as before |")
    print("|---|---|---|---|---|---|---|")
    for kind, tracks in tests.items():
        start = [curve(first, t, options, peak) for t in tracks]
        for name, (tokenizer, cpu) in made.items():
            curves = [curve(tokenizer, t, options, peak) for t in tracks]
            gains = [np.mean([above(a, b, k) for a, b in zip(start, curves, strict=True)]) for k in (0, 1)]
            kept = f"{same(first, tokenizer, tracks):.0%}" if "grown" in name else ""
            print(f"| {name} | {codes(tokenizer)} | {cpu:.0f} | {kind} | {gains[0]:+.2f} | {gains[1]:+.2f} | {kept} |")


def codes(tokenizer: Tokenizer) -> int:
    return sum(lv.cardinality for lv in tokenizer.levels if lv.role == "code")


def sounds(root: Path) -> None:
    share = root / "usr/share"
    voice = split(sorted((share / "asterisk/sounds/en_US_f_Allison").glob("*.g722")))
    long = [p for p in sorted((share / "sonic-pi/samples").glob("*.flac")) if soundfile.info(p).duration >= 3]
    music = split([p for p in long if soundfile.info(p).samplerate == 44100])

    def pieces(parts: list[Any], most: int) -> list[Track]:
        """5 s each, those that are not silent."""
        out = []
        for values, rate in parts:
            for at in range(0, len(values) - 2 * rate, 5 * rate):
                piece = values[at : at + 5 * rate]
                if np.abs(piece).max() > 300:
                    out.append(sound_track((piece, rate)))
        return out[:most]

    together = [(np.concatenate([v for v, _ in part]), 16000) for part in (voice[0], voice[1])]
    compare(
        "Music after speech",
        lambda tracks: AudioTokenizer.fit(tracks, AudioConfig(seconds=160.0 if len(tracks) == 20 else 320.0)),
        [sound_track((together[0][0][k * 640000 : (k + 1) * 640000], 16000)) for k in range(20)],
        [sound_track(s) for s in music[0]],
        {"music": pieces(music[1], 12), "speech": pieces([together[1]], 8)},
        [AudioOptions(quality=q) for q in (0.2, 0.35, 0.5, 0.65)],
        None,
        [GrowConfig(far=f) for f in (0.0, 0.5, 0.7, 0.9)],
    )


def pictures(root: Path, robots: Path | None) -> None:
    def film(path: Path, first: float = 0.0, last: float = 1.0) -> Track:
        (track,) = [t for t in read_container(path) if t.modality == "video"]
        values, clock = track.read()
        a, b = (round(len(values) * share) // 4 * 4 for share in (first, last))
        return replace(Track.of_array(track.name, values[a:b], clock.cut(a, b), info=track.info), rate=track.rate)

    new = [root / "robot" / f"{name}.mp4" for name in ("arm-01", "quadruped-01")]
    test = [root / "robot/arm-02.mp4"]
    if robots is not None:
        new = [robots / f"arm-{number:02d}.mp4" for number in range(0, 14, 2)]
        test = [robots / f"arm-{number:02d}.mp4" for number in (20, 23)]
    bunny = root / "film/bunny.mp4"
    compare(
        "Robots after film",
        lambda tracks: VideoTokenizer.fit(tracks, VideoConfig(size=512, vectors=15_000, rounds=1)),
        [film(bunny, 0, 0.8)],
        [film(path) for path in new],
        {"robots": [film(path) for path in test], "film": [film(bunny, 0.9, 1)]},
        [VideoOptions(quality=q) for q in (3.5, 5.0, 6.5)],
        255.0,
        [GrowConfig(far=f) for f in (0.0, 0.25, 0.5)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sounds", type=Path, help="where the two packages were unpacked")
    parser.add_argument("--pictures", type=Path, help="the folder of sample recordings")
    parser.add_argument("--robots", type=Path, help="recordings by world_model_recordings.py mujoco")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.sounds:
        sounds(args.sounds)
    if args.pictures:
        pictures(args.pictures, args.robots)


if __name__ == "__main__":
    main()
