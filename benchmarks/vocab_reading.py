"""What reading costs after five operations on the vocabulary: a store of many codes, plain and under the fifth.

    python -m benchmarks.vocab_reading [--codes 100000000] [--folder DIR] [--rounds 3]

The store is made by the real writer: episodes of one track of video-like levels, codes drawn from a source in which
each code of a level depends on the one before it, so that there is something to compose. The five operations are grow,
merge (a quarter of a level's codes get a stand-in), compose, prune and grow again; the last vocabulary reads what was
written under the first. Read are all windows of 4,096 ids once, in one process; each round reads plain, then the
others, and the table gives the median of the rounds in CPU seconds, opening (once a job) apart: the first job of a
vocabulary with compositions composes the store and keeps what comes out in its cache, later ones find it. "Codes a
second" counts what was stored, so that a composed stream, which has fewer ids, is held to the same. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from pantok.evolve.compose import ComposeConfig, compose
from pantok.evolve.compositions import with_compositions
from pantok.experience import Clock
from pantok.formats.sequences import read_sequences
from pantok.formats.store import Store
from pantok.layout import Layout
from pantok.loader import StreamDataset
from pantok.stream import LevelCodes, TokenStream, TrackTokens
from pantok.vocabulary import Level, TokenizerState, Vocabulary

SIZES = (128, 256, 1024, 1024)
PER_TICK = (4, 20, 40, 60)
_EPISODE = 1 << 20


def vocabulary() -> Vocabulary:
    levels = tuple(Level(f"level{k}", n, "code", (4, 8, 8)) for k, n in enumerate(SIZES))
    rng = np.random.default_rng(0)
    tensors = {f"level{k}": rng.integers(-99, 99, (n, 8)).astype(np.float32) for k, n in enumerate(SIZES)}
    return Vocabulary.build({"video": TokenizerState("video", {"format": 1}, levels, tensors)})


def episode(number: int, v: Vocabulary, codes: int) -> TokenStream:
    """Each code is the one before it plus a small step, or, one in three, anything."""
    rng = np.random.default_rng([7, number])
    ticks = max(1, codes // sum(PER_TICK))
    levels = []
    for size, many in zip(SIZES, PER_TICK, strict=True):
        n = ticks * many
        steps = np.where(rng.random(n) < 1 / 3, rng.integers(0, size, n), rng.integers(0, 3, n))
        levels.append(LevelCodes.of_counts((np.cumsum(steps) % size).astype(np.int64), np.full(ticks, many)))
    clock = Clock.regular(Fraction(24), 4 * ticks)
    track = TrackTokens("video", "video", clock, 4, tuple(levels), {"key_every": 1})
    return TokenStream(f"episode-{number:04d}", {"video": track}, v.id)


def grown(v: Vocabulary, level: int, more: int) -> Vocabulary:
    state, name = v.states["video"], f"level{level}"
    rows = np.random.default_rng(level).integers(-99, 99, (more, 8)).astype(np.float32)
    blocks = state.tensors.get(f"life.{name}.blocks", np.zeros((0, 2), np.int64))
    size = state.levels[level].cardinality
    levels = list(state.levels)
    levels[level] = replace(levels[level], cardinality=size + more)
    tensors = {
        **state.tensors, name: np.concatenate([state.tensors[name], rows]),
        f"life.{name}.blocks": np.concatenate([blocks, [[size, 9]]]),
    }  # fmt: skip
    return v.with_state(replace(state, levels=tuple(levels), tensors=tensors))


def retired(v: Vocabulary, level: int, share: float) -> Vocabulary:
    state, name = v.states["video"], f"life.level{level}.retired"
    size = state.levels[level].cardinality
    gone = np.arange(0, round(size * share), dtype=np.uint32)
    pairs = np.stack([gone, gone + np.uint32(size // 2)], 1)
    return v.with_state(replace(state, tensors={**state.tensors, name: pairs}))


def read(path: Path, v: Vocabulary, in_use: bool = False) -> tuple[float, float, int]:
    """(CPU seconds of opening, of reading all windows once; ids)."""
    began = time.process_time()
    data = StreamDataset(path, length=4096, batch_size=64, shuffle=False, epochs=1, vocabulary=v, in_use=in_use)
    len(data.windows)
    opened = time.process_time()
    ids = sum(int((batch["document"] >= 0).sum()) for batch in data)
    return opened - began, time.process_time() - opened, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        path, first = Path(name) / "s.zarr", vocabulary()
        store = Store.create(path, first)
        for number in range(-(-asked.codes // _EPISODE)):
            store.write([episode(number, first, min(_EPISODE, asked.codes))])
        codes = sum(sum(track.codes) for track in store.sizes().tracks)
        told = f"{codes:,} codes in {len(store)} episodes"
        merged = retired(grown(first, 1, 100), 2, 0.25)
        few = [f"episode-{number:04d}" for number in range(2)]
        began = time.process_time()
        sequences = list(read_sequences(path, Layout(), merged, few))
        learned = compose(merged, sequences, ComposeConfig(objective="length", merges=4096)).learned
        ids = sum(len(s) for s, _ in sequences)
        composing = time.process_time() - began
        plain_fifth = grown(retired(merged, 3, 0.25), 2, 300)
        composed = with_compositions(merged, learned)
        fifth = composed.with_state(plain_fifth.states["video"])
        cases = {
            "plain (its own)": (first, False),
            "grown, merged, pruned, grown": (plain_fifth, False),
            "the same, stand-ins for retired codes": (plain_fifth, True),
            f"all five, {len(learned)} compositions": (fifth, False),
            "all five, stand-ins for retired codes": (fifth, True),
        }
        read(path, first)  # compiles, and maps the files
        took: dict[str, list[float]] = {case: [] for case in cases}
        opening: dict[str, list[float]] = {case: [] for case in cases}
        many: dict[str, int] = {}
        for _ in range(asked.rounds):
            for case, (v, in_use) in cases.items():
                opened, seconds, many[case] = read(path, v, in_use)
                opening[case].append(opened)
                took[case].append(seconds)
        cached = sum(file.stat().st_size for file in path.glob(".cache/laid-*/*"))
        stored = sum(file.stat().st_size for file in path.glob("segments/**/*") if file.is_file())
        print(f"{told}; composing learned on {ids:,} ids in {composing:.1f} s of CPU, judging included.")
        print(
            f"The store has {stored / 1e6:,.0f} MB, what is kept laid out (two vocabularies') {cached / 1e6:,.0f} MB.\n"
        )
        print("| read under | ids | s to open, first | again | s to read | codes/s | times plain |")
        print("|---|---|---|---|---|---|---|")
        for case, seconds in took.items():
            ratio = float(np.median([a / b for a, b in zip(seconds, took["plain (its own)"], strict=True)]))
            middle = float(np.median(seconds))
            speed = f"{codes / middle / 1e6:.1f} M"
            first_opened, again = opening[case][0], opening[case][-1]
            print(
                f"| {case} | {many[case]:,} | {first_opened:.2f} | {again:.2f} | {middle:.2f} | {speed} | {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()
