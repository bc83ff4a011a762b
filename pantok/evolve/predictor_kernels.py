"""The loops of the n-gram: two open hash tables, walked once for each id.

A bigram (u, w) has a number of its own, a *node*, so that a trigram is the pair of a node and an id, and a key of 64
bits whatever the vocabulary. Tables grow outside: a loop stops where one is full, and goes on from there.

bigrams int64 (cap, 2): key + 1 (0: free), node. nodes int64 (room, 3): how often the bigram, how often something
followed it, how many different ids did. trigrams int64 (cap, 2): key + 1, count; below zero stand the *openings*, an id
behind one of a class. contexts int64 (V + 1, 2): followers and different followers of an id; row V is the begin of a
document. openings int64 (classes + 1, 2): the same of a class. counts int64 (V,). facts int64 (FACTS,).

Where there are compositions, what cannot follow an id loses its probability to what can, see `makeup`. `seams` float64
(classes,) is what it keeps. How probable all of it was is in `mass`, float64 (V,), while nothing is counted; while ids
are counted and asked about at once it is summed anew for each.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pantok.evolve.makeup import Tree
from pantok.evolve.makeup_kernels import forbidden, forbids

TOTAL, DISTINCT, BIGRAMS, TRIPLES, LAST, NODE, DOCUMENT, ONCE, TWICE, SETTLE, FACTS = 0, 1, 2, 3, 4, 5, 6, 7, 11, 15, 16
NEARLY_ALL = 1 - 1e-9
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit("int64(int64[:,::1], int64)", cache=True, nogil=True, inline="always")
def _slot(table: np.ndarray, key: int) -> int:
    """Where a key + 1 stands, or the free place where it would."""
    mask = len(table) - 1
    word = np.uint64(key) * _GOLDEN
    at = int(np.int64((word ^ (word >> np.uint64(32))) & np.uint64(mask)))
    while table[at, 0] != 0 and table[at, 0] != key:
        at = (at + 1) & mask
    return at


@njit("void(int64[::1], int64, int64)", cache=True, nogil=True, inline="always")
def _recount(facts: np.ndarray, order: int, times: int) -> None:
    """How many are met once and twice, when one has come to be met `times`."""
    if times == 1:
        facts[ONCE + order] += 1
    elif times == 2:
        facts[ONCE + order] -= 1
        facts[TWICE + order] += 1
    elif times == 3:
        facts[TWICE + order] -= 1


@njit("void(int64[:,::1], int64[:,::1])", cache=True, nogil=True)
def rehash(old: np.ndarray, new: np.ndarray) -> None:
    """All of one table into a larger, empty one."""
    for row in range(len(old)):
        if old[row, 0] != 0:
            at = _slot(new, old[row, 0])
            new[at, 0], new[at, 1] = old[row, 0], old[row, 1]


@njit(cache=True, nogil=True)
def less(facts: np.ndarray, order: int) -> float:
    """D of an order: none, class, one id, two."""
    once, twice = facts[ONCE + order], facts[TWICE + order]
    return float((once + 1.0) / (once + 2.0 * twice + 2.0))


@njit(cache=True, nogil=True)
def _by_class(
    word: int, kind: int, counts: np.ndarray, openings: np.ndarray, trigrams: np.ndarray, facts: np.ndarray
) -> float:  # fmt: skip
    """p of an id behind one of a class."""
    p, size = 1.0 / len(counts), len(counts)
    if facts[TOTAL] > 0:
        d = less(facts, 0)
        p = (max(counts[word] - d, 0.0) + d * facts[DISTINCT] * p) / facts[TOTAL]
    if openings[kind, 0] > 0:
        at = _slot(trigrams, word - size - kind * (size + 1))
        times, d = trigrams[at, 1] if trigrams[at, 0] != 0 else 0, less(facts, 1)
        p = (max(times - d, 0.0) + d * openings[kind, 1] * p) / openings[kind, 0]
    return p


@njit(cache=True, nogil=True)
def walk(
    ids: np.ndarray, documents: np.ndarray, first: int, classes: np.ndarray, tree: Tree, mass: np.ndarray,
    seams: np.ndarray, room: np.ndarray, counts: np.ndarray, contexts: np.ndarray, openings: np.ndarray,
    bigrams: np.ndarray, nodes: np.ndarray, trigrams: np.ndarray, facts: np.ndarray, bits: np.ndarray, score: bool,
    learn: bool,
) -> int:  # fmt: skip
    """Ids from `first` on: what each costs by what was counted so far (score), and then counts it (learn).

    classes (V,), or none at all. tree: of the compositions, of no ids where there are none. room: int64 (3, V), the
    first of it -1. Returns where it stopped: behind the last id, where a table has to grow, or where so many ids have
    been counted that `seams` are to be counted anew.
    """
    size = len(counts)
    base = np.int64(size + 1)
    last, node, document = facts[LAST], facts[NODE], facts[DOCUMENT]
    total, distinct, made, triples = facts[TOTAL], facts[DISTINCT], facts[BIGRAMS], facts[TRIPLES]
    most = min(len(nodes), len(bigrams) // 2)
    composed = len(tree.left) > 0
    at = first
    while at < len(ids):
        if learn and (made >= most or 2 * triples >= len(trigrams) or (score and total >= facts[SETTLE])):
            break
        word = ids[at]
        if documents[at] != document:
            last, node, document = size, np.int64(-1), documents[at]
        pair = _slot(bigrams, last * base + word + 1)
        known = bigrams[pair, 0] != 0
        here = bigrams[pair, 1] if known else np.int64(-1)
        opening, kind = np.int64(0), np.int64(0)
        if len(classes):
            kind = np.int64(classes[last]) if last < size else np.int64(len(openings) - 1)
            opening = _slot(trigrams, word - size - kind * base)  # below zero, where no trigram is
        triple = np.int64(0)
        if node >= 0:
            triple = _slot(trigrams, node * base + word + 1)
        if score:
            p = 1.0 / size
            for order in range(4):
                if order == 0:
                    seen, kinds, times = total, distinct, counts[word]
                elif order == 1:
                    seen = 0
                    if len(classes):
                        seen, kinds = openings[kind, 0], openings[kind, 1]
                        times = trigrams[opening, 1] if trigrams[opening, 0] != 0 else 0
                elif order == 2:
                    seen, kinds, times = contexts[last, 0], contexts[last, 1], nodes[here, 0] if known else 0
                elif node >= 0:
                    seen, kinds = nodes[node, 1], nodes[node, 2]
                    times = trigrams[triple, 1] if trigrams[triple, 0] != 0 else 0
                else:
                    seen = 0
                if seen > 0:
                    d = less(facts, order)
                    p = (max(times - d, 0.0) + d * kinds * p) / seen
                if order == 1 and composed and last < size:
                    if learn:
                        facts[TOTAL], facts[DISTINCT] = total, distinct
                        out = 0.0
                        for k in range(forbidden(tree, last, room[0], room[1], room[2])):
                            out += _by_class(room[2, k], kind, counts, openings, trigrams, facts)
                    else:
                        out = mass[last]
                    if 0.0 < out < NEARLY_ALL:
                        if forbids(tree, last, word):
                            p *= seams[kind]
                        else:
                            p *= (1.0 - seams[kind] * out) / (1.0 - out)
            bits[at] = -np.log2(min(p, 1.0))
        if learn:
            total += 1
            if counts[word] == 0:
                distinct += 1
            counts[word] += 1
            _recount(facts, 0, counts[word])
            if len(classes):
                openings[kind, 0] += 1
                if trigrams[opening, 0] == 0:
                    trigrams[opening, 0] = word - size - kind * base
                    triples += 1
                    openings[kind, 1] += 1
                trigrams[opening, 1] += 1
                _recount(facts, 1, trigrams[opening, 1])
                if node >= 0:  # the opening may have taken its free place
                    triple = _slot(trigrams, node * base + word + 1)
            contexts[last, 0] += 1
            if not known:
                here = made
                made += 1
                bigrams[pair, 0], bigrams[pair, 1] = last * base + word + 1, here
                contexts[last, 1] += 1
            nodes[here, 0] += 1
            _recount(facts, 2, nodes[here, 0])
            if node >= 0:
                nodes[node, 1] += 1
                if trigrams[triple, 0] == 0:
                    trigrams[triple, 0] = node * base + word + 1
                    triples += 1
                    nodes[node, 2] += 1
                trigrams[triple, 1] += 1
                _recount(facts, 3, trigrams[triple, 1])
        last, node = word, here
        at += 1
    facts[TOTAL], facts[DISTINCT], facts[BIGRAMS], facts[TRIPLES] = total, distinct, made, triples
    facts[LAST], facts[NODE], facts[DOCUMENT] = last, node, document
    return at
