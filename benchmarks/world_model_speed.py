"""Training tokens a second of the world model, beside a transformer of `transformers` and a bare loop of one size.

    python benchmarks/world_model_speed.py STORE.zarr [--preset tiny] [--rounds 7] [--steps 4]

One run, contenders by turns, each a slice of `--steps` whole training steps (batch, forward, backward, clip, AdamW) on
windows of the same store, length and number; the ratio is the median over the rounds of what stood side by side.
`pantok` is `Trainer.advance` on real batches, made by its loader: switch, role and place embeddings, averaged weights
and all; with `--grounded` also the loss in the space of observations, with what `train-wm` fits before. `llama` is
`LlamaForCausalLM` (skipped where transformers is not installed) of the same width, layers, heads, kv heads,
feed-forward and vocabulary, on ready tensors of the same ids. `bare` is pantok's backbone between an embedding and one
softmax over the vocabulary, on the same ready tensors: what the rest of pantok's model and loop costs.

Then drawing: seconds for 2,000 elements with the cache, each one of them run; and without, where every element runs all
before it: every `--every`th is run, and the sum is of the trapezoids between.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.commands.train_wm_task import Task
from pantok.loader import StreamDataset
from pantok.world_model.backbone import Backbone, Cache
from pantok.world_model.config import TrainConfig
from pantok.world_model.inputs import Inputs, inputs_of
from pantok.world_model.model import WorldModel

LONG = 2000


class Bare(nn.Module):
    """The backbone, an embedding and a softmax."""

    def __init__(self, config: TrainConfig, ids: int) -> None:
        super().__init__()
        width = config.backbone.width
        self.embed, self.backbone = nn.Embedding(ids, width), Backbone(config.backbone)
        self.head = nn.Linear(width, ids, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)

    def loss(self, ids: Tensor) -> Tensor:
        index = torch.arange(ids.shape[1]).expand_as(ids)
        hidden = self.backbone(self.embed(ids), index, index * 0.02)
        return F.cross_entropy(self.head(hidden[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def llama(config: TrainConfig, ids: int) -> nn.Module | None:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        print(f"llama is left out: transformers cannot be imported ({error})\n")
        return None
    backbone = config.backbone
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ids, hidden_size=backbone.width, intermediate_size=backbone.feed_forward,
            num_hidden_layers=backbone.layers, num_attention_heads=backbone.heads,
            num_key_value_heads=backbone.kv_heads, max_position_embeddings=max(config.length, 2048),
            attn_implementation="sdpa", use_cache=False,
        )
    )  # fmt: skip


def stepper(
    model: nn.Module, config: TrainConfig, batches: list[Tensor], loss: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=config.weight_decay)
    turn = 0

    def step() -> None:
        nonlocal turn
        optimizer.zero_grad(set_to_none=True)
        loss(batches[turn % len(batches)]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        turn += 1

    return step


def rows(config: TrainConfig, contenders: dict[str, Callable[[], object]], rounds: int, steps: int) -> None:
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        step()
        step()
    for number in range(rounds):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            began, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                contenders[name]()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    tokens = config.batch * config.length * steps
    print("| what | tokens/s | tokens a CPU second | pantok's speed over its (CPU) | (wall) |")
    print("|---|---|---|---|---|")
    for name in contenders:
        over_cpu = statistics.median(a / b for a, b in zip(cpu[name], cpu["pantok"], strict=True))
        over = statistics.median(a / b for a, b in zip(wall[name], wall["pantok"], strict=True))
        rates = f"{tokens / min(wall[name]):,.0f} | {tokens / min(cpu[name]):,.0f}"
        print(f"| {name} | {rates} | {over_cpu:.2f} | {over:.2f} |")


@torch.no_grad()
def drawing(model: WorldModel, whole: Inputs, every: int) -> None:
    """One element after another, as `simulate` does."""
    count = whole.ids.shape[1]

    def part(first: int, last: int) -> Inputs:
        names = ("ids", "role", "time_s", "ordinal", "index", "document", "predict")
        cut = {name: getattr(whole, name)[:1, first:last] for name in names}
        return Inputs(**cut, window=whole.window[:1], latents={})

    model.eval()
    cache = Cache(model.config.backbone, 1, count, model.embed.weight)
    began = time.process_time()
    for at in range(count):
        cached = model.hidden(part(at, at + 1), cache)
    with_cache = time.process_time() - began
    lengths = [1, *range(every, count, every), count]
    each = []
    for length in lengths:
        began = time.process_time()
        plain = model.hidden(replace(part(0, length), document=torch.zeros(1, length, dtype=torch.int64)))
        each.append(time.process_time() - began)
    without = sum((b - a) * (x + y) / 2 for a, b, x, y in zip(lengths, lengths[1:], each, each[1:], strict=False))
    error = float((cached[:, -1] - plain[:, -1]).abs().max())
    print(
        f"\n{count} elements: {with_cache:.2f} s of CPU with the cache, {without:.1f} s without: "
        f"{without / with_cache:.1f} times; the last hidden vector differs by {error:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--length", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--grounded", action="store_true")
    parser.add_argument("--every", type=int, default=50)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    align = None if given.grounded else "none"
    config = TrainConfig.of(given.preset, length=given.length, batch=given.batch, align=align)
    task = Task(given.store, config, None)
    trainer = task.trainer("cpu")
    ids = trainer.model.vocabulary.size
    batches = [trainer.feed.inputs(0, range(k * config.batch, (k + 1) * config.batch)).ids for k in range(4)]
    bare, other = Bare(config, ids), llama(config, ids)
    contenders: dict[str, Callable[[], object]] = {"pantok": trainer.advance}
    contenders["bare"] = stepper(bare, config, batches, bare.loss)
    models: dict[str, nn.Module] = {"pantok": trainer.model, "bare": bare}
    if other is not None:
        contenders["llama"] = stepper(other, config, batches, lambda x: other(input_ids=x, labels=x).loss)
        models["llama"] = other
    sizes = ", ".join(f"{name} {sum(p.numel() for p in model.parameters()):,}" for name, model in models.items())
    print(
        f"{config.batch} windows of {config.length}, {ids:,} ids, {config.backbone}, "
        f"{torch.get_num_threads()} threads; parameters: {sizes}\n"
    )
    rows(config, contenders, given.rounds, given.steps)
    trainer.feed.close()
    whole = StreamDataset(given.store, config.layout, length=LONG, batch_size=1).batch(0, [0])
    drawing(trainer.model, inputs_of(whole, trainer.model.keys, {}, 0, seed=0), given.every)


if __name__ == "__main__":
    main()
