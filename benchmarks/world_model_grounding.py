"""The next observation of a store with actions: what is foretold by copy-last, a ridge, the generative loss, and JEPAs.

    python benchmarks/world_model_grounding.py pong.zarr [--seeds 3] [--steps 1500]

Recordings as `benchmarks/world_model_recordings.py` makes them. Episodes in order of their ids: 60% to train, 15% to
validate (the ridge's penalty, the head's gate), the rest to test. No backbone: all see the last two observations and
the actions. The JEPA family and `generative` share encoder, predictor, data, steps and batches; what is reported of
them is what a linear probe, fitted on the training episodes, finds of the true observation in the code of a step (now)
and in the predicted code of the next one (next).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from pantok.evolve.compositions import makeup_of
from pantok.evolve.predictor import NGram
from pantok.formats.store import Store
from pantok.layout import Layout, arrange
from pantok.world_model.baselines import (
    CopyLast,
    Predictor,
    TrackScore,
    known_ahead,
    predicted_tracks,
    score,
    xz_bits,
)
from pantok.world_model.collapse import effective_rank, measure_collapse
from pantok.world_model.descend import descend
from pantok.world_model.grounded import GroundedHead, GroundedPredictor, Table
from pantok.world_model.latent import KINDS, LatentConfig, LatentHead
from pantok.world_model.observations import ObservationConfig, Observations, ObservationSpace
from pantok.world_model.ridge import Ridge, ridges
from pantok.world_model.step_grid import StepGrid

ACTION_FIRST = ("text*", "action*", "video*", "audio*", "*", "reward*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--action-last", action="store_true", help="the layout's own order: actions after the state")
    parser.add_argument("--no-latent", action="store_true")
    parser.add_argument("--no-motion", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    store = Store.open(given.store)
    vocabulary, ids = store.vocabulary, sorted(store.episodes)
    cuts = int(0.6 * len(ids)), int(0.75 * len(ids))
    parts = ids[: cuts[0]], ids[cuts[0] : cuts[1]], ids[cuts[1] :]
    layout = Layout() if given.action_last else Layout(tracks=ACTION_FIRST)
    began = time.process_time()
    space = ObservationSpace.fit(
        (store.read(i) for i in parts[0]), vocabulary, layout,
        ObservationConfig(dims=given.dims, motion=not given.no_motion),
    )  # fmt: skip
    train, valid, test = ([space.vectors(store.read(i), pictures=True) for i in part] for part in parts)
    ridge, moving = ridges(space, train, valid)
    print(f"{given.store}: {len(ids)} episodes, {sum(len(t.values) for t in train)} steps to train on; ", end="")

    print(f"space and ridge {time.process_time() - began:.0f} s of CPU; penalties {ridge.penalties}, ", end="")
    print(f"of motion {moving.gains}")
    seconds = xz = trigram = 0.0
    known = NGram(vocabulary.size, makeup_of(vocabulary))
    for i in parts[0]:
        known.count(arrange(store.read(i), layout, vocabulary).ids)
    for i in parts[2]:
        stream = store.read(i)
        ids = arrange(stream, layout, vocabulary).ids
        seconds += StepGrid.of(stream, layout).count * layout.step_s
        xz += xz_bits(ids)
        trigram += float(known.bits(ids).sum())
    print(
        f"bits a second of all ids: xz {xz / seconds:.0f}, trigram of the training episodes {trigram / seconds:.0f}\n"
    )
    rivals: dict[str, list[Predictor]] = {"copy-last": [CopyLast(space)], "ridge": [ridge], "with motion": [moving]}
    tables = [Table.of(space, part) for part in (train, valid)]
    began = time.process_time()
    rivals["generative head"] = [grounded(space, moving, tables, given, seed) for seed in range(given.seeds)]
    spent = (time.process_time() - began) / given.seeds
    print_scores(space, rivals, test)
    print(
        f"\nThe head: {given.steps} steps of 256, {spent:.0f} s of CPU each; mean of {given.seeds} seeds ± half range."
    )
    if not given.no_latent:
        print_latents(space, tables[0], Table.of(space, test), given)


def grounded(
    space: ObservationSpace, ridge: Ridge, tables: list[Table], given: argparse.Namespace, seed: int
) -> GroundedPredictor:
    train, valid = tables
    torch.manual_seed(seed)
    inputs, target, _ = train.batch(train.all_rows)
    spread = (target - (inputs[:, : space.width] + inputs @ torch.from_numpy(ridge.weights))).std(0).numpy()
    head = GroundedHead(space, ridge, 0, hidden=given.hidden, spread=spread)
    descend(
        head, lambda rows: head.loss(None, *train.batch(rows)), train.all_rows,
        steps=given.steps, seed=seed, weight_decay=0.1,
    )  # fmt: skip
    head.calibrate([(None, *valid.batch(valid.all_rows))])
    return GroundedPredictor(head, ridge)


def print_scores(space: ObservationSpace, rivals: dict[str, list[Predictor]], test: list[Observations]) -> None:
    tracks = predicted_tracks(space)
    units = {t: "PSNR dB" if space.track(t).modality == "video" else "NMSE" for t in tracks}
    print("| predictor | " + " | ".join(f"{t}, {units[t]}" for t in tracks) + " |")
    print("|---|" + "---|" * len(tracks))
    below: dict[str, TrackScore] = {}
    gains = []
    for name, seeds in rivals.items():
        reports = [score(space, {name: p}, test)[name] for p in seeds]
        below = below or (reports[0] if name == "ridge" else below)
        for number, report in enumerate(reports if below and name != "ridge" else []):
            for t in (t for t in tracks if units[t] != "NMSE" and t in report):
                low, high = gain_95(report[t], below[t])
                gains.append(f"{name}, seed {number}, {t}: above the ridge by {low:.3f} to {high:.3f} dB (95%)")
        cells = []
        for t in tracks:
            found = np.array([r[t].psnr_db if units[t] != "NMSE" else r[t].nmse for r in reports if t in r])
            digits = 2 if units[t] != "NMSE" else 4
            near = f" ± {np.ptp(found) / 2:.{digits}f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.{digits}f}{near}")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n" + "\n".join(gains))


def gain_95(mine: TrackScore, other: TrackScore) -> tuple[float, float]:
    """dB, over episodes drawn together."""
    sizes, squares = np.array(mine.by_episode).T
    drawn = np.random.default_rng(0).integers(0, len(sizes), (2000, len(sizes)))
    gain = 10 * np.log10(np.array(other.by_episode)[:, 1][drawn].sum(1) / squares[drawn].sum(1))
    low, high = np.quantile(gain, (0.025, 0.975))
    return float(low), float(high)


def print_latents(space: ObservationSpace, train: Table, test: Table, given: argparse.Namespace) -> None:
    names = predicted_tracks(space)
    seen = np.concatenate([np.arange(space.width)[space.slices[n]] for n in names])
    told = np.setdiff1d(np.arange(space.width), seen)
    ahead = len(known_ahead(space))

    def split(table: Table, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        inputs, target, _ = table.batch(rows)
        now, before = inputs[:, : space.width], inputs[:, space.width : 2 * space.width]
        actions = torch.cat([now[:, told], inputs[:, 2 * space.width : 2 * space.width + ahead]], 1)
        return now[:, seen], before[:, seen], actions, target[:, seen]

    print(
        f"\n| objective | loss | effective rank of {LatentConfig().dims} | least std | probe R2 now | probe R2 next |"
    )
    print("|---|---|---|---|---|---|")
    for kind in KINDS:
        found = []
        for seed in range(given.seeds):
            torch.manual_seed(seed)
            head = LatentHead(0, len(seen), len(told) + ahead, LatentConfig(kind=kind))
            losses: list[float] = []
            descend(
                head, lambda rows, head=head: head.loss(None, *split(train, rows)), train.all_rows, steps=given.steps,
                seed=seed, after=head.after_step, report=lambda _, x, losses=losses: losses.append(x),
            )  # fmt: skip
            said = []
            for table in (train, test):
                now, before, actions, after = split(table, table.all_rows)
                with torch.no_grad():
                    code, guess = head.encode(now).numpy(), head.predict(None, now, before, actions).numpy()
                said.append(((code, now.numpy()), (guess, after.numpy())))
            collapse, ahead_of = (measure_collapse(*said[1][k], fitted_on=said[0][k]) for k in (0, 1))
            last = float(np.mean(losses[-50:]))
            found.append((last, effective_rank(code), collapse.least_std, collapse.probe_r2, ahead_of.probe_r2))
        mean, half = np.mean(found, 0), np.ptp(found, 0) / 2
        print(f"| {kind} | " + " | ".join(f"{m:.3g} ± {h:.2g}" for m, h in zip(mean, half, strict=True)) + " |")


if __name__ == "__main__":
    main()
