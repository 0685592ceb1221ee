"""KVCache: fixed buffers plus a length. A forward writes after the kept length; `keep` moves the length."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from nemodiff.model.config import ModelConfig

#: Keys travel in chunks of this many positions, so that attention runs the same shapes whatever the length.
CHUNK = 256


class KVCache:
    """Keys and values of one sequence.

    keys, values: [layers, chunks, kv_heads, chunk, head_dim], chunk-major so that the first c chunks are one
    contiguous batch. whole: one chunk holds everything, else a chunk is CHUNK positions. Rows at and after `length` are
    not kept: the next forward overwrites them.
    """

    def __init__(
        self, config: ModelConfig, capacity: int, device: torch.device, dtype: torch.dtype, whole: bool = False
    ) -> None:
        step = 2 * CHUNK if whole else CHUNK
        self.capacity = -(-capacity // step) * step
        self.chunk = self.capacity if whole else CHUNK
        shape = (config.num_layers, self.capacity // self.chunk, config.num_kv_heads, self.chunk, config.head_dim)
        # Zeros, not empty: masked keys still enter a product with weight 0, and 0 * NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def copy(self) -> KVCache:
        """Another cache with the same content."""
        other = copy.copy(self)
        other.keys, other.values = self.keys.clone(), self.values.clone()
        return other

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [rows, kv_heads, head_dim] after the kept length, without keeping them."""
        rows, done = keys.shape[0], 0
        while done < rows:
            chunk, offset = divmod(self.length + done, self.chunk)
            count = min(rows - done, self.chunk - offset)
            part = slice(done, done + count)
            self.keys[layer, chunk, :, offset : offset + count] = keys[part].transpose(0, 1)
            self.values[layer, chunk, :, offset : offset + count] = values[part].transpose(0, 1)
            done += count

    def keep(self, rows: int | Sequence[int]) -> None:
        """Keep of what the last forward wrote the first `rows`, or those of a list, in ascending order.

        A list's rows move to the next places of the sequence; their positions must have been these.
        """
        if isinstance(rows, int):
            self.length += rows
            return
        source, target = self.places(rows), self.places(range(len(rows)))
        for buffer in (self.keys, self.values):
            buffer[:, target[0], :, target[1]] = buffer[:, source[0], :, source[1]]
        self.length += len(rows)

    def places(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(chunk, offset in it), each [rows], of rows that the next forward writes."""
        at = torch.tensor(rows, device=self.keys.device) + self.length
        return at // self.chunk, at % self.chunk

    def flat(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """The first `length` keys and values of a layer, each [kv_heads, length, head_dim]."""
        chunks = -(-length // self.chunk)

        def join(buffer: Tensor) -> Tensor:
            return buffer[layer, :chunks].transpose(0, 1).flatten(1, 2)[:, :length]

        return join(self.keys), join(self.values)
