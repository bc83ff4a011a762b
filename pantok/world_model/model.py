"""The PAN world model: a state in, the next state out, as hierarchical codes, words and continuous latents.

    e = embedding of ids, roles and latents          state s and action a as a sequence
    h = f(e)                                         the backbone; h_i has seen elements 0..i
    p(kind | h), p(code | kind, h), p(latent | h)    the learned switch and its heads

What is unusual: no softmax spans the vocabulary. The switch chooses which vocabulary speaks next (words, a level's
codes, a continuous latent, or the marks that end a state), then that vocabulary alone is normalised; the product is
the same probability, at a fraction of the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.errors import OptionError
from pantok.layout import ROLES, Layout
from pantok.vocabulary import Vocabulary
from pantok.world_model.backbone import Backbone, Cache
from pantok.world_model.config import TrainConfig
from pantok.world_model.decoding import ExpectedDecode
from pantok.world_model.features import FeatureTable, code_features
from pantok.world_model.grammar import Grammar
from pantok.world_model.grounded import GroundedHead
from pantok.world_model.grounding import Grounding, action_inputs
from pantok.world_model.inputs import PLACES, Ends, Foretold, Inputs, level_keys
from pantok.world_model.latent import LatentConfig, LatentHead
from pantok.world_model.stages import Stage
from pantok.world_model.switch import Kinds, Switch

BITS = 1 / math.log(2)


@dataclass(frozen=True)
class Losses:
    """Sums over the elements of a batch. nll: nats of gate and codes, a likelihood. flow: the flow-matching loss,
    which is not one. ground: nats a value of what is observed next, by state. latent: the loss of the JEPA family, by
    state, if that is the objective. decode: squared error of the expected code, by element. Weights are of the training
    loss."""

    nll: Tensor
    gate: Tensor
    flow: Tensor
    ground: Tensor
    flow_weight: float
    ground_weight: float
    latent: Tensor
    decode: Tensor
    decode_weight: float

    def mean(self, counts: Mapping[str, float], stage: Stage | None = None) -> Tensor:
        """The training loss: each part that counts in the stage, over its elements in the whole step."""
        codes, flows, aligned = (True, True, True) if stage is None else (stage.codes, stage.flows, stage.aligned)
        return (
            codes * (self.nll + self.decode_weight * self.decode) / max(1.0, counts["elements"])
            + flows * self.flow_weight * self.flow / max(1.0, counts["latents"])
            + aligned * (self.ground_weight * self.ground + self.latent) / max(1.0, counts["states"])
        )

    def detached(self) -> dict[str, float]:
        return {name: float(getattr(self, name).detach()) for name in _SUMS}

    @staticmethod
    def summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
        found = list(parts)
        return {k: sum(p[k] for p in found) for k in _SUMS}

    @staticmethod
    def report(sums: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        elements, latents = max(1.0, counts["elements"]), max(1.0, counts["latents"])
        return {
            "loss": sums["nll"] / elements,
            "bits_per_element": BITS * sums["nll"] / elements,
            "gate_bits_per_element": BITS * sums["gate"] / elements,
            "flow_loss": sums["flow"] / latents,
            "ground_loss": sums["ground"] / max(1.0, counts["states"]),
            "latent_loss": sums["latent"] / max(1.0, counts["states"]),
            "decode_loss": sums["decode"] / elements,
            "elements": counts["elements"],
        }


_SUMS = ("nll", "gate", "flow", "ground", "latent", "decode")


class Hint(nn.Module):
    """Adds to each element what the two observations before its state foretell of it.

    The predicted observation and its difference from the last go through one layer a state; what an element takes of
    it depends on the element: its level, and where in the picture it stands. Nothing is added at first.
    """

    def __init__(self, width: int, observed: int, hidden: int) -> None:
        super().__init__()
        self.state = nn.Linear(2 * observed, hidden)
        self.element = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, foretold: Foretold, head: GroundedHead) -> Tensor:
        """x: (B, L, width)."""
        if not len(foretold.inputs):
            return x
        now = foretold.inputs[:, : head.width]
        guess = head.before(foretold.inputs)
        state = F.silu(self.state(torch.cat([guess, guess - now], 1).to(x.dtype)))
        chosen = foretold.row >= 0
        rows = x[chosen]
        asked = self.element(F.rms_norm(rows, rows.shape[-1:]))
        found = self.out(state[foretold.row[chosen]] * asked)
        return x.masked_scatter(chosen[..., None], rows + found.to(x.dtype))


class WorldModel(nn.Module):
    """vocabulary: its extents are what the switch chooses among. latent_dims: of each modality's continuous vectors.
    latent_modalities: modality of each track that has some, by name. grounding: what the loss in the space of
    observations is about; without it there is none."""

    kind_of: Tensor
    keys: Tensor
    actions: Tensor

    def __init__(
        self, vocabulary: Vocabulary, config: TrainConfig, latent_dims: Mapping[str, int] | None = None,
        latent_modalities: Mapping[str, str] | None = None, grounding: Grounding | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._made_of = (vocabulary, config, latent_dims, latent_modalities, grounding)
        self.config, self.vocabulary, self.grounding = config, vocabulary, grounding
        self.latent_dims, self.latent_modalities = dict(latent_dims or {}), dict(latent_modalities or {})
        width = config.backbone.width
        self.kinds = Kinds.of(vocabulary, self.latent_dims)
        features = code_features(vocabulary, config.code_features) if config.code_features else {}
        self.embed = FeatureTable(vocabulary.size, width, features, 0.02)
        self.role = nn.Embedding(len(ROLES), width)
        self.place = nn.Embedding(PLACES, width)
        nn.init.normal_(self.place.weight, std=0.02)
        nn.init.normal_(self.role.weight, std=0.02)
        self.latent_in = nn.ModuleDict({m: nn.Linear(d, width) for m, d in self.latent_dims.items()})
        self.backbone = Backbone(config.backbone)
        self.switch = Switch(width, self.kinds, features)
        self.decoding = ExpectedDecode(vocabulary, self.switch) if config.decode else None
        self.grammar = Grammar.of(vocabulary, self.kinds, Layout.of(config.layout)) if config.grammar else None
        self.flows = nn.ModuleDict()
        if self.latent_dims:
            from pantok.world_model.flow import FlowHead

            self.flows.update({m: FlowHead(width, d) for m, d in self.latent_dims.items()})
        self.grounded = grounding.head(width) if grounding is not None and config.align != "none" else None
        self.latent = None
        if config.objective != "generative":
            if self.grounded is None or grounding is None:
                raise OptionError(
                    f"objective {config.objective}", "predicts codes of observations, and there are none",
                    "give recordings with sight, sound or numbers, and align joint or frozen",
                )  # fmt: skip
            kind = "plain" if config.objective == "latent" else config.objective
            seen, actions = int(self.grounded.foretold.sum()), action_inputs(grounding.space)
            self.latent = LatentHead(width, seen, int(actions.sum()), LatentConfig(kind=kind))
            self.register_buffer("actions", actions, persistent=False)
        self.hint = None
        if self.grounded is not None and config.hint:
            self.hint = Hint(width, self.grounded.width, config.hint)
        self.register_buffer("kind_of", self.kinds.table(), persistent=False)
        self.register_buffer("keys", level_keys(vocabulary), persistent=False)
        # Into memory of torch's own: what numpy allots is aligned now so, now so, and the last bit of a matrix product
        # depends on that. A run that goes on has to give the curve of one that was never stopped.
        self._apply(torch.clone)

    def alike(self) -> WorldModel:
        """A model of the same make, with weights of its own."""
        return WorldModel(*self._made_of)

    @property
    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def elements(self, inputs: Inputs) -> Tensor:
        """(B, L, width): what the backbone is given."""
        x = F.embedding(inputs.ids, self.embed()) + self.role(inputs.role) + self.place(inputs.ordinal)
        if self.hint is not None and self.grounded is not None and inputs.foretold is not None:
            x = self.hint(x, inputs.foretold, self.grounded)
        if not inputs.latents:
            return x
        flat = x.reshape(-1, x.shape[-1])
        for modality, (values, place) in inputs.latents.items():
            head: Any = self.flows[modality]
            flat = flat.index_add(0, place, self.latent_in[modality](head.normalised(values)).to(flat.dtype))
        return flat.view_as(x)

    def hidden(self, inputs: Inputs, cache: Cache | None = None) -> Tensor:
        """(B, L, width): h."""
        document = None if cache is not None else inputs.document
        return self.backbone(self.elements(inputs), inputs.index, inputs.time_s, document, cache)

    def kinds_of(self, inputs: Inputs) -> Tensor:
        """int64 (B, L): the kind of each element."""
        kinds = self.kind_of[inputs.ids]
        flat = kinds.reshape(-1)
        for modality, (_, place) in inputs.latents.items():
            flat = flat.index_fill(0, place, self.kinds.names.index(f"latent.{modality}"))
        return flat.view_as(kinds)

    def admitted(self, inputs: Inputs) -> Tensor | None:
        """bool (N, K): the kinds that each predicted element may be of, as far as the elements before tell it."""
        if self.grammar is None:
            return None
        found: Tensor = self.grammar.admitted(inputs.ids)[inputs.predict[:, 1:]]
        return found

    def counts(self, inputs: Inputs) -> dict[str, float]:
        """How many elements and latents of a batch are predicted."""
        predict = inputs.predict.reshape(-1)
        latents = sum(int(predict[place].sum()) for _, place in inputs.latents.values())
        ends = inputs.ends
        states = 0 if ends is None or self.grounded is None else int(self.grounded.seen(ends.present).sum())
        return {"elements": float(predict.sum()), "latents": float(latents), "states": float(states)}

    def forward(self, inputs: Inputs, seed: tuple[int, ...] = (0,)) -> Losses:
        """seed: of the noise of the flow; each window's is a pure function of (seed, window)."""
        hidden = self.hidden(inputs)
        latent = hidden.new_zeros(())
        if self.latent is not None:
            latent = self._latent_loss(hidden, inputs.ends, seed)
            # The rest looks on: what the latent objective has made of the backbone is all that it can use.
            hidden = hidden.detach()
        before = hidden[:, :-1][inputs.predict[:, 1:]]
        ids = inputs.ids[:, 1:][inputs.predict[:, 1:]]
        kinds = self.kinds_of(inputs)[:, 1:][inputs.predict[:, 1:]]
        gate, code = self.switch.log_prob(before, ids, kinds, self.admitted(inputs))
        decode = hidden.new_zeros(())
        if self.decoding is not None:
            decode = self.decoding.losses(self.switch, before, ids, kinds).sum()
        flow = hidden.new_zeros(())
        for modality, (values, place) in inputs.latents.items():
            mine = place[inputs.predict.reshape(-1)[place]]
            if len(mine):
                values = values[inputs.predict.reshape(-1)[place]]
                flow = flow + self._flow(modality, hidden, inputs, values, mine, seed)
        ground, ends = hidden.new_zeros(()), inputs.ends
        if self.grounded is not None and ends is not None and len(ends):
            state = hidden.reshape(-1, hidden.shape[-1])[ends.place]
            # The decoder that only looks on (`frozen`) is the ablation of DINO-WM (Zhou et al. 2024).
            state = state.detach() if self.config.align == "frozen" else state
            ground = self.grounded.losses(state, ends.inputs, ends.target, ends.present).sum()
        weights = self.config
        return Losses(
            -(gate + code).sum(),
            -gate.sum(),
            flow,
            ground,
            weights.flow,
            weights.ground,
            latent,
            decode,
            weights.decode,
        )

    def _latent_loss(self, hidden: Tensor, ends: Ends | None, seed: tuple[int, ...]) -> Tensor:
        """A sum over states. Variances and projections are of the part of a batch that a process works on at once."""
        if self.latent is None or ends is None or len(ends) < 2:
            return hidden.new_zeros(())
        state = hidden.reshape(-1, hidden.shape[-1])[ends.place]
        generator = torch.Generator(hidden.device).manual_seed(_mixed(*seed))
        return self.latent.loss(state, *self.observed(ends), generator=generator) * len(ends)

    def observed(self, ends: Ends) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """now, before, given and after, as `LatentHead` takes them."""
        assert self.grounded is not None
        seen, width = self.grounded.foretold, self.grounded.width
        now, before = ends.inputs[:, :width][:, seen], ends.inputs[:, width : 2 * width][:, seen]
        return now, before, ends.inputs[:, self.actions], ends.target[:, seen]

    def after_step(self) -> None:
        """To be called after each step of the optimiser."""
        if self.latent is not None:
            self.latent.after_step()

    def _flow(
        self, modality: str, hidden: Tensor, inputs: Inputs, values: Tensor, place: Tensor, seed: tuple[int, ...]
    ) -> Tensor:
        length = inputs.ids.shape[1]
        before = hidden.reshape(-1, hidden.shape[-1])[place - 1]
        head: Any = self.flows[modality]
        noise, time = [], []
        for row, window in enumerate(inputs.window.tolist()):
            count = int(((place >= row * length) & (place < (row + 1) * length)).sum())
            generator = torch.Generator().manual_seed(_mixed(*seed, window))
            made = head.noise(count, generator)
            noise.append(made[0])
            time.append(made[1])
        return head.loss(before, values, (torch.cat(noise).to(values), torch.cat(time).to(values))).sum()

    def latent_nats(self, inputs: Inputs, hidden: Tensor, steps: int = 8) -> list[tuple[str, Tensor, Tensor]]:
        """(modality, log density (N,), standard deviations (D,)) of the latents that are predicted, in the units of
        the data; the switch's part is not in it."""
        found = []
        predict, flat = inputs.predict.reshape(-1), hidden.reshape(-1, hidden.shape[-1])
        for modality, (values, place) in inputs.latents.items():
            mine = predict[place]
            if mine.any():
                head: Any = self.flows[modality]
                found.append((modality, head.log_density(flat[place[mine] - 1], values[mine], steps), head.scale))
        return found

    def draw_latent(self, modality: str, hidden: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """(B, D): a latent after each hidden vector (B, width)."""
        head: Any = self.flows[modality]
        found: Tensor = head.sample(hidden, steps, generator)
        return found

    def log_probs(self, inputs: Inputs, hidden: Tensor | None = None) -> Tensor:
        """float (B, L): nats of each predicted element, 0 elsewhere; for a latent the switch's part alone."""
        hidden = self.hidden(inputs) if hidden is None else hidden
        gate, code = self.switch.log_prob(
            hidden[:, :-1][inputs.predict[:, 1:]], inputs.ids[:, 1:][inputs.predict[:, 1:]],
            self.kinds_of(inputs)[:, 1:][inputs.predict[:, 1:]], self.admitted(inputs),
        )  # fmt: skip
        found = hidden.new_zeros(inputs.ids.shape, dtype=torch.float32)
        found[:, 1:][inputs.predict[:, 1:]] = gate + code
        return found


def _mixed(*numbers: int) -> int:
    """One seed of several numbers (splitmix64 of each in turn)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def describe(model: WorldModel) -> dict[str, Any]:
    """Sizes, for people and for the run's configuration."""
    return {"parameters": model.parameters_count, "kinds": list(model.kinds.names), "latents": model.latent_dims}
