"""Tiny models in the CPU kernels, on every tile that this processor has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemodiff.model.cpu import CpuModel, KernelsUnavailable, compiled_kernels, int8_obstacle, quantise
from nemodiff.model.weights import load_model

CPU = torch.device("cpu")


def _tiles() -> list[str]:
    try:
        compiled_kernels()
    except KernelsUnavailable:
        return []
    from nemodiff.model.cpu.build import tiles_here

    return tiles_here()


#: The tiles of this processor, the fastest first; none where the kernels do not compile.
TILES_HERE = _tiles()
needs_int8 = pytest.mark.skipif(int8_obstacle(CPU) is not None, reason="the CPU kernels do not run here")
every_tile = pytest.mark.parametrize("tile", TILES_HERE or [pytest.param("none", marks=needs_int8)])


def kernel_model(folder: Path, tile: str | None = None) -> CpuModel:
    """A folder's model in the kernels, with that tile or the fastest."""
    return quantise(load_model(folder, "cpu", torch.bfloat16), tile)


def prefilled(model: CpuModel, ids: torch.Tensor, room: int = 300):
    """A cache of the model that keeps `ids`, with room for more."""
    cache = model.new_cache(len(ids) + room)
    model(ids, cache, causal=True)
    cache.keep(len(ids))
    return cache
