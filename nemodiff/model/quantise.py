"""A float Transformer → the same with int8 linears, found channel by channel which inputs stand out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nemodiff.errors import CheckpointError
from nemodiff.model.int8 import Int8Matrix, fold_norm, int8_obstacle
from nemodiff.model.rows import RowShapes
from nemodiff.model.transformer import Matrix, Transformer

#: Random tokens that show which channels stand out, and how many of the first are passed over: attention sinks have
#: outliers that no other row has.
_PROBE, _SINKS = 128, 4


class _Watched(nn.Module):
    """A float Matrix that also keeps the largest magnitude of every channel of its normed input."""

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.weight = matrix.weight
        self.peaks = torch.zeros(matrix.in_features)

    def normed(self, x: Tensor, norm: Tensor, eps: float, shapes: RowShapes | None) -> Tensor:
        h = F.rms_norm(x, (x.shape[-1],), norm, eps)
        self.peaks = h[_SINKS:].abs().amax(0).float()
        return F.linear(h, self.weight)

    def smoothed(self, norm: Tensor) -> tuple[nn.Parameter, Int8Matrix]:
        """The norm divided and the weight multiplied by what evens out both, so that a few large channels of the input
        do not cost the others their steps (SmoothQuant, arXiv 2211.10438, with its alpha of 0.5)."""
        columns = self.weight.abs().amax(0).float()
        smoothing = (self.peaks.clamp_min(1e-5) / columns.clamp_min(1e-5)).sqrt()
        return nn.Parameter(fold_norm(norm) / smoothing, requires_grad=False), Int8Matrix(self.weight * smoothing)


@torch.inference_mode()
def quantise(model: Transformer) -> None:
    """Turn the model's linears into int8 ones, in place, layer by layer; what lies between them runs in float32.

    The table of embeddings stays as it is. Which input channels stand out is found by one forward over random tokens.
    Raises CheckpointError where int8 cannot run.
    """
    if reason := int8_obstacle(model.device):
        raise CheckpointError(f"{reason[0].upper()}{reason[1:]}: choose another dtype.")
    for layer in model.layers:
        layer.qkv, layer.gate_up = _Watched(layer.qkv), _Watched(layer.gate_up)
    model.head = _Watched(model.head)
    tokens = torch.randint(0, model.config.vocab_size, (_PROBE,), generator=torch.Generator().manual_seed(0))
    model(tokens, model.new_cache(_PROBE), causal=True)
    for layer in model.layers:
        layer.input_norm, layer.qkv = layer.qkv.smoothed(layer.input_norm)
        layer.post_norm, layer.gate_up = layer.gate_up.smoothed(layer.post_norm)
        layer.o, layer.down = Int8Matrix(layer.o.weight), Int8Matrix(layer.down.weight)
        if layer.draft_lora is not None:
            layer.draft_lora = tuple(factor.float() for factor in layer.draft_lora)
    model.norm, model.head = model.head.smoothed(model.norm)
    if model.mask_embedding is not None:
        model.mask_embedding = model.mask_embedding.float()
    model.rows, model.int8 = None, True
