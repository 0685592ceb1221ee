"""Batched AR decoding for distilling: every slot's text is what the prompt gives alone."""

import random
from pathlib import Path

import pytest
import torch

from nemodiff.training.batch_decode import BatchDecoder, _sample
from nemodiff.training.distill import DRAWS, distill, read_answers
from nemodiff.training.dual_stream import Backbone
from tests.helpers.training import END, tiny_model


def alone(model, prompt: list[int], count: int) -> list[int]:
    cache = model.new_cache(len(prompt) + count)
    tokens, inputs = [], torch.tensor(prompt)
    while len(tokens) < count and END not in tokens:
        logits = model(inputs, cache, causal=True, rows=slice(-1, None))
        cache.keep(len(inputs))
        tokens.append(int(logits[-1].argmax()))
        inputs = torch.tensor(tokens[-1:])
    return tokens


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_every_answer_is_that_of_its_prompt_alone(slots):
    model, rng = tiny_model(), random.Random(1)
    prompts = [[rng.randint(3, 60) for _ in range(rng.randint(1, 9))] for _ in range(13)]
    answers = dict(BatchDecoder(Backbone.of(model), END, slots=slots, room=24).run(prompts, 15))
    assert answers == {i: alone(model, prompt, 15) for i, prompt in enumerate(prompts)}
    assert len({len(answer) for answer in answers.values()}) > 1  # some ended by themselves


def test_a_prompt_without_room_is_refused():
    with pytest.raises(ValueError, match="room"):
        list(BatchDecoder(Backbone.of(tiny_model()), END, slots=2, room=20).run([[3] * 6], 15))


def test_sampling_keeps_to_the_nucleus_and_its_proportions():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1)
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(_sample(logits, 1.0, 0.9, generator), minlength=4) / 4000
    assert counts[3] == 0
    assert counts[:3].tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95], abs=0.03)


def test_a_resumed_run_draws_other_continuations_than_those_that_are_there(chat_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"

    def run() -> list[list[int]]:
        distill(chat_folder, file, limit=0, neutral=1, slots=2, max_new_tokens=24)
        return [record["answer_ids"] for record in read_answers(file)]

    whole = run()
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert run() == whole  # nothing is left to make
    file.write_text(first + "\n", encoding="utf-8")
    resumed = run()
    assert resumed[0] == whole[0] and len(resumed) == len(whole) == DRAWS
    assert len({tuple(answer) for answer in resumed}) == DRAWS
