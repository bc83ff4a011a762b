"""Training in stages: parts of the model apart first, then all of them together.

What is unusual: a stage is no run of its own. Which one a step belongs to follows from the step's number, like its
windows and its noise, so one command trains them all and a run that was killed goes on within its stage.

    text      the language model: sequences of words alone, where the recordings have any
    levels    what is seen, heard and felt: codes of every level, and the switch
    latents   the flows, on a backbone that stands still
    joint     everything, with the loss in the space of observations (paper, section on training: modules first,
              then aligned jointly)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pantok.errors import OptionError

NAMES = ("text", "levels", "latents", "joint")
APART = MappingProxyType({"text": 0.1, "levels": 0.35, "latents": 0.1, "joint": 0.45})
"""Shares of the steps that `train-wm --staged` gives."""


@dataclass(frozen=True)
class Stage:
    """Steps [first, stop) of a run. name: of NAMES."""

    name: str
    first: int
    stop: int

    @property
    def codes(self) -> bool:
        """Whether the likelihood of codes and words counts."""
        return self.name != "latents"

    @property
    def flows(self) -> bool:
        return self.name in ("latents", "joint")

    @property
    def aligned(self) -> bool:
        """Whether the losses in the space of observations count."""
        return self.name == "joint"

    def moves(self, parameter: str) -> bool:
        """Whether a parameter of that name is trained."""
        if self.name == "latents":
            return parameter.startswith("flows.")
        return self.name == "joint" or not parameter.startswith(("flows.", "grounded.", "latent."))


def stages_of(shares: Mapping[str, float], steps: int, having: Mapping[str, bool]) -> tuple[Stage, ...]:
    """The stages of a run, in the order of NAMES. shares: of the steps; empty: one joint stage. having: whether there
    are words and latents to train on (`text`, `latents`, True where nothing is said); others' steps go to the rest.

    Raises OptionError for a stage that there is not, or shares that are no shares.
    """
    unknown = [name for name in shares if name not in NAMES]
    if unknown:
        raise OptionError(f"stage {unknown[0]}", "is not there", f"known: {', '.join(NAMES)}")
    if any(share < 0 for share in shares.values()) or (shares and sum(shares.values()) <= 0):
        raise OptionError("stages", "are no shares of the steps", "such as levels = 0.5, joint = 0.5")
    kept = [(n, shares[n]) for n in NAMES if shares.get(n, 0) > 0 and having.get(n, True)]
    if not kept:
        return (Stage("joint", 0, steps),)
    total, done, found = sum(share for _, share in kept), 0.0, []
    for name, share in kept:
        first, done = round(done * steps), done + share / total
        if round(done * steps) > first:
            found.append(Stage(name, first, round(done * steps)))
    return tuple(found)
