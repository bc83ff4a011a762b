"""`pantok info`: what is in a store, a vocabulary or a recording."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases

if TYPE_CHECKING:
    from pantok.formats.store import Store, TrackSize
    from pantok.vocabulary import Vocabulary


_LISTED = 100_000
"""Episodes that --json names at most."""


@click.command("info")
@click.argument("path", type=common.STORE)
@click.option("--episode", help="Show this episode of a store.")
@click.option("--layout", help="Also say what a layout makes of a store: a preset, or a TOML file.")
@common.as_json
def command(path: Path, episode: str | None, layout: str | None, as_json: bool) -> None:
    """Show what a store, a vocabulary, a run, a recording or a folder of recordings holds.

    Of a store: codes, tokens a second and bits a second of every track and level that has codes, and the size of the
    continuous vectors beside them. Of recordings: the tracks of each episode as they will be read, with rate, size and
    channels.

    \b
    Example:
      pantok info home.zarr
      pantok info home.zarr --episode kitchen-03
      pantok info home.zarr --layout default
      pantok info recordings/
    """
    from pantok.formats.addresses import is_remote
    from pantok.formats.runs import RunFolder

    run = common.Run(as_json=as_json)
    if layout is not None:
        from pantok.commands.info_layout import show_layout

        show_layout(run, path, layout, episode)
        return
    if is_remote(path) or (path / "zarr.json").exists():
        _store(run, path, episode, as_json)
    elif (path / "manifest.json").exists():
        from pantok.commands.vocab import show_vocabulary

        show_vocabulary(run, path)
    elif RunFolder(path).exists and (facts := _run_of(path)) is not None:
        _show_run(run, path, facts)
    else:
        from pantok.commands.info_recordings import show_recordings

        show_recordings(run, path)


def _run_of(path: Path) -> dict[str, Any] | None:
    """What a run of train-wm was asked; None for a folder with a config.json of another kind."""
    from pantok.errors import StoreError
    from pantok.formats.runs import RunFolder

    try:
        return RunFolder(path).config
    except StoreError:
        return None


def _show_run(run: common.Run, path: Path, facts: dict[str, Any]) -> None:
    from pantok.formats.runs import RunFolder

    train, held_out = facts.get("train", {}), facts.get("held_out", [])
    found = RunFolder(path).checkpoints
    rows = [
        ["store", str(facts.get("store", "-"))],
        ["vocabulary", str(facts.get("vocabulary_id", "-"))[:12]],
        ["parameters", phrases.figure(facts.get("parameters"), 0)],
        ["objective", f"{train.get('objective', '-')}, layout {train.get('layout', '-')}"],
        ["steps asked for", phrases.figure(train.get("steps"), 0)],
        ["checkpoints", ", ".join(found) or "none yet"],
        ["held out", phrases.counted(len(held_out), "episode")],
    ]
    run.table(f"{path}: a run of train-wm", ["", ""], rows, words=("",))
    run.say(f"Next: pantok eval {phrases.shell(path)}")
    run.end({"run": str(path), **facts, "checkpoints": found})


def _store(run: common.Run, path: Path, episode: str | None, as_json: bool) -> None:
    from pantok.formats.store import Store

    store = Store.open(path)
    if episode is not None:
        _episode(run, store, episode)
        return
    vocabulary, size = store.vocabulary, store.sizes()
    rows, tracks = [], []
    for track in size.tracks:
        facts = _track(vocabulary, track)
        tracks.append(facts)
        head = [track.name, f"{track.episodes}", phrases.human_seconds(facts["seconds"])]
        for k, level in enumerate(facts["levels"]):
            if level["codes"]:
                rows.append([*head, f"{k} {level['name']}", phrases.figure(level["cardinality"], 0), *_rates(level)])
                head = [""] * 3
        if len(facts["levels"]) > 1:
            rows.append([*head, f"all {len(facts['levels'])} levels", "", *_rates(facts)])
        if facts["latent_bytes"]:
            rows.append(["", "", "", "latents", "", phrases.human_bytes(facts["latent_bytes"]), "",
                         _figure(facts["latent_bits_per_second"], 1000, 2)])  # fmt: skip
    seconds = size.duration_ns / 1e9
    title = (
        f"{path}: {phrases.counted(len(store), 'episode')}, {phrases.human_seconds(seconds)}, "
        f"{phrases.human_bytes(size.bytes)}, "
        f"vocabulary {store.vocabulary_id[:12]} of {phrases.figure(vocabulary.size, 0)} ids"
    )
    columns = ["track", "episodes", "duration", "level", "codes of", "codes", "tokens/s", "kbit/s"]
    run.table(title, columns, rows)
    names = list(islice(store.episodes, _LISTED if as_json else 20))
    more = len(store) - 20
    run.table("", ["episodes"], [[n] for n in names[:20]] + ([[f"… and {more} more"]] if more > 0 else []))
    run.end(
        {
            "store": str(path),
            "vocabulary_id": store.vocabulary_id,
            "ids": vocabulary.size,
            "bytes": size.bytes,
            "seconds": seconds,
            "episode_count": len(store),
            "episodes": names,
            "tracks": tracks,
        }
    )


def _rates(facts: dict[str, Any]) -> list[str]:
    """Columns codes, tokens/s, kbit/s."""
    per_second = _figure(facts["tokens_per_second"], 1, 1), _figure(facts["bits_per_second"], 1000, 2)
    return [phrases.figure(facts["codes"], 0), *per_second]


def _figure(value: float | None, unit: float, digits: int) -> str:
    return phrases.figure(None if value is None else value / unit, digits)


def _track(vocabulary: Vocabulary, track: TrackSize) -> dict[str, Any]:
    """Rates of one track over all episodes, per second of experience."""
    from math import log2

    seconds = track.duration_ns / 1e9

    def per_second(count: float) -> float | None:
        """None for a track that lasts no time, such as a caption without an end."""
        return count / seconds if seconds else None

    levels = []
    for spec, codes, size in zip(vocabulary.levels(track.modality), track.codes, track.code_bytes, strict=True):
        levels.append(
            {
                "name": spec.name,
                "role": spec.role,
                "cardinality": spec.cardinality,
                "codes": codes,
                "bytes": size,
                "tokens_per_second": per_second(codes),
                "bits_per_second": per_second(codes * log2(spec.cardinality)),
            }
        )
    return {
        "track": track.name,
        "modality": track.modality,
        "episodes": track.episodes,
        "seconds": track.duration_ns / 1e9,
        "samples": track.samples,
        "ticks": track.ticks,
        "codes": sum(track.codes),
        "tokens_per_second": per_second(sum(track.codes)),
        "bits_per_second": sum(lv["bits_per_second"] for lv in levels) if seconds else None,
        "latent_bytes": track.latent_bytes,
        "latent_bits_per_second": per_second(8 * track.latent_bytes),
        "levels": levels,
    }


def _episode(run: common.Run, store: Store, name: str) -> None:
    stream = store.read(name)
    rows, tracks = [], []
    for track in stream.tracks.values():
        rate = f"{float(track.clock.rate):.6g}" if track.clock.rate else "irregular"
        counts = [len(level.codes) for level in track.levels]
        rows.append(
            [track.name, phrases.figure(track.clock.count, 0), rate, f"{track.clock.start_ns / 1e9:.3f}",
             phrases.human_seconds(track.clock.duration_ns / 1e9), phrases.figure(track.ticks, 0),
             " ".join(map(str, counts)),
             "x".join(map(str, track.latents.values.shape)) if track.latents else ""]
        )  # fmt: skip
        tracks.append(
            {
                "track": track.name,
                "modality": track.modality,
                "samples": track.clock.count,
                "rate_hz": str(track.clock.rate) if track.clock.rate else None,
                "start_ns": track.clock.start_ns,
                "duration_ns": track.clock.duration_ns,
                "ticks": track.ticks,
                "codes": counts,
                "header": dict(track.header),
                "info": dict(track.info),
                "latents": list(track.latents.values.shape) if track.latents else None,
            }
        )
    columns = ["track", "samples", "rate, Hz", "start, s", "duration", "ticks", "codes by level", "latents"]
    run.table(f"{name} of {store.path}", columns, rows)
    sources = [{"path": s.path, "bytes": s.size_bytes, "sha256": s.sha256} for s in stream.sources]
    run.table("", ["made from", "bytes"], [[s.path, phrases.figure(s.size_bytes, 0)] for s in stream.sources])
    run.end({"episode": name, "sources": sources, "parameters": dict(stream.parameters), "tracks": tracks})
