"""`pantok eval`: what a store costs and how good it is, beside what x264 and Opus make of the same recordings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pantok.commands import common, phrases
from pantok.commands import evaluate_shown as shown
from pantok.errors import InputError, OptionError, PantokError

if TYPE_CHECKING:
    import numpy as np

    from pantok.encode import Codec
    from pantok.evaluate import Other, TrackQuality
    from pantok.experience import Block, Episode, Track
    from pantok.formats.report import Exhibit, TrackReport
    from pantok.formats.store import Store
    from pantok.stream import TokenStream, TrackTokens

MOST = 16
REPORTED = 24
"""Pictures and sound of so many tracks go into the page; of all others their figures."""
CURVE_POINTS = 4
"""Of a reference codec: at the rate of the whole, and of so many prefixes less one."""


@dataclass
class Job:
    """What one run measures, and what it found so far."""

    run: common.Run
    codec: Codec
    sources: Path | None
    limit_seconds: float | None
    levels: tuple[int, ...]
    reference: bool
    exhibit: bool
    wanted: Collection[tuple[str, str]]
    """Episode and track of which the quality is measured; of all others the rates alone."""
    found: list[TrackReport] = field(default_factory=list)


@click.command("eval")
@click.argument("store", type=common.STORE)
@click.option("--episode", "episodes", multiple=True, help="Measure these (or patterns) alone; may be repeated.")
@click.option("--sources", type=click.Path(path_type=Path), help="Where the recordings are now, if they have moved.")
@click.option("--limit", type=float, default=10.0, show_default=True, help="Seconds of each track to decode; 0: all.")
@click.option(
    "--most", type=click.IntRange(min=0), default=MOST, show_default=True,
    help="Tracks of a kind to decode, from all over the store; 0: all.",
)  # fmt: skip
@click.option("--levels", help="Prefixes of levels to measure, e.g. 1,2,4.  [default: all, 8 at most]")
@click.option("--reference/--no-reference", default=True, help="Beside x264 and Opus at the nearest rate.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with curves, pictures and spectrograms.")
@click.option("--on", type=common.STORE, help="For a run: the store to measure on.  [default: its own]")
@click.option("--points", type=click.IntRange(min=0), default=12, show_default=True, help="For a run: futures.")
@click.option("--horizon", type=float, default=1.0, show_default=True, help="For a run: seconds of each.")
@click.option("--checkpoint", default="best", show_default=True, help="For a run: best, last, or step-00000400.")
@common.force
@common.as_json
@common.quiet
def command(
    store: Path,
    episodes: tuple[str, ...],
    sources: Path | None,
    limit: float,
    most: int,
    levels: str | None,
    reference: bool,
    html: Path | None,
    on: Path | None,
    points: int,
    horizon: float,
    checkpoint: str,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure rate and quality of a store, beside reference codecs; or what a world model foresees.

    Rates and the use of codebooks are those of the whole store. Quality is that of the first --limit seconds of each of
    --most tracks, decoded from every prefix of levels and compared with the recording, which must still be there.

    \b
    Example:
      pantok eval home.zarr --html report.html
      pantok eval run/ --on held_out.zarr --html run.html
    """
    from pantok.commands import evaluate_run
    from pantok.encode import Codec
    from pantok.formats.runs import RunFolder
    from pantok.formats.store import Store

    run = common.Run(quiet, as_json)
    if not 0 <= limit < math.inf:
        raise OptionError("--limit", f"cannot be {limit:g}", "seconds, or 0 for all")
    if html is not None:
        may_write(html, force)
    if RunFolder(store).exists:
        if not 0 < horizon < math.inf:
            raise OptionError("--horizon", f"cannot be {horizon:g}", "seconds, such as 1")
        asked = evaluate_run.Asked(checkpoint=checkpoint, points=points, horizon_s=horizon, html=html)
        evaluate_run.evaluate(run, store, on, episodes, asked)
    opened = Store.open(store)
    chosen = common.choose(opened.episodes, episodes, "--episode")
    kinds = {e: {name: track.modality for name, track in opened.episodes[e].tracks.items()} for e in chosen}
    wanted = _wanted(kinds, most)
    job = Job(
        run,
        Codec(opened.vocabulary),
        sources,
        limit or None,
        _prefixes(levels),
        reference,
        html is not None,
        wanted,
    )
    with run.progress() as bar:
        task = bar.add_task("eval", total=len(chosen), note="")
        for episode in chosen:
            bar.update(task, note=episode)
            _evaluate(job, opened.read(episode))
            bar.update(task, advance=1)
    part = "whole tracks" if job.limit_seconds is None else f"the first {job.limit_seconds:g} s of each track"
    there = Counter(modality for own in kinds.values() for modality in own.values())
    decoded = Counter(kinds[episode][track] for episode, track in wanted)
    for modality in there:
        if decoded[modality] < there[modality]:
            some = f"{decoded[modality]} of {there[modality]} tracks of {modality}"
            run.say(f"Quality of {some}, from all over the store (--most 0: all).")
            part += f", {some}"
    shown.tables(run, f"{store}: {part}", job.found)
    if html is not None:
        _write_page(job, store, opened, part, html)
    run.end(
        {
            "store": str(store),
            "vocabulary": opened.vocabulary_id,
            "limit_seconds": job.limit_seconds,
            "most_tracks": most or None,
            "html": None if html is None else str(html),
            **shown.document(job.found),
        }
    )


