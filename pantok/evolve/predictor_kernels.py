"""The loops of the n-gram: two open hash tables, walked once for each id.

A bigram (u, w) has a number of its own, a *node*, so that a trigram is the pair of a node and an id, and a key of 64
bits whatever the vocabulary. Tables grow outside: a loop stops where one is full, and goes on from there.

bigrams int64 (cap, 2): key + 1 (0: free), node. nodes int64 (room, 3): how often the bigram, how often something
followed it, how many different ids did. trigrams int64 (cap, 2): key + 1, count; below zero stand the *openings*, an id
behind one of a class. contexts int64 (V + 1, 2): followers and different followers of an id; row V is the begin of a
document. openings int64 (classes + 1, 2): the same of a class. counts int64 (V,). facts int64 (FACTS,).
"""

from __future__ import annotations

import numpy as np
from numba import njit

TOTAL, DISTINCT, BIGRAMS, TRIPLES, LAST, NODE, DOCUMENT, ONCE, TWICE, FACTS = 0, 1, 2, 3, 4, 5, 6, 7, 11, 15
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


@njit(
    "int64(int64[::1], int64[::1], int64, int32[::1], int64[::1], int64[:,::1], int64[:,::1], int64[:,::1],"
    " int64[:,::1], int64[:,::1], int64[::1], float64[::1], boolean, boolean)",
    cache=True, nogil=True,
)  # fmt: skip
def walk(
    ids: np.ndarray, documents: np.ndarray, first: int, classes: np.ndarray, counts: np.ndarray, contexts: np.ndarray,
    openings: np.ndarray, bigrams: np.ndarray, nodes: np.ndarray, trigrams: np.ndarray, facts: np.ndarray,
    bits: np.ndarray, score: bool, learn: bool,
) -> int:  # fmt: skip
    """Ids from `first` on: what each costs by what was counted so far (score), and then counts it (learn).

    classes (V,), or none at all. Returns where it stopped: behind the last id, or where a table has to grow.
    """
    size = len(counts)
    base = np.int64(size + 1)
    last, node, document = facts[LAST], facts[NODE], facts[DOCUMENT]
    total, distinct, made, triples = facts[TOTAL], facts[DISTINCT], facts[BIGRAMS], facts[TRIPLES]
    room = min(len(nodes), len(bigrams) // 2)
    at = first
    while at < len(ids):
        if learn and (made >= room or 2 * triples >= len(trigrams)):
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
                    one, two = facts[ONCE + order], facts[TWICE + order]
                    less = (one + 1.0) / (one + 2.0 * two + 2.0)
                    p = (max(times - less, 0.0) + less * kinds * p) / seen
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
