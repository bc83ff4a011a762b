"""`pantok store`: pack a store for transport, compact its segments, lay its episodes out for training jobs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pantok.commands import common, phrases
from pantok.errors import OptionError
from pantok.formats.addresses import is_remote


@click.group("store")
def command() -> None:
    """Pack a store for transport, compact what many writers left, lay episodes out for training jobs.

    \b
    Example:
      pantok store pack home.zarr -o home.packed.zarr
      pantok store compact home.zarr
      pantok store arrange home.zarr
    """


_store = click.argument("store", type=common.STORE)
_bytes = click.option(
    "--segment-bytes", default="256M", show_default=True, metavar="SIZE", help="How large segments may become."
)
_episodes = click.option(
    "--segment-episodes", type=int, default=10_000, show_default=True, help="Episodes of a segment at most."
)


def size_bytes(text: str) -> int:
    """`256M`, `1.5G`, `4096` as bytes (powers of 1,024). Raises OptionError."""
    scale = {"k": 10, "m": 20, "g": 30, "t": 40}.get(text[-1:].lower(), 0)
    try:
        return int(float(text[:-1] if scale else text) * (1 << scale))
    except (ValueError, OverflowError):
        raise OptionError("--segment-bytes", f"cannot be {text!r}", "such as 256M or 1.5G") from None


@command.command("pack")
@_store
@common.output("The store to write.")
@click.option("--plain", is_flag=True, help="Do not compress: the copy can be mapped by training jobs.")
@_bytes
@_episodes
@common.force
@common.as_json
@common.quiet
def pack(
    store: Path, output: Path, plain: bool, segment_bytes: str, segment_episodes: int, force: bool, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Write a copy of a store in few files, compressed for transport.

    The copy is a store like any other: it opens, reads, verifies and trains, with the same digest. Reading it costs
    unpacking; `--plain` turns a packed store back into one that is mapped.

    \b
    Example:
      pantok store pack home.zarr -o home.packed.zarr
      pantok store pack home.packed.zarr -o home.zarr --plain
    """
    from pantok.formats.store import Store
    from pantok.formats.store_merge import MergeConfig
    from pantok.formats.store_merge import pack as pack_store

    run = common.Run(quiet, as_json)
    config = MergeConfig(bytes=size_bytes(segment_bytes), episodes=segment_episodes)
    if output.absolute() == store.absolute():
        raise OptionError(output, "is the store itself", "-o names another place")
    opened = Store.open(store)
    with run.progress() as bar:
        task = bar.add_task("pack", total=None, note="")
        done = pack_store(
            opened, output, config, not plain, force, lambda n, all_: bar.update(task, completed=n, total=all_)
        )
    before, after = opened.sizes().bytes, Store.open(output).sizes().bytes
    run.say(
        f"{output}: {phrases.counted(done.episodes, 'episode')} in {phrases.counted(done.segments_after, 'segment')}, "
        f"{phrases.human_bytes(after)} of {phrases.human_bytes(before)}."
    )
    run.end(_document(store, done, output=str(output), bytes_before=before, bytes_after=after, digest=opened.digest()))


@command.command("compact")
@_store
@click.option("--packed", is_flag=True, help="Compress the merged segments.")
@click.option("--keep", is_flag=True, help="Leave the old segments in place; a later compact or encode removes them.")
@_bytes
@_episodes
@common.dry_run
@common.as_json
@common.quiet
def compact(
    store: Path, packed: bool, keep: bool, segment_bytes: str, segment_episodes: int, dry_run: bool, as_json: bool,
    quiet: bool,
) -> None:  # fmt: skip
    """Merge many small segments into few large ones, and free what was replaced or removed.

    Readers and writers may go on meanwhile; killed at any moment it loses nothing, and run again it goes on. No digest
    changes.

    \b
    Example:
      pantok store compact home.zarr --dry-run
    """
    from pantok.formats.store import Store
    from pantok.formats.store_merge import MergeConfig, Merged, plan
    from pantok.formats.store_merge import compact as compact_store

    run = common.Run(quiet, as_json)
    config = MergeConfig(bytes=size_bytes(segment_bytes), episodes=segment_episodes)
    opened = Store.open(store)
    if dry_run:
        groups, before = plan(opened, config)
        moved = sum(map(len, groups))
        emptied = {e.segment for group in groups for e in group}
        done = Merged(moved, before, before - len(emptied) + len(groups))
        run.say(_words(store, done, "would be merged"))
        run.end(_document(store, done, dry_run=True))
    with run.progress() as bar:
        task = bar.add_task("compact", total=None, note="")
        done = compact_store(
            opened, config, packed, not keep, lambda n, all_: bar.update(task, completed=n, total=all_)
        )
    run.say(_words(store, done, "merged"))
    run.end(_document(store, done, digest=opened.digest()))


@command.command("arrange")
@_store
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@click.option("--vocab", type=click.Path(path_type=Path), help="For a later vocabulary.  [default: the store's own]")
@click.option("--in-use", is_flag=True, help="Instead of codes that were retired since, what stands for them now.")
@common.as_json
@common.quiet
def arrange(store: Path, layout: str, vocab: Path | None, in_use: bool, as_json: bool, quiet: bool) -> None:
    """Lay the episodes of a store out for a layout, once, so that training jobs of it read twice as fast.

    Jobs find what is laid out by themselves; their ids and their order are the same with it and without. It lies in the
    store's .cache, takes about as much room as the codes, and may be removed at any time. After more episodes are
    encoded, run it again: only these are laid out.

    \b
    Example:
      pantok store arrange home.zarr --layout coarse
    """
    from pantok.formats.store import Store
    from pantok.formats.store_laid import arrange as arrange_store
    from pantok.layout import Layout

    run = common.Run(quiet, as_json)
    if is_remote(store):
        raise OptionError(store, "is in object storage", "arrange a copy of it on this machine")
    vocabulary = None if vocab is None else common.vocabulary_for(store, vocab)
    opened = Store.open(store, vocabulary)
    with run.progress() as bar:
        task = bar.add_task("arrange", total=None, note="")
        done = arrange_store(
            opened, Layout.of(layout), vocabulary, in_use, lambda n, all_: bar.update(task, completed=n, total=all_)
        )
    run.say(
        f"{store}: {phrases.counted(done.episodes, 'episode')} laid out for layout {layout}, {done.laid} of them now: "
        f"{done.ids:,} ids in {phrases.human_bytes(done.bytes)}."
    )
    run.end({"store": str(store), "layout": layout, **asdict(done)})


def _words(store: Path, done: Any, what: str) -> str:
    kept = f"; {phrases.counted(done.kept, 'episode')} changed meanwhile and stay where they are" if done.kept else ""
    swept = f"; {phrases.counted(done.swept, 'folder')} removed that nothing needs" if done.swept else ""
    return (
        f"{store}: {phrases.counted(done.episodes, 'episode')} {what}, "
        f"{phrases.counted(done.segments_before, 'segment')} before, {done.segments_after} after{kept}{swept}."
    )


def _document(store: Path, done: Any, **more: Any) -> dict[str, Any]:
    return {"store": str(store), **asdict(done), **more}
