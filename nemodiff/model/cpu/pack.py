"""Weights as the kernels read them: int8 with a scale an output, in panels, padded where a width is no whole tile."""

from __future__ import annotations

import torch
from torch import Tensor

from nemodiff.model.cpu.plan import PADDING, WEIGHT_PEAK, MatrixPlan

#: Dimensions of half a head are padded to whole vectors of 16.
_HALF = 16


def padded(size: int, step: int = PADDING) -> int:
    """`size` rounded up to a multiple of `step`."""
    return -(-size // step) * step


def padded_half(head_dim: int) -> int:
    """Padded size of half a head."""
    return padded(-(-head_dim // 2), _HALF)


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round every row of `weight` [out, in] to int8 steps. Returns them and the float32 step of a row [out]."""
    weight = weight.float()
    scale = weight.abs().amax(1, keepdim=True).div_(WEIGHT_PEAK)
    steps = torch.where(scale > 0, weight / scale, 0.0)
    return steps.round_().clamp_(-WEIGHT_PEAK, WEIGHT_PEAK).to(torch.int8), scale[:, 0].contiguous()


def head_places(heads: int, head_dim: int) -> Tensor:
    """Where the dimensions of `heads` heads go in the padded layout, a half of a head after the other: int64
    [heads * head_dim]."""
    half = padded_half(head_dim)
    dimension = torch.arange(head_dim)
    second = (dimension >= head_dim // 2).long()
    inside = dimension + second * (half - head_dim // 2)
    return (torch.arange(heads)[:, None] * 2 * half + inside).flatten()


def spread(weight: Tensor, places: Tensor | None, size: int, axis: int) -> Tensor:
    """`weight` with its rows (axis 0) or columns at `places` (or the first) of an axis of `size`; the rest is zero."""
    shape = list(weight.shape)
    places = torch.arange(shape[axis]) if places is None else places
    shape[axis] = size
    return torch.zeros(shape, dtype=weight.dtype).index_copy_(axis, places, weight)


def balance(norm: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """A norm's weight [in] and the matrix [out, in] behind it, their product unchanged and the largest magnitude of
    every column of the matrix the same.

    A row's 8 bits are then not spent on a few large columns: what is small in a column may be multiplied with large
    inputs. The inputs take over the difference; they have 14 bits.
    """
    together = weight.float() * norm.float()
    columns = together.abs().amax(0)
    share = torch.where(columns > 0, columns / columns.max(), 1.0)
    return share, together / share


def alternate(gate: Tensor, up: Tensor, panel: int) -> Tensor:
    """Rows of gate and up [inner, in] in turns of a panel: [2 * inner, in]."""
    return torch.stack((gate.unflatten(0, (-1, panel)), up.unflatten(0, (-1, panel))), 1).flatten(0, 2)


class PackedMatrix:
    """A weight [out, in] as int8 in panels [out / panel, in / together, panel, together] and scales: float32 [out].

    weight: floats whose rows are a multiple of `panel`, or are filled up to one; its columns to one of `PADDING`.
    """

    def __init__(self, weight: Tensor, panel: int, together: int = 2) -> None:
        self.outputs, self.inputs = padded(weight.shape[0], panel), padded(weight.shape[1])
        steps, scales = quantise_rows(weight)
        steps = spread(spread(steps, None, self.inputs, 1), None, self.outputs, 0)
        self.weights = steps.view(-1, panel, self.inputs // together, together).transpose(1, 2).contiguous()
        self.scales = spread(scales, None, self.outputs, 0)

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes + self.scales.nbytes

    @property
    def plan(self) -> MatrixPlan:
        return MatrixPlan(self.weights.data_ptr(), self.scales.data_ptr(), self.outputs, self.inputs)
