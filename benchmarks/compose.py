"""Composing: ids and held-out bits a second before and after, on stores; and how fast, on ten million ids.

    python benchmarks/compose.py STORE [STORE ...] [--layout default] [--across unit] [--serves HOURS] [--episodes N]

Stores are any that `pantok encode` wrote, such as those of benchmarks/world_model_recordings.py. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np

from pantok.evolve.compose import ComposeConfig, Corpus, compose, learn
from pantok.evolve.compositions import Compositions, with_compositions, with_more
from pantok.evolve.makeup import Makeup
from pantok.evolve.objective import Passage, cost
from pantok.evolve.predictor import NGram
from pantok.formats.sequences import read_sequences
from pantok.formats.vocab import load_vocabulary
from pantok.layout import Layout


def stores(paths: list[Path], layout: str, across: str, serves: float | None, episodes: int | None) -> None:
    print("| store | ids | objective | merges | fewer ids | held-out bits/s | with dictionary | s of CPU |")
    print("|---|---|---|---|---|---|---|---|")
    for path in paths:
        vocabulary = load_vocabulary(path / "vocabulary")
        sequences = list(islice(read_sequences(path, Layout.of(layout), vocabulary), episodes))
        ids = sum(len(s) for s, _ in sequences)
        for objective in ("bits", "length"):
            began = time.process_time()
            found = compose(
                vocabulary,
                sequences,
                ComposeConfig(objective=objective, across=across, serves=serves, most_ids=1 << 40),
            )
            took = time.process_time() - began
            without, kept = found.cost_of(0), found.cost_of(found.kept)
            rows = [
                kept.ids_per_second / without.ids_per_second - 1,
                kept.id_bits_per_second / without.id_bits_per_second - 1,
                kept.bits_per_second / without.bits_per_second - 1,
            ]
            said = " | ".join(f"{r:+.2%}" for r in rows)
            print(f"| {path.name} | {ids:,} | {objective} | {found.kept} | {said} | {took:.1f} |")
            made = Compositions.of(with_compositions(vocabulary, found.learned.first(found.kept)))
            for sequence, _ in sequences:
                assert np.array_equal(made.expand(made.sequence(sequence).ids)[0], sequence.ids)


def speed(count: int) -> None:
    rng = np.random.default_rng(0)
    ids = (rng.zipf(1.3, count) % 1024).astype(np.int64)
    group = np.arange(count) // 10_000
    passage = Passage(ids, group, np.ones(int(group[-1]) + 1))
    corpus = Corpus(passage, rng.random(count) > 0.02)
    print(f"\n| step, {count:,} ids, one core | s of CPU | million ids/s |\n|---|---|---|")

    def timed(name: str, began: float) -> None:
        took = time.process_time() - began
        print(f"| {name} | {took:.2f} | {count / took / 1e6:.2f} |")

    began = time.process_time()
    merges = learn(corpus, 1024, ComposeConfig())
    timed(f"learn {len(merges)} merges", began)
    began = time.process_time()
    composed = corpus.composed(merges)
    timed("apply them", began)
    began = time.process_time()
    merges.expand(composed.passage.ids)
    timed("expand", began)
    began = time.process_time()
    makeup = Makeup((np.arange(1024) // 64).astype(np.int32))
    model = NGram(1024, makeup).count(ids, group)
    timed("count the n-gram", began)
    began = time.process_time()
    model.bits(ids, group)
    timed("bits under it", began)
    began = time.process_time()
    cost(composed.passage, composed.passage, 1024 + len(merges), makeup=with_more(makeup, merges))
    timed("judge the composed ids", began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--layout", default="default")
    parser.add_argument("--across", default="unit")
    parser.add_argument("--serves", type=float, help="hours that the compositions' own bits are spread over")
    parser.add_argument("--episodes", type=int, help="so many of each store, the first; all where it is not given")
    parser.add_argument("--ids", type=int, default=10_000_000)
    given = parser.parse_args()
    stores(given.stores, given.layout, given.across, given.serves and 3600 * given.serves, given.episodes)
    if given.ids:
        speed(given.ids)
