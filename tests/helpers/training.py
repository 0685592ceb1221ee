"""A tiny model and its low-rank factors, for training."""

from __future__ import annotations

import torch

from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.transformer import Transformer
from nemodiff.training.dual_stream import Backbone
from nemodiff.training.lora import Lora

VOCABULARY, MASK, END = 61, 16, 2


def tiny_model(seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_layers=3,
        num_heads=6,
        num_kv_heads=2,
        head_dim=8,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        context_length=128,
        rope=RopeConfig(theta=10_000.0),
        eos_token_ids=(END,),
        mask_token_id=MASK,
        shift_logits=True,
    )
    model = Transformer(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3) if parameter.dim() > 1 else parameter.data.normal_(1, 0.1)
    return model


def tiny_lora(model: Transformer, *, trained: bool = True) -> Lora:
    lora = Lora(Backbone.of(model).layers, 4, model.embed.weight.mean(0) + 0.1)
    if trained:
        lora.values.add_(torch.randn(lora.values.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        lora.merge()
    return lora


def merged_model(model: Transformer, lora: Lora) -> Transformer:
    """The same update by the obvious way: W + B @ A written into a copy of the model."""
    other = tiny_model()
    for i, layer in enumerate(other.layers):
        for name in ("qkv", "o", "gate_up", "down"):
            a, b = lora.factors[i, name]
            getattr(layer, name).weight.data.copy_(getattr(model.layers[i], name).weight + b.detach() @ a.detach())
    other.mask_embedding = lora.mask_embedding.detach()
    return other
