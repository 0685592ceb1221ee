"""The cache of the CPU kernels: keys by blocks of 16 positions, dimension by dimension; values position by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nemodiff.model.config import ModelConfig
from nemodiff.model.cpu.pack import padded, padded_half

_BLOCK = 16


class CpuCache:
    """Keys and values of one sequence, float32, of padded heads (see `pack.head_places`).

    keys: [layers, kv_heads, capacity / 16, head, 16], rotated. values: [layers, kv_heads, capacity, head]. A forward
    writes after the kept `length`; what is not kept is overwritten by the next one.
    """

    def __init__(self, config: ModelConfig, capacity: int) -> None:
        self.capacity = padded(max(capacity, 1))
        size = 2 * padded_half(config.head_dim)
        heads = (config.num_layers, config.num_kv_heads)
        self.keys = torch.zeros(*heads, self.capacity // _BLOCK, size, _BLOCK)
        self.values = torch.zeros(*heads, self.capacity, size)
        self.length = 0

    def keep(self, rows: int | Sequence[int]) -> None:
        """Keep of what the last forward wrote the first `rows`, or those of a list, in ascending order.

        Their places become the next ones of the sequence; the rows' positions must have been these.
        """
        if isinstance(rows, int):
            self.length += rows
            return
        if moved := [place for place in enumerate(rows) if place[0] != place[1]]:
            target, source = np.array(moved).T + self.length
            keys, values = self.keys.numpy(), self.values.numpy()
            values[:, :, target] = values[:, :, source]
            keys[:, :, target // _BLOCK, :, target % _BLOCK] = keys[:, :, source // _BLOCK, :, source % _BLOCK]
        self.length += len(rows)

    def copy(self) -> CpuCache:
        """Another cache with the same content."""
        other = object.__new__(CpuCache)
        other.capacity, other.length = self.capacity, self.length
        other.keys, other.values = self.keys.clone(), self.values.clone()
        return other

    def kept(self) -> tuple[Tensor, Tensor]:
        """Copies of the kept keys and values, each [layers, kv_heads, length, head]."""
        keys = self.keys.transpose(3, 4).flatten(2, 3)[:, :, : self.length]
        return keys.clone(), self.values[:, :, : self.length].clone()
