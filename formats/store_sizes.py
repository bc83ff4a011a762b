"""How much of what a store holds, from its manifest alone: no segment is opened."""

from __future__ import annotations

from dataclasses import dataclass

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
    """bytes: of all objects of the live segments, metadata and checksums included; neither the vocabularies nor the
    manifest. duration_ns: of all episodes.
    """

    tracks: tuple[TrackSize, ...]
    bytes: int
    segments: int
    duration_ns: int


def store_sizes(manifest: Manifest, vocabulary: Vocabulary) -> StoreSize:
    """Bytes by track and level of the live episodes; those of a level that grew in its newest width."""
    sizes, totals = [], manifest.totals
    for name, (modality, episodes, samples, ticks, ns, codes, latent_bytes) in sorted(totals.tracks.items()):
        if episodes:
            items = [smallest_dtype(level.cardinality).itemsize for level in vocabulary.levels(modality)]
            code_bytes = tuple(n * size for n, size in zip(codes, items, strict=True))
            sizes.append(
                TrackSize(name, modality, episodes, ns, samples, ticks, tuple(codes), code_bytes, latent_bytes)
            )
    return StoreSize(tuple(sizes), manifest.live_bytes, manifest.live_segments, totals.duration_ns)
