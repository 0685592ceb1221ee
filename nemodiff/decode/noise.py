"""Noise: random numbers that depend on the seed, the answer position and what they are for, on nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from nemodiff.model.cuda import noise as device_noise

#: token: the answer's own draw, the same in every mode. draft: drafts that do not share it. accept, residual:
#: speculative sampling's test of a draft, and the draw that replaces it; accept 1 and on: of further candidates.
_PURPOSES = {"token": 0, "draft": 1, "accept": 2, "residual": 3} | {f"accept {rank}": 3 + rank for rank in range(1, 16)}
#: torch's CPU generator uses 32 bits of its seed; odd, so that purposes lie far apart in them.
_APART = 0x9E3779B9
#: From here on torch's generator would draw what a smaller seed draws.
_TORCH_SEEDS = 2**32
_KEPT = 160


class Noise:
    """A lane's noise. A position's numbers are made once and kept while the lane is near it.

    seed: from 0 to 2**63 - 1. Below 2**32 torch's generator draws, as in all runs that were recorded; above, numpy's
    Philox, which takes all bits of a seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made: dict[tuple[str, int], Tensor] = {}

    def gumbel(self, purpose: str, places: Iterable[int], like: Tensor) -> Tensor:
        """Gumbel noise [places, vocab] on the device of `like` [rows, vocab].

        argmax(logits / T + noise) draws from softmax(logits / T). A GPU draws the same numbers by itself, where it can.
        """
        places, size = list(places), like.shape[-1]
        missing = [place for place in dict.fromkeys(places) if (purpose, place) not in self._made]
        kernel = device_noise.compiled(like.device)[0] if self._seed < _TORCH_SEEDS and missing else None
        drawn: Iterable[Tensor]
        if kernel is not None:
            seeds = [self._torch_seed(purpose, place) for place in missing]
            drawn = device_noise.draw(seeds, size, like.device, kernel)
        else:
            drawn = [self._drawn(purpose, place, size).to(like.device) for place in missing]
        made = [self._made.get((purpose, place)) for place in places]  # before keeping new ones lets old ones go
        fresh = dict(zip(missing, drawn, strict=True))
        for place, row in fresh.items():
            self._keep((purpose, place), row)
        return torch.stack([fresh[place] if row is None else row for place, row in zip(places, made, strict=True)])

    def uniform(self, purpose: str, place: int) -> float:
        """A number in [0, 1)."""
        if self._seed >= _TORCH_SEEDS:
            return float(self._philox(purpose, place).random())
        return float(torch.rand((), generator=self._generator(purpose, place)))

    def _keep(self, key: tuple[str, int], row: Tensor) -> None:
        while len(self._made) >= _KEPT:
            del self._made[next(iter(self._made))]
        self._made[key] = row

    def _drawn(self, purpose: str, place: int, size: int) -> Tensor:
        return self._exponential(purpose, place, size).log_().neg_()

    def _exponential(self, purpose: str, place: int, size: int) -> Tensor:
        """Numbers above 0 [size], exponentially distributed, in fp32."""
        if self._seed >= _TORCH_SEEDS:
            numbers = torch.from_numpy(self._philox(purpose, place).standard_exponential(size, dtype=np.float32))
            return numbers.clamp_min_(torch.finfo(torch.float32).tiny)
        return torch.empty(size, dtype=torch.float32).exponential_(generator=self._generator(purpose, place))

    def _philox(self, purpose: str, place: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox([self._seed, _PURPOSES[purpose], place]))

    def _generator(self, purpose: str, place: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._torch_seed(purpose, place))

    def _torch_seed(self, purpose: str, place: int) -> int:
        return (self._seed * 1_000_003 + place + _PURPOSES[purpose] * _APART) % 2**63
