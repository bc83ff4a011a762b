"""What it takes to write compositions down: bits of the first 0 .. M of them, by a code that could be decoded.

What is unusual: their order costs next to nothing. It matters only where a pair names another or was met more often.
So a table is told as runs: pairs that ascend, by the later of their ids, then by the left, then by the right one, and
that name no id of their own run. A run is a set, and a set of n costs log2(n!) bits less than its n pairs one by one.
Most pairs are met a few times, thousands of them equally often, and `compose_kernels.learn` takes them in that order.

    size of the run      its digits and, in unary, how many they are (Elias' gamma code)
    class of the left    by how many left ids were of each class, one occurrence of each granted
    class of the right   by those that followed the same class, likewise
    which of its class   by how often each was a part, left or right, half an occurrence of each granted

None of these minds in which order the pairs of a run are told, so that all orders are equally probable and the
probability of the set is n! times that of one. One bit before it all says whether pairs are told so, or one by one
and all ids of a class alike, which may be less for a few: more than that and the bit it never is. On film, of 69,607
pairs, a pair is 8.4 bits; one by one it is 26.

Sources: P. Elias, "Universal codeword sets and representations of the integers", IEEE Trans. Inf. Theory 21, 1975;
R. Krichevsky and V. Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory 27, 1981.
"""

from __future__ import annotations

import numpy as np

from pantok.evolve.compositions import Compositions

_GRANTED = 0.5


def composition_bits(compositions: Compositions, classes: np.ndarray) -> np.ndarray:
    """float64 (M + 1,): bits of the first 0 .. M compositions, ascending.

    classes: int32 (ids,), see `compositions.makeup_of`, these compositions among them; all other ids are known.
    """
    count, kinds = len(compositions), int(classes.max(initial=0)) + 1
    if not count:
        return np.zeros(1)
    row = np.arange(count)
    ids = compositions.parts.reshape(-1)  # left, right, left, right ...
    kind = classes[ids].astype(np.int64)
    first, second = kind.reshape(-1, 2).T
    there = np.bincount(np.delete(classes, compositions.named), minlength=kinds)[kind]
    made = np.sort(second * count + row)  # a composition is of the class of its last part

    def alike(before: np.ndarray) -> np.ndarray:
        """(2 M,): ids of the class of each part that were there before a composition."""
        more = np.searchsorted(made, kind * count + np.repeat(before, 2)) - np.searchsorted(made, kind * count)
        return there + more

    def told(shares: np.ndarray) -> np.ndarray:
        """(M,): bits, given the share of each part within its class."""
        return -np.log2(of_class * shares[0::2] * shares[1::2])

    lefts = _earlier(first)
    of_class = (lefts + 1) / (row + kinds) * (_earlier(first * kinds + second) + 1) / (lefts + kinds)
    begin = _begins(compositions)
    size = row - begin + 1
    digits = np.frexp(size)[1].astype(np.int64)
    sizes = np.where(size == 1, 1, 2 * (digits - np.frexp(size - 1)[1]))  # one digit more takes two bits
    by_use = (_earlier(ids) + _GRANTED) / (_earlier(kind) + _GRANTED * alike(begin))
    as_sets = np.cumsum(sizes + told(by_use) - np.log2(size))
    # Where most of all pairs that there are have been told, one more takes fewer bits, not more: then it takes none.
    return np.maximum.accumulate(np.concatenate([[0.0], 1 + np.minimum(as_sets, np.cumsum(told(1 / alike(row))))]))


def _begins(compositions: Compositions) -> np.ndarray:
    """int64 (M,): where the run of each composition begins."""
    parts, named = compositions.parts, compositions.named
    made = np.full(int(max(parts.max(initial=0), named.max(initial=0))) + 1, -1, np.int64)
    made[named] = np.arange(len(named))
    later = parts.max(1, initial=0)
    keys = list(zip(later.tolist(), *parts.T.tolist(), strict=True))
    begin, out, before = 0, [], (-1, -1, -1)
    for at, (key, latest) in enumerate(zip(keys, made[parts].max(1, initial=-1).tolist(), strict=True)):
        if key <= before or latest >= begin:
            begin = at
        out.append(begin)
        before = key
    return np.array(out, np.int64)


def _earlier(values: np.ndarray) -> np.ndarray:
    """int64 (N,): how many of the values before are the same."""
    order = np.argsort(values, kind="stable")
    there = values[order]
    begins = np.flatnonzero(np.concatenate([[True], there[1:] != there[:-1]])) if len(there) else order
    out = np.empty(len(values), np.int64)
    out[order] = np.arange(len(values)) - np.repeat(begins, np.diff(np.append(begins, len(values))))
    return out
