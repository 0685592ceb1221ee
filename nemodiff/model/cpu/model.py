"""CpuModel: an int8 model whose forwards are the compiled kernels."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.attention import Rotary
from nemodiff.model.cpu.kv_cache import CpuCache
from nemodiff.model.cpu.pack import PackedMatrix, alternate, balance, head_places, padded, padded_half, spread
from nemodiff.model.cpu.plan import ALL, CAUSAL, COUNTER_BYTES, HEAD_CHUNK, LISTED, ROW_CHUNK, LayerPlan, Plan
from nemodiff.model.cpu.team import MOST_THREADS, team_of, thread_count
from nemodiff.model.layout import Layout
from nemodiff.model.output import Best, Output
from nemodiff.model.runner import ForwardShape, Logits

if TYPE_CHECKING:
    from nemodiff.model.cpu.build import Kernels
    from nemodiff.model.transformer import Matrix, Transformer
    from nemodiff.model.vision import Vision

#: Rows of one run of the kernels: longer prompts go in pieces, so that buffers stay small. No row's bits change by it.
PIECE = 256
#: Steps of a layer that threads count their work in, and those around the layers.
_STEPS_A_LAYER, _STEPS_BESIDE = 12, 6


class CpuModel(Logits):
    """A decoder with int8 weights, 14-bit activations and float32 in between, on the CPU.

    It takes the weights out of `model` (float32 or bfloat16, on the CPU) layer by layer; what stays of that one is its
    table of embeddings. A row's logits have the same bits alone and in any forward, with any number of threads.
    """

    exact: bool = True

    def __init__(self, model: Transformer, kernels: Kernels) -> None:
        config = self.config = model.config
        self.device, self.dtype, self.dtype_name = torch.device("cpu"), torch.float32, "int8"
        self.embed: Matrix = model.embed
        self.vision: Vision | None = model.vision
        self.mask_embedding: Tensor | None = None if model.mask_embedding is None else model.mask_embedding.float()
        self.kernels = kernels
        self._team, self._lock = team_of(kernels), threading.Lock()
        self._hidden, self._half = padded(config.hidden_size), padded_half(config.head_dim)
        self._attention = padded(config.num_heads * 2 * self._half)
        self._inner = padded(config.intermediate_size)
        self._rank = self._lora_bytes = 0
        self._held: list[Tensor] = []
        self._matrices: list[PackedMatrix] = []
        self._tables: dict[str, Tensor] = {}
        self._rows = self._logit_rows = 0
        self._layers = (LayerPlan * config.num_layers)()
        for index, layer in enumerate(model.layers):
            self._pack_layer(self._layers[index], layer)
        self._plan = self._plan_of(model)
        model.layers, model.head = torch.nn.ModuleList(), None

    @property
    def lora_bytes(self) -> int:
        """Memory of the draft LoRA, in bytes."""
        return self._lora_bytes

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""
        return sum(part.nbytes for part in (*self._held, *self._matrices)) + self.embed.weight.nbytes

    def new_cache(self, capacity: int) -> CpuCache:
        """An empty cache for `capacity` positions."""
        return CpuCache(self.config, capacity)

    @property
    def attention(self) -> str:
        """What computes forwards, in words."""
        return f"kernels of our own, {self.kernels.tile.name}"

    @property
    def exact_trees(self) -> bool:
        return self.exact

    def padded(self, layout_rows: int) -> int:
        return layout_rows

    def lane_cache(self, cache: CpuCache, lane: str) -> CpuCache:
        """A copy of a prompt's cache."""
        return cache.copy()

    def prepare(self, cache: CpuCache, shapes: Iterable[ForwardShape]) -> None:
        """Nothing is made ahead."""

    def embeddings(self, tokens: Tensor) -> Tensor:
        """Input embeddings [rows, hidden] of token ids [rows], float32."""
        x = F.embedding(tokens, self.embed.weight).float()
        if self.mask_embedding is not None:
            x = torch.where((tokens == self.config.mask_token_id)[:, None], self.mask_embedding, x)
        return x

    @torch.inference_mode()
    def forward(
        self,
        inputs: Tensor,
        cache: CpuCache,
        *,
        causal: bool = True,
        layout: Layout | None = None,
        adapter: bool = False,
        rows: slice = slice(None),
        few: int = 1,
    ) -> Output:
        """Run `inputs` after the cache's kept length and write, not keep, their keys and values (see `Runner`)."""
        total = inputs.shape[0]
        first, end, _ = rows.indices(total)
        if cache.length + total > cache.capacity:
            raise ValueError(f"{total} rows after {cache.length} do not fit a cache of {cache.capacity}")
        vocabulary = self.config.vocab_size
        logits = torch.empty(end - first, self._plan.logits_row)
        best = Best.empty(end - first, max(1, min(few, vocabulary)))
        with self._lock:
            self._fit(cache.capacity)
            # A row of a causal prompt sees nothing behind it: it can go in pieces. Others need all their rows at once.
            piece = PIECE if causal and layout is None else total
            for start in range(0, total, piece):
                count = min(piece, total - start)
                head = (max(first - start, 0), min(end - start, count))
                self._launch(inputs, cache, start, count, causal, adapter, layout, head, logits, best, first)
        return Output(logits[:, :vocabulary], best)

    def profile(self, inputs: Tensor, cache: CpuCache, *, causal: bool, adapter: bool = False) -> dict[str, float]:
        """Where the time of one forward goes, in milliseconds: products, attention, rest (norms, quantising, reading
        the logits) and Python. Its arguments are `forward`'s; at most PIECE rows."""
        times = torch.zeros(len(self._tables["counters"]) + 1, dtype=torch.long)
        self._plan.times = times.data_ptr()
        try:
            begin = time.perf_counter()
            self.forward(inputs, cache, causal=causal, adapter=adapter)
            total = 1000 * (time.perf_counter() - begin)
        finally:
            self._plan.times = 0
        layer = ["rest", "products", "attention", "rest", "products"]
        if adapter and self._rank:
            layer += ["products", "rest", "products"]
        layer += ["rest", "products", "rest", "products"]
        names = ["rest", *layer * self.config.num_layers, "rest", "products", "rest"]
        spent = dict.fromkeys(("products", "attention", "rest"), 0.0)
        for name, count in zip(names, times[: len(names) + 1].diff().tolist(), strict=True):
            spent[name] += count
        # The clock's ticks are no milliseconds: kernels' time is what the team took.
        share = self._team.last_ms / max(sum(spent.values()), 1)
        return {name: count * share for name, count in spent.items()} | {"Python": total - self._team.last_ms}

    def _launch(
        self,
        inputs: Tensor,
        cache: CpuCache,
        start: int,
        rows: int,
        causal: bool,
        adapter: bool,
        layout: Layout | None,
        head: tuple[int, int],
        logits: Tensor,
        best: Best,
        first: int,
    ) -> None:
        """One run of the kernels over rows `start` to `start + rows` of the inputs, which stand after what is kept."""
        plan = self._plan
        self._fit_rows(rows, max(head[1] - head[0], 0))
        held = [inputs]
        if inputs.is_floating_point():
            buffer = self._tables["x"][: rows * self._hidden].view(rows, self._hidden)
            buffer[:, : self.config.hidden_size] = inputs[start : start + rows]
            buffer[:, self.config.hidden_size :] = 0
            plan.tokens = 0
        else:
            held.append(tokens := inputs[start : start + rows].contiguous())
            plan.tokens = tokens.data_ptr()
        kept = cache.length + start
        if layout is None:
            plan.positions = self._tables["positions"].data_ptr() + 8 * kept
            plan.sees = CAUSAL if causal else ALL
            plan.plain = 0
            plan.banned_first = rows if causal else 0
        else:
            held += (positions := layout.positions + kept, seen := layout.seen, counts := layout.seen_counts)
            plan.positions, plan.seen, plan.seen_counts = (part.data_ptr() for part in (positions, seen, counts))
            plan.sees = LISTED
            plan.plain = plan.banned_first = layout.plain
        plan.rows, plan.start, plan.adapter = rows, kept, adapter
        plan.capacity = cache.capacity
        plan.cache_keys, plan.cache_values = cache.keys.data_ptr(), cache.values.data_ptr()
        plan.head_first, plan.head_rows = head[0], max(head[1] - head[0], 0)
        done = max(start - first, 0)
        plan.logits = logits.data_ptr() + 4 * plan.logits_row * done
        plan.few = best.tokens.shape[1]
        plan.few_tokens = best.tokens.data_ptr() + 8 * plan.few * done
        plan.few_logits = best.logits.data_ptr() + 4 * plan.few * done
        plan.log_sums = best.log_sums.data_ptr() + 4 * done
        plan.threads = thread_count()
        self._team.run(ctypes.addressof(plan), plan.counters, self._tables["counters"].nbytes, plan.threads)
        del held  # until here the kernels read what these hold

    def _pack_layer(self, target: LayerPlan, layer: torch.nn.Module) -> None:
        """Pack a layer's weights, and take them out of it."""
        config = self.config
        heads, mixed = config.num_heads + 2 * config.num_kv_heads, head_places(config.num_heads, config.head_dim)
        places, size = head_places(heads, config.head_dim), heads * 2 * self._half
        norm, qkv = balance(layer.input_norm, layer.qkv.weight)
        target.input_norm, target.qkv = self._hold_norm(norm), self._pack(spread(qkv, places, size, 0))
        target.o = self._pack(self._spread_hidden(spread(layer.o.weight, mixed, self._attention, 1)))
        norm, gate_up = balance(layer.post_norm, layer.gate_up.weight)
        halves = (spread(part, None, self._inner, 0) for part in gate_up.chunk(2))
        target.post_norm = self._hold_norm(norm)
        target.gate_up = self._pack(alternate(*halves, self.kernels.tile.panel))
        target.down = self._pack(self._spread_hidden(layer.down.weight))
        if layer.draft_lora is not None:
            a, b = layer.draft_lora
            self._rank = padded(a.shape[0])
            target.lora_a = self._pack(spread(spread(a, mixed, self._attention, 1), None, self._rank, 0))
            target.lora_b = self._pack(self._spread_hidden(b))
            self._lora_bytes += sum(matrix.nbytes for matrix in self._matrices[-2:])
        layer.qkv = layer.o = layer.gate_up = layer.down = None  # the floats are not needed any more

    def _spread_hidden(self, weight: Tensor) -> Tensor:
        return spread(weight, None, self._hidden, 0)

    def _pack(self, weight: Tensor):
        self._matrices.append(PackedMatrix(weight, self.kernels.tile.panel, self.kernels.tile.together))
        return self._matrices[-1].plan

    def _hold(self, tensor: Tensor) -> int:
        self._held.append(tensor.contiguous())
        return self._held[-1].data_ptr()

    def _hold_norm(self, norm: Tensor) -> int:
        return self._hold(spread(norm.data.float(), None, self._hidden, 0))

    def _plan_of(self, model: Transformer) -> Plan:
        config, tile = self.config, self.kernels.tile
        plan = Plan()
        plan.layer_table, plan.layers = ctypes.addressof(self._layers), config.num_layers
        plan.hidden, plan.attention, plan.inner, plan.rank = self._hidden, self._attention, self._inner, self._rank
        plan.heads, plan.kv_heads, plan.half = config.num_heads, config.num_kv_heads, self._half
        plan.vocabulary = config.vocab_size
        norm, head = balance(model.norm, model.head.weight)
        plan.norm, plan.head = self._hold_norm(norm), self._pack(head)
        plan.logits_row = plan.head.outputs
        table = self.embed.weight.data
        if config.hidden_size != self._hidden or table.dtype != torch.bfloat16:
            table = spread(table.bfloat16(), None, self._hidden, 1)
            plan.embeddings = self._hold(table)
        else:
            plan.embeddings = table.data_ptr()
        plan.mask = -1 if config.mask_token_id is None else config.mask_token_id
        plan.banned = plan.mask
        plan.mask_embedding = 0 if self.mask_embedding is None else self._hold_norm(self.mask_embedding)
        plan.panel, plan.tile_rows, plan.tile_queries = tile.panel, tile.rows, tile.queries
        plan.planes = tile.planes
        plan.width, plan.eps = config.hidden_size, config.rms_norm_eps
        plan.query_factor = config.head_dim**-0.5
        counters = torch.zeros((config.num_layers * _STEPS_A_LAYER + _STEPS_BESIDE) * COUNTER_BYTES // 8 + 8).long()
        plan.counters = self._keep_table("counters", counters)
        return plan

    def _keep_table(self, name: str, table: Tensor) -> int:
        self._tables[name] = table
        return table.data_ptr()

    def _fit(self, capacity: int) -> None:
        """Tables by position and the threads' scratch, for caches up to `capacity`."""
        if capacity <= self._tables.get("positions", ()).__len__():
            return
        config, plan, half = self.config, self._plan, self.config.head_dim // 2
        rotary = Rotary(config.rope, config.head_dim, capacity, self.device, torch.float32)
        plan.cosines = self._keep_table("cosines", spread(rotary.cos[:, 0, half:].contiguous(), None, self._half, 1))
        plan.sines = self._keep_table("sines", spread(rotary.sin[:, 0, half:].contiguous(), None, self._half, 1))
        if rotary.query_scale is not None:
            plan.query_scales = self._keep_table("query_scales", rotary.query_scale.flatten().contiguous())
        self._keep_table("positions", torch.arange(capacity))
        plan.identity = self._keep_table("identity", torch.arange(capacity, dtype=torch.int32))
        chunks = -(-config.vocab_size // HEAD_CHUNK)
        most = self.kernels.tile.queries
        needs = (
            ROW_CHUNK * max(2 * self._half, 2 * plan.panel) * 4,
            4 * (most + 1) * capacity + 4 * most * (2 * self._half + 1),
            12 * chunks + 16,
        )
        plan.scratch_bytes = padded(max(needs), 4096)
        plan.scratch = self._keep_table("scratch", torch.zeros(MOST_THREADS * plan.scratch_bytes, dtype=torch.uint8))

    def _fit_rows(self, rows: int, logit_rows: int) -> None:
        """Buffers for forwards of up to so many rows."""
        plan, config = self._plan, self.config
        if rows > self._rows:
            self._rows = rows
            widest = max(self._hidden, self._attention, self._inner, self._rank)
            plan.x = self._keep_table("x", torch.zeros(rows * self._hidden))
            plan.steps = self._keep_table("steps", torch.zeros(rows * widest, dtype=torch.int16))
            plan.step_scales = self._keep_table("step_scales", torch.zeros(rows))
            plan.queries = self._keep_table("queries", torch.zeros(rows * config.num_heads * 2 * self._half))
            plan.mixed = self._keep_table("mixed", torch.zeros(rows * self._attention))
            plan.inner_rows = self._keep_table("inner", torch.zeros(rows * self._inner))
            plan.low = self._keep_table("low", torch.zeros(rows * max(1, self._rank)))
        if logit_rows > self._logit_rows:
            self._logit_rows = logit_rows
            chunks = -(-config.vocab_size // HEAD_CHUNK)
            plan.chunk_peaks = self._keep_table("chunk_peaks", torch.zeros(logit_rows * chunks))
            plan.chunk_sums = self._keep_table("chunk_sums", torch.zeros(logit_rows * chunks))
