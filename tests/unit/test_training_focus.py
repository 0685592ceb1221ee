"""Training draws those structured tasks more often that AR still writes wrongly."""

import pytest
import torch

from nemodiff.tasks.structured.families import TRAINED_FAMILIES, WEIGHTS
from nemodiff.training.data import Sequence
from nemodiff.training.dual_stream import Backbone
from nemodiff.training.focus import RIGHT, TASKS, WRONG, family_weights, right_answers
from tests.helpers.training import END, merged_model, tiny_lora, tiny_model

LENGTH = 5


def greedy(model, prompt: list[int]) -> list[int]:
    """What AR writes, one token per forward and without a cache."""
    ids = list(prompt)
    while len(ids) < len(prompt) + LENGTH and ids[-1] != END:
        ids.append(int(model(torch.tensor(ids), model.new_cache(32), causal=True)[-1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("workers", [1, 2])
def test_right_answers_are_counted_by_family(workers):
    """The merged weights answer, not the base's; what several workers count adds up to what one counts."""
    model = tiny_model()
    lora = tiny_lora(model)
    reference = merged_model(model, lora)
    answered = {}

    def make(name: str, seed: str) -> Sequence:
        family, number = TRAINED_FAMILIES.index(name), int(seed.split()[1])
        prompt = [20 + family % 40, 20 + number]
        if tuple(prompt) not in answered:
            answered[tuple(prompt)] = greedy(reference, prompt)
        answer = answered[tuple(prompt)]
        wrong = family % 2 and number < 3
        long = [END] * (LENGTH + 1)  # of which nothing is asked
        return Sequence(prompt, long if family == 4 else [(answer[0] + 1) % 20, *answer[1:]] if wrong else answer)

    backbone = Backbone.of(model)
    counts = sum(right_answers(backbone, lora, make, END, LENGTH, worker=i, workers=workers) for i in range(workers))
    asked = [0 if family == 4 else TASKS for family in range(len(TRAINED_FAMILIES))]
    assert counts.tolist() == [[count - 3 if family % 2 else count for family, count in enumerate(asked)], asked]


def test_what_is_wrong_is_drawn_more_often():
    right = torch.full((len(WEIGHTS),), float(TASKS))
    asked = right.clone()
    assert family_weights(torch.stack((right, asked))) == pytest.approx([weight * RIGHT for weight in WEIGHTS])
    right[3], right[5], asked[5] = 0, 1, 1
    weights = family_weights(torch.stack((right, asked)))
    assert (weights[3], weights[5]) == pytest.approx((WEIGHTS[3] * WRONG, WEIGHTS[5] * RIGHT))
    right[3] = TASKS / 2
    assert family_weights(torch.stack((right, asked)))[3] == pytest.approx(WEIGHTS[3] * (WRONG + RIGHT) / 2)


def test_a_family_of_which_nothing_was_asked_is_drawn_as_one_that_is_known():
    assert family_weights(torch.zeros(2, len(WEIGHTS))) == pytest.approx([weight * RIGHT for weight in WEIGHTS])
