"""`pantok stream`: windows of ids on standard output, for a training job."""

from __future__ import annotations

import fcntl
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common
from pantok.errors import OptionError

if TYPE_CHECKING:
    from pantok.loader import StreamDataset

_PIPE_BYTES = 1 << 20
"""Linux gives a pipe 64 KiB: then writer and reader wake each other sixteen times as often."""
_FORMATS = ("arrow", "jsonl", "npy", "wds", "plan")


@click.command("stream")
@click.argument("store", type=common.STORE)
@click.option("--format", "form", type=click.Choice(_FORMATS), default="arrow", show_default=True)
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@click.option("--vocab", type=click.Path(path_type=Path), help="Read it under a later vocabulary.  [default: its own]")
@click.option("--in-use", is_flag=True, help="Instead of codes that were retired since, what stands for them now.")
@click.option("--length", type=click.IntRange(min=2), default=4096, show_default=True, help="Ids of a window.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Windows written at a time.")
@click.option("--episode", "episodes", multiple=True, help="Stream these (or patterns) alone; may be repeated.")
@click.option("--shuffle", is_flag=True, help="Episodes and windows in the order that the seed gives.")
@common.seed
@click.option("--repeat", type=click.IntRange(min=0), default=1, show_default=True, help="Epochs; 0 goes on for ever.")
@click.option("--rank", type=int, default=0, help="Which of --world shares to write.")
@click.option("--world", type=click.IntRange(min=1), default=1, help="Shares that the windows are dealt into.")
@click.option(
    "--io",
    type=click.Choice(["mmap", "pread"]),
    default="mmap",
    show_default=True,
    help="Map the files; pread reads them, for network file systems.",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    help="What to write of each id: ids, kind, level, document, time_ns, track, role, loss_mask.  [default: the first "
    "five; ids for npy]",
)
@click.option("--from", "resume", metavar="TOKEN", help="Go on after the record that carried this `resume`.")
def command(
    store: Path, form: str, layout: str, vocab: Path | None, in_use: bool, length: int, batch: int,
    episodes: tuple[str, ...], shuffle: bool, seed: int, repeat: int, rank: int, world: int, io: str,
    columns: str | None, resume: str | None,
) -> None:  # fmt: skip
    """Write a store as windows of ids to standard output.

    arrow: the stream format of Arrow IPC, columns ids, kind, level, document, time_ns (lists), epoch, window, resume.
    jsonl: one JSON object a window. npy: one uint32 array (windows, length) of ids. wds: a tar as webdataset reads it.
    --columns says which are wanted: others are neither computed nor written. With `track`, which numbers the tracks,
    each record has their names, `tracks`.
    plan: JSON lines that say where in the files of the store each window's codes lie, for a trainer that maps them.

    \b
    Example:
      pantok stream home.zarr --shuffle --repeat 0 | python train.py
      pantok stream home.zarr --columns ids,time_ns --shuffle --repeat 0 | python train.py
      pantok stream home.zarr --format npy --length 2048 > home.npy
      pantok stream home.zarr --format wds | python train.py
      pantok stream home.zarr --vocab later.vocab | python train.py
    """
    if sys.stdout.isatty() and form not in ("jsonl", "plan"):
        raise OptionError("standard output", f"is a terminal, and {form} is not for reading", "pipe it, or > FILE")
    if form == "npy" and repeat == 0:
        raise OptionError("--repeat 0", "has no end, and an .npy says its length first", "choose arrow or jsonl")
    from pantok.formats import id_streams
    from pantok.loader import StreamDataset

    wanted = _columns(columns, form)

    vocabulary = None if vocab is None else common.vocabulary_for(store, vocab)
    if form == "plan" and "composition" in common.vocabulary_for(store, vocab).states:
        raise OptionError(
            f"--vocab {vocab or store}", "composes ids, and a plan names codes as they lie", "choose arrow or npy"
        )
    if episodes:
        from pantok.formats.store import Store

        episodes = tuple(common.choose(Store.open(store).episodes, episodes, "--episode"))
    data = StreamDataset(
        store, layout, length=length, batch_size=batch, vocabulary=vocabulary, episodes=episodes or None,
        shuffle=shuffle, seed=seed, epochs=repeat or None, rank=rank, world=world, in_use=in_use, io=io,
        threads=0 if form == "plan" else 1, columns=wanted,
    )  # fmt: skip
    if resume is not None:
        data.load_state_dict(_state(resume, data))
    out = sys.stdout.buffer
    if form == "plan":
        from pantok.formats.id_plan import Planner
        from pantok.formats.id_plan import write as write_plan

        write_plan(Planner(store, data.layout, data.vocabulary, in_use), _windows(data), out, length)
        return
    with suppress(AttributeError, OSError):  # no pipe, or no Linux: a wider pipe is a convenience
        fcntl.fcntl(out.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    id_streams.write(_records(data), form, out, _count(data), length, wanted)


def _columns(given: str | None, form: str) -> tuple[str, ...]:
    from pantok.formats.id_streams import COLUMNS, USUAL

    if given is None:
        return ("ids",) if form in ("npy", "plan") else USUAL
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in COLUMNS:
            raise OptionError(f"--columns {name}", "is no column", f"known: {', '.join(COLUMNS)}")
    if form == "plan" or (form == "npy" and len(names) > 1):
        many = "has none" if form == "plan" else "is one array"
        raise OptionError(f"--columns {given}", f"a {form} {many}", "choose arrow, jsonl or wds")
    return names


def _records(data: StreamDataset) -> Iterator[dict[str, Any]]:
    about = {"vocabulary_id": data.vocabulary.id, "ids": data.vocabulary.size, "length": data.length}
    for batch in data:
        epoch, windows = int(batch["epoch"]), batch["window"].tolist()
        yield {
            **{k: batch[k].numpy() for k in (*data.columns, "window")},
            "tracks": batch["tracks"],
            "epoch": epoch,
            "resume": _resume(data, epoch, windows),
            "about": about,
        }


def _resume(data: StreamDataset, epoch: int, windows: Sequence[int]) -> list[str]:
    """Where to go on after each window of a batch."""
    total = len(data.windows)
    if data.world == 1:
        after = [w + 1 for w in windows]
    else:
        # The other shares are as far as this one to the batch: within it the batch is taken up again.
        stride = data.batch_size * data.world
        begin = windows[0] - data.rank
        after = [begin] * (len(windows) - 1) + [begin + stride]
    return [f"{epoch + (w >= total)}.{w if w < total else 0}.{data.seed}.{data.data_id}" for w in after]


def _windows(data: StreamDataset) -> Iterator[dict[str, Any]]:
    """What each window is made of."""
    (names,), order, stride = data.episodes, data.windows, data.batch_size * data.world
    epoch, first = data.state_dict()["epoch"], data.state_dict()["window"]
    while data.epochs is None or epoch < data.epochs:
        for begin in range(first, len(order), stride):
            windows = range(begin + data.rank, min(begin + stride, len(order)), data.world)
            if windows:
                parts = order.sources[0].parts_of(epoch, windows).tolist()
                for row, (window, resume) in enumerate(zip(windows, _resume(data, epoch, windows), strict=True)):
                    mine = [(names[e], a, b) for r, e, a, b in parts if r == row]
                    yield {"epoch": epoch, "window": window, "resume": resume, "parts": mine}
        epoch, first = epoch + 1, 0


def _count(data: StreamDataset) -> int:
    """Windows that will be written."""
    if data.epochs is None:
        return 0
    state, total = data.state_dict(), len(data.windows)
    spans = [range(state["window"] if e == state["epoch"] else 0, total) for e in range(state["epoch"], data.epochs)]
    stride = data.batch_size * data.world
    return sum(len(range(b + data.rank, min(b + stride, total), data.world)) for s in spans for b in s[::stride])


def _state(token: str, data: StreamDataset) -> dict[str, Any]:
    """Raises OptionError for what no record of this stream carries. Tokens of before do not name their data."""
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)(?:\.(\w+))?", token)
    if found is None:
        raise OptionError(f"--from {token}", "is no resume token", "take it from a record's `resume`")
    epoch, window, seed = (int(part) for part in found.groups()[:3])
    if window >= len(data.windows) or (data.epochs is not None and epoch > data.epochs):
        raise OptionError(
            f"--from {token}", f"is beyond the end: there are {len(data.windows)} windows in an epoch",
            "give the options of the stream that it is of",
        )  # fmt: skip
    return {"epoch": epoch, "window": window, "seed": seed, "data": found.group(4) or data.data_id}
