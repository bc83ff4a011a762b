"""Video books learned for longer: kept only where held-out film is then coded better at the same bits.

What is unusual: what is judged is not the error of vectors but the codec, with its motion, modes and depths. A stage
sees only what was worth describing, so the vectors are those that the encoder asked each book about.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pantok.quantizers.learned import refine
from pantok.tokenizers.base import Report
from pantok.tokenizers.video_books import Books
from pantok.tokenizers.video_exact import make_book
from pantok.tokenizers.video_fit import Pool, Run, code_run, trades
from pantok.tokenizers.video_measure import measured

DECIBELS_PER_DOUBLING = 2.5
"""What twice the bits are worth on film, to compare books that spend unequal bits."""


def refined(
    books: Books,
    learned: Sequence[Run],
    held: Sequence[Run],
    lam: float,
    most: dict[str, int],
    *,
    seconds: float,
    steps: int,
    seed: int,
    report: Report,
) -> tuple[Books, dict[str, Any]]:
    """Books refined for `seconds`, or in `steps` rounds if not 0, shared out by their number of codes.

    Kept only if `held` is then coded better; else `books` come back. Also what came of it: kept, gain_db (at equal
    bits), seconds.
    """
    began = time.monotonic()
    pool = Pool({name: 4 * count for name, count in most.items()})
    for number, (run, trade) in enumerate(zip(learned, trades(lam), strict=False)):
        for _ in code_run(run, books, trade, pool.tap):
            pass
        report("refining: coding", (number + 1) / len(learned))
    total = sum(len(codes) for book in books.by_name.values() for codes in book.codes)
    made: dict[str, Any] = {}
    for number, (name, book) in enumerate(books.by_name.items()):
        rows = pool.rows(name, book.width)
        share = seconds * sum(map(len, book.codes)) / total
        budget: dict[str, Any] = {"steps": steps} if steps else {"seconds": share}
        vectors = book.project(rows.astype(np.float32))[:, :-1] if len(rows) else np.zeros((0, len(book.basis)))
        better = refine(book.codes, vectors, seed=seed, **budget).codebooks
        made[name] = make_book(book.basis / book.scale, [codes * float(book.unit) for codes in better])
        report("refining", (number + 1) / len(books.by_name))
    fresh = replace(books, **made)
    before, after = (measured(b, [], held, lam, True) for b in (books, fresh))
    spent = [sum(m["bits_per_pixel"].values()) for m in (before, after)]
    worth = DECIBELS_PER_DOUBLING * float(np.log2(max(spent[1], 1e-9) / max(spent[0], 1e-9)))
    gain = after["psnr_db"] - before["psnr_db"] - worth
    kept = bool(gain > 0)
    facts = {"kept": kept, "gain_db": round(gain, 3), "seconds": round(time.monotonic() - began, 1)}
    return (fresh if kept else books), facts
