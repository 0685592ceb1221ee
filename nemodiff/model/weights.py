"""Checkpoint files → a Transformer: names checked, shards streamed, adapters merged."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nemodiff.errors import CheckpointError, shown
from nemodiff.json_fields import Fields
from nemodiff.model.config import ModelConfig
from nemodiff.model.cuda.row_shapes import find_row_shapes
from nemodiff.model.memory import enough_memory
from nemodiff.model.transformer import Transformer
from nemodiff.model.vision import Vision

_INDEX = "model.safetensors.index.json"
#: Folder of the draft LoRA beside the weights.
LORA = "linear_spec_lora"
#: File of a packed tower and projector, in a folder of its own.
VISION = "vision.safetensors"
_FLOATS = ("F32", "F16", "BF16", "F64")
#: What quantised files name the parts of a weight: MLX, GPTQ, AWQ, bitsandbytes, fp8, compressed-tensors and others.
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|biases|g_idx|SCB|weight_(scale|scale_inv|scale_2|packed|shape|zero_point|format)|input_scale"
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..*|_data|_scale))$"
)
#: Values that are looked at at once for whether they are finite.
_PART = 2**24
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
    """config.json of a checkpoint folder, and of generation_config.json, if there is one, what else ends an answer.

    Raises CheckpointError when config.json is missing, or either is damaged or of another family.
    """
    config = ModelConfig.from_json(read_json(folder / "config.json"))
    beside = folder / "generation_config.json"
    if not beside.is_file():
        return config
    more = Fields(read_json(beside), beside.name).ids("eos_token_id", config.vocab_size)
    return dataclasses.replace(config, eos_token_ids=tuple(dict.fromkeys((*config.eos_token_ids, *more))))


def read_json(path: Path) -> dict:
    """A JSON object from a file. Raises CheckpointError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent.name} has no {path.name}; it is not a checkpoint folder.") from error
    except (OSError, ValueError, RecursionError) as error:  # RecursionError: it is nested thousands deep
        raise CheckpointError(f"{path.parent.name}/{path.name} is damaged: it holds no valid JSON.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} is damaged: it holds no JSON object.")
    return data


def load_model(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    config: ModelConfig | None = None,
    vision: Path | None = None,
) -> Transformer:
    """Read every tensor of `folder` into a new Transformer on `device`, in `dtype`, one tensor at a time.

    Raises CheckpointError as `check_files` does, before anything is allocated. A `linear_spec_lora/` folder beside the
    weights becomes the draft LoRA (model-card layout: PEFT, on o_proj alone). Of a config that sees, tower and
    projector are read too, from `folder` or, packed, from the folder `vision`; on a CPU they run in float32.
    """
    config = config or read_config(folder)
    check_files(folder, config, vision)
    with enough_memory(f"load {folder.name}"):
        model = Transformer(config, device, dtype)
        targets = targets_of(model)
        if config.vision:
            model.vision = Vision(config, model.device, torch.float32 if model.device.type == "cpu" else dtype)
            if vision is None:
                targets |= vision_targets(model.vision)
            else:
                seeing = vision_targets(model.vision)
                unpack(dict(_stream(vision / VISION)), seeing)
                for name, tensor in seeing.items():
                    check_finite(tensor, name, f"{vision.name}/{VISION}")
        for name, tensor in _stream(folder):
            if name in targets:
                targets[name].copy_(tensor)
                check_finite(targets[name], name, folder.name)
        if (folder / LORA).is_dir():
            load_draft_lora(model, folder / LORA)
        settle_rows(model)
    return model.eval()


