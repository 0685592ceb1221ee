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
from nemodiff.model.config import RopeConfig

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

    def rotate(self, x: Tensor, start: int) -> Tensor:
        """Rotate x [rows, heads, head_dim] whose first row stands at position `start`."""
        rows = slice(start, start + x.shape[0])
        return x * self.cos[rows] + x.roll(x.shape[-1] // 2, -1) * self.sin[rows]

    def scale_queries(self, queries: Tensor, start: int) -> Tensor:
        if self.query_scale is None:
            return queries
        return queries * self.query_scale[start : start + queries.shape[0]]


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


def fixed_mask(start: int, rows: int, causal: bool, device: torch.device) -> Tensor:
    """Additive mask for `attend_fixed`: [row blocks, chunks, 1, ROWS, CHUNK], 0 where a row may look."""
    blocks, chunks = -(-rows // ROWS), -(-(start + rows) // CHUNK)
    keys = torch.arange(chunks * CHUNK, device=device)
    last = torch.full((blocks * ROWS,), start + rows - 1, device=device)
    if causal:
        last = torch.minimum(last, start + torch.arange(blocks * ROWS, device=device))
    hidden = keys[None] > last[:, None]
    # Finite, so that a chunk hidden as a whole gives exp(...) = 0 and no NaN.
    mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -1e30)
    return mask.view(blocks, ROWS, chunks, CHUNK).transpose(1, 2).unsqueeze(2).contiguous()


def attend_fixed(queries: Tensor, cache: KVCache, layer: int, mask: Tensor) -> Tensor:
    """Attention in products of one fixed shape, ROWS * group queries by CHUNK keys, summed chunk by chunk.

    queries: [rows, heads, head_dim], rotated; mask: from `fixed_mask`. Returns [rows, heads * head_dim].
    """
    rows, heads, head_dim = queries.shape
    blocks, chunks = mask.shape[:2]
    kv_heads = cache.keys.shape[2]
    group = heads // kv_heads
    work = cache.keys.dtype
    padded = queries.new_zeros(blocks * ROWS, heads, head_dim, dtype=work)
    padded[:rows] = queries
    padded *= head_dim**-0.5
    # [blocks, kv_heads, group * ROWS, head_dim]: heads of a group share their keys, so they become rows.
    by_block = padded.view(blocks, ROWS, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    keys = cache.keys[layer, :chunks].flatten(0, 1)
    values = cache.values[layer, :chunks].flatten(0, 1)
    outputs = []
    for block in range(blocks):
        q = by_block[block].expand(chunks, -1, -1, -1).reshape(chunks * kv_heads, group * ROWS, head_dim)
        scores = torch.bmm(q, keys.transpose(1, 2)).float()
        scores = scores.view(chunks, kv_heads, group, ROWS, CHUNK) + mask[block].unsqueeze(2)
        weights = (scores - scores.amax((0, 4), keepdim=True)).exp_()
        total = _sum_in_order(weights.sum(-1, keepdim=True))
        mixed = torch.bmm(weights.view(chunks * kv_heads, group * ROWS, CHUNK).to(work), values).float()
        mixed = _sum_in_order(mixed.view(chunks, kv_heads, group, ROWS, head_dim)) / total
        outputs.append(mixed.permute(2, 0, 1, 3).reshape(ROWS, heads * head_dim))
    joined = outputs[0] if blocks == 1 else torch.cat(outputs)
    return joined[:rows].to(queries.dtype)


def _sum_in_order(parts: Tensor) -> Tensor:
    """Sum over the first axis from left to right: later zero parts then change nothing, to the last bit."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def attend(queries: Tensor, cache: KVCache, layer: int, start: int, causal: bool) -> Tensor:
    """torch's SDPA over positions 0 .. start + rows - 1; the kernel and so the rounding follow the shapes.

    queries: [rows, heads, head_dim], rotated. Returns [rows, heads * head_dim].
    """
    rows, heads, _ = queries.shape
    keys, values = cache.flat(layer, start + rows)
    mask = None
    if causal and start and rows > 1:
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
