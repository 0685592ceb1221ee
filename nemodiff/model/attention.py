"""Rotary embedding and attention over the cache.

Block-shaped forwards (a token, a draft, a verify) use `attend_fixed`: its products always have the same shape, so a
row's result does not depend on how many rows or keys travel with it. Prompts use torch's SDPA.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.cache import CHUNK, KVCache
from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.layout import Layout

#: Query rows of one fixed-shape product.
ROWS = 8


class Rotary:
    """cos and sin tables, and the llama-4 scale of queries, for positions 0 .. capacity - 1."""

    def __init__(
        self, rope: RopeConfig, head_dim: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        positions = torch.arange(capacity, dtype=torch.float32)
        angles = positions[:, None] * _inverse_frequencies(rope, head_dim)
        angles = torch.cat((angles, angles), dim=-1)
        self.cos = (angles.cos() * rope.attention_factor).to(device, dtype)[:, None]
        self.sin = (angles.sin() * rope.attention_factor).to(device, dtype)[:, None]
        # The sign of rotate_half is folded into sin, so that a rotation is two products and a roll.
        self.sin[..., : head_dim // 2] *= -1
        self.query_scale: Tensor | None = None
        if rope.query_beta:
            scale = 1 + rope.query_beta * torch.log(1 + torch.floor(positions / rope.original_context))
            self.query_scale = scale.to(device, dtype)[:, None, None]

    def at(self, start: int, rows: int) -> Rotation:
        """What rotates `rows` rows whose first stands at position `start`."""
        part = slice(start, start + rows)
        scale = None if self.query_scale is None else self.query_scale[part]
        return Rotation(self.cos[part], self.sin[part], scale)

    def at_each(self, positions: Tensor) -> Rotation:
        """What rotates rows that stand at `positions` [rows]."""
        scale = None if self.query_scale is None else self.query_scale[positions]
        return Rotation(self.cos[positions], self.sin[positions], scale)


class Rotation:
    """Rows of the tables: cos, sin [rows, 1, head_dim] and the queries' scale [rows, 1, 1] or None."""

    def __init__(self, cos: Tensor, sin: Tensor, query_scale: Tensor | None) -> None:
        self.cos, self.sin, self._query_scale = cos, sin, query_scale

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate x [rows, heads, head_dim]."""
        return x * self.cos + x.roll(x.shape[-1] // 2, -1) * self.sin

    def scale_queries(self, queries: Tensor) -> Tensor:
        return queries if self._query_scale is None else queries * self._query_scale


def _inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """[head_dim / 2] frequencies: plain RoPE, or YaRN's blend of extrapolation and interpolation (arXiv 2309.00071)."""
    frequencies = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rope.factor == 1.0:
        return frequencies

    def dimension(rotations: float) -> float:
        return head_dim * math.log(rope.original_context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low if high != low else 0.001)
    interpolated = ramp.clamp(0, 1)
    return frequencies / rope.factor * interpolated + frequencies * (1 - interpolated)


