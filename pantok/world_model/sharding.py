"""FSDP2: parameters, gradients, moments and averages divided over the ranks, none of which holds them all in training.

What is unusual: a step's loss is a sum of shares of the whole step's (see `Trainer.advance`), so gradients are added
up over ranks, not averaged. What is measured, and a checkpoint, is gathered whole: a rank needs room for the weights
once beside its shares, and a run goes on under another number of ranks, or without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pantok.world_model.model import Losses, WorldModel
from pantok.world_model.stages import Stage


class Divided(nn.Module):
    """A world model each block of whose backbone is gathered when it is worked on, and the rest once a step.

    model: whole, on this rank's device, the same on all. Its parameters become shares (`DTensor`); its names stay.
    torch.distributed has been set up.
    """

    def __init__(self, model: WorldModel, device: torch.device) -> None:
        super().__init__()
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.model = model
        self.ranks = torch.distributed.get_world_size()
        mesh = init_device_mesh(device.type, (self.ranks,))
        for block in model.backbone.blocks:
            if model.config.compile and device.type == "cuda":
                block.compile()
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)

    def forward(
        self, inputs: Any, seed: tuple[int, ...], counts: Mapping[str, float], stage: Stage | None
    ) -> tuple[Tensor, Losses]:
        """The loss whose gradients, averaged over ranks, are those of the whole step; and its parts, unscaled."""
        losses: Losses = self.model(inputs, seed=seed)
        # A rank whose windows hold no latents must still take part when their gradients are gathered.
        held = (p for n, p in self.model.named_parameters() if p.requires_grad and not n.startswith("backbone.blocks."))
        nought = torch.stack([p.reshape(-1)[:1].sum() for p in held]).sum() * 0
        return self.ranks * losses.mean(counts, stage) + nought, losses


def whole(value: Tensor) -> Tensor:
    """All of a tensor, gathered from the ranks if it is shared among them (which all must call then)."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def alike(value: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a tensor that all ranks hold, divided as `like` is; itself if that is whole."""
    if not hasattr(like, "full_tensor") or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
