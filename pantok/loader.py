"""From a store to a training job: batches of id windows, in an order that is a pure function of (seed, epoch).

What is unusual: there is no state but a number. Which episodes follow which, where they are cut into windows and in
which order the windows come is computed from seed and epoch; window i of an epoch is the same for any number of ranks
and workers, so a job resumes from `state_dict()` (a few numbers) with other ones and sees every window exactly once.

    from pantok.loader import StreamDataset
    data = StreamDataset("home.zarr", layout="default", length=4096, batch_size=8)
    for batch in torch.utils.data.DataLoader(data, batch_size=None, num_workers=2):
        batch["ids"]            # int64 (8, 4096)

An epoch: the episodes in a random order, their sequences one after another, cut into windows of `length`; the last is
filled up with <pad>. Attention should stay within a document: see `document` and `cu_seqlens`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pantok.errors import OptionError, StoreError
from pantok.formats.store import Store
from pantok.layout import Arranged, Layout, TokenSequence

_OPEN_EPISODES = 256
_KEPT_IDS = 8_000_000
"""A store of at most so many ids is arranged once and kept (15 bytes an id); a larger one is, window by window."""


@dataclass(frozen=True)
class Part:
    """A run of one episode within a window: its ids [start, stop)."""

    episode: int
    start: int
    stop: int


class Windows:
    """The windows of all epochs: which parts of which episodes each is made of. A pure function of its arguments.

    lengths: ids of each episode's sequence, int (E,). Shuffling draws from numpy's PCG64 of (seed, epoch).
    """

    def __init__(self, lengths: Sequence[int], length: int, seed: int, shuffle: bool) -> None:
        self._lengths, self._length = np.asarray(lengths, np.int64), length
        self._seed, self._shuffle = seed, shuffle
        self._epoch, self._order, self._ends, self._windows = -1, *(np.zeros(0, np.int64),) * 3

    @property
    def ids(self) -> int:
        """Ids of an epoch."""
        return int(self._lengths.sum())

    def __len__(self) -> int:
        """Windows of an epoch."""
        return -(-self.ids // self._length)

    def parts(self, epoch: int, index: int) -> list[Part]:
        """What window `index` of `epoch` holds, in order: `length` ids together, fewer at the epoch's end."""
        self._begin(epoch)
        start = int(self._windows[index]) * self._length
        stop = min(start + self._length, int(self._ends[-1]))
        parts, at = [], start
        place = int(np.searchsorted(self._ends, start, "right"))
        while at < stop:
            episode = int(self._order[place])
            begin, end = int(self._ends[place] - self._lengths[episode]), min(int(self._ends[place]), stop)
            parts.append(Part(episode, at - begin, end - begin))
            at, place = end, place + 1
        return parts

    def _begin(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        rng = np.random.default_rng([self._seed, epoch])
        count = len(self._lengths)
        self._order = rng.permutation(count) if self._shuffle else np.arange(count)
        self._ends = np.cumsum(self._lengths[self._order])
        self._windows = rng.permutation(len(self)) if self._shuffle else np.arange(len(self))
        self._epoch = epoch


class StreamDataset(IterableDataset):
    """Batches of windows for torch; use `DataLoader(dataset, batch_size=None, num_workers=N)`.

    store: a path. layout: a `Layout`, the name of a preset, or a TOML file. length: ids of a window. batch_size:
    windows of a batch. episodes: ids of those to read, all by default. epochs: how many, without end if None.
    rank, world: of this process among those that share the work; torch.distributed's if it is initialised.

    Each batch is a dictionary of tensors (B windows of L ids):
        ids         int64 (B, L)    of the store's vocabulary, <pad> where an epoch ends
        kind        uint8 (B, L)    index into `pantok.layout.KINDS`
        level       uint8 (B, L)    level within the modality; 0 for control ids
        track       uint8 (B, L)    index into `tracks`, the names of the batch's tracks; 255 for ids of no track
        time_ns     int64 (B, L)    instant of the unit that an id belongs to, from the start of its recording's clock
        document    int32 (B, L)    0, 1, ... by episode within the window; -1 where padded
        loss_mask   bool (B, L)     whether an id is to be predicted: not <bos>, <pad> and latent placeholders
        cu_seqlens  int32 (D + 1,)  bounds of the documents of all windows, one after another, as flash attention
                                    takes them; padding is a document of its own
        latents     {track name: float16 (M, D)}, in the order of the placeholders; with `Layout(latents=True)` only
        tracks      list of str
        epoch, window   int64 (), int64 (B,)  the epoch and each window's number in it
    The last batch of an epoch may hold fewer windows; a rank for which none is left has one batch less.

    Raises StoreError, OptionError.
    """

    def __init__(
        self,
        store: str | Path,
        layout: str | Path | Mapping[str, Any] | Layout = "default",
        *,
        length: int = 4096,
        batch_size: int = 8,
        episodes: Sequence[str] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        epochs: int | None = None,
        rank: int | None = None,
        world: int | None = None,
    ) -> None:
        super().__init__()
        if length < 2 or batch_size < 1:
            raise OptionError("loader", f"length {length} and batch_size {batch_size}", "at least 2 and 1")
        self.layout, self.length, self.batch_size, self.epochs = Layout.of(layout), length, batch_size, epochs
        self._path, self.seed, self._shuffle = Path(store), seed, shuffle
        self.rank, self.world = _place(rank, world)
        opened = Store.open(store)
        self.vocabulary = opened.vocabulary
        self._episodes = tuple(opened.episodes) if episodes is None else tuple(episodes)
        for episode in self._episodes:
            if episode not in opened:
                raise StoreError(store, f"has no episode {episode}", "pantok info names them")
        if not self._episodes:
            raise StoreError(store, "holds no episodes", "encode some first")
        self._cache: OrderedDict[int, Arranged] = OrderedDict()
        self._whole: dict[int, TokenSequence] = {}
        self._epoch = self._batch = 0

    @cached_property
    def _store(self) -> Store:
        return Store.open(self._path)

    @cached_property
    def windows(self) -> Windows:
        lengths = [len(self._arranged(k)) for k in range(len(self._episodes))]
        return Windows(lengths, self.length, self.seed, self._shuffle)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_store", None)  # opened anew by each worker
        return {**state, "_cache": OrderedDict(), "_whole": {}}

    def state_dict(self) -> dict[str, int]:
        """Where the job stands, counted over all ranks; valid for any number of ranks and workers.

        Worker processes run ahead of the job, and the dataset here does not see them: with `num_workers` it is the
        trainer that knows how many batches it took, and asks `state_after(batches)`.
        """
        return {"epoch": self._epoch, "window": self._batch, "seed": self.seed}

    def state_after(self, batches: int) -> dict[str, int]:
        """The state after every rank has taken `batches` batches more."""
        stride, total = self.batch_size * self.world, len(self.windows)
        epoch, window = self._epoch, self._batch
        left = -(-(total - window) // stride)
        if batches >= left:
            rounds, batches = divmod(batches - left, -(-total // stride))
            epoch, window = epoch + 1 + rounds, 0
        return {"epoch": epoch, "window": window + batches * stride, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Raises OptionError if it is of another seed: then the order was another."""
        if state["seed"] != self.seed:
            raise OptionError("loader seed", f"is {self.seed}, the state is of {state['seed']}", "give the same seed")
        self._epoch, self._batch = int(state["epoch"]), int(state["window"])

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return self._batches_an_epoch()

    def _batches_an_epoch(self) -> int:
        return -(-len(self.windows) // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stride = self.batch_size * self.world
        epoch, first = self._epoch, self._batch
        turn = 0
        while self.epochs is None or epoch < self.epochs:
            total = len(self.windows)
            for begin in range(first, total, stride):
                mine = range(begin + self.rank, min(begin + stride, total), self.world)
                if info is None:
                    # What is yielded counts as taken.
                    done = begin + stride
                    self._epoch, self._batch = (epoch, done) if done < total else (epoch + 1, 0)
                if turn % workers == worker and mine:
                    yield self.batch(epoch, mine)
                turn += 1
            epoch, first = epoch + 1, 0

    def batch(self, epoch: int, windows: Sequence[int]) -> dict[str, Any]:
        """The windows of these numbers of an epoch, together."""
        shape = (len(windows), self.length)
        ids = np.full(shape, self.vocabulary.control("pad"), np.int64)
        kind, level, track = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
        time_ns, document = np.zeros(shape, np.int64), np.full(shape, -1, np.int32)
        bounds, latents, tracks = [0], dict[str, list[np.ndarray]](), dict[str, int]()
        for row, window in enumerate(windows):
            at = 0
            for number, part in enumerate(self.windows.parts(epoch, window)):
                found = self._part(part)
                span = slice(at, at + len(found))
                ids[row, span], kind[row, span], level[row, span] = found.ids, found.kind, found.level
                time_ns[row, span], document[row, span] = found.time_ns, number
                numbers = [tracks.setdefault(name, len(tracks)) for name in found.tracks]
                track[row, span] = np.array(numbers + [255] * (256 - len(numbers)), np.uint8)[found.track]
                at += len(found)
                bounds.append(row * self.length + at)
                for name, values in found.latents.items():
                    latents.setdefault(name, []).append(values)
            if at < self.length:
                bounds.append((row + 1) * self.length)
        control = [self.vocabulary.control(name) for name in ("bos", "pad", "latent")]
        return {
            "ids": torch.from_numpy(ids),
            "kind": torch.from_numpy(kind),
            "level": torch.from_numpy(level),
            "track": torch.from_numpy(track),
            "tracks": list(tracks),
            "time_ns": torch.from_numpy(time_ns),
            "document": torch.from_numpy(document),
            "loss_mask": torch.from_numpy(~np.isin(ids, control)),
            "cu_seqlens": torch.tensor(bounds, dtype=torch.int32),
            "latents": {name: torch.from_numpy(np.concatenate(parts)) for name, parts in latents.items()},
            "epoch": torch.tensor(epoch),
            "window": torch.tensor(list(windows), dtype=torch.int64),
        }

    def _part(self, part: Part) -> TokenSequence:
        if self.windows.ids > _KEPT_IDS:
            return self._arranged(part.episode).cut(part.start, part.stop)
        whole = self._whole.get(part.episode)
        if whole is None:
            whole = self._whole[part.episode] = self._arranged(part.episode).cut()
        return whole.cut(part.start, part.stop)

    def _arranged(self, episode: int) -> Arranged:
        if episode in self._cache:
            self._cache.move_to_end(episode)
            return self._cache[episode]
        stream = self._store.read(self._episodes[episode], check=False)
        found = self._cache[episode] = Arranged(stream, self.layout, self.vocabulary)
        if len(self._cache) > _OPEN_EPISODES:
            self._cache.popitem(last=False)
        return found


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    if (rank is None) != (world is None):
        raise OptionError("loader", "rank and world go together", "give both or neither")
    if rank is None or world is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if not 0 <= rank < world:
        raise OptionError("loader rank", f"{rank} is not below {world}", "count from 0")
    return rank, world
