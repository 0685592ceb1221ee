"""What newly compiled kernels must pass before they are used: exact products, a small model and a draft head as torch
computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemodiff.model.config import ModelConfig, RopeConfig
from nemodiff.model.cpu.draft_head import CpuDraftHead
from nemodiff.model.cpu.model import CpuModel
from nemodiff.model.cpu.pack import PackedMatrix
from nemodiff.model.cpu.plan import ACTIVATION_PEAK, SEGMENT, WEIGHT_PEAK, KernelsUnavailable
from nemodiff.model.draft_head import CANDIDATES, DraftHead, Guessed, HeadConfig
from nemodiff.model.transformer import Transformer

if TYPE_CHECKING:
    from nemodiff.model.cpu.build import Kernels

#: Largest relative error of the small model's logits: activations have 14 bits, and nothing else is rounded.
_TOLERANCE = 3e-3
#: Largest error of a draft's probability: tables of tokens are bfloat16.
_DRAFT_TOLERANCE = 0.05


@torch.inference_mode()
def check(kernels: Kernels) -> None:
    """Raise KernelsUnavailable unless the products are exact and a small model's logits are torch's."""
    for inputs in (64, SEGMENT):
        weight, steps = _largest(kernels, inputs)
        expected = (steps.long() @ weight.long().T).float()
        for rows in range(1, len(steps) + 1):
            if not torch.equal(multiply(kernels, weight.float(), steps[:rows]), expected[:rows]):
                raise KernelsUnavailable(f"the {kernels.tile.name} kernels' products of {rows} rows are not exact")
    reference = small_model()
    model = CpuModel(small_model(), kernels)
    tokens = torch.arange(40) * 7 % model.config.vocab_size
    expected = reference(tokens, reference.new_cache(64), causal=True)
    together = model(tokens, model.new_cache(64), causal=True)
    error = float((together - expected).norm() / expected.norm())
    if not error < _TOLERANCE:  # written so that NaN does not pass
        raise KernelsUnavailable(f"the {kernels.tile.name} kernels' logits are off by {error:.1%}")
    cache, alone = model.new_cache(64), []
    for token in tokens:
        alone.append(model(token[None], cache, causal=True))
        cache.keep(1)
    if not torch.equal(torch.cat(alone), together):
        raise KernelsUnavailable(f"the {kernels.tile.name} kernels' rows depend on the rows beside them")
    _check_draft_head(kernels)


def _check_draft_head(kernels: Kernels) -> None:
    generator = torch.Generator().manual_seed(0)
    head = DraftHead(HeadConfig(90, 24, components=20, width=18, rank=12))
    for tensor in (*head.parameters(), head.mean, head.projection):
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    head.eval().attach(torch.randn(90, 24, generator=generator))
    shares, tokens = (3 * torch.randn(5, 90, generator=generator)).log_softmax(-1).topk(CANDIDATES)
    asked = Guessed(tokens, shares), 5, int(tokens[0, 1]), 8
    (_, expected), (_, found) = head.drafts(*asked), CpuDraftHead(head, kernels).drafts(*asked)
    found[0, 1:] = expected[0, 1:]  # before the first place only the newest token stands
    error = float((found - expected).abs().max())
    if not error < _DRAFT_TOLERANCE:
        raise KernelsUnavailable(f"the {kernels.tile.name} kernels' draft head is off by {error:.2f}")


def multiply(kernels: Kernels, weight: Tensor, steps: Tensor) -> Tensor:
    """One panel: steps int16 [rows, inputs] times weight, whole numbers of which every row holds a 127: [rows, panel].

    As float32 of the exact int32 sums. rows: at most the tile's; inputs: a multiple of 64, at most SEGMENT.
    """
    rows, panel = len(steps), kernels.tile.panel
    packed = PackedMatrix(weight, panel, kernels.tile.together)
    if kernels.tile.planes:
        high = (steps + 64) >> 7
        steps = torch.cat((steps - 128 * high, high), 1).to(torch.int8)
    steps, ones, out = steps.contiguous(), torch.ones(rows), torch.empty(rows, panel)
    addresses = [one.data_ptr() for one in (steps, ones, packed.weights, packed.scales, out)]
    steps_row = steps.stride(0) * steps.itemsize
    kernels.product(rows, addresses[0], steps_row, *addresses[1:3], packed.inputs, *addresses[3:], 4 * panel, 0)
    return out


def _largest(kernels: Kernels, inputs: int) -> tuple[Tensor, Tensor]:
    """A panel of weights and the most rows of a tile, whose sums are the largest that may come."""
    weight = torch.full((kernels.tile.panel, inputs), WEIGHT_PEAK)
    weight[1::3, ::2] = -WEIGHT_PEAK
    weight[2::3] = (torch.arange(inputs) * 37 % 255 - 127).clamp_min(-WEIGHT_PEAK)
    weight[2::3, 0] = WEIGHT_PEAK
    steps = torch.full((kernels.tile.rows, inputs), ACTIVATION_PEAK)
    steps[1::3] = -ACTIVATION_PEAK
    steps[2::3] = torch.arange(inputs) * 1009 % (2 * ACTIVATION_PEAK + 1) - ACTIVATION_PEAK
    return weight, steps.to(torch.int16)


def small_model() -> Transformer:
    """A random model whose widths are no multiples of anything and whose weights are whole int8 steps."""
    config = ModelConfig(
        vocab_size=301,
        hidden_size=72,
        intermediate_size=88,
        num_layers=2,
        num_heads=6,
        num_kv_heads=2,
        head_dim=20,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        context_length=64,
        rope=RopeConfig(),
        mask_token_id=300,
    )
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            steps = torch.randint(-WEIGHT_PEAK, WEIGHT_PEAK + 1, parameter.shape, generator=generator)
            steps[:, 0] = steps[0] = WEIGHT_PEAK
            parameter.data.copy_(steps / 1024)
    model.embed.weight.data.copy_(model.embed.weight.bfloat16())
    model.exact = False
    return model
