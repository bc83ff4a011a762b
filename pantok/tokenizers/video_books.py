"""The levels of video, and the learned part of what their codes mean.

Levels, coarse first (`B` blocks of 32x32, quads of 16x16, sites of 8x8):

    motion          displacements of the tick: y, x, y, x, ... in half samples, 64 is zero
    block           per block: 4 kind + 2 detail + between; kind < 30 names a displacement (0 is none), 30 means that
                    the quads differ, 31 that the block is drawn afresh. No block codes at all: nothing has changed
    quad            per quad of a kind-30 block: 2 kind + detail
    between         per block with that bit: 16 source + which quads have detail; see SOURCES. A source of 5 or more
                    is 4 + which quads have a course
    course          per quad that has one: an entry of a learned table of ways from one end to the other. Vocabularies
                    of format 2 lack this level
    coarse          per block that is afresh or holds a quad that is
    pattern         per quad with detail: an entry of a learned table of (wide, depth of each site), where wide says
                    that the quad has a code of its own and depth how many fine codes a site has
    fresh, moved    per quad with a wide code: of quads drawn afresh, of displaced ones
    fine1..6        per site, as deep as its pattern says
    between_pattern per quad with detail there: an entry of a learned table of depths
    between1..5     per site, as deep as its pattern says

Vocabularies of formats 2 and 3 have four of fine and three of between. Which levels one has: see `Books.levels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pantok.tokenizers import video_living as living
from pantok.tokenizers.video_course import Courses
from pantok.tokenizers.video_exact import Book
from pantok.vocabulary import Level

DEPTH, INNER_DEPTH = 6, 5
SHALLOW = 4, 3
"""Stages of fine and of between before format 4."""
MOTION, BLOCK, QUAD, BETWEEN, COURSE, COARSE, PATTERN, FRESH, MOVED, FINE = range(10)
BETWEEN_PATTERN = FINE + DEPTH
INNER = BETWEEN_PATTERN + 1
LEVELS = INNER + INNER_DEPTH
SPLIT, AFRESH = 30, 31
TICK = 4
"""Frames of a tick."""
CENTRE = 64
CARDINALITY = {MOTION: 128, BLOCK: 128, QUAD: 64}
SOURCES = ("both ends", "past", "end", "one from the past", "two from the past")
_FLAGS = 2 ** np.arange(4)


def words_between(source: np.ndarray, turned: np.ndarray, detail: np.ndarray) -> np.ndarray:
    """Codes of `between`, int64 (B,). source (B,): into SOURCES, of no meaning where a quad is turned. turned, detail:
    bool (B, 4), which quads have a course, and detail."""
    source = np.where(turned.any(1), len(SOURCES) - 1 + turned @ _FLAGS, source)
    return 16 * source + detail @ _FLAGS


def said_between(words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(source, turned, detail) of such codes; the source is 0 where a quad is turned."""
    flags = np.maximum(words // 16 - len(SOURCES) + 1, 0)
    source = np.where(flags > 0, 0, words // 16)
    return source, flags[:, None] // _FLAGS % 2 == 1, words[:, None] // _FLAGS % 2 == 1


@dataclass(frozen=True, eq=False)
class Books:
    """The learned part: a Book for each kind of vector.

    coarse: 32x32, afresh. fresh: 16x16 after coarse. moved: 16x16 after displacement. fine: 8x8, DEPTH stages or fewer.
    inner: three frames of 8x8 between, INNER_DEPTH stages or fewer.
    patterns: int64 (P, 5), wide and the depths of four sites; inner_patterns: int64 (Q, 4). Their first is all zero.
    courses: None in vocabularies of format 2, which have no such level.
    """

    coarse: Book
    fresh: Book
    moved: Book
    fine: Book
    inner: Book
    patterns: np.ndarray
    inner_patterns: np.ndarray
    courses: Courses | None = None
    by_name: Mapping[str, Book] = field(init=False, repr=False)

    NAMES = ("coarse", "fresh", "moved", "fine", "inner")
    STAGES = (1, 1, 1, DEPTH, INNER_DEPTH)
    SITES = (16, 4, 4, 1, 3)

    def __post_init__(self) -> None:
        assert not self.patterns[0].any() and not self.inner_patterns[0].any()
        assert self.patterns.max() <= DEPTH and self.inner_patterns.max() <= INNER_DEPTH
        object.__setattr__(self, "by_name", {n: getattr(self, n) for n in self.NAMES})

    @cached_property
    def numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """`patterns`, and int64 (2, 5, 5, 5, 5): the place of each of them there, -1 where there is none."""
        return self.patterns, _places(self.patterns, DEPTH)

    @cached_property
    def inner_numbered(self) -> tuple[np.ndarray, np.ndarray]:
        """As `numbered`, of `inner_patterns` as if none of them were wide: int64 (Q, 5), (2, 4, 4, 4, 4)."""
        narrow = np.pad(self.inner_patterns, ((0, 0), (1, 0)))
        return narrow, _places(narrow, INNER_DEPTH)

    @property
    def levels(self) -> tuple[int, ...]:
        """Which levels the vocabulary has, in order."""
        lacking = {COURSE} if self.courses is None else set()
        lacking |= {*range(FINE + len(self.fine.codes), FINE + DEPTH)}
        lacking |= {*range(INNER + len(self.inner.codes), INNER + INNER_DEPTH)}
        return tuple(k for k in range(LEVELS) if k not in lacking)

    def placed(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The codes of the first of its levels as int64 for each level that there is, none for all others."""
        out = [np.zeros(0, np.int64)] * LEVELS
        for level, given in zip(self.levels, codes, strict=False):
            out[level] = np.asarray(given, np.int64)
        return out

    def cardinalities(self) -> tuple[int, ...]:
        """Of each level; 1 of one that the vocabulary lacks."""
        return self._sizes({name: tuple(map(len, book.codes)) for name, book in self.by_name.items()})

    def born(self) -> tuple[int, ...]:
        """The cardinalities that the levels had at first, before any grew."""
        return self._sizes({name: living.born(book) for name, book in self.by_name.items()})

    def _sizes(self, of: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        sizes = dict(CARDINALITY)
        sizes[COURSE] = 1 if self.courses is None else len(self.courses)
        sizes[BETWEEN] = 16 * (len(SOURCES) if self.courses is None else len(SOURCES) + 15)
        sizes[COARSE], sizes[FRESH], sizes[MOVED] = of["coarse"][0], of["fresh"][0], of["moved"][0]
        sizes[PATTERN], sizes[BETWEEN_PATTERN] = len(self.patterns), len(self.inner_patterns)
        sizes |= {FINE + k: n for k, n in enumerate(of["fine"])} | {INNER + k: n for k, n in enumerate(of["inner"])}
        return tuple(sizes.get(k, 1) for k in range(LEVELS))


def _places(patterns: np.ndarray, depth: int) -> np.ndarray:
    places = np.full((2, *[depth + 1] * 4), -1, np.int64)
    for place, pattern in reversed(list(enumerate(patterns))):  # of equal ones the first
        places[tuple(pattern)] = place
    return places


def levels_of(books: Books) -> tuple[Level, ...]:
    """Names, cardinalities, kinds and strides (frames, rows, columns) of the levels that the vocabulary has."""
    names: dict[int, tuple[str, str, tuple[int, ...]]] = {
        MOTION: ("motion", "mode", (TICK, 0, 0)),
        BLOCK: ("block", "mode", (TICK, 32, 32)),
        QUAD: ("quad", "mode", (TICK, 16, 16)),
        COARSE: ("coarse", "code", (TICK, 32, 32)),
        PATTERN: ("pattern", "mode", (TICK, 16, 16)),
        FRESH: ("fresh", "code", (TICK, 16, 16)),
        MOVED: ("moved", "code", (TICK, 16, 16)),
        BETWEEN: ("between", "mode", (TICK, 32, 32)),
        COURSE: ("course", "mode", (TICK, 16, 16)),
        BETWEEN_PATTERN: ("between_pattern", "mode", (TICK, 16, 16)),
    }
    names |= {FINE + k: (f"fine{k + 1}", "code", (TICK, 8, 8)) for k in range(DEPTH)}
    names |= {INNER + k: (f"between{k + 1}", "code", (TICK, 8, 8)) for k in range(INNER_DEPTH)}
    sizes = books.cardinalities()
    return tuple(Level(names[k][0], sizes[k], names[k][1], names[k][2]) for k in books.levels)
