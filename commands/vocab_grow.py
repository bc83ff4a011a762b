"""`pantok vocab grow`: new codes for what a vocabulary describes badly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from pantok.commands import common, phrases
from pantok.commands.cli import CHECK_FAILED
from pantok.errors import InputError, NothingToLearnError, VocabularyError


@click.command("grow")
@click.argument("vocabulary", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "sources",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="Recordings of the new kind: files, or folders of them; may be repeated.",
)
@common.output("The vocabulary to write.")
@click.option("--only", multiple=True, type=click.Choice(common.MODALITIES), help="Grow these alone; may be repeated.")
@click.option(
    "--far", type=float, help="Share of new vectors that lie too near for new codes.  [default: video 0.25, audio 0.7]"
)  # fmt: skip
@click.option("--most", type=int, help="New codes of a level at most.  [default: as many again]")
@click.option(
    "--serves",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Hours of recordings that the new codes are for: their own bits are spread over them.",
)
@common.resampling
@common.seed
@common.force
@common.dry_run
@common.as_json
@common.quiet
def grow(
    vocabulary: Path,
    sources: tuple[Path, ...],
    output: Path,
    only: tuple[str, ...],
    far: float | None,
    most: int | None,
    serves: float,
    size: int | None,
    fps: str | None,
    seed: int,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add codes for what a vocabulary describes badly, learned from recordings of a new kind.

    Old codes keep their ids and their meaning. New ones are used only where the old ones are far off, so that what was
    well described is encoded as before. Each level gets as many as pay for themselves on a part of the recordings that
    is held out. Then all is told in bits a second, on the first 20 s of them: codes under a predictor, the digits that
    bring every sample to within half the old error, and the new codes themselves. What is not better by that stays as
    it is without --force; where nothing is, nothing is written and the exit code is 3.

    \b
    Example:
      pantok vocab grow home.vocab --with new_recordings/ -o home2.vocab
    """
    from pantok.config import from_mapping
    from pantok.evolve.grow import GROWS, GrowConfig, facts
    from pantok.evolve.grow import grow as grown
    from pantok.evolve.judge import Judged, judge
    from pantok.evolve.lineage import line
    from pantok.formats.vocab import load_vocabulary, read_lineage, save_vocabulary

    run = common.Run(quiet, as_json)
    if not dry_run:
        common.refuse_vocabulary(output, force)
    given = {"far": far, "most": most}
    config = from_mapping(GrowConfig, {k: v for k, v in given.items() if v is not None}, "grow")
    old = load_vocabulary(vocabulary)
    found = common.find_episodes(run, sources)
    episodes = common.episodes(run, found, common.reading({}, size, fps))
    present = {m: [t for e in episodes for t in e.of_modality(m)] for m in only or GROWS}
    lacking = [m for m, tracks in present.items() if tracks and m not in old.states]
    remedy = "learn one from them with pantok fit-vocab, and join the two with pantok vocab merge"
    if not any(present.values()):
        raise InputError(" ".join(map(str, sources)), f"holds no {' or '.join(present)}", "nothing else grows")
    if all(m in lacking for m, tracks in present.items() if tracks):
        raise VocabularyError(vocabulary, f"has no tokenizer for {' or '.join(lacking)}", remedy)
    for modality in lacking:
        run.problem(f"{modality}: {vocabulary} has no tokenizer for it ({remedy})")
    began, states, report = time.monotonic(), {}, {}
    judged: dict[str, tuple[Judged, Judged]] = {}
    nothing: dict[str, NothingToLearnError] = {}
    with run.progress() as bar:
        for modality, tracks in present.items():
            if not tracks or modality in lacking:
                continue
            task = bar.add_task(modality, total=1.0, note="")

            def progress(what: str, fraction: float, task: Any = task) -> None:
                bar.update(task, completed=fraction, note=what)

            try:
                state, growths = grown(old.states[modality], tracks, config, seed=seed, report=progress)
                if state.digest != old.states[modality].digest:
                    judged[modality] = judge(old.states[modality], state, tracks, serves=3600 * serves)
            except NothingToLearnError as error:
                nothing[modality] = error
                continue
            states[modality], report[modality] = state, facts(growths)
    if nothing and not report:
        raise next(iter(nothing.values()))
    for modality, why in nothing.items():
        run.problem(f"{why}: {modality} stays as it is")
    columns = ["level", "codes", "new", "vectors", "error before", "after", "learned beyond"]
    run.summary(
        columns,
        [
            [
                f"{m} {g['level']}",
                f"{g['codes']}",
                f"{g['added']}",
                f"{g['vectors']}",
                f"{g['before']:.2f} {g['unit']}",
                f"{g['after']:.2f} {g['unit']}",
                f"{g['threshold'] ** 0.5:.0f}",
            ]
            for m, growths in report.items()
            for g in growths
        ],
    )
    run.summary(
        ["bits a second", "", "ids", "digits", "new codes", "ids a second", "error"],
        [
            [
                m if k == 0 else "",
                f"{'before' if k == 0 else 'after'} {j.bits:.0f}",
                f"{j.id_bits:.0f}",
                f"{j.digit_bits:.0f}",
                f"{j.cost.dictionary_bits_per_second:.0f}",
                f"{j.ids_per_second:.0f}",
                f"{j.error:.4g}",
            ]
            for m, pair in judged.items()
            for k, j in enumerate(pair)
        ],
    )
    worse = [m for m, (a, b) in judged.items() if b.bits >= a.bits]
    kept = [m for m in judged if force or m not in worse]
    new = old
    for modality in kept:
        new = new.with_state(states[modality])
    bits = [{m: round(judged[m][k].bits, 1) for m in kept} for k in (0, 1)]
    document = {
        "vocabulary": str(output),
        "id": new.id,
        "grown": kept,
        "before": {"ids": old.size, "bits_per_second": {m: round(a.bits, 1) for m, (a, _) in judged.items()}},
        "after": {"ids": new.size, "bits_per_second": {m: round(b.bits, 1) for m, (_, b) in judged.items()}},
        "seconds": round(time.monotonic() - began, 3),
        "levels": report,
    }
    if worse and not force:
        run.say(
            f"{' and '.join(worse)} {'stays as it is' if len(worse) == 1 else 'stay as they are'}: new codes would "
            "cost more than they save. More recordings, or --serves more hours; --force grows all the same."
        )
    if not kept:
        run.say("Nothing written." if worse else "Nothing written: no new code would pay on these recordings.")
        run.end(document, CHECK_FAILED)
    if dry_run:
        run.say(f"Would add {new.size - old.size} ids to {old.size}.")
        run.end(document)
    step = line(
        "grow", new, [old], {"with": [str(s) for s in sources], "far": config.far, "most": config.most, "seed": seed},
        {"ids": old.size, "bits_per_second": bits[0]},
        {"ids": new.size, "bits_per_second": bits[1], "levels": {m: report[m] for m in kept}},
    )  # fmt: skip
    save_vocabulary(new, output, force=force, lineage=[*read_lineage(vocabulary), step])
    run.say(
        f"Wrote {output}: {new.size} ids, {new.size - old.size} of them new; none has moved. "
        f"{phrases.human_seconds(time.monotonic() - began)}."
        f"\nNext: pantok encode {phrases.shell(*sources)} --vocab {phrases.shell(output)} -o …"
    )
    run.end(document)
