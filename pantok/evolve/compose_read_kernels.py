"""The loop of reading composed sequences: runs of ids that may be joined, each composed where it lies.

What is unusual: merges are found from the run, not from the merges. Of a run of neighbours, the pair whose merge comes
first is merged, leftmost first, until none is left; that is what applying the merges one after another gives, because
a merge that takes in another's id comes after it. A run falls into short ones at once: the merges say which two ids of
a layout can ever come to be one, and one bit of a small table says so of two neighbours. In a short run the next pair
is found by looking at all of them; in a long one by a heap.
"""

from __future__ import annotations

import numpy as np
from numba import njit

LEVEL, UNIT, TRACK = range(3)
_LONG = 96
_FEW = 12
NONE = 2**31 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def rank_of(keys: np.ndarray, ranks: np.ndarray, key: int) -> int:
    """The merge of a pair, or NONE."""
    mask = len(keys) - 1
    word = np.uint64(key) * _GOLDEN
    at = int(np.int64((word ^ (word >> np.uint64(32))) & np.uint64(mask)))
    while keys[at] != -1:
        if keys[at] == key:
            return int(ranks[at])
        at = (at + 1) & mask
    return NONE


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


@njit(cache=True, nogil=True, inline="always")
def _log2(n: int) -> int:
    """Of a power of two."""
    out = 0
    while n > 1:
        n >>= 1
        out += 1
    return out


