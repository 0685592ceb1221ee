"""Denoising trajectories of a checkpoint: what its forwards look like on the way to the block that one position per
step leads to. The trained sampler learns from them which guesses are already final."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nemodiff.decode import Prefill
from nemodiff.engine.local import Engine
from nemodiff.model.cache import KVCache
from nemodiff.request import Request
from nemodiff.samplers.trained import block_features
from nemodiff.training.stacked import Stacked


@dataclass(slots=True)
class States(Stacked):
    """Forwards over blocks of one length B, stacked: features fp16 [n, B - 1, features]; masked, right, counted bool
    [n, B - 1]. right: the top-1 is what the block finally holds. counted: masked and not after the answer's end.
    confidence: fp16 [n, B - 1], the probability of the top-1."""

    features: Tensor
    masked: Tensor
    right: Tensor
    counted: Tensor
    confidence: Tensor


class _Block:
    """One block that is denoised again and again; every forward is noted."""

    def __init__(self, engine: Engine, cache: KVCache, seed: int, length: int, table: Tensor) -> None:
        self._model, self._cache, self._seed, self._length, self._table = engine.model, cache, seed, length, table
        self.noted: list[tuple[Tensor, list[bool], list[int], Tensor]] = []

    def guess(self, known: list[int | None]) -> tuple[list[int], list[float]]:
        """Top-1 tokens and their probabilities of positions 1 … B - 1, of which `known` are committed."""
        config = self._model.config
        tokens = [self._seed, *(config.mask_token_id if token is None else token for token in known)]
        logits = self._model.forward(torch.tensor(tokens, device=self._model.device), self._cache, causal=False).logits
        probabilities = logits[slice(0, -1) if config.shift_logits else slice(1, None)].float().softmax(-1)
        probabilities[:, config.mask_token_id] = 0
        confidence, best = probabilities.max(-1)
        masked = [token is None for token in known]
        features = block_features(probabilities, torch.tensor(masked, device=probabilities.device), self._table)
        self.noted.append((features.half().cpu(), masked, best.tolist(), confidence.half().cpu()))
        return best.tolist(), confidence.tolist()

    def serial(self, order: str) -> list[int]:
        """Commit one position per forward, the most confident or the leftmost one; the block that results."""
        known: list[int | None] = [None] * (self._length - 1)
        while None in known:
            tokens, confidence = self.guess(known)
            masked = [i for i, token in enumerate(known) if token is None]
            place = masked[0] if order == "leftmost" else max(masked, key=confidence.__getitem__)
            known[place] = tokens[place]
        return [token for token in known if token is not None]

    def jump(self, target: list[int], rng: random.Random, order: str) -> None:
        """Once more with several commits per forward, so that states further along are seen too: a random number of the
        guesses that equal `target`, the most confident first, or of the run of them from the left."""
        known: list[int | None] = [None] * (self._length - 1)
        while None in known:
            tokens, confidence = self.guess(known)
            right = [i for i, token in enumerate(known) if token is None and tokens[i] == target[i]]
            if order == "leftmost":
                masked = [i for i, token in enumerate(known) if token is None]
                right = [i for i, other in zip(right, masked, strict=False) if i == other]
            else:
                right.sort(key=lambda i: -confidence[i])
            if not right:
                return
            for place in right[: rng.randint(1, len(right))]:
                known[place] = target[place]

    def states(self, target: list[int], end: int) -> States:
        """All noted forwards, labelled by `target`; positions from `end` on do not count."""
        features, masked, guesses, confidence = zip(*self.noted, strict=True)
        hidden = torch.tensor(masked)
        inside = torch.arange(len(target)) < end
        right = torch.tensor(guesses) == torch.tensor(target)
        return States(torch.stack(features), hidden, right, hidden & inside, torch.stack(confidence))


@torch.inference_mode()
def trajectories(
    engine: Engine,
    prompt: str,
    block_length: int,
    table: Tensor,
    *,
    max_new_tokens: int = 96,
    seed: int = 0,
    order: str = "best",
) -> Iterator[States]:
    """Decode one prompt by serial denoising in one of the samplers' orders; yields the states of every block."""
    tokens = engine.encode(Request(prompt=prompt, max_new_tokens=max_new_tokens))
    prefill = Prefill(engine.model, tokens, len(tokens) + max_new_tokens + 2 * block_length)
    cache, newest, rng = prefill.cache, int(prefill.logits[-1].argmax()), random.Random(f"{seed}/{prompt}")
    ends = set(engine.model.config.eos_token_ids)
    for _ in range(0, max_new_tokens, block_length):
        if newest in ends:
            return
        block = _Block(engine, cache, newest, block_length, table)
        target = block.serial(order)
        block.jump(target, rng, order)
        end = next((i + 1 for i, token in enumerate(target) if token in ends), len(target))
        yield block.states(target, end)
        if end < len(target) or target[-1] in ends:
            return
        inputs = torch.tensor([newest, *target], device=engine.model.device)
        newest = int(engine.model.forward(inputs, cache).logits[-1].argmax())
        cache.keep(block_length)
