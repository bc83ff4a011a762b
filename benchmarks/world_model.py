"""World models of several stores, several seeds each, beside copy-last, a ridge, a trigram and xz on what was held out.

    python benchmarks/world_model.py mujoco.zarr pong.zarr film.zarr [--seeds 3] [--steps 400] [--folder DIR]
        [--layout LAYOUT] [--latents N]

Runs `pantok train-wm` and `pantok eval RUN` as a user would (a run that is there goes on or is taken as it is), one
after the other, and prints a markdown table: mean and half range over the seeds. Bits a second are of what the model
predicts (actions are given) on the same windows; dB and squared errors (over the variance) are of the next step.
Information: how many bits a second more the model needs without the actions. Simulated: dB of frames foretold over one
second, beside the last frame repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--latents", type=int, default=0)
    parser.add_argument("--layout", default="default")
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    given = parser.parse_args()
    print("| store | what | model | without backbone | ridge | copy-last | trigram | xz |")
    print("|---|---|---|---|---|---|---|---|")
    for store in given.stores:
        found = [one(store, seed, given) for seed in range(given.seeds)]
        for row in rows(store.stem, found):
            print("| " + " | ".join(row) + " |", flush=True)


def one(store: Path, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run."""
    run = given.folder / f"{store.stem}-{seed}"
    settings = ["--steps", given.steps, "--latents", given.latents, "--layout", given.layout, "--seed", seed]
    pantok("train-wm", store, "-o", run, *settings, "-q")
    return dict(json.loads(pantok("eval", run, "--json")))


def pantok(*words: object) -> str:
    command = [sys.executable, "-m", "pantok", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def rows(name: str, found: list[dict[str, Any]]) -> list[list[str]]:
    """Of one store."""
    rate = said([f["bits_per_second"] for f in found], 0)
    base = [f["baselines"] for f in found]
    table = [
        [
            name, "bits/s", rate, "", "", "", said([b.get("ngram_bits_per_second", np.nan) for b in base], 0),
            said([b["xz_bits_per_second"] for b in base], 0),
        ]
    ]  # fmt: skip
    for track, first in found[0]["next_step"].items():
        digits = 2 if first["unit"] == "dB" else 4
        every = [f["next_step"][track] for f in found]
        cells = [said([e[p]["value"] for e in every], digits) for p in PREDICTORS]
        table.append([name, f"{track}, {first['unit']}", *cells, "", ""])
    if found[0]["actions"]:
        scale = [f["bits_per_second"] / f["bits_per_element"] for f in found]
        told = [f["actions"]["information"] * s for f, s in zip(found, scale, strict=True)]
        table.append([name, "information of actions, bits/s", said(told, 2), "", "", "", "", ""])
    if found[0]["foresight"]:
        mine, still = ([f["foresight"][k] for f in found] for k in ("psnr_simulated", "psnr_copy_last"))
        table.append([name, "simulated, dB", said(mine, 2), "", "", said(still, 2), "", ""])
    return table


PREDICTORS = ("model", "without_backbone", "ridge", "copy_last")


def said(values: list[float], digits: int) -> str:
    near = f" ± {np.ptp(values) / 2:,.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):,.{digits}f}{near}"


if __name__ == "__main__":
    main()
