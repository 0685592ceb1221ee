"""Tiny random checkpoints, written to disk in their real layouts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Ministral3Config, Ministral3ForCausalLM

from nemodiff.engine import Defaults, Engine
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from nemodiff.tokenizer import Tokenizer

torch.set_num_threads(int(os.environ.get("NEMODIFF_TEST_THREADS", "2")))

VOCABULARY, MASK, EOS = 199, 100, 11
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def random_llama(tied: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """transformers' Llama with random weights, spread enough that greedy choices differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPE, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    return _spread(LlamaForCausalLM(config))


def random_ministral(seed: int = 0) -> Ministral3ForCausalLM:
    """transformers' Ministral3 with random weights, yarn and llama-4 query scaling from position 64 on."""
    torch.manual_seed(seed)
    return _spread(
        Ministral3ForCausalLM(Ministral3Config(**SHAPE, tie_word_embeddings=False, rope_parameters=dict(YARN)))
    )


def _spread(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model.eval()


def write_llama(model: LlamaForCausalLM, folder: Path, **config) -> Path:
    """A folder in transformers' Llama layout; `config` overrides config.json."""
    tied = model.config.tie_word_embeddings
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    data = SHAPE | {
        "model_type": "llama",
        "rope_theta": 1e4,
        "tie_word_embeddings": tied,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "block_size": 8,
    }
    return _write(folder, tensors, data | config)


def write_nvidia(model: Ministral3ForCausalLM, folder: Path, lora: bool = False, shards: int = 1, **config) -> Path:
    """A folder in the layout of Nemotron-Labs-Diffusion (model card): encoder.* and diffusion_head, optional LoRA."""
    tensors = {}
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
    _write(folder, tensors, data | config, shards)
    if lora:
        torch.manual_seed(7)
        width = SHAPE["num_attention_heads"] * SHAPE["head_dim"]
        factors = {}
        for i in range(SHAPE["num_hidden_layers"]):
            stem = f"base_model.model.encoder.layers.{i}.self_attn.o_proj.lora_"
            factors[f"{stem}A.weight"] = torch.randn(4, width) * 0.2
            factors[f"{stem}B.weight"] = torch.randn(SHAPE["hidden_size"], 4) * 0.2
        (folder / "linear_spec_lora").mkdir()
        save_file(factors, folder / "linear_spec_lora" / "adapter_model.safetensors")
        settings = {"r": 4, "lora_alpha": 16, "target_modules": ["o_proj"]}
        (folder / "linear_spec_lora" / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def _write(folder: Path, tensors: dict[str, torch.Tensor], config: dict, shards: int = 1) -> Path:
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


def open_engine(folder: Path, dtype: torch.dtype = torch.float32, **defaults) -> Engine:
    model = load_model(folder, "cpu", dtype)
    return Engine(folder.name, model, Tokenizer(folder), Defaults(**defaults))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    return write_llama(random_llama(), tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def nvidia_folder(tmp_path_factory) -> Path:
    return write_nvidia(random_ministral(), tmp_path_factory.mktemp("checkpoints") / "tiny-nvidia", lora=True)


@pytest.fixture(scope="session")
def llama_engine(llama_folder) -> Engine:
    return open_engine(llama_folder)


@pytest.fixture(scope="session")
def nvidia_engine(nvidia_folder) -> Engine:
    return open_engine(nvidia_folder)


@pytest.fixture(scope="session")
def llama_model(llama_engine) -> Transformer:
    return llama_engine.model


@pytest.fixture(scope="session")
def real_engine() -> Engine:
    """The default checkpoint: the real base weights (fetched on first use) with the bundled adapter."""
    import nemodiff

    return nemodiff.load()
