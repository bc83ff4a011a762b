"""What commands share: options, the configuration file, the console, progress, and how a run ends.

Standard output carries the product only. Everything else (progress, tables for people, problems) goes to
standard error, and progress shows only on a terminal.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pantok.commands import phrases
from pantok.commands.cli import SOME_SKIPPED
from pantok.errors import InputError, OptionError, PantokError
from pantok.formats.addresses import Place, is_remote

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from pantok.experience import Episode
    from pantok.formats.folder import EpisodeFiles, ReadOptions
    from pantok.stream import TokenStream
    from pantok.vocabulary import Vocabulary

T = TypeVar("T")
MODALITIES = ("video", "audio", "numeric", "text")
SHOWN = 50
"""Episodes that a table for people shows; --json tells all."""

STORE = click.Path(path_type=Place)
"""A store: a path, or an address in object storage."""


class _Here(click.Path):
    """What is written on this machine."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if is_remote(value):
            raise OptionError(value, "is in object storage, where only `encode` writes", "-o names a path here")
        return super().convert(value, param, ctx)


sources = click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
force = click.option("-f", "--force", is_flag=True, help="Overwrite the output if it exists.")
dry_run = click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Same input, settings and seed: same result.",
)
device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ...")
config_file = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Settings in TOML: tables [video], [audio], [numeric], [text], [read].",
)


def output(help_: str, required: bool = True, type_: click.Path | None = None) -> Callable[[Any], Any]:
    """type_: `STORE` where it may be an address in object storage."""
    given = type_ or _Here(path_type=Path)
    return click.option("-o", "--output", required=required, type=given, help=help_)


_size = click.option("--size", type=int, help="Resample video: shorter side in pixels.  [default: as it is]")
_fps = click.option("--fps", help="Resample video: frames a second (30, 30000/1001).  [default: as it is]")


def resampling(function: Any) -> Any:
    """`--size` and `--fps`."""
    return _size(_fps(function))


