"""The group of commands: names and one-line helps are here, so that `pantok --help` imports none of them.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a check said no; 4 done, with some inputs skipped.
A PantokError becomes one line on standard error; a bug keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

import pantok as library
from pantok.commands.signals import StoppedError, stoppable
from pantok.errors import OptionError, PantokError

FAILED, USAGE, CHECK_FAILED, SOME_SKIPPED = 1, 2, 3, 4

COMMANDS = {
    "fit-vocab": ("fit_vocab", "Learn a vocabulary from recordings."),
    "encode": ("encode", "Turn recordings into a store of aligned token streams."),
    "decode": ("decode", "Turn token streams back into video, sound, motion and text."),
    "info": ("info", "Show what a store, a vocabulary or a recording holds."),
    "verify": ("verify", "Check every byte and every promise of a store."),
    "store": ("store", "Pack a store for transport, compact its segments."),
    "stream": ("stream", "Write ids to standard output, for a training job."),
    "export": ("export", "Write a store as the files that another trainer reads."),
    "train-wm": ("train_wm", "Train a world model on a store."),
    "simulate": ("simulate", "Show what a world model expects to happen next."),
    "eval": ("evaluate", "Measure rate and quality, beside reference codecs."),
    "vocab": ("vocab", "Show, grow, merge, prune and compare vocabularies."),
}


GO_ON = ("encode", "train-wm")
"""Commands that take up what an interrupted one of the same words had finished."""


class LazyGroup(click.Group):
    """Loads the module of a command when it is called by name; translates errors once, for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        return import_module(f"pantok.commands.{module}").command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from difflib import get_close_matches

        if args and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, 1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with stoppable():
                return super().invoke(ctx)
        except PantokError as error:
            _say(f"Error: {error}")
            sys.exit(USAGE if isinstance(error, OptionError) else FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # The reader of our output has gone (`| head`); that is not a fault. Keep the exit flush quiet.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(0)
            if error.errno in _REMEDIES:
                what, remedy = _REMEDIES[error.errno]
                _say(f"Error: {error.filename or 'output'}: {what} ({remedy})")
                sys.exit(FAILED)
            raise
        except KeyboardInterrupt as stop:
            goes_on = ctx.invoked_subcommand in GO_ON
            _say("Stopped. What was finished is kept; the same command goes on from there." if goes_on else "Stopped.")
            sys.exit(128 + (stop.number if isinstance(stop, StoppedError) else signal.SIGINT))


_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EACCES: ("permission denied", "check who may read or write it"),
    errno.EROFS: ("the file system is read-only", "write elsewhere with -o"),
}


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(library.__version__, "-V", "--version", message="pantok %(version)s")
def pantok() -> None:
    """Tokenize recordings of sight, sound, motion and text with one vocabulary.

    \b
    Example:
      pantok fit-vocab recordings/ -o home.vocab
      pantok encode recordings/ --vocab home.vocab -o home.zarr
      pantok decode home.zarr --episode kitchen-03 -o out/

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check said no, 4 some inputs were skipped.
    """
