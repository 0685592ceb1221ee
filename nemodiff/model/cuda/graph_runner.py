"""GraphRunner: block-shaped forwards whose shapes never change, so that one CUDA graph serves every cache length.

The cache's length is a tensor on the device: positions, masks and the place that keys are written to follow from it
there, and nothing waits for the host. On a CPU the same forwards run without being captured, which is how they are
tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from nemodiff.model.cache import KVCache
from nemodiff.model.cuda.capture import Graph
from nemodiff.model.cuda.fixed_attention import FixedAttention, FlashAttention, MaskedAttention
from nemodiff.model.cuda.fixed_forward import FixedForward, Kind
from nemodiff.model.cuda.row_shapes import BLOCK_ROWS, RowShapes
from nemodiff.model.layout import Layout
from nemodiff.model.output import Output
from nemodiff.model.runner import ForwardShape, Logits
from nemodiff.model.transformer import Transformer

#: The smallest capacity; longer ones double, so that few graphs are captured.
CAPACITY = 1024
#: Rows that forwards over a layout are filled up to; beyond the last, whole eights.
BUDGETS = (8, 16, 24, 32, 48, 64)


def budget(rows: int) -> int:
    """The rows that a forward over a layout of `rows` really runs."""
    return next((fixed for fixed in BUDGETS if rows <= fixed), -(-rows // 8) * 8)


class GraphRunner(Logits):
    """Runs a Transformer's block-shaped forwards in fixed shapes over caches of the lanes' own; a `Runner`.

    flash: flash-attn's function, None for torch's SDPA. exact: whether a token's logits came out the same, to the last
    bit, alone and in a block: tried once, here, in the way that they will be run. Prompts run in eager torch.
    """

    def __init__(self, model: Transformer, flash: Callable[..., Tensor] | None = None) -> None:
        self.model, self._flash = model, flash
        self.config, self.embed = model.config, model.embed
        self.vision, self.mask_embedding = model.vision, model.mask_embedding
        self._caches: dict[str, GraphCache] = {}
        self._pool = torch.cuda.graph_pool_handle() if model.device.type == "cuda" else None
        self.exact = model.exact and self._find_exact_rows()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def dtype_name(self) -> str:
        return self.model.dtype_name

    @property
    def nbytes(self) -> int:
        return self.model.nbytes

    @property
    def lora_bytes(self) -> int:
        return self.model.lora_bytes

    @property
    def attention(self) -> str:
        """What computes block-shaped forwards, in words."""
        kernel = "flash-attn" if self._flash else "SDPA"
        return f"{kernel}, fixed shapes" + ("" if self._pool is None else ", CUDA graphs")

    @property
    def exact_trees(self) -> bool:
        """A tree's rows do not lie in the cache in the order of their path, and are summed in the order they lie."""
        return False

    def padded(self, layout_rows: int) -> int:
        return budget(layout_rows)

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows]."""
        return self.model.embeddings(tokens)

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for `capacity` positions, for a prompt."""
        return self.model.new_cache(capacity)

    def lane_cache(self, cache: KVCache, lane: str) -> GraphCache:
        """The lane's cache, with what `cache` keeps; the lane's run before this one must be over.

        Its buffers, and so its graphs, stay as long as they are large enough.
        """
        own, needed = self._caches.get(lane), cache.capacity + BLOCK_ROWS
        if own is None or own.capacity < needed:
            capacity = CAPACITY
            while capacity < needed:
                capacity *= 2
            self.forget(lane)
            with torch.inference_mode(False):  # what is made inside it could be changed inside it alone
                own = self._caches[lane] = GraphCache(self.model, capacity, self._flash, self._pool)
        for layer in range(self.config.num_layers):
            keys, values = cache.flat(layer, cache.length)
            own.keys[layer, 0, :, : cache.length] = keys
            own.values[layer, 0, :, : cache.length] = values
        own.length = cache.length
        return own

    def forget(self, lane: str) -> None:
        """Give back a lane's buffers and graphs."""
        if own := self._caches.pop(lane, None):
            own.release()

    @torch.inference_mode()
    def prepare(self, cache: GraphCache, shapes: Iterable[ForwardShape]) -> None:
        """Make, and on a GPU capture, the forwards of these shapes."""
        for shape in shapes:
            cache.forward(kind_of(shape.rows, shape.causal, shape.adapter, shape.layout))

    @torch.inference_mode()
    def forward(
        self,
        inputs: Tensor,
        cache: KVCache,
        *,
        causal: bool = True,
        layout: Layout | None = None,
        adapter: bool = False,
        rows: slice = slice(None),
        few: int = 0,
    ) -> Output:
        """See `Runner`. What comes back of a block-shaped forward over a lane's cache holds until the lane's next
        forward."""
        block = len(inputs) <= BLOCK_ROWS or layout is not None
        if not isinstance(cache, GraphCache) or inputs.is_floating_point() or not block:
            return self.model.forward(inputs, cache, causal=causal, layout=layout, adapter=adapter, rows=rows, few=few)
        count = len(inputs)
        forward = cache.run(inputs, kind_of(count, causal, adapter, layout), layout)
        first, end, _ = rows.indices(count)
        return forward.output(slice(first, end), few)

    def _find_exact_rows(self) -> bool:
        """Whether rows agree as they are run: with the counts that round alike in eager torch, or else with products of
        the reference count alone."""
        if self._rows_agree():
            return True
        found, self.model.rows = self.model.rows, RowShapes(())
        self.forget("check")
        if self._rows_agree():
            return True
        self.model.rows = found
        self.forget("check")
        return False

    @torch.inference_mode()
    def _rows_agree(self) -> bool:
        """Whether a block of rows has the logits that each of them has alone."""
        rows = min(self.config.block_size, BLOCK_ROWS)
        cache = self.lane_cache(self.new_cache(rows), "check")
        tokens = torch.arange(rows, device=self.device) % self.config.vocab_size
        block = self.forward(tokens, cache).logits
        for row in range(rows):
            alone = self.forward(tokens[row : row + 1], cache).logits
            if not torch.equal(alone[0], block[row]):
                return False
            cache.keep(1)
        return True


