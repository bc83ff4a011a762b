"""What simpler predictors need for the same held-out elements, and how sure a figure is.

What is unusual: every rival is asked about exactly the ids that the model is asked about, in the same windows. The
n-gram is counted on the run's training episodes, in the same layout, and sees of a window what the model sees of it.
xz knows no training episodes; it is given all predicted ids of the windows as one sequence.

Intervals of means are from resampled windows or episodes. Those of xz are not: a window drawn twice costs a compressor
next to nothing, so its spread is the jackknife's, with one group of windows left out at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pantok.evolve.makeup import Makeup
from pantok.evolve.predictor import NGram
from pantok.world_model.baselines import predicted_tracks, xz_bits
from pantok.world_model.grounded import GroundedHead
from pantok.world_model.grounding import Grounding, Steps
from pantok.world_model.inputs import Ends, Inputs
from pantok.world_model.intervals import Interval

GROUPS = 8
"""Of windows, for the spread of xz."""


def counted(batches: Iterable[Mapping[str, Any]], size: int, makeup: Makeup | None = None) -> NGram:
    """A trigram of all windows of a loader's batches. size: ids of the vocabulary. makeup: see `NGram`."""
    found = NGram(size, makeup)
    for batch in batches:
        ids, documents = batch["ids"].numpy(), _documents(batch["document"].numpy())
        there = batch["document"].numpy() >= 0
        found.count(ids[there], documents[there])
    return found


def ngram_bits(ngram: NGram, batches: Iterable[Inputs]) -> np.ndarray:
    """float64 (windows,): what the predicted elements of each window cost."""
    found = []
    for batch in batches:
        document, predict = batch.document.cpu().numpy(), batch.predict.cpu().numpy()
        there = document >= 0
        bits = np.zeros(document.shape)
        bits[there] = ngram.bits(batch.ids.cpu().numpy()[there], _documents(document)[there])
        found.append((bits * predict).sum(1))
    return np.concatenate(found) if found else np.zeros(0)


