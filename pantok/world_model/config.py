"""How a world model is made and trained: one configuration, saved whole with every run."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pantok.config import from_mapping
from pantok.errors import OptionError
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.stages import stages_of

OBJECTIVES = ("generative", "latent", "vicreg", "ema", "sigreg")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
_LEAST = {
    "length": 8, "batch": 1, "accumulate": 1, "steps": 1, "warmup": 0, "seed": 0, "code_features": 0, "hint": 0,
    "evaluate_every": 1, "evaluate_windows": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """layout: a preset of `pantok.layout` or a TOML file. length: ids of a window. batch: windows of a step, over all
    ranks. accumulate: parts that a rank takes its share of a batch in. steps: in all.

    learning_rate: rises over `warmup` steps, stays, falls to nought over the last `decay` share of the steps.
    clip: largest norm of the gradient. ema: share of the averaged weights that a step keeps (0 = none are kept).
    action_loss: also predict actions (behaviour cloning). action_dropout: share of windows whose actions are hidden,
    so that the model also knows what happens on average. held_out: share of the episodes that are kept from training.
    latents: dimensions of the continuous vectors that are predicted, the first ones; 0 leaves latents out.
    code_features: principal components of the codebooks that embeddings and outputs start from; 0 for none.
    objective: `generative`, or one of the JEPA family that moves the backbone in its place, the code of the next
    observation being predicted (`latent` plainly, `ema`, `vicreg`, `sigreg`: see `pantok.world_model.latent`): all that
    says what is seen, heard and said then looks on without moving it.
    flow: weight of the flow-matching loss beside the likelihood of the codes. ground: weight of the loss in the space
    of observations (paper, equation 8); align: what it moves: `none`, the head alone (`frozen`: hidden states are
    detached, the decoder only looks on), or everything (`joint`). ground_hours: of training episodes whose observations
    are kept for it, at most. decode: weight of the same loss through the tokenizers' decoders, code by code
    (`pantok.world_model.decoding`). hint: width of the layer by which what the last two observations foretell of a
    state goes into the elements that say it; 0 for none. grammar: the switch is not asked what the codes before tell
    (`pantok.world_model.grammar`). stages: shares of the steps by stage (`pantok.world_model.stages`); empty: all
    parts together from the first step on.
    """

    preset: str = "tiny"
    layout: str = "default"
    length: int = 512
    batch: int = 8
    accumulate: int = 1
    steps: int = 600
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    warmup: int = 40
    decay: float = 0.4
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.99
    seed: int = 0
    precision: str = "float32"
    compile: bool = False
    action_loss: bool = False
    action_dropout: float = 0.1
    held_out: float = 0.15
    latents: int = 16
    code_features: int = 16
    objective: str = "generative"
    flow: float = 0.5
    ground: float = 0.5
    decode: float = 0.0
    align: str = "joint"
    hint: int = 128
    grammar: bool = True
    stages: Mapping[str, float] = field(default_factory=dict)
    ground_hours: float = 4.0
    evaluate_every: int = 100
    evaluate_windows: int = 32
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("objective", OBJECTIVES),
            ("align", ("none", "frozen", "joint")),
        ):
            if getattr(self, name) not in known:
                raise OptionError(f"train {name}", f"cannot be {getattr(self, name)}", f"known: {', '.join(known)}")
        for name, low in _LEAST.items():
            if getattr(self, name) < low:
                raise OptionError(f"train {name}", f"{getattr(self, name)} is too small", f"at least {low}")
        for name in ("learning_rate", "clip", "ground_hours"):
            if not getattr(self, name) > 0:  # NaN, too
                raise OptionError(f"train {name}", f"cannot be {getattr(self, name)}", "a number above 0")
        for name in ("weight_decay", "flow", "ground", "decode"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"train {name}", f"cannot be {getattr(self, name)}", "0 or more")
        for name in ("action_dropout", "held_out", "ema", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"train {name}", f"{getattr(self, name)} is no share", "0 to 1")
        stages_of(self.stages, self.steps, {})
        if not 0 <= self.latents <= 32:
            raise OptionError("train latents", f"{self.latents} dimensions", "0 to 32: more a token do not learn")

    @classmethod
    def stored(cls, settings: Mapping[str, Any], where: Any) -> TrainConfig:
        """What a run was made with; what was not there yet when it was made is off."""
        return from_mapping(cls, {"hint": 0, "grammar": False, **settings}, str(where))

    @classmethod
    def of(cls, preset: str, file: Path | None = None, **given: Any) -> TrainConfig:
        """A preset, changed by a TOML file, changed by what is given (None changes nothing). Raises OptionError."""
        preset = str(_tables(file).get("preset", preset))
        if preset not in PRESETS:
            raise OptionError(f"preset {preset}", "is not there", f"known: {', '.join(PRESETS)}")
        return PRESETS[preset].changed(file, **given)

    def changed(self, file: Path | None = None, **given: Any) -> TrainConfig:
        """These, changed by a TOML file, changed by what is given (None changes nothing). Raises OptionError."""
        tables = _tables(file)
        changed = from_mapping(TrainConfig, {**tables, **{k: v for k, v in given.items() if v is not None}}, "train")
        names = {*(k.replace("-", "_") for k in tables), *(k for k, v in given.items() if v is not None)} - {"backbone"}
        backbone = from_mapping(BackboneConfig, {**vars(self.backbone), **tables.get("backbone", {})}, "backbone")
        return replace(self, backbone=backbone, **{k: getattr(changed, k) for k in names})


def _tables(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(file, f"cannot be read: {error}", "give a TOML file of training settings") from error


PRESETS: Mapping[str, TrainConfig] = {
    "tiny": TrainConfig(),
    "small": TrainConfig(
        preset="small", length=1024, batch=16, steps=6000, learning_rate=1e-3, warmup=200, ema=0.999,
        backbone=BackboneConfig(width=256, layers=6, heads=8, kv_heads=4),
    ),
    "base": TrainConfig(
        preset="base", length=2048, batch=32, steps=50_000, learning_rate=6e-4, warmup=1000, ema=0.9995,
        precision="bfloat16", compile=True, evaluate_every=500, evaluate_windows=128,
        backbone=BackboneConfig(width=768, layers=12, heads=12, kv_heads=4),
    ),
    "large": TrainConfig(
        preset="large", length=4096, batch=64, accumulate=4, steps=200_000, learning_rate=3e-4, warmup=2000,
        ema=0.9999, precision="bfloat16", compile=True, evaluate_every=1000, evaluate_windows=256,
        backbone=BackboneConfig(width=1536, layers=24, heads=16, kv_heads=8),
    ),
}  # fmt: skip
