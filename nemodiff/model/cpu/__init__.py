"""int8 on a CPU, in kernels of our own: compiled when first used, for the processor that is there.

`kernels` is the forward, in Python that numba compiles, and `kernel_…` are its steps; `vector` gives numba vectors;
`tiles` are the inner loops, for an instruction set; `plan` is what Python and the kernels share; `build` makes machine
code of it all and keeps it; `check` holds new machine code against a reference; `pack` lays weights out; `team` are the
threads; `model` is what the rest of the engine sees; `draft_head` and `kernel_draft_head` are the head that weighs
drafts.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from nemodiff.cache_folder import cache_folder
from nemodiff.model.cpu.check import check
from nemodiff.model.cpu.draft_head import CpuDraftHead
from nemodiff.model.cpu.model import CpuModel
from nemodiff.model.cpu.plan import KernelsUnavailable, say
from nemodiff.model.transformer import Transformer

if TYPE_CHECKING:
    from nemodiff.model.cpu.build import Kernels


def compiled_kernels(tile: str | None = None) -> Kernels:
    """The kernels for this processor. tile: one of `tiles.TILES`, else what $NEMODIFF_CPU_TILE says.

    Raises KernelsUnavailable.
    """
    try:
        from nemodiff.model.cpu.build import load_kernels
    except (ImportError, OSError) as error:
        raise KernelsUnavailable(f"LLVM does not load here ({error})") from error
    return load_kernels(cache_folder() / "kernels", tile, check)


@cache
def int8_obstacle(device: torch.device) -> str | None:
    """Why int8 cannot run on `device`, None where it can. The first call may compile the kernels."""
    if device.type != "cpu":
        return f"int8 runs on a CPU only, not on {device.type}"
    try:
        compiled_kernels()
    except KernelsUnavailable as error:
        say(f"The CPU kernels are not used: {error}.")
        return f"int8 runs in the CPU kernels, which cannot be used here: {error}"
    return None


def quantise(model: Transformer, tile: str | None = None) -> CpuModel:
    """The same model with int8 weights, in the CPU kernels; `model` (float32 or bfloat16, on the CPU) loses its layers.

    Raises KernelsUnavailable.
    """
    return CpuModel(model, compiled_kernels(tile))


__all__ = ["CpuDraftHead", "CpuModel", "KernelsUnavailable", "compiled_kernels", "int8_obstacle", "quantise"]
