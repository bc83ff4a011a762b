"""The loop of reading composed sequences: runs of ids that may be joined, each composed where it lies.

What is unusual: merges are found from the run, not from the merges. Of a run of neighbours, the pair whose merge comes
first is merged, leftmost first, until none is left; that is what applying the merges one after another gives, because
a merge that takes in another's id comes after it. Runs are short (the codes of a level in one tick), so the next pair
is found by looking at all of them; of long runs by a heap.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LEVEL, UNIT, TRACK = range(3)
_LONG = 96
_NONE = 2**31 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def _rank(keys: np.ndarray, ranks: np.ndarray, key: int) -> int:
    """The merge of a pair, or _NONE."""
    mask = len(keys) - 1
    word = np.uint64(key) * _GOLDEN
    at = int(np.int64((word ^ (word >> np.uint64(32))) & np.uint64(mask)))
    while keys[at] != -1:
        if keys[at] == key:
            return int(ranks[at])
        at = (at + 1) & mask
    return _NONE


@njit(cache=True, nogil=True)
def table(parts: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys int64, ranks int32): an open table of merges (M, 2), the first of equal pairs."""
    cap = 16
    while cap < 4 * len(parts):
        cap *= 2
    keys, ranks = np.full(cap, -1, np.int64), np.empty(cap, np.int32)
    mask = cap - 1
    for k in range(len(parts)):
        key = parts[k, 0] * base + parts[k, 1]
        word = np.uint64(key) * _GOLDEN
        at = int(np.int64((word ^ (word >> np.uint64(32))) & np.uint64(mask)))
        while keys[at] != -1 and keys[at] != key:
            at = (at + 1) & mask
        if keys[at] == -1:
            keys[at], ranks[at] = key, k
    return keys, ranks