class _Seconds(click.ParamType):
    """`12.5` or `1:02.5` as integer nanoseconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        try:
            *large, seconds = str(value).split(":")
            whole = 0
            for part in large:
                whole = whole * 60 + int(part)
            found = int((whole * 60 + Fraction(seconds)) * 1_000_000_000)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no time, such as 12.5 or 1:02.5 (minutes:seconds)", param, ctx)
        if abs(found) >= 1 << 62:
            self.fail(f"{value!r} is more than a hundred years", param, ctx)
        return found


SECONDS = _Seconds()


def pairs(
    values: Iterable[str], flag: str, convert: Callable[[str], Any], example: str = "0.01, or NAME=0.01"
) -> Iterator[tuple[str, Any]]:
    """`NAME=VALUE` or `VALUE` (then the name is ''), converted. Raises OptionError."""
    for text in values:
        name, equals, value = text.rpartition("=")
        try:
            yield name, convert(value if equals else text)
        except ValueError as error:
            raise OptionError(flag, f"cannot be {text!r}", f"e.g. {example}") from error


def rate_bits(text: str) -> float:
    """`300k`, `1.5M`, `9200` as bits a second."""
    scale = {"k": 1e3, "m": 1e6}.get(text[-1:].lower(), 1.0)
    return float(text[:-1] if scale != 1.0 else text) * scale


def refuse_existing(path: Path, force: bool) -> None:
    """Before any work. Raises OptionError."""
    if not force and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OptionError(path, "is there already", "--force overwrites it, -o names another")
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise OptionError(path, f"{parent} is a file, not a folder", "-o names another place")
            break


def refuse_vocabulary(path: Path, force: bool) -> None:
    """Before any work: as `refuse_existing`, and --force replaces a vocabulary alone. Raises VocabularyError, too."""
    from pantok.formats.vocab import may_replace

    refuse_existing(path, force)
    may_replace(path, force)


def check_device(device: str) -> None:
    """Before any work. Raises OptionError for one that torch does not know, or that this machine has not."""
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
        raise OptionError(f"--device {device}", "there is no such device here", "--device cpu") from error


def read_bytes(path: Path) -> bytes:
    from pantok.formats.files import read_bytes as read

    return read(path)


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    from pantok.formats.files import size_of

    return size_of(path)


def reading(settings: Mapping[str, Mapping[str, Any]], size: int | None, fps: str | None) -> ReadOptions:
    """How recordings are resampled on the way in: flags over the [read] table. Raises OptionError."""
    from pantok.config import from_mapping
    from pantok.formats.folder import ReadOptions

    given = {k: v for k, v in (("size", size), ("fps", fps)) if v is not None}
    return from_mapping(ReadOptions, {**settings.get("read", {}), **given}, "read")


def find_episodes(run: Run, sources: Iterable[Path]) -> list[EpisodeFiles]:
    from pantok.formats import folder

    return folder.find_episodes(sources, run.problem)


def episodes(run: Run, found: Iterable[EpisodeFiles], options: ReadOptions) -> list[Episode]:
    """The episodes opened; one that cannot be is a problem line. Raises InputError if none can."""
    from pantok.formats.folder import read_episode

    opened = []
    for files in found:
        try:
            opened.append(read_episode(files, options, run.problem))
        except InputError as error:
            run.problem(error)
    if not opened:
        raise InputError("recordings", "none can be read", "see the lines above")
    return opened


def recording_of(stream: TokenStream, folder: Path | None) -> Episode:
    """The recording that `stream` was made from, read as it was read for encoding.

    folder: where the recordings are now, if they have moved. Raises InputError if it is missing or another.
    """
    from pantok.config import from_mapping
    from pantok.formats.folder import ReadOptions, find_again, read_episode
    from pantok.formats.originals import locate

    problems: list[str] = []
    try:
        if not stream.sources:
            raise InputError(stream.id, "does not say which recordings it was made from")
        paths = locate(stream.sources, folder)
        reading = from_mapping(ReadOptions, stream.parameters.get("read", {}), f"{stream.id}: read")
        # What was wrong with the files was said when they were encoded.
        return read_episode(find_again(stream.id, paths), reading, problems.append)
    except PantokError as error:
        raise InputError(stream.id, "; ".join([*problems, str(error)])) from error


def span_ns(stream: TokenStream) -> tuple[int, int]:
    """From where the first of its tracks begins to where the last one ends; (0, 0) if nothing is in them."""
    clocks = [t.clock for t in stream.tracks.values() if t.ticks]
    spans = [(int(c.start_ns), int(c.start_ns) + c.duration_ns) for c in clocks] or [(0, 0)]
    return min(start for start, _ in spans), max(end for _, end in spans)


def vocabulary_for(store: Path, path: Path | None) -> Vocabulary:
    """The vocabulary that was named, else the store's own. Raises OptionError, VocabularyError."""
    from pantok.formats.store_remote import mirror_of
    from pantok.formats.store_vocabularies import newest_folder
    from pantok.formats.vocab import load_vocabulary

    if path is not None:
        return load_vocabulary(path)
    here = mirror_of(store) if is_remote(store) else store
    if (here / "vocabulary").is_dir():
        return load_vocabulary(newest_folder(here))
    raise OptionError("--vocab", "is missing", "name a vocabulary; `pantok fit-vocab` makes one")


def check_settings(settings: Mapping[str, Mapping[str, Any]], kinds: Iterable[str]) -> None:
    """Raises OptionError for a setting of `encode` that there is not, before any work."""
    from pantok import tokenizers

    for kind in (k for k in kinds if k in MODALITIES):  # compositions are made of ids, not of recordings
        tokenizers.options_of(kind, settings.get(kind, {}))


def choose(available: Iterable[str], wanted: Sequence[str], what: str) -> list[str]:
    """All, or those named; a name may be a pattern (`kitchen-*`). Raises OptionError for one that fits nothing."""
    from fnmatch import fnmatchcase

    names = list(available)
    as_they_are = set(names).intersection(wanted)  # `take[1]` may be a name

    def fits(name: str, pattern: str) -> bool:
        return name == pattern if pattern in as_they_are else fnmatchcase(name, pattern)

    for pattern in wanted:
        if not any(fits(n, pattern) for n in names):
            near = get_close_matches(pattern, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names[:8])}"
            raise OptionError(f"{what} {pattern}", "is not there", hint)
    return [n for n in names if not wanted or any(fits(n, p) for p in wanted)]


def plan_document(found: Sequence[EpisodeFiles]) -> dict[str, Any]:
    told = [{"id": f.id, "files": [str(p) for p in f.paths]} | ({"part": f.part} if f.part else {}) for f in found]
    return {"episodes": told}


