"""Noise: random numbers that depend on the seed, the answer position and what they are for, on nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

#: token: the answer's own draw, the same in every mode. draft: drafts that do not share it. accept, residual:
#: speculative sampling's test of a draft, and the draw that replaces it.
_PURPOSES = {"token": 0, "draft": 1, "accept": 2, "residual": 3}
#: torch's CPU generator uses 32 bits of its seed; odd, so that purposes lie far apart in them.
_APART = 0x9E3779B9
_KEPT = 160


class Noise:
    """A lane's noise. A position's numbers are made once and kept while the lane is near it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[str, int], Tensor] = {}

    def gumbel(self, purpose: str, places: Iterable[int], like: Tensor) -> Tensor:
        """Gumbel noise [places, vocab] on the device of `like` [rows, vocab].

        argmax(logits / T + noise) draws from softmax(logits / T).
        """
        return torch.stack([self._row(purpose, place, like.shape[-1]) for place in places]).to(like.device)

    def uniform(self, purpose: str, place: int) -> float:
        """A number in [0, 1)."""
        return float(torch.rand((), generator=self._generator(purpose, place)))

    def _row(self, purpose: str, place: int, size: int) -> Tensor:
        key = (purpose, place)
        if key not in self._made:
            while len(self._made) >= _KEPT:
                del self._made[next(iter(self._made))]
            noise = torch.empty(size, dtype=torch.float32)
            self._made[key] = noise.exponential_(generator=self._generator(purpose, place)).log_().neg_()
        return self._made[key]

    def _generator(self, purpose: str, place: int) -> torch.Generator:
        seed = self._seed * 1_000_003 + place + _PURPOSES[purpose] * _APART
        return torch.Generator().manual_seed(seed % 2**63)
