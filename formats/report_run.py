"""Pages about a world model: what it costs to predict, how training went, and its futures beside what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pantok.errors import OutputError
from pantok.formats.report import MARK
from pantok.formats.report_charts import Curve, line_chart
from pantok.formats.report_exhibits import difference, image_url
from pantok.formats.report_style import STYLE
from pantok.formats.store_disk import reason, write_file

FRAMES = 8
"""Of a strip, evenly spread."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Frames uint8 (N, H, W, 3) in rows under one another, each with its name; the first row is what came."""

    title: str
    rows: Mapping[str, np.ndarray]
    fps: float = 0.0


def write_run_page(
    path: Path, title: str, lines: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]],
    strips: Sequence[Strip], metrics: Sequence[Mapping[str, Any]] = (),
) -> None:  # fmt: skip
    """One self-contained page. metrics: the records of a run, for its curves. Raises OutputError."""
    facts = "".join(f"<p>{escape(line)}</p>" for line in lines)
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    table = f'<section><h2>What it costs to predict</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'  # noqa: E501
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{MARK}<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><p class="kicker">pantok world model</p><h1>{escape(title)}</h1>{facts}</header><main>'
        + (table if rows else "")
        + _curves(metrics)
        + "".join(_strip(s) for s in strips)
        + "</main></body></html>\n"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write_file(path, page.encode())
    except OSError as error:
        raise OutputError(path, f"cannot be written: {reason(error)}", "choose another --html") from error


def _curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    held = tuple((float(r["step"]), float(r["bits_per_element"])) for r in metrics if "bits_per_second" in r)
    trained = tuple((float(r["step"]), float(r["bits_per_element"])) for r in metrics if "loss" in r)
    if len(held) + len(trained) < 2:
        return ""
    curves = [Curve(name, points) for name, points in (("training", trained), ("held out", held)) if points]
    chart = line_chart(curves, "step", "bits an id", log_x=False)
    return f'<section><h2>Training</h2><div class="charts"><figure>{chart}</figure></div></section>'


def _strip(strip: Strip) -> str:
    rows = dict(strip.rows)
    came, *others = rows
    count = min(len(frames) for frames in rows.values())
    chosen = sorted({round(k * (count - 1) / max(1, FRAMES - 1)) for k in range(min(FRAMES, count))})
    out = [f"<section><h2>{escape(strip.title)}</h2>"]
    for name, frames in rows.items():
        out.append(f'<h3>{escape(name)}</h3><div class="pictures">')
        out += [_figure(frames[k], _when(strip, k)) for k in chosen]
        out.append("</div>")
    for name in others[:1]:
        out.append(f'<h3>{escape(name)}: difference, four times</h3><div class="pictures">')
        out += [_figure(difference(rows[came][k], rows[name][k]), _when(strip, k)) for k in chosen]
        out.append("</div>")
    return "".join([*out, "</section>"])


def _when(strip: Strip, frame: int) -> str:
    return f"{frame / strip.fps:.2f} s" if strip.fps else f"frame {frame + 1}"


def _figure(picture: np.ndarray, caption: str) -> str:
    return f'<figure><img src="{image_url(picture)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'  # noqa: E501
