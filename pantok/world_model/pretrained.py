"""A pretrained language model as the backbone f: Llama, Mistral, Qwen2 and Qwen3.

What is unusual: on text the world model is that language model, to rounding. Its layers are those of
`pantok.world_model.backbone`; positions are turned as it learned them, and the seconds of a recording turn the slowest
pairs further, which on text, where no time passes, is no turn at all. Rows of text ids are its own; every other id
starts at the mean of them. What the elements of a world model have besides (roles, places) starts at nought.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pantok.errors import OptionError, VocabularyError
from pantok.vocabulary import Vocabulary
from pantok.world_model.backbone import BackboneConfig
from pantok.world_model.model import WorldModel

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


class Source(Protocol):
    """See `pantok.formats.pretrained.PretrainedFolder`."""

    config: dict[str, Any]

    @property
    def tokenizer(self) -> bytes | None: ...

    def array(self, name: str) -> np.ndarray: ...


def backbone_of(config: Mapping[str, Any]) -> BackboneConfig:
    """The backbone that holds a model of this config.json. Raises OptionError for one that it cannot be."""
    kind = (config.get("architectures") or ["nothing"])[0]
    if kind not in ARCHITECTURES:
        raise OptionError("--init-from", f"is a {kind}", f"known: {', '.join(ARCHITECTURES)}")
    qwen2, qwen3 = kind == "Qwen2ForCausalLM", kind == "Qwen3ForCausalLM"
    for name, wanted in (("hidden_act", "silu"), ("mlp_bias", False), ("attention_bias", False)):
        if config.get(name, wanted) != wanted and not (qwen2 and name == "attention_bias"):
            raise OptionError("--init-from", f"has {name} = {config[name]}", f"models with {wanted} are understood")
    # Newer files keep both in one table.
    rope = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling not in ("default", "llama3"):
        raise OptionError("--init-from", f"scales its positions by {scaling}", "plain and llama3 are understood")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return BackboneConfig(
        width=width, layers=int(config["num_hidden_layers"]), heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads), hidden=int(config["intermediate_size"]),
        head=int(config.get("head_dim") or 0) or width // heads,
        rope_base=float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
        rope_llama3=tuple(float(rope[n]) for n in names) if scaling == "llama3" else (),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)), qkv_bias=qwen2, norm_heads=qwen3, positions="added",
    )  # fmt: skip


def check_text(source: Source, vocabulary: Vocabulary) -> None:
    """Raises VocabularyError unless text has the ids that the language model knows."""
    text = vocabulary.states.get("text")
    mine = None if text is None else text.blobs["model"]
    if mine is None or source.tokenizer is None or not _alike(mine, source.tokenizer):
        raise VocabularyError(
            f"vocabulary {vocabulary.id[:12]}", "spells text otherwise than the language model",
            "fit one that keeps its words: pantok fit-vocab RECORDINGS --text-model LLM/tokenizer.json",
        )  # fmt: skip


def _alike(mine: bytes, its: bytes) -> bool:
    if mine == its:
        return True
    try:
        a, b = (json.loads(m)["model"] for m in (mine, its))
    except (ValueError, KeyError, TypeError):
        return False
    return bool(a.get("vocab") == b.get("vocab") and a.get("merges") == b.get("merges"))


@torch.no_grad()
def fill(model: WorldModel, source: Source) -> int:
    """Puts the language model's numbers into `model`, whose configuration is `backbone_of`; how many text ids it knows.

    To be called after the switch has its first biases. Raises InputError for arrays that are not there.
    """
    config = model.config.backbone
    for number, block in enumerate(model.backbone.blocks):
        at = f"model.layers.{number}."
        part: Any = block
        for name, kept in (("before", "input_layernorm"), ("between", "post_attention_layernorm")):
            _put(getattr(part, name).weight, source.array(f"{at}{kept}.weight"))
        heads = [source.array(f"{at}self_attn.{n}_proj.weight") for n in "qkv"]
        _put(part.qkv.weight, np.concatenate(heads))
        if config.qkv_bias:
            _put(part.qkv.bias, np.concatenate([source.array(f"{at}self_attn.{n}_proj.bias") for n in "qkv"]))
        if config.norm_heads:
            _put(part.query_norm.weight, source.array(f"{at}self_attn.q_norm.weight"))
            _put(part.key_norm.weight, source.array(f"{at}self_attn.k_norm.weight"))
        _put(part.out.weight, source.array(f"{at}self_attn.o_proj.weight"))
        _put(part.up.weight, np.concatenate([source.array(f"{at}mlp.{n}_proj.weight") for n in ("gate", "up")]))
        _put(part.down.weight, source.array(f"{at}mlp.down_proj.weight"))
    _put(model.backbone.norm.weight, source.array("model.norm.weight"))
    rows = torch.from_numpy(source.array("model.embed_tokens.weight"))
    tied = bool(source.config.get("tie_word_embeddings", False))
    outs = rows if tied else torch.from_numpy(source.array("lm_head.weight"))
    known = min(len(rows), next(e.length for e in model.vocabulary.extents if e.kind == "text"))
    spread = float(rows.std())
    for table, its in ((model.embed.weight, rows), (model.switch.table.weight, outs)):
        table.mul_(spread / max(float(table.std()), 1e-12)).add_(its.mean(0).to(table))
        table[:known] = its[:known].to(table)
    model.switch.bias[:known] = 0
    for own in (model.role.weight, model.place.weight):
        own.zero_()
    return known


def _put(parameter: Tensor, values: np.ndarray) -> None:
    if tuple(parameter.shape) != values.shape:
        raise OptionError(
            "--init-from", f"has an array of {values.shape} where {tuple(parameter.shape)} is needed", "a whole model"
        )
    parameter.copy_(torch.from_numpy(values).to(parameter))
