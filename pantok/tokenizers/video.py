"""Video as codes: pictures predicted from decoded pictures, what is new described by residual k-means at three scales.

What is unusual: everything is integers, from the pixels of YUV 4:2:0 to the codebooks, so the same film gives the same
codes on every machine, and the encoder's picture of the past is the decoder's to the last bit; nothing was learned by
gradient; and bits go where they pay, place by place, down to none at all for a picture that has not changed.

A tick is 4 frames. `video_books` says what the codes mean, `video_choose` how they are chosen, `video_fit` how the
books are learned, `video_exact` why the arithmetic is exact, `video_smooth` what becomes of pictures when they are
shown, and only then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from pantok import pixels
from pantok.config import from_mapping, to_mapping
from pantok.errors import InputError, OptionError, TokenError, VocabularyError
from pantok.experience import Block, Clock, Track
from pantok.quantizers.gated import lives_of, tensors_of
from pantok.quantizers.threads import one_thread_of_blas
from pantok.stream import Latents, LevelCodes, TrackTokens, smallest_dtype
from pantok.tokenizers import video_living as living
from pantok.tokenizers.base import Encoder, Report, Tokenizer, silent
from pantok.tokenizers.counts import More
from pantok.tokenizers.video_ahead import Ahead
from pantok.tokenizers.video_beside import Beside
from pantok.tokenizers.video_books import BLOCK, LEVELS, SHALLOW, TICK, Books, levels_of
from pantok.tokenizers.video_choose import GREY, Chooser, Ends, residual
from pantok.tokenizers.video_control import Control, VideoOptions, lambda_of
from pantok.tokenizers.video_counts import due
from pantok.tokenizers.video_course import Courses
from pantok.tokenizers.video_exact import Book
from pantok.tokenizers.video_fit import DIRECTIONS, grid_of, learn, sample_runs
from pantok.tokenizers.video_grid import Grid, Reference
from pantok.tokenizers.video_measure import SPARE, measured, pruned, usage
from pantok.tokenizers.video_refine import refined
from pantok.tokenizers.video_smooth import Smoothing, Tally
from pantok.tokenizers.video_smooth_fit import Gathered, learned_smoothing
from pantok.tokenizers.video_tick import draw, draw_between, pack, unpack
from pantok.vocabulary import Level, TokenizerState

FORMAT, FORMATS = 4, (2, 3, 4)
"""What is written, and what is read: 2 has no courses, 2 and 3 have fewer stages."""


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How the books are learned.

    size: codes of each learned level.
    sample_megabytes: frames kept to learn from, spread over all recordings.
    vectors: residuals kept for each book.
    rounds: passes of closed-loop coding after the first guess.
    dims: coefficients of a vector in the search of its code, and of a latent; some books take more, see
    `video_fit.DIRECTIONS`.
    refine_seconds: how long to improve the books further, 0 for not at all; the result then depends on the machine's
    speed, with refine_steps (rounds a book) instead it does not.
    """

    size: int = 1024
    sample_megabytes: int = 160
    vectors: int = 40_000
    rounds: int = 2
    dims: int = 40
    refine_seconds: float = 0.0
    refine_steps: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("size", 2, 65_000),
            ("sample_megabytes", 1, 1 << 20),
            ("vectors", 100, 10_000_000),
            ("rounds", 0, 20),
            ("dims", 1, 96),
            ("refine_seconds", 0, 1e9),
            ("refine_steps", 0, 1_000_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise OptionError(
                    f"video {name}", f"{getattr(self, name)} is out of range", f"choose {least} to {most}"
                )


class VideoTokenizer(Tokenizer):
    """Books and what they mean. Levels: see `video_books`."""

    modality: ClassVar[str] = "video"
    told_from: ClassVar[int | None] = BLOCK

    def __init__(
        self,
        books: Books,
        config: VideoConfig,
        metrics: dict[str, Any] | None = None,
        smoothing: Smoothing | None = None,
    ) -> None:
        self.books, self.config, self.metrics, self.smoothing = books, config, metrics or {}, smoothing
        self._levels = levels_of(books)

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    @classmethod
    @one_thread_of_blas()
    def fit(
        cls, tracks: Sequence[Track], config: Any = None, *, seed: int = 0, report: Report = silent
    ) -> VideoTokenizer:
        """Raises InputError if the tracks hold no frames."""
        config = config or VideoConfig()
        runs = sample_runs(tracks, config.sample_megabytes * 1_000_000, report)
        held, learned = (runs[-1:], runs[:-1]) if len(runs) >= 5 else (runs, runs)
        dims = {name: max(1, round(share * config.dims)) for name, share in DIRECTIONS.items()}
        most = {n: max(config.vectors // k, 64) for n, k in zip(Books.NAMES, (8, 2, 2, 1, 1), strict=True)}
        courses = max(config.vectors // 8, 64)
        lam = lambda_of(VideoOptions().quality)
        books = learn(
            learned, round(config.size * SPARE), dims, lam, config.rounds, most | {"course": courses}, seed, report
        )
        facts = None
        if config.refine_seconds or config.refine_steps:
            seconds, steps = config.refine_seconds, config.refine_steps
            books, facts = refined(
                books, learned, held, lam, most, seconds=seconds, steps=steps, seed=seed, report=report
            )
        report("counting use", 0.0)
        gathered = Gathered()
        counts = usage(learned, books, lam, gathered.add)
        books, counts = pruned(books, counts, config.size)
        smoothing = learned_smoothing(gathered)
        report("measuring", 0.0)
        metrics = measured(books, counts, held, lam, held is not runs, smoothing)
        if smoothing is not None and metrics["smoothing_db"] < 0:
            smoothing, metrics = None, measured(books, counts, held, lam, held is not runs)
        return cls(books, config, metrics if facts is None else {**metrics, "refined": facts}, smoothing)

    def encoder(self, track: Track, options: Any = None) -> VideoEncoder:
        return VideoEncoder(self, track, options or VideoOptions())

    def decode(
        self, tokens: TrackTokens, *, levels: int | None = None, start: int = 0, stop: int | None = None
    ) -> Iterator[Block]:
        tokens.check(tuple(lv.cardinality for lv in self._levels))
        count = tokens.clock.count
        stop = count if stop is None else min(stop, count)
        start = max(start, 0)
        try:
            grid = Grid(int(tokens.header["height"]), int(tokens.header["width"]))
        except KeyError as missing:
            raise TokenError(tokens.name, f"its header lacks {missing}") from None
        smooth = int(tokens.header.get("smooth", 0))
        if not 0 <= smooth <= (0 if self.smoothing is None else len(self.smoothing)):
            raise TokenError(tokens.name, f"is smoothed by set {smooth}, which the vocabulary lacks")
        if start >= stop:
            yield Block(np.zeros((0, pixels.frame_bytes(grid.height, grid.width)), np.uint8), np.zeros(0, np.int64))
            return
        every = max(tokens.key_every, 1)
        wanted = LEVELS if levels is None else levels
        past: Reference | None = None
        for tick in range(start // TICK // every * every, -(-stop // TICK)):
            if tick % every == 0:
                past = None
            plan = unpack([lv.of_tick(tick) for lv in tokens.levels], self.books, grid, past is None, wanted)
            first = tick * TICK
            sites, past = draw(plan, self.books, past, grid, min(TICK, count - first))
            lo, hi = max(start - first, 0), min(stop - first, TICK)
            if lo < hi:
                times = tokens.clock.at(np.arange(first + lo, first + hi))
                frames = grid.to_frames(sites[lo:hi])
                if self.smoothing is not None:
                    self.smoothing.smooth(frames, grid.height, grid.width, smooth)
                yield Block(frames, times)

    def due(self, tokens: TrackTokens, tick: int, before: Sequence[np.ndarray]) -> More:
        grid = Grid(int(tokens.header["height"]), int(tokens.header["width"]))
        return due(before, self.books, grid, tick % max(tokens.key_every, 1) == 0)

    def state(self) -> TokenizerState:
        tensors = {
            "patterns": self.books.patterns.astype(np.uint8),
            "inner_patterns": self.books.inner_patterns.astype(np.uint8),
        }
        for name, book in self.books.by_name.items():
            tensors |= living.tensors_of_book(name, book)
        tensors |= tensors_of(living.by_level(self.books.by_name))
        if self.books.courses is not None:
            tensors["courses"] = self.books.courses.table.astype(np.int8)
        if self.smoothing is not None:
            tensors |= self.smoothing.tensors()
        config = {"format": _format_of(self.books), **to_mapping(self.config)}
        return TokenizerState("video", config, self._levels, tensors, metrics=self.metrics)

    @classmethod
    def from_state(cls, state: TokenizerState) -> VideoTokenizer:
        if state.modality != "video" or state.config.get("format") not in FORMATS:
            raise VocabularyError(
                "video tokenizer",
                f"is {state.modality} of format {state.config.get('format')}; this version reads video of {FORMATS}",
                "fit it anew, or use the version of pantok that wrote it",
            )
        made: dict[str, Any] = {}
        try:
            deepest = Books.STAGES if state.config["format"] >= 4 else (*Books.STAGES[:-2], *SHALLOW)
            for name, stages in zip(Books.NAMES, deepest, strict=True):
                starts = tuple(np.asarray(state.tensors[f"{name}.{k}.starts"], np.int64) for k in range(stages))
                basis, codes, first_dims = living.parts_of_book(state, name, stages)
                made[name] = Book(basis, codes, starts, living.of_book(lives_of(state), name, stages), first_dims)
            for name in ("patterns", "inner_patterns"):
                made[name] = np.asarray(state.tensors[name], np.int64)
            if state.config["format"] >= 3:
                made["courses"] = Courses(np.asarray(state.tensors["courses"], np.int64))
        except KeyError as missing:
            raise VocabularyError("video tokenizer", f"lacks the tensor {missing}", "fit it anew") from None
        config = from_mapping(VideoConfig, {k: v for k, v in state.config.items() if k != "format"}, "video tokenizer")
        return cls(Books(**made), config, dict(state.metrics), Smoothing.of_tensors(state.tensors))


class VideoEncoder(Encoder):
    """Codes each tick as soon as those are there that are looked at ahead of it; holds their frames, and the codes."""

    def __init__(self, tokenizer: VideoTokenizer, track: Track, options: VideoOptions) -> None:
        self._track, self._options = track, options
        self._grid = grid_of(track)
        self._chooser = Chooser(self._grid, tokenizer.books, effort=options.effort)
        self._sizes = tokenizer.books.cardinalities()
        self._dtypes = [smallest_dtype(size) for size in self._sizes]
        self._width = min(tokenizer.config.dims, tokenizer.books.coarse.born_dims)  # of latents
        self._coarse, self._levels = tokenizer.books.coarse, tokenizer.books.levels
        rate = float(track.rate or 25)
        self._key_every = max(1, round(options.key_seconds * rate / TICK))
        self._held = np.zeros((0, pixels.frame_bytes(self._grid.height, self._grid.width)), np.uint8)
        self._times: list[np.ndarray] = []
        self._count, self._ticks = 0, 0
        self._codes: list[list[np.ndarray]] = [[] for _ in range(LEVELS)]
        self._counts: list[list[int]] = [[] for _ in range(LEVELS)]
        self._latents: list[np.ndarray] = []
        self._past: Reference | None = None
        self._before = np.zeros((0, 2), np.int64)
        self._ahead = Ahead(self._grid, options.ahead, self._key_every)
        self._control = Control(options, rate, self._grid, np.log2(self._sizes))
        self._tally = None if tokenizer.smoothing is None else Tally(tokenizer.smoothing)

    @one_thread_of_blas()
    def push(self, block: Block) -> None:
        """Frames are not copied, and looked at until they are coded: do not write into them. Raises InputError if they
        are not uint8 (n, frame_bytes) of the track's size."""
        values = block.values
        if values.ndim != 2 or values.shape[1] != self._held.shape[1] or values.dtype != np.uint8:
            raise InputError(
                self._track.name,
                f"has frames of {values.dtype} {values.shape[1:]}, its size needs uint8 ({self._held.shape[1]},)",
            )
        self._count += len(values)
        if block.times_ns is not None:
            self._times.append(block.times_ns)
        held = np.concatenate([self._held, values]) if len(self._held) else values
        whole = len(held) // TICK * TICK
        self._go_on([held[at : at + TICK] for at in range(0, whole, TICK)], self._ahead.ticks)
        self._held = held[whole:].copy()

    @one_thread_of_blas()
    def finish(self) -> TrackTokens:
        self._go_on([self._held] if len(self._held) else [], 0)
        self._held = self._held[:0]
        if self._times:
            clock = Clock.of_times(np.concatenate(self._times), self._track.rate)
        elif self._track.clock is not None:
            clock = self._track.clock
        elif self._track.rate is not None:
            clock = Clock.regular(self._track.rate, self._count)
        else:
            raise InputError(self._track.name, "has neither times nor a rate")
        if clock.count != self._count:
            raise InputError(self._track.name, f"has {self._count} frames, its clock has {clock.count}")
        levels = tuple(
            LevelCodes.of_counts(np.concatenate([np.zeros(0, dtype), *codes]), np.array(counts, np.int64))
            for codes, counts, dtype in ((self._codes[k], self._counts[k], self._dtypes[k]) for k in self._levels)
        )
        latents = None
        if self._options.latents:
            values = np.concatenate([np.zeros((0, self._width), np.float16), *self._latents])
            latents = Latents(values, np.arange(self._ticks + 1, dtype=np.int64) * self._grid.blocks)
        header = {"height": self._grid.height, "width": self._grid.width, "key_every": self._key_every}
        if self._tally is not None and (best := self._tally.best):
            header["smooth"] = best
        track, self.unmet = self._track, self._control.unmet
        return TrackTokens(
            track.name, "video", clock, TICK, levels, header, dict(track.info), track.channels, track.units, latents
        )

    def _go_on(self, ticks: Sequence[np.ndarray], left: int) -> None:
        """Takes more ticks, and codes all that wait but for the last `left`."""
        if self._control.steady:
            self._overlapped(ticks, left)
            return
        for frames in ticks:
            self._ahead.add(frames)
        while len(self._ahead) > left:
            self._tick()

    def _overlapped(self, ticks: Sequence[np.ndarray], left: int) -> None:
        """As `_go_on`, at a fixed trade: what nothing later depends on, and the cutting of ticks, is done beside."""
        waiting: deque[Beside[tuple[list[np.ndarray], np.ndarray | None]]] = deque()
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
            more = iter(ticks)
            while True:
                while len(self._ahead) <= left + 1 and (frames := next(more, None)) is not None:
                    self._ahead.add(frames, thread)
                if len(self._ahead) <= left:
                    break
                tick, weight = self._ahead.take()
                self._begin()
                ends = self._chooser.ends(tick.sites, self._past, self._before, self._control.lam, weight)
                self._past, self._before = ends.end, ends.plan.vectors[1:]
                waiting.append(Beside(thread, partial(self._filled, ends, self._ticks - 1, tick.frames)))
                self._describe(tick.sites)
                if len(waiting) > 2:
                    if not waiting[0].is_done:
                        waiting[-1].help()
                    self._keep(*waiting.popleft().result())
            for part in reversed(waiting):
                part.help()
            for part in waiting:
                self._keep(*part.result())

    def _filled(self, ends: Ends, tick: int, frames: np.ndarray) -> tuple[list[np.ndarray], np.ndarray | None]:
        """What `_keep` takes of a tick of which the last frame is coded. Changes no more than `ends.plan`."""
        base = self._chooser.fill(ends)
        drawn = partial(draw_between, ends.plan, base, self._chooser.books)
        return pack(ends.plan), self._looked(tick, frames, ends.end, drawn)

    def _tick(self) -> None:
        tick, weight = self._ahead.take()
        self._begin()
        while True:
            drawn = self._chooser.code(tick.sites, self._past, self._before, self._control.lam, weight)
            codes = pack(drawn.plan)
            if self._control.accepts(codes, tick.sites, partial(self._shown, drawn.sites)):
                break
        self._past, self._before = drawn.end, drawn.plan.vectors[1:]
        self._describe(tick.sites)
        self._keep(codes, self._looked(self._ticks - 1, tick.frames, drawn.end, lambda: drawn.sites))

    def _looked(
        self, tick: int, frames: np.ndarray, end: Reference, drawn: Callable[[], np.ndarray]
    ) -> np.ndarray | None:
        """What the tick says of smoothing, if there is any: see `Tally.look`."""
        return None if self._tally is None else self._tally.look(tick, frames, end, drawn)

    def _shown(self, sites: np.ndarray) -> np.ndarray:
        """Decoded sites as they will be shown, should the track go on as it has begun."""
        return sites if self._tally is None else self._tally.smoothing.shown(self._grid, sites, self._tally.best)

    def _begin(self) -> None:
        """Forgets the past if the tick is a key."""
        if self._ticks % self._key_every == 0:
            self._past, self._before = None, self._before[:0]
        self._ticks += 1

    def _describe(self, sites: np.ndarray) -> None:
        """The latents of a tick, if they are asked for."""
        if self._options.latents:
            wanted = residual(sites[-1], GREY).reshape(self._grid.blocks, -1)
            values = self._coarse.project(wanted)[:, : self._width] * self._coarse.unit
            self._latents.append(values.astype(np.float16))

    def _keep(self, codes: Sequence[np.ndarray], sums: np.ndarray | None) -> None:
        if self._tally is not None and sums is not None:
            self._tally.add(sums)
        for level, part in enumerate(codes):
            self._counts[level].append(len(part))
            if len(part):
                self._codes[level].append(part.astype(self._dtypes[level]))


def _format_of(books: Books) -> int:
    if books.courses is None:
        return 2
    return 3 if (len(books.fine.codes), len(books.inner.codes)) == SHALLOW else FORMAT
