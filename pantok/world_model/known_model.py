"""A small world model of the known source: backbone, switch and latent head, trained on it and held against the truth.

What is unusual: the gap is measured twice. Held-out bits against the exact entropy rate (which a lucky sample may
flatter), and against the true probability of the very same elements (which it cannot).

    source = KnownSource()
    model = KnownModel(source, KnownModelConfig())
    train(model, source, steps=300, seed=0)
    evaluate(model, source, source.draw(64, 160, seed=10**6), step=0.05)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from pantok.errors import OptionError
from pantok.world_model.backbone import Backbone, BackboneConfig
from pantok.world_model.flow import FlowConfig, bits, dithered, make_head
from pantok.world_model.known_source import LATENT, Drawing, KnownSource
from pantok.world_model.switch import GateReport, Kinds, Switch, gate_report


@dataclass(frozen=True, kw_only=True)
class KnownModelConfig:
    """Two comparisons. bins: 0, or the codes that latents are made (the switch forced to be always discrete): uniform
    bins of `bin_step`, about 0, the outermost open. continuous: the switch forced to be always continuous: an element
    is the point (its kind, its value or the number of its code) in the plane, whole numbers with uniform noise of one
    step on them, so that its density bounds their bits (Theis et al. 2016); one flow says all of it."""

    backbone: BackboneConfig = field(
        default_factory=lambda: BackboneConfig(width=64, layers=2, heads=4, kv_heads=2, longest_s=30.0)
    )
    flow: FlowConfig = field(default_factory=lambda: FlowConfig(width=32, blocks=1))
    bins: int = 0
    bin_step: float = 0.05
    continuous: bool = False

    def __post_init__(self) -> None:
        if self.continuous and self.bins:
            raise OptionError("known model", "always discrete and always continuous", "choose one")
        if self.bins < 0 or self.bins == 1 or not self.bin_step > 0:
            raise OptionError("known model bins", "are out of range", "0 or at least 2, of a positive step")


@dataclass(frozen=True)
class Scores:
    """Held out, bits an element at `step`: total = kinds + codes + latents; true: what the truth needs for the same
    elements; rate: the exact entropy rate. gate: the report; posterior_gap: mean total variation between the model's
    gate and the true one, which no calibration error can hide. Of a model that is always continuous only the total is
    known: its parts are 0, gate is None."""

    total: float
    kinds: float
    codes: float
    latents: float
    true: float
    rate: float
    gate: GateReport | None
    posterior_gap: float

    @property
    def above_rate(self) -> float:
        """Share of the entropy rate."""
        return self.total / self.rate - 1

    @property
    def above_true(self) -> float:
        """Share of what the same elements need."""
        return self.total / self.true - 1


class KnownModel(nn.Module):
    """p(element | all before it), for (B, L) elements of a known source; of all but the first."""

    def __init__(self, source: KnownSource, config: KnownModelConfig) -> None:
        super().__init__()
        self.config, kinds = config, source.kinds
        if config.bins:
            first = kinds.size
            kinds = Kinds(kinds.names, (*kinds.starts[:-1], first), (*kinds.stops[:-1], first + config.bins), (0,) * 5)
        width = config.backbone.width
        self.embed = nn.Embedding(kinds.size + 1, width)
        nn.init.normal_(self.embed.weight, std=0.5)
        self.value_in = nn.Linear(1, width)
        self.backbone = Backbone(config.backbone)
        self.switch = Switch(width, kinds)
        self.latent = make_head(width, 2 if config.continuous else 1, config.flow)

    @property
    def device(self) -> torch.device:
        return self.embed.weight.device

    def start_at(self, drawing: Drawing) -> None:
        """How often kinds and ids are met, and the scale of latents, from a sample."""
        kinds, ids, values = self.tensors(drawing)
        count = torch.bincount(ids[ids >= 0], minlength=self.switch.kinds.size).cpu()
        self.switch.start_at(count, torch.bincount(kinds.flatten(), minlength=5).cpu())
        if self.config.continuous:
            self.latent.fit_scale(self.points(kinds, ids, values, torch.Generator().manual_seed(0)).flatten(0, 1))
        else:
            self.latent.fit_scale(values[kinds == LATENT][:, None])

    def points(self, kinds: Tensor, ids: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L, 2): the elements as points in the plane, noise on what is whole."""
        starts = torch.tensor(self.switch.kinds.starts, device=kinds.device)
        code = dithered((ids - starts[kinds]).to(values), 1.0, generator)
        kind = dithered(kinds.to(values), 1.0, generator)
        return torch.stack([kind, torch.where(kinds == LATENT, values, code)], -1)

    def tensors(self, drawing: Drawing) -> tuple[Tensor, Tensor, Tensor]:
        """kinds, ids (with bins: of latents too) and values (B, L)."""
        kinds, ids, values = (
            torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
            for x in (drawing.kinds, drawing.ids, drawing.values)
        )
        c = self.config
        if c.bins:
            code = torch.floor(values / c.bin_step).long() + c.bins // 2
            code = code.clamp(0, c.bins - 1) + self.switch.kinds.starts[LATENT]
            ids = torch.where(kinds == LATENT, code, ids)
        return kinds, ids, values

    def hidden(self, kinds: Tensor, ids: Tensor, values: Tensor) -> Tensor:
        """(B, L, width)."""
        is_latent = kinds == LATENT
        x = self.embed(torch.where(is_latent, self.embed.num_embeddings - 1, ids))
        scaled = (values - self.latent.mean[-1]) / self.latent.scale[-1]
        x = x + self.value_in(scaled[..., None]) * is_latent[..., None]
        index = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        found: Tensor = self.backbone(x, index, index.double() / 10)
        return found

    def losses(self, drawing: Drawing, generator: torch.Generator, detach: bool = False) -> tuple[Tensor, Tensor]:
        """Mean nats of kinds and codes an element, and the mean loss of the latent head (no likelihood). detach: the
        latter does not move the backbone."""
        kinds, ids, values = self.tensors(drawing)
        hidden = self.hidden(kinds, ids, values)[:, :-1]
        target = kinds[:, 1:]
        if self.config.continuous:
            points = self.points(kinds, ids, values, generator)[:, 1:].flatten(0, 1)
            return points.new_zeros(()), self.latent.loss(hidden.flatten(0, 1), points, generator).mean()
        gate, code = self.switch.log_prob(hidden.flatten(0, 1), ids[:, 1:].flatten(), target.flatten())
        at = target == LATENT
        if self.config.bins or not bool(at.any()):
            return -(gate + code).mean(), gate.new_zeros(())
        given = hidden[at].detach() if detach else hidden[at]
        return -(gate + code).mean(), self.latent.loss(given, values[:, 1:][at][:, None], generator).mean()


