"""Which structured tasks a model still writes wrongly, so that training draws these more often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from nemodiff.tasks.structured.families import TRAINED_FAMILIES, WEIGHTS
from nemodiff.training.batch_decode import BatchDecoder
from nemodiff.training.data import Sequence
from nemodiff.training.dual_stream import Backbone
from nemodiff.training.lora import Lora

TASKS = 4  # of every family
#: Weight of a family of which every task is written wrongly, and of one of which none is, of its own in WEIGHTS.
WRONG, RIGHT = 2.5, 0.7


@torch.no_grad()
def right_answers(
    backbone: Backbone,
    lora: Lora,
    make: Callable[[str, str], Sequence],
    end_id: int,
    max_answer: int,
    *,
    worker: int = 0,
    workers: int = 1,
) -> torch.Tensor:
    """Of TASKS instances of each trained family, how many AR writes to the last token and how many were asked, fp32
    [2, families]; `make` gives an instance by family and seed, and those with more than `max_answer` tokens, which
    training leaves out, are not asked. Of several workers each counts its share, to be added up."""
    layers = [{**layer, **merged} for layer, merged in zip(backbone.layers, lora.merged, strict=True)]
    tasks = [(at, make(name, f"focus {i}")) for at, name in enumerate(TRAINED_FAMILIES) for i in range(TASKS)][
        worker::workers
    ]
    tasks = [(at, task) for at, task in tasks if len(task.answer) <= max_answer]
    room = max(len(task.prompt) for _, task in tasks) + max_answer
    decoder = BatchDecoder(replace(backbone, layers=layers), end_id, slots=64, room=room)
    counts = torch.zeros(2, len(TRAINED_FAMILIES))
    for at, _ in tasks:
        counts[1, at] += 1
    for index, ids in decoder.run([task.prompt for _, task in tasks], max_answer):
        at, task = tasks[index]
        counts[0, at] += ids == task.answer
    return counts


def family_weights(counts: torch.Tensor) -> list[float]:
    """How often training draws each family, from how many of its tasks were right and asked [2, families]."""
    right, asked = counts
    shares = torch.where(asked > 0, right / asked.clamp_min(1), 1.0).tolist()
    return [weight * (WRONG + (RIGHT - WRONG) * share) for weight, share in zip(WEIGHTS, shares, strict=True)]
