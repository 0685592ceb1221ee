"""Static forwards: block-shaped forwards whose shapes never change, so that one CUDA graph serves every cache length.

The cache's length is a tensor on the device: positions, masks and the place that keys are written to follow from it
there, and nothing waits for the host. Off unless asked for (`nemodiff.load(graphs=True)`). On a CPU the same forwards
run without a graph, which is how they are tested; capturing and replaying them has not been run: no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.attention import ROWS
from nemodiff.model.cache import KVCache
from nemodiff.model.cuda.row_shapes import BLOCK_ROWS
from nemodiff.model.transformer import Attend, Transformer

#: The smallest capacity; longer ones double, so that few graphs are captured.
CAPACITY = 1024
#: Parts of the keys that flash-attn sums apart: the same for every number of rows, or rows would round differently.
SPLITS = 16


class StaticForwards:
    """The static caches of a model, one a lane, with the forwards that run over them.

    attention: "flash-attn" where it imports and the model is on a GPU in half precision, else "SDPA". exact: whether a
    token's logits came out the same, to the last bit, alone and in a block; tried once here.
    """

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._caches: dict[str, StaticCache] = {}
        self._pool = torch.cuda.graph_pool_handle() if model.device.type == "cuda" else None
        self._flash = flash_attention(model.device, model.dtype)
        self.attention = "flash-attn" if self._flash else "SDPA"
        self.exact = self._rows_agree()

    def lane_cache(self, lane: str, prefill: KVCache) -> StaticCache:
        """The lane's static cache with what `prefill` keeps; the lane's run before this one must be over.

        Its buffers, and so its graphs, stay as long as they are large enough.
        """
        cache = self._caches.get(lane)
        if cache is None or cache.capacity < prefill.capacity:
            capacity = CAPACITY
            while capacity < prefill.capacity:
                capacity *= 2
            cache = self._caches[lane] = self._new_cache(capacity)
        for layer in range(self._model.config.num_layers):
            keys, values = prefill.flat(layer, prefill.length)
            cache.keys[layer, 0, :, : prefill.length] = keys
            cache.values[layer, 0, :, : prefill.length] = values
        cache.length = prefill.length
        return cache

    def _new_cache(self, capacity: int) -> StaticCache:
        return StaticCache(self._model, capacity, self._flash, self._pool)

    @torch.inference_mode()
    def _rows_agree(self) -> bool:
        """Whether a block of rows has the logits that each of them has alone."""
        rows = min(self._model.config.block_size, BLOCK_ROWS)
        cache = self._new_cache(CAPACITY)
        tokens = torch.arange(rows, device=self._model.device) % self._model.config.vocab_size
        block = cache.forward(rows, causal=True)(tokens, cache.at(0))
        alone = [cache.forward(1, causal=True)(tokens[row : row + 1], cache.at(row)) for row in range(rows)]
        return bool(torch.equal(block, torch.cat(alone)))


class StaticCache(KVCache):
    """A KVCache of one chunk whose block-shaped forwards are static, captured as CUDA graphs on a GPU.

    `Transformer.forward` hands block-shaped forwards to `run`; longer ones use the cache like any other.
    """

    static = True

    def __init__(self, model: Transformer, capacity: int, flash: Callable | None, pool: Any) -> None:
        super().__init__(model.config, capacity, model.device, model.cache_dtype, whole=True)
        self._model, self._flash, self._pool = model, flash, pool
        self._runs: dict[tuple[int, bool, bool], Callable[[Tensor, int], Tensor]] = {}
        model.rotary(self.capacity)

    def at(self, length: int) -> Tensor:
        """A kept length as the forwards take it: int64 [1] on the device."""
        return torch.full((1,), length, device=self.keys.device)

    def forward(self, rows: int, *, causal: bool, adapter: bool = False) -> StaticForward:
        """A new forward of this shape over these buffers."""
        attention = FlashAttention(self, causal, self._flash) if self._flash else MaskedAttention(self, rows, causal)
        return StaticForward(self._model, self, rows, adapter, attention)

    def prepare(self, rows: int, *, causal: bool, adapter: bool = False) -> None:
        """Make, and on a GPU capture, a forward of this shape, so that no clock counts it. `rows`: 1 to BLOCK_ROWS."""
        key = (rows, causal, adapter)
        if key in self._runs or rows > BLOCK_ROWS:
            return
        forward = self.forward(rows, causal=causal, adapter=adapter)
        if self._pool is None:
            self._runs[key] = lambda tokens, length: forward(tokens, self.at(length))
        else:
            self._runs[key] = Graph(forward, rows, self.at(self.length), self._pool)

    def run(self, tokens: Tensor, *, causal: bool, adapter: bool = False) -> Tensor:
        """Logits [rows, vocab] of token ids [rows] after the kept length; the next run of this shape overwrites it."""
        self.prepare(len(tokens), causal=causal, adapter=adapter)
        return self._runs[len(tokens), causal, adapter](tokens, self.length)


class StaticForward:
    """One shape of forward over one cache: rows, causal and adapter are fixed; tokens and length are tensors.

    Calls nothing that reads a tensor on the host, and makes no tensor from host values.
    """

    def __init__(
        self, model: Transformer, cache: StaticCache, rows: int, adapter: bool, attention: StaticAttention
    ) -> None:
        self._model, self._cache, self._adapter, self._attention = model, cache, adapter, attention
        self._offsets = torch.arange(rows, device=model.device)
        self._rotary = model.rotary(cache.capacity)
        self._shapes = model.rows if model.exact else None

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, length: Tensor) -> Tensor:
        """tokens: int64 [rows]. length: int64 [1], kept positions. Returns logits [rows, vocab]."""
        model, config, rows = self._model, self._model.config, len(self._offsets)
        positions = length + self._offsets
        rotation, attend = self._rotary.at_each(positions), self._attention.at(length, positions)
        x = model.run_layers(model.embeddings(tokens), rotation, attend, self._shapes, adapter=self._adapter)
        return model.head.normed(x, model.norm, config.rms_norm_eps, self._shapes)[:rows]


class MaskedAttention:
    """torch's SDPA over the whole cache, with a mask that follows from the length on the device.

    Always products of group * ROWS queries (heads of a group share their keys, so they become rows) by all keys:
    however many rows there are, a row meets the same shape.
    """

    def __init__(self, cache: StaticCache, rows: int, causal: bool) -> None:
        config = cache._model.config
        self._cache, self._rows, self._causal = cache, rows, causal
        self._blocks, self._kv_heads = -(-rows // ROWS), config.num_kv_heads
        self._group, self._head_dim = config.num_heads // config.num_kv_heads, config.head_dim
        self._keys = torch.arange(cache.capacity, device=cache.keys.device)
        self._offsets = torch.arange(self._blocks * ROWS, device=cache.keys.device)

    def at(self, length: Tensor, positions: Tensor) -> Attend:
        """Attention of one forward: `length` int64 [1], `positions` int64 [rows]."""
        last = length + self._rows - 1
        if self._causal:
            last = torch.minimum(last, length + self._offsets)
        hidden = self._keys > last.expand(self._blocks * ROWS)[:, None]
        mask = torch.zeros(hidden.shape, device=hidden.device, dtype=self._cache.keys.dtype)
        mask = mask.masked_fill(hidden, -torch.inf).view(self._blocks, 1, ROWS, -1)
        mask = mask.repeat(1, 1, self._group, 1)  # row g * ROWS + r is head g's row r

        def attend(queries: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            cache = self._cache
            cache.keys[layer, 0].index_copy_(1, positions, keys.transpose(0, 1).to(cache.keys.dtype))
            cache.values[layer, 0].index_copy_(1, positions, values.transpose(0, 1).to(cache.keys.dtype))
            q = F.pad(queries.to(cache.keys.dtype), (0, 0, 0, 0, 0, self._blocks * ROWS - self._rows))
            q = q.view(self._blocks, ROWS, self._kv_heads, self._group, self._head_dim).permute(0, 2, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(
                q.reshape(self._blocks, self._kv_heads, self._group * ROWS, self._head_dim),
                cache.keys[layer].expand(self._blocks, -1, -1, -1),
                cache.values[layer].expand(self._blocks, -1, -1, -1),
                attn_mask=mask,
            )
            mixed = mixed.view(self._blocks, self._kv_heads, self._group, ROWS, self._head_dim)
            mixed = mixed.permute(0, 3, 1, 2, 4).reshape(self._blocks * ROWS, -1)
            return mixed[: self._rows].to(queries.dtype)

        return attend


class FlashAttention:
    """flash-attn's `flash_attn_with_kvcache`, which also writes the new keys and values.

    As its documentation has them: q [1, rows, heads, head_dim], k and v [1, rows, kv_heads, head_dim], the caches
    [1, capacity, kv_heads, head_dim] with a contiguous last dimension only (here a view of [1, kv_heads, capacity,
    head_dim]), cache_seqlens int32 [1] without the new rows, which are written after it in place. The causal mask is
    aligned to the bottom right: the last row sees all.
    """

    def __init__(self, cache: StaticCache, causal: bool, function: Callable) -> None:
        self._cache, self._causal, self._function = cache, causal, function

    def at(self, length: Tensor, positions: Tensor) -> Attend:
        """Attention of one forward: `length` int64 [1], `positions` int64 [rows]."""
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


StaticAttention = MaskedAttention | FlashAttention


class Graph:
    """A static forward captured as a CUDA graph: its inputs are copied into place, then it is replayed.

    Not run by this project: there was no GPU.
    """

    def __init__(self, forward: StaticForward, rows: int, length: Tensor, pool: Any) -> None:
        device = length.device
        self._tokens, self._length = torch.zeros(rows, dtype=torch.long, device=device), length
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # libraries set themselves up in the first calls, which a graph must not hold
            for _ in range(3):
                forward(self._tokens, self._length)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # What another thread does with the device meanwhile is none of this graph's.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._logits = forward(self._tokens, self._length)

    def __call__(self, tokens: Tensor, length: int) -> Tensor:
        self._tokens.copy_(tokens)
        self._length.fill_(length)
        self._graph.replay()
        return self._logits


def flash_attention(device: torch.device, dtype: torch.dtype) -> Callable | None:
    """`flash_attn_with_kvcache` where it can be used: on a GPU, in half precision, and installed so that it imports."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    try:
        return import_module("flash_attn").flash_attn_with_kvcache
    except (ImportError, OSError, AttributeError):  # an extension built for another torch fails while it is loaded
        return None
