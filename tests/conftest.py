"""Tiny random checkpoints, written to disk in their real layouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemodiff.engine import Defaults, Engine
from nemodiff.model.int8 import int8_obstacle
from nemodiff.model.quantise import quantise
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from nemodiff.tokenizer import Tokenizer
from tests.official import random_ministral, spread, write_folder, write_nvidia
from tests.replicas import Replicas
from ui.remote import connect

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


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    return write_llama(random_llama(), tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory) -> Path:
    """A tiny Llama with a tokenizer of its own: a character a token."""
    folder = write_llama(random_llama(), tmp_path_factory.mktemp("checkpoints") / "tiny-chat")
    characters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {character: 110 - 96 + index for index, character in enumerate(characters)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def replicas(chat_folder, tmp_path_factory):
    """Two replicas of `chat_folder` behind Ray Serve."""
    pytest.importorskip("ray", reason="it comes with requirements-serve.txt")
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    with Replicas(str(chat_folder), log, "--replicas", "2", "--device", "cpu", "--dtype", "float32") as running:
        yield running


@pytest.fixture(scope="session", params=["here", "behind Ray Serve"])
def any_engine(request, chat_folder):
    """One checkpoint, loaded here and behind Ray Serve."""
    if request.param == "here":
        return open_engine(chat_folder)
    return connect(request.getfixturevalue("replicas").address)


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
