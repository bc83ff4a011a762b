"""Pages about a world model: what it costs to predict, how training went, and its futures beside what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from pantok.formats.report_charts import Curve, line_chart
from pantok.formats.report_exhibits import difference, image_url
from pantok.formats.report_page import page, table, write_page

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
    costs = f"<section><h2>What it costs to predict</h2>{table(tuple(columns), [list(r) for r in rows])}</section>"
    main = (costs if rows else "") + _curves(metrics) + "".join(_strip(s) for s in strips)
    write_page(path, page(title, "pantok world model", facts, main))


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