def check_files(folder: Path, config: ModelConfig, vision: Path | None = None) -> int:
    """Hold the headers of a folder's weights and draft LoRA against its config, reading no tensor; and those of
    `vision`, the folder of a packed tower, if there is one.

    Returns how many parameters there are. Raises CheckpointError: one sentence that names the first missing,
    unexpected, mis-shaped or non-float tensors and counts the rest; or what makes a file unreadable.
    """
    model = Transformer(config, "meta")
    expected = {name: list(tensor.shape) for name, tensor in targets_of(model).items()}
    count = sum(parameter.numel() for parameter in model.parameters())
    if config.vision:
        seeing = {name: list(t.shape) for name, t in vision_targets(Vision(config, "meta")).items()}
        count += sum(math.prod(shape) for shape in seeing.values())
        if vision is None:
            expected |= seeing
        else:
            _check_names(vision / VISION, seeing, packed=True)
    _check_names(folder, expected, config)
    if (folder / LORA).is_dir():
        shapes = _lora_shapes(config, _lora_settings(folder / LORA)[0])
        _check_names(folder / LORA, shapes)
        count += sum(math.prod(shape) for shape in shapes.values())
    return count


def check_finite(tensor: Tensor, name: str, where: str) -> None:
    """Raises CheckpointError when a tensor, as it was read, holds NaN or infinity: it would decode to nothing."""
    for part in tensor.flatten().split(_PART):
        # The sum is one quick pass; it may itself overflow, which is then looked at.
        if not math.isfinite(part.sum(dtype=torch.float32)) and not bool(part.isfinite().all()):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{where} is damaged: {name} holds values that are no finite numbers in {kind}; fetch it again."
            )


def _check_names(
    folder: Path, expected: dict[str, list[int]], config: ModelConfig | None = None, packed: bool = False
) -> None:
    """packed: int8 tensors may stand for floats, each with a scale per row beside it."""
    missing, problems, headers = dict(expected), [], list(_headers(folder))
    if not packed and (marks := [name for name, _, _ in headers if name not in expected and _QUANTISED.search(name)]):
        raise CheckpointError(
            f"{folder.name} is quantised (it has {marks[0]}); this engine reads float32, float16 and bfloat16: choose "
            "one that is not."
        )
    if packed:
        missing |= {f"{name}.scale": shape[:1] for name, shape, kind in headers if kind == "I8"}
    for name, shape, kind in headers:
        want = missing.pop(name, None)
        if want is None:
            if config is None or not _may_be_left(name, config):
                problems.append(f"unexpected {name}")
        elif shape != want:
            problems.append(f"{name} is {shape}, not {want}")
        elif kind not in _FLOATS and not (packed and kind == "I8"):
            problems.append(f"{name} holds {kind}, not floats of 16 bits or more")
    problems += [f"missing {name}" for name in missing]
    if problems:
        told = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise CheckpointError(f"{folder.name} does not fit its configuration: {told}.")
    if nowhere := sorted(_index(folder).keys() - {name for name, _, _ in headers}):
        more = f" and {len(nowhere) - 1} more" if len(nowhere) > 1 else ""
        raise CheckpointError(
            f"{folder.name}/{_INDEX} names {shown(nowhere[0])}{more}, which no weight file holds; fetch it again."
        )


def _may_be_left(name: str, config: ModelConfig) -> bool:
    """Whether a tensor of the files may stay unread."""
    return name.endswith(("rotary_emb.inv_freq", "patch_positional_embedding.inv_freq")) or (
        config.tie_word_embeddings and name in _HEADS
    )


def settle_rows(model: Transformer) -> None:
    """Find the row shapes in which `model` is exact on this machine, with the threads torch has now."""
    layer = model.layers[0]
    linears = (layer.qkv, layer.o, layer.gate_up, layer.down, model.head)
    shapes = [(linear.weight.shape[0], linear.weight.shape[1]) for linear in linears]
    model.rows = find_row_shapes(shapes, model.device, model.dtype)


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


