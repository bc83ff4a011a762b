"""Charts as SVG text. Colours are classes that the page's style sheet gives, so one chart serves light and dark.

>>> curve = Curve("codec", ((1.0, 30.0), (2.0, 33.0)), ("level 1", "levels 1..2"))
>>> line_chart((curve,), "kbit/s", "PSNR, dB").startswith("<svg")
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 42
SWATCHES = ("s0", "s1", "s2")


@dataclass(frozen=True)
class Curve:
    """points: (x, y) in any order; notes: one for each, shown when it is pointed at."""

    name: str
    points: tuple[tuple[float, float], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Axis:
    """A linear or logarithmic map of [low, high] onto pixels."""

    low: float
    high: float
    start: float
    stop: float
    log: bool

    def __call__(self, value: float) -> float:
        a, b, v = (math.log(w) if self.log else w for w in (self.low, self.high, value))
        return self.start + (v - a) / (b - a) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            step = _step((self.high - self.low) / 5)
            first = math.ceil(self.low / step - 1e-9)
            return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        spread = math.log10(self.high / self.low)
        marks = (1, 2, 5) if spread < 2.5 else (1,)
        found = [m * 10.0**d for d in decades for m in marks if self.low * 0.999 <= m * 10.0**d <= self.high * 1.001]
        return found[:: max(1, math.ceil(len(found) / 7))]


def _axis(values: Sequence[float], start: float, stop: float, log: bool) -> _Axis:
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.06, 1.05)
        return _Axis(low / room, high * room, start, stop, True)
    room = max((high - low) * 0.08, abs(high) * 0.02, 1e-9)
    return _Axis(low - room, high + room, start, stop, False)


def _step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)


def line_chart(
    curves: Sequence[Curve], x_label: str, y_label: str, *, log_x: bool = True, log_y: bool = False, title: str = ""
) -> str:
    """Curves over one another with a legend; points that a logarithm cannot take, or not finite, are left out.

    '' if no point is left.
    """

    def drawable(x: float, y: float) -> bool:
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)

    kept = []
    for curve in curves:
        notes = curve.notes or ("",) * len(curve.points)
        both = sorted((p, n) for p, n in zip(curve.points, notes, strict=True) if drawable(*p))
        if both:
            kept.append((curve.name, [p for p, _ in both], [n for _, n in both]))
    if not kept:
        return ""
    across = _axis([x for _, points, _ in kept for x, _ in points], LEFT, WIDTH - RIGHT, log_x)
    up = _axis([y for _, points, _ in kept for _, y in points], HEIGHT - BOTTOM, TOP + 22, log_y)

    out = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title or y_label)}">']
    for y in up.ticks():
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{up(y) + 3.5:.1f}" text-anchor="end">{number(y)}</text>')
    for x in across.ticks():
        at = across(x)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP + 22}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{number(x)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="label" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    out.append(f'<text class="label strong" x="{LEFT}" y="{TOP + 4}">{escape(y_label)}</text>')
    at = WIDTH - RIGHT
    for k in reversed(range(len(kept))):
        name = kept[k][0]
        out.append(f'<text class="label" x="{at}" y="{TOP + 4}" text-anchor="end">{escape(name)}</text>')
        at -= 7 * len(name) + 10
        out.append(f'<circle class="{SWATCHES[k % 3]} dot" cx="{at + 3}" cy="{TOP}" r="4"/>')
        at -= 14
    for k in reversed(range(len(kept))):
        _, points, captions = kept[k]
        path = " ".join(f"{'L' if i else 'M'}{across(x):.1f} {up(y):.1f}" for i, (x, y) in enumerate(points))
        out.append(f'<path class="{SWATCHES[k % 3]} line" d="{path}"/>')
        for (x, y), note in zip(points, captions, strict=True):
            tip = escape(f"{note}: " if note else "") + f"{number(y)} at {number(x)}"
            out.append(
                f'<circle class="{SWATCHES[k % 3]} dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="4.2">'
                f"<title>{tip}</title></circle>"
            )
    return "".join(out) + "</svg>"


def traces(original: np.ndarray, decoded: np.ndarray, seconds: np.ndarray, label: str) -> str:
    """One channel, the original drawn broad with what was decoded thin over it: see `traces_of`."""
    return traces_of(original, (decoded,), seconds, label)


def traces_of(original: np.ndarray | None, versions: Sequence[np.ndarray], seconds: np.ndarray, label: str) -> str:
    """One channel, the original drawn broad, if there is one, with versions thin over it.

    original, versions, seconds: float (n,). Long ones are drawn as the least and the greatest of each pixel column.
    '' if nothing is finite.
    """
    drawn = [(values, f"{SWATCHES[k % 3]} thin") for k, values in enumerate(versions)]
    if original is not None:
        drawn.insert(0, (original, "broad"))
    both = np.concatenate([values for values, _ in drawn]) if drawn else np.zeros(0)
    finite = both[np.isfinite(both)]
    if not len(finite):
        return ""
    width, height, left, bottom, top = 460, 130, 54, 20, 20
    across = _Axis(float(seconds[0]), max(float(seconds[-1]), float(seconds[0]) + 1e-9), left, width - 8, False)
    room = max(float(np.ptp(finite)) * 0.06, abs(float(finite[0])) * 1e-3, 1e-9)
    up = _Axis(float(finite.min()) - room, float(finite.max()) + room, height - bottom, top, False)
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    for y in up.ticks()[::2]:
        out.append(f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        out.append(f'<text class="tick" x="{left - 6}" y="{up(y) + 3.5:.1f}" text-anchor="end">{number(y)}</text>')
    for x in across.ticks():
        out.append(f'<text class="tick" x="{across(x):.1f}" y="{height - 5}" text-anchor="middle">{number(x)} s</text>')
    out.append(f'<text class="label strong" x="{left}" y="12">{escape(label)}</text>')
    for values, name in drawn:
        out.append(f'<path class="{name}" d="{_trace_path(values, seconds, across, up)}"/>')
    return "".join(out) + "</svg>"


def _trace_path(values: np.ndarray, seconds: np.ndarray, across: _Axis, up: _Axis, columns: int = 380) -> str:
    if len(values) > 2 * columns:
        edges = np.linspace(0, len(values), columns + 1).astype(int)[:-1]
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduceat(values, edges), np.fmax.reduceat(values, edges)
        # Up one column, down the next: the band stays one line.
        turn = np.arange(columns) % 2 == 0
        pairs = np.stack([np.where(turn, low, high), np.where(turn, high, low)], 1).reshape(-1)
        seconds, values = np.repeat(seconds[edges], 2), pairs
    out, pen = [], "M"
    for t, v in zip(seconds, values, strict=True):
        if not math.isfinite(v):
            pen = "M"
            continue
        out.append(f"{pen}{across(float(t)):.1f} {up(float(v)):.1f}")
        pen = "L"
    return "".join(out)


def usage(counts: np.ndarray, label: str) -> str:
    """How often each code of a level is used, the most frequent first, on a logarithmic scale; unused codes are bare.

    counts: integers (cardinality,). '' if none is used.
    """
    used = np.sort(counts[counts > 0])[::-1]
    if not len(used):
        return ""
    width, height = 220, 44
    share = np.log10(used / used[0] * 1e4).clip(0.05, 4) / 4  # four decades, the last as a stub
    edges = np.arange(len(used) + 1) * (width / len(counts))
    if len(used) > width:
        pick = np.linspace(0, len(used) - 1, width).astype(int)
        share, edges = share[pick], np.append(edges[pick], edges[-1])
    path = f"M0 {height}"
    for k, part in enumerate(share):
        y = height - part * (height - 2)
        path += f"L{edges[k]:.1f} {y:.1f}L{edges[k + 1]:.1f} {y:.1f}"
    path += f"L{edges[-1]:.1f} {height}Z"
    tip = escape(f"{label}: {len(used)} of {len(counts)} codes used")
    return (
        f'<svg class="usage" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" aria-label="{tip}">'
        f'<title>{tip}</title><rect class="bare" width="{width}" height="{height}"/>'
        f'<path class="s0 area" d="{path}"/></svg>'
    )


def number(value: float) -> str:
    """Three significant digits, short: 0.0125, 12.5, 1.2k, 3.4M; an en dash for what is not a number."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    if size >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if size >= 1e-4 or value == 0 else f"{value:.1e}"
