"""`report.html`: one page that holds everything, opens from a file, and asks no other file or server for anything.

No script at all: tips are SVG titles, folding is <details>, light and dark follow the reader's system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias

import numpy as np

from pantok.evaluate import Point, TrackQuality
from pantok.formats.report_charts import Curve, line_chart, number, traces, usage
from pantok.formats.report_exhibits import Pictures, Rows, Sound, difference, image_url, sound_url, spectrogram
from pantok.formats.report_page import facts_list
from pantok.formats.report_page import page as page_of
from pantok.rates import TrackRate, codebook_use

Exhibit: TypeAlias = Pictures | Sound | Rows | None
LABELS = {
    "psnr_rgb_db": "PSNR (RGB), dB",
    "psnr_luma_db": "PSNR (luma), dB",
    "ssim": "SSIM",
    "si_sdr_db": "SI-SDR, dB",
    "mel_distance": "mel distance",
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "max_error": "max error",
    "rms_error": "RMS error",
    "same_nonfinite": "NaN and ∞ kept",
    "exact": "exact",
}
CHARTS = {
    "video": ("psnr_rgb_db", "ssim"),
    "audio": ("pesq_wb", "mel_distance", "stoi", "si_sdr_db"),
    "numeric": ("max_error", "rms_error"),
    "text": (),
}
HEADLINE = {
    "video": ("psnr_rgb_db", "ssim"),
    "audio": ("pesq_wb", "stoi"),
    "numeric": ("max_error",),
    "text": ("exact",),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackReport:
    """quality: None where the original was not to be had. seconds: of the exhibited samples, for traces."""

    episode: str
    rate: TrackRate
    quality: TrackQuality | None = None
    exhibit: Exhibit = None
    channels: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    seconds: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """title: what was measured. facts: shown under it. problems: what was skipped."""

    title: str
    facts: Mapping[str, str]
    tracks: Sequence[TrackReport]
    problems: Sequence[str] = field(default=())


def render(page: Page) -> str:
    """The whole page as HTML text."""
    sections = "".join(_track(t, f"t{i}") for i, t in enumerate(page.tracks))
    skipped = "".join(f"<li>{escape(p)}</li>" for p in page.problems)
    return page_of(
        page.title,
        "pantok eval",
        facts_list(page.facts),
        f"{_overview(page.tracks)}{sections}{_codebooks(page.tracks)}",
        before=f'<section class="skipped"><h2>Skipped</h2><ul>{skipped}</ul></section>' if skipped else "",
        foot="<p>Bits count every code of every level at log2(cardinality); entropy is that of a level's codes, "
        "one by one. PSNR is of the error pooled over all samples, SSIM after Wang et al. 2004. Reference codecs count "
        "coded frames alone. Speeds are seconds of recording per second of work, on the machine that made this "
        "page.</p>",
    )


def _overview(tracks: Sequence[TrackReport]) -> str:
    rows = []
    for i, track in enumerate(tracks):
        rate, quality = track.rate, track.quality
        best = quality.prefixes[-1].quality if quality else {}
        marks = "".join(_chip(LABELS[k], best[k]) for k in HEADLINE[rate.modality] if k in best)
        marks += _certificate(quality)
        rows.append(
            f'<tr><th><a href="#t{i}">{escape(track.episode)} <b>{escape(rate.track)}</b></a></th>'
            f"<td>{number(rate.seconds)}</td><td>{number(rate.per_second(rate.tokens))}</td>"
            f"<td>{number(rate.per_second(rate.bits))}</td><td>{number(rate.bits_per_value)}</td>"
            f'<td class="marks">{marks}</td>'
            f"<td>{_speed(quality.encode_speed) if quality else '–'}</td>"
            f"<td>{_speed(quality.decode_speed) if quality else '–'}</td></tr>"
        )
    return (
        '<section><h2>Tracks</h2><div class="scroll"><table class="tracks"><thead><tr><th>episode, track</th>'
        "<th>seconds</th><th>tokens/s</th><th>bits/s</th><th>bits/pixel or value</th><th>quality</th><th>encode</th>"
        f"<th>decode</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _track(track: TrackReport, anchor: str) -> str:
    rate, quality = track.rate, track.quality
    body = [_tiles(track)]
    if quality is not None:
        charts = _charts(quality)
        if charts:
            body.append(f'<div class="charts">{charts}</div>')
        body.append(_points_table(quality))
        if isinstance(track.exhibit, Pictures):
            body.append(_pictures(track.exhibit, quality))
        elif isinstance(track.exhibit, Sound):
            body.append(_sound(track.exhibit, quality))
        elif isinstance(track.exhibit, Rows) and track.seconds is not None:
            body.append(_rows(track.exhibit, track, track.seconds))
    body.append(_levels(rate))
    return (
        f'<section class="track {rate.modality}" id="{anchor}"><h2><span class="badge">{rate.modality}</span> '
        f'{escape(track.episode)} <span class="muted">{escape(rate.track)}</span></h2>{"".join(body)}</section>'
    )


def _tiles(track: TrackReport) -> str:
    rate, quality = track.rate, track.quality
    tiles = [
        ("tokens/s", number(rate.per_second(rate.tokens)), f"{rate.tokens} in {number(rate.seconds)} s"),
        ("bits/s", number(rate.per_second(rate.bits)), f"entropy {number(rate.per_second(rate.entropy_bits))}"),
    ]
    unit = "bits/pixel" if rate.modality == "video" else "bits/value"
    tiles.append((unit, number(rate.bits_per_value), f"entropy {number(rate.entropy_bits / max(rate.values, 1))}"))
    if quality is not None:
        best = quality.prefixes[-1]
        beside = _nearest(quality)
        for key in HEADLINE[rate.modality]:
            note = ""
            if beside is not None:
                rate_of, unit_of_rate = _per(quality)
                note = f"{beside.codec} {number(beside.quality[key])} at {number(rate_of(beside))} {unit_of_rate}"
            tiles.append((LABELS[key], number(best.quality[key]), note))
        if quality.certificate:
            tiles.append(("guaranteed", f"<span>{quality.certificate.text}</span>", _certificate(quality)))
        tiles.append(("encode", _speed(quality.encode_speed), "of real time"))
        tiles.append(("decode", _speed(quality.decode_speed), "of real time"))
    cells = "".join(f"<div><dt>{k}</dt><dd>{v}</dd><small>{note}</small></div>" for k, v, note in tiles)
    return f'<dl class="tiles">{cells}</dl>'


def _nearest(quality: TrackQuality) -> Point | None:
    """The reference point at the nearest rate; the command hands it in first."""
    return quality.references[0] if quality.references else None


def _per(quality: TrackQuality) -> tuple[Callable[[Point], float], str]:
    """What rate a modality is plotted over."""
    if quality.modality == "audio":
        return lambda p: p.bits / quality.seconds / 1000 if quality.seconds else math.nan, "kbit/s"
    unit = "bits/pixel" if quality.modality == "video" else "bits/value"
    return lambda p: p.bits / max(quality.values, 1), unit


def _charts(quality: TrackQuality) -> str:
    rate_of, unit = _per(quality)
    out: list[str] = []
    if len(quality.prefixes) + len(quality.references) < 2:
        return ""  # one point is no curve; the tiles say it
    for key in CHARTS[quality.modality]:
        curves = [
            Curve(
                points[0].codec,
                tuple((rate_of(p), p.quality[key]) for p in points),
                tuple(p.setting for p in points),
            )
            for points in (quality.prefixes, quality.references)
            if points
        ]
        chart = line_chart(curves, f"{unit}, each prefix of levels", LABELS[key], log_y=quality.modality == "numeric")
        if chart:
            out.append(f"<figure>{chart}</figure>")
    return "".join(out)


def _points_table(quality: TrackQuality) -> str:
    rate_of, unit = _per(quality)
    keys = list(quality.prefixes[0].quality)
    rows = []
    for point in (*quality.prefixes, *sorted(quality.references, key=lambda p: p.bits)):
        name = point.setting if point.levels else f"{point.codec}, {point.setting}"
        name += " (nearest rate)" if point is _nearest(quality) else ""
        cells = "".join(f"<td>{'=' if point.identical else number(point.quality[k])}</td>" for k in keys)
        tokens = number(point.tokens / quality.seconds) if point.levels and quality.seconds else "–"
        speed = _speed(quality.seconds / point.decode_seconds) if point.decode_seconds else "–"
        kind = "" if point.levels else ' class="reference"'
        entropy = number(rate_of(point) * point.entropy_bits / point.bits) if point.levels and point.bits else "–"
        rows.append(
            f"<tr{kind}><th>{escape(name)}</th><td>{tokens}</td><td>{number(rate_of(point))}</td><td>{entropy}</td>"
            f"{cells}<td>{speed}</td></tr>"
        )
    heads = "".join(f"<th>{LABELS[k]}</th>" for k in keys)
    part = "the whole track" if quality.samples == quality.of_samples else f"the first {number(quality.seconds)} s"
    return (
        f'<details open><summary>Every prefix of levels, on {part}</summary><div class="scroll"><table><thead><tr>'
        f"<th></th><th>tokens/s</th><th>{unit}</th><th>entropy</th>{heads}<th>decode</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _pictures(exhibit: Pictures, quality: TrackQuality) -> str:
    whole = len(quality.prefixes) - 1
    beside = len(quality.prefixes) if quality.references else None
    out = []
    for moment in exhibit.moments:
        if moment not in exhibit.original:
            continue
        original, versions = exhibit.original[moment], exhibit.versions[moment]
        row = [
            _picture(original, f"original, frame {moment}"),
            _picture(versions[whole], f"decoded, {quality.prefixes[-1].setting}"),
        ]
        if beside is not None:
            point = quality.references[0]
            row.append(_picture(versions[beside], f"{point.codec}, {point.setting}"))
        row.append(_picture(difference(original, versions[whole]), "decoded − original, four times"))
        out.append(f'<div class="pictures n{len(row)}">{"".join(row)}</div>')
    middle = exhibit.moments[len(exhibit.moments) // 2]
    strip = ""
    if middle in exhibit.versions and whole:
        strip = "".join(
            _picture(
                exhibit.versions[middle][i],
                f"{p.setting} · {number(p.bits / quality.values)} bits/pixel · {number(p.quality['psnr_rgb_db'])} dB",
            )
            for i, p in enumerate(quality.prefixes)
        )
        strip = f'<h3>Level by level, frame {middle}</h3><div class="pictures n4">{strip}</div>'
    return f"<h3>Pictures</h3>{''.join(out)}{strip}"


def _picture(picture: np.ndarray, caption: str) -> str:
    h, w, _ = picture.shape
    return (
        f'<figure><img src="{image_url(picture)}" width="{w}" height="{h}" loading="lazy" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _sound(exhibit: Sound, quality: TrackQuality) -> str:
    versions = exhibit.versions
    shown = [("original", exhibit.original)]
    shown.append((f"decoded, {quality.prefixes[-1].setting}", versions[len(quality.prefixes) - 1]))
    if quality.references:
        point = quality.references[0]
        shown.append((f"{point.codec}, {point.setting}", versions[len(quality.prefixes)]))
    if len(quality.prefixes) > 1:
        half = (len(quality.prefixes) - 1) // 2
        shown.append((f"decoded, {quality.prefixes[half].setting}", versions[half]))
    loudest, out = None, []
    for caption, samples in shown:
        picture, loudest = spectrogram(samples, exhibit.sample_rate, loudest)
        out.append(
            f'<figure><img class="stretch" src="{image_url(picture)}" alt="spectrogram: {escape(caption)}">'
            f'<audio controls preload="none" src="{sound_url(samples, exhibit.sample_rate)}"></audio>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    seconds = number(len(exhibit.original) / exhibit.sample_rate)
    return (
        f"<h3>Spectrograms</h3><p class='muted'>The first {seconds} s, mel scale up to "
        f"{number(exhibit.sample_rate / 2000)} kHz, 80 dB from black to white.</p>"
        f'<div class="pictures n2">{"".join(out)}</div>'
    )


def _rows(exhibit: Rows, track: TrackReport, seconds: np.ndarray) -> str:
    assert track.quality is not None
    original, decoded = exhibit.original, exhibit.versions[len(track.quality.prefixes) - 1]
    out = []
    for c in range(original.shape[1]):
        name = track.channels[c] if c < len(track.channels) else f"channel {c}"
        unit = f", {track.units[c]}" if c < len(track.units) and track.units[c] else ""
        bound = track.quality.certificate
        known = f" · within {number(bound.bounds[c])}, at most {number(bound.errors[c])} found" if bound else ""
        chart = traces(original[:, c], decoded[:, c], seconds[: len(original)], f"{name}{unit}{known}")
        if chart:
            out.append(f"<figure>{chart}</figure>")
    more = len(track.channels) - original.shape[1]
    rest = f" {more} more channels are not drawn." if more > 0 else ""
    return (
        f"<h3>Traces</h3><p class='muted'>Broad: original. Thin: decoded. The first {len(original)} rows.{rest}</p>"
        f'<div class="charts">{"".join(out)}</div>'
    )


def _levels(rate: TrackRate) -> str:
    rows = []
    for level in rate.levels:
        share = level.used / level.cardinality
        per_token = level.entropy_bits / level.tokens if level.tokens else math.nan
        rows.append(
            f"<tr><th>{level.level} {escape(level.name)}</th><td>{level.role}</td><td>{level.cardinality}</td>"
            f"<td>{level.tokens}</td><td>{number(level.tokens_per_second)}</td><td>{number(level.bits_per_second)}</td>"
            f"<td>{number(per_token)} of {number(math.log2(level.cardinality))}</td>"
            f"<td>{level.used} ({share:.0%})</td><td>{number(level.perplexity)}</td>"
            f"<td>{usage(level.counts, level.name)}</td></tr>"
        )
    return (
        '<details open><summary>Levels and the use of their codebooks</summary><div class="scroll"><table><thead><tr>'
        "<th>level</th><th>role</th><th>codes</th><th>tokens</th><th>tokens/s</th><th>bits/s</th><th>entropy, bits</th>"
        "<th>used</th><th>perplexity</th><th>how often, most frequent first (four decades)</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _codebooks(tracks: Sequence[TrackReport]) -> str:
    rows = "".join(
        f"<tr><th>{use.modality} {use.level} {escape(use.name)}</th><td>{use.cardinality}</td><td>{use.tokens}</td>"
        f"<td>{use.used} ({use.used / use.cardinality:.1%})</td><td>{number(use.perplexity)}</td>"
        f"<td>{number(use.entropy_bits_per_token)} of {number(math.log2(use.cardinality))}</td>"
        f"<td>{usage(use.counts, use.name)}</td></tr>"
        for use in codebook_use(track.rate for track in tracks)
    )
    return (
        '<section><h2>Codebooks, over all tracks</h2><div class="scroll"><table><thead><tr><th>level</th><th>codes</th>'
        "<th>tokens</th><th>used</th><th>perplexity</th><th>entropy, bits</th>"
        "<th>how often, most frequent first (four decades)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _certificate(quality: TrackQuality | None) -> str:
    if quality is None or quality.certificate is None:
        return ""
    return _chip("bound holds", None, "good") if quality.certificate.holds else _chip("BOUND BROKEN", None, "bad")


def _chip(name: str, value: float | None, kind: str = "") -> str:
    shown = "" if value is None else f" <b>{number(value)}</b>"
    return f'<span class="chip {kind}">{escape(name)}{shown}</span> '


def _speed(times: float) -> str:
    return "–" if math.isnan(times) else f"{number(times)}×"
