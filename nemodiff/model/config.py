"""ModelConfig: the shape of a Llama- or Ministral3-shaped checkpoint and the constants its decoding needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import CheckpointError

_FAMILIES = ("llama", "ministral3", "nemotron_labs_diffusion")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Rotary embedding. `factor` 1 is plain RoPE; above, YaRN as transformers computes it.

    query_beta: llama-4 query scaling, queries times 1 + beta * log(1 + floor(position / original_context)).
    """

    theta: float = 10_000.0
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    truncate: bool = True
    query_beta: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of the transformer (counts and widths) and decoding constants (token ids, default block)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    context_length: int
    rope: RopeConfig
    eos_token_ids: tuple[int, ...] = ()
    mask_token_id: int | None = None
    block_size: int = 8
    #: In bidirectional forwards the logits at position i predict position i (aligned, as NVIDIA trains) or i + 1.
    shift_logits: bool = False
    #: Which spelling the tensor names have: "encoder." (NVIDIA) or "model." (transformers' Llama and Ministral3).
    tensor_prefix: str = "model."

    @property
    def qkv_size(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """Read a checkpoint's config.json. Raises CheckpointError naming what is missing or unsupported."""
        family = data.get("model_type")
        if family not in _FAMILIES:
            raise CheckpointError(
                f"config.json describes a {family!r} model; this engine reads "
                f"{', '.join(_FAMILIES[:-1])} and {_FAMILIES[-1]}."
            )
        for flag in ("attention_bias", "mlp_bias"):
            if data.get(flag):
                raise CheckpointError(f"config.json sets {flag}; this engine has no biases.")
        if data.get("sliding_window"):
            raise CheckpointError("config.json sets sliding_window; this engine attends to the whole prefix.")
        if data.get("hidden_act", "silu") != "silu":
            raise CheckpointError(f"config.json sets hidden_act {data['hidden_act']!r}; this engine has silu only.")
        try:
            heads = data["num_attention_heads"]
            eos = data.get("eos_token_id")
            return cls(
                vocab_size=data["vocab_size"],
                hidden_size=data["hidden_size"],
                intermediate_size=data["intermediate_size"],
                num_layers=data["num_hidden_layers"],
                num_heads=heads,
                num_kv_heads=data.get("num_key_value_heads") or heads,
                head_dim=data.get("head_dim") or data["hidden_size"] // heads,
                rms_norm_eps=data["rms_norm_eps"],
                tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
                context_length=data["max_position_embeddings"],
                rope=_rope(data),
                eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
                mask_token_id=data.get("mask_token_id"),
                block_size=data.get("block_size", 8),
                shift_logits=bool(data.get("shift_logits", False)),
                tensor_prefix="encoder." if family == "nemotron_labs_diffusion" else "model.",
            )
        except KeyError as error:
            raise CheckpointError(f"config.json has no {error.args[0]!r}; the checkpoint is incomplete.") from error


def _rope(data: dict[str, Any]) -> RopeConfig:
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    theta = rope.get("rope_theta", data.get("rope_theta", 10_000.0))
    kind = rope.get("rope_type") or rope.get("type") or "default"
    beta = rope.get("llama_4_scaling_beta") or 0.0
    original = rope.get("original_max_position_embeddings") or data["max_position_embeddings"]
    if kind == "default":
        return RopeConfig(theta=theta, original_context=original, query_beta=beta)
    if kind != "yarn":
        raise CheckpointError(f"config.json asks for {kind!r} rotary embeddings; this engine has default and yarn.")
    factor = rope.get("factor") or data["max_position_embeddings"] / original
    return RopeConfig(
        theta=theta,
        factor=factor,
        original_context=original,
        beta_fast=rope.get("beta_fast") or 32.0,
        beta_slow=rope.get("beta_slow") or 1.0,
        attention_factor=_attention_factor(rope, factor),
        truncate=rope.get("truncate", True),
        query_beta=beta,
    )


def _attention_factor(rope: dict[str, Any], factor: float) -> float:
    """YaRN's scale of cos and sin (transformers' rule: the ratio of both mscales where both are given)."""

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return rope["attention_factor"]
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])
    return mscale(1.0)
