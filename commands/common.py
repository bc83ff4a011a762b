"""What commands share: options, the configuration file, the console, progress, and how a run ends.

Standard output carries the product only. Everything else (progress, tables for people, problems) goes to
standard error, and progress shows only on a terminal.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands.cli import SOME_SKIPPED
from pantok.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

MODALITIES = ("video", "audio", "numeric", "text")

sources = click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
force = click.option("-f", "--force", is_flag=True, help="Overwrite the output if it exists.")
dry_run = click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
seed = click.option("--seed", default=0, show_default=True, help="Same input, settings and seed: same result.")
device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ...")
config_file = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Settings in TOML: tables [video], [audio], [numeric], [text], [read].",
)


def output(help_: str, required: bool = True) -> Callable[[Any], Any]:
    return click.option("-o", "--output", required=required, type=click.Path(path_type=Path), help=help_)


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

        return Console(stderr=True, highlight=False, quiet=self.quiet)

    def progress(self) -> Progress:
        """A live display on standard error; silent when that is not a terminal."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        return Progress(
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
        """One line on standard error, at once, even when quiet; the exit code will say that something was skipped."""
        text = " ".join(str(line).split())
        self.problems.append(text)
        click.echo(f"Skipped: {text}", err=True)

    def say(self, text: str = "") -> None:
        """A line for people; not with --json or --quiet."""
        if not self.as_json:
            self.console.print(text, soft_wrap=True)

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        """A table that is the product of a command: on standard output, whole also when that is a pipe or a file."""
        if self.as_json:
            return
        from rich.console import Console
        from rich.table import Table

        out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for i, name in enumerate(columns):
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in rows:
            table.add_row(*row)
        out.print(table)

    def end(self, document: Mapping[str, Any] | None = None, code: int = 0) -> None:
        """Prints the JSON document if asked for, and exits: 4 if some inputs were skipped, else `code`."""
        if self.as_json and document is not None:
            click.echo(json.dumps({**document, "problems": self.problems}, indent=2, default=str))
        sys.exit(code or (SOME_SKIPPED if self.problems else 0))


def human_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
