"""Acceptance measured during training: with the weights of the moment, as the engine decodes."""

import pytest
import torch

from nemodiff.engine.local import Defaults, Engine
from nemodiff.request import Request
from nemodiff.training.watch import GROUPS, Watch, tuned_model, watched_prompts
from tests.helpers.engines import WithText
from tests.helpers.training import MASK, merged_model, tiny_lora, tiny_model


def test_the_tuned_model_follows_the_update_without_a_copy():
    model = tiny_model()
    lora = tiny_lora(model)
    tuned = tuned_model(model, lora, MASK)
    tokens = torch.tensor([3, 9, 27, 5])
    for _ in range(2):
        expected = merged_model(model, lora)(tokens, model.new_cache(8), causal=True)
        torch.testing.assert_close(tuned(tokens, tuned.new_cache(8), causal=True), expected, atol=1e-4, rtol=1e-4)
        lora.values.mul_(1.5)
        lora.merge()


def test_sums_are_those_of_real_runs(tmp_path):
    model = tiny_model()
    lora = tiny_lora(model)
    watch = Watch(tmp_path, model, lora, MASK)
    watch._engine = WithText(watch._engine)
    prompts = [("structured", "one"), ("open", "two"), ("open", "three")]
    sums = watch.measure(prompts, max_new_tokens=20)

    other = merged_model(model, lora)
    engine = WithText(Engine("x", other, watch._engine._engine.tokenizer, Defaults(8)))
    expected = {group: [0, 0] for group in GROUPS}
    for group, prompt in prompts:
        request = Request(prompt=prompt, modes=("self-speculation",), max_new_tokens=20)
        lengths = engine.generate(request).lanes[0].acceptance_lengths
        expected[group][0] += sum(lengths)
        expected[group][1] += len(lengths)
    assert sums.tolist() == list(expected.values())


def test_watched_prompts_are_held_out():
    prompts = watched_prompts()
    assert [group for group, _ in prompts] == ["structured"] * 10 + ["open"] * 6
    assert len({prompt for _, prompt in prompts}) == len(prompts)
    assert prompts == watched_prompts()


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compiling takes longer than these tests."""
    from nemodiff.training import dual_stream

    monkeypatch.setattr(dual_stream, "_USE_COMPILED", False)
