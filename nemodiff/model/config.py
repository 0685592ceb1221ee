"""ModelConfig: the shape of a Llama- or Ministral3-shaped checkpoint and the constants its decoding needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import CheckpointError

_NVIDIA = ("nemotron_labs_diffusion", "nemotron_labs_diffusion_vlm")
_ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "quick_gelu")
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
class VisionConfig:
    """A Pixtral tower, Mistral3's projector and the tokens of a picture: a placeholder a feature, a break after each
    row, an end after the last. Ids that a config leaves out are None: the tokenizer knows them.

    image_size: pixels of the longest side. merge_size: patches a side that become one token. feature_layer: the
    layer, or layers, whose hidden states are projected, as transformers counts them.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    image_size: int
    hidden_act: str = "gelu"
    rope_theta: float = 10_000.0
    merge_size: int = 2
    projector_act: str = "gelu"
    projector_bias: bool = False
    feature_layer: int | tuple[int, ...] = -1
    image_token_id: int | None = None
    image_break_token_id: int | None = None
    image_end_token_id: int | None = None

    @property
    def unit(self) -> int:
        """Pixels a side that become one token."""
        return self.patch_size * self.merge_size

    @classmethod
    def from_json(cls, data: dict[str, Any], vocabulary: int) -> VisionConfig:
        """Read `vision_config` and what stands beside it. Raises CheckpointError naming what is missing or wrong.

        What may be left out, with transformers' defaults: activations, rope_theta, spatial_merge_size,
        vision_feature_layer, multimodal_projector_bias and the ids of the picture's tokens.
        """
        tower = data.get("vision_config")
        if not isinstance(tower, dict):
            raise _missing("vision_config")
        if tower.get("num_channels", 3) != 3:
            raise CheckpointError(f"config.json sets num_channels to {tower['num_channels']!r}; pictures here have 3.")
        heads, hidden = _count(tower, "num_attention_heads"), _count(tower, "hidden_size")
        if hidden % (4 * heads):
            raise CheckpointError(
                f"config.json's vision_config has hidden_size {hidden}, no multiple of 4 times its {heads} heads."
            )
        patch, merge = _count(tower, "patch_size"), _count(data, "spatial_merge_size", 2)
        size = _count(tower, "image_size")
        if size < patch * merge:
            raise CheckpointError(f"config.json sets image_size to {size}; one token takes {patch * merge} pixels.")
        layers = _count(tower, "num_hidden_layers")
        rope = {"rope_theta": tower.get("rope_theta")} | (tower.get("rope_parameters") or {})
        return cls(
            hidden_size=hidden,
            intermediate_size=_count(tower, "intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            patch_size=patch,
            image_size=size,
            hidden_act=_activation(tower, "hidden_act"),
            rope_theta=_positive(rope, "rope_theta", 10_000.0),
            merge_size=merge,
            projector_act=_activation(data, "projector_hidden_act"),
            projector_bias=bool(data.get("multimodal_projector_bias", False)),
            feature_layer=_feature_layer(data.get("vision_feature_layer", -1), layers),
            image_token_id=_image_id(data, ("image_token_id", "image_token_index"), vocabulary),
            image_break_token_id=_image_id(data, ("image_break_token_id",), vocabulary),
            image_end_token_id=_image_id(data, ("image_end_token_id",), vocabulary),
        )


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
    #: The tower and projector of a checkpoint that sees.
    vision: VisionConfig | None = None

    @property
    def mask(self) -> int:
        """The mask's id. Raises ValueError for a model without one, which decodes in mode ar only."""
        if self.mask_token_id is None:
            raise ValueError("this model has no mask token")
        return self.mask_token_id

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
            vision=VisionConfig.from_json(data, vocabulary) if family == "nemotron_labs_diffusion_vlm" else None,
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


def _activation(data: dict[str, Any], key: str) -> str:
    name = data.get(key) or "gelu"
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"config.json sets {key} to {name!r}; this engine has {', '.join(_ACTIVATIONS)}.")
    return name


def _feature_layer(value: Any, layers: int) -> int | tuple[int, ...]:
    """hidden_states[0] is what enters the first layer, so there are layers + 1 of them."""
    chosen = value if isinstance(value, list) else [value]
    if not chosen or not all(type(layer) is int and -layers - 1 <= layer <= layers for layer in chosen):
        raise CheckpointError(f"config.json sets vision_feature_layer to {value!r}; the tower has {layers} layers.")
    return tuple(value) if isinstance(value, list) else value


def _image_id(data: dict[str, Any], keys: tuple[str, ...], vocabulary: int) -> int | None:
    return next((token for key in keys for token in _token_ids(data, key, vocabulary)[:1]), None)


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
