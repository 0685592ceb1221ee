"""Prefill: the forward over the prompt, once for all lanes, and what its pictures became."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nemodiff.model.output import Output
from nemodiff.model.runner import Runner

#: Alternatives that a request may ask for at most.
MOST_ALTERNATIVES = 20
#: Tokens of a prompt that one forward takes, by the device: a few seconds on a slow CPU.
PIECE = {"cpu": 512, "cuda": 4096}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a prompt's pictures became: features [n, hidden] that stand in for the embeddings of its tokens at `places`.

    ms: what encoding them took in this run.
    """

    features: Tensor
    places: list[int]
    ms: float


class Prefill:
    """The causal forward over the prompt, run once and shared: every lane is charged its time and copies its cache.

    A long prompt runs in equal pieces, one after the other over the same cache, so that it can be stopped between two.
    seen: the prompt's pictures; encoding them is in no lane's time. paused: nothing is run yet; `pieces` does it, and
    yields after each piece but the last.
    """

    def __init__(
        self,
        model: Runner,
        prompt: list[int],
        capacity: int,
        seen: Seen | None = None,
        paused: bool = False,
    ) -> None:
        self.cache, self._model = model.new_cache(capacity), model
        self.image_ms = seen.ms if seen else None
        self.ms = 0.0
        self.output: Output
        self.pieces = self._run(model, prompt, seen)
        if not paused:
            for _ in self.pieces:
                pass

    def _run(self, model: Runner, prompt: list[int], seen: Seen | None) -> Iterator[None]:
        inputs = torch.tensor(prompt, device=model.device)
        count = -(-len(prompt) // PIECE.get(model.device.type, PIECE["cpu"]))
        synchronise(model.device)
        begin = time.perf_counter()
        if seen:
            inputs = model.embeddings(inputs)
            inputs[seen.places] = seen.features.to(inputs)
        for number, piece in enumerate(inputs.tensor_split(count)):
            if number:
                self.ms += (time.perf_counter() - begin) * 1000
                yield
                begin = time.perf_counter()
            self.output = model.forward(piece, self.cache, rows=slice(-1, None), few=MOST_ALTERNATIVES)
            self.cache.keep(len(piece))
            synchronise(model.device)
        self.ms += (time.perf_counter() - begin) * 1000

    @property
    def logits(self) -> Tensor:
        """What the prompt's last token predicts: [1, vocab]."""
        return self.output.logits

    def copy_cache(self, lane: str) -> Any:
        """A lane's own cache after the prompt."""
        return self._model.lane_cache(self.cache, lane)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
