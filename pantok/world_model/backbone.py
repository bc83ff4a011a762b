"""The backbone f: a causal transformer over vectors that stand in time.

What is unusual: position is two things. Half of the rotary frequencies turn with an element's index, the other half
with the seconds of the recording, so that what happened two seconds ago is found at any density of tokens. Attention
stays within a document (an episode): packing two episodes into a window is the same as running them apart.

RMSNorm (Zhang, Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020), grouped-query attention
(Ainslie et al. 2023), normalised queries and keys (Henry et al. 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pantok.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """width: of the hidden vectors. layers, heads, kv_heads: kv_heads divides heads, heads divides width.
    hidden: of the feed-forward, 0 = 8/3 of the width in multiples of 32. longest_s: the longest time, in seconds, that
    a rotary frequency tells apart; shortest_s: the shortest.

    What pretrained language models have otherwise: head, of a head's width, 0 = width / heads; norm_eps; qkv_bias;
    norm_heads, queries and keys normalised; rope_llama3, (factor, low, high, original length) by which Llama 3 scales
    its frequencies; positions: `shared` between index and seconds by halves, or `added`: all pairs turn with the index
    and the slowest quarter also with the seconds, so that where no time passes it is the language model's."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 0
    rope_base: float = 10_000.0
    shortest_s: float = 0.02
    longest_s: float = 600.0
    head: int = 0
    norm_eps: float = 1e-6
    qkv_bias: bool = False
    norm_heads: bool = True
    rope_llama3: tuple[float, ...] = ()
    positions: str = "shared"

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "kv_heads"):
            if getattr(self, name) < 1:
                raise OptionError(f"backbone {name}", f"{getattr(self, name)} is too small", "at least 1")
        if (not self.head and self.width % self.heads) or self.heads % self.kv_heads or self.head_width % 4:
            raise OptionError(
                "backbone", f"width {self.width}, heads {self.heads}, kv_heads {self.kv_heads} do not divide",
                "heads times a multiple of 4 is the width, kv_heads divides heads",
            )  # fmt: skip
        if self.positions not in ("shared", "added"):
            raise OptionError("backbone positions", f"cannot be {self.positions}", "known: shared, added")
        if not 0 < self.shortest_s < self.longest_s:
            raise OptionError("backbone", "shortest_s is not below longest_s", "e.g. 0.02 and 600")

    @property
    def head_width(self) -> int:
        return self.head or self.width // self.heads

    @cached_property
    def feed_forward(self) -> int:
        return self.hidden or 32 * round(self.width * 8 / 3 / 32)


class Cache:
    """Keys and values of what a backbone has seen, (B, kv_heads, up to `capacity`, head_width) a layer.

    length: elements held.
    """

    def __init__(self, config: BackboneConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (batch, config.kv_heads, capacity, config.head_width)
        self._keys = [like.new_empty(shape) for _ in range(config.layers)]
        self._values = [like.new_empty(shape) for _ in range(config.layers)]
        self.length, self.capacity = 0, capacity

    def put(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the layer, those given last."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity}, {end} are asked for")
        self._keys[layer][:, :, self.length : end] = keys
        self._values[layer][:, :, self.length : end] = values
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    def advance(self, count: int) -> None:
        self.length += count

    def rewind(self, length: int) -> None:
        """Forgets all but the first `length` elements."""
        self.length = min(self.length, length)

    def repeated(self, times: int) -> Cache:
        """The same past for `times` futures each."""
        copy = object.__new__(Cache)
        copy._keys = [k.repeat_interleave(times, 0) for k in self._keys]
        copy._values = [v.repeat_interleave(times, 0) for v in self._values]
        copy.length, copy.capacity = self.length, self.capacity
        return copy


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class _Block(nn.Module):
    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width, d, eps = config.width, config.head_width, config.norm_eps
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, d
        self.before = RMSNorm(width, eps)
        self.qkv = nn.Linear(width, (config.heads + 2 * config.kv_heads) * d, bias=config.qkv_bias)
        self.query_norm, self.key_norm = (RMSNorm(d, eps) if config.norm_heads else nn.Identity() for _ in range(2))
        self.out = nn.Linear(config.heads * d, width, bias=False)
        self.between = RMSNorm(width, eps)
        self.up = nn.Linear(width, 2 * config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(self.before(x)).view(batch, length, -1, self.head_width).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = rotate(self.query_norm(q), turn), rotate(self.key_norm(k), turn)
        if cache is not None:
            k, v = cache.put(layer, k, v)
        groups = self.heads // self.kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and length > 1)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, -1))
        gate, value = self.up(self.between(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * value)


class Backbone(nn.Module):
    """f. Float (B, L, width) -> (B, L, width); element i sees elements 0..i of its own document."""

    by_index: Tensor
    by_second: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        pairs = config.head_width // 2
        timed = pairs // 2 if config.positions == "shared" else max(1, pairs // 4)
        placed = pairs - timed if config.positions == "shared" else pairs
        by_index = config.rope_base ** -(torch.arange(placed, dtype=torch.float64) / placed)
        if config.rope_llama3:
            by_index = _llama3(by_index, *config.rope_llama3)
        periods = torch.logspace(0, 1, timed, base=config.longest_s / config.shortest_s, dtype=torch.float64)
        by_second = 2 * torch.pi / (config.shortest_s * periods)
        if config.positions == "added":
            by_second = F.pad(by_second, (pairs - timed, 0))
        self.register_buffer("by_index", by_index, persistent=False)
        self.register_buffer("by_second", by_second, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                scale = (2 * config.layers) ** -0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(
        self, x: Tensor, index: Tensor, time_s: Tensor, document: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """index: int (B, L), place within the document. time_s: float64 (B, L), seconds within the document.
        document: int (B, L), which one; None if each row is one. cache: what came before, put on (one document)."""
        turn = self._turn(index, time_s).to(x.dtype)
        mask = _mask(document, x.shape[1], cache)
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, mask, cache, layer)
        if cache is not None:
            cache.advance(x.shape[1])
        return self.norm(x)

    def _turn(self, index: Tensor, time_s: Tensor) -> Tensor:
        """(2, B, 1, L, head_width / 2): cosine and sine. Angles in float64: an hour is many turns."""
        places, seconds = index.double()[..., None] * self.by_index, time_s.double()[..., None] * self.by_second
        angle = places + seconds if self.config.positions == "added" else torch.cat([places, seconds], -1)
        return torch.stack([angle.cos(), angle.sin()])[:, :, None]


def _llama3(frequencies: Tensor, factor: float, low: float, high: float, original: float) -> Tensor:
    """Frequencies as Llama 3.1 scales them: slow ones by 1 / factor, fast ones not, those between smoothly."""
    turns = original * frequencies / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (smooth + (1 - smooth) / factor)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Pairs (first half, second half) of the last dimension turned by the angles."""
    cos, sin = turn
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _mask(document: Tensor | None, length: int, cache: Cache | None) -> Tensor | None:
    """bool (B, 1, L, all), or None where plain causality says it."""
    if cache is not None and cache.length:
        if length == 1:
            return None
        past = cache.length
        row = torch.arange(past, past + length)[:, None]
        return (torch.arange(past + length)[None] <= row)[None, None]
    if document is None or bool((document == document[:, :1]).all()):
        return None
    causal = torch.ones(length, length, dtype=torch.bool, device=document.device).tril()
    return (causal & (document[:, :, None] == document[:, None, :]))[:, None]
