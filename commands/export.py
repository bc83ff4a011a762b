"""`pantok export`: a store as the files that other trainers read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common, phrases
from pantok.errors import OptionError, PantokError, StoreError

if TYPE_CHECKING:
    from pantok.formats.id_exports import Record
    from pantok.formats.store import Store
    from pantok.layout_columns import Numbering

_FORMATS = ("webdataset", "mds", "parquet", "megatron")


@click.command("export")
@click.argument("store", type=common.STORE)
@click.option("--to", "form", type=click.Choice(_FORMATS), required=True, help="For which reader.")
@common.output("The folder to write.")
@click.option("--layout", default="default", show_default=True, help="A preset, or a TOML file.")
@click.option("--vocab", type=click.Path(path_type=Path), help="Read it under a later vocabulary.  [default: its own]")
@click.option("--in-use", is_flag=True, help="Instead of codes that were retired since, what stands for them now.")
@click.option(
    "--length", type=click.IntRange(min=2), help="Cut episodes into records of so many ids.  [default: whole]"
)
@click.option("--episode", "episodes", multiple=True, help="Export these (or patterns) alone; may be repeated.")
@common.force
@common.as_json
@common.quiet
def command(
    store: Path, form: str, output: Path, layout: str, vocab: Path | None, in_use: bool, length: int | None,
    episodes: tuple[str, ...], force: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write a store as the files that another trainer reads.

    A record is an episode's sequence of ids, or with --length a run of it; records never cross episodes, so the last
    run of an episode may be shorter. Beside the ids stand their kinds, levels and instants (megatron: the ids alone).

    \b
    Example:
      pantok export home.zarr --to mds -o home_mds/ --length 4096
    """
    from pantok.formats import id_exports
    from pantok.formats.files import make_folder, unwritable
    from pantok.formats.store import Store
    from pantok.formats.store_disk import publish, staged, sweep_stages
    from pantok.layout import Layout
    from pantok.layout_columns import Numbering

    run = common.Run(quiet, as_json)
    common.refuse_existing(output, force)
    if output.absolute() == store.absolute():
        raise OptionError(output, "is the store itself", "-o names another folder")
    id_exports.may_replace(output)
    vocabulary = None if vocab is None else common.vocabulary_for(store, vocab)
    chosen, opened = Layout.of(layout), Store.open(store, vocabulary)
    vocabulary = vocabulary or opened.vocabulary
    names = common.choose(opened.episodes, episodes, "--episode") if episodes else list(opened.episodes)
    if not names:
        raise StoreError(store, "holds no episodes", "encode some first")
    numbering = Numbering(chosen, vocabulary, in_use).of_codes(opened.vocabulary)
    about = {
        "vocabulary_id": vocabulary.id, "size": vocabulary.size, "layout": layout, "length": length,
        "episodes": len(names),
    }  # fmt: skip
    # Made beside its place and moved there when whole, so that a folder of that name is a whole export.
    place = output.absolute()
    make_folder(place.parent)
    try:
        sweep_stages(place.parent, place.name)
        with staged(place.parent, place.name) as stage:
            done = id_exports.write(_records(opened, names, numbering, length), form, stage, about)
            publish(stage, place, replace=force)
    except PantokError:
        raise  # what the store says is wrong with it
    except OSError as error:
        raise unwritable(output, error) from error
    size = common.tree_bytes(output)
    run.say(
        f"{output}: {phrases.counted(done.records, 'record')}, {phrases.counted(done.ids, 'id')}, "
        f"{phrases.human_bytes(size)}, for {form}"
    )
    run.end({"output": str(output), "bytes": size, "format": form, "records": done.records, "ids": done.ids, **about})


def _records(store: Store, names: Sequence[str], numbering: Numbering, length: int | None) -> Iterator[Record]:
    from pantok.formats.id_exports import Record
    from pantok.formats.store_columns import episode_columns
    from pantok.layout_composed import arranged

    for name in names:
        store.read(name)  # every byte of it compared with its checksum
        sequence = arranged(episode_columns(store, name, numbering), numbering).cut()
        step = length or len(sequence)
        for start in range(0, len(sequence), step):
            yield Record(name, start, sequence.cut(start, start + step))
