"""Pictures as sites of 8x8 pixels in quad order, and the shifted copies of a decoded picture that predict the next.

What is unusual: a site is 96 bytes (8 rows of 8 luma samples, then 4 rows of 4 interleaved U, V pairs), that is 12
words of 64 bits, so that cutting a picture into sites, joining it again and fetching a displaced site all move whole
words. Sites of a 16x16 block follow one another, and so do the four 16x16 blocks of a 32x32 block: a block of any
size is a plain reshape.

Letters: n frames, B blocks of 32x32, N = 16 B sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pantok import pixels
from pantok.tokenizers import video_cut_kernels as cutting
from pantok.tokenizers import video_kernels as kernels
from pantok.tokenizers import video_motion_kernels as motion
from pantok.tokenizers.video_kernels import SITE

BLOCK = 32
"""Luma samples along the edge of the largest block."""
REACH = 63
"""Largest displacement along an axis, in half samples of luma."""
_PAD = 40  # luma samples around a reference picture: 32 of reach and the taps of the half-sample filter
_CPAD = 20

WEIGHTS = np.repeat(np.array([1, 2], np.int16), (64, 32))
"""A chroma sample stands for four pixels: an error of one in it costs about as much RGB error as two in luma
(2.04 for U and 1.78 for V by BT.601)."""


@dataclass(frozen=True)
class Grid:
    """The geometry of one picture size; edges are repeated up to whole 32x32 blocks."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        return -(-self.height // BLOCK)

    @property
    def columns(self) -> int:
        return -(-self.width // BLOCK)

    @property
    def blocks(self) -> int:
        return self.rows * self.columns

    @property
    def sites(self) -> int:
        return 16 * self.blocks

    @cached_property
    def inside(self) -> np.ndarray:
        """bool (N,): sites that hold at least one pixel of the picture."""
        y, x = (np.repeat(c, 4) for c in self._corners)
        y, x = y + np.tile([0, 0, 8, 8], 4 * self.blocks), x + np.tile([0, 8, 0, 8], 4 * self.blocks)
        return (y < self.height) & (x < self.width)

    @cached_property
    def grey(self) -> np.ndarray:
        """uint8 (N, 96): a picture of mid grey."""
        return np.full((self.sites, SITE), 128, np.uint8)

    @cached_property
    def _corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Luma row and column of the upper left sample of each quad, int64 (4 B,)."""
        block, quad = np.divmod(np.arange(4 * self.blocks), 4)
        return block // self.columns * 32 + quad // 2 * 16, block % self.columns * 32 + quad % 2 * 16

    def to_sites(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (n, N, 96) of frames uint8 (n, frame_bytes)."""
        out = np.empty((len(frames), self.sites, SITE), np.uint8)
        cutting.cut(np.ascontiguousarray(frames), self.height, self.width, self.columns, out)
        return out

    def to_frames(self, sites: np.ndarray) -> np.ndarray:
        """Inverse of `to_sites`: uint8 (n, frame_bytes)."""
        luma, chroma = self.to_planes(sites)
        n, h2, w2 = len(sites), (self.height + 1) // 2, (self.width + 1) // 2
        out = np.empty((n, pixels.frame_bytes(self.height, self.width)), np.uint8)
        y, u, v = pixels.planes(out, self.height, self.width)
        y[:] = luma[:, : self.height, : self.width]
        pairs = chroma.reshape(n, chroma.shape[1], -1, 2)
        u[:] = pairs[:, :h2, :w2, 0]
        v[:] = pairs[:, :h2, :w2, 1]
        return out

    def to_planes(self, sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Padded luma (n, H, W) and interleaved chroma (n, H/2, W) of sites (n, N, 96)."""
        n, r, c = len(sites), self.rows, self.columns
        words = np.ascontiguousarray(sites).view(np.uint64).reshape(n, r, c, 2, 2, 2, 2, 12)
        luma = np.empty((n, r, 2, 2, 8, c, 2, 2), np.uint64)
        luma[...] = words[..., :8].transpose(0, 1, 3, 5, 7, 2, 4, 6)
        chroma = np.empty((n, r, 2, 2, 4, c, 2, 2), np.uint64)
        chroma[...] = words[..., 8:].transpose(0, 1, 3, 5, 7, 2, 4, 6)
        tall, wide = r * BLOCK, c * BLOCK
        return luma.view(np.uint8).reshape(n, tall, wide), chroma.view(np.uint8).reshape(n, tall // 2, wide)

    @cached_property
    def corners(self) -> np.ndarray:
        """int64 (4 B, 4): the upper left of each quad in a Reference: luma row and column, chroma row and byte."""
        y, x = self._corners
        return np.stack([y + _PAD, x + _PAD, y // 2 + _CPAD, x + 2 * _CPAD], 1)


class Reference:
    """A decoded picture with its half-sample phases, from which displaced sites are fetched.

    Luma phases: 4-tap filter (-1, 5, 5, -1) / 8 along each axis, in integers. Chroma: mean of neighbours, displaced
    by the luma displacement rounded down to half chroma samples.
    """

    def __init__(self, grid: Grid, sites: np.ndarray) -> None:
        """sites: uint8 (N, 96)."""
        self.grid, self.sites = grid, sites
        tall, wide = grid.rows * BLOCK, grid.columns * BLOCK
        self._phases = np.empty((4, tall + 2 * _PAD, wide + 2 * _PAD), np.uint8)
        self._cphases = np.empty((4, tall // 2 + 2 * _CPAD, wide + 4 * _CPAD), np.uint8)
        cutting.spread(sites, grid.columns, self._phases, _PAD, self._cphases, _CPAD)
        cutting.half_samples(self._phases, self._cphases)

    @property
    def luma(self) -> np.ndarray:
        """uint8 (H, W)"""
        return self._phases[0, _PAD:-_PAD, _PAD:-_PAD]

    @property
    def framed(self) -> tuple[np.ndarray, int]:
        """The luma with repeated pixels around it, uint8, contiguous, and how many of them."""
        return self._phases[0], _PAD

    @property
    def shifted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What compiled loops fetch displaced quads from: phases of luma and of chroma, and `Grid.corners`."""
        return self._phases, self._cphases, self.grid.corners

    def fetch(self, vectors: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """uint8 (4 m, 96): the sites of the quads `which` int (m,) (all by default), displaced.

        vectors: int (m, 2), (y, x) in half samples of luma, at most REACH.
        """
        moving = vectors.any(1)
        quads = self.sites.view(np.uint64).reshape(-1, 4, 12)
        if not moving.any():
            return (self.sites if which is None else quads[which].view(np.uint8)).reshape(-1, SITE)
        out = quads.copy() if which is None else quads[which]
        rest = np.flatnonzero(moving)
        moved = np.empty((len(rest), 4, SITE), np.uint8)
        place = rest if which is None else which[rest]
        kernels.fetch(self._phases, self._cphases, self.grid.corners, vectors[rest].astype(np.int64), place, moved)
        out[rest] = moved.view(np.uint64).reshape(-1, 4, 12)
        return out.view(np.uint8).reshape(-1, SITE)

    def chosen(
        self, frames: np.ndarray, moves: np.ndarray, owner: np.ndarray, knee: float, price: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """The displacement of each quad, int64 (B, 4), and whether a block gives its quads one each, bool (B,); see
        `video_motion_kernels.choose_moves`."""
        kind, split = np.empty(owner.shape, np.int64), np.empty(len(owner), bool)
        motion.choose_moves(self._phases, self.grid.corners, frames, moves, owner, knee, price, kind, split)
        return kind, split

    def refined(self, sites: np.ndarray, vectors: np.ndarray, which: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """The displacements `vectors` (m, 2), all but the first moved to where the quads `which`, which they own, fit
        best."""
        vectors = vectors.copy()
        motion.refine_moves(self._phases, self.grid.corners, sites[None], which, owner, REACH - 3, vectors)
        return vectors