def unpack(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Fill `targets` from tensors that are floats, or int8 with a scale per row (of the first dimension)."""
    for name, target in targets.items():
        tensor = tensors[name]
        if tensor.dtype == torch.int8:
            tensor = tensor.float() * tensors[f"{name}.scale"].float().view(-1, *[1] * (tensor.dim() - 1))
        target.copy_(tensor)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a folder's weights: those of the index, model.safetensors, or all; of a file,
    itself.

    Raises CheckpointError when some are missing.
    """
    if folder.suffix == ".safetensors":
        return [folder]
    index, single = _index(folder), folder / "model.safetensors"
    if index:
        files = sorted({folder / Path(name).name for name in index.values()})
    else:
        files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder.name} has no .safetensors file: its weights are missing.")
    if absent := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{folder.name} lacks {len(absent)} of {len(files)} weight files, the first {absent[0]}; fetch it again."
        )
    return files


def _index(folder: Path) -> dict[str, str]:
    """Tensor name → the file that holds it, as a folder's index says; empty where there is no index."""
    file = folder / _INDEX
    if not file.is_file():
        return {}
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder.name}/{_INDEX} is damaged: it has no weight_map.")
    for name in weight_map.values():
        # A name that a disk can hold: others make no missing file but an error of the file system.
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= 255:
            raise CheckpointError(f"{folder.name}/{_INDEX} is damaged: {shown(name)} is no file's name.")
    return weight_map


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


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files, or of one file, by name. Raises CheckpointError."""
    return dict(_stream(folder))


def load_draft_lora(model: Transformer, folder: Path) -> None:
    """Take the draft LoRA of a folder in PEFT's layout. Raises CheckpointError when it does not fit."""
    rank, scale = _lora_settings(folder)
    _check_names(folder, _lora_shapes(model.config, rank))
    factors = dict(_stream(folder))
    for i, layer in enumerate(model.layers):
        names = lora_names(model.config, i)
        a, b = (factors[name] for name in names)
        layer.draft_lora = (a.to(model.device, model.dtype), (b.float() * scale).to(model.device, model.dtype))
        for name, factor in zip(names, layer.draft_lora, strict=True):
            check_finite(factor, name, folder.name)


#: What PEFT's settings can ask for besides a plain low-rank update of every layer.
_MORE_THAN_LORA = (
    *("use_dora", "use_qalora", "alpha_pattern", "rank_pattern", "layer_replication", "layers_to_transform"),
    *("exclude_modules", "modules_to_save", "trainable_token_indices", "target_parameters", "lora_bias"),
    *("alora_invocation_tokens", "arrow_config", "megatron_config", "corda_config", "eva_config"),
)
#: Ways to begin that take something out of the weights below.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MOST_ALPHA = 1e6


def _lora_settings(folder: Path) -> tuple[int, float]:
    """(rank, scale) of a PEFT folder. Raises CheckpointError when they are missing, or ask for more than plain LoRA."""
    settings = Fields(read_json(folder / "adapter_config.json"), f"{folder.name}/adapter_config.json")
    if settings.get("peft_type") not in ("LORA", None):
        raise settings.off("peft_type", "this engine drafts with LORA")
    for name in _MORE_THAN_LORA:
        if settings.get(name):
            raise settings.off(name, "this engine drafts with plain LoRA")
    if settings.get("bias") not in ("none", None):
        raise settings.off("bias", "this engine has no biases")
    if str(settings.get("init_lora_weights")).lower().startswith(_CHANGES_BASE):
        raise settings.off("init_lora_weights", "this engine leaves the weights below a LoRA as they are")
    rank, alpha = settings.count("r"), settings.number("lora_alpha", None, -_MOST_ALPHA, _MOST_ALPHA)
    return rank, alpha / (math.sqrt(rank) if settings.flag("use_rslora") else rank)


def lora_names(config: ModelConfig, layer: int) -> tuple[str, str]:
    """What PEFT names the two factors of a layer's draft LoRA."""
    stem = f"base_model.model.{config.tensor_prefix}layers.{layer}.self_attn.o_proj.lora_"
    return f"{stem}A.weight", f"{stem}B.weight"


def _lora_shapes(config: ModelConfig, rank: int) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for layer in range(config.num_layers):
        a, b = lora_names(config, layer)
        shapes |= {a: [rank, config.num_heads * config.head_dim], b: [config.hidden_size, rank]}
    return shapes
