"""Block-shaped forwards of an int8 model: the steps of `Transformer.forward` in buffers that are made once.

At one to a few rows a step costs little more than its call, so every step writes into a buffer whose views are ready.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.attention import Rotation
from nemodiff.model.block_attention import BlockAttention
from nemodiff.model.int8 import PEAK, Int8Matrix
from nemodiff.model.layout import Layout


class _Input:
    """Rows on their way into an int8 product: [rows, width] quantised to bytes, and their largest magnitudes."""

    def __init__(self, rows: int, width: int) -> None:
        self.weighted = torch.empty(rows, width)
        self.peak, self.scale = torch.empty(rows, 1), torch.empty(rows, 1)
        self._inverse = torch.empty(rows, 1)
        self._work = torch.empty(rows, width)
        self._integers = self._work.view(torch.int32)
        self._steps = torch.empty(rows, width, dtype=torch.uint8)

    def product(self, x: Tensor, matrix: Int8Matrix) -> Tensor:
        """As `Int8Matrix.product`, of x [rows, width]; leaves the rows' largest magnitudes in `peak`."""
        torch.abs(x, out=self._work)
        torch.amax(self._work, -1, True, out=self.peak)
        torch.reciprocal(self.peak, out=self._inverse)
        torch.addcmul(matrix.rounding(x.shape[0]), x, self._inverse, value=PEAK, out=self._work)
        return matrix.product(self._steps.copy_(self._integers))


class Int8Block:
    """Forwards of `rows` rows through the layers of an int8 model. One at a time: they share the buffers."""

    def __init__(self, model: torch.nn.Module, rows: int) -> None:
        config = model.config
        hidden, heads, kv_heads, size = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim
        self._heads = heads
        # One more column, so that the length of a row is the root of its sum of squares plus hidden * eps.
        self._extended = torch.full((rows, hidden + 1), math.sqrt(config.rms_norm_eps * hidden))
        self._x = self._extended[:, :hidden]
        self._length = torch.empty(rows, 1)
        self._hidden = _Input(rows, hidden)
        self._mixed, self._mixed_input = torch.empty(rows, heads * size), _Input(rows, heads * size)
        self._by_head = self._mixed.view(rows, kv_heads, heads // kv_heads, size)
        self._inner_input = _Input(rows, config.intermediate_size)
        self._inner = torch.empty(rows, config.intermediate_size)
        self._qkv = torch.empty(rows, config.qkv_size)
        by_head = self._qkv.view(rows, -1, size)
        self._qk, self._values = by_head[:, : heads + kv_heads], by_head[:, heads + kv_heads :]
        self._qk_halves = self._qk.chunk(2, -1)
        self._rotated = torch.empty(rows, heads + kv_heads, size)
        self._rotated_halves = self._rotated.chunk(2, -1)
        self._queries, self._keys = self._rotated[:, :heads], self._rotated[:, heads:]
        self._gate_up = torch.empty(rows, 2 * config.intermediate_size)
        self._gate, self._up = self._gate_up.chunk(2, -1)
        self._layers = [
            (layer, layer.input_norm, layer.qkv, layer.o, layer.post_norm, layer.gate_up, layer.down)
            for layer in model.layers
        ]
        self._norm, self._head = model.norm, model.head

    def __call__(
        self, x: Tensor, attention: BlockAttention, rotation: Rotation, adapter: bool, layout: Layout | None
    ) -> Tensor:
        """x: embeddings [rows, hidden]. Returns logits [rows, vocab], float32. The rest: as `Transformer.forward`."""
        self._x.copy_(x)
        plain = layout.plain if layout else 0
        sines = rotation.sin.chunk(2, -1)
        for index, (layer, input_norm, qkv, o, post_norm, gate_up, down) in enumerate(self._layers):
            torch.mul(self._normed(input_norm, qkv), self._hidden.scale, out=self._qkv)
            self._rotate(rotation.cos, sines)
            attention.write(index, self._keys, self._values)
            self._by_head.copy_(attention(rotation.scale_queries(self._queries), index))
            self._add(self._mixed, self._mixed_input, o)
            if adapter and layer.draft_lora is not None:
                a, b = layer.draft_lora
                self._x[plain:] += F.linear(F.linear(self._mixed[plain:], a), b)
            torch.mul(self._normed(post_norm, gate_up), self._hidden.scale, out=self._gate_up)
            self._add(torch.mul(F.silu(self._gate), self._up, out=self._inner), self._inner_input, down)
        return self._normed(self._norm, self._head).mul_(self._hidden.scale)

    def _normed(self, norm: Tensor, matrix: Int8Matrix) -> Tensor:
        """The matrix times the normed rows, but for the rows' scales, which it leaves in `_hidden.scale`."""
        given = self._hidden
        torch.mul(self._x, norm, out=given.weighted)
        result = given.product(given.weighted, matrix)
        torch.linalg.vector_norm(self._extended, 2, -1, True, out=self._length)
        torch.div(given.peak, self._length, out=given.scale)
        return result

    def _add(self, rows: Tensor, given: _Input, matrix: Int8Matrix) -> None:
        torch.addcmul(self._x, given.product(rows, matrix), given.peak, value=1 / PEAK, out=self._x)

    def _rotate(self, cosines: Tensor, sines: tuple[Tensor, Tensor]) -> None:
        torch.mul(self._qk, cosines, out=self._rotated)
        self._rotated_halves[0].addcmul_(self._qk_halves[1], sines[0])
        self._rotated_halves[1].addcmul_(self._qk_halves[0], sines[1])
