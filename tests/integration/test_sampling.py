"""Sampled text is distributed as the model says."""

from __future__ import annotations

import torch

from nemodiff.request import Request
from tests.helpers.checkpoints import VOCABULARY, random_llama
from tests.helpers.reference import Obvious, prompt_ids


def test_sampling_follows_the_models_distribution(llama_engine):
    """First tokens drawn with many seeds against the softmax they are drawn from (total variation)."""
    prompt, draws = prompt_ids(2), 1500
    logits = Obvious(random_llama()).logits(list(prompt))[-1]
    expected = (logits / 1.3).softmax(-1)
    counts = torch.zeros(VOCABULARY)
    for seed in range(draws):
        request = Request(
            prompt_ids=prompt, modes=("ar",), max_new_tokens=1, temperature=1.3, seed=seed, alternatives=0
        )
        trace = llama_engine.generate(request)
        counts[trace.lanes[0].tokens[0]] += 1
    assert 0.5 * (counts / draws - expected).abs().sum() < 0.12
