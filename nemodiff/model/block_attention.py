"""Attention of block-shaped forwards on a CPU: one SDPA call a layer, in shapes that round alike on this machine.

The rows of a block stand side by side for every head of a group, and rows and keys are padded to counts at which
torch's kernel was found to give a row the same bits; masked keys add exact zeros.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from nemodiff.model.cache import KVCache
from nemodiff.model.config import ModelConfig
from nemodiff.model.layout import Layout

#: The reference: this many rows by keys in multiples of KEYS. Rows that fit no agreeing count run in groups of these.
ROWS, KEYS = 8, 512
_TRIED_ROWS = (1, 2, 3, 4, 6, 12, 16, 24, 32, 48, 64)
_TRIED_KEYS = range(64, 2 * KEYS + 1, 64)


class AttentionShapes:
    """Row counts and key counts at which SDPA rounds a row alike, to the last bit."""

    def __init__(self, rows: Iterable[int], keys: Iterable[int]) -> None:
        self.rows, self.keys = tuple(sorted({ROWS, *rows})), tuple(sorted({KEYS, *keys}))

    def padded_rows(self, rows: int) -> tuple[int, int]:
        """(groups, rows a group) for a forward of `rows`: one group of an agreeing count, or several of ROWS."""
        count = next((count for count in self.rows if count >= rows), None)
        return (-(-rows // ROWS), ROWS) if count is None else (1, count)

    def padded_keys(self, keys: int) -> int:
        """The key count to which attention over `keys` is padded; at most the next multiple of KEYS."""
        return next((count for count in self.keys if count >= keys), -(-keys // KEYS) * KEYS)


@torch.inference_mode()
def find_attention_shapes(config: ModelConfig) -> AttentionShapes | None:
    """Try row and key counts on random values; None where not even multiples of KEYS agree.

    Every row of a probe is the same query, so a row that another kernel computed shows wherever it stands; all but a
    few of its keys are seen, so another order of sums shows too. Kernels follow shapes, never values.
    """
    generator = torch.Generator().manual_seed(0)
    kv_heads, group, size = config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim
    keys, values = (torch.randn(1, kv_heads, 3 * KEYS, size, generator=generator) for _ in range(2))
    query = torch.randn(1, kv_heads, 1, size, generator=generator)

    def run(rows: int, count: int, seen: int) -> Tensor:
        mask = torch.zeros(1, 1, group * rows, count)
        mask[..., seen:] = -torch.inf
        queries = query.expand(-1, -1, group * rows, -1).contiguous()
        return F.scaled_dot_product_attention(queries, keys[:, :, :count], values[:, :, :count], attn_mask=mask)

    references: dict[int, Tensor] = {}

    def agree(rows: int, count: int, seen: int) -> bool:
        if seen not in references:
            references[seen] = run(ROWS, -(-seen // KEYS) * KEYS, seen)[:, :, :1]
        return bool((run(rows, count, seen) == references[seen]).all())

    if not all(agree(ROWS, count, seen) for seen in (KEYS - 3, 2 * KEYS - 3) for count in (2 * KEYS, 3 * KEYS)):
        return None
    counts = [count for count in _TRIED_KEYS if agree(ROWS, count, count - 3)]
    rows = [rows for rows in _TRIED_ROWS if all(agree(rows, count, count - 3) for count in counts)]
    return AttentionShapes(rows, counts)


class BlockAttention:
    """Attention of one block-shaped forward: the mask, made once, and what every layer does with it."""

    def __init__(
        self,
        config: ModelConfig,
        shapes: AttentionShapes,
        cache: KVCache,
        rows: int,
        causal: bool,
        layout: Layout | None = None,
    ) -> None:
        start, (groups, count) = cache.length, shapes.padded_rows(rows)
        end = shapes.padded_keys(start + rows)
        self._rows, self._heads = rows, (config.num_kv_heads, config.num_heads // config.num_kv_heads)
        seen = torch.arange(end)
        last = torch.full((groups * count,), start + rows - 1)
        if causal:
            last = torch.minimum(last, start + torch.arange(groups * count))
        hidden = seen > last[:, None]
        if layout is not None:
            hidden[:rows, start:] = True
            hidden[:rows, start : start + rows] = ~layout.visible
        mask = torch.zeros(hidden.shape, dtype=cache.keys.dtype).masked_fill_(hidden, -torch.inf)
        group = self._heads[1]
        mask = mask.view(groups, 1, 1, count, end).expand(-1, -1, group, -1, -1)
        self._mask = mask.reshape(groups, 1, group * count, end)
        # The queries of a group, then the rows of a block: [groups, kv_heads, group, count, head_dim].
        self._queries = torch.zeros(groups, *self._heads, count, config.head_dim, dtype=cache.keys.dtype)
        self._flat = self._queries.view(groups, self._heads[0], group * count, config.head_dim)
        by_row = self._queries.permute(0, 3, 1, 2, 4)
        self._target = by_row[0, :rows] if groups == 1 else by_row
        self._padding = groups * count - rows if groups > 1 else 0
        self._whole = groups == 1
        self._keys, self._values = (
            part[:, 0, :, :end].unsqueeze(1).expand(-1, groups, -1, -1, -1).unbind(0)
            for part in (cache.keys, cache.values)
        )
        self._written = [
            part[:, 0, :, start : start + rows].transpose(1, 2).unbind(0) for part in (cache.keys, cache.values)
        ]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """What `KVCache.write` does, in fewer steps."""
        self._written[0][layer].copy_(keys)
        self._written[1][layer].copy_(values)

    def __call__(self, queries: Tensor, layer: int) -> Tensor:
        """queries: [rows, heads, head_dim], rotated. Returns [rows, kv_heads, group, head_dim], float32."""
        if self._padding:
            queries = F.pad(queries, (0, 0, 0, 0, 0, self._padding))
        self._target.copy_(queries.view(self._target.shape))
        mixed = F.scaled_dot_product_attention(self._flat, self._keys[layer], self._values[layer], attn_mask=self._mask)
        mixed = mixed.view(self._queries.shape).permute(0, 3, 1, 2, 4)
        return mixed[0, : self._rows] if self._whole else mixed.flatten(0, 1)[: self._rows]