def show_plan(run: Run, found: Sequence[EpisodeFiles]) -> None:
    """The first episodes and their files, as a table."""
    rows = []
    for files in found[:SHOWN]:
        size = phrases.human_bytes(sum(tree_bytes(p) for p in files.paths if p.exists()))
        shared = ", shared" if files.part else ""
        rows.append([files.id, ", ".join(p.name for p in files.paths), size + shared])
    run.table(phrases.counted(len(found), "episode"), ["episode", "files", "size"], rows)
    say_unshown(run, len(found))


def say_unshown(run: Run, count: int) -> None:
    """That a table shows the first of `count` episodes alone, if it does."""
    if count > SHOWN:
        run.say(f"… and {phrases.counted(count - SHOWN, 'episode')} more: --json tells all.")


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file; none if there is no file. Raises OptionError."""
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(path, f"cannot be read: {error.strerror}", "give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(path, f"is not TOML: {error}", "see the README for an example") from error
    for name, table in tables.items():
        if name not in (*MODALITIES, "read") or not isinstance(table, Mapping):
            raise OptionError(f"{path}: {name}", "is not a table of settings", f"tables: {', '.join(MODALITIES)}, read")
    return tables


def override(settings: dict[str, dict[str, Any]], modality: str, **values: Any) -> None:
    """Flags win over the file; a flag that was not given (None) changes nothing."""
    given = {k: v for k, v in values.items() if v is not None}
    if given:
        settings[modality] = {**settings.get(modality, {}), **given}


@dataclass
class Run:
    """One run of a command: its console, its problems, and its end."""

    quiet: bool = False
    as_json: bool = False
    problems: list[str] = field(default_factory=list)

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False, quiet=self.quiet, width=None if sys.stderr.isatty() else 200)

    def progress(self, below: Callable[[], Table | None] = lambda: None) -> Progress:
        """A live display on standard error; silent when that is not a terminal. below: what stands under the bar."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        class Display(Progress):
            def get_renderables(self) -> Iterator[Any]:
                yield self.make_tasks_table(self.tasks)
                if (table := below()) is not None:
                    yield table

        return Display(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}% {task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.quiet or not sys.stderr.isatty(),
        )

    def problem(self, line: object) -> None:
        """One line on standard error, at once, even when quiet; the exit code will say that something was skipped.

        What was said is not said again: what is wrong with a file is so for each of the recordings in it.
        """
        text = " ".join(str(line).split())
        if text in self.problems:
            return
        self.problems.append(text)
        click.echo(f"Skipped: {text}", err=True)

    def watched(self, many: Iterable[T], total: int, doing: str) -> Iterator[T]:
        """The same, with a live display of how many there have been."""
        with self.progress() as bar:
            task = bar.add_task(doing, total=total, note="")
            for number, one in enumerate(many):
                bar.update(task, completed=number, note=f"{number + 1} of {phrases.counted(total, 'episode')}")
                yield one

    def say(self, text: str = "") -> None:
        """A line for people; not with --json or --quiet."""
        if not self.as_json:
            self.console.print(text, soft_wrap=True)

    def table(self, title: str, columns: list[str], rows: list[list[str]], words: Collection[str] = ()) -> None:
        """A table that is the product of a command: on standard output, whole also when that is a pipe or a file."""
        if self.as_json:
            return
        from rich.console import Console

        out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        if title:
            out.print(title, style="bold", soft_wrap=True)
        out.print(table_of(columns, rows, words))

    def summary(self, columns: list[str], rows: list[list[str]]) -> None:
        """A table for people, on standard error; not with --json or --quiet."""
        if not self.as_json:
            self.console.print(table_of(columns, rows))

    def end(self, document: Mapping[str, Any] | None = None, code: int = 0) -> None:
        """Prints the JSON document if asked for, and exits: 4 if some inputs were skipped, else `code`."""
        if self.as_json and document is not None:
            click.echo(json.dumps({**document, "problems": self.problems}, indent=2, default=str))
        sys.exit(code or (SOME_SKIPPED if self.problems else 0))


def table_of(columns: list[str], rows: list[list[str]], words: Collection[str] = ()) -> Table:
    """Without lines; the first column and those of `words` to the left, all others to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 or name in words else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table
