"""Many small segments of a token store into few large ones: in place (`compact`), or in a new store (`pack`).

What is unusual: writers and readers go on meanwhile. A merged segment is listed by one commit that holds only if each
of its episodes still lies where it was read; where another writer was quicker, the rest is merged without that one.
So nothing that was replaced or removed comes back, a kill at any moment leaves whole commits, and a reader that
opened the store before finds an episode that was moved under it in its new place (`Store.find`). No digest changes:
each is computed again from what was read, and a difference ends the work before anything is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pantok.errors import OptionError, StoreError
from pantok.formats import store_vocabularies as vocabularies
from pantok.formats.store_create import appearing
from pantok.formats.store_disk import reason
from pantok.formats.store_facts import episode_digest
from pantok.formats.store_manifest import INDEX_FROM, EpisodeInfo
from pantok.formats.store_segment import segment_name
from pantok.stream import TokenStream

if TYPE_CHECKING:
    from pantok.formats.store import Store

_MEND = "what was committed stays; mend the cause and run again"

Report = Callable[[int, int], None]
"""Called with (episodes done, episodes in all)."""


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """How large merged segments become.

    bytes: a segment is closed before it grows beyond this; all of one level of it is held in memory at once.
    episodes: nor does it hold more than this many.
    """

    bytes: int = 256 << 20
    episodes: int = 10_000

    def __post_init__(self) -> None:
        if self.bytes < 1:
            raise OptionError("--segment-bytes", f"cannot be {self.bytes}", "at least 1")
        if self.episodes < 1:
            raise OptionError("--segment-episodes", f"cannot be {self.episodes}", "at least 1")


@dataclass(frozen=True)
class Merged:
    """What was, or would be, done. kept: episodes that other writers replaced or removed meanwhile."""

    episodes: int
    segments_before: int
    segments_after: int
    swept: int = 0
    kept: int = 0


def plan(store: Store, config: MergeConfig, whole: bool = False) -> tuple[list[list[EpisodeInfo]], int]:
    """(groups of episodes of which each becomes a segment, how many live segments there are now).

    Segments that are at least half as large as they may become, and hold nothing dead, are left as they are.
    whole: take all episodes, whatever segments they lie in.
    """
    rows: dict[str, list[EpisodeInfo]] = {}
    for episode in store.episodes.values():
        rows.setdefault(episode.segment, []).append(episode)
    small: list[list[tuple[EpisodeInfo, int]]] = [[] for _ in store.vocabulary_ids]
    for name, live in rows.items():
        info = store.known(name)
        is_large = 2 * info.bytes >= config.bytes or 2 * len(live) >= config.episodes
        if whole or len(live) < info.episodes or not is_large:
            written = 0 if len(small) == 1 else store.vocabulary_ids.index(store.segment(name).commit["vocabulary_id"])
            small[written] += [(episode, info.bytes // max(info.episodes, 1)) for episode in live]
    groups: list[list[EpisodeInfo]] = []
    for alike in small:  # a segment is of one vocabulary
        groups += _groups(sorted(alike, key=lambda pair: pair[0].id), config)
    if whole:
        return groups, len(rows)
    # What would only write the same segment again stays.
    return [g for g in groups if len({e.segment for e in g}) > 1 or len(g) < store.known(g[0].segment).episodes], len(
        rows
    )


def _groups(episodes: Sequence[tuple[EpisodeInfo, int]], config: MergeConfig) -> Iterator[list[EpisodeInfo]]:
    """Runs of episodes that may share columns: a track of one name has one modality and one width of latents."""
    group: list[EpisodeInfo] = []
    shapes: dict[str, tuple[str, int]] = {}
    total = 0
    for episode, size in episodes:
        mine = {}
        for name, track in episode.tracks.items():
            width = track.latents[1] if track.latents else 0
            known = shapes.get(name, (track.modality, 0))
            mine[name] = (track.modality, width or known[1])
        clash = any(
            name in shapes and (shapes[name][0] != modality or (shapes[name][1] and shapes[name][1] != width))
            for name, (modality, width) in mine.items()
        )
        if group and (clash or total + size > config.bytes or len(group) >= config.episodes):
            yield group
            group, shapes, total = [], {}, 0
        group.append(episode)
        shapes.update(mine)
        total += size
    if group:
        yield group


def compact(
    store: Store, config: MergeConfig, packed: bool = False, sweep: bool = True, report: Report | None = None
) -> Merged:
    """Merges the small segments of a store, and those that hold dead episodes; then removes what is not needed.

    packed: compress the merged ones. sweep: False leaves the old segments for readers that cannot look again.
    Raises StoreError for what is damaged, or if the disk refuses; what was committed by then stays.
    """
    try:
        store.prepare()
        groups, before = plan(store, config)
        total = sum(map(len, groups))
        done = kept = 0
        for group in groups:
            while group:
                streams, digests = _read(store, group)
                if store.put(segment_name(streams, digests), streams, digests, packed, _still(store, group)):
                    done += len(group)
                    break
                rest = [e for e in group if _is_there(store, e)]
                kept += len(group) - len(rest)
                group = rest
            if report is not None:
                report(done, total)
        if len(store) >= INDEX_FROM:
            store.put_index(whole=True)
        swept = store.sweep() if sweep else []
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(store.path, f"cannot be compacted: {reason(error)}", _MEND) from error
    return Merged(done, before, len(store.segments), len(swept), kept)


def _is_there(store: Store, episode: EpisodeInfo) -> bool:
    now = store.episodes.get(episode.id)
    return now is not None and (now.segment, now.row) == (episode.segment, episode.row)


def _still(store: Store, group: Sequence[EpisodeInfo]) -> Callable[[], bool]:
    return lambda: all(_is_there(store, episode) for episode in group)


def _read(store: Store, group: Sequence[EpisodeInfo]) -> tuple[list[TokenStream], list[str]]:
    """The episodes and their digests, compared. Raises StoreError."""
    streams, digests = [], []
    for episode in group:
        stream = store.checked(store.read(episode.id))
        digest = episode_digest(stream)
        if digest != episode.digest:
            where = store.path / "segments" / episode.segment
            raise StoreError(where, f"episode {episode.id} is not what was written", "`pantok verify` says what is")
        streams.append(stream)
        digests.append(digest)
    return streams, digests


def pack(
    store: Store, path: Path, config: MergeConfig, packed: bool = True, force: bool = False,
    report: Report | None = None,
) -> Merged:  # fmt: skip
    """A copy of the store at `path` in few segments, compressed for transport; it appears whole or not at all.

    packed: False gives one that can be mapped. force: replace a store that is there. Raises StoreError.
    """
    from pantok.formats.store import Store

    with appearing(path, store.version(store.vocabulary_ids[0]), force) as stage:
        vocabularies.copy(store.path, stage)
        out = Store.open(stage)
        groups, before = plan(store, config, whole=True)
        total, done = sum(map(len, groups)), 0
        for group in groups:
            streams, digests = _read(store, group)
            out.put(segment_name(streams, digests), streams, digests, packed)
            done += len(group)
            if report is not None:
                report(done, total)
        if out.digest() != store.digest():
            raise StoreError(store.path, "was changed while it was packed", "run again when its writers are done")
        if len(out) >= INDEX_FROM:
            out.put_index()
    return Merged(done, before, len(groups))
