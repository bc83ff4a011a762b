"""The search of a book of video that has grown or lost codes since it was learned.

What is unusual: the book as it was born is searched as ever, in its clusters; what came later is looked at only for
vectors that this leaves further off than the block's threshold, so that what was well described keeps its codes to the
last one. Squared distances are whole numbers, so that the threshold is no matter of rounding.

Letters: n vectors, D coefficients, S stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pantok.quantizers.gated import Life
from pantok.tokenizers import video_search_kernels as kernels
from pantok.vocabulary import BASIS, BEYOND, LIFE, TokenizerState

if TYPE_CHECKING:
    from pantok.tokenizers.video_exact import Book

LEVELS: Mapping[str, tuple[str, ...]] = {
    "coarse": ("coarse",),
    "fresh": ("fresh",),
    "moved": ("moved",),
    "fine": ("fine1", "fine2", "fine3", "fine4", "fine5", "fine6"),
    "inner": ("between1", "between2", "between3", "between4", "between5"),
}
"""The level of each stage of each book; a book may have fewer."""
_SOME = 256  # vectors at a time, whose scores stay in a core's cache


def of_book(lives: Mapping[str, Life], name: str, stages: int) -> tuple[Life, ...]:
    """Lives of the stages of a book; none at all if nothing has happened to it."""
    mine = tuple(lives.get(level, Life()) for level in LEVELS[name][:stages])
    return mine if any(mine) else ()


def parts_of_book(state: TokenizerState, name: str, stages: int) -> tuple[np.ndarray, tuple[np.ndarray, ...], int]:
    """(basis, codes of each stage, `Book.first_dims`) of a book as its tensors tell. Raises KeyError."""
    basis = np.asarray(state.tensors[f"{name}.basis"], np.int16)
    codes = [np.asarray(state.tensors[f"{name}.{k}"], np.int16) for k in range(stages)]
    more = state.tensors.get(f"{LIFE}{name}.{BASIS}")
    if more is None:
        return basis, tuple(codes), 0
    for k, level in enumerate(LEVELS[name][:stages]):
        wide = np.zeros((len(codes[k]), len(basis) + len(more)), np.int16)
        wide[:, : len(basis)] = codes[k]
        said = state.tensors.get(f"{LIFE}{level}.{BEYOND}")
        if said is not None and len(said):
            wide[-len(said) :, len(basis) :] = said
        codes[k] = wide
    return np.concatenate([basis, np.asarray(more, np.int16)]), tuple(codes), len(basis)


def tensors_of_book(name: str, book: Book) -> dict[str, np.ndarray]:
    """The reverse of `parts_of_book`, and the clusters of its search."""
    dims = book.born_dims
    tensors: dict[str, np.ndarray] = {f"{name}.basis": book.basis[:dims]}
    if book.first_dims:
        tensors[f"{LIFE}{name}.{BASIS}"] = book.basis[dims:]
    for k, (codes, starts) in enumerate(zip(book.codes, book.starts, strict=True)):
        tensors[f"{name}.{k}"], tensors[f"{name}.{k}.starts"] = codes[:, :dims], starts.astype(np.int32)
        since = book.lives[k].born(len(codes)) if book.lives else len(codes)
        if book.first_dims and since < len(codes):
            tensors[f"{LIFE}{LEVELS[name][k]}.{BEYOND}"] = codes[since:, dims:]
    return tensors


def by_level(books: Mapping[str, Book]) -> dict[str, Life]:
    """The reverse of `of_book`."""
    return {
        level: life
        for name, book in books.items()
        for level, life in zip(LEVELS[name], book.lives, strict=False)
        if life
    }


def born(book: Book) -> tuple[int, ...]:
    """How many codes each stage had at first."""
    lives = book.lives or (Life(),) * len(book.codes)
    return tuple(life.born(len(codes)) for life, codes in zip(lives, book.codes, strict=True))


def first_codes(book: Book) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """For each stage the codes as they were born, those that are retired left out: vectors, starts, their numbers."""
    codes, starts, numbers = [], [], []
    for table, begins, life in zip(book.codes, book.starts, book.lives, strict=True):
        _, kept = next(iter(life.parts(len(table))))
        codes.append(table[kept])
        starts.append(np.unique(np.searchsorted(kept, begins)))
        numbers.append(kept)
    return tuple(codes), tuple(starts), tuple(numbers)


def deepen(
    book: Book,
    first: Book,
    numbers: tuple[np.ndarray, ...],
    stages: range,
    coefficients: np.ndarray,
    cost: np.ndarray,
    share: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """As `video_search_kernels.deepen`, with what came later.

    first, numbers: the book of `first_codes` and its codes' numbers. coefficients: float32 (n, D + 1). cost float64
    (S,), share float64 (n,). Returns codes int64 (S, n), -1 where not tried, and the squared error that each takes
    away, float64 (S, n).
    """
    dims, unit2 = len(book.basis), float(book.unit**2)
    born_dims = book.born_dims
    found = np.full((len(stages), len(coefficients)), -1, np.int64)
    saved = np.zeros(found.shape)
    x, active, gained = coefficients.copy(), np.arange(len(coefficients)), np.zeros(len(coefficients))
    table, group, centres, _ = first._stages
    for number, stage in enumerate(stages):
        lead = x[:, : min(born_dims, kernels.LEAD)].astype(np.float64)
        price = cost[number] * share[active]
        energy, least = unit2 * (lead * lead).sum(1), kernels.HOPE * price
        before = _hopeful(energy, gained, least, price)
        tried = before
        if born_dims < dims and len(book.lives[stage].blocks):
            # What is badly described in the directions that came later is looked at too, for the codes that did.
            beyond = x[:, born_dims:dims].astype(np.float64)
            tried = _hopeful(energy + unit2 * (beyond * beyond).sum(1), gained, least, price)
        before, x, active, gained = before[tried], x[tried], active[tried], gained[tried]
        if not len(x):
            break
        near, score = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
        kernels.nearest(x, table[stage], group[stage], centres[stage], near, score)
        mine, left = numbers[stage][near], x[:, :dims].astype(np.float64)
        norm = (left * left).sum(1)
        distance = norm + 2.0 * score
        codes = book.codes[stage]
        for threshold, among, lines in book.later[stage]:
            far = np.flatnonzero(distance > threshold)
            if len(far) and len(among):
                there = among[_nearest(x[far], lines)]
                apart = left[far] - codes[there]
                gap = (apart * apart).sum(1)
                better = gap < distance[far]
                mine[far[better]], distance[far[better]] = there[better], gap[better]
        if not before.all():
            kept = before | (mine >= book.lives[stage].born(len(codes)))
            mine, x, active, gained = mine[kept], x[kept], active[kept], gained[kept]
            norm, distance = norm[kept], distance[kept]
        taken = unit2 * (norm - distance)
        found[number, active], saved[number, active] = mine, taken
        gained = gained + taken - cost[number] * share[active]
        x[:, :dims] -= codes[mine]
    return found, saved


def _nearest(x: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """int64 (n,): of float32 x (n, D + 1), a last column of ones, the nearest code each; the first of equals."""
    out = np.empty(len(x), np.int64)
    for first in range(0, len(x), _SOME):
        (x[first : first + _SOME] @ lines).argmin(1, out=out[first : first + _SOME])
    return out


def _hopeful(energy: np.ndarray, gained: np.ndarray, least: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """bool (n,): of vectors whether a further code is looked for, see `video_search_kernels.HOPE`."""
    return (energy >= least) & ((gained >= -kernels.DEBT * cost) | (energy >= 2 * least))
