"""ModelConfig: the shape of a Llama- or Ministral3-shaped checkpoint and the constants its decoding needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import CheckpointError, shown
from nemodiff.json_fields import Fields

_NVIDIA = ("nemotron_labs_diffusion", "nemotron_labs_diffusion_vlm")
_ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "quick_gelu")
_FAMILIES = ("llama", "ministral3", *_NVIDIA)
#: Sizes that no checkpoint of these families reaches: a damaged number must not take the machine's memory.
_LAYERS, _HEADS, _WIDTH, _CONTEXT = 1024, 4096, 2**20, 2**31
_PATCH, _PICTURE, _PATCHES = 1024, 2**16, 1024
#: The largest rotary base, and scales of attention.
_THETA, _SCALE = 1e15, 1e3


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
    def from_json(cls, data: dict[str, Any], vocabulary: int, file: str = "config.json") -> VisionConfig:
        """Read `vision_config` and what is beside it. Raises CheckpointError naming what is missing or wrong.

        What may be left out, with transformers' defaults: activations, rope_theta, spatial_merge_size,
        vision_feature_layer, multimodal_projector_bias and the ids of the picture's tokens.
        """
        fields = Fields(data, file)
        if fields.get("vision_config") is None:
            raise fields.missing("vision_config")
        tower = fields.part("vision_config")
        if tower.get("num_channels") not in (3, None):
            raise tower.off("num_channels", "pictures here have 3")
        heads, hidden = tower.count("num_attention_heads", most=_HEADS), tower.count("hidden_size", most=_WIDTH)
        if hidden % (4 * heads):
            raise tower.off("hidden_size", f"it is no multiple of 4 times its {heads} heads")
        patch, merge = tower.count("patch_size", most=_PATCH), fields.count("spatial_merge_size", 2, most=_PATCH)
        size = tower.count("image_size", most=_PICTURE)
        if size < patch * merge:
            raise tower.off("image_size", f"one token takes {patch * merge} pixels")
        if size > _PATCHES * patch:
            raise tower.off("image_size", f"this engine takes up to {_PATCHES} patches a side")
        layers = tower.count("num_hidden_layers", most=_LAYERS)
        rope = Fields({"rope_theta": tower.get("rope_theta")} | tower.part("rope_parameters").data, file)
        return cls(
            hidden_size=hidden,
            intermediate_size=tower.count("intermediate_size", most=_WIDTH),
            num_layers=layers,
            num_heads=heads,
            patch_size=patch,
            image_size=size,
            hidden_act=_activation(tower, "hidden_act"),
            rope_theta=rope.above(1, "rope_theta", 10_000.0, _THETA),
            merge_size=merge,
            projector_act=_activation(fields, "projector_hidden_act"),
            projector_bias=fields.flag("multimodal_projector_bias"),
            feature_layer=_feature_layer(fields, layers),
            image_token_id=_image_id(fields, ("image_token_id", "image_token_index"), vocabulary),
            image_break_token_id=_image_id(fields, ("image_break_token_id",), vocabulary),
            image_end_token_id=_image_id(fields, ("image_end_token_id",), vocabulary),
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
        fields = Fields(data, "config.json")
        family = data.get("model_type")
        if family not in _FAMILIES:
            raise CheckpointError(
                f"config.json describes a {shown(family)} model; this engine reads "
                f"{', '.join(_FAMILIES[:-1])} and {_FAMILIES[-1]}."
            )
        _refuse_unsupported(fields)
        heads = fields.count("num_attention_heads", most=_HEADS)
        hidden = fields.count("hidden_size", most=_WIDTH)
        kv_heads = fields.count("num_key_value_heads", heads, most=_HEADS)
        if heads % kv_heads:
            raise CheckpointError(f"config.json has {heads} query heads, no multiple of its {kv_heads} KV heads.")
        width = fields.count("head_dim", hidden // heads, most=_HEADS)
        if width % 2:
            raise CheckpointError(
                f"config.json gives a head {width} dimensions; rotary embeddings need an even number."
            )
        vocabulary = fields.count("vocab_size")
        rope = _rope(fields, family)
        return cls(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=fields.count("intermediate_size", most=_WIDTH),
            num_layers=fields.count("num_hidden_layers", most=_LAYERS),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=width,
            rms_norm_eps=fields.above(0, "rms_norm_eps", 1e-6 if family == "llama" else 1e-5),
            tie_word_embeddings=fields.flag("tie_word_embeddings"),
            context_length=_context_length(fields, rope),
            rope=rope,
            eos_token_ids=tuple(fields.ids("eos_token_id", vocabulary)),
            mask_token_id=next(iter(fields.ids("mask_token_id", vocabulary)), None),
            block_size=fields.count("block_size", 32 if family in _NVIDIA else 8),
            shift_logits=fields.flag("shift_logits", data.get("dlm_type") == "dream"),
            tensor_prefix="encoder." if family in _NVIDIA else "model.",
            vision=VisionConfig.from_json(data, vocabulary) if family == "nemotron_labs_diffusion_vlm" else None,
        )


def _refuse_unsupported(fields: Fields) -> None:
    for flag in ("attention_bias", "mlp_bias"):
        if fields.get(flag):
            raise CheckpointError(f"config.json sets {flag}; this engine has no biases.")
    if fields.get("sliding_window"):
        raise CheckpointError("config.json sets sliding_window; this engine attends to the whole prefix.")
    if (fields.get("hidden_act") or "silu") != "silu":
        raise CheckpointError(
            f"config.json sets hidden_act {shown(fields.get('hidden_act'))}; this engine has silu only."
        )
    # transformers' name, and MLX's.
    for name in ("quantization_config", "quantization"):
        if how := fields.get(name):
            raise CheckpointError(
                f"The checkpoint is quantised (config.json has {name} {shown(how)}); this engine reads float32, "
                "float16 and bfloat16: choose one that is not."
            )


def _activation(fields: Fields, key: str) -> str:
    name = fields.get(key) or "gelu"
    if name not in _ACTIVATIONS:
        raise fields.off(key, f"this engine has {', '.join(_ACTIVATIONS)}")
    return name


def _feature_layer(fields: Fields, layers: int) -> int | tuple[int, ...]:
    """hidden_states[0] is what enters the first layer, so there are layers + 1 of them."""
    key = "vision_feature_layer"
    value = -1 if fields.get(key) is None else fields.get(key)
    chosen = value if isinstance(value, list) else [value]
    if not 0 < len(chosen) <= layers + 1 or not all(
        type(layer) is int and -layers - 1 <= layer <= layers for layer in chosen
    ):
        raise fields.off(key, f"the tower has {layers} layers")
    return tuple(value) if isinstance(value, list) else value


def _image_id(fields: Fields, keys: tuple[str, ...], vocabulary: int) -> int | None:
    return next((token for key in keys for token in fields.ids(key, vocabulary)[:1]), None)


def _context_length(fields: Fields, rope: RopeConfig) -> int:
    reach = int(rope.factor * rope.original_context) if rope.factor > 1 else None
    return fields.count("max_position_embeddings", reach, most=_CONTEXT)


def _rope(fields: Fields, family: str) -> RopeConfig:
    """Rotary settings, from the root or rope_parameters. Ministral3 shapes must state theta and, for yarn, the original
    context: a guess there would decode to plausible nonsense."""
    given = fields.part("rope_parameters" if fields.get("rope_parameters") else "rope_scaling")
    kind = given.get("rope_type") or given.get("type") or "default"
    if kind not in ("default", "yarn") or any(isinstance(value, dict) for value in given.data.values()):
        kind = shown(kind) if kind not in ("default", "yarn") else "more than one kind of"
        raise CheckpointError(f"config.json asks for {kind} rotary embeddings; this engine has default and yarn.")
    rope = Fields({"rope_theta": fields.get("rope_theta")} | given.data, fields.file)
    theta = rope.above(1, "rope_theta", 10_000.0 if family == "llama" else None, _THETA)
    context = None
    if fields.get("max_position_embeddings") is not None:
        context = fields.count("max_position_embeddings", most=_CONTEXT)
    key = "original_max_position_embeddings"
    strict = kind == "yarn" and family != "llama"
    original = rope.count(key, None if strict else context, most=_CONTEXT)
    beta = rope.number("llama_4_scaling_beta", 0.0, -_SCALE, _SCALE)
    if kind == "default":
        return RopeConfig(theta=theta, original_context=original, query_beta=beta)
    factor = rope.number("factor", (context or original) / original, 1 / _CONTEXT, _CONTEXT)
    return RopeConfig(
        theta=theta,
        factor=factor,
        original_context=original,
        beta_fast=_rotations(rope, "beta_fast", 32.0),
        beta_slow=_rotations(rope, "beta_slow", 1.0),
        attention_factor=_attention_factor(rope, factor),
        truncate=rope.flag("truncate", True),
        query_beta=beta,
    )


def _rotations(rope: Fields, key: str, default: float) -> float:
    return rope.number(key, default, 1e-6, _CONTEXT) if rope.get(key) else default


def _attention_factor(rope: Fields, factor: float) -> float:
    """YaRN's scale of cos and sin (transformers' rule: the ratio of both mscales where both are given)."""

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return rope.above(0, "attention_factor", None, _SCALE)
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return mscale(rope.number("mscale", None, 0, _SCALE)) / mscale(rope.number("mscale_all_dim", None, 0, _SCALE))
    return mscale(1.0)
