"""How many codes each level of a tick of video has, given the levels before: see `pantok.tokenizers.counts`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pantok.tokenizers.counts import More, among
from pantok.tokenizers.video_books import (
    AFRESH,
    BETWEEN,
    BETWEEN_PATTERN,
    BLOCK,
    COARSE,
    COURSE,
    FINE,
    FRESH,
    INNER,
    MOTION,
    MOVED,
    PATTERN,
    QUAD,
    SPLIT,
    Books,
    said_between,
)
from pantok.tokenizers.video_grid import Grid
from pantok.tokenizers.video_motion import PALETTE


def due(before: Sequence[np.ndarray], books: Books, grid: Grid, key: bool) -> More:
    """Of level len(before), given whole levels before it. key: whether the tick needs no other."""
    level = books.levels[len(before)]
    if level == MOTION:
        return _motion
    if level == BLOCK:
        return among(0, grid.blocks)
    given = books.placed(before)
    block = given[BLOCK] if len(given[BLOCK]) else np.zeros(grid.blocks, np.int64)
    split = block // 4 == SPLIT
    if level == QUAD:
        return among(4 * int(split.sum()))
    if level == BETWEEN:
        return among(int((block % 2).sum()))
    if level == COURSE:
        return among(int(said_between(given[BETWEEN])[1].sum()))
    if level >= BETWEEN_PATTERN:
        if level == BETWEEN_PATTERN:
            return among(int(said_between(given[BETWEEN])[2].sum()))
        return among(int((books.inner_patterns[given[BETWEEN_PATTERN]] > level - INNER).sum()))
    kind, detail = (np.repeat(v[:, None], 4, 1) for v in (block // 4, block // 2 % 2))
    kind[split], detail[split] = np.divmod(given[QUAD].reshape(-1, 4), 2)
    afresh = np.ones_like(kind, bool) if key else kind == AFRESH
    if level == COARSE:
        return among(int(afresh.any(1).sum()))
    there = detail == 1
    if level == PATTERN:
        return among(int(there.sum()))
    said = books.patterns[given[PATTERN]]
    if level in (FRESH, MOVED):
        return among(int((said[afresh[there] == (level == FRESH), 0] == 1).sum()))
    return among(int((said[:, 1:] > level - FINE).sum()))


def _motion(codes: Sequence[int]) -> bool | None:
    """Pairs, at most as many as a tick may name."""
    if len(codes) % 2:
        return True
    return False if len(codes) >= 2 * PALETTE else None
