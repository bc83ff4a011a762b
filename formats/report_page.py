"""What all pages share: one file that opens by itself, asks no other file or server for anything, and has no script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from pantok.formats.files import make_folder, replaced
from pantok.formats.report_style import STYLE

MARK = '<meta name="generator" content="pantok eval">'
"""Near the head of every page, so that a later run knows which file it may replace."""


def page(title: str, kicker: str, head: str, main: str, *, before: str = "", foot: str = "") -> str:
    """The whole page as HTML text. head, main, foot: HTML of the header, of the cards and of the footer; before: of
    what stands above the cards."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{MARK}<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1>{head}</header>'
        f"{before}<main>{main}</main>{f'<footer>{foot}</footer>' if foot else ''}</body></html>\n"
    )


def facts_list(facts: Mapping[str, str]) -> str:
    """What was asked and found, in a line or a few."""
    found = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return f'<dl class="facts">{found}</dl>'


def table(columns: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    """Words and numbers; the first of each row is its name."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for name, *row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def write_page(path: Path, text: str) -> None:
    """The page whole, or what was there before. Raises OutputError."""
    make_folder(path.parent)
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
