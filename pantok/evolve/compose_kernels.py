"""The loops of composing: pairs of neighbouring ids become one, everywhere at once, in the order of the merges.

What is unusual: nothing is ever searched. Ids are a linked list, and of each pair the places where it stands are a
linked list too, so a merge costs as much as it changes, and ten million ids take seconds. New places join a list at
its end: those of a pair of equal ids are all made in one pass from left to right, so that x x x x is merged from the
left without a sort. All is in integers; pairs met equally often come in the order of the later of their ids, so that
those that do not name one another are one set in ascending order, which is quickly told.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit("int64(int64[::1], int64)", cache=True, nogil=True, inline="always")
def _slot(keys: np.ndarray, key: int) -> int:
    """Where a key stands in an open table of keys (-1: free), or would."""
    mask = len(keys) - 1
    word = np.uint64(key) * _GOLDEN
    at = int(np.int64((word ^ (word >> np.uint64(32))) & np.uint64(mask)))
    while keys[at] != -1 and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit("int64(int64, int64)", cache=True, nogil=True, inline="always")
def _later(pair: int, base: int) -> int:
    """The larger id of a pair."""
    return max(pair // base, pair % base)


@njit(
    "int64(int32[::1], boolean[::1], int64, int64[::1], int64, int64, int64[:,::1], int64[::1])",
    cache=True, nogil=True,
)  # fmt: skip
def learn(
    ids: np.ndarray, joins: np.ndarray, first: int, lengths: np.ndarray, longest: int, least: int, merges: np.ndarray,
    counts: np.ndarray,
) -> int:  # fmt: skip
    """The most frequent pairs, one after another; merge k makes the id first + k.

    ids (N,), overwritten. joins (N,): whether an id may be one with the id behind it. lengths (first + M,): how many
    ids of the layout each id spells; filled in for new ones. longest: the most that one may spell. least: how often a
    pair must be met. merges (M, 2), counts (M,): filled in. Returns how many were made.
    """
    n, base = len(ids), np.int64(len(lengths))
    after, before = np.empty(n, np.int32), np.empty(n, np.int32)  # neighbours that may be joined, or -1
    later, earlier = np.full(n, -1, np.int32), np.full(n, -1, np.int32)  # places of the same pair
    pair_of = np.full(n, -1, np.int32)
    cap = 1 << 12
    keys, numbers = np.full(cap, -1, np.int64), np.empty(cap, np.int32)
    room = cap // 2
    times, heads, tails = np.zeros(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
    pairs = np.empty(room, np.int64)
    known = 0
    fresh = np.empty(n + 1, np.int32)  # pairs that a merge makes
    made = 0

    if n:
        before[0] = -1
    for i in range(n):
        joined = i + 1 < n and joins[i]
        after[i] = i + 1 if joined else -1
        if i + 1 < n:
            before[i + 1] = i if joined else -1

    heap = [(0, np.int64(0), np.int64(0), 0)]
    heap.pop()
    done = 0
    while True:
        # Either the pairs of all places (the first time), or those beside the places of the chosen pair.
        if done == 0:
            at, left, right, whole = 0, -1, -1, -1
        else:
            chosen = -1
            while len(heap) > 0:
                count, _, _, number = heapq.heappop(heap)
                if times[number] == -count:
                    chosen = number
                    break
                if times[number] >= least:  # met less often by now
                    heapq.heappush(heap, (-times[number], _later(pairs[number], base), pairs[number], number))
            if chosen < 0:
                break
            left, right, whole = pairs[chosen] // base, pairs[chosen] % base, first + done - 1
            merges[done - 1, 0], merges[done - 1, 1], counts[done - 1] = left, right, times[chosen]
            lengths[whole] = lengths[left] + lengths[right]
            at = heads[chosen]
            heads[chosen], tails[chosen], times[chosen] = -1, -1, 0
        made = 0
        while 0 <= at < n:
            # Up to two places whose pair is new.
            one, two = -1, -1
            if done == 0:
                one = at
                following = at + 1
            else:
                following = later[at]
                pair_of[at], later[at], earlier[at] = -1, -1, -1
                other = after[at]
                if ids[at] != left or other < 0 or ids[other] != right:
                    at = following  # x x x: its second pair went with the first
                    continue
                for side in range(2):  # the pair before and the pair behind are no more
                    place = before[at] if side == 0 else other
                    if place < 0:
                        continue
                    number = pair_of[place]
                    if number < 0:
                        continue
                    if place == following:
                        following = later[place]
                    up, down = later[place], earlier[place]
                    if up >= 0:
                        earlier[up] = down
                    elif tails[number] == place:
                        tails[number] = down
                    if down >= 0:
                        later[down] = up
                    elif heads[number] == place:
                        heads[number] = up
                    if times[number] > 0:
                        times[number] -= 1
                    pair_of[place], later[place], earlier[place] = -1, -1, -1
                ids[at], ids[other] = whole, -1
                beyond = after[other]
                after[at] = beyond
                if beyond >= 0:
                    before[beyond] = at
                after[other], before[other] = -1, -1
                one, two = int(before[at]), at
            for side in range(2):
                place = one if side == 0 else two
                if place < 0 or after[place] < 0:
                    continue
                a, b = np.int64(ids[place]), np.int64(ids[after[place]])
                if lengths[a] + lengths[b] > longest:
                    continue
                key = a * base + b
                slot = _slot(keys, key)
                if keys[slot] == -1:
                    if known == room:
                        cap, room = 2 * cap, 2 * room
                        wider, renumbered = np.full(cap, -1, np.int64), np.empty(cap, np.int32)
                        for k in range(known):
                            spot = _slot(wider, pairs[k])
                            wider[spot], renumbered[spot] = pairs[k], k
                        keys, numbers = wider, renumbered
                        slot = _slot(keys, key)
                        more = np.zeros(room - known, np.int64)
                        small = np.empty(room - known, np.int32)
                        times, pairs = np.concatenate((times, more)), np.concatenate((pairs, more))
                        heads, tails = np.concatenate((heads, small)), np.concatenate((tails, small))
                    keys[slot], numbers[slot] = key, known
                    pairs[known], times[known], heads[known], tails[known] = key, 0, -1, -1
                    known += 1
                number = numbers[slot]
                if times[number] == 0:
                    fresh[made] = number
                    made += 1
                end = tails[number]
                if end >= 0:
                    later[end] = place
                else:
                    heads[number] = place
                earlier[place], later[place] = end, -1
                tails[number], pair_of[place] = place, number
                times[number] += 1
            at = following
        for k in range(made):
            number = fresh[k] + 0  # as int64, as in the heap
            if times[number] >= least:
                heapq.heappush(heap, (-times[number], _later(pairs[number], base), pairs[number], number))
        done += 1
        if done > len(merges):
            break
    return done - 1


@njit(
    "int64(int32[::1], boolean[::1], int64[:,::1], int64[::1], int64, int64[::1])", cache=True, nogil=True
)  # fmt: skip
def apply(
    ids: np.ndarray, joins: np.ndarray, merges: np.ndarray, named: np.ndarray, base: int, starts: np.ndarray
) -> int:
    """Merges (M, 2), in their order, on ids (N,), in place; named (M,): the id that each makes; base: above all ids.

    starts (N,): filled with where each of the ids that are left began. Returns how many are left, at the front of ids.
    """
    n, count = len(ids), len(merges)
    cap = 16
    while cap < 2 * count + 2:
        cap *= 2
    keys, ranks = np.full(cap, -1, np.int64), np.empty(cap, np.int32)
    for k in range(count):
        slot = _slot(keys, merges[k, 0] * base + merges[k, 1])
        if keys[slot] == -1:
            keys[slot], ranks[slot] = merges[k, 0] * base + merges[k, 1], k
    after, before = np.empty(n, np.int32), np.empty(n, np.int32)
    later, earlier, rank_of = np.full(n, -1, np.int32), np.full(n, -1, np.int32), np.full(n, -1, np.int32)
    heads, tails = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
    if n:
        before[0] = -1
    for i in range(n):
        joined = i + 1 < n and joins[i]
        after[i] = i + 1 if joined else -1
        if i + 1 < n:
            before[i + 1] = i if joined else -1
    # Rank -1: the lists are filled. Then each merge, which ends in a few more places for merges that follow.
    for k in range(-1, count):
        at = 0 if k < 0 else heads[k]
        while 0 <= at < n:
            if k < 0:
                following, one, two = at + 1, at, -1
            else:
                following, other = later[at], after[at]
                rank_of[at] = -1
                for side in range(2):  # the pair before and the pair behind are no more
                    place = before[at] if side == 0 else other
                    if place < 0 or rank_of[place] < 0:
                        continue
                    if place == following:
                        following = later[place]
                    up, down, rank = later[place], earlier[place], rank_of[place]
                    if up >= 0:
                        earlier[up] = down
                    else:
                        tails[rank] = down
                    if down >= 0:
                        later[down] = up
                    else:
                        heads[rank] = up
                    rank_of[place] = -1
                ids[at], ids[other] = named[k], -1
                beyond = after[other]
                after[at] = beyond
                if beyond >= 0:
                    before[beyond] = at
                one, two = before[at], at
            for side in range(2):
                place = one if side == 0 else two
                if place < 0 or after[place] < 0:
                    continue
                slot = _slot(keys, np.int64(ids[place]) * base + ids[after[place]])
                if keys[slot] == -1 or ranks[slot] <= k:
                    continue
                rank = ranks[slot]
                earlier[place], later[place], rank_of[place] = tails[rank], -1, rank
                if tails[rank] >= 0:
                    later[tails[rank]] = place
                else:
                    heads[rank] = place
                tails[rank] = place
            at = following
    left_over = 0
    for i in range(n):
        if ids[i] >= 0:
            ids[left_over], starts[left_over] = ids[i], i
            left_over += 1
    return left_over
