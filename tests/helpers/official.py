"""Small random checkpoints in the exact layout of nvidia/Nemotron-Labs-Diffusion: config, names, shards, LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import Ministral3Config, Ministral3ForCausalLM

VOCABULARY, MASK, EOS, END_THINK = 199, 100, 11, 77
RANK, ALPHA = 128, 512
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 16 * 48,
}
#: As released but for the original context, which is short here so that yarn and query scaling are in play.
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 48,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} <think>{% endfor %}"


def random_ministral(seed: int = 0, frequent: dict[int, float] | None = None) -> Ministral3ForCausalLM:
    """transformers' Ministral3 with random weights, spread enough that greedy choices differ.

    frequent: token id → factor on its row of the head, so that it comes more often than by chance.
    """
    torch.manual_seed(seed)
    config = Ministral3Config(**SHAPE, tie_word_embeddings=False, rope_parameters=dict(YARN))
    model = spread(Ministral3ForCausalLM(config))
    with torch.no_grad():
        for token, factor in (frequent or {}).items():
            model.lm_head.weight[token] *= factor
    return model


def spread(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model.eval()


def draft_lora(seed: int = 7) -> dict[str, Tensor]:
    """The tensors of linear_spec_lora/adapter_model.safetensors: rank 128 on o_proj alone."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer in range(SHAPE["num_hidden_layers"]):
        stem = f"base_model.model.encoder.layers.{layer}.self_attn.o_proj.lora_"
        width = SHAPE["num_attention_heads"] * SHAPE["head_dim"]
        factors[f"{stem}A.weight"] = torch.randn(RANK, width, generator=generator) * 0.03
        factors[f"{stem}B.weight"] = torch.randn(SHAPE["hidden_size"], RANK, generator=generator) * 0.03
    return factors


def write_nvidia(
    model: Ministral3ForCausalLM,
    folder: Path,
    lora: bool = False,
    shards: int = 1,
    tokenizer: bool = False,
    extra: dict[str, Tensor] | None = None,
    **config,
) -> Path:
    """Write `model` as a released folder. `config` overrides config.json, `extra` adds tensors."""
    tensors = dict(extra or {})
    for name, tensor in model.state_dict().items():
        name = "diffusion_head.weight" if name == "lm_head.weight" else name.replace("model.", "encoder.", 1)
        tensors[name] = tensor.contiguous()
    data = SHAPE | {
        "model_type": "nemotron_labs_diffusion",
        "architectures": ["NemotronLabsDiffusionModel"],
        "rope_parameters": YARN,
        "tie_word_embeddings": False,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "bos_token_id": 1,
        "block_size": 32,
        "dlm_paradigm": "bidirectional",
        "attention_bias": False,
        "mlp_bias": False,
        "sliding_window": None,
        "hidden_act": "silu",
    }
    write_folder(folder, tensors, data | config, shards)
    if lora:
        (folder / "linear_spec_lora").mkdir()
        save_file(draft_lora(), folder / "linear_spec_lora" / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["o_proj"], "bias": "none"}
        (folder / "linear_spec_lora" / "adapter_config.json").write_text(json.dumps(settings))
    if tokenizer:
        _write_tokenizer(folder)
    return folder


def write_folder(folder: Path, tensors: dict[str, Tensor], config: dict, shards: int = 1) -> Path:
    """config.json and one safetensors file, or several with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    names, weight_map = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _write_tokenizer(folder: Path) -> None:
    """A word per token: w0 … w198, but for the special ones."""
    named = {EOS: "<eos>", MASK: "<mask>", END_THINK: "</think>", 76: "<think>"}
    words = models.WordLevel({named.get(i, f"w{i}"): i for i in range(VOCABULARY)}, unk_token="w0")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
