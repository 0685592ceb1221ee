"""ModelConfig: the shape of a Llama- or Ministral3-shaped checkpoint and the constants its decoding needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import CheckpointError

_NVIDIA = ("nemotron_labs_diffusion", "nemotron_labs_diffusion_vlm")
_FAMILIES = ("llama", "ministral3", *_NVIDIA)


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
    #: The files also hold a vision tower and its projector, which the text model does without.
    vision: bool = False

    @property
    def qkv_size(self) -> int:
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelConfig:
        """Read a checkpoint's config.json. Raises CheckpointError naming what is missing or unsupported.

        What a released file may leave out: num_key_value_heads (as many as queries), head_dim (hidden / heads),
        rms_norm_eps (1e-5, Llama 1e-6), max_position_embeddings (what yarn reaches), block_size (32, Llama 8),
        eos_token_id (answers end at their limit), mask_token_id (mode ar only), and every flag, which is then off.
        """
        family = data.get("model_type")
        if family not in _FAMILIES:
            raise CheckpointError(
                f"config.json describes a {family!r} model; this engine reads "
                f"{', '.join(_FAMILIES[:-1])} and {_FAMILIES[-1]}."
            )
        _refuse_unsupported(data)
        heads = _count(data, "num_attention_heads")
        hidden = _count(data, "hidden_size")
        kv_heads = _count(data, "num_key_value_heads", heads)
        if heads % kv_heads:
            raise CheckpointError(f"config.json has {heads} query heads, no multiple of its {kv_heads} KV heads.")
        vocabulary = _count(data, "vocab_size")
        rope = _rope(data, family)
        return cls(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=_count(data, "intermediate_size"),
            num_layers=_count(data, "num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=_count(data, "head_dim", hidden // heads),
            rms_norm_eps=_positive(data, "rms_norm_eps", 1e-6 if family == "llama" else 1e-5),
            tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
            context_length=_context_length(data, rope),
            rope=rope,
            eos_token_ids=tuple(_token_ids(data, "eos_token_id", vocabulary)),
            mask_token_id=next(iter(_token_ids(data, "mask_token_id", vocabulary)), None),
            block_size=_count(data, "block_size", 32 if family in _NVIDIA else 8),
            shift_logits=bool(data.get("shift_logits", data.get("dlm_type") == "dream")),
            tensor_prefix="encoder." if family in _NVIDIA else "model.",
            vision=family == "nemotron_labs_diffusion_vlm",
        )


def _refuse_unsupported(data: dict[str, Any]) -> None:
    for flag in ("attention_bias", "mlp_bias"):
        if data.get(flag):
            raise CheckpointError(f"config.json sets {flag}; this engine has no biases.")
    if data.get("sliding_window"):
        raise CheckpointError("config.json sets sliding_window; this engine attends to the whole prefix.")
    if (data.get("hidden_act") or "silu") != "silu":
        raise CheckpointError(f"config.json sets hidden_act {data['hidden_act']!r}; this engine has silu only.")
    if data.get("quantization_config"):
        raise CheckpointError(
            "config.json describes quantised weights; this engine reads float32, float16 and bfloat16."
        )


def _missing(key: str) -> CheckpointError:
    return CheckpointError(f"config.json has no {key!r}; the checkpoint is incomplete.")


def _count(data: dict[str, Any], key: str, default: int | None = None) -> int:
    value = default if data.get(key) is None else data[key]
    if value is None:
        raise _missing(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json sets {key} to {value!r}; it must be a whole number above 0.")
    return value


def _positive(data: dict[str, Any], key: str, default: float | None = None) -> float:
    value = default if data.get(key) is None else data[key]
    if value is None:
        raise _missing(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise CheckpointError(f"config.json sets {key} to {value!r}; it must be a number above 0.")
    return value


def _token_ids(data: dict[str, Any], key: str, vocabulary: int) -> list[int]:
    """The ids of `key` (one, a list, or none where it is left out), each within the vocabulary."""
    value = data.get(key)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocabulary:
            raise CheckpointError(
                f"config.json sets {key} to {token!r}, which is not in its vocabulary of {vocabulary}."
            )
    return ids


def _context_length(data: dict[str, Any], rope: RopeConfig) -> int:
    reach = int(rope.factor * rope.original_context) if rope.factor > 1 else None
    return _count(data, "max_position_embeddings", reach)


def _rope(data: dict[str, Any], family: str) -> RopeConfig:
    """Rotary settings, from the root or rope_parameters. Ministral3 shapes must state theta and, for yarn, the original
    context: a guess there would decode to plausible nonsense."""
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "yarn"):
        raise CheckpointError(f"config.json asks for {kind!r} rotary embeddings; this engine has default and yarn.")
    rope = {"rope_theta": data.get("rope_theta")} | rope
    theta = _positive(rope, "rope_theta", 10_000.0 if family == "llama" else None)
    key = "original_max_position_embeddings"
    strict = kind == "yarn" and family != "llama"
    original = _count(rope, key, None if strict else data.get("max_position_embeddings"))
    beta = float(rope.get("llama_4_scaling_beta") or 0.0)
    if kind == "default":
        return RopeConfig(theta=theta, original_context=original, query_beta=beta)
    reached = (data.get("max_position_embeddings") or original) / original
    factor = _positive(rope, "factor", reached)
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
