"""A codebook in groups of sixteen neighbours, which the search compares with a vector at once.

What is unusual: all groups are full. What a search of the nearest few groups finds depends on how many codes they hold
and on how well a group's centre stands for them; k-means alone leaves groups of all sizes, of which those that are too
large have to be cut, so that a third of what is compared is nothing. Here k-means assigns codes to places, sixteen to
a centre, with the least sum of squared distances that there is: 40% of what the search missed before is found, at
fewer comparisons (benchmarks/LOG.md, "Video: groups of codes").

Source: k-means with a fixed number of vectors to a centre, M. Malinen and P. Fränti, "Balanced k-means for
clustering", S+SSPR 2014; the assignment by SciPy (J. Jonker and A. Volgenant, Computing 38, 1987).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.optimize

from pantok.tokenizers.video_lanes import LANES

BRIEF, LONG = 1, 8
"""Iterations, for a book that is still learned and for one that is kept."""
_TOGETHER = 128  # groups that are improved together: an assignment takes the cube of the codes


def in_groups(codes: np.ndarray, iterations: int = LONG) -> tuple[np.ndarray, np.ndarray]:
    """In which order codes int16 (K, D) stand in groups, int64 (K,), and where each begins, int64 (G + 1,).

    All groups have LANES codes but those that are left over where K is no multiple. Ascending within a group.
    """
    whole = codes.astype(np.int64)
    parts = _halved(whole, np.arange(len(codes)), _TOGETHER * LANES)
    groups = [group for part in parts for group in _improved(whole, _halved(whole, part, LANES), iterations)]
    return np.concatenate([np.sort(group) for group in groups]), np.cumsum([0, *map(len, groups)])


def _halved(codes: np.ndarray, some: np.ndarray, most: int) -> list[np.ndarray]:
    """`some` of the codes in parts of at most `most`, cut across their principal direction again and again, each part
    but one to a multiple of LANES."""
    if len(some) <= most:
        return [some]
    apart = codes[some] - codes[some].mean(0)
    along = np.argsort(apart @ np.linalg.svd(apart, full_matrices=False)[2][0], kind="stable")
    half = LANES * (-(-len(some) // LANES) // 2)
    return _halved(codes, some[along[:half]], most) + _halved(codes, some[along[half:]], most)


def _improved(codes: np.ndarray, groups: list[np.ndarray], iterations: int) -> list[np.ndarray]:
    """Groups of the same codes, as many, of less scatter."""
    every = np.sort(np.concatenate(groups))
    mine = codes[every]
    norms = (mine * mine).sum(1)
    for _ in range(iterations if len(groups) > 1 else 0):
        centres = np.stack([np.rint(codes[group].mean(0)) for group in groups])
        # Whole numbers throughout: the best assignment is the same on every machine.
        apart = norms[:, None] - 2 * (mine @ centres.T) + (centres * centres).sum(1)
        rows, places = scipy.optimize.linear_sum_assignment(np.repeat(apart, LANES, 1))
        better = [every[rows[places // LANES == g]] for g in range(len(groups))]
        better = [group for group in better if len(group)]
        if len(better) == len(groups) and all(map(np.array_equal, better, groups)):
            break
        groups = better
    return groups


def cut_in_groups(codes: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """The clusters of codes int16 (K, D), which begin at `starts`, cut into groups of at most LANES: which codes each
    holds, in order. Cut at the median of the coefficient that varies most, in integers: the same on every machine.

    Clusters are what `in_groups` made, less what was taken out since; in vocabularies from before it they are larger.
    """
    todo = [np.arange(lo, hi) for lo, hi in pairwise(starts.tolist())]
    done: list[np.ndarray] = []
    while todo:
        group = todo.pop()
        if len(group) <= LANES:
            done.append(group)
            continue
        part = codes[group].astype(np.int64)
        spread = len(group) * (part * part).sum(0) - part.sum(0) ** 2
        along = np.argsort(part[:, spread.argmax()], kind="stable")
        half = len(group) // 2
        todo += [np.sort(group[along[:half]]), np.sort(group[along[half:]])]
    return sorted(done, key=lambda group: int(group[0]))
