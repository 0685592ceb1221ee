"""RowShapes: which row counts this machine's matrix kernels round alike, and linears that use only those.

A library picks its kernel by shape, and another kernel may add in another order: the same row then differs in its
last bits between a 1-row and a 9-row product, and self-speculation equals AR only by luck. So the counts that agree are
found once per model, on this machine, and block-shaped forwards are padded to them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

#: Forwards of up to this many rows are block-shaped and exact; longer ones are prompts, the same in every mode.
BLOCK_ROWS = 64
#: The reference: a product of this many rows. Counts that disagree with it are padded, or split into such products.
REFERENCE_ROWS = 16
_TRIED = (*range(1, 18), 20, 24, 31, 32, 33, 40, 48, 63, 64)


class RowShapes:
    """The row counts (up to BLOCK_ROWS) at which products agree, to the last bit, with REFERENCE_ROWS ones."""

    def __init__(self, counts: Iterable[int]) -> None:
        self.counts = tuple(sorted({REFERENCE_ROWS, *counts}))
        self._most = self.counts[-1]
        self._padded = [
            next((count for count in self.counts if count >= rows), -(-rows // REFERENCE_ROWS) * REFERENCE_ROWS)
            for rows in range(BLOCK_ROWS + 1)
        ]

    def padded(self, rows: int) -> int:
        """The row count to which a forward of `rows` is padded. More than BLOCK_ROWS are whole products of the most
        rows that agree, and what is left over."""
        if rows <= BLOCK_ROWS:
            return self._padded[rows]
        left = rows % self._most
        return rows - left + (self._padded[left] if left else 0)

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [padded rows, in] times weight [out, in] transposed, in products of agreeing row counts."""
        if x.shape[0] in self.counts:
            return F.linear(x, weight)
        most = REFERENCE_ROWS if x.shape[0] <= BLOCK_ROWS else self._most
        return torch.cat([self.linear(part, weight) for part in x.split(most)])


@torch.inference_mode()
def find_row_shapes(shapes: Iterable[tuple[int, int]], device: torch.device, dtype: torch.dtype) -> RowShapes:
    """Try every row count on weights of the given (out, in) shapes.

    The rows of the probe are equal and its true products are zero, so that nothing but rounding is left and any other
    order of additions shows in every element. Kernels follow shapes, never values: one probe a shape decides.
    """
    agreed = set(_TRIED)
    generator = torch.Generator().manual_seed(0)
    for outputs, inputs in set(shapes):
        half = inputs // 2
        order = torch.randperm(half, generator=generator)
        weight = torch.zeros(min(outputs, 256), inputs)
        weight[:, :half].normal_(generator=generator)
        weight[:, half : 2 * half] = weight[:, :half][:, order]
        weight = weight.to(device, dtype).repeat(-(-outputs // weight.shape[0]), 1)[:outputs].contiguous()
        row = torch.zeros(1, inputs)
        row[:, :half].normal_(generator=generator)
        row[:, half : 2 * half] = -row[:, :half][:, order]
        x = row.to(device, dtype).repeat(BLOCK_ROWS, 1)
        reference = F.linear(x[:REFERENCE_ROWS], weight)[0]
        agreed = {rows for rows in agreed if bool((F.linear(x[:rows], weight) == reference).all())}
    return RowShapes(agreed)
