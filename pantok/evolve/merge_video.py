"""Video that was learned elsewhere, told in the terms of a vocabulary: its codes in the other's directions, its tables
behind the other's.

What is unusual: nothing is lost for want of directions. Each book of video was learned in the principal directions of
its own recordings, so codes of two vocabularies are vectors of two spaces. Here the first one's space gets those
directions that the second one's codes need and it lacks, at right angles to its own; its own codes are zero there, so
they draw what they drew and lie as far from each other as they did. In that common space a code of the second is a code
of the first or a new one, as between vocabularies of one transform. What is left is rounding: coefficients are whole
numbers. Patterns of depth and courses are choices, not vectors: they are the same or they are appended.

Letters: D directions of a book, V values of a vector, K codes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pantok.evolve import codebooks
from pantok.tokenizers import video_living as living
from pantok.tokenizers.video import VideoTokenizer
from pantok.tokenizers.video_books import Books
from pantok.tokenizers.video_exact import Book
from pantok.vocabulary import BASIS, BEYOND, LIFE, TokenizerState

_LOST = 1e-4
"""Most of the energy of a book's codes that directions left out may hold."""
_TABLES = {"pattern": "patterns", "between_pattern": "inner_patterns", "course": "courses"}
"""The tensor that holds the entries of a level of choices."""


def in_terms_of(
    mine: TokenizerState, theirs: TokenizerState
) -> tuple[TokenizerState, TokenizerState, dict[str, np.ndarray]]:
    """Two tokenizers of video as two whose codes are vectors of one transform.

    Returns `mine` with more directions, patterns and courses, which descends from it; `theirs` in its terms, which is
    no tokenizer of its own any more; and for each level of choices the code in the first of each code of `theirs`,
    uint32 (K,). Both must be of one format.
    """
    ours, other = (VideoTokenizer.from_state(s).books for s in (mine, theirs))
    for name in Books.NAMES:
        mine, theirs = _one_space(mine, theirs, name, ours.by_name[name], other.by_name[name])
    tables: dict[str, np.ndarray] = {}
    for level, tensor in _TABLES.items():
        if tensor in theirs.tensors:
            mine, tables[level] = _choices(mine, np.asarray(theirs.tensors[tensor]), level, tensor)
            theirs = _with_table(theirs, mine.tensors[tensor], level, tensor)
    return mine, theirs, tables


def _one_space(
    mine: TokenizerState, theirs: TokenizerState, name: str, ours: Book, other: Book
) -> tuple[TokenizerState, TokenizerState]:
    """Both states with one book's directions the same, and the codes of `theirs` told in them."""
    if ours.first_dims == other.first_dims and np.array_equal(ours.basis, other.basis):
        return mine, theirs
    drawn = [codes.astype(np.float64) @ other.basis / other.scale for codes in other.codes]  # (K, V)
    basis = np.concatenate([ours.basis, _lacking(ours, np.concatenate(drawn))])
    mine, dims = _widened(mine, name, ours, basis), ours.born_dims
    tensors = {n: t for n, t in theirs.tensors.items() if n != f"{LIFE}{name}.{BASIS}"}
    tensors[f"{name}.basis"] = basis[:dims]
    if len(basis) > dims:
        tensors[f"{LIFE}{name}.{BASIS}"] = basis[dims:]
    # Rows of an integer basis are nearly at right angles: the coefficients are those of least squares.
    solve = np.linalg.pinv(basis / ours.scale)
    for stage, (level, vectors) in enumerate(zip(living.LEVELS[name], drawn, strict=False)):
        rows = ours.bearable(vectors @ solve).astype(np.int16)
        tensors[f"{name}.{stage}"] = rows[:, :dims]
        tensors.pop(f"{LIFE}{level}.{BEYOND}", None)
        if len(basis) > dims:
            tensors[f"{LIFE}{level}.{BEYOND}"] = rows[:, dims:]
    return mine, replace(theirs, tensors=tensors)


def _lacking(book: Book, vectors: np.ndarray) -> np.ndarray:
    """int16 (d, V): the fewest directions, at right angles to the book's, with which all but `_LOST` of the energy of
    vectors float64 (n, V) is within its space."""
    own = np.linalg.qr((book.basis / book.scale).T)[0]
    over = vectors - vectors @ own @ own.T
    _, sizes, across = np.linalg.svd(over, full_matrices=False)
    left = np.append(np.cumsum((sizes**2)[::-1])[::-1], 0.0)  # by how many directions are taken
    count = int(np.argmax(left <= _LOST * (vectors**2).sum()))
    return np.rint(across[:count] * book.scale).astype(np.int16)


def _widened(state: TokenizerState, name: str, book: Book, basis: np.ndarray) -> TokenizerState:
    """The state whose book has the directions `basis` int16 (D, V), of which the first are its own."""
    if len(basis) == len(book.basis):
        return state
    dims = book.born_dims
    tensors = {**state.tensors, f"{LIFE}{name}.{BASIS}": basis[dims:]}
    for level, codes, born in zip(living.LEVELS[name], book.codes, living.born(book), strict=False):
        if born < len(codes):
            wide = np.zeros((len(codes) - born, len(basis) - dims), np.int16)
            wide[:, : len(book.basis) - dims] = codes[born:, dims:]
            tensors[f"{LIFE}{level}.{BEYOND}"] = wide
    return replace(state, tensors=tensors)


def narrowed(state: TokenizerState, before: TokenizerState) -> TokenizerState:
    """The state without directions that it got since `before` and in which no code lies."""
    tensors, had = dict(state.tensors), {level.name for level in state.levels}
    for name, every in living.LEVELS.items():
        levels = [level for level in every if level in had]
        grew = any(
            state.levels[k].cardinality > before.levels[k].cardinality
            for k in (codebooks.level_of(state, level) for level in levels)
        )
        for key in () if grew else (f"{LIFE}{name}.{BASIS}", *(f"{LIFE}{level}.{BEYOND}" for level in levels)):
            tensors.pop(key, None)
            if key in before.tensors:
                tensors[key] = before.tensors[key]
    return replace(state, tensors=tensors)


def _choices(mine: TokenizerState, entries: np.ndarray, level: str, tensor: str) -> tuple[TokenizerState, np.ndarray]:
    """The state with those of `entries` (K, ...) that its table lacks, and the place of each there, uint32 (K,)."""
    own = np.asarray(mine.tensors[tensor])
    place: dict[bytes, int] = {}
    for number, entry in enumerate(own):
        place.setdefault(entry.tobytes(), number)
    table, more = list[int](), list[np.ndarray]()
    for entry in entries.astype(own.dtype):
        table.append(place.setdefault(entry.tobytes(), len(own) + len(more)))
        if table[-1] == len(own) + len(more):
            more.append(entry)
    both = np.concatenate([own, *(entry[None] for entry in more)])
    return _with_table(mine, both, level, tensor), np.array(table, np.uint32)


def _with_table(state: TokenizerState, table: np.ndarray, level: str, tensor: str) -> TokenizerState:
    """The state with another table of a level of choices, which has as many codes as that has entries."""
    levels, at = list(state.levels), codebooks.level_of(state, level)
    levels[at] = replace(levels[at], cardinality=len(table))
    return replace(state, levels=tuple(levels), tensors={**state.tensors, tensor: table})