def _wanted(kinds: Mapping[str, Mapping[str, str]], most: int) -> set[tuple[str, str]]:
    """Episode and track of at most so many tracks of a modality, 0: of all. kinds: modalities by track and episode.

    Episodes are visited in an order of which every beginning is spread over all of them (golden ratio), and each gives
    one track of a modality before one gives a second.
    """
    from pantok.metrics.video import GOLDEN

    turns: list[tuple[int, float, str, str]] = []  # the how manieth of its episode; the episode's place; itself
    for number, (episode, tracks) in enumerate(kinds.items()):
        place = (number * GOLDEN) % 1.0
        before: Counter[str] = Counter()
        for track, modality in tracks.items():
            turns.append((before[modality], place, episode, track))
            before[modality] += 1
    taken: Counter[str] = Counter()
    wanted = set()
    for _, _, episode, track in sorted(turns):
        modality = kinds[episode][track]
        if not most or taken[modality] < most:
            taken[modality] += 1
            wanted.add((episode, track))
    return wanted


def _prefixes(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        counts = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        counts = (0,)
    if counts[0] < 1:
        raise OptionError("--levels", f"cannot be {text!r}", "counts of levels, such as 1,2,4")
    return counts


def may_write(path: Path, force: bool) -> None:
    """A page that an earlier run wrote may be replaced, anything else only with --force."""
    from pantok.formats.report_page import MARK

    if path.is_dir():
        raise OptionError(path, "is a folder", "give --html the name of a file")
    if path.exists() and not force:
        with path.open("rb") as file:
            if MARK.encode() not in file.read(1000):
                raise OptionError(path, "is there already and is not a report", "--force replaces it")


def _evaluate(job: Job, stream: TokenStream) -> None:
    from pantok.formats.report import TrackReport
    from pantok.rates import rates

    wanted = {name for name in stream.tracks if (stream.id, name) in job.wanted}
    original = _original(job, stream) if wanted else None
    for tokens in stream.tracks.values():
        rate = rates(tokens, job.codec.vocabulary.levels(tokens.modality))
        quality, exhibit = None, None
        if original is not None and tokens.name in wanted:
            try:
                if tokens.name not in original.tracks:
                    raise InputError(f"{stream.id} {tokens.name}", "is not in the recording as it is read now")
                quality, exhibit = _quality(job, stream, tokens, original.tracks[tokens.name])
            except PantokError as error:
                job.run.problem(error)
        seconds = None
        if quality is not None and tokens.modality == "numeric":
            times_ns = tokens.clock.times_ns[: quality.samples]
            seconds = (times_ns - times_ns[0]) / 1e9
        job.found.append(
            TrackReport(
                episode=stream.id,
                rate=rate,
                quality=quality,
                exhibit=exhibit,
                channels=tokens.channels,
                units=tokens.units,
                seconds=seconds,
            )
        )


def _original(job: Job, stream: TokenStream) -> Episode | None:
    """The recording of `stream`; None, and a problem said, if it is not there or not the same."""
    try:
        return common.recording_of(stream, job.sources)
    except PantokError as error:
        job.run.problem(f"{error}; only its rates are reported")
        return None


def _quality(job: Job, stream: TokenStream, tokens: TrackTokens, track: Track) -> tuple[TrackQuality, Exhibit]:
    from pantok import tokenizers
    from pantok.evaluate import evaluate, some_prefixes
    from pantok.rates import measured_samples

    samples = measured_samples(tokens, job.limit_seconds)
    whole = len(tokens.levels)
    prefixes = tuple(k for k in job.levels if k < whole) + (whole,) if job.levels else some_prefixes(tokens)
    shown_so_far = sum(track.exhibit is not None for track in job.found)
    exhibit = _exhibit(tokens, samples) if job.exhibit and shown_so_far < REPORTED else None
    settings = stream.parameters.get(tokens.modality, {})
    watch: Callable[[int, np.ndarray, Sequence[np.ndarray]], None] = exhibit or _look_away
    quality = evaluate(
        track,
        tokens,
        job.codec.tokenizer(tokens.modality),
        prefixes=prefixes,
        samples=samples,
        others=_others(tokens, track, samples, prefixes, job.codec) if job.reference else (),
        options=tokenizers.options_of(tokens.modality, settings),
        watch=watch,
    )
    return quality, exhibit


def _look_away(at: int, original: np.ndarray, versions: Sequence[np.ndarray]) -> None:
    """The `watch` of a run without a page."""


def _exhibit(tokens: TrackTokens, samples: int) -> Exhibit:
    from pantok.formats.report_exhibits import Pictures, Rows, Sound

    if tokens.modality == "video":
        return Pictures(tokens.info, (samples // 6, samples // 2, samples * 5 // 6))
    if tokens.modality == "audio":
        return Sound(int(tokens.info["sample_rate"]))
    return Rows() if tokens.modality == "numeric" else None


def _others(
    tokens: TrackTokens, track: Track, samples: int, prefixes: tuple[int, ...], codec: Codec
) -> tuple[Other, ...]:
    """x264's or Opus's versions of the first `samples`; the one at the rate nearest to all levels comes first."""
    from pantok.evaluate import Other, first
    from pantok.formats import reference
    from pantok.rates import rates

    if tokens.modality not in ("video", "audio"):
        return ()
    rated = rates(tokens, codec.vocabulary.levels(tokens.modality), -(-samples // tokens.tick))
    step = max(1, math.ceil(len(prefixes) / CURVE_POINTS))
    targets = [sum(level.bits for level in rated.levels[:k]) for k in prefixes[::-1][::step]]
    targets = [bits for bits in targets if bits > 0]
    if not targets:
        return ()

    def blocks() -> Iterator[Block]:
        return first(track.blocks(), samples)

    if tokens.modality == "video":
        points = reference.x264_points(
            blocks, int(tokens.info["height"]), int(tokens.info["width"]), tokens.clock.rate or track.rate, targets
        )
    else:
        points = reference.opus_points(
            blocks,
            int(tokens.info["sample_rate"]),
            max(len(tokens.channels), 1),
            [bits / rated.seconds for bits in targets],
        )
    return tuple(
        Other(codec=p.codec, setting=p.setting, bits=p.bits, encode_seconds=p.encode_seconds, blocks=p.blocks)
        for p in points
    )


def _write_page(job: Job, store: Path, opened: Store, part: str, html: Path) -> None:
    import time

    from pantok.formats.report import Page, render
    from pantok.formats.report_page import write_page

    facts = {
        "measured": part,
        "episodes": str(len({t.episode for t in job.found})),
        "vocabulary": opened.vocabulary_id[:16],
        "made": time.strftime("%Y-%m-%d %H:%M"),
    }
    text = render(Page(title=str(store), facts=facts, tracks=job.found, problems=job.run.problems))
    write_page(html, text)
    job.run.say(
        f"Wrote {html}: {phrases.human_bytes(len(text.encode()))}. Open it in a browser; it needs no other file."
    )
