"""Learning the books from sound, in closed form: k-means of loudness, then of shapes divided by decoded loudness.

What is unusual: each stage is learned on exactly the vectors that the allocation would send to it, so that no code
is spent on what is never coded; and each code keeps the mean of what it leaves over, from which the depth is derived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pantok.quantizers.kmeans import kmeans, nearest
from pantok.stream import LevelCodes
from pantok.tokenizers.audio_bands import (
    AMPLITUDES,
    HIGH_UNITS,
    LEAST_LEFT,
    LOUDEST,
    LOW_UNITS,
    MOST_LEFT,
    OCTAVE,
    RATIOS,
    UNIT_BINS,
    Bands,
)
from pantok.tokenizers.audio_code import (
    LONGEST,
    NAMES,
    SHAPE,
    SHAPE_UNIT,
    STAGES,
    WATERS,
    WIDEST,
    Books,
    decode_rows,
    encode_rows,
)
from pantok.tokenizers.audio_loudness import FAINT, LEARNED, Part, Rows, encode_loudness, means, refined
from pantok.tokenizers.audio_rate import Constant, predicted
from pantok.tokenizers.audio_transform import FRAMES_PER_SECOND, TICK_FRAMES
from pantok.tokenizers.base import Report

LOW, HIGH = len(LOW_UNITS), len(HIGH_UNITS)
MOST_VECTORS = 40_000  # of a k-means; more changed no figure by more than 0.01 dB
ITERATIONS = 12
LATENT_WIDTH = 24
WATER = 34
"""Shapes are learned on what stands out above this (eighths of an octave): about 30 kbit/s of speech."""
FILL = (0.6, 0.1, 0.05, 0.025, 0.0, 0.0, 0.0)
OWN, NEAR, SPREAD, SLOPE = 0.3, 0.3, 2.0, 2.0
"""Chosen by PESQ-WB of speech at 5 to 13 kbit/s, see benchmarks/LOG.md."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Frames of one recording to learn from: rows of whole ticks, coefficients (R, B)."""

    bands: Bands
    rows: Rows
    frames: np.ndarray


def perception() -> tuple[np.ndarray, np.ndarray]:
    """mask int64 (25, 25) and tilt int64 (25,), see Books.

    A band's error is covered by OWN of its loudness and NEAR of the weighted mean of all (weights falling by half
    every SPREAD bands), in decibels; up to 8 kHz each band matters SLOPE eighths of an octave less than the one below.
    """
    n = LOW + HIGH
    weights = 0.5 ** (np.abs(np.arange(n)[:, None] - np.arange(n)) / SPREAD)
    weights /= weights.sum(0)
    mask = np.rint(256 * (OWN * np.eye(n) + NEAR * weights)).astype(np.int64)
    return mask, np.rint(256 * SLOPE * np.minimum(np.arange(n), LOW - 1)).astype(np.int64)


def learn(samples: Sequence[Sample], size: int, tick_size: int, *, seed: int, report: Report) -> Books:
    """Books of `size` codes (`tick_size` for gain.tick), or fewer where the sound has too few vectors for them."""
    mask, tilt = perception()
    low = [part for part in LEARNED if part.low]
    high = [part for part in LEARNED if part.high]
    loudness = _loudness_books(samples, low, {"gain.tick": tick_size}, size, seed)
    report("loudness", 0.3)
    loudness |= _loudness_books(samples, high, {}, size, seed + 100)
    report("loudness", 0.4)
    books = Books(loudness, [], [], mask, tilt, np.array(FILL), np.zeros(WATERS, np.int64), *_latent_basis(samples))
    shape, left = shape_books(books, samples, size, seed, report)
    books = replace(books, shape=shape, left=left)
    return replace(books, rates=rates_of(books, samples))


