"""Tiny random Llama checkpoints, written to disk in transformers' layout, and engines over them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.local import Defaults, Engine
from nemodiff.model.cpu import CpuModel, int8_obstacle, quantise
from nemodiff.model.cuda.graph_runner import GraphRunner
from nemodiff.model.draft_head import DraftHead, HeadConfig
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import load_model
from nemodiff.samplers.trained import SamplerConfig, TrainedSampler, principal_components, save_sampler
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


def random_llama(tied: bool = True, seed: int = 0, **shape: int) -> LlamaForCausalLM:
    """transformers' Llama with random weights, spread enough that greedy choices differ. shape: overrides SHAPE."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **SHAPE | shape, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 1e4}
    )
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


def with_graphs(engine: Engine) -> Engine:
    """The same model behind another engine, in forwards of fixed shapes: on a CPU nothing asks for them."""
    parts = engine.tokenizer, engine.defaults, engine.sampler
    return Engine(engine.checkpoint, GraphRunner(engine.model), *parts, draft_head=engine.draft_head)


def write_chat(folder: Path, endless: bool = False) -> Path:
    """A tiny Llama with a tokenizer of its own: a character per token.

    endless: what the page's tests run on. No answer ends by itself, a trained sampler comes along, and there are so
    many layers that a forward takes some milliseconds: a run can be stopped in its middle.
    """
    layers = 24 if endless else SHAPE["num_hidden_layers"]
    model = random_llama(num_hidden_layers=layers)
    if endless:
        with torch.no_grad():
            model.model.embed_tokens.weight[EOS] = 0  # its logit is 0, and another one is always above
    write_llama(model, folder, num_hidden_layers=layers)
    characters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {character: 110 - 96 + index for index, character in enumerate(characters)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    if endless:
        save_sampler(random_sampler(model.model.embed_tokens.weight), folder / "sampler", {"threshold": 0.6})
    return folder


def random_sampler(embedding: torch.Tensor) -> TrainedSampler:
    """A small trained sampler's shape with random weights, for an embedding table [vocab, hidden]."""
    torch.manual_seed(0)
    sampler = TrainedSampler(SamplerConfig(1, 16, 2, *embedding.shape, components=5))
    sampler.mean, sampler.projection = principal_components(embedding, 5)
    sampler.attach(embedding)
    return sampler


def random_head(embedding: torch.Tensor) -> DraftHead:
    """A small draft head with random weights, large enough to change what is drafted, for an embedding table
    [vocab, hidden]."""
    torch.manual_seed(0)
    head = DraftHead(HeadConfig(*embedding.shape, components=6, width=8, rank=4))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    head.mean, head.projection = principal_components(embedding, 6)
    head.attach(embedding)
    return head.eval().requires_grad_(False)


INT8 = int8_obstacle(torch.device("cpu")) is None


needs_int8 = pytest.mark.skipif(not INT8, reason="the CPU kernels do not run here")


DTYPES = [torch.float32, torch.bfloat16, *([torch.int8] if INT8 else [])]


def load_as(folder: Path, dtype: torch.dtype) -> Transformer | CpuModel:
    """A folder's model on the CPU, its linears in `dtype`."""
    model = load_model(folder, "cpu", torch.bfloat16 if dtype is torch.int8 else dtype)
    return quantise(model) if dtype is torch.int8 else model


def open_engine(folder: Path, dtype: torch.dtype = torch.float32, **defaults) -> Engine:
    model = load_model(folder, "cpu", dtype)
    return Engine(folder.name, model, Tokenizer(folder), Defaults(**defaults))


def with_head(folder: Path, dtype: torch.dtype = torch.float32) -> Engine:
    """A folder's model with a random draft head."""
    model = load_as(folder, dtype)
    head = random_head(model.embed.weight.float())
    return Engine(folder.name, model, Tokenizer(folder), Defaults(), draft_head=head)


def write_syllables(folder: Path, layers: int = SHAPE["num_hidden_layers"]) -> Path:
    """A tiny Llama whose tokens are 1 to 4 letters of a, b and c, halves of é, and é with letters around it: short
    texts begin and end inside of tokens."""
    write_llama(random_llama(num_hidden_layers=layers), folder, num_hidden_layers=layers)
    pieces = ["".join(letters) for length in range(1, 5) for letters in itertools.product("abc", repeat=length)]
    pieces += ["Ã", "©", "Ã©", "aÃ", "©b", *(f"{a}Ã©{b}" for a, b in itertools.product(["a", "b", "ab"], repeat=2))]
    pieces += [f"{piece}Ġ" for piece in pieces]
    vocabulary = {piece: token for token, piece in enumerate(pieces[:VOCABULARY])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
