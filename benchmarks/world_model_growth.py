"""What a world model keeps when its vocabulary grows: held-out bits at that moment, and how training goes on.

    python benchmarks/world_model_growth.py RUN STORE --vocab LATER.vocab --steps 100

RUN was trained under an ancestor of LATER.vocab. Three ways to go on for the same steps, over the same windows of the
same store under the later vocabulary: with what the run learned, with that but without its moments, and anew. Beside
it what the larger model says of the run's own held-out episodes, in ids of the old vocabulary: `jump` is the largest
difference of an element's bits where no share was given away, `rise` the mean rise over all elements.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pantok.commands.train_wm_parent import Parent
from pantok.commands.train_wm_task import Task
from pantok.formats.vocab import load_vocabulary
from pantok.world_model import growth
from pantok.world_model.trainer import Trainer


def trainer_of(task: Task, parent: Parent | None, moments: bool) -> Trainer:
    trainer = task.trainer("cpu")
    counts = trainer.begin()
    if parent is not None:
        if not moments:
            parent._files = {**parent._files, "optimizer": {}}
        parent.into(trainer, counts)
    return trainer


def kept(parent: Parent, trainer: Trainer, windows: int) -> dict[str, float]:
    """What both models say of the parent's held-out episodes, in ids of its vocabulary."""
    stored = parent.document
    before = Task(Path(stored["store"]), parent.config, parent.folder)
    old = before.trainer("cpu")
    old.load(parent._files, parent.step)
    total = len(before.measured.windows)
    given = before.feed.inputs(0, sorted({k * total // windows for k in range(windows)}))
    with torch.no_grad():
        first, second = (
            m.eval().log_probs(given)[given.predict].double() for m in (old.averaged(), trainer.averaged())
        )
    moved = growth.Growth(
        old.model, trainer.model, np.ones(trainer.model.vocabulary.size), np.ones(len(trainer.model.kinds.names))
    )
    shared = torch.isin(old.model.kinds_of(given)[given.predict], torch.tensor(sorted(set(moved._parents))))
    rise = (first - second) / np.log(2)
    before.feed.close(), old.feed.close()
    return {
        "bits": float(-first.mean() / np.log(2)),
        "jump": float(rise[~shared].abs().max()) if (~shared).any() else 0.0,
        "rise": float(rise.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=["goes on", "without moments", "anew"])
    asked = parser.parse_args()
    vocabulary = load_vocabulary(asked.vocab)
    rows: list[tuple[str, list[float]]] = []
    looked: dict[str, float] = {}
    for name in asked.ways:
        goes_on, moments = name != "anew", name == "goes on"
        parent = Parent(asked.run)
        config: Any = replace(parent.config, steps=asked.steps, seed=asked.seed)
        task = Task(asked.store, config, None, None, None, vocabulary, parent)
        trainer = trainer_of(task, parent if goes_on else None, moments)
        if not looked:
            looked = kept(parent, trainer, asked.windows)
        found = [task.measure(trainer, asked.windows)["bits_per_second"]]
        while trainer.step < asked.steps:
            trainer.advance()
            if trainer.step % asked.every == 0:
                found.append(task.measure(trainer, asked.windows)["bits_per_second"])
        rows.append((name, found))
        trainer.feed.close(), task.feed.close()
    said = f"{looked['bits']:.4f} bits an id before; jump {looked['jump']:.1e}, rise {looked['rise']:.1e}"
    print(f"Old held-out ids: {said}\n")
    steps = range(0, asked.steps + 1, asked.every)
    print("| held-out bits a second after | " + " | ".join(f"{k} steps" for k in steps) + " |")
    print("|---|" + "---:|" * len(steps))
    for name, found in rows:
        print(f"| {name} | " + " | ".join(f"{v:,.0f}" for v in found) + " |")


if __name__ == "__main__":
    main()