@njit(cache=True, nogil=True)
def _compose(
    ids: np.ndarray, first: int, n: int, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    out: np.ndarray, begin: np.ndarray, rank: np.ndarray, heap: np.ndarray, after: np.ndarray, before: np.ndarray,
) -> int:  # fmt: skip
    """The run ids[first:first + n] composed: ids into out, where each began (from `first`) into begin; how many."""
    size = 0
    is_long = n > _LONG
    for i in range(n - 1):
        rank[i] = _rank(keys, ranks, ids[first + i] * base + ids[first + i + 1])
        if rank[i] != _NONE:
            heap[size] = (np.int64(rank[i]) << 32) | i
            size += 1
    for i in range(n):
        out[i], begin[i] = ids[first + i], i
    if not size:
        return n
    rank[n - 1] = _NONE
    for i in range(n):
        after[i], before[i] = i + 1, i - 1
    if is_long:
        many, size = size, 0
        for k in range(many):
            size = _push(heap, size, heap[k])
    # Entries are rank * 2^32 + place; one whose pair has changed since is passed over.
    while size:
        if is_long:
            top = heap[0]
            size = _pop(heap, size)
        else:
            top, least = heap[0], 0
            for k in range(1, size):
                if heap[k] < top:
                    top, least = heap[k], k
            size -= 1
            heap[least] = heap[size]
        at, best = int(top & 0xFFFFFFFF), int(top >> 32)
        if rank[at] != best:
            continue
        other = np.int64(after[at])
        out[at], rank[other], begin[other] = named[best], _NONE, -1
        after[at] = after[other]
        rank[at] = _NONE
        if after[at] < n:
            before[after[at]] = at
            rank[at] = _rank(keys, ranks, out[at] * base + out[after[at]])
        left = np.int64(before[at])
        if left >= 0:
            rank[left] = _rank(keys, ranks, out[left] * base + out[at])
        for place in (left, np.int64(at)):
            if place >= 0 and rank[place] != _NONE:
                entry = (np.int64(rank[place]) << 32) | place
                if is_long:
                    size = _push(heap, size, entry)
                else:
                    heap[size] = entry
                    size += 1
    kept = 0
    for i in range(n):
        if begin[i] >= 0:
            out[kept], begin[kept] = out[i], begin[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _push(heap: np.ndarray, size: int, value: int) -> int:
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap[up] <= value:
            break
        heap[at] = heap[up]
        at = up
    heap[at] = value
    return size + 1


@njit(cache=True, nogil=True)
def _pop(heap: np.ndarray, size: int) -> int:
    size -= 1
    value, at = heap[size], 0
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and heap[down + 1] < heap[down]:
            down += 1
        if heap[down] >= value:
            break
        heap[at] = heap[down]
        at = down
    heap[at] = value
    return size


@njit(cache=True, nogil=True, inline="always")
def _joined(
    i: int, kind: np.ndarray, level: np.ndarray, track: np.ndarray, time_ns: np.ndarray, may: np.ndarray, digit: int,
    across: int,
) -> bool:  # fmt: skip
    """Whether id i may be one with the id behind it: `compose.joins_of`."""
    if not may[kind[i]] or not may[kind[i + 1]]:
        return False
    same = level[i] == level[i + 1]
    if not same and (across == LEVEL or kind[i] == digit or kind[i + 1] == digit):
        return False
    return across == TRACK or (track[i] == track[i + 1] and time_ns[i] == time_ns[i + 1])


@njit(cache=True, nogil=True)
def starts_of(
    ids: np.ndarray, joins: np.ndarray, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    composed: np.ndarray, starts: np.ndarray,
) -> int:  # fmt: skip
    """ids int64 (N,) composed, where joins (N,) says which may be one with the next; `composed` and `starts`, int64
    (N,), are filled with the ids and where each began. How many."""
    n, longest, run = len(ids), 1, 0
    for i in range(n):
        run += 1
        longest = max(longest, run)
        if i + 1 == n or not joins[i]:
            run = 0
    out, begin = np.empty(longest, np.int64), np.empty(longest, np.int32)
    rank, heap = np.empty(longest, np.int32), np.empty(3 * longest, np.int64)
    after, before = np.empty(longest, np.int32), np.empty(longest, np.int32)
    made = at = 0
    for i in range(n):
        if i + 1 < n and joins[i]:
            continue
        if i == at:
            composed[made], starts[made] = ids[i], i
            made += 1
        else:
            kept = _compose(ids, at, i + 1 - at, keys, ranks, named, base, out, begin, rank, heap, after, before)
            for k in range(kept):
                composed[made], starts[made] = out[k], at + begin[k]
                made += 1
        at = i + 1
    return made


@njit(cache=True, nogil=True)
def compose(
    parts: np.ndarray, ids: np.ndarray, kind: np.ndarray, level: np.ndarray, track: np.ndarray, role: np.ndarray,
    time_ns: np.ndarray, mask: np.ndarray, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    may: np.ndarray, digit: int, across: int, to_ids: np.ndarray, to_kind: np.ndarray, to_level: np.ndarray,
    to_track: np.ndarray, to_role: np.ndarray, to_time_ns: np.ndarray, to_mask: np.ndarray, to_document: np.ndarray,
) -> None:  # fmt: skip
    """Parts of columns composed into columns. parts int64 (P, 6): first and last + 1 of its ids of the layout, how many
    composed ids to leave out, how many to take, where they go, number of their document."""
    longest = 1
    for p in range(len(parts)):
        longest = max(longest, parts[p, 1] - parts[p, 0])
    joins, composed, starts = np.empty(longest, np.bool_), np.empty(longest, np.int64), np.empty(longest, np.int64)
    for p in range(len(parts)):
        first, stop, skip, take, to, number = parts[p]
        n = stop - first
        here = slice(first, stop)
        k_, l_, t_, w_ = kind[here], level[here], track[here], time_ns[here]
        for i in range(n - 1):
            joins[i] = _joined(i, k_, l_, t_, w_, may, digit, across)
        joins[n - 1] = False
        starts_of(ids[here], joins[:n], keys, ranks, named, base, composed, starts)
        for k in range(take):
            to_ids[to + k] = composed[skip + k]
        for k in range(take):
            i = first + starts[skip + k]
            to_kind[to + k], to_level[to + k], to_track[to + k], to_role[to + k] = kind[i], level[i], track[i], role[i]
        for k in range(take):
            to_time_ns[to + k] = time_ns[first + starts[skip + k]]
        for k in range(take):
            to_mask[to + k] = mask[first + starts[skip + k]]
        to_document[to : to + take] = number