def kind_of(rows: int, causal: bool, adapter: bool, layout: Layout | None) -> Kind:
    """What is fixed in such a forward."""
    if layout is not None:
        return Kind(budget(rows), "layout", adapter)
    return Kind(rows, "causal" if causal else "all", adapter)


class GraphCache(KVCache):
    """A KVCache of one chunk with the forwards that run over it."""

    def __init__(self, model: Transformer, capacity: int, flash: Callable[..., Tensor] | None, pool: Any) -> None:
        super().__init__(model.config, capacity, model.device, model.cache_dtype, whole=True)
        self._model, self._flash, self._pool = model, flash, pool
        self._forwards: dict[Kind, tuple[FixedForward, Callable[[], None]]] = {}
        model.rotary(self.capacity)

    def forward(self, kind: Kind) -> tuple[FixedForward, Callable[[], None]]:
        """(the forward, what runs it: on a GPU its captured graph), made at the first call."""
        if kind not in self._forwards:
            attention: FixedAttention = MaskedAttention(self._model.config, self, kind.rows)
            if self._flash and kind.sees != "layout":
                attention = FlashAttention(self, kind.sees == "causal", self._flash)
            with torch.inference_mode(False):
                made = FixedForward(self._model, self, kind, attention)
            # Capturing runs it: where the sequence ends, so that nothing that is kept is overwritten.
            made.inputs.length.fill_(min(self.length, self.capacity - kind.rows))
            run = made if self._pool is None else Graph(made, self._model.device, self._pool)
            self._forwards[kind] = made, run
        return self._forwards[kind]

    def run(self, tokens: Tensor, kind: Kind, layout: Layout | None) -> FixedForward:
        """Run `tokens` after the kept length; the forward then holds what it said."""
        if self.length + kind.rows > self.capacity:
            raise ValueError(f"{kind.rows} rows after {self.length} do not fit a cache of {self.capacity}")
        forward, run = self.forward(kind)
        forward.inputs.fill(tokens, self.length, layout)
        run()
        return forward

    def release(self) -> None:
        """Drop the forwards: they and this cache hold each other."""
        self._forwards.clear()
