"""Training: a pure function of configuration, data and step.

What is unusual: the state of the data is the number of the step. Which windows a step takes, what noise they get and
which actions are hidden follow from (seed, epoch, window), so a run that was killed goes on bit for bit (on CPU), and
two processes take the same windows with the same noise as one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pantok.errors import DivergedError, OptionError
from pantok.loader import StreamDataset
from pantok.world_model.config import TrainConfig
from pantok.world_model.grounding import Steps
from pantok.world_model.inputs import Inputs, concatenated, inputs_of
from pantok.world_model.model import Losses, WorldModel
from pantok.world_model.sharding import Divided, alike, whole
from pantok.world_model.stages import Stage, stages_of


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's."""

    rank: int = 0
    world: int = 1


class Feed:
    """The windows of each step as `Inputs`, the next step's made while this one is worked on."""

    def __init__(
        self, data: StreamDataset, model: WorldModel, config: TrainConfig, share: Share, steps: Steps | None = None
    ) -> None:
        self.steps = steps
        self.data, self._config, self._share = data, config, share
        self._modalities, self._hidden = model.latent_modalities, data.vocabulary.control("gap")
        self._keys = model.keys.cpu()
        self._total = len(data.windows)
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Any] | None = None

    def step(self, step: int) -> Inputs:
        """This rank's windows of a step."""
        ready = self._next
        made = ready[1].result() if ready is not None and ready[0] == step else self._make(step)
        self._next = (step + 1, self._pool.submit(self._make, step + 1))
        return made

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _make(self, step: int) -> Inputs:
        config, share = self._config, self._share
        first = step * config.batch
        numbers = range(first + share.rank, first + config.batch, share.world)
        by_epoch: dict[int, list[int]] = {}
        for number in numbers:
            by_epoch.setdefault(number // self._total, []).append(number % self._total)
        return concatenated([self.inputs(epoch, windows, training=True) for epoch, windows in by_epoch.items()])

    def inputs(self, epoch: int, windows: Sequence[int], training: bool = False) -> Inputs:
        config = self._config
        dropout = config.action_dropout if training and not config.action_loss else 0.0
        batch = self.data.batch(epoch, windows)
        return inputs_of(
            batch, self._keys, self._modalities, config.latents, seed=config.seed,
            action_loss=config.action_loss, action_dropout=dropout, hidden_id=self._hidden,
            ends=None if self.steps is None else self.steps.ends(batch),
            foretold=None if self.steps is None or not config.hint else self.steps.foretold(batch),
        )  # fmt: skip


class Trainer:
    """A model, its optimiser and its data.

    data: the training episodes, made with `shuffle=True`. steps: what is observed in them, if the model is grounded.
    words: their words alone, for the stage of that name; None if they have none.
    """

    def __init__(
        self, model: WorldModel, config: TrainConfig, data: StreamDataset, *, share: Share = Share(),
        device: str | torch.device = "cpu", steps: Steps | None = None, words: StreamDataset | None = None,
    ) -> None:  # fmt: skip
        if config.batch % share.world or (config.batch // share.world) % config.accumulate:
            raise OptionError(
                "train batch", f"{config.batch} windows do not divide by {share.world} ranks x {config.accumulate}",
                "choose a multiple",
            )  # fmt: skip
        self.model, self.config, self.share, self.device = model.to(device), config, share, torch.device(device)
        # Said once, whatever was done before: MKL divides a product otherwise, and the last bit differs.
        torch.set_num_threads(torch.get_num_threads())
        self.feed = Feed(data, model, config, share, steps)
        self._words = None if words is None else Feed(words, model, config, share)
        having = {"text": words is not None, "latents": bool(model.latent_dims)}
        self.stages = stages_of(config.stages, config.steps, having)
        self.step = self.before = 0
        """before: steps that these weights had seen in the run that this one goes on from."""
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()} if config.ema else None
        self._optimizers = _optimizers(model, config)
        self._run = torch.compile(model) if config.compile and self.device.type == "cuda" else model
        self._divided: Divided | None = None

    @property
    def sharded(self) -> bool:
        return self._divided is not None

    def shard(self) -> None:
        """Parameters, gradients, moments and averages are divided over the ranks from here on (FSDP2); the curve stays.
        After `begin`, `load` and all else that sets weights. All ranks must then call `tensors` and `averaged`."""
        moments = self._moments()
        self._divided = Divided(self.model, self.device)
        self._optimizers = _optimizers(self.model, self.config)
        self._set_moments(moments)
        if self.average is not None:
            held = self.model.state_dict()
            self.average = {k: alike(v, held[k]) for k, v in self.average.items()}

    def advance(self) -> dict[str, Any]:
        """One step. What it measured on the way, over all ranks: `loss` and its parts, the norm of the gradient."""
        config = self.config
        rate = learning_rate(self.step, config)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            optimizer.zero_grad(set_to_none=True)
        stage = self.stage
        feed = self._words if stage.name == "text" and self._words is not None else self.feed
        inputs = feed.step(self.step)
        # Each part is weighted by its share of the whole step's elements, so that parts and ranks do not matter.
        counts = self._over_ranks(self.model.counts(inputs))
        each = len(inputs.ids) // config.accumulate
        parts = []
        self.model.train()
        for start in range(0, len(inputs.ids), each):
            part = inputs.rows(start, start + each).to(self.device)
            seed = (config.seed, self.step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                if self._divided is None:
                    losses: Losses = self._run(part, seed=seed)
                    loss = losses.mean(counts, stage)
                else:
                    loss, losses = self._divided(part, seed, counts, stage)
            loss.backward()
            parts.append(losses.detached())
        self._reduce_gradients()
        for name, p in self.model.named_parameters():
            if not stage.moves(name):
                p.grad = None  # the optimiser passes it over: no step, no decay
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        for optimizer in self._optimizers:
            optimizer.step()
        self.model.after_step()
        self.step += 1
        self._average()
        sums = self._over_ranks(Losses.summed(parts))
        report = {**Losses.report(sums, counts), "gradient_norm": float(whole(norm)), "learning_rate": rate}
        return {"step": self.step, "stage": stage.name, **report}

    def agreed(self, wish: bool) -> bool:
        """Whether any rank has the wish: what one does, all must do at the same step."""
        return self._over_ranks({"wish": float(wish)})["wish"] > 0

    @property
    def stage(self) -> Stage:
        """Of the next step; after the last, the last."""
        return next((s for s in self.stages if self.step < s.stop), self.stages[-1])

    def close(self) -> None:
        """Ends what prepares the next windows."""
        for feed in (self.feed, self._words):
            if feed is not None:
                feed.close()

    def _average(self) -> None:
        if self.average is None:
            return
        seen = self.step + self.before
        keep = min(self.config.ema, seen / (seen + 10))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)

    def _over_ranks(self, sums: Mapping[str, float]) -> dict[str, float]:
        if self.share.world == 1:
            return dict(sums)
        names = sorted(sums)
        values = torch.tensor([sums[n] for n in names], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def _reduce_gradients(self) -> None:
        """Sums gradients over the ranks: each loss is already a share of the whole. What took no part in a step has a
        gradient of nought, not none: whether it decays must not hang on how windows fall on ranks."""
        held = [p for p in self.model.parameters() if p.requires_grad]
        for p in held:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if self.share.world == 1 or self.sharded:
            return
        flat = torch.cat([p.grad.reshape(-1) for p in held if p.grad is not None])
        torch.distributed.all_reduce(flat)
        at = 0
        for p in held:
            p.grad = flat[at : at + p.numel()].view_as(p).clone()
            at += p.numel()

    def tensors(self) -> dict[str, dict[str, np.ndarray]]:
        """All that a checkpoint holds, by file."""
        files = {"model": _arrays(self.model.state_dict())}
        if self.average is not None:
            files["average"] = _arrays(self.average)
        files["optimizer"] = self._moments()
        return files

    def _moments(self) -> dict[str, np.ndarray]:
        return _arrays({
            f"{number}.{place}.{key}": torch.as_tensor(value)
            for number, optimizer in enumerate(self._optimizers)
            for place, state in optimizer.state_dict()["state"].items()
            for key, value in state.items()
        })  # fmt: skip

    def _set_moments(self, moments: Mapping[str, np.ndarray]) -> None:
        for number, optimizer in enumerate(self._optimizers):
            moved = [p for g in optimizer.param_groups for p in g["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in moments.items():
                which, place, name = key.split(".")
                if int(which) == number:
                    tensor = alike(torch.from_numpy(value.copy()), moved[int(place)])
                    state.setdefault(int(place), {})[name] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def load(self, files: Mapping[str, Mapping[str, np.ndarray]], step: int) -> None:
        """Goes on from a checkpoint."""
        self.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in files["model"].items()})
        if self.average is not None:
            for name, value in files["average"].items():
                self.average[name].copy_(torch.from_numpy(value.copy()))
        self._set_moments(files["optimizer"])
        self.step = step

    @property
    def places(self) -> list[list[str]]:
        """Of each optimiser the names of what it moves, in its order."""
        return _places(self.model, self._optimizers)

    def begin(self, windows: int = 256) -> tuple[Tensor, Tensor]:
        """Closed form first: the switch starts at how often each kind and code is met, latents in units of the data.
        Returns how often each id and each kind was: float64 (V,) and (K,)."""
        total = len(self.feed.data.windows)
        chosen = sorted({k * total // min(windows, total) for k in range(min(windows, total))})
        ids = torch.zeros(self.model.vocabulary.size, dtype=torch.float64)
        kinds = torch.zeros(len(self.model.kinds.names), dtype=torch.float64)
        latents: dict[str, list[Tensor]] = {}
        for start in range(0, len(chosen), 16):
            inputs = self.feed.inputs(0, chosen[start : start + 16]).to(self.device)
            found = self.model.kinds_of(inputs)[inputs.predict]
            kinds += torch.bincount(found, minlength=len(kinds)).cpu()
            for modality, (values, _) in inputs.latents.items():
                latents.setdefault(modality, []).append(values)
            discrete = torch.tensor([d == 0 for d in self.model.kinds.dims], device=self.device)[found]
            ids += torch.bincount(inputs.ids[inputs.predict][discrete], minlength=len(ids)).cpu()
        self.model.switch.start_at(ids, kinds)
        for modality, many in latents.items():
            head: Any = self.model.flows[modality]
            head.fit_scale(torch.cat(many))
        self.average_anew()
        return ids, kinds

    def average_anew(self) -> None:
        """Averages begin with the weights that there are."""
        if self.average is not None:
            self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def averaged(self) -> WorldModel:
        """The model with averaged weights, for measuring; the model itself where none are kept. Whole."""
        if self.average is None and not self.sharded:
            return self.model
        copy = self.model.alike()
        weights = self.model.state_dict() if self.average is None else self.average
        copy.load_state_dict({k: whole(v) for k, v in weights.items()})
        return copy.to(self.device)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Warm-up, plateau, linear decay to nought (Hu et al. 2024, WSD)."""
    left = (config.steps - step) / max(1.0, config.decay * config.steps)
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup), left)


def _optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW; or Muon for the matrices of the backbone and AdamW for the rest. `scale` is of the learning rate."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if p.ndim == 2 and n.startswith("backbone.")]
    inside = {id(p) for p in matrices}
    tables = [p for n, p in named if p.ndim >= 2 and id(p) not in inside]
    rest = [p for n, p in named if p.ndim < 2]
    decayed, plain = [*tables], rest
    made: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise OptionError("--optimizer muon", f"is not in torch {torch.__version__}", "it came with torch 2.9")
        muon = torch.optim.Muon(
            matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        muon.param_groups[0]["scale"] = 1.0
        made.append(muon)
    else:
        decayed = [*matrices, *tables]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": plain, "weight_decay": 0.0, "scale": 1.0},
    ]
    made.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), eps=1e-8))
    return made


def places_of(model: WorldModel, config: TrainConfig) -> list[list[str]]:
    """As `Trainer.places` of a trainer of them."""
    return _places(model, _optimizers(model, config))


def _places(model: WorldModel, optimizers: Sequence[torch.optim.Optimizer]) -> list[list[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for g in o.param_groups for p in g["params"]] for o in optimizers]


def _arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {k: whole(v.detach()).cpu().numpy() for k, v in state.items()}


def from_torchrun(device: str) -> tuple[Share, str]:
    """This process's share under torchrun (RANK, WORLD_SIZE), and its device; all of it without."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Share(), device
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda"):
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Share(rank, world), device


def diverged(step: int, what: str) -> DivergedError:
    return DivergedError(f"step {step}", f"{what} is no longer finite", "begin anew with a lower --lr")


def steps_left(trainer: Trainer) -> Iterator[dict[str, Any]]:
    """Advances to the last step; yields what each measured. Raises DivergedError at a loss that is not finite."""
    while trainer.step < trainer.config.steps:
        found = trainer.advance()
        if not math.isfinite(found["loss"]):
            raise diverged(trainer.step, "the loss")
        yield found
