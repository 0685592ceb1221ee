"""Decoding by the obvious way: what the engine's tokens are compared with."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import assume

from nemodiff.engine.interface import EngineInterface
from nemodiff.request import Request
from nemodiff.trace.events import Lane
from tests.helpers.checkpoints import MASK, VOCABULARY


def prompt_ids(seed: int, length: int = 12) -> tuple[int, ...]:
    return tuple(torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def speculation_beside_ar(engine: EngineInterface, kind: str, seed: int, **asked: Any) -> Lane:
    """The self-speculation lane of a run whose text, and why it ended, are AR's, and whose cycles add up to it.
    kind: of checkpoint; "nvidia" gets a prompt of 60 tokens."""
    prompt = prompt_ids(seed, 60 if kind == "nvidia" else 9)
    ar, speculation = engine.generate(
        Request(prompt_ids=prompt, modes=("ar", "self-speculation"), seed=seed, **asked)
    ).lanes
    assert speculation.tokens == ar.tokens
    assert speculation.finish == ar.finish
    lengths = speculation.acceptance_lengths
    assert all(1 <= length <= asked.get("block_length", math.inf) for length in lengths)
    assert 1 + sum(lengths) == len(speculation.tokens)
    return speculation


class Obvious:
    """No cache, no generator, no sharing: every forward runs the whole sequence with an explicit mask.

    Its loops are called by `told`: a decision that was closer than CLOSE, as a ratio of probabilities (in nats),
    depends on how floats are rounded and says nothing about the engine.
    """

    CLOSE = 1e-4

    def __init__(self, model, lora=None):
        self.model, self.lora = model, lora
        self.closest = math.inf

    def told(self, loop, *asked):
        """What a loop returns; a hypothesis example in which a decision was too close is left out."""
        self.closest = math.inf
        found = loop(*asked)
        assume(self.closest > self.CLOSE)
        return found

    def decided(self, one, other):
        """Note a decision between two probabilities, or a probability and a threshold."""
        if other > 0:
            self.closest = min(self.closest, abs(math.log(one / other)))

    def best(self, probabilities):
        """The likeliest token of probabilities [vocab]."""
        shares, tokens = probabilities.topk(2)
        self.decided(*shares.tolist())
        return int(tokens[0])

    def logits(self, ids, bidirectional_from=None):
        size = len(ids)
        mask = torch.ones(size, size).tril().bool()
        if bidirectional_from is not None:
            mask[bidirectional_from:, bidirectional_from:] = True
        with torch.no_grad():
            return self.model(torch.tensor(ids)[None], attention_mask=mask[None, None]).logits[0]

    def next(self, ids):
        return self.best(self.logits(ids)[-1].softmax(-1))

    def autoregressive(self, prompt, count, eos):
        answer = []
        while len(answer) < count:
            answer.append(self.next(list(prompt) + answer))
            if answer[-1] in eos:
                break
        return answer

    def diffusion(self, prompt, count, eos, block_length, threshold, order="best"):
        """Returns (tokens, denoising forwards per block, whether the last seed was an EOS)."""
        answer, steps = [], []
        while True:
            block = [self.next(list(prompt) + answer)] + [None] * (block_length - 1)
            steps.append(0)
            while None in block:
                head = block[: block.index(None)]
                if any(token in eos for token in head) or len(answer) + len(head) >= count:
                    break
                ids = list(prompt) + answer + [MASK if token is None else token for token in block]
                logits = self.logits(ids, len(prompt) + len(answer))[-block_length:].float()
                probabilities = logits.softmax(-1)
                probabilities[:, MASK] = 0
                probability = probabilities.max(-1).values
                masked = [i for i, t in enumerate(block) if t is None]
                sure = {i for i in masked if float(probability[i]) >= threshold}
                for i in masked:
                    self.decided(float(probability[i]), threshold)
                ranked = sorted((float(probability[i]) for i in masked), reverse=True)
                if order == "best" and len(ranked) > 1 and not sure:
                    self.decided(*ranked[:2])
                if order == "leftmost":
                    while masked and masked[-1] != masked[0] and not sure.issuperset(masked):
                        masked.pop()
                    chosen = masked
                else:
                    chosen = sure | {max(masked, key=lambda i: float(probability[i]))}
                for i in chosen:
                    block[i] = self.best(probabilities[i])
                steps[-1] += 1
            for token in block:
                if token is None:
                    break
                answer.append(token)
                if token in eos or len(answer) == count:
                    return answer, [s for s in steps if s], answer[-1] in eos and not steps[-1]
