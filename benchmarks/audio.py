"""Sound: quality at a rate, beside Opus; quality by level; what silence costs; how fast.

    apt-get download asterisk-core-sounds-en-g722 pocketsphinx-testdata sonic-pi-samples
    for deb in *.deb; do dpkg -x $deb sounds; done
    python benchmarks/audio.py sounds

Learns from the first 80% of the files (by name) of the Asterisk prompts (one voice, 16 kHz, CC-BY-SA-3.0) and of the
Sonic Pi samples of at least 3 s at 44.1 kHz (CC0); measures on the last 20%, and on the five LibriVox clips of
pocketsphinx (another speaker, of whom nothing is learned). With `--samples DIR` it learns from the first 80% of each
sound file in DIR (sample_data, say) and measures on its last 20%. Bits are the sum of log2(cardinality) over all codes
of all levels, modes included. Times are CPU seconds of one thread; "wall" is by the clock on the wall. Standard output
is markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from pantok.experience import Clock, Track
from pantok.formats.reference import opus_points
from pantok.metrics.audio import as_float, mel_distance, pesq_wb, si_sdr, stoi
from pantok.stream import TrackTokens
from pantok.tokenizers.audio import AudioOptions, AudioTokenizer

Sound = tuple[np.ndarray, int]
"""int16 (n, C), samples a second"""
RATES = {1: (3200, 5200, 9200, 13200, 25200), 2: (9200, 16000, 32000, 64000, 128000)}
MOST_SECONDS = 40


def read(path: Path) -> Sound:
    if path.suffix == ".g722":
        with av.open(str(path), format="g722") as container:
            parts = [frame.to_ndarray().reshape(-1, 1) for frame in container.decode(audio=0)]
        return np.concatenate(parts), 16000
    values, rate = soundfile.read(path, dtype="int16", always_2d=True)
    return values, rate


def track(sound: Sound) -> Track:
    values, rate = sound
    names = tuple(f"c{i}" for i in range(values.shape[1]))
    return Track.of_array("audio.x", values, Clock.regular(rate, len(values)), channels=names)


def joined(sounds: Iterable[Sound]) -> Sound:
    """One after another, at most MOST_SECONDS; only those with the channels and rate of the first."""
    first, *rest = sounds
    same = [first] + [s for s in rest if s[1] == first[1] and s[0].shape[1] == first[0].shape[1]]
    return np.concatenate([s[0] for s in same])[: MOST_SECONDS * first[1]], first[1]


def split(paths: Sequence[Path]) -> tuple[list[Sound], list[Sound]]:
    sounds = [read(p) for p in paths]
    at = int(0.8 * len(sounds))
    return sounds[:at], sounds[at:]


def bits_of(tokenizer: AudioTokenizer, tokens: TrackTokens, levels: int | None = None) -> float:
    pairs = list(zip(tokens.levels, tokenizer.levels, strict=True))[:levels]
    return sum(len(level.codes) * float(np.log2(spec.cardinality)) for level, spec in pairs)


def scores(sound: Sound, decoded: np.ndarray) -> str:
    rate, a, b = sound[1], as_float(sound[0]), as_float(decoded)
    values = (pesq_wb(a, b, rate), stoi(a, b, rate), si_sdr(a, b), mel_distance(a, b, rate))
    return " | ".join(
        "-" if v is None else format(v, f) for v, f in zip(values, (".2f", ".3f", ".1f", ".3f"), strict=True)
    )


def by_rate(tokenizer: AudioTokenizer, tests: dict[str, Sound]) -> None:
    head = (
        "sound | asked kbit/s | spent kbit/s | codes/s | PESQ-WB | STOI | SI-SDR dB | mel | encode x | wall | decode x"
    )
    print(f"| {head} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, sound in tests.items():
        seconds = len(sound[0]) / sound[1]
        for rate in RATES[min(sound[0].shape[1], 2)]:
            start, wall = time.process_time(), time.perf_counter()
            tokens = tokenizer.encode(track(sound), AudioOptions(bits_per_second=rate))
            middle, wall = time.process_time(), time.perf_counter() - wall
            decoded = tokenizer.decoded(tokens)
            end = time.process_time()
            codes = sum(len(level.codes) for level in tokens.levels) / seconds
            spent = bits_of(tokenizer, tokens) / seconds / 1000
            speed = f"{seconds / (middle - start):.0f} | {seconds / wall:.0f} | {seconds / (end - middle):.0f}"
            print(f"| {name} | {rate / 1000} | {spent:.2f} | {codes:.0f} | {scores(sound, decoded)} | {speed} |")
        for rate in RATES[min(sound[0].shape[1], 2)][1:4]:
            coded = opus_points(track(sound).blocks, sound[1], sound[0].shape[1], (rate,))[0]
            spent = coded.bits / seconds / 1000
            decoded = np.concatenate([block.values for block in coded.blocks()])
            if decoded.dtype != np.int16:
                decoded = np.clip(np.rint(decoded * 32768), -32768, 32767).astype(np.int16)
            print(f"| {name}, Opus | {rate / 1000} | {spent:.2f} | | {scores(sound, decoded[: len(sound[0])])} | | | |")


def by_level(tokenizer: AudioTokenizer, name: str, sound: Sound) -> None:
    seconds = len(sound[0]) / sound[1]
    tokens = tokenizer.encode(track(sound), AudioOptions(bits_per_second=13200))
    print(f"\n{name} at 13.2 kbit/s, decoded from the first levels only:\n")
    print("| up to level | cardinality | kbit/s so far | PESQ-WB | STOI | SI-SDR dB | mel |")
    print("|---|---|---|---|---|---|---|")
    for k, spec in enumerate(tokenizer.levels, 1):
        if len(tokens.levels[k - 1].codes):
            kbits = bits_of(tokenizer, tokens, k) / seconds / 1000
            measured = scores(sound, tokenizer.decoded(tokens, levels=k))
            print(f"| {spec.name} | {spec.cardinality} | {kbits:.2f} | {measured} |")


def of_noise(tokenizer: AudioTokenizer) -> None:
    print(
        "\n| 10 s of even noise at 16 kHz, dB of full scale | bit/s at constant quality | bit/s when 9200 are allowed |"
    )
    print("|---|---|---|")
    for level in (None, -80, -66, -60, -50):
        values = np.zeros((160000, 1))
        if level is not None:
            values = np.random.default_rng(0).normal(size=values.shape) * 2**15 * 10 ** (level / 20)
        t = track((np.rint(values).astype(np.int16), 16000))
        costs = [bits_of(tokenizer, tokenizer.encode(t, o)) / 10 for o in (None, AudioOptions(bits_per_second=9200))]
        print(f"| {'digital silence' if level is None else level} | {costs[0]:.0f} | {costs[1]:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", help="where the three packages were unpacked")
    parser.add_argument("--samples", type=Path, help="a folder of sound files instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.samples:
        paths = sorted(p for p in args.samples.rglob("*") if p.suffix in (".wav", ".flac", ".ogg"))
        sounds = {p.name: read(p) for p in paths}
        learn = [(v[: int(0.8 * len(v))], r) for v, r in sounds.values()]
        tests = {name: (v[int(0.8 * len(v)) :], r) for name, (v, r) in sounds.items()}
    else:
        share = args.root / "usr/share"
        voice = split(sorted((share / "asterisk/sounds/en_US_f_Allison").glob("*.g722")))
        long = [p for p in sorted((share / "sonic-pi/samples").glob("*.flac")) if soundfile.info(p).duration >= 3]
        music = split([p for p in long if soundfile.info(p).samplerate == 44100])
        other = [read(p) for p in sorted((share / "pocketsphinx/test/data/librivox").glob("*.wav"))]
        learn = voice[0] + music[0]
        stereo = joined([s for s in music[1] if s[0].shape[1] == 2])
        tests = {
            "speech, another voice": joined(other),
            "speech, same voice": joined(voice[1]),
            "music, stereo": stereo,
        }
    start, wall = time.process_time(), time.perf_counter()
    tokenizer = AudioTokenizer.fit([track(s) for s in learn])
    fit, wall = time.process_time() - start, time.perf_counter() - wall
    seconds = sum(len(v) / r for v, r in learn)
    print(f"Learned from {len(learn)} files, {seconds:.0f} s, in {fit:.1f} s ({wall:.1f} s on the wall).\n")
    by_rate(tokenizer, tests)
    by_level(tokenizer, *next(iter(tests.items())))
    of_noise(tokenizer)
    print("\nShare of each book used:", tokenizer.metrics["used"])


if __name__ == "__main__":
    main()
