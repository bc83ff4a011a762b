"""`pantok encode`: recordings in, a store of aligned token streams out; run again, it goes on where it was."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pantok.commands import common, phrases
from pantok.commands.workers import Done, Job, encode_episode, encode_in_processes, workers_for
from pantok.errors import OptionError

if TYPE_CHECKING:
    from pantok.commands.encode_growing import Growing
    from pantok.formats.folder import EpisodeFiles
    from pantok.formats.store_sizes import StoreSize

_MANY, _SMALL = 100, 1 << 20


@click.command("encode")
@common.sources
@click.option("--vocab", "vocabulary_path", type=click.Path(path_type=Path), help="The vocabulary to encode with.")
@common.output("The store to write, a directory such as home.zarr; one that exists is added to.", type_=common.STORE)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes; by default as many as there are cores and episodes. Same store.",
)
@click.option(
    "--bits-per-second", "rates", multiple=True, metavar="KIND=RATE", help="Rate, e.g. video=300k, audio=9.2k."
)
@click.option(
    "--target-psnr",
    type=float,
    help="Instead of a rate: dB of RGB that video shall reach throughout, where its codes can.",
)
@click.option(
    "--effort", type=int, metavar="N", help="Ways to code video that are compared. 4: better, slower.  [default: 1]"
)
@click.option(
    "--max-error", "bounds", multiple=True, metavar="[TRACK=]E", help="Guaranteed bound, in the track's units."
)
@click.option(
    "--latents", type=click.Choice(["none", "video", "audio", "all"]), help="Keep continuous vectors beside the codes."
)
@click.option("--grow", is_flag=True, help="Give the vocabulary new codes for episodes that it describes badly.")
@click.option("--max-new", type=int, help="With --grow: ids that it may get beyond its first ones.  [default: 4096]")
@common.resampling
@common.config_file
@click.option("-f", "--force", is_flag=True, help="Encode anew what the store already holds.")
@common.dry_run
@common.as_json
@common.quiet
def command(
    sources: tuple[Path, ...],
    vocabulary_path: Path | None,
    output: Path,
    workers: int | None,
    rates: tuple[str, ...],
    target_psnr: float | None,
    effort: int | None,
    bounds: tuple[str, ...],
    latents: str | None,
    grow: bool,
    max_new: int | None,
    size: int | None,
    fps: str | None,
    config_path: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Turn recordings into a store of time-aligned token streams.

    Each episode is committed as soon as it is encoded. After an interruption, the same command goes on with what
    is missing; nothing is encoded twice.

    With --grow, an episode that the vocabulary describes badly gives it new codes first; they are kept if they make
    the episode cheaper, bits of the new codes included. Ids and codes that were there stay as they were. Each growth is
    put into the store before anything is encoded with it, and all of the store is read under the newest vocabulary.

    \b
    Example:
      pantok encode recordings/ --vocab home.vocab -o home.zarr
      pantok encode new/ --grow --max-new 1000 -o home.zarr
    """
    from pantok.commands.encode_growing import Growing, open_store

    run = common.Run(quiet, as_json)
    settings = common.read_config(config_path)
    for kind, rate in common.pairs(rates, "--bits-per-second", common.rate_bits, "video=300k"):
        if kind not in ("video", "audio"):
            raise OptionError("--bits-per-second", f"cannot be given for {kind or 'all'}", "video=RATE or audio=RATE")
        common.override(settings, kind, bits_per_second=rate)
    common.override(settings, "video", target_psnr=target_psnr, effort=effort)
    bound = _bounds(bounds)
    common.override(settings, "numeric", max_error=bound)
    for kind in ("video", "audio"):
        common.override(settings, kind, latents=latents and latents in (kind, "all"))
    reading = common.reading(settings, size, fps)
    settings = {m: settings[m] for m in common.MODALITIES if m in settings}

    if max_new is not None and not grow:
        raise OptionError("--max-new", "goes with --grow", "give both, or neither")
    growing = Growing(run, max_new) if grow else None
    if grow and (workers or 1) > 1:
        raise OptionError("--grow", "encodes one episode after another", "leave --workers out")
    found = common.find_episodes(run, sources)
    vocabulary = common.vocabulary_for(output, vocabulary_path)
    common.check_settings(settings, vocabulary.states)
    if dry_run:
        common.show_plan(run, found)
        run.end(common.plan_document(found))
    open_store(run, output, vocabulary, vocabulary_path).sweep()
    job = Job(str(output), reading, settings, force)
    began = time.monotonic()
    done = _encode(run, job, found, 1 if grow else workers or workers_for(found), growing)
    seconds = time.monotonic() - began
    if isinstance(bound, dict):
        _unmet(run, bound, done)
    _summary(run, sources, output, done, seconds, growing)


