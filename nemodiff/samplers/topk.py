"""The best tokens of rows of logits. On a CPU torch ranks a row of a large vocabulary in one thread; here a row is
first cut to the few stretches that can hold the best."""

from __future__ import annotations

from torch import Tensor

#: Width of a stretch; vocabularies that it does not divide are ranked as they are.
_STRETCH = 256


def best(x: Tensor) -> Tensor:
    """The index of the largest value of every row [rows, vocab], the first of equals: [rows]."""
    if not _cuts(x, 1):
        return x.argmax(-1)
    stretches = x.view(x.shape[0], -1, _STRETCH)
    stretch = stretches.amax(-1).argmax(-1, keepdim=True)
    inside = stretches.gather(1, stretch[:, :, None].expand(-1, -1, _STRETCH))[:, 0].argmax(-1)
    return stretch[:, 0] * _STRETCH + inside


def largest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(values, indices), each [rows, count], of the largest values of every row [rows, vocab], largest first."""
    if not _cuts(x, count):
        return x.topk(count, dim=-1)
    stretches = x.view(x.shape[0], -1, _STRETCH)
    # The `count` largest values lie in the `count` stretches with the largest maxima.
    chosen = stretches.amax(-1).topk(count, dim=-1).indices
    values, places = stretches.gather(1, chosen[:, :, None].expand(-1, -1, _STRETCH)).flatten(1).topk(count, dim=-1)
    return values, chosen.gather(1, places // _STRETCH) * _STRETCH + places % _STRETCH


def _cuts(x: Tensor, count: int) -> bool:
    vocabulary = x.shape[-1]
    return x.device.type == "cpu" and x.is_contiguous() and not vocabulary % _STRETCH and vocabulary > count * _STRETCH
