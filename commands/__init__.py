"""The command line. Composes everything; alone knows click, rich and exit codes."""

from __future__ import annotations


def main() -> None:
    """Entry point of `pantok` and `python -m pantok`."""
    from pantok.commands.cli import pantok

    pantok(prog_name="pantok")
