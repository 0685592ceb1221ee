"""Checkpoint files → a Transformer: names checked, shards streamed, adapters merged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemodiff.errors import CheckpointError
from nemodiff.model.block_attention import find_attention_shapes
from nemodiff.model.config import ModelConfig
from nemodiff.model.memory import enough_memory
from nemodiff.model.rows import find_row_shapes
from nemodiff.model.transformer import Transformer
from nemodiff.model.vision import Vision

#: Folder of the draft LoRA beside the weights.
LORA = "linear_spec_lora"
_FLOATS = ("F32", "F16", "BF16", "F64")
_HEADS = ("lm_head.weight", "diffusion_head.weight")
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

    Raises CheckpointError as `check_files` does, before anything is allocated. A `linear_spec_lora/` folder beside the
    weights becomes the draft LoRA (model-card layout: PEFT, on o_proj alone). Of a config that sees, tower and
    projector are read too; on a CPU they run in float32.
    """
    config = config or read_config(folder)
    check_files(folder, config)
    with enough_memory(f"load {folder.name}"):
        model = Transformer(config, device, dtype)
        targets = targets_of(model)
        if config.vision:
            model.vision = Vision(config, model.device, torch.float32 if model.device.type == "cpu" else dtype)
            targets |= vision_targets(model.vision)
        for name, tensor in _stream(folder):
            if name in targets:
                targets[name].copy_(tensor)
        if (folder / LORA).is_dir():
            _load_draft_lora(model, folder / LORA)
        settle_rows(model)
    return model.eval()


def check_files(folder: Path, config: ModelConfig) -> int:
    """Hold the headers of a folder's weights and draft LoRA against its config, reading no tensor.

    Returns how many parameters there are. Raises CheckpointError: one sentence that names the first missing,
    unexpected, mis-shaped or non-float tensors and counts the rest; or what makes a file unreadable.
    """
    model = Transformer(config, "meta")
    expected = {name: list(tensor.shape) for name, tensor in targets_of(model).items()}
    count = sum(parameter.numel() for parameter in model.parameters())
    if config.vision:
        seeing = {name: list(t.shape) for name, t in vision_targets(Vision(config, "meta")).items()}
        count += sum(math.prod(shape) for shape in seeing.values())
        expected |= seeing
    _check_names(folder, expected, config)
    if (folder / LORA).is_dir():
        shapes = _lora_shapes(config, _lora_settings(folder / LORA)[0])
        _check_names(folder / LORA, shapes)
        count += sum(math.prod(shape) for shape in shapes.values())
    return count


def _check_names(folder: Path, expected: dict[str, list[int]], config: ModelConfig | None = None) -> None:
    missing, problems = dict(expected), []
    for name, shape, kind in _headers(folder):
        want = missing.pop(name, None)
        if want is None:
            if config is None or not _may_be_left(name, config):
                problems.append(f"unexpected {name}")
        elif shape != want:
            problems.append(f"{name} is {shape}, not {want}")
        elif kind not in _FLOATS:
            problems.append(f"{name} holds {kind}, not floats of 16 bits or more")
    problems += [f"missing {name}" for name in missing]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{folder.name} does not fit its configuration: {shown}.")


def _may_be_left(name: str, config: ModelConfig) -> bool:
    """Whether a tensor of the files may stay unread."""
    return name.endswith(("rotary_emb.inv_freq", "patch_positional_embedding.inv_freq")) or (
        config.tie_word_embeddings and name in _HEADS
    )


def settle_rows(model: Transformer) -> None:
    """Find the row shapes in which `model` is exact on this machine, with the threads torch has now."""
    layer = model.layers[0]
    linears = (layer.qkv, layer.o, layer.gate_up, layer.down, model.head)
    model.rows = find_row_shapes([tuple(linear.weight.shape) for linear in linears], model.device, model.dtype)
    model.attention = find_attention_shapes(model.config) if model.device.type == "cpu" else None


def targets_of(model: Transformer) -> dict[str, Tensor]:
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


def vision_targets(vision: Vision) -> dict[str, Tensor]:
    """Tensor name in the files → the parameter of tower or projector that it fills."""
    return {f"encoder.{name}": parameter.data for name, parameter in vision.named_parameters()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a folder's weights: those of the index, model.safetensors, or all.

    Raises CheckpointError when some are missing.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{folder.name}/{index.name} is damaged: it has no weight_map.")
        files = sorted({folder / Path(str(name)).name for name in weight_map.values()})
    else:
        files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder.name} has no .safetensors file: its weights are missing.")
    if absent := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{folder.name} lacks {len(absent)} of {len(files)} weight files, the first {absent[0]}; fetch it again."
        )
    return files


@contextmanager
def _open(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file.parent.name}/{file.name} cannot be read ({error}); delete it and fetch it again."
        ) from error


def _headers(folder: Path) -> Iterator[tuple[str, list[int], str]]:
    """(name, shape, dtype as safetensors spells it) of every tensor of a folder; no data is read."""
    for file in weight_files(folder):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                header = tensors.get_slice(name)
                yield name, list(header.get_shape()), header.get_dtype()


def _stream(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every safetensors file of a folder. One file is mapped at a time: more is never held."""
    for file in weight_files(folder):
        with _open(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                yield name, tensors.get_tensor(name)


def _load_draft_lora(model: Transformer, folder: Path) -> None:
    _, scale = _lora_settings(folder)
    factors = dict(_stream(folder))
    for i, layer in enumerate(model.layers):
        a, b = (factors[name] for name in _lora_names(model.config, i))
        layer.draft_lora = (a.to(model.device, model.dtype), (b.float() * scale).to(model.device, model.dtype))


def _lora_settings(folder: Path) -> tuple[int, float]:
    """(rank, scale) of a PEFT folder. Raises CheckpointError when they are missing."""
    settings = read_json(folder / "adapter_config.json")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise CheckpointError(f"{folder.name}/adapter_config.json has no usable r and lora_alpha.")
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _lora_names(config: ModelConfig, layer: int) -> tuple[str, str]:
    stem = f"base_model.model.{config.tensor_prefix}layers.{layer}.self_attn.o_proj.lora_"
    return f"{stem}A.weight", f"{stem}B.weight"


def _lora_shapes(config: ModelConfig, rank: int) -> dict[str, list[int]]:
    shapes = {}
    for layer in range(config.num_layers):
        a, b = _lora_names(config, layer)
        shapes |= {a: [rank, config.num_heads * config.head_dim], b: [config.hidden_size, rank]}
    return shapes


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
