"""The transformer: one lean decoder for Llama- and Ministral3-shaped weights, driven by write-then-keep caching."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.model.attention import FixedShape, Rotary, Rotation, attend, attend_fixed
from nemodiff.model.cache import CHUNK, KVCache
from nemodiff.model.config import ModelConfig
from nemodiff.model.cuda.row_shapes import BLOCK_ROWS, RowShapes
from nemodiff.model.layout import Layout
from nemodiff.model.output import Output
from nemodiff.model.runner import ForwardShape, Logits

if TYPE_CHECKING:
    from nemodiff.model.vision import Vision

#: Writes keys and values [rows, kv_heads, head_dim] of a layer, then attends with queries [rows, heads, head_dim]:
#: (queries, keys, values, layer) → [rows, heads, head_dim], of any view.
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class Matrix(nn.Module):
    """A weight [out, in], uninitialised: checkpoints fill it, nn.Linear's initialisation would only cost time."""

    def __init__(self, inputs: int, outputs: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device=device, dtype=dtype), requires_grad=False)

    def normed(self, x: Tensor, norm: Tensor, eps: float, shapes: RowShapes | None) -> Tensor:
        """The product with rms_norm(x) * norm. x: [rows, in]. Returns [rows, out]."""
        return self(F.rms_norm(x, (self.in_features,), norm, eps), shapes)

    def added(self, x: Tensor, rows: Tensor, shapes: RowShapes | None) -> Tensor:
        """x [rows, out] plus the product with rows [rows, in]."""
        return x + self(rows, shapes)

    def forward(self, x: Tensor, shapes: RowShapes | None) -> Tensor:
        return F.linear(x, self.weight) if shapes is None else shapes.linear(x, self.weight)


class Layer(nn.Module):
    """One decoder layer with fused projections. Weights are [out, in], as in nn.Linear.

    qkv: queries, then keys, then values. gate_up: gate, then up. draft_lora: (A [rank, in], B [out, rank], already
    scaled) on `o`, used by draft forwards only.
    """

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> Matrix:
            return Matrix(inputs, outputs, device, dtype)

        hidden, attention = config.hidden_size, config.num_heads * config.head_dim
        self.qkv = linear(hidden, config.qkv_size)
        self.o = linear(attention, hidden)
        self.gate_up = linear(hidden, 2 * config.intermediate_size)
        self.down = linear(config.intermediate_size, hidden)
        self.input_norm = nn.Parameter(torch.ones(hidden, device=device, dtype=dtype))
        self.post_norm = nn.Parameter(torch.ones(hidden, device=device, dtype=dtype))
        self.draft_lora: tuple[Tensor, Tensor] | None = None