def measured(books: Books, learned: Sequence[Sample], held_out: Sequence[Sample], water: int) -> dict[str, Any]:
    """What the books do: signal to noise by prefix of levels on `held_out`, in the transform's domain, and the share
    of each book that is used on `learned`, a little deeper."""
    signal, bits, cells = 0.0, 0, 0
    noise = np.zeros(len(NAMES))
    for s in held_out:
        codes, counts = encode_rows(books, s.bands, s.rows, s.frames, Constant(water))
        levels = [LevelCodes.of_counts(c, n) for c, n in zip(codes, counts, strict=True)]
        signal += float((s.frames**2).sum())
        bits += int((books.costs[:, None] * counts).sum())
        cells += s.rows.ticks * s.rows.channels
        for k in range(SHAPE, len(NAMES)):
            given = [
                LevelCodes.of_counts(v.codes[:0], 0 * n) if i > k else v
                for i, (v, n) in enumerate(zip(levels, counts, strict=True))
            ]
            noise[k] += float(((s.frames - decode_rows(books, s.bands, s.rows, given, 0)) ** 2).sum())
    used = [np.zeros(lv.cardinality, bool) for lv in books.levels]
    for s in learned:
        deep, _ = encode_rows(books, s.bands, s.rows, s.frames, Constant(water - 8))
        for seen, found in zip(used, deep, strict=True):
            seen[found] = True
    snr = 10 * np.log10(max(signal, 1e-30) / np.maximum(noise[SHAPE:], 1e-30))
    return {
        "bits_per_second": round(bits / 256 / cells * FRAMES_PER_SECOND / TICK_FRAMES, 1),
        "snr_db": dict(zip(NAMES[SHAPE:], np.round(snr, 2).tolist(), strict=True)),
        "used": {name: round(float(u.mean()), 4) for name, u in zip(NAMES[1:], used[1:], strict=True)},
    }


def loudness_known(books: Books, sample: Sample) -> np.ndarray:
    """The loudness (R, G) that all levels of loudness decode to."""
    loudness = sample.bands.loudness(sample.frames)
    return encode_loudness(
        books.loudness, books.need, sample.bands, sample.rows, loudness, deepest=True, lives=books.lives
    ).known


def _loudness_books(
    samples: Sequence[Sample], parts: Sequence[Part], sizes: dict[str, int], size: int, seed: int
) -> dict[str, np.ndarray]:
    """Residual k-means, each stage over its own groups of frames. Integers as float32 (K, bands)."""
    width = LOW if parts[0].low else HIGH
    left, rows = [], []
    for sample in samples:
        q = sample.bands.loudness(sample.frames)[:, parts[0].bands(sample.bands)]
        if q.shape[1]:
            left.append(_widened(q, width))
            rows.append(sample.rows)
    if not left:
        return _unheard(parts, width)
    books = {}
    for k, part in enumerate(parts):
        groups = [r.group(part.group) for r in rows]
        targets = [means(q, group, len(cells)) for q, (group, cells) in zip(left, groups, strict=True)]
        x = _some(np.concatenate(targets).astype(np.float64), seed + k)
        books[part.name] = _book(x, sizes.get(part.name, size), seed + k)
        for i, (q, (group, cells)) in enumerate(zip(left, groups, strict=True)):
            left[i] = q - refined(books[part.name], q, group, len(cells))[1]
    return books


