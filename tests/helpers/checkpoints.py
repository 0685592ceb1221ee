"""Tiny random Llama checkpoints, written to disk in transformers' layout, and engines over them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemodiff.engine import Defaults, Engine
from nemodiff.model.int8 import int8_obstacle
from nemodiff.model.quantise import quantise
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from nemodiff.tokenizer import Tokenizer
from tests.helpers.official import spread, write_folder

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


def random_llama(tied: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """transformers' Llama with random weights, spread enough that greedy choices differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(**SHAPE, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    return spread(LlamaForCausalLM(config))


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
    return write_folder(folder, tensors, data | config)


INT8 = int8_obstacle(torch.device("cpu")) is None


needs_int8 = pytest.mark.skipif(not INT8, reason="this CPU has no int8 products")


DTYPES = [torch.float32, torch.bfloat16, *([torch.int8] if INT8 else [])]


def load_as(folder: Path, dtype: torch.dtype) -> Transformer:
    """A folder's model on the CPU, its linears in `dtype`."""
    model = load_model(folder, "cpu", torch.bfloat16 if dtype is torch.int8 else dtype)
    if dtype is torch.int8:
        quantise(model)
    return model


def open_engine(folder: Path, dtype: torch.dtype = torch.float32, **defaults) -> Engine:
    model = load_model(folder, "cpu", dtype)
    return Engine(folder.name, model, Tokenizer(folder), Defaults(**defaults))
