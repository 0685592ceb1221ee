"""The transformer: one lean decoder for Llama- and Ministral3-shaped weights, driven by write-then-keep caching."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.model.attention import FixedShape, Rotary, attend, attend_fixed
from nemodiff.model.cache import KVCache
from nemodiff.model.config import ModelConfig
from nemodiff.model.layout import Layout
from nemodiff.model.rows import BLOCK_ROWS, RowShapes

if TYPE_CHECKING:
    from nemodiff.model.static import StaticForwards


class Matrix(nn.Module):
    """A weight [out, in], uninitialised: checkpoints fill it, nn.Linear's initialisation would only cost time."""

    def __init__(self, inputs: int, outputs: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device=device, dtype=dtype), requires_grad=False)


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


class Transformer(nn.Module):
    """Decoder-only transformer over one sequence. Weights are frozen; training adds its own low-rank factors.

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
        self.layers = nn.ModuleList(Layer(config, device, dtype) for _ in range(config.num_layers))
        self.norm = nn.Parameter(torch.ones(config.hidden_size, device=device, dtype=dtype))
        self.head = (
            self.embed if config.tie_word_embeddings else Matrix(config.hidden_size, config.vocab_size, device, dtype)
        )
        #: Input embedding of the mask token [hidden] where a checkpoint trained its own; else the table's row.
        self.mask_embedding: Tensor | None = None
        self.exact = True
        #: How block-shaped forwards pad their rows to be exact on this machine; None: natural shapes.
        self.rows: RowShapes | None = None
        self._rotary: Rotary | None = None
        #: Caches and forwards of fixed shapes for the lanes, where they were asked for.
        self.static: StaticForwards | None = None
        self.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.norm.device

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.dtype

    def new_cache(self, capacity: int) -> KVCache:
        """An empty cache for `capacity` positions; fp32 on a CPU, where half-precision attention gains nothing."""
        cache = KVCache(self.config, capacity, self.device, torch.float32 if self.device.type == "cpu" else self.dtype)
        self.rotary(cache.capacity)
        return cache

    def rotary(self, capacity: int) -> Rotary:
        """The rotary tables, grown when a longer sequence comes."""
        if self._rotary is None or self._rotary.cos.shape[0] < capacity:
            self._rotary = Rotary(self.config.rope, self.config.head_dim, capacity, self.device, self.dtype)
        return self._rotary

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows]."""
        x = F.embedding(tokens, self.embed.weight)
        if self.mask_embedding is not None:
            x = torch.where((tokens == self.config.mask_token_id)[:, None], self.mask_embedding, x)
        return x

    @torch.inference_mode()
    def forward(
        self,
        inputs: Tensor,
        cache: KVCache,
        *,
        causal: bool,
        adapter: bool = False,
        last: bool = False,
        layout: Layout | None = None,
    ) -> Tensor:
        """Run `inputs` after the cache's kept length and write, not keep, their keys and values.

        inputs: token ids [rows] (int64) or embeddings [rows, hidden]. causal: each row sees what is before it; else
        all rows see each other. adapter: the draft LoRA is on. last: logits of the last row only. layout: positions
        and visibility of the rows in place of `causal`; such a forward is block-shaped whatever its rows, and its
        first `layout.plain` rows run without the adapter.
        Returns logits [rows or 1, vocab] in the model's dtype.
        """
        if (
            cache.static
            and layout is None
            and not inputs.is_floating_point()
            and len(inputs) <= BLOCK_ROWS
            and not last
        ):
            return cache.run(inputs, causal=causal, adapter=adapter)
        x = inputs if inputs.is_floating_point() else self.embeddings(inputs)
        rows, start, config = x.shape[0], cache.length, self.config
        block = self.exact and (rows <= BLOCK_ROWS or layout is not None) and not cache.static
        shapes = self.rows if block else None
        fixed = FixedShape(config, cache, rows, causal, layout) if block else None
        rotary = self.rotary(cache.capacity)
        rotation = rotary.at(start, rows) if layout is None else rotary.at_each(start + layout.positions)
        rotated = config.num_heads + config.num_kv_heads
        padding = shapes.padded(rows) - rows if shapes else 0
        if padding:
            x = F.pad(x, (0, 0, 0, padding))
        for index, layer in enumerate(self.layers):
            h = F.rms_norm(x, (config.hidden_size,), layer.input_norm, config.rms_norm_eps)
            qkv = _linear(h, layer.qkv.weight, shapes)[:rows].view(rows, -1, config.head_dim)
            qk = rotation.rotate(qkv[:, :rotated])
            cache.write(index, qk[:, config.num_heads :], qkv[:, rotated:])
            queries = rotation.scale_queries(qk[:, : config.num_heads])
            mixed = (
                attend_fixed(queries, cache, index, fixed)
                if fixed
                else attend(queries, cache, index, start, causal, layout)
            )
            if padding:
                mixed = F.pad(mixed, (0, 0, 0, padding))
            out = _linear(mixed, layer.o.weight, shapes)
            if adapter and layer.draft_lora is not None:
                a, b = layer.draft_lora
                plain = layout.plain if layout else 0
                out[plain:] += F.linear(F.linear(mixed[plain:], a), b)
            x = x + out
            h = F.rms_norm(x, (config.hidden_size,), layer.post_norm, config.rms_norm_eps)
            gate, up = _linear(h, layer.gate_up.weight, shapes).chunk(2, dim=-1)
            x = x + _linear(F.silu(gate) * up, layer.down.weight, shapes)
        if last and not block:
            x = x[-1:]
        x = F.rms_norm(x, (config.hidden_size,), self.norm, config.rms_norm_eps)
        logits = _linear(x, self.head.weight, shapes)
        return logits[rows - 1 : rows] if last and block else logits[:rows]


def _linear(x: Tensor, weight: Tensor, shapes: RowShapes | None) -> Tensor:
    return F.linear(x, weight) if shapes is None else shapes.linear(x, weight)