def train(
    model: KnownModel, source: KnownSource, steps: int, seed: int, batch: int = 32, length: int = 96,
    learning_rate: float = 3e-3, stages: str = "joint",
) -> None:  # fmt: skip
    """AdamW, a short rise and a cosine fall, on sequences drawn afresh in each step. stages: `joint`, or `apart`: the
    backbone and the switch in the first half of the steps, the latent head alone in the second."""
    if stages not in ("joint", "apart"):
        raise OptionError(f"stages {stages}", "are not there", "joint or apart")
    model.start_at(source.draw(64, length, seed=seed * 100_003 + 1))
    generator = torch.Generator(model.device).manual_seed(seed)
    parts = [(model, steps)] if stages == "joint" else [(model, steps // 2), (model.latent, steps - steps // 2)]
    done = 0
    for trained, count in parts:
        optimizer = torch.optim.AdamW(trained.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in range(count):
            rise = min(1.0, (step + 1) / (0.05 * count))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rise * (0.5 + 0.5 * math.cos(math.pi * step / count))
            nats, latent = model.losses(
                source.draw(batch, length, seed=seed * 100_003 + 2 + done), generator, stages == "apart"
            )
            loss = nats + latent if stages == "joint" else (nats if trained is model else latent)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            done += 1


@torch.no_grad()
def evaluate(
    model: KnownModel, source: KnownSource, drawing: Drawing, step: float, skip: int = 32, flow_steps: int = 16
) -> Scores:
    """skip: elements of each sequence that are context only. step: quantisation of the latents (with bins: theirs)."""
    c = model.config
    if c.bins and step != c.bin_step:
        raise OptionError(f"step {step}", "is not that of the bins", f"{c.bin_step}")
    kinds, ids, values = model.tensors(drawing)
    hidden = model.hidden(kinds, ids, values)[:, skip - 1 : -1]
    k, flat = kinds[:, skip:], hidden.flatten(0, 1)
    at = (k == LATENT).flatten()
    true_bits = drawing.nats[:, skip:].mean() / math.log(2) - float(at.double().mean()) * math.log2(step)
    rate = source.entropy_rate(step).total
    if c.continuous:
        points = model.points(kinds, ids, values, torch.Generator(flat.device).manual_seed(0))[:, skip:].flatten(0, 1)
        nats = model.latent.log_density(flat, points, flow_steps)
        total = float(bits(nats, 1.0, 2).double().mean()) - float(at.double().mean()) * math.log2(step)
        return Scores(total, 0.0, 0.0, 0.0, float(true_bits), rate, None, math.nan)
    gate, code = model.switch.log_prob(flat, ids[:, skip:].flatten(), k.flatten())
    share = 1 / (math.log(2) * k.numel())
    if c.bins:
        latents = -float(code[at].double().sum()) * share
    else:
        nats = model.latent.log_density(flat[at], values[:, skip:].flatten()[at][:, None], flow_steps)
        latents = float(bits(nats, step, 1).double().sum()) / k.numel()
    log_gate = model.switch.log_gate(flat)
    true_gate = torch.from_numpy(drawing.gate[:, skip:]).to(flat).flatten(0, 1)
    kind_bits, code_bits = -float(gate.double().sum()) * share, -float(code[~at].double().sum()) * share
    return Scores(
        kind_bits + code_bits + latents, kind_bits, code_bits, latents, float(true_bits),
        rate, gate_report(model.switch.kinds.names, log_gate, k.flatten()),
        float((log_gate.exp() - true_gate).abs().sum(-1).mean() / 2),
    )  # fmt: skip


def with_head(config: KnownModelConfig, head: str) -> KnownModelConfig:
    """The same model with another latent head."""
    return replace(config, flow=replace(config.flow, head=head))