def xz_rate(batches: Iterable[Inputs], scale: float = 1.0) -> Interval:
    """Bits of xz for each predicted id, times `scale`."""
    windows = [
        ids[predict]
        for batch in batches
        for ids, predict in zip(batch.ids.cpu().numpy(), batch.predict.cpu().numpy(), strict=True)
    ]
    windows = [w for w in windows if len(w)]
    if not windows:
        return {"value": 0.0, "95": None}
    value = _xz(windows)
    groups = min(GROUPS, len(windows))
    if groups < 2:
        return {"value": value * scale, "95": None}
    of = np.arange(len(windows)) * groups // len(windows)
    left = np.array([_xz([w for w, g in zip(windows, of, strict=True) if g != k]) for k in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(((left - left.mean()) ** 2).sum()))
    return {"value": value * scale, "95": [(value - 1.96 * error) * scale, (value + 1.96 * error) * scale]}


def _xz(windows: Sequence[np.ndarray]) -> float:
    ids = np.concatenate(windows)
    return xz_bits(ids) / len(ids)


def _documents(document: np.ndarray) -> np.ndarray:
    """A number for each document of each window, as two windows number theirs alike."""
    return document.astype(np.int64) + np.arange(len(document))[:, None] * (1 + int(document.max(initial=0)))


# ---------------------------------------------------------------------- the next observation
PREDICTORS = ("copy_last", "ridge", "without_backbone", "model")


@torch.no_grad()
def next_step(
    grounding: Grounding, head: GroundedHead, steps: Steps, ends: Ends, hidden: torch.Tensor
) -> dict[str, dict[str, Any]]:
    """One step ahead, {track: {"unit": "dB" or "nmse", "steps": int, predictor: Interval, "gain_95": ...}}.

    Of pictures dB against those of the recording as its tokens decode it; of the rest the squared error in units of
    the spread (of sound: of the features that it is foretold in, log energies of bands). Copy-last, the ridge, the
    head without a backbone and the model; the gate of the model's correction is chosen on every other episode and
    scored on the rest, and the other way round. hidden: (N, H), after each of `ends`. Intervals are over
    episodes, or over steps where there is one episode. gain_95: of the model above copy-last and above the ridge, each
    drawn together with what it is compared to: positive is better.
    """
    space, table = grounding.space, steps.table
    rows = ends.row.numpy()
    episode = np.searchsorted(table.first, rows, "right") - 1
    predicted = _predicted(grounding, head, table.values, ends, hidden, rows, episode)
    present, target = ends.present.numpy(), ends.target.numpy()
    report: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(space.names):
        said = present[:, number]
        if name not in predicted_tracks(space) or not said.any():
            continue
        where, of = rows[said], episode[said]
        pictured, mine = name in steps.pictures, space.slices[name]
        if not pictured and space.track(name).modality == "video":
            continue
        truth = target[said][:, mine]
        spread = ((truth - truth.mean(0)) ** 2).sum(1)
        if not pictured and spread.sum() < 1e-9 * truth.size:
            continue  # nothing changes: there is nothing to foretell
        errors: dict[str, np.ndarray] = {}
        for predictor, values in predicted.items():
            if pictured:
                small = steps.pictures[name]
                guess: Any = small[where].astype(np.float32)
                if predictor != "copy_last":
                    told = grounding.ridge if predictor == "ridge" else grounding.moving
                    onward = steps.carried[name][where] if name in steps.carried else None
                    guess = told.picture(name, values[said], table.values[where], small[where], onward)
                off = np.rint(guess).clip(0, 255) - small[where + 1]
                errors[predictor] = (off**2).reshape(len(where), -1).mean(1)
            else:
                errors[predictor] = ((values[said][:, mine] - truth) ** 2).sum(1)
        weights = np.ones(len(where)) if pictured else spread
        report[name] = _compared(errors, weights, of, decibels=pictured)
    return report


def _predicted(
    grounding: Grounding, head: GroundedHead, values: np.ndarray, ends: Ends, hidden: torch.Tensor, rows: np.ndarray,
    episode: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """(N, width) by each. The gate of the model's correction is chosen on every other episode, used on the rest."""
    found = {"copy_last": values[rows], "ridge": grounding.ridge.of_inputs(ends.inputs.numpy())}
    found["without_backbone"] = head.before(ends.inputs).numpy()
    model, before = found["without_backbone"].copy(), head.gate.clone()
    for half in (0, 1):
        mine = torch.from_numpy(episode % 2 == half)
        others = ends.chosen(~mine)
        if mine.any() and len(others):
            head.calibrate([(hidden[~mine], others.inputs, others.target, others.present)])
            model[mine.numpy()] = head(hidden[mine], ends.inputs[mine]).numpy()
    head.gate.copy_(before)
    return {**found, "model": model}


def _compared(errors: Mapping[str, np.ndarray], weights: np.ndarray, of: np.ndarray, decibels: bool) -> dict[str, Any]:
    """errors: of each step, by predictor; weights: what they are divided by. of: the episode of each step."""
    items = np.unique(of, return_inverse=True)[1] if len(np.unique(of)) > 1 else np.arange(len(of))
    below = np.bincount(items, weights)
    above = {name: np.bincount(items, e) for name, e in errors.items()}
    drawn = np.random.default_rng(0).integers(0, len(below), (1000, len(below)))

    def shown(value: Any) -> Any:
        return 10 * np.log10(255**2 / np.maximum(value, 1e-12)) if decibels else value

    found: dict[str, Any] = {"unit": "dB" if decibels else "nmse", "steps": len(of)}
    many = {}
    for name, sums in above.items():
        many[name] = shown(sums[drawn].sum(1) / np.maximum(below[drawn].sum(1), 1e-12))
        value = float(shown(sums.sum() / max(float(below.sum()), 1e-12)))
        found[name] = {"value": value, "95": _quantiles(many[name]) if len(below) > 1 else None}
    sign = 1 if decibels else -1
    found["gain_95"] = {
        rival: _quantiles(sign * (many["model"] - many[rival])) if len(below) > 1 else None
        for rival in ("copy_last", "ridge")
    }
    return found


def _quantiles(values: np.ndarray) -> list[float]:
    return [float(q) for q in np.quantile(values, (0.025, 0.975))]