class FixedShape:
    """The masks of one block-shaped forward, made once and used by every layer.

    masks: one per block of ROWS rows, additive, [chunks * kv_heads, group * ROWS, CHUNK], 0 where a row may look.
    """

    def __init__(
        self, config: ModelConfig, cache: KVCache, rows: int, causal: bool, layout: Layout | None = None
    ) -> None:
        start, device = cache.length, cache.keys.device
        self.blocks, self.chunks = -(-rows // ROWS), -(-(start + rows) // CHUNK)
        self.kv_heads, self.group = config.num_kv_heads, config.num_heads // config.num_kv_heads
        keys = torch.arange(self.chunks * CHUNK, device=device)
        last = torch.full((self.blocks * ROWS,), start + rows - 1, device=device)
        if causal:
            last = torch.minimum(last, start + torch.arange(self.blocks * ROWS, device=device))
        hidden = keys > last[:, None]
        if layout is not None:
            hidden[:, start:] = True
            hidden[:rows, start : start + rows] = ~layout.visible
        # Finite, so that a chunk hidden as a whole gives exp(...) = 0 and no NaN.
        mask = torch.zeros(hidden.shape, device=device, dtype=cache.keys.dtype).masked_fill_(hidden, -1e30)
        mask = mask.view(self.blocks, 1, 1, ROWS, self.chunks, CHUNK).permute(0, 4, 1, 2, 3, 5)
        shape = (self.blocks, self.chunks, self.kv_heads, self.group, ROWS, CHUNK)
        self.masks = mask.expand(shape).reshape(self.blocks, -1, self.group * ROWS, CHUNK)
        #: Of a tree: a causal block for every path, over keys that lie in the path's order.
        self.paths = [
            (torch.tensor(path, device=device), cache.places(path), FixedShape(config, cache, len(path), causal=True))
            for path in (layout.paths if layout else [])
        ]


def attend_fixed(queries: Tensor, cache: KVCache, layer: int, shape: FixedShape) -> Tensor:
    """Attention in products of one fixed shape, group * ROWS queries by CHUNK keys, summed chunk by chunk.

    queries: [rows, heads, head_dim], rotated. Returns [rows, heads * head_dim].
    """
    keys, values = cache.keys[layer, : shape.chunks], cache.values[layer, : shape.chunks]
    mixed = _attend_fixed(queries, keys, values, shape)
    for rows, (chunks, offsets), path_shape in shape.paths:
        own_keys, own_values = keys[: path_shape.chunks].clone(), values[: path_shape.chunks].clone()
        to_chunks, to_offsets = cache.places(range(len(rows)))
        for target, source in ((own_keys, keys), (own_values, values)):
            target[to_chunks, :, to_offsets] = source[chunks, :, offsets]
        mixed[rows] = _attend_fixed(queries[rows], own_keys, own_values, path_shape)
    return mixed


def _attend_fixed(queries: Tensor, cached_keys: Tensor, cached_values: Tensor, shape: FixedShape) -> Tensor:
    """`attend_fixed` over chunks of keys and values, each [chunks, kv_heads, CHUNK, head_dim]."""
    rows, heads, head_dim = queries.shape
    blocks, chunks, kv_heads, group = shape.blocks, shape.chunks, shape.kv_heads, shape.group
    # Heads of a group share their keys, so they become rows: [blocks, kv_heads, group, ROWS, head_dim].
    padded = torch.zeros(blocks * ROWS, heads, head_dim, device=queries.device, dtype=cached_keys.dtype)
    padded[:rows] = queries
    padded = padded.view(blocks, ROWS, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
    keys, values = cached_keys.flatten(0, 1).transpose(1, 2), cached_values.flatten(0, 1)
    outputs = []
    for block in range(blocks):
        q = padded[block].expand(chunks, -1, -1, -1, -1).reshape(chunks * kv_heads, group * ROWS, head_dim)
        scores = torch.baddbmm(shape.masks[block], q, keys, alpha=head_dim**-0.5)
        by_chunk = scores.view(chunks, kv_heads, group * ROWS, CHUNK)
        by_chunk.sub_(by_chunk.amax((0, 3), keepdim=True)).exp_()
        total = _sum_in_order(by_chunk.sum(-1, keepdim=True))
        mixed = _sum_in_order(torch.bmm(scores, values).view(chunks, kv_heads, group * ROWS, head_dim)) / total
        outputs.append(mixed.view(kv_heads, group, ROWS, head_dim).permute(2, 0, 1, 3).reshape(ROWS, heads * head_dim))
    joined = outputs[0] if blocks == 1 else torch.cat(outputs)
    return joined[:rows].to(queries.dtype)


def _sum_in_order(parts: Tensor) -> Tensor:
    """Sum over the first axis from left to right: later zero parts then change nothing, to the last bit."""
    total = parts[0]
    for i in range(1, parts.shape[0]):
        total = total + parts[i]
    return total


def attend(
    queries: Tensor, cache: KVCache, layer: int, start: int, causal: bool, layout: Layout | None = None
) -> Tensor:
    """torch's SDPA over positions 0 .. start + rows - 1; the kernel and so the rounding follow the shapes.

    queries: [rows, heads, head_dim], rotated. Returns [rows, heads * head_dim].
    """
    rows, heads, _ = queries.shape
    keys, values = cache.flat(layer, start + rows)
    mask = None
    if layout is not None:
        mask, causal = F.pad(layout.visible, (start, 0), value=True), False
    elif causal and start and rows > 1:
        seen = torch.arange(start + rows, device=queries.device)
        mask = seen[None] <= start + torch.arange(rows, device=queries.device)[:, None]
    mixed = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None].to(keys.dtype),
        keys[None],
        values[None],
        attn_mask=mask,
        is_causal=causal and not start and rows > 1,
        enable_gqa=heads != keys.shape[0],
    )
    return mixed[0].transpose(0, 1).reshape(rows, -1).to(queries.dtype)
