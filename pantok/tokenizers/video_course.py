"""Courses: how a part of the picture gets from one end of a tick to the other, as learned vocabulary.

What is unusual: no displacement is written for the frames between. What moves unevenly, turns or is hidden for a while
says one code for all three of them: an entry of a table of courses. A course is three steps; a step says which end the
frame is predicted from, and how far from where the straight line between the ends would be. Courses are learned by
k-means in which the distance of a quad to a course is the error that it leaves there, so nothing is fitted but what is
wanted.

Letters: m quads, C steps to choose from, S steps in use, K courses.

Source: vector quantisation of motion, here with prediction error as its distortion: Linde, Buzo and Gray, IEEE Trans.
Commun. 28 (1980).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pantok.tokenizers import video_course_kernels as kernels
from pantok.tokenizers.video_grid import Reference
from pantok.tokenizers.video_motion_kernels import choose_palette

BOTH, PAST, END = range(3)
"""What a step predicts from: the mean of both ends, one of them."""
BETWEEN_FRAMES = 3
_STEPS = 64
"""Steps that the courses of a table share."""
_ROUNDS = 8
_NEAR, _FAR = 3, 10  # half samples about the straight line: all of them, every second one


def _within_reach() -> np.ndarray:
    """int64 (C, 3): mode, y, x of every step that is looked at, the straight line of each mode first."""
    far = range(-_FAR, _FAR + 1)
    around = [(y, x) for y in far for x in far if max(abs(y), abs(x)) <= _NEAR or (y % 2 == 0 and x % 2 == 0)]
    around.sort(key=lambda v: (v[0] ** 2 + v[1] ** 2, v))
    return np.array([(mode, y, x) for y, x in around for mode in (BOTH, PAST, END)], np.int64)


CANDIDATES = _within_reach()


@dataclass(frozen=True, eq=False)
class Courses:
    """table: int64 (K, 3, 3): for each frame between of each course (mode, y, x), y and x in half samples from the
    straight line. What a tick draws follows from it alone."""

    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps in use, int64 (S, 3), and those of each course, int16 (3, K) into them."""
        steps, numbers = np.unique(self.table.reshape(-1, 3), axis=0, return_inverse=True)
        return steps, np.ascontiguousarray(numbers.reshape(-1, BETWEEN_FRAMES).T.astype(np.int16))

    def followed(
        self, course: np.ndarray, moves: np.ndarray, past: Reference | None, end: Reference, base: np.ndarray
    ) -> np.ndarray:
        """`base` uint8 (n - 1, N, 96), the frames between before detail, with quads that have a course drawn along it.

        course: int64 (B, 4), 1 + its number, 0 for none. moves: int64 (4 B, 2). past: None on a key, where all steps
        are from the end.
        """
        if not course.any():
            return base
        out, key = base.copy(), past is None
        phases, cphases, _ = end.shifted if past is None else past.shifted
        kernels.follow(phases, cphases, *end.shifted, moves, key, course.reshape(-1), self.table, out)
        return out

    @classmethod
    def plain(cls) -> Courses:
        """One course, along the straight line: what is learned from nothing."""
        return cls(np.zeros((1, BETWEEN_FRAMES, 3), np.int64))


def learned_courses(errors: np.ndarray, most: int, seed: int) -> Courses:
    """The `most` courses that leave least error. errors: int32 (m, 3 C), of each quad in each frame between by each of
    `CANDIDATES`, as `video_course_kernels.measure_steps` has them."""
    count = len(CANDIDATES)
    size = min(most, len(errors) // 2)
    if size < 1:
        return Courses.plain()
    by_frame = errors.reshape(-1, count)
    chosen, taken = np.arange(_STEPS), 3
    best = by_frame[:, :3].min(1).astype(np.int64)
    left = np.ascontiguousarray(by_frame[:, 3:].T)
    owner = np.zeros(len(best), np.int64)
    taken += choose_palette(best, left, _STEPS - taken, 1, chosen[taken:], owner)
    chosen[3:taken] += 3
    chosen = chosen[:taken]
    mine = np.ascontiguousarray(by_frame[:, chosen]).reshape(-1, BETWEEN_FRAMES, taken)
    return Courses(CANDIDATES[chosen][_clustered(mine, size, seed)])


def _clustered(errors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """k-means: int64 (K, 3) of steps. errors: int32 (m, 3, S). A course that serves nobody begins anew where error is
    largest."""
    own = errors.argmin(2)
    made = own[np.random.default_rng(seed).permutation(len(errors))[:size]]
    found, least = np.empty(len(errors), np.int64), np.empty(len(errors), np.int64)
    for _ in range(_ROUNDS):
        kernels.nearest_courses(errors, made, found, least)
        order = np.argsort(found, kind="stable")
        edges = np.searchsorted(found[order], np.arange(size + 1))
        worst = iter(np.argsort(-least, kind="stable"))
        for c in range(size):
            members = order[edges[c] : edges[c + 1]]
            made[c] = errors[members].sum(0, dtype=np.int64).argmin(1) if len(members) else own[next(worst)]
    return np.unique(made, axis=0)
