"""Refining residual codebooks beyond the closed form, within a time, judged on vectors that were not learned from.

What is unusual: it starts from k-means and can only end better. First k-means goes on, over all vectors instead of a
sample; then, where several levels follow one another, all are trained together by gradient, so that a level learns
what those after it can mend, which no greedy k-means does. After each round the books are rounded to whole numbers,
searched exactly as the encoder will, and kept only if the error on held-out vectors fell, over all prefixes of levels.

    >>> rng = np.random.default_rng(0)
    >>> vectors = np.rint(100 * rng.normal(size=(4000, 2)))
    >>> books = [np.rint(100 * rng.normal(size=(8, 2))), np.rint(30 * rng.normal(size=(8, 2)))]
    >>> refined = refine(books, vectors, steps=4, seed=0)
    >>> [a < b for a, b in zip(refined.after, refined.before)]
    [True, True]

The joint training is ResidualVQ of vector-quantize-pytorch (P. Wang) with codebooks learned by Adam and the gradient
of later levels let through to earlier ones (`quant_grad_frac`). Its running means (van den Oord et al. 2017, appendix
A.1) gained less than plain k-means in the same time, see benchmarks/LOG.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pantok.errors import OptionError
from pantok.quantizers.kmeans import kmeans, nearest
from pantok.quantizers.threads import one_thread

BATCH = 4096
CHECK_STEPS = 8  # of the gradient between two looks at the held-out vectors
LEARNING_RATE = 2.0**-6  # of the root mean square of a level's codes, at first; falls to nothing over the time
ROUND_ITERATIONS = 3  # of k-means between two looks
ENOUGH = 2e-4  # a round of k-means that gains less, relative to the error, is the last
BLOCK = 512  # vectors that are held out together: neighbours resemble each other
K_MEANS_SHARE = 0.75  # of the time, where the gradient follows


@dataclass(frozen=True, kw_only=True, eq=False)
class Refined:
    """codebooks: float32 (K, D) for each level, whole numbers. before, after: mean squared error a vector on the
    held-out vectors, by prefix of levels. rounds: of k-means; steps: of the gradient; both as far as they went."""

    codebooks: tuple[np.ndarray, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    rounds: int
    steps: int

    @property
    def gain_db(self) -> float:
        """How much smaller the error is, averaged over prefixes; never negative."""
        gains = [10 * np.log10(max(b, 1e-30) / max(a, 1e-30)) for a, b in zip(self.after, self.before, strict=True)]
        return float(np.mean(gains))


@one_thread()
def refine(
    codebooks: Sequence[np.ndarray],
    vectors: np.ndarray,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    held_out: np.ndarray | None = None,
    device: str = "cpu",
    report: Callable[[float], None] = lambda fraction: None,
) -> Refined:
    """Better codebooks for `vectors` (N, D) of whole numbers, or the same if none were found.

    codebooks: (K, D) for each level, coarse first; each describes what those before it leave over. A book keeps its
        size. Codes keep their meaning (they move, none is renumbered), unless they described nothing.
    seconds: the work stops within about one round of it. steps: instead, so many rounds of k-means and so many steps
        of the gradient; then the result is the same on every run.
    held_out: vectors (M, D) to judge by; by default a tenth of `vectors`, which is then not learned from.
    device: where the gradient is computed; k-means and the judgement stay on the CPU.
    Raises OptionError unless exactly one of seconds and steps is given.
    """
    if (seconds is None) == (steps is None) or (seconds or steps or 0) < 0:
        raise OptionError("refine", "takes seconds or steps, one of them", "e.g. 30 seconds")
    books = [np.rint(np.asarray(book, np.float64)).astype(np.float32) for book in codebooks]
    vectors = np.ascontiguousarray(vectors, np.float32)
    if held_out is None:
        mine = np.arange(len(vectors)) // BLOCK % 10 == 9
        mine |= len(vectors) < 10 * BLOCK and np.arange(len(vectors)) % 10 == 9
        held_out, vectors = vectors[mine], vectors[~mine]
    held_out = np.ascontiguousarray(held_out, np.float32)
    if not len(held_out) or len(vectors) < max(len(b) for b in books):  # nothing to judge by, or to learn from
        error = errors(books, held_out) if len(held_out) else (0.0,) * len(books)
        return Refined(codebooks=tuple(books), before=error, after=error, rounds=0, steps=0)
    judge = _Judge(books, held_out)
    clock = _Clock(seconds, steps, report)
    rounds = _k_means(judge, vectors, clock, K_MEANS_SHARE if len(books) > 1 else 1.0, seed)
    taken = 0
    if len(books) > 1:
        taken = _jointly(judge, vectors, clock, seed, device)
    return Refined(codebooks=tuple(judge.best), before=judge.first, after=judge.least, rounds=rounds, steps=taken)


def errors(books: Sequence[np.ndarray], vectors: np.ndarray) -> tuple[float, ...]:
    """Mean squared error a vector, of each prefix of levels, searched greedily as an encoder does."""
    left, found = np.asarray(vectors, np.float32), []
    for book in books:
        codes, _ = nearest(left, book)
        left = left - book[codes]
        found.append(float((left.astype(np.float64) ** 2).sum(1).mean()))
    return tuple(found)


class _Judge:
    """Keeps the books that served the held-out vectors best."""

    def __init__(self, books: list[np.ndarray], held_out: np.ndarray) -> None:
        self._held_out = held_out
        self.best = books
        self.first = self.least = errors(books, held_out)

    def better(self, books: list[np.ndarray]) -> bool:
        """Whether the error, relative to what it was at first and averaged over prefixes, fell; then they are kept."""
        found = errors(books, self._held_out)
        floor = np.maximum(self.first, 1e-30)
        if not np.mean(np.array(found) / floor) < np.mean(np.array(self.least) / floor):
            return False
        self.best, self.least = books, found
        return True


class _Clock:
    """Seconds that run, or steps that are counted."""

    def __init__(self, seconds: float | None, steps: int | None, report: Callable[[float], None]) -> None:
        self._seconds, self._steps, self._report = seconds, steps, report
        self._began = time.monotonic()

    def used(self, done: int) -> float:
        """Share of the budget that is used up, `done` being what was counted so far."""
        if self._steps is not None:
            return done / self._steps if self._steps else 1.0
        assert self._seconds is not None
        share = (time.monotonic() - self._began) / self._seconds if self._seconds else 1.0
        self._report(min(share, 1.0))
        return share

    def part(self, share: float) -> float:
        """The fraction of the budget at which a phase ends that may take `share` of it. Counts are of each phase."""
        return 1.0 if self._steps is not None else share


def _k_means(judge: _Judge, vectors: np.ndarray, clock: _Clock, share: float, seed: int) -> int:
    """Rounds of k-means over all levels in turn, from the books so far; how many were made."""
    books, done, last = list(judge.best), 0, np.inf
    while clock.used(done) < clock.part(share):
        left = vectors
        for level, book in enumerate(books):
            moved = kmeans(left, len(book), seed=seed + done, iterations=ROUND_ITERATIONS, start=book)
            if len(moved) == len(book):  # fewer different vectors than codes: nothing to gain
                books[level] = np.rint(moved).astype(np.float32)
            codes, _ = nearest(left, books[level])
            left = left - books[level][codes]
        done += 1
        error = float((left.astype(np.float64) ** 2).sum(1).mean())
        judge.better(list(books))
        if error > last * (1 - ENOUGH):
            break
        last = error
    return done


def _jointly(judge: _Judge, vectors: np.ndarray, clock: _Clock, seed: int, device: str) -> int:
    """Steps of the gradient on all levels together, from the best books; how many were made."""
    from vector_quantize_pytorch import ResidualVQ

    books, width = judge.best, vectors.shape[1]
    model = ResidualVQ(
        dim=width,
        codebook_size=tuple(len(b) for b in books),
        learnable_codebook=True,
        ema_update=False,
        quant_grad_frac=1.0,
        rotation_trick=False,
        commitment_weight=1.0,
    ).to(device)
    groups = []
    for layer, book in zip(model.layers, books, strict=True):
        layer._codebook.embed.data.copy_(torch.from_numpy(book)[None])
        scale = float(np.sqrt((book.astype(np.float64) ** 2).mean()))
        groups.append({"params": [layer._codebook.embed], "scale": LEARNING_RATE * max(scale, 1.0)})
    optimizer = torch.optim.Adam(groups)
    model.train()
    generator = torch.Generator().manual_seed(seed)
    x, done = torch.from_numpy(vectors), 0
    begin = clock.used(0)
    while (used := clock.used(done)) < 1.0:
        falling = 1.0 - (used - begin) / max(1.0 - begin, 1e-9)
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * max(falling, 0.0)
        picked = torch.randint(0, len(x), (min(BATCH, len(x)),), generator=generator)
        _, _, losses = model(x[picked][None].to(device))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        done += 1
        if done % CHECK_STEPS == 0 or clock.used(done) >= 1.0:
            judge.better([np.rint(b.detach().cpu().numpy()).astype(np.float32) for b in _books_of(model)])
    return done


def _books_of(model: torch.nn.Module) -> list[torch.Tensor]:
    return [layer._codebook.embed[0] for layer in model.layers]  # type: ignore[union-attr]
