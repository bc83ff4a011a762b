"""A pretrained language model as the backbone: on text the world model is that model; then it trains on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from safetensors.torch import save_file
from torch import Tensor

from pantok.commands import cli
from pantok.errors import InputError, OptionError, VocabularyError
from pantok.formats.pretrained import PretrainedFolder
from pantok.formats.vocab import load_vocabulary, save_vocabulary
from pantok.tokenizers.text import TextTokenizer
from pantok.vocabulary import Vocabulary
from pantok.world_model.backbone import Cache
from pantok.world_model.config import TrainConfig
from pantok.world_model.model import WorldModel
from pantok.world_model.pretrained import backbone_of, check_text, fill

TOML = """
length = 96
batch = 4
steps = 4
warmup = 2
latents = 0
evaluate_every = 2
evaluate_windows = 4
"""
WORDS = ["the robot pushes the red block", "the rabbit wakes up and looks around", "push it left"] * 4
WIDTH, HEADS, KV, HEAD, LAYERS, HIDDEN = 24, 4, 2, 8, 2, 40
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def tokenizer_json() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    made.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>"], show_progress=False))
    return str(made.to_str()).encode()


def language_model(folder: Path, kind: str, size: int, dtype: torch.dtype, **more: Any) -> dict[str, Tensor]:
    """Writes a folder with random numbers, in two shards; the numbers as float32."""
    torch.manual_seed(0)
    qwen2, qwen3 = kind == "Qwen2ForCausalLM", kind == "Qwen3ForCausalLM"
    config = {
        "architectures": [kind], "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": KV,
        "head_dim": HEAD, "num_hidden_layers": LAYERS, "intermediate_size": HIDDEN, "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0, "vocab_size": size + 3, "hidden_act": "silu", "tie_word_embeddings": qwen2, **more,
    }  # fmt: skip
    found = {"model.embed_tokens.weight": torch.randn(size + 3, WIDTH), "model.norm.weight": 1 + torch.rand(WIDTH)}
    if not qwen2:
        found["lm_head.weight"] = torch.randn(size + 3, WIDTH)
    for n in range(LAYERS):
        at = f"model.layers.{n}."
        shapes = {"self_attn.q_proj": HEADS * HEAD, "self_attn.k_proj": KV * HEAD, "self_attn.v_proj": KV * HEAD}
        for name, rows in {**shapes, "mlp.gate_proj": HIDDEN, "mlp.up_proj": HIDDEN}.items():
            found[f"{at}{name}.weight"] = torch.randn(rows, WIDTH) * 0.3
            if qwen2 and name in shapes:
                found[f"{at}{name}.bias"] = torch.randn(rows)
        found[f"{at}self_attn.o_proj.weight"] = torch.randn(WIDTH, HEADS * HEAD) * 0.3
        found[f"{at}mlp.down_proj.weight"] = torch.randn(WIDTH, HIDDEN) * 0.3
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = 1 + torch.rand(WIDTH)
        for name in ("q_norm", "k_norm") if qwen3 else ():
            found[f"{at}self_attn.{name}.weight"] = 1 + torch.rand(HEAD)
    kept = {k: v.to(dtype).contiguous() for k, v in found.items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(kept)
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({n: kept[n] for n in part}, folder / f"part-{number}.safetensors")
    where = {n: f"part-{k % 2}.safetensors" for k, n in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return {k: v.float() for k, v in kept.items()}


def reference(w: dict[str, Tensor], config: dict[str, Any], ids: Tensor) -> Tensor:
    """Logits (L, V), head by head and position by position, from the definitions."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + config["rms_norm_eps"])

    def turned(v: Tensor, place: int) -> Tensor:
        out = v.clone()
        for i in range(HEAD // 2):
            frequency = config["rope_theta"] ** (-2 * i / HEAD)
            scaling = config.get("rope_scaling")
            if scaling:
                wave = 2 * np.pi / frequency
                low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
                high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
                if wave > low:
                    frequency /= scaling["factor"]
                elif wave >= high:
                    span = scaling["high_freq_factor"] - scaling["low_freq_factor"]
                    s = (scaling["original_max_position_embeddings"] / wave - scaling["low_freq_factor"]) / span
                    frequency = (1 - s) * frequency / scaling["factor"] + s * frequency
            a, b, angle = v[i], v[i + HEAD // 2], place * frequency
            out[i], out[i + HEAD // 2] = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
        return out

    x = w["model.embed_tokens.weight"][ids]
    for n in range(LAYERS):
        p = f"model.layers.{n}."
        h = norm(x, w[p + "input_layernorm.weight"])
        q, k, v = (
            (h @ w[f"{p}self_attn.{c}_proj.weight"].T + w.get(f"{p}self_attn.{c}_proj.bias", torch.zeros(1))).view(
                len(ids), -1, HEAD
            )
            for c in "qkv"
        )
        if p + "self_attn.q_norm.weight" in w:
            q, k = norm(q, w[p + "self_attn.q_norm.weight"]), norm(k, w[p + "self_attn.k_norm.weight"])
        out = torch.zeros(len(ids), HEADS, HEAD)
        for head in range(HEADS):
            group = head // (HEADS // KV)
            for i in range(len(ids)):
                scores = torch.stack([turned(q[i, head], i) @ turned(k[j, group], j) for j in range(i + 1)])
                out[i, head] = torch.softmax(scores / HEAD**0.5, 0) @ v[: i + 1, group]
        x = x + out.reshape(len(ids), -1) @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, w[p + "post_attention_layernorm.weight"])
        gate = F.silu(h @ w[p + "mlp.gate_proj.weight"].T) * (h @ w[p + "mlp.up_proj.weight"].T)
        x = x + gate @ w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


@pytest.fixture(scope="module")
def words(vocabulary: Path) -> Vocabulary:
    mine = load_vocabulary(vocabulary)
    return Vocabulary.build({**mine.states, "text": TextTokenizer("huggingface", tokenizer_json()).state()})


def here(*args: object) -> Result:
    return CliRunner().invoke(cli.pantok, [str(a) for a in args])


def made(words: Vocabulary, folder: Path) -> WorldModel:
    source = PretrainedFolder(folder)
    backbone = backbone_of(source.config)
    torch.manual_seed(1)
    model = WorldModel(words, TrainConfig(align="none", hint=0, latents=0, backbone=backbone)).eval()
    assert fill(model, source) == words.states["text"].levels[0].cardinality
    return model


@pytest.mark.parametrize(
    ("kind", "dtype", "more"),
    [
        ("LlamaForCausalLM", torch.bfloat16, {"rope_scaling": LLAMA3}),
        ("MistralForCausalLM", torch.float32, {}),
        ("Qwen2ForCausalLM", torch.float16, {}),
        ("Qwen3ForCausalLM", torch.float32, {}),
    ],
)
def test_on_text_it_is_the_language_model(
    words: Vocabulary, tmp_path: Path, kind: str, dtype: torch.dtype, more: dict[str, Any]
) -> None:
    size = words.states["text"].levels[0].cardinality
    weights = language_model(tmp_path / "llm", kind, size, dtype, **more)
    config = json.loads((tmp_path / "llm" / "config.json").read_text())
    model, ids = made(words, tmp_path / "llm"), torch.randint(0, size, (17,))
    index = torch.arange(17)[None]
    with torch.no_grad():
        expected = reference(weights, config, ids)[:, :size]
        x = model.embed()[ids][None] + model.role.weight[:1] + model.place.weight[:1]
        hidden = model.backbone(x, index, torch.zeros(1, 17, dtype=torch.float64))[0]
        found, first = model.switch.logits(hidden, model.kinds.names.index("text"))
        assert first == 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        # Kept and run on, and where time passes, it is causal and the same with a cache.
        time_s = torch.linspace(0, 9, 17, dtype=torch.float64)[None]
        whole = model.backbone(x, index, time_s)
        cache, parts = Cache(model.config.backbone, 1, 17, x), []
        for a, b in ((0, 9), (9, 10), (10, 17)):
            parts.append(model.backbone(x[:, a:b], index[:, a:b], time_s[:, a:b], None, cache))
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(whole[0], hidden, atol=1e-3)


def test_what_cannot_be_is_refused_in_a_line(words: Vocabulary, vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        PretrainedFolder(tmp_path)
    size = words.states["text"].levels[0].cardinality
    language_model(tmp_path / "llm", "LlamaForCausalLM", size, torch.float32)
    source = PretrainedFolder(tmp_path / "llm")
    for changed, message in (
        ({"architectures": ["GPT2LMHeadModel"]}, "known: Llama"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "yarn"),
        ({"attention_bias": True}, "attention_bias"),
    ):
        with pytest.raises(OptionError, match=message):
            backbone_of({**source.config, **changed})
    with pytest.raises(VocabularyError, match="--text-model"):
        check_text(source, words)  # a folder without a tokenizer
    (tmp_path / "llm" / "tokenizer.json").write_bytes(tokenizer_json())
    check_text(PretrainedFolder(tmp_path / "llm"), words)
    with pytest.raises(VocabularyError, match="otherwise"):
        check_text(PretrainedFolder(tmp_path / "llm"), load_vocabulary(vocabulary))
    with pytest.raises(InputError, match="Llama family"):
        source.array("model.layers.7.mlp.up_proj.weight")
    part = tmp_path / "llm" / "part-0.safetensors"
    part.write_bytes(part.read_bytes()[:-100])
    broken = PretrainedFolder(tmp_path / "llm")
    with pytest.raises(InputError, match="cannot be read"):
        [broken.array(n) for n in broken._file_of]
    part.unlink()
    with pytest.raises(InputError, match="part-0"):
        PretrainedFolder(tmp_path / "llm")


def test_other_ids_start_at_the_mean(words: Vocabulary, tmp_path: Path) -> None:
    size = words.states["text"].levels[0].cardinality
    weights = language_model(tmp_path / "llm", "LlamaForCausalLM", size, torch.float32)
    model = made(words, tmp_path / "llm")
    rows = model.embed.weight[size:].detach()
    mean, spread = weights["model.embed_tokens.weight"].mean(0), weights["model.embed_tokens.weight"].std()
    assert torch.allclose(rows.mean(0), mean, atol=4 * float(spread) / len(rows) ** 0.5)
    assert 0.8 < float(rows.std() / spread) < 1.3
    assert not model.role.weight.any() and not model.place.weight.any()


def test_the_commands(recordings: Path, words: Vocabulary, tmp_path: Path) -> None:
    """Encoded with its words, trained from it, gone on with, measured and simulated."""
    llm, run = tmp_path / "llm", tmp_path / "run"
    language_model(llm, "LlamaForCausalLM", words.states["text"].levels[0].cardinality, torch.bfloat16)
    save_vocabulary(words, tmp_path / "words.vocab")
    store = tmp_path / "words.zarr"
    assert here("encode", recordings, "--vocab", tmp_path / "words.vocab", "-o", store, "-q").exit_code == 0
    (tmp_path / "c.toml").write_text(TOML)
    train = ["train-wm", store, "-o", run, "--config", tmp_path / "c.toml", "--init-from", llm, "--json"]
    failed = here(*train)
    assert failed.exit_code == 1 and "--text-model" in failed.stderr and failed.stderr.count("\n") == 1
    (llm / "tokenizer.json").write_bytes(tokenizer_json())
    done = here(*train)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["init_from"]["architecture"] == "LlamaForCausalLM"
    backbone = document["train"]["backbone"]
    assert (backbone["width"], backbone["layers"], backbone["positions"]) == (WIDTH, LAYERS, "added")
    assert here(*train, "--steps", 5).exit_code == 2, "another number of steps is another run"
    assert here(*train).exit_code == 0, "the same command goes on"
    other = tmp_path / "other"
    shutil.copytree(llm, other)
    (other / "config.json").write_text((llm / "config.json").read_text().replace("5000.0", "6000.0"))
    wrong = [other if a == llm else a for a in train]
    failed = here(*wrong)
    assert failed.exit_code == 2 and "began from" in failed.stderr and failed.stderr.count("\n") == 1
    done = here("simulate", run, "--from", f"{store}:film-01@0.4s", "--for", "0.2s", "-o", tmp_path / "f.mp4", "-q")
    assert done.exit_code == 0, done.stderr
