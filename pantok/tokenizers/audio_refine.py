"""Shape books learned for longer: kept only where held-out sound is then coded better at the same bits.

What is unusual: what is judged is not the error of vectors but the codec, allocation and all, and bits that are saved
count for what they would have bought.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pantok.quantizers.learned import refine
from pantok.stream import LevelCodes
from pantok.tokenizers.audio_code import STAGES, Books, decode_rows, encode_rows
from pantok.tokenizers.audio_fit import Sample, rates_of, shape_books
from pantok.tokenizers.audio_rate import Constant
from pantok.tokenizers.base import Report


def refined(
    books: Books,
    learned: Sequence[Sample],
    held_out: Sequence[Sample],
    size: int,
    water: int,
    *,
    seconds: float,
    steps: int,
    seed: int,
    report: Report,
) -> tuple[Books, dict[str, Any]]:
    """Shape books learned on all vectors instead of a sample, for `seconds`, or in `steps` rounds a stage if not 0.

    Kept only if `held_out` is then coded with less noise at the same bits; else `books` come back. Also what came of
    it: kept, gain_db (of signal to noise at equal bits; None if nothing was held out), seconds.
    """
    if not held_out:
        return books, {"kept": False, "gain_db": None, "seconds": 0.0}
    began = time.monotonic()

    def better(book: np.ndarray, vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
        budget = {"steps": steps} if steps else {"seconds": seconds / STAGES}
        return refine([book], vectors, held_out=others, seed=seed, **budget).codebooks[0]

    def telling(what: str, fraction: float) -> None:
        report("refining", (fraction - 0.4) / 0.6)

    report("refining", 0.0)
    shape, left = shape_books(books, learned, size, seed, telling, better, held_out)
    fresh = replace(books, shape=shape, left=left)
    fresh = replace(fresh, rates=rates_of(fresh, learned))
    before, finer, after = (_cost(b, held_out, w) for b, w in ((books, water), (books, water - 1), (fresh, water)))
    # What the bits that were saved would have bought with the books as they were.
    worth = (finer[0] - before[0]) / (finer[1] - before[1]) if finer[1] > before[1] else 0.0
    gain = after[0] - before[0] - worth * (after[1] - before[1])
    kept = bool(gain > 0)
    facts = {"kept": kept, "gain_db": round(gain, 3), "seconds": round(time.monotonic() - began, 1)}
    return (fresh if kept else books), facts


def _cost(books: Books, samples: Sequence[Sample], water: int) -> tuple[float, float]:
    """Signal to noise of all levels in dB, and bits, of samples coded at a constant water level."""
    signal, noise, bits = 0.0, 0.0, 0.0
    for s in samples:
        codes, counts = encode_rows(books, s.bands, s.rows, s.frames, Constant(water))
        given = [LevelCodes.of_counts(c, n) for c, n in zip(codes, counts, strict=True)]
        signal += float((s.frames**2).sum())
        noise += float(((s.frames - decode_rows(books, s.bands, s.rows, given, 0)) ** 2).sum())
        bits += float((books.costs[:, None] * counts).sum()) / 256
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))), bits
