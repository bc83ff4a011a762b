"""A page about futures: what came, what a world model expected instead, and the last moment repeated, side by side.

Rows are what came, each future and copy-last, columns are times. Sound is drawn as waveforms and spectrograms and can
be played; motion is drawn, what came broad with the futures thin over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from pantok.formats.report_charts import Curve, line_chart, traces_of
from pantok.formats.report_exhibits import image_url, sound_url, spectrogram
from pantok.formats.report_page import facts_list, page, table, write_page

CAME = "recorded"
COPIED = "the last one again"
CHANNELS = 12
"""Of a track of motion that are drawn."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """times_s: of the columns. rows: by name, a picture uint8 (H, W, 3) for each time, or None where there is none.
    psnr_db: by name, of each second that begins with what there is a recording of, and of all of them last."""

    track: str
    times_s: Sequence[float]
    rows: Mapping[str, Sequence[np.ndarray | None]]
    psnr_db: Mapping[str, Sequence[float]]


@dataclass(frozen=True, eq=False)
class Sounds:
    """rows: by name, float32 (n, channels) within -1 .. 1."""

    track: str
    sample_rate: int
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Motion:
    """times_s: float64 (n,). rows: by name, float64 (n, channels), NaN where there is nothing."""

    track: str
    times_s: np.ndarray
    channels: Sequence[str]
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Words:
    """rows: by name, what is said."""

    track: str
    rows: Mapping[str, str]


Part = Pictures | Sounds | Motion | Words


def write_futures_page(path: Path, title: str, facts: Mapping[str, str], parts: Sequence[Part]) -> None:
    """One self-contained page. Raises OutputError."""
    write_page(path, page(title, "pantok simulate", facts_list(facts), "".join(map(_section, parts)), foot=_FOOT))


_FOOT = (
    "<p>What came is shown as its tokens decode it; PSNR is of all pixels of a second against that, copy-last the "
    "frame before the first one, repeated. Times count from where the simulation begins.</p>"
)


def _section(part: Part) -> str:
    kinds = {Pictures: _pictures, Sounds: _sounds, Motion: _motion, Words: _words}
    return f"<section><h2>{escape(part.track)}</h2>{kinds[type(part)](part)}</section>"  # type: ignore[operator]


def _pictures(part: Pictures) -> str:
    head = "".join(f"<th>{t:.2f} s</th>" for t in part.times_s)
    body = []
    for name, pictures in part.rows.items():
        cells = "".join(
            "<td></td>" if p is None else f'<td><img src="{image_url(p)}" alt="{escape(name)} at {t:.2f} s"></td>'
            for p, t in zip(pictures, part.times_s, strict=True)
        )
        body.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    sheet = f'<div class="scroll"><table class="sheet"><thead><tr><th></th>{head}</tr></thead><tbody>'
    return f"{sheet}{''.join(body)}</tbody></table></div>{_psnr(part)}"


def _psnr(part: Pictures) -> str:
    if not part.psnr_db:
        return ""
    seconds = max(map(len, part.psnr_db.values())) - 1
    columns = ["PSNR, dB", *(f"{k} to {k + 1} s" for k in range(seconds)), "all"]
    rows = [[name, *(f"{v:.2f}" for v in values)] for name, values in part.psnr_db.items()]
    futures = [values[:-1] for name, values in part.psnr_db.items() if name != COPIED]
    curves = []
    if seconds > 1 and futures:
        mean = np.mean(futures, 0)
        curves.append(Curve("simulated", tuple((k + 0.5, float(v)) for k, v in enumerate(mean))))
        copied = part.psnr_db.get(COPIED, ())[:-1]
        curves.append(Curve(COPIED, tuple((k + 0.5, float(v)) for k, v in enumerate(copied))))
    chart = line_chart([c for c in curves if c.points], "seconds", "PSNR, dB", log_x=False) if curves else ""
    found = table(columns, rows)
    return f'<div class="charts"><figure>{found}</figure><figure>{chart}</figure></div>' if chart else found


def _sounds(part: Sounds) -> str:
    out, loudest = [], None
    for name, samples in part.rows.items():
        if not len(samples):
            continue
        picture, loudest = spectrogram(samples, part.sample_rate, loudest)
        mono = samples.mean(1)
        times = np.arange(len(mono)) / part.sample_rate
        out.append(
            f'<figure><img class="stretch" src="{image_url(np.ascontiguousarray(picture))}" '
            f'alt="{escape(name)}, spectrogram">{traces_of(None, [mono], times, "")}'
            f'<audio controls preload="none" src="{sound_url(samples, part.sample_rate)}"></audio>'
            f"<figcaption>{escape(name)}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(out)}</div>'


def _motion(part: Motion) -> str:
    out = []
    for k, channel in enumerate(part.channels[:CHANNELS]):
        came = part.rows.get(CAME)
        futures = [values[:, k] for name, values in part.rows.items() if name != CAME]
        drawn = traces_of(None if came is None else came[:, k], futures, part.times_s, channel)
        out.append(f"<figure>{drawn}</figure>" if drawn else "")
    more = len(part.channels) - CHANNELS
    note = f'<p class="muted">{more} channels more are not drawn.</p>' if more > 0 else ""
    return f'<div class="charts">{"".join(out)}</div>{note}'


def _words(part: Words) -> str:
    return "".join(f"<h3>{escape(name)}</h3><p>{escape(said) or '–'}</p>" for name, said in part.rows.items())