def _encode(run: common.Run, job: Job, found: list[EpisodeFiles], workers: int, growing: Growing | None) -> list[Done]:
    done: list[Done] = []
    with run.progress() as bar:
        task = bar.add_task("encode", total=len(found), note="")

        def finished(result: Done) -> None:
            for line in result.problems:
                run.problem(line)
            for line in result.notes:
                run.say(line)
            done.append(result)
            bar.update(task, advance=1, note=result.episode)

        if workers == 1:
            for files in found:
                inner = bar.add_task(f"  {files.id}", total=None, note="")
                codec_for = None if growing is None else growing.codec_for(bar, inner)
                finished(encode_episode(job, files, _ticker(bar, inner), codec_for))
                bar.remove_task(inner)
        else:
            encode_in_processes(job, found, workers, finished)
    for kind, count in sorted(Counter(kind for d in done for kind in d.unread).items()):
        run.problem(f"{kind} of {phrases.counted(count, 'episode')}: the vocabulary has no tokenizer for it")
    return done


def _ticker(bar: Any, task: Any) -> Callable[[str, float], None]:
    """Progress inside one episode: the track and the seconds of experience taken in."""

    def tick(track: str, seconds: float) -> None:
        bar.update(task, note=f"{track} {phrases.human_seconds(seconds)}")

    return tick


def _bounds(bounds: tuple[str, ...]) -> float | dict[str, float] | None:
    """`--max-error 0.01` for all tracks, `--max-error proprio=0.002` for one."""
    if not bounds:
        return None
    given = dict(common.pairs(bounds, "--max-error", float))
    if "" in given:
        if len(given) > 1:
            raise OptionError("--max-error", "is given for all tracks and for one", "name a track each time, or none")
        return given[""]
    return given


def _unmet(run: common.Run, bounds: Iterable[str], done: list[Done]) -> None:
    """Says which `--max-error NAME=E` met nothing of that name: a guarantee that was asked for is not given.

    Not where episodes were there already, which may hold that name.
    """
    from pantok.tokenizers.numeric import bound_names

    if any(d.kept for d in done):
        return
    channels = [pair for d in done for pair in d.channels]
    known = {name for pair in channels for name in bound_names(*pair)}
    tracks = sorted({track for track, _ in channels})
    for name in bounds:
        if name not in known:
            there = f"there are {', '.join(tracks)}, and their channels" if tracks else "there are no numbers"
            run.problem(f"--max-error {name}: no track or channel is called that, so it bounds nothing ({there})")


def _summary(
    run: common.Run, sources: tuple[Path, ...], output: Path, done: list[Done], seconds: float, growing: Growing | None
) -> None:
    from pantok.formats.store import Store

    new = [d for d in done if d.encoded]
    kept = sum(1 for d in done if d.kept)
    sizes = Store.open(output).sizes()
    latent_bytes = sum(track.latent_bytes for track in sizes.tracks)
    experience = sum(d.duration_s for d in new)
    document: Mapping[str, Any] = {
        "store": str(output),
        "encoded": [d.episode for d in new],
        "already_there": kept,
        "encoded_anew": [d.episode for d in new if d.changed],
        "failed": [d.episode for d in done if not (d.encoded or d.kept)],
        "experience_seconds": round(experience, 3),
        "seconds": round(seconds, 3),
        "codes": sum(d.codes for d in new),
        "bytes": sizes.bytes,
        "latent_bytes": latent_bytes,
    }
    latents = f", of which latents {phrases.human_bytes(latent_bytes)}" if latent_bytes else ""
    size = f"{phrases.human_bytes(document['bytes'])}{latents}"
    if new:
        speed = f", {experience / seconds:.1f}x real time" if seconds > 0 else ""
        also = f", {kept} were there already" if kept else ""
        if document["encoded_anew"]:
            changed = phrases.counted(len(document["encoded_anew"]), "episode")
            run.say(f"Encoded anew, as files or settings have changed: {changed}.")
        run.say(
            f"Wrote {output}: {phrases.counted(len(new), 'episode')}{also}; {phrases.human_seconds(experience)} of "
            f"experience in {phrases.human_seconds(seconds)}{speed}; {document['codes']:,} codes; {size}."
        )
    elif kept:
        run.say(f"{output}: nothing to do, {phrases.counted(kept, 'episode')} of {len(done)} there already; {size}.")
    if growing is not None:
        document = {**document, **growing.document(output)}
        growing.summary(output)
    if new or kept:
        said = phrases.shell(output)
        compact = f" · pantok store compact {said}" if _is_scattered(sizes) else ""
        run.say(f"Next: pantok info {said} · pantok verify {said} · pantok eval {said}{compact}")
    nothing = not new and not kept
    run.end(document, 1 if nothing else 0)


def _is_scattered(sizes: StoreSize) -> bool:
    """Whether the store is many small segments, of about forty files each."""
    return sizes.segments > _MANY and sizes.bytes < sizes.segments * _SMALL
