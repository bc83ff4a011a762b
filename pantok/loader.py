"""From stores to a training job: batches of id windows, in an order that is a pure function of (seed, epoch, number).

What is unusual: there is no state but a number. Which episodes follow which, where they are cut into windows, in which
order the windows come and which store each is drawn from is computed from seed and epoch; window i of an epoch is the
same for any number of ranks and workers, so a job resumes from `state_dict()` (a few numbers) with other ones and sees
every window exactly once. And ids are made where they are needed: compiled loops take codes from the mapped store
through the table of ids straight into the rows of a batch; or they were laid out before (`pantok store arrange`), and
are copied.

    from pantok.loader import StreamDataset
    data = StreamDataset("home.zarr", layout="default", length=4096, batch_size=8)
    for batch in torch.utils.data.DataLoader(data, batch_size=None, num_workers=2):
        batch["ids"]            # int64 (8, 4096)

An epoch: the episodes in a random order, their sequences one after another, cut into windows of `length`; the last is
filled up with <pad>. Attention should stay within a document: see `document` and `cu_seqlens`.

    StreamDataset([("home.zarr", 3.0), ("lab.zarr", 1.0)], split="train", tokens=65_536, threads=2)
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pantok import loader_kernels as kernels
from pantok.errors import OptionError
from pantok.layout import COLUMNS, ROLES, Columns, Layout
from pantok.layout_columns import Numbering
from pantok.layout_composed import write
from pantok.loader_given import Stores, batch_size_of, columns_of, common_vocabulary, of_torchdata, place_of, weighted
from pantok.loader_memory import Memory
from pantok.loader_source import Source
from pantok.loader_splits import SPLITS, check_splits
from pantok.loader_windows import SPAN, Curriculum, Order, Stage, Windows, whole_weights
from pantok.vocabulary import Vocabulary

__all__ = ["Stage", "StreamDataset", "Windows"]


class StreamDataset(IterableDataset):
    """Batches of windows for torch; use `DataLoader(dataset, batch_size=None, num_workers=N)`, or `threads` and none.

    stores: a path; several paths, each window of each once an epoch; or (path, weight) pairs, drawn in proportion to
    the weights, each store through epochs of its own. layout: a `Layout`, the name of a preset, or a TOML file.
    length: ids of a window. batch_size: windows of a batch of one rank; or tokens: its ids, as many whole windows as
    that holds. vocabulary: what ids are of; the stores' own if None, and then one of them must read the others.
    episodes: ids of those to read, all by default. split: `train`, `valid` or `test` of `splits` (shares by name); an
    episode is in one split for ever, with all others of its group: see `loader_splits.group_of` for split_by.
    curriculum: stages, each with levels of its own. shuffle_span: windows that are shuffled among each other.
    epochs: how many, without end if None. rank, world: of this process among those that share the work;
    torch.distributed's if it is initialised. threads: make batches ahead in so many threads, in this process.
    pin_memory: in page-locked memory, where there is a GPU.
    in_use: instead of codes that the vocabulary has retired since they were written, what stands for them now.
    io: `mmap`, or `pread` for network file systems: an episode's codes are read when it is opened, none is mapped.
    columns: which of the tensors (B, L) below a batch has, all if None; the others are neither computed nor allocated.
    The order of windows, and so a state, is the same whatever the columns.

    Each batch is a dictionary of tensors (B windows of L ids). One row for each window, 25 bytes an id together:
        ids         int64 (B, L)    of `vocabulary`, <pad> where an epoch ends
        kind        uint8 (B, L)    index into `pantok.layout.KINDS`
        level       uint8 (B, L)    level within the modality; 0 for control ids
        track       uint8 (B, L)    index into `tracks`, the names of the batch's tracks; 255 for ids of no track
        role        uint8 (B, L)    index into `pantok.layout.ROLES`: observation, action, reward, text, control
        time_ns     int64 (B, L)    instant of the unit that an id belongs to, from the start of its recording's clock
        document    int32 (B, L)    0, 1, ... by episode within the window; -1 where padded
        loss_mask   bool (B, L)     whether an id is to be predicted: not <bos>, <pad> and latent placeholders
    And always, of the batch:
        cu_seqlens  int32 (D + 1,)  bounds of the documents of all windows, one after another, as flash attention
                                    takes them; padding is a document of its own
        latents     {track name: float16 (M, D)}, in the order of the placeholders; with `Layout(latents=True)` only
        tracks      list of str
        parts       int64 (P, 5)    of each document, in order: row, its ids [first, stop), store, and the episode's
                                    number in `episodes` of that store
        epoch, window, source   int64 (), (B,), (B,)  the epoch, each window's number in it, and its store
    The last batch of an epoch may hold fewer windows; a rank for which none is left has one batch less.

    Raises StoreError, OptionError, VocabularyError.
    """

    def __init__(
        self,
        stores: Stores,
        layout: str | Path | Mapping[str, Any] | Layout = "default",
        *,
        length: int = 4096,
        batch_size: int | None = None,
        tokens: int | None = None,
        vocabulary: Vocabulary | None = None,
        episodes: Sequence[str] | None = None,
        split: str | None = None,
        splits: Mapping[str, float] = SPLITS,
        split_by: str = "source",
        curriculum: Sequence[Stage] = (),
        shuffle: bool = True,
        shuffle_span: int = SPAN,
        seed: int = 0,
        epochs: int | None = None,
        rank: int | None = None,
        world: int | None = None,
        threads: int = 0,
        pin_memory: bool = False,
        in_use: bool = False,
        io: str = "mmap",
        columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.layout, self.length, self.epochs = Layout.of(layout), length, epochs
        self.columns = columns_of(columns)
        self.batch_size = batch_size_of(length, batch_size, tokens)
        self.seed, self._shuffle, self._span, self._threads = seed, shuffle, shuffle_span, threads
        if shuffle_span < 1 or threads < 0:
            raise OptionError("loader", f"shuffle_span {shuffle_span}, threads {threads}", "at least 1 and 0")
        self._memory = Memory(pin_memory and torch.cuda.is_available())
        self.rank, self.world = place_of(rank, world)
        check_splits(splits)
        if split is not None and split not in splits:
            raise OptionError(f"loader split {split}", "is no split", f"known: {', '.join(splits)}")
        pairs = weighted(stores)
        chosen = None if split is None else (split, dict(splits), split_by)
        self._sources = [Source(path, vocabulary, episodes, chosen, io) for path, _ in pairs]
        self._weights = None if pairs[0][1] is None else whole_weights([float(w) for _, w in pairs if w is not None])
        self.vocabulary = vocabulary or common_vocabulary(self._sources)
        self._stages = tuple(curriculum) or (Stage(levels=self.layout.levels),)
        layouts = [replace(self.layout, levels=stage.levels) for stage in self._stages]
        self._numberings = [Numbering(layout, self.vocabulary, in_use) for layout in layouts]
        self._epoch = self._batch = self._turn = 0
        self._known: dict[tuple[tuple[str, ...], ...], tuple[list[str], np.ndarray, dict[tuple[str, ...], int]]] = {}

    @cached_property
    def _curriculum(self) -> Curriculum:
        orders = []
        for stage, numbering in enumerate(self._numberings):
            windows = [
                Windows(
                    source.lengths(numbering), self.length, self.seed, self._shuffle, span=self._span,
                    salt=(stage, number) if stage or number else (),
                )
                for number, source in enumerate(self._sources)
            ]  # fmt: skip
            orders.append(Order(windows, self._weights))
        return Curriculum(orders, self._stages)

    @property
    def windows(self) -> Order:
        """The windows of an epoch: `len(data.windows)`, `data.windows.ids`. Of the stage that the job is in."""
        return self._curriculum.orders[self._curriculum.stage(self._epoch)]

    @property
    def episodes(self) -> tuple[tuple[str, ...], ...]:
        """Ids of the episodes of each store that are read."""
        return tuple(source.episodes for source in self._sources)

    @cached_property
    def data_id(self) -> str:
        """16 hexadecimal digits of all that decides the order but the seed: a state fits no other data."""
        sha = hashlib.sha256()
        for order in self._curriculum.orders:
            for windows in order.sources:
                sha.update(windows.lengths.tobytes())
        said = (self.length, self._shuffle, self._span, self._weights, self._stages, self._curriculum_sizes())
        sha.update(repr(said).encode())
        return sha.hexdigest()[:16]

    def _curriculum_sizes(self) -> list[int]:
        return [len(order) for order in self._curriculum.orders]

    def state_dict(self) -> dict[str, Any]:
        """Where the job stands, counted over all ranks; valid for any number of ranks and workers.

        Worker processes run ahead of the job, and the dataset here does not see them: with `num_workers` torchdata's
        StatefulDataLoader asks each worker's own dataset, or the trainer, which knows how many batches it took, asks
        `state_after(batches)`.
        """
        state = {"epoch": self._epoch, "window": self._batch, "seed": self.seed, "data": self.data_id}
        return state if get_worker_info() is None else {**state, "turn": self._turn}

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state after every rank has taken `batches` batches more."""
        stride, epoch, window = self.batch_size * self.world, self._epoch, self._batch
        while True:
            size = self._curriculum.size(epoch)
            left = -(-(size - window) // stride)
            if batches < left:
                return {**self.state_dict(), "epoch": epoch, "window": window + batches * stride}
            batches, epoch, window = batches - left, epoch + 1, 0
            whole = -(-len(self.windows) // stride)
            if len(self._stages) == 1:  # no need to count epoch by epoch
                epoch, batches = epoch + batches // whole, batches % whole

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """state: of this class, or of torchdata's StatefulDataLoader: that loader takes its own back only with as many
        workers as before, here it stands for where the job was, and the next loader may have any number.

        Raises OptionError if it is of another seed or of other data: then the order was another.
        """
        taken = 0
        if "dataset_state" in state or "_snapshot" in state:
            state, taken = of_torchdata(state)
        if state["seed"] != self.seed:
            raise OptionError("loader seed", f"is {self.seed}, the state is of {state['seed']}", "give the same seed")
        if state.get("data", self.data_id) != self.data_id:
            raise OptionError(
                "loader state", f"is of data {state['data']}, this is {self.data_id}",
                "give the same stores, episodes, layout, length, weights and curriculum",
            )  # fmt: skip
        self._epoch, self._batch = int(state["epoch"]), int(state["window"])
        self._turn = int(state.get("turn", 0))
        if taken:
            self.load_state_dict(self.state_after(taken))

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return -(-self._curriculum.size(self._epoch) // (self.batch_size * self.world))

    def _turns(self) -> Iterator[tuple[int, range, tuple[int, int, int]]]:
        """(epoch, windows, state after it) of the batches that this rank and worker has to make."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        stride = self.batch_size * self.world
        epoch, first, turn = self._epoch, self._batch, self._turn
        while self.epochs is None or epoch < self.epochs:
            total = self._curriculum.size(epoch)
            for begin in range(first, total, stride):
                mine = range(begin + self.rank, min(begin + stride, total), self.world)
                done = begin + stride
                after = (epoch, done, turn + 1) if done < total else (epoch + 1, 0, turn + 1)
                if turn % workers == worker:
                    yield epoch, mine, after
                turn += 1
            epoch, first = epoch + 1, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for made, after in self._ahead() if self._threads else self._made():
            # What is yielded counts as taken.
            self._epoch, self._batch, self._turn = after
            if get_worker_info() is None:
                self._turn = 0
            if made is not None:
                yield made

    def _made(self) -> Iterator[tuple[dict[str, Any] | None, tuple[int, int, int]]]:
        for epoch, windows, after in self._turns():
            yield self.batch(epoch, windows) if windows else None, after

    def _ahead(self) -> Iterator[tuple[dict[str, Any] | None, tuple[int, int, int]]]:
        turns = self._turns()
        waiting: deque[tuple[Future[dict[str, Any]] | None, tuple[int, int, int]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                while True:
                    for epoch, windows, after in islice(turns, 2 * self._threads + 1 - len(waiting)):
                        waiting.append((pool.submit(self.batch, epoch, windows) if windows else None, after))
                    if not waiting:
                        return
                    future, after = waiting.popleft()
                    yield None if future is None else future.result(), after
            finally:
                for future, _ in waiting:
                    if future is not None:
                        future.cancel()

    def batch(self, epoch: int, windows: Sequence[int]) -> dict[str, Any]:
        """The windows of these numbers of an epoch, together. May be called from several threads at once."""
        rows, length = len(windows), self.length
        size = rows * length
        # One piece of memory for all columns, the widest first so that each is aligned.
        arena, flat, at = self._memory.take(size * sum(COLUMNS[name].itemsize for name in self.columns)), {}, 0
        for name in self.columns:
            flat[name] = arena[at : at + size * COLUMNS[name].itemsize].view(COLUMNS[name])
            at += flat[name].nbytes
        stage = self._curriculum.stage(epoch)
        numbering = self._numberings[stage]
        parts, sources = self._parts(stage, epoch, windows)
        if len(self._sources) == 1:
            episodes = self._sources[0].arranged(parts[:, 4].tolist(), numbering)
        else:
            episodes = [self._sources[source].arranged([at], numbering)[0] for source, at in parts[:, 3:].tolist()]
        names = [arranged.tracks for arranged in episodes]
        tracks, numbers, called = self._called(tuple(dict.fromkeys(names)))
        places, bounds = np.empty((len(parts), 6), np.int64), np.empty(len(parts) + rows + 1, np.int32)
        places[:, 0] = [arranged.address for arranged in episodes]
        places[:, 4] = 0 if len(called) == 1 else [called[name] for name in names]
        bounds = bounds[: kernels.lay_out(parts, length, places, bounds)]
        taken = Columns.of(flat)
        found = write(episodes, places, numbers, taken)
        if int(parts[:, 2].sum() - parts[:, 1].sum()) < size:
            ends = places[:, 3] + places[:, 2] - places[:, 1]
            for row_end in set(bounds.tolist()) - set(ends.tolist()) - {0}:
                begin = int(bounds[np.searchsorted(bounds, row_end) - 1])
                for name, column in flat.items():
                    column[begin:row_end] = self._padding[name]
        latents: dict[str, list[np.ndarray]] = {}
        for part, track, values in found:
            latents.setdefault(episodes[part].tracks[track], []).append(values)
        return {
            **{name: torch.from_numpy(column.reshape(rows, length)) for name, column in flat.items()},
            "tracks": list(tracks),
            "parts": torch.from_numpy(parts),
            "cu_seqlens": torch.from_numpy(bounds),
            "latents": {name: torch.from_numpy(np.concatenate(values)) for name, values in latents.items()},
            "epoch": torch.from_numpy(np.array(epoch)),
            "window": torch.from_numpy(np.array(windows, np.int64)),
            "source": torch.from_numpy(np.array(sources, np.int64)),
        }

    def _called(self, kinds: tuple[tuple[str, ...], ...]) -> tuple[list[str], np.ndarray, dict[tuple[str, ...], int]]:
        """For episodes of these tracks: names of a batch's tracks, what it calls those of each kind (uint8 (Q, 256)),
        and the row of each kind."""
        found = self._known.get(kinds)
        if found is None:
            tracks = {name: 0 for kind in kinds for name in kind}
            tracks = {name: number for number, name in enumerate(tracks)}
            numbers = np.full((len(kinds), 256), 255, np.uint8)
            for row, kind in enumerate(kinds):
                numbers[row, : len(kind)] = [tracks[name] for name in kind]
            if len(self._known) >= 1024:
                self._known.clear()
            found = self._known[kinds] = list(tracks), numbers, {kind: row for row, kind in enumerate(kinds)}
        return found

    def _parts(self, stage: int, epoch: int, windows: Sequence[int]) -> tuple[np.ndarray, list[int]]:
        """(int64 (P, 5): row of the batch, first and last + 1 id, store, episode; the store of each window)."""
        if len(self._sources) == 1:
            _, first = self._curriculum.draw(epoch, 0)
            parts = self._curriculum.orders[stage].sources[0].parts_of(first.epoch, windows)
            whole = np.zeros((len(parts), 5), np.int64)
            whole[:, :3], whole[:, 4] = parts[:, [0, 2, 3]], parts[:, 1]
            return whole, [0] * len(windows)
        drawn = [self._curriculum.draw(epoch, window)[1] for window in windows]
        rows: dict[tuple[int, int], list[int]] = {}
        for row, draw in enumerate(drawn):
            rows.setdefault((draw.source, draw.epoch), []).append(row)
        found = []
        for (source, own_epoch), mine in rows.items():
            order = self._curriculum.orders[stage].sources[source]
            parts = order.parts_of(own_epoch, [drawn[row].window for row in mine])
            whole = np.empty((len(parts), 5), np.int64)
            whole[:, 0], whole[:, 1:3] = np.array(mine)[parts[:, 0]], parts[:, 2:4]
            whole[:, 3], whole[:, 4] = source, parts[:, 1]
            found.append(whole)
        together = found[0] if len(found) == 1 else np.concatenate(found)
        if len(found) > 1:
            together = together[np.argsort(together[:, 0], kind="stable")]
        return together, [draw.source for draw in drawn]

    @cached_property
    def _padding(self) -> dict[str, int]:
        pad, control = self.vocabulary.control("pad"), ROLES.index("control")
        return {
            "ids": pad, "kind": 0, "level": 0, "track": 255, "role": control, "time_ns": 0, "document": -1,
            "loss_mask": 0,
        }  # fmt: skip
