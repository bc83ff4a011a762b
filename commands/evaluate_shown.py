"""What `pantok eval` prints: two tables for people, or one JSON document whose keys stay as they are.

Figures that are not numbers (PESQ of silence, a rate per second of a still) are null in JSON, and so is the
infinite PSNR of an identical copy: `identical` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pantok.commands import common, phrases

if TYPE_CHECKING:
    from pantok.commands.common import Run
    from pantok.evaluate import Point, TrackQuality
    from pantok.formats.report import TrackReport
    from pantok.rates import LevelRate

SHORT = {
    "psnr_rgb_db": "{} dB",
    "ssim": "SSIM {}",
    "si_sdr_db": "SI-SDR {} dB",
    "mel_distance": "mel {}",
    "pesq_wb": "PESQ {}",
    "stoi": "STOI {}",
    "max_error": "max {}",
    "rms_error": "RMS {}",
    "exact": "exact {}",
}
"""Which scores go into the terminal's table, and how."""


def tables(run: Run, title: str, found: Sequence[TrackReport]) -> None:
    from pantok.formats.report_charts import number
    from pantok.rates import codebook_use

    rows, names = [], list(dict.fromkeys(track.episode for track in found))
    measured = {track.episode for track in found if track.quality}
    shown = set(sorted(names, key=lambda name: name not in measured)[: common.SHOWN])
    for track in found:
        if track.episode not in shown:
            continue
        rate, quality = track.rate, track.quality
        rows.append(
            [
                f"{track.episode} {rate.track}",
                number(rate.seconds),
                number(rate.per_second(rate.tokens)),
                number(rate.per_second(rate.bits)),
                number(rate.bits_per_value),
                _scores(quality.prefixes[-1]) + _bound(quality) if quality else "not measured",
                _beside(quality),
                _times(quality.encode_speed) if quality else "–",
                _times(quality.decode_speed) if quality else "–",
            ]
        )
    columns = ["track", "seconds", "tokens/s", "bits/s", "bits/value", "quality", "reference", "encode", "decode"]
    run.table(title, columns, rows)
    common.say_unshown(run, len(names))
    rows = [
        [
            f"{use.modality} {use.level} {use.name}",
            phrases.figure(use.cardinality, 0),
            phrases.figure(use.tokens, 0),
            f"{use.used} ({use.used / use.cardinality:.1%})",
            number(use.perplexity),
            f"{number(use.entropy_bits_per_token)} of {number(math.log2(use.cardinality))}",
        ]
        for use in codebook_use(track.rate for track in found)
    ]
    run.table("Codebooks, over all tracks", ["level", "codes", "tokens", "used", "perplexity", "entropy, bits"], rows)


def _times(speed: float) -> str:
    from pantok.formats.report_charts import number

    return "–" if math.isnan(speed) else f"{number(speed)}x"


def _scores(point: Point) -> str:
    from pantok.formats.report_charts import number

    if point.identical:
        return "identical"
    scores = point.quality.items()
    return ", ".join(SHORT[key].format(number(v)) for key, v in scores if key in SHORT and not math.isnan(v))


def _beside(quality: TrackQuality | None) -> str:
    from pantok.formats.report_charts import number

    if quality is None or not quality.references:
        return ""
    point = quality.references[0]
    rate = f"{number(point.bits / quality.seconds)} bits/s" if quality.seconds else f"{number(point.bits)} bits"
    return f"{point.codec} at {rate}: {_scores(point)}"


def _bound(quality: TrackQuality) -> str:
    if quality.certificate is None:
        return ""
    return f"; bound {quality.certificate.text} {'holds' if quality.certificate.holds else 'BROKEN'}"


def document(found: Sequence[TrackReport]) -> dict[str, Any]:
    """`episodes` and `codebooks` of the JSON document."""
    from pantok.rates import codebook_use

    episodes: dict[str, list[dict[str, Any]]] = {}
    for track in found:
        episodes.setdefault(track.episode, []).append(_track(track))
    return {
        "episodes": [{"id": name, "tracks": tracks} for name, tracks in episodes.items()],
        "codebooks": [
            {
                "modality": use.modality,
                "level": use.level,
                "name": use.name,
                "role": use.role,
                "cardinality": use.cardinality,
                "tokens": use.tokens,
                "used": use.used,
                "usage": use.used / use.cardinality,
                "entropy_bits_per_token": use.entropy_bits_per_token,
                "perplexity": use.perplexity,
            }
            for use in codebook_use(track.rate for track in found)
        ],
    }


def _track(track: TrackReport) -> dict[str, Any]:
    rate = track.rate
    return {
        "track": rate.track,
        "modality": rate.modality,
        "seconds": rate.seconds,
        "samples": rate.samples,
        "tokens": rate.tokens,
        "tokens_per_second": _plain(rate.per_second(rate.tokens)),
        "bits": rate.bits,
        "bits_per_second": _plain(rate.per_second(rate.bits)),
        "bits_per_pixel" if rate.modality == "video" else "bits_per_value": _plain(rate.bits_per_value),
        "entropy_bits_per_second": _plain(rate.per_second(rate.entropy_bits)),
        "latent_bits": rate.latent_bits,
        "levels": [_level(level) for level in rate.levels],
        "quality": None if track.quality is None else _quality(track.quality),
    }


def _level(level: LevelRate) -> dict[str, Any]:
    return {
        "level": level.level,
        "name": level.name,
        "role": level.role,
        "cardinality": level.cardinality,
        "tokens": level.tokens,
        "tokens_per_second": _plain(level.tokens_per_second),
        "bits": level.bits,
        "bits_per_second": _plain(level.bits_per_second),
        "entropy_bits": level.entropy_bits,
        "used": level.used,
        "usage": level.used / level.cardinality,
        "perplexity": level.perplexity,
    }


def _quality(quality: TrackQuality) -> dict[str, Any]:
    return {
        "seconds": quality.seconds,
        "samples": quality.samples,
        "of_samples": quality.of_samples,
        "encode_speed": _plain(quality.encode_speed),
        "decode_speed": _plain(quality.decode_speed),
        "certificate": _certificate(quality),
        "prefixes": [_point(p, quality) for p in quality.prefixes],
        "nearest_reference": _point(quality.references[0], quality) if quality.references else None,
        "references": [_point(p, quality) for p in sorted(quality.references, key=lambda p: p.bits)],
    }


def _certificate(quality: TrackQuality) -> dict[str, Any] | None:
    found = quality.certificate
    if found is None:
        return None
    channels = zip(found.channels, found.bounds, found.errors, strict=True)
    return {
        "holds": found.holds,
        "nonfinite_kept": found.kept,
        "channels": [{"name": n, "bound": b, "max_error": e} for n, b, e in channels],
    }


def _point(point: Point, quality: TrackQuality) -> dict[str, Any]:
    return {
        "codec": point.codec,
        "setting": point.setting,
        "levels": point.levels,
        "tokens": point.tokens,
        "bits": point.bits,
        "bits_per_second": _plain(point.bits / quality.seconds if quality.seconds else math.nan),
        "bits_per_pixel" if quality.modality == "video" else "bits_per_value": point.bits / max(quality.values, 1),
        "entropy_bits": point.entropy_bits,
        "identical": point.identical,
        "quality": _plain_all(point.quality),
        "encode_seconds": _plain(point.encode_seconds),
        "decode_seconds": point.decode_seconds,
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain_all(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: _plain(value) for key, value in values.items()}