@njit(cache=True, nogil=True)
def bridges(parts: np.ndarray, named: np.ndarray, base: int) -> np.ndarray:
    """uint64 (W,): a bit for each two ids of a layout that a merge (M, 2) can bring into one, 64 or more bits a merge.

    They are the last id that its left part spells and the first that its right part does; between two neighbours that
    have no bit nothing is ever joined, whatever stands around them. A few have one by chance.
    """
    words, most = 64, np.int64(0)
    for k in range(len(parts)):
        most = max(most, parts[k, 0], parts[k, 1], named[k])
    while words < len(parts):
        words *= 2
    bits, shift = np.zeros(words, np.uint64), np.uint64(64 - 6 - _log2(words))
    first, last = np.arange(most + 1), np.arange(most + 1)
    for k in range(len(parts)):
        left, right = parts[k]
        first[named[k]], last[named[k]] = first[left], last[right]
        bit = (np.uint64(last[left] * base + first[right]) * _GOLDEN) >> shift
        bits[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return bits


@njit(cache=True, nogil=True, inline="always")
def _may_meet(ids: np.ndarray, at: int, base: int, bits: np.ndarray, shift: np.uint64) -> bool:
    """Whether an id may come to be one with the id before it: `bridges`. shift: 58 less log2 of the filter's words."""
    bit = (np.uint64(ids[at - 1] * base + ids[at]) * _GOLDEN) >> shift
    return ((bits[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & np.uint64(1)) != np.uint64(0)


@njit(cache=True, nogil=True)
def _compose(
    ids: np.ndarray, first: int, n: int, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    out: np.ndarray, begin: np.ndarray, rank: np.ndarray, heap: np.ndarray, after: np.ndarray, before: np.ndarray,
) -> int:  # fmt: skip
    """The run ids[first:first + n] composed: ids into out, where each began (from `first`) into begin; how many."""
    size = 0
    is_long = n > _LONG
    for i in range(n - 1):
        rank[i] = rank_of(keys, ranks, ids[first + i] * base + ids[first + i + 1])
        if rank[i] != NONE:
            heap[size] = (np.int64(rank[i]) << 32) | i
            size += 1
    for i in range(n):
        out[i], begin[i] = ids[first + i], i
    if not size:
        return n
    rank[n - 1] = NONE
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
        out[at], rank[other], begin[other] = named[best], NONE, -1
        after[at] = after[other]
        rank[at] = NONE
        if after[at] < n:
            before[after[at]] = at
            rank[at] = rank_of(keys, ranks, out[at] * base + out[after[at]])
        left = np.int64(before[at])
        if left >= 0:
            rank[left] = rank_of(keys, ranks, out[left] * base + out[at])
        for place in (left, np.int64(at)):
            if place >= 0 and rank[place] != NONE:
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
def _compose_few(
    ids: np.ndarray, first: int, n: int, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    out: np.ndarray, begin: np.ndarray, rank: np.ndarray,
) -> int:  # fmt: skip
    """As `_compose`, of a few ids: nothing is linked, what stands behind a merge moves up."""
    least, at = NONE, 0
    for i in range(n - 1):
        rank[i] = rank_of(keys, ranks, ids[first + i] * base + ids[first + i + 1])
        if rank[i] < least:
            least, at = rank[i], i
    for i in range(n):
        out[i], begin[i] = ids[first + i], i
    rank[n - 1] = NONE
    while least != NONE:
        out[at] = named[least]
        n -= 1
        for i in range(at + 1, n):
            out[i], begin[i], rank[i] = out[i + 1], begin[i + 1], rank[i + 1]
        rank[at] = rank_of(keys, ranks, out[at] * base + out[at + 1]) if at + 1 < n else NONE
        if at > 0:
            rank[at - 1] = rank_of(keys, ranks, out[at - 1] * base + out[at])
        least = NONE
        for i in range(n - 1):
            if rank[i] < least:
                least, at = rank[i], i
    return n


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


@njit(cache=True, nogil=True, error_model="numpy")
def _join(
    n: int, kind: np.ndarray, level: np.ndarray, track: np.ndarray, time_ns: np.ndarray, may: np.ndarray, digit: int,
    across: int, joins: np.ndarray,
) -> None:  # fmt: skip
    """joins (n,): `compositions.joins_of` without a branch; of the last id whether it may be joined at all."""
    for i in range(n):
        joins[i] = may[kind[i]]
    for i in range(n - 1):
        same = level[i] == level[i + 1]
        if across != LEVEL:
            same |= (kind[i] != digit) & (kind[i + 1] != digit)
        if across != TRACK:
            same &= (track[i] == track[i + 1]) & (time_ns[i] == time_ns[i + 1])
        joins[i] &= same & joins[i + 1]


@njit(cache=True, nogil=True)
def starts_of(
    ids: np.ndarray, joins: np.ndarray, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    bits: np.ndarray, composed: np.ndarray, starts: np.ndarray,
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
    shift = np.uint64(64 - 6 - _log2(len(bits)))
    made = at = 0
    while at < n:
        end = at + 1
        while end < n and joins[end - 1] and _may_meet(ids, end, base, bits, shift):
            end += 1
        size = end - at
        if size == 1:
            composed[made], starts[made] = ids[at], at
            made, at = made + 1, end
            continue
        if size <= _FEW:
            size = _compose_few(ids, at, size, keys, ranks, named, base, out, begin, rank)
        else:
            size = _compose(ids, at, size, keys, ranks, named, base, out, begin, rank, heap, after, before)
        for k in range(size):
            composed[made], starts[made] = out[k], at + begin[k]
            made += 1
        at = end
    return made


@njit(cache=True, nogil=True)
def _take(
    column: np.ndarray, first: int, starts: np.ndarray, skip: int, take: int, to_column: np.ndarray, to: int
) -> None:
    """What a column says of the ids where composed ones began; nothing where it is not wanted."""
    if len(to_column):
        for k in range(take):
            to_column[to + k] = column[first + starts[skip + k]]


@njit(cache=True, nogil=True)
def compose(
    parts: np.ndarray, ids: np.ndarray, kind: np.ndarray, level: np.ndarray, track: np.ndarray, role: np.ndarray,
    time_ns: np.ndarray, mask: np.ndarray, keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int,
    bits: np.ndarray, may: np.ndarray, digit: int, across: int, to_ids: np.ndarray, to_kind: np.ndarray,
    to_level: np.ndarray, to_track: np.ndarray, to_role: np.ndarray, to_time_ns: np.ndarray, to_mask: np.ndarray,
    to_document: np.ndarray,
) -> None:  # fmt: skip
    """Parts of columns composed into columns, but for those of length 0. parts int64 (P, 6): first and last + 1 of its
    ids of the layout, how many composed ids to leave out, how many to take, where they go, number of their document."""
    longest = 1
    for p in range(len(parts)):
        longest = max(longest, parts[p, 1] - parts[p, 0])
    joins, composed, starts = np.empty(longest, np.bool_), np.empty(longest, np.int64), np.empty(longest, np.int64)
    for p in range(len(parts)):
        first, stop, skip, take, to, number = parts[p]
        n = stop - first
        here = slice(first, stop)
        _join(n, kind[here], level[here], track[here], time_ns[here], may, digit, across, joins)
        joins[n - 1] = False
        starts_of(ids[here], joins[:n], keys, ranks, named, base, bits, composed, starts)
        if len(to_ids):
            for k in range(take):
                to_ids[to + k] = composed[skip + k]
        _take(kind, first, starts, skip, take, to_kind, to)
        _take(level, first, starts, skip, take, to_level, to)
        _take(track, first, starts, skip, take, to_track, to)
        _take(role, first, starts, skip, take, to_role, to)
        _take(time_ns, first, starts, skip, take, to_time_ns, to)
        _take(mask, first, starts, skip, take, to_mask, to)
        if len(to_document):
            to_document[to : to + take] = number


@njit(cache=True, nogil=True)
def compose_block(
    is_last: bool, ids: np.ndarray, kind: np.ndarray, level: np.ndarray, track: np.ndarray, time_ns: np.ndarray,
    keys: np.ndarray, ranks: np.ndarray, named: np.ndarray, base: int, bits: np.ndarray, may: np.ndarray, digit: int,
    across: int, composed: np.ndarray, starts: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """A block of an episode's ids composed: `composed` and `starts`, int64 (N,), are filled with the ids and where each
    began. Returns how many ids of the block were taken, all of them if it is the last (else to the last place that
    nothing reaches over), and how many they came to be."""
    n = len(ids)
    joins = np.empty(n, np.bool_)
    _join(n, kind, level, track, time_ns, may, digit, across, joins)
    joins[n - 1] = not is_last
    taken = n
    while taken > 0 and joins[taken - 1]:
        taken -= 1
    made = starts_of(ids[:taken], joins[:taken], keys, ranks, named, base, bits, composed, starts)
    return taken, made
