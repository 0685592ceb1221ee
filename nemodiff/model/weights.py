"""Checkpoint files → a Transformer: names checked, shards streamed, adapters merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemodiff.errors import CheckpointError
from nemodiff.model.config import ModelConfig
from nemodiff.model.rows import find_row_shapes
from nemodiff.model.transformer import Transformer

_FUSED = {
    "self_attn.q_proj": ("qkv", 0),
    "self_attn.k_proj": ("qkv", 1),
    "self_attn.v_proj": ("qkv", 2),
    "self_attn.o_proj": ("o", 0),
    "mlp.gate_proj": ("gate_up", 0),
    "mlp.up_proj": ("gate_up", 1),
    "mlp.down_proj": ("down", 0),
    "input_layernorm": ("input_norm", 0),
    "post_attention_layernorm": ("post_norm", 0),
}


def read_config(folder: Path) -> ModelConfig:
    """config.json of a checkpoint folder. Raises CheckpointError when it is missing, damaged or of another family."""
    return ModelConfig.from_json(read_json(folder / "config.json"))


def read_json(path: Path) -> dict:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent.name} has no {path.name}; it is not a checkpoint folder.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} is damaged: it holds no valid JSON.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} is damaged: it holds no JSON object.")
    return data


def load_model(
    folder: Path, device: torch.device | str, dtype: torch.dtype, config: ModelConfig | None = None
) -> Transformer:
    """Read every tensor of `folder` into a new Transformer on `device`, in `dtype`, one tensor at a time.

    Raises CheckpointError naming missing, unexpected or mis-shaped tensors. A `linear_spec_lora/` folder beside the
    weights becomes the draft LoRA (model-card layout: PEFT, on o_proj alone).
    """
    config = config or read_config(folder)
    model = Transformer(config, device, dtype)
    targets = _targets(model)
    problems = []
    for name, tensor in _stream(folder):
        target = targets.pop(name, None)
        if target is None:
            if not (name.endswith("rotary_emb.inv_freq") or (config.tie_word_embeddings and name in _HEADS)):
                problems.append(f"unexpected {name}")
        elif target.shape != tensor.shape:
            problems.append(f"{name} is {list(tensor.shape)}, not {list(target.shape)}")
        else:
            target.copy_(tensor)
    problems += [f"missing {name}" for name in targets]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{folder.name} does not fit its config.json: {shown}.")
    if (folder / "linear_spec_lora").is_dir():
        _load_draft_lora(model, folder / "linear_spec_lora")
    settle_rows(model)
    return model.eval()


def settle_rows(model: Transformer) -> None:
    """Find the row shapes in which `model` is exact on this machine, with the threads torch has now."""
    layer = model.layers[0]
    linears = (layer.qkv, layer.o, layer.gate_up, layer.down, model.head)
    model.rows = find_row_shapes([tuple(linear.weight.shape) for linear in linears], model.device, model.dtype)


_HEADS = ("lm_head.weight", "diffusion_head.weight")


def _targets(model: Transformer) -> dict[str, Tensor]:
    """Tensor name in the files → the (part of a) parameter that it fills."""
    config, prefix = model.config, model.config.tensor_prefix
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    parts = {"qkv": [queries, keys, keys], "gate_up": [config.intermediate_size] * 2}
    targets = {f"{prefix}embed_tokens.weight": model.embed.weight.data, f"{prefix}norm.weight": model.norm.data}
    if not config.tie_word_embeddings:
        targets["diffusion_head.weight" if prefix == "encoder." else "lm_head.weight"] = model.head.weight.data
    for i, layer in enumerate(model.layers):
        for name, (attribute, part) in _FUSED.items():
            module = getattr(layer, attribute)
            weight = module.data if isinstance(module, torch.nn.Parameter) else module.weight.data
            if attribute in parts:
                weight = weight.split(parts[attribute])[part]
            targets[f"{prefix}layers.{i}.{name}.weight"] = weight
    return targets


def _stream(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every safetensors file of a folder, each tensor mapped only while it is used."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{folder.name}/{index.name} is damaged: it has no weight_map.")
        files = sorted({folder / Path(str(name)).name for name in weight_map.values()})
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder.name} has no .safetensors file: its weights are missing.")
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                    yield name, tensors.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{folder.name}/{file.name} cannot be read ({error}); delete it and fetch it again."
            ) from error


def _load_draft_lora(model: Transformer, folder: Path) -> None:
    settings = read_json(folder / "adapter_config.json")
    try:
        scale = settings["lora_alpha"] / settings["r"]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError("linear_spec_lora/adapter_config.json has no usable r and lora_alpha.") from error
    factors = dict(_stream(folder))
    for i, layer in enumerate(model.layers):
        stem = f"base_model.model.{model.config.tensor_prefix}layers.{i}.self_attn.o_proj.lora_"
        try:
            a, b = factors.pop(f"{stem}A.weight"), factors.pop(f"{stem}B.weight")
        except KeyError as error:
            raise CheckpointError(f"linear_spec_lora does not fit the model: missing {error.args[0]}.") from error
        rank = a.shape[0]
        if a.shape != (rank, layer.o.in_features) or b.shape != (layer.o.out_features, rank):
            raise CheckpointError(f"linear_spec_lora does not fit the model: {stem}A and B have the wrong shape.")
        layer.draft_lora = (a.to(model.device, model.dtype), (b.float() * scale).to(model.device, model.dtype))
    if factors:
        raise CheckpointError(f"linear_spec_lora does not fit the model: unexpected {next(iter(factors))}.")


def merge_adapter(model: Transformer, folder: Path) -> None:
    """Add a trained low-rank update (int8 factors, one fp32 scale a row) to the weights, in place, for all modes.

    adapter.safetensors holds `layers.N.{qkv,o,gate_up,down}.lora_{A,B}` with `.scale`, and `mask_embedding`.
    Raises CheckpointError when a factor is missing or does not fit.
    """
    scale = read_json(folder / "adapter_config.json").get("scale", 1.0)
    factors = dict(_stream(folder))

    try:
        for i, layer in enumerate(model.layers):
            for part in ("qkv", "o", "gate_up", "down"):
                stem = f"layers.{i}.{part}.lora_"
                a, b = take_factor(factors, f"{stem}A"), take_factor(factors, f"{stem}B")
                weight = getattr(layer, part).weight
                weight.data.copy_(weight.data.float() + (scale * (b @ a)).to(weight.device))
        model.mask_embedding = factors.pop("mask_embedding").to(model.device, model.dtype)
    except KeyError as error:
        raise CheckpointError(f"{folder.name}/adapter.safetensors is damaged: {error.args[0]} is missing.") from error
    except RuntimeError as error:
        raise CheckpointError(f"{folder.name}/adapter.safetensors does not fit its base model.") from error
    if factors:
        raise CheckpointError(f"{folder.name}/adapter.safetensors has an unexpected {next(iter(factors))}.")


def take_factor(factors: dict[str, Tensor], name: str) -> Tensor:
    """Take an int8 factor [rows, columns] and its scale a row out of an adapter's tensors, as float32."""
    return factors.pop(name).float() * factors.pop(f"{name}.scale")[:, None]
