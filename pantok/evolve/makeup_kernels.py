"""The loops of `makeup`: whether an id can follow another, and how probable all are that cannot.

Ids are a tree by their left parts, the merges behind an id being its branches, in the order in which they are made.
If (y, x) is merge r, then x cannot follow y, and of what x begins not the branches that came at r or later. See
`makeup.Tree` for the arrays; V ids, M merges.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pantok.evolve.compose_read_kernels import NONE, rank_of
from pantok.evolve.makeup import NEVER, Tree


@njit(cache=True, nogil=True)
def forbids(tree: Tree, one: int, other: int) -> bool:
    """Whether a merge joins an end of `one` with a begin of `other` before either is joined within them."""
    size = len(tree.left)
    y, joined = one, NEVER
    while True:
        if tree.start[y] < tree.start[y + 1]:
            x, taken = other, NEVER
            while True:
                rank = rank_of(tree.keys, tree.ranks, y * size + x)
                if rank != NONE and rank < joined and rank <= taken:
                    return True
                if tree.left[x] < 0:
                    break
                taken, x = tree.made[x], tree.left[x]
        if tree.right[y] < 0:
            return False
        joined, y = tree.made[y], tree.right[y]


@njit(cache=True, nogil=True)
def conflicts(tree: Tree, one: int, best: np.ndarray, found: np.ndarray) -> tuple[int, int]:
    """Ids x that an end of `one` is joined with, into found (V,), and into best (V,), all -1 before, the first merge
    that does so. Returns how many there are, and how many of them, which come first, no other tells."""
    y, joined, many = one, NEVER, 0
    while True:
        for at in range(tree.start[y], tree.start[y + 1]):
            rank = tree.behind[at]
            if rank >= joined:
                break
            x = tree.right[tree.named[rank]]
            if best[x] < 0:
                found[many] = x
                many += 1
                best[x] = rank
            elif rank < best[x]:
                best[x] = rank
        if tree.right[y] < 0:
            break
        joined, y = tree.made[y], tree.right[y]
    kept = 0
    for at in range(many):
        x = found[at]
        told = False
        while tree.left[x] >= 0 and not told:
            told = 0 <= best[tree.left[x]] <= tree.made[x]
            x = tree.left[x]
        if not told:
            found[at], found[kept] = found[kept], found[at]
            kept += 1
    return many, kept


@njit(cache=True, nogil=True, inline="always")
def _late(tree: Tree, x: int, rank: int) -> int:
    """Where in `behind` the first merge of x stands that is not before `rank`."""
    low, high = tree.start[x], tree.start[x + 1]
    while low < high:
        middle = (low + high) // 2
        if tree.behind[middle] < rank:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def forbidden(tree: Tree, one: int, best: np.ndarray, found: np.ndarray, out: np.ndarray) -> int:
    """All that cannot follow `one`, into out (V,), each once; how many. best, found: (V,), see `conflicts`."""
    many, kept = conflicts(tree, one, best, found)
    count = 0
    for k in range(kept):
        x = found[k]
        done = count
        out[count] = x
        count += 1
        first = _late(tree, x, best[x])
        while done < count:  # what stands in `out` already is what is still to be followed
            here = out[done]
            done += 1
            for at in range(first if here == x else tree.start[here], tree.start[here + 1]):
                out[count] = tree.named[tree.behind[at]]
                count += 1
    for k in range(many):
        best[found[k]] = -1
    return count


@njit(cache=True, nogil=True)
def masses(
    tree: Tree, ids: np.ndarray, p: np.ndarray, best: np.ndarray, found: np.ndarray, branch: np.ndarray,
    late: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """The sum of p, float64 (V,), over what cannot follow an id, into out (V,), for each of `ids`. Room: branch (V,),
    the sum of an id and all that it begins; late (M,), that of a merge and of the later ones behind the same id."""
    branch[:] = p
    for rank in range(len(tree.named) - 1, -1, -1):
        name = tree.named[rank]
        branch[tree.left[name]] += branch[name]
    for x in range(len(tree.left)):
        total = 0.0
        for at in range(tree.start[x + 1] - 1, tree.start[x] - 1, -1):
            total += branch[tree.named[tree.behind[at]]]
            late[at] = total
    for one in ids:
        many, kept = conflicts(tree, one, best, found)
        total = 0.0
        for k in range(kept):
            x = found[k]
            total += p[x]
            at = _late(tree, x, best[x])
            if at < tree.start[x + 1]:
                total += late[at]
        for k in range(many):
            best[found[k]] = -1
        out[one] = total


@njit(cache=True, nogil=True)
def met(
    tree: Tree, bigrams: np.ndarray, nodes: np.ndarray, classes: np.ndarray, out: np.ndarray
) -> None:  # fmt: skip
    """How often ids stood where they cannot, by the class of the one before, into out, float64. bigrams, nodes: the
    tables of the n-gram."""
    size = len(tree.left)
    for row in range(len(bigrams)):
        if bigrams[row, 0] != 0:
            one, other = divmod(bigrams[row, 0] - 1, size + 1)
            if one < size and forbids(tree, one, other):
                out[classes[one]] += nodes[bigrams[row, 1], 0]
