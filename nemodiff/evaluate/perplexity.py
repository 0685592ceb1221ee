"""Perplexity of a model's causal mode on given texts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from nemodiff.model.runner import Runner


@torch.inference_mode()
def perplexity(model: Runner, texts: Iterable[tuple[list[int], int]]) -> float:
    """exp of the mean negative log-likelihood per token, over all texts' tokens together.

    texts: (token ids, how many of them are given): the given ones (at least one) are context and not counted.
    """
    loss, count = 0.0, 0
    for tokens, given in texts:
        cache = model.new_cache(len(tokens))
        logits = model.forward(torch.tensor(tokens, device=model.device), cache).logits[given - 1 : -1].float()
        wanted = torch.tensor(tokens[given:], device=model.device)
        loss += float(-logits.log_softmax(-1).gather(-1, wanted[:, None]).sum())
        count += len(wanted)
    return math.exp(loss / count)
