"""int8 linears on a CPU: int8 weights, one scale an output channel, times int8 rows, one scale a row.

Products of 8-bit integers add up without rounding, so a row's result is the same to the last bit whatever the kernel
and however many rows travel with it. It is also half the bytes of bfloat16 to read, which is what a small forward
costs.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

from nemodiff.model.rows import RowShapes

#: Largest magnitude of a quantised value.
PEAK = 127
#: Adding it to a float32 of magnitude below 2^22 leaves the rounded integer in the low byte.
_ROUND = torch.tensor(1.5 * 2**23)
#: The same plus 128: the prepacked product takes unsigned bytes with a zero point.
_ROUND_UNSIGNED = _ROUND + 128
#: Up to so many weights and rows a plain product costs less than a prepacked one, whose setting up is the larger part.
_SMALL, _FEW_ROWS = 2**20, 12


class Int8Matrix(nn.Module):
    """A weight [out, in] as int8 with a float32 scale an output channel; it takes the place of a `Matrix`.

    weight: floats, on the CPU. Rows of activations are quantised as they come: symmetric, to 127 steps of their largest
    magnitude.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        values, self.scale = quantise_rows(weight)
        self._packed = torch.ops.onednn.qlinear_prepack(values, None)
        self._plain = values.t() if values.numel() <= _SMALL else None
        self._zeros = torch.zeros(self.out_features, dtype=torch.int64)

    @property
    def nbytes(self) -> int:
        """Memory of the weight and its scales, in bytes."""
        copies = 1 if self._plain is None else 2
        return self.out_features * (copies * self.in_features + self.scale.itemsize)

    def normed(self, x: Tensor, norm: Tensor, eps: float, shapes: RowShapes | None = None) -> Tensor:
        """The product with rms_norm(x). x: [rows, in]; norm: [in], as `fold_norm` made it. Returns [rows, out].

        The norm's division is uniform over a row, so it is left to the row's scale.
        """
        weighted = x * norm
        peak = weighted.abs().amax(-1, keepdim=True)
        # Single rounding steps (no hypot, no fused ones), which are alike whether a row falls in a vector or its rest.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        length = length.mul_(length).add_(eps * self.in_features).sqrt_()
        return self.product(self._steps(weighted, peak)).mul_(peak.div_(length))

    def added(self, x: Tensor, rows: Tensor, shapes: RowShapes | None = None) -> Tensor:
        """x [rows, out] plus the product with rows [rows, in], all float32."""
        peak = rows.abs().amax(-1, keepdim=True)
        return torch.addcmul(x, self.product(self._steps(rows, peak)), peak, value=1 / PEAK)

    def _steps(self, x: Tensor, peak: Tensor) -> Tensor:
        work = torch.addcmul(self.rounding(x.shape[0]), x, peak.reciprocal(), value=PEAK)
        return work.view(torch.int32).to(torch.uint8)

    def rounding(self, rows: int) -> Tensor:
        """What, added to values up to 127, leaves in the low byte their steps, as `product` takes them."""
        return _ROUND if self._is_plain(rows) else _ROUND_UNSIGNED

    def _is_plain(self, rows: int) -> bool:
        return self._plain is not None and rows <= _FEW_ROWS

    def product(self, steps: Tensor) -> Tensor:
        """The exact integer product with steps [rows, in], times the channels' scales: [rows, out], float32.

        steps: the low bytes, as uint8, of `rounding` + 127 * x / (the row's largest magnitude).
        """
        if self._is_plain(steps.shape[0]):
            return torch._int_mm(steps.view(torch.int8), self._plain) * self.scale
        return torch.ops.onednn.qlinear_pointwise(
            steps, 1.0, 128, self._packed, self.scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )


def fold_norm(norm: Tensor) -> Tensor:
    """A norm's weight [in] with the factors of a normed row's scale folded in, for `Int8Matrix.normed`."""
    return norm.float() * (math.sqrt(norm.shape[0]) / PEAK)


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row of `weight` [out, in] to int8 steps. Returns them and the float32 step of a row [out]."""
    weight = weight.float()
    scale = weight.abs().amax(1, keepdim=True).div_(PEAK)
    steps = torch.where(scale > 0, weight / scale, 0.0)
    return steps.round_().clamp_(-PEAK, PEAK).to(torch.int8), scale[:, 0].contiguous()


@cache
def int8_obstacle(device: torch.device) -> str | None:
    """Why int8 cannot run on `device`, None where it can: a CPU whose vector unit multiplies 8-bit integers exactly."""
    if device.type != "cpu":
        return f"int8 runs on a CPU only, not on {device.type}"
    if not getattr(torch.cpu, "_is_vnni_supported", bool)():
        return "int8 needs a CPU with AVX-512 VNNI, which this one lacks"
    try:
        exact = _exact()
    except (AttributeError, RuntimeError):  # an operator of torch's own that a build may lack or change
        return "this build of torch has no int8 linears for CPUs"
    return None if exact else "this machine's int8 products are not exact"


def _exact() -> bool:
    """Whether products of the largest values, where narrow sums would overflow, are the integers they should be."""
    weight = torch.full((32, 512), PEAK)
    weight[::2, ::3] = -PEAK
    rows = torch.full((2 * _FEW_ROWS, 512), PEAK)
    rows[1, 1::2] = -PEAK
    matrix = Int8Matrix(weight.float())
    return all(
        torch.equal(
            matrix.product((rows[:count] + matrix.rounding(count)).view(torch.int32).to(torch.uint8)),
            (rows[:count] @ weight.T).float(),
        )
        for count in (2, len(rows))
    )
