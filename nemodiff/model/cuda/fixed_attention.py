"""Attention of forwards whose shapes never change: torch's SDPA under a mask, or flash-attn.

Nothing here reads a tensor on the host or makes one from host values: the cache's length, the rows' places and what
they see are tensors on the device, so that one captured graph serves every length and every layout.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.attention import ROWS
from nemodiff.model.cache import KVCache
from nemodiff.model.config import ModelConfig
from nemodiff.model.transformer import Attend

#: Parts of the keys that flash-attn sums apart: the same for every number of rows, or rows would round differently.
SPLITS = 16


class MaskedAttention:
    """torch's SDPA over the whole cache, with a mask that follows from the length and from what the rows see.

    Always products of group * ROWS queries (heads of a group share their keys, so they become rows) by all keys:
    however many rows there are, a row meets the same shape.
    """

    def __init__(self, config: ModelConfig, cache: KVCache, rows: int) -> None:
        self._cache, self._rows = cache, rows
        self._blocks, self._kv_heads = -(-rows // ROWS), config.num_kv_heads
        self._group, self._head_dim = config.num_heads // config.num_kv_heads, config.head_dim
        self._keys = torch.arange(cache.capacity, device=cache.keys.device)

    def at(self, length: Tensor, places: Tensor, visible: Tensor) -> Attend:
        """Attention of one forward. length: int64 [1], kept positions. places: int64 [rows], where in the cache the
        rows' keys are written. visible: bool [rows, rows], row i sees row j."""
        cache, rows, padding = self._cache, self._rows, self._blocks * ROWS - self._rows
        after = self._keys - length
        own = visible.index_select(1, after.clamp(0, rows - 1))
        seen = (after < 0) | ((after < rows) & own)
        seen = F.pad(seen, (0, 0, 0, padding), value=True)  # rows that nobody reads; a row must see something
        mask = torch.zeros(seen.shape, device=seen.device, dtype=cache.keys.dtype)
        mask = mask.masked_fill(~seen, -torch.inf).view(self._blocks, 1, ROWS, -1)
        mask = mask.repeat(1, 1, self._group, 1)  # row g * ROWS + r is head g's row r

        def attend(queries: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            cache.keys[layer, 0].index_copy_(1, places, keys.transpose(0, 1).to(cache.keys.dtype))
            cache.values[layer, 0].index_copy_(1, places, values.transpose(0, 1).to(cache.keys.dtype))
            q = F.pad(queries.to(cache.keys.dtype), (0, 0, 0, 0, 0, padding))
            q = q.view(self._blocks, ROWS, self._kv_heads, self._group, self._head_dim).permute(0, 2, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(
                q.reshape(self._blocks, self._kv_heads, self._group * ROWS, self._head_dim),
                cache.keys[layer].expand(self._blocks, -1, -1, -1),
                cache.values[layer].expand(self._blocks, -1, -1, -1),
                attn_mask=mask,
            )
            mixed = mixed.view(self._blocks, self._kv_heads, self._group, ROWS, self._head_dim)
            mixed = mixed.permute(0, 3, 1, 2, 4).reshape(self._blocks * ROWS, -1)
            return mixed[:rows].to(queries.dtype)

        return attend


class FlashAttention:
    """flash-attn's `flash_attn_with_kvcache`, which also writes the new keys and values; for plain blocks only.

    As its documentation has them: q [1, rows, heads, head_dim], k and v [1, rows, kv_heads, head_dim], the caches
    [1, capacity, kv_heads, head_dim] with a contiguous last dimension only (here a view of [1, kv_heads, capacity,
    head_dim]), cache_seqlens int32 [1] without the new rows, which are written after it in place. The causal mask is
    aligned to the bottom right: the last row sees all.
    """

    def __init__(self, cache: KVCache, causal: bool, function: Callable[..., Tensor]) -> None:
        self._cache, self._causal, self._function = cache, causal, function

    def at(self, length: Tensor, places: Tensor, visible: Tensor) -> Attend:
        """Attention of one forward: `length` int64 [1]; the rest follows from `causal`."""
        lengths = length.int()

        def attend(queries: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            mixed = self._function(
                queries[None],
                self._cache.keys[layer].transpose(1, 2),
                self._cache.values[layer].transpose(1, 2),
                k=keys[None],
                v=values[None],
                cache_seqlens=lengths,
                causal=self._causal,
                num_splits=SPLITS,
            )
            return mixed[0].flatten(1)

        return attend


FixedAttention = MaskedAttention | FlashAttention


def flash_attention(device: torch.device, dtype: torch.dtype) -> tuple[Callable[..., Tensor] | None, str | None]:
    """(`flash_attn_with_kvcache` where it can be used: on a GPU, in half precision, and installed so that it imports;
    what is wrong with an installation that does not)."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None, None
    try:
        return import_module("flash_attn").flash_attn_with_kvcache, None
    except ModuleNotFoundError as error:
        return None, None if error.name == "flash_attn" else f"flash-attn does not load ({error})"
    except (ImportError, OSError, AttributeError) as error:  # its extension was built for another torch
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return None, f"flash-attn does not load, it was built for another torch ({first[:200]}): install it again"
