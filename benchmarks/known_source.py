"""The switch and the latent heads on a source of which everything is known (T0): held-out bits against the truth.

    OMP_NUM_THREADS=1 python benchmarks/known_source.py [--seeds 3] [--steps 1800] [--only joint,apart]

Every row has its seed, the same steps, batches and backbone; the held-out sequences are the same for all. `apart`: the
backbone and the switch for half of the steps, the latent head alone on frozen hidden vectors for the other half.
`discrete`: latents as 256 uniform bins of the quantisation step (the switch never says continuous), at the same step,
so that bits are of the same thing. `continuous`: everything as points in the plane, with uniform noise on what is
whole, said by a flow of two dimensions; its bits are a bound. `gaussian`: the Gaussian head in the flow's place. `plain
flow`: a flow from the standard Gaussian, as published. `untrained`: frequencies alone. Above truth: share by which
held-out bits exceed what the true probabilities of the same elements need; above rate: the exact entropy rate.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import torch

from pantok.world_model.flow import FlowConfig
from pantok.world_model.known_model import KnownModel, KnownModelConfig, evaluate, train, with_head
from pantok.world_model.known_source import KnownSource

STEP = 0.05
PLAIN = KnownModelConfig()
VARIANTS = {
    "joint": (PLAIN, "joint"),
    "apart": (PLAIN, "apart"),
    "discrete": (KnownModelConfig(bins=256, bin_step=STEP), "joint"),
    "continuous": (KnownModelConfig(continuous=True, flow=FlowConfig(width=64, blocks=2)), "joint"),
    "gaussian": (with_head(PLAIN, "gaussian"), "joint"),
    "plain flow": (replace(PLAIN, flow=FlowConfig(width=32, blocks=1, from_gaussian=False)), "joint"),
    "untrained": (PLAIN, "joint"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--length", type=int, default=160, help="of a sequence, in training and held out")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", default=",".join(VARIANTS), help="variants, by commas")
    args = parser.parse_args()
    source = KnownSource()
    rate = source.entropy_rate(STEP)
    held_out = source.draw(200, args.length, seed=10**7)
    print(
        f"Entropy rate at a step of {STEP}: {rate.total:.4f} bits an element (kinds {rate.kinds:.4f}, codes "
        f"{rate.codes:.4f}, latents {rate.latents:.4f}); {args.steps} steps of {args.batch} x {args.length} elements.\n"
    )
    print("| variant | seed | bits | kinds | codes | latents | above truth | above rate | ECE | gate gap | CPU s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.only.split(","):
        config, stages = VARIANTS[name]
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            torch.manual_seed(seed)
            began = time.process_time()
            model = KnownModel(source, config)
            steps = 0 if name == "untrained" else args.steps
            train(model, source, steps, seed, batch=args.batch, length=args.length, stages=stages)
            spent = time.process_time() - began
            s = evaluate(model, source, held_out, STEP)
            error = math.nan if s.gate is None else s.gate.calibration_error
            print(
                f"| {name} | {seed} | {s.total:.4f} | {s.kinds:.4f} | {s.codes:.4f} | {s.latents:.4f} "
                f"| {s.above_true:+.2%} | {s.above_rate:+.2%} | {error:.4f} "
                f"| {s.posterior_gap:.4f} | {spent:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
