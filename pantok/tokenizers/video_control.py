"""How a track of video is encoded, and how the trade of error against bits is chosen for each tick.

What is unusual: a rate or a quality that is asked for is met by coding a tick again with another trade, in fixed steps
and by what was coded so far, so that the codes of a tick depend on nothing after it but the ticks that are looked at
ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pantok.errors import OptionError
from pantok.tokenizers.video_books import TICK
from pantok.tokenizers.video_grid import Grid
from pantok.tokenizers.video_measure import error_of, psnr_of


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How a track is encoded.

    quality: at each step up a bit has to take away half as much error. 5 gives film about 0.07 bits a pixel.
    target_psnr: decibels of RGB that every tick should reach, smoothed as suits the ticks before it best.
    bits_per_second: rate that is not exceeded over any two seconds.
    key_seconds: a tick that needs no other comes at least this often.
    ahead: ticks of four frames that are looked at before one is coded: what stays in the picture is worth more bits. A
        tick is told only once they are there; 0 tells each by itself, at some 0.25 dB less.
    effort: ways through the stages of a codebook that are looked at. 1 looks for a near code of each stage; with more,
        all codes are looked at, and a stage is chosen with those after it: fewer bits for longer work.
    latents: also give the coefficients of each 32x32 block, before quantisation.
    """

    quality: float = 5.0
    target_psnr: float | None = None
    bits_per_second: float | None = None
    key_seconds: float = 4.0
    ahead: int = 8
    effort: int = 1
    latents: bool = False

    def __post_init__(self) -> None:
        if not -5 <= self.quality <= 15:
            raise OptionError("video quality", f"{self.quality} is out of range", "choose -5 to 15")
        if self.target_psnr is not None and self.bits_per_second is not None:
            raise OptionError("video", "target_psnr and bits_per_second exclude each other", "give one of them")
        if self.target_psnr is not None and not 10 <= self.target_psnr <= 60:
            raise OptionError("video target_psnr", f"{self.target_psnr} dB is out of range", "choose 10 to 60")
        if self.bits_per_second is not None and not self.bits_per_second > 0:
            raise OptionError("video bits_per_second", f"{self.bits_per_second} is not a rate", "choose more than 0")
        if not 1 <= self.effort <= 64:
            raise OptionError("video effort", f"{self.effort} is out of range", "choose 1 to 64")
        if not 0 <= self.ahead <= 64:
            raise OptionError("video ahead", f"{self.ahead} is out of range", "choose 0 to 64")
        if not self.key_seconds > 0:
            raise OptionError("video key_seconds", f"{self.key_seconds} is not a duration", "choose more than 0")


def lambda_of(quality: float) -> float:
    """Squared error of a grey level that a bit must take away: 2^(11.5 - quality), on a grid of 1/1024."""
    return round(2.0 ** (11.5 - quality) * 1024) / 1024


class Control:
    """Chooses lambda for each tick: fixed, or by trial in fixed steps until the tick meets its target."""

    TRIES = 6

    def __init__(self, options: VideoOptions, rate: float, grid: Grid, bits: np.ndarray) -> None:
        self._options, self._bits, self._grid = options, bits, grid
        self._quality, self._tries = options.quality, 0
        self._raised = False
        self._ticks, self._short, self._least = 0, 0, np.inf
        # Bits that may be spent now: what came in, at most two seconds of it.
        per_second = options.bits_per_second or 0.0
        self._income = int(per_second * TICK / rate)
        self._most = int(2 * per_second)
        self._purse = self._most

    @property
    def steady(self) -> bool:
        """Whether lambda never moves."""
        return self._options.target_psnr is None and self._options.bits_per_second is None

    @property
    def lam(self) -> float:
        return lambda_of(self._quality)

    @property
    def unmet(self) -> str | None:
        """What was asked for and not reached; one line."""
        if not self._short:
            return None
        return (
            f"{self._short} of {self._ticks} groups of {TICK} frames stay below {self._options.target_psnr:g} dB, "
            f"{self._least:.1f} dB the least: as much as its codes can"
        )

    def accepts(self, codes: Sequence[np.ndarray], sites: np.ndarray, shown: Callable[[], np.ndarray]) -> bool:
        """Whether the tick stands; else `lam` has moved and the tick is to be coded again.

        sites: of the tick, uint8 (count, N, 96); shown: makes them as a decoder will show them.
        """
        if self.steady:
            return True
        if self._options.target_psnr is not None:
            return self._accepts_error(sites, shown())
        return self._accepts_bits(codes)

    def _accepts_error(self, sites: np.ndarray, shown: np.ndarray) -> bool:
        area = len(sites) * int(self._grid.inside.sum()) * 64
        psnr = psnr_of(error_of(self._grid, sites, shown) / area)
        assert self._options.target_psnr is not None
        short = self._options.target_psnr - psnr
        self._tries += 1
        if self._tries < self.TRIES:
            if short > 0 and self._quality < 15:
                self._quality, self._raised = min(15.0, self._quality + max(0.5, np.ceil(short) / 2)), True
                return False
            if short < -1 and self._quality > -5 and not self._raised:
                self._quality = max(-5.0, self._quality + np.ceil(short))
                return False
        self._tries, self._raised = 0, False
        self._ticks += 1
        if short > 0:
            self._short, self._least = self._short + 1, min(self._least, psnr)
        if short < -0.3:
            self._quality = max(-5.0, self._quality - 0.25)
        return True

    def _accepts_bits(self, codes: Sequence[np.ndarray]) -> bool:
        spent = int(np.ceil(sum(len(c) * b for c, b in zip(codes, self._bits, strict=True))))
        self._tries += 1
        left = min(self._purse + self._income, self._most) - spent
        if left < 0 and self._tries < 4 * self.TRIES and self._quality > -5:
            self._quality = max(-5.0, self._quality - (0.5 if spent < 2 * self._income else 1.0))
            return False
        self._purse, self._tries = left, 0
        if left > self._most * 3 // 4:
            self._quality = min(15.0, self._quality + 0.25)
        elif left < self._most // 2 and spent > self._income:
            self._quality = max(-5.0, self._quality - 0.25)
        return True
