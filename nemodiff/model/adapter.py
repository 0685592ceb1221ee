"""An adapter's file: the low-rank update of all weights, in factors of 8 and 4 bits, and its merging."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nemodiff.errors import CheckpointError
from nemodiff.json_fields import Fields
from nemodiff.model.transformer import Transformer
from nemodiff.model.weights import check_finite, read_json, read_tensors

#: Largest step that four bits hold; they are stored as 0 to 15.
MOST = 7
_ZERO = 8


def merge_adapter(model: Transformer, folder: Path) -> None:
    """Add a trained low-rank update to the weights, in place, for all modes.

    adapter.safetensors holds the factors of `layers.N.{qkv,o,gate_up,down}` (see `take_factors`), and
    `mask_embedding`. Raises CheckpointError when a factor is missing or does not fit.
    """
    scale = Fields(read_json(folder / "adapter_config.json"), "adapter_config.json").number("scale", 1.0, -1e6, 1e6)
    file = f"{folder.name}/adapter.safetensors"
    factors = read_tensors(folder / "adapter.safetensors")

    try:
        for i, layer in enumerate(model.layers):
            for part in ("qkv", "o", "gate_up", "down"):
                stem = f"layers.{i}.{part}"
                a, b = take_factors(factors, stem)
                weight = getattr(layer, part).weight
                weight.data.copy_(weight.data.float() + (scale * (b @ a)).to(weight.device))
                check_finite(weight.data, f"{stem}.lora_A or {stem}.lora_B", file)
        mask = factors.pop("mask_embedding").to(model.device, model.dtype)
        model.mask_embedding = mask.reshape(model.config.hidden_size)
        check_finite(mask, "mask_embedding", file)
    except KeyError as error:
        raise CheckpointError(f"{folder.name}/adapter.safetensors is damaged: {error.args[0]} is missing.") from error
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"{folder.name}/adapter.safetensors does not fit its base model.") from error
    if factors:
        raise CheckpointError(f"{folder.name}/adapter.safetensors has an unexpected {next(iter(factors))}.")


def take_factors(factors: dict[str, Tensor], stem: str) -> tuple[Tensor, Tensor]:
    """Take the factors A [rank, in] and B [out, rank] of one weight out of an adapter's tensors, as float32.

    `STEM.lora_A` and `STEM.lora_B` are int8 of these shapes, each with a float32 `.scale` per row; B's may be left out
    where all are 1. Components whose steps are small may stand in four bits behind them: `STEM.lora_A4` uint8
    [components, in / 2], `STEM.lora_B4` uint8 [components, out / 2], and `STEM.lora_A4.scale`, the scale of a
    component's product.
    """
    a = factors.pop(f"{stem}.lora_A").float() * factors.pop(f"{stem}.lora_A.scale")[:, None]
    b = factors.pop(f"{stem}.lora_B").float()
    if f"{stem}.lora_B.scale" in factors:
        b = b * factors.pop(f"{stem}.lora_B.scale")[:, None]
    if f"{stem}.lora_A4" not in factors:
        return a, b
    small = unpack4(factors.pop(f"{stem}.lora_A4")) * factors.pop(f"{stem}.lora_A4.scale")[:, None]
    return torch.cat((a, small)), torch.cat((b, unpack4(factors.pop(f"{stem}.lora_B4")).t()), 1)


def put_factors(stem: str, a: Tensor, b: Tensor, scale: Tensor) -> dict[str, Tensor]:
    """The tensors that `take_factors` reads, of int8 factors a [rank, in] and b [out, rank] and a float32 scale per
    component [rank]; components that are zero are left out."""
    largest = torch.maximum(a.abs().amax(1), b.abs().amax(0))
    small, wide = (largest > 0) & (largest <= MOST), largest > MOST
    return {
        f"{stem}.lora_A": a[wide].contiguous(),
        f"{stem}.lora_A.scale": scale[wide].contiguous(),
        f"{stem}.lora_B": b[:, wide].contiguous(),
        f"{stem}.lora_A4": pack4(a[small]),
        f"{stem}.lora_A4.scale": scale[small].contiguous(),
        f"{stem}.lora_B4": pack4(b[:, small].t()),
    }


def pack4(steps: Tensor) -> Tensor:
    """Steps [rows, columns] from -7 to 7, two per byte: uint8 [rows, columns / 2]. The columns must be even."""
    stored = (steps + _ZERO).to(torch.uint8)
    return (stored[:, ::2] | (stored[:, 1::2] << 4)).contiguous()


def unpack4(packed: Tensor) -> Tensor:
    """The float32 steps [rows, columns] of `pack4`'s [rows, columns / 2]."""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(1).float() - _ZERO