def shape_vectors(books: Books, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """What stands out above WATER: spectra (n, 8) divided by their decoded loudness, and by how much (n,)."""
    vectors, needs = [np.zeros((0, UNIT_BINS))], [np.zeros(0, np.int64)]
    for sample in samples:
        bands = sample.bands
        known = loudness_known(books, sample)
        need = books.need(known)[:, bands.band_U]
        r, u = np.nonzero(need > WATER)
        x = bands.to_units(sample.frames)[r, u] / AMPLITUDES[known[r, bands.band_U[u]]][:, None]
        vectors.append(x * SHAPE_UNIT)
        needs.append(need[r, u])
    return np.concatenate(vectors), np.concatenate(needs)


def shape_books(
    books: Books,
    samples: Sequence[Sample],
    size: int,
    seed: int,
    report: Report,
    better: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
    held_out: Sequence[Sample] = (),
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Books of the stages and what their codes leave over.

    better: gives a better book than the one of k-means, from (book, all vectors, held-out vectors).
    """
    left, need = shape_vectors(books, samples)
    left_held, need_held = shape_vectors(books, held_out)
    shape: list[np.ndarray] = []
    over: list[np.ndarray] = []
    for stage in range(STAGES):
        if not len(left):  # nothing stands out, or all of it is said already
            left, need = np.zeros((1, UNIT_BINS)), np.zeros(1, np.int64)
        grid = _on_grid(left)
        book = _book(_some(grid, seed + stage), size, seed + stage)
        if better is not None:
            book = better(book, grid, _on_grid(left_held))
        long = np.sqrt((book**2).sum(1, keepdims=True)) / LONGEST
        book = np.trunc(book / np.maximum(long, 1)).astype(np.float32)
        codes, _ = nearest(grid.astype(np.float32), book)
        energy = np.bincount(codes, ((left - book[codes]) ** 2).sum(1), len(book)) / np.maximum(
            np.bincount(codes, minlength=len(book)), 1
        )
        share = OCTAVE * np.log2(np.maximum(energy / (UNIT_BINS * SHAPE_UNIT**2), 1e-9))
        shape.append(book)
        over.append(np.clip(np.rint(share), LEAST_LEFT, MOST_LEFT).astype(np.int64))
        # Fewer than 8 vectors a code would be learned by heart: then those that have enough already serve too.
        left, need = _left_over(left, need, book, over[-1], codes, 8 * size)
        if len(left_held):
            codes, _ = nearest(_on_grid(left_held).astype(np.float32), book)
            left_held, need_held = _left_over(left_held, need_held, book, over[-1], codes, 0)
        report("shapes", 0.4 + 0.6 * (stage + 1) / STAGES)
    return shape, over


def _on_grid(left: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(left), -WIDEST, WIDEST)


def _left_over(
    left: np.ndarray, need: np.ndarray, book: np.ndarray, over: np.ndarray, codes: np.ndarray, fewest: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the next stage gets: the rest in its own unit, where it still stands out if more than `fewest` do."""
    need = need + over[codes]
    left = (left - book[codes]) / RATIOS[over[codes] - LEAST_LEFT][:, None]
    keep = need > WATER
    return (left[keep], need[keep]) if keep.sum() > fewest else (left, need)


def _latent_basis(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Mean int64 (2 LOW,) and whitened principal axes int64 (2 LOW, LATENT_WIDTH), in 4096ths."""
    parts = []
    for s in samples:
        q = _widened(s.bands.loudness(s.frames)[:, : s.bands.low], LOW)
        parts.append(means(q, s.rows.pair, 2 * s.rows.ticks * s.rows.channels).reshape(-1, 2 * LOW))
    x = np.concatenate(parts).astype(np.float64)
    mean = np.rint(x.mean(0))
    power, axes = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    power, axes = power[::-1][:LATENT_WIDTH], axes[:, ::-1][:, :LATENT_WIDTH]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    basis = np.rint(4096 * axes / np.sqrt(np.maximum(power, 1.0)))
    return mean.astype(np.int64), basis.astype(np.int64)


def rates_of(books: Books, samples: Sequence[Sample]) -> np.ndarray:
    """Bits a second and channel at each water level, of ticks that are not faint; shapes as `predicted`, loudness at
    its full depth."""
    total, cells = np.zeros(WATERS, np.int64), 0
    for s in samples:
        need = books.need(loudness_known(books, s))[:, s.bands.band_U]
        plain = np.zeros(s.rows.ticks, bool)
        plain[s.rows.tick[(need > FAINT).any(1)]] = True
        total += predicted(books, need, s.rows)[plain].sum(0)
        cells += int(plain.sum()) * s.rows.channels
    each = {"tick": 1, "pair": 2, "frame": TICK_FRAMES}
    loudness = int(books.costs[0])
    loudness += sum(each[part.group] * int(books.costs[NAMES.index(part.name)]) for part in LEARNED if part.low)
    return np.rint((total / max(cells, 1) + loudness) / 256 * FRAMES_PER_SECOND / TICK_FRAMES).astype(np.int64)


def _book(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Integers as float32; at most a code for every 8 vectors, so that few seconds of sound give fewer codes."""
    size = max(1, min(size, len(vectors) // 8))
    return np.rint(kmeans(vectors, size, seed=seed, iterations=ITERATIONS)).astype(np.float32)


def _some(vectors: np.ndarray, seed: int) -> np.ndarray:
    if len(vectors) <= MOST_VECTORS:
        return vectors
    return vectors[np.sort(np.random.default_rng(seed).permutation(len(vectors))[:MOST_VECTORS])]


def _widened(loudness: np.ndarray, width: int) -> np.ndarray:
    """(R, width): bands that the sample rate does not have are as loud as the last that it has."""
    return np.pad(loudness, ((0, 0), (0, width - loudness.shape[1])), mode="edge")


def _unheard(parts: Sequence[Part], width: int) -> dict[str, np.ndarray]:
    """Books for bands that no recording had: even loudness in steps of an octave of energy, and no refinement."""
    steps = np.arange(0, LOUDEST + 1, OCTAVE)[:, None].repeat(width, 1)
    return {p.name: (steps if k == 0 else np.zeros((1, width))).astype(np.float32) for k, p in enumerate(parts)}
