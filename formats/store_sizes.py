"""How much of what a store holds, from its manifest alone: no segment is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pantok.formats.store_manifest import Manifest
from pantok.stream import smallest_dtype
from pantok.vocabulary import Vocabulary


@dataclass(frozen=True)
class TrackSize:
    """Totals of one track over all episodes. codes, code_bytes: by level."""

    name: str
    modality: str
    episodes: int
    duration_ns: int
    samples: int
    ticks: int
    codes: tuple[int, ...]
    code_bytes: tuple[int, ...]
    latent_bytes: int


@dataclass(frozen=True)
class StoreSize:
    """bytes: of all objects of the live segments, metadata and checksums included."""

    tracks: tuple[TrackSize, ...]
    bytes: int


def store_sizes(manifest: Manifest, vocabulary: Vocabulary) -> StoreSize:
    """Bytes by track and level of the live episodes."""
    found: dict[str, list[Any]] = {}
    for episode in manifest.episodes.values():
        for name, track in episode.tracks.items():
            found.setdefault(name, []).append(track)
    sizes = []
    for name, tracks in sorted(found.items()):
        items = [smallest_dtype(lv.cardinality).itemsize for lv in vocabulary.levels(tracks[0].modality)]
        codes = tuple(sum(n) for n in zip(*(t.codes for t in tracks), strict=True))
        duration_ns, samples, ticks = (sum(getattr(t, w) for t in tracks) for w in ("duration_ns", "samples", "ticks"))
        latents = sum(2 * t.latents[0] * t.latents[1] for t in tracks if t.latents)
        code_bytes = tuple(n * size for n, size in zip(codes, items, strict=True))
        sizes.append(
            TrackSize(name, tracks[0].modality, len(tracks), duration_ns, samples, ticks, codes, code_bytes, latents)
        )
    return StoreSize(tuple(sizes), sum(s.bytes for s in manifest.segments.values()))
