"""Smoothing of decoded pictures: each pixel moved towards its neighbours, by weights that were learned.

What is unusual: codes leave noise behind, and no code says where. How much of the difference to a neighbour is noise is
told by its size: a neighbour pulls as far as it is away, but no further than a limit, so that edges stay. Neighbours
stand in fours about the pixel; each four has its limit and, in each of a few sets, its weight. All of this is learned
in closed form from what fitting has decoded (`video_smooth_fit`). The encoder says once for a track which set takes
away most error, or none; that costs no codes. Nothing that is predicted from is smoothed, so codes are what they would
be without it; and what a picture becomes depends on that picture alone, so one that does not change stays as it is,
wherever decoding begins.

Sources: least squares for a filter after decoding, and differences cut off at a limit, as in the adaptive loop filter
of H.266 (ITU-T H.266, 8.8.5); what holds edges, Tomasi and Manduchi, ICCV 1998.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pantok import pixels
from pantok.errors import VocabularyError
from pantok.tokenizers import video_smooth_kernels as kernels
from pantok.tokenizers.video_grid import Grid, Reference

FOURS = (
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
    ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    ((-2, 0), (2, 0), (0, -2), (0, 2)),
    ((-1, -2), (-1, 2), (1, -2), (1, 2)),
    ((-2, -1), (-2, 1), (2, -1), (2, 1)),
    ((-2, -2), (-2, 2), (2, -2), (2, 2)),
    ((-3, 0), (3, 0), (0, -3), (0, 3)),
)
"""Neighbours (y, x) that share a limit and a weight."""
MOST = 31
"""The largest limit: see `video_smooth_kernels`."""
REACH = 2**15 - 2 ** (kernels.SHIFT - 1) - 1
"""What weights times limits of all neighbours may come to, so that sixteen bits hold it."""
CHROMA = 4
"""What a squared error of chroma counts, see `video_grid.WEIGHTS`."""
_LINES, _TICKS = 8, 2
"""Of so many lines of a frame one is looked at, and of so many ticks one has one of its frames between looked at."""


@dataclass(frozen=True, eq=False)
class Smoothing:
    """limits: uint8 (2, 7), grey levels, of luma and chroma for each of FOURS. weights: int16 (F, 2, 7) of each set, in
    parts of 1 << SHIFT."""

    limits: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.weights)

    def smooth(self, frames: np.ndarray, height: int, width: int, number: int) -> None:
        """Smooths frames uint8 (n, frame_bytes), planar YUV 4:2:0 and contiguous, in place, by set `number`, from 1; 0
        leaves them as they are."""
        if number:
            kernels.smooth(frames, height, width, self.limits, self.weights[number - 1])

    def shown(self, grid: Grid, sites: np.ndarray, number: int) -> np.ndarray:
        """Decoded sites uint8 (n, N, 96) as set `number` shows them."""
        if not number:
            return sites
        frames = grid.to_frames(sites)
        self.smooth(frames, grid.height, grid.width, number)
        return grid.to_sites(frames)

    def tensors(self) -> dict[str, np.ndarray]:
        return {"smooth.limits": self.limits, "smooth.weights": self.weights}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Smoothing | None:
        """None where there is none. Raises VocabularyError if it is not what this version can compute."""
        if "smooth.weights" not in tensors:
            return None
        weights = np.ascontiguousarray(tensors["smooth.weights"])
        limits = np.ascontiguousarray(tensors.get("smooth.limits", np.zeros(0, np.uint8)))
        right = limits.shape == (2, len(FOURS)) and weights.shape[1:] == limits.shape and limits.dtype == np.uint8
        if not right or weights.dtype != np.int16 or limits.max() > MOST or reach(limits, weights).max() > REACH:
            raise VocabularyError("video tokenizer", "has a smoothing of other shape or range", "fit it anew")
        return cls(limits, weights)


def reach(limits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """int64 (F, 2): the most that each set can come to, in parts of 1 << SHIFT."""
    return 4 * (np.abs(weights.astype(np.int64)) * limits.astype(np.int64)).sum(2)


class Tally:
    """Which set suits a track: sums of whole numbers over ticks as they were decoded, so the same in whatever parts and
    order the frames came. Of last frames luma is looked at. Frames between, which hold more noise and are most of what
    is shown, count as often as there are of them, with their chroma."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self._products = np.zeros((2, len(FOURS) + 1, len(FOURS) + 1), np.int64)  # of luma, of chroma

    def look(self, tick: int, frames: np.ndarray, end: Reference, drawn: Callable[[], np.ndarray]) -> np.ndarray:
        """What a tick says, int64 (2, 8, 8), for `add`; may be asked beside other ticks.

        frames: uint8 (n, frame_bytes), the originals. end: the last of them as decoded. drawn: gives the sites uint8
        (m, N, 96) of frames as they were decoded, from the first on; it is not called in a tick of which no frame
        between is looked at. Of a last frame one line in a few is looked at, others in the next tick.
        """
        grid, others = end.grid, len(frames) - 1
        sums = np.zeros_like(self._products)
        if others and tick % _TICKS == 0:
            number = tick // _TICKS
            chosen = number % others
            made = pixels.planes(grid.to_frames(drawn()[chosen : chosen + 1]), grid.height, grid.width)
            wanted = pixels.planes(frames[chosen : chosen + 1], grid.height, grid.width)
            for plane, (target, lines) in enumerate(zip(wanted, made, strict=True)):
                framed = np.pad(lines[0], kernels.EDGE, "edge")
                self._sum(number, target[0], framed, kernels.EDGE, min(plane, 1), sums)
            sums *= np.array([others, others + 1])[:, None, None] * _TICKS
        luma = frames[-1, : grid.height * grid.width].reshape(grid.height, grid.width)
        self._sum(tick, luma, *end.framed, 0, sums)
        return sums

    def add(self, sums: np.ndarray) -> None:
        self._products += sums

    def _sum(
        self, number: int, target: np.ndarray, lines: np.ndarray, margin: int, kind: int, sums: np.ndarray
    ) -> None:
        first = 5 * number % _LINES
        kernels.tally(lines, margin, target, first, _LINES, self.smoothing.limits[kind], sums[kind])

    @property
    def best(self) -> int:
        """The number of the set that leaves least error, 0 if none of them takes any away."""
        count, one = len(FOURS), 1 << kernels.SHIFT
        gains = [0]
        for weights in self.smoothing.weights.tolist():
            gain = 0
            for mine, sums, worth in zip(weights, self._products.tolist(), (1, CHROMA), strict=True):
                along = 2 * one * sum(w * sums[i][count] for i, w in enumerate(mine))
                products = (2 * mine[i] * mine[j] * sums[i][j] for i in range(count) for j in range(i + 1, count))
                squares = sum(w * w * sums[i][i] for i, w in enumerate(mine))
                gain += worth * (along - squares - sum(products))
            gains.append(gain)
        return gains.index(max(gains))