class Transformer(Logits, nn.Module):
    """Decoder-only transformer over one sequence, run in eager torch: a `Runner`. Weights are frozen; training adds its
    own low-rank factors.

    exact: block-shaped forwards run in fixed shapes, so that a token's logits are the same to the last bit whether it
    is decoded alone or verified in a block; without it, natural shapes.
    """

    def __init__(
        self, config: ModelConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        device = torch.device(device)
        self.config = config
        self.embed = Matrix(config.hidden_size, config.vocab_size, device, dtype)
        layers = nn.ModuleList(Layer(config, device, dtype) for _ in range(config.num_layers))
        self.layers = cast("list[Layer]", layers)  # what a ModuleList is to those who index it and go through it
        self.norm = nn.Parameter(torch.ones(config.hidden_size, device=device, dtype=dtype))
        self.head = (
            self.embed if config.tie_word_embeddings else Matrix(config.hidden_size, config.vocab_size, device, dtype)
        )
        #: Input embedding of the mask token [hidden] where a checkpoint trained its own; else the table's row.
        self.mask_embedding: Tensor | None = None
        self.exact = True
        #: How block-shaped forwards pad their rows to be exact on this machine; None: natural shapes.
        self.rows: RowShapes | None = None
        #: Tower and projector of a checkpoint that sees.
        self.vision: Vision | None = None
        self._rotary: Rotary | None = None
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.norm.device

    @property
    def dtype(self) -> torch.dtype:
        """What activations are in."""
        return self.norm.dtype

    @property
    def cache_dtype(self) -> torch.dtype:
        """What keys and values are kept in: fp32 on a CPU, where half-precision attention gains nothing."""
        return torch.float32 if self.device.type == "cpu" else self.dtype

    @property
    def dtype_name(self) -> str:
        """What the linears run in: float32 or bfloat16."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""
        return sum(parameter.nbytes for parameter in self.parameters()) + self.lora_bytes

    @property
    def lora_bytes(self) -> int:
        """Memory of the draft LoRA, in bytes."""
        return sum(factor.nbytes for layer in self.layers for factor in layer.draft_lora or ())

    @property
    def attention(self) -> str:
        """What computes block-shaped forwards, in words."""
        return "fixed-shape products" if self.exact else "SDPA"

    @property
    def exact_trees(self) -> bool:
        return self.exact

    def padded(self, layout_rows: int) -> int:
        return layout_rows

    def lane_cache(self, cache: KVCache, lane: str) -> KVCache:
        """A copy of a prompt's cache."""
        return cache.copy()

    def prepare(self, cache: KVCache, shapes: Iterable[ForwardShape]) -> None:
        """Nothing is made ahead."""

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for `capacity` positions."""
        cache = KVCache(self.config, capacity, self.device, self.cache_dtype)
        self.rotary(cache.capacity)
        return cache

    def rotary(self, capacity: int) -> Rotary:
        """The rotary tables, grown when a longer sequence comes."""
        known = self._rotary
        if known is None or known.cos.shape[0] < capacity or known.cos.dtype != self.dtype:
            known = Rotary(self.config.rope, self.config.head_dim, capacity, self.device, self.dtype)
            self._rotary = known
        return known

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows]."""
        x = F.embedding(tokens, self.embed.weight).to(self.dtype)
        if self.mask_embedding is not None:
            x = torch.where(tokens.eq(self.config.mask)[:, None], self.mask_embedding, x)
        return x

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
        """Run `inputs` after the cache's kept length and write, not keep, their keys and values (see `Runner`).

        A forward with a layout is block-shaped whatever its rows. Returns logits in the model's dtype, and no tokens
        read off them.
        """
        x = inputs if inputs.is_floating_point() else self.embeddings(inputs)
        count, start, config = x.shape[0], cache.length, self.config
        block = self.exact and (count <= BLOCK_ROWS or layout is not None) and cache.chunk == CHUNK
        shapes = self.rows if block else None
        attention = self._attention(cache, count, causal, block, layout)
        rotary = self.rotary(cache.capacity)
        rotation = rotary.at(start, count) if layout is None else rotary.at_each(start + layout.positions)

        def write_and_attend(queries: Tensor, keys: Tensor, values: Tensor, layer: int) -> Tensor:
            cache.write(layer, keys, values)
            return attention(queries, layer)

        plain = layout.plain if layout else 0
        x = self.run_layers(x, rotation, write_and_attend, shapes, adapter=adapter, plain=plain)
        if not block:  # a prompt's other rows need no head
            return Output(self.head.normed(x[rows], self.norm, config.rms_norm_eps, shapes))
        return Output(self.head.normed(x, self.norm, config.rms_norm_eps, shapes)[:count][rows])

    def run_layers(
        self,
        x: Tensor,
        rotation: Rotation,
        attend: Attend,
        shapes: RowShapes | None,
        *,
        adapter: bool,
        plain: int | Tensor = 0,
    ) -> Tensor:
        """Hidden states [padded rows, hidden] after the last layer, not normed; x: input embeddings [rows, hidden].

        shapes: what the rows are padded to. adapter: the draft LoRA is on, but for the first `plain` rows; as a tensor
        [padded rows, 1] it says for each row whether it goes without.
        """
        rows, config = x.shape[0], self.config
        rotated = config.num_heads + config.num_kv_heads
        padding = shapes.padded(rows) - rows if shapes else 0
        if padding:
            x = F.pad(x, (0, 0, 0, padding))
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv.normed(x, layer.input_norm, config.rms_norm_eps, shapes)
            qkv = qkv[:rows].view(rows, -1, config.head_dim)
            qk = rotation.rotate(qkv[:, :rotated])
            queries = rotation.scale_queries(qk[:, : config.num_heads])
            mixed = attend(queries, qk[:, config.num_heads :], qkv[:, rotated:], index)
            mixed = mixed.reshape(rows, -1).to(x.dtype)
            if padding:
                mixed = F.pad(mixed, (0, 0, 0, padding))
            x = layer.o.added(x, mixed, shapes)
            if adapter and layer.draft_lora is not None:
                a, b = layer.draft_lora
                if isinstance(plain, Tensor):
                    x += F.linear(F.linear(mixed, a), b).masked_fill(plain, 0)
                else:
                    x[plain:] += F.linear(F.linear(mixed[plain:], a), b)
            gate, up = layer.gate_up.normed(x, layer.post_norm, config.rms_norm_eps, shapes).chunk(2, dim=-1)
            x = layer.down.added(x, F.silu(gate).mul_(up), shapes)
        return x

    def _attention(
        self, cache: KVCache, rows: int, causal: bool, block: bool, layout: Layout | None
    ) -> Callable[[Tensor, int], Tensor]:
        """Attention of one forward: (rotated queries [rows, heads, head_dim], layer) → [rows, heads * head_dim]."""
        if not block:
            return lambda queries, layer: attend(queries, cache, layer, cache.length, causal, layout)
        shape = FixedShape(self.config, cache, rows, causal, layout)
        return lambda queries, layer: attend_fixed(queries, cache, layer, shape)
