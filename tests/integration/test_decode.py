"""Each mode against a slow, obvious re-implementation that runs transformers' model on whole sequences."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.engine import local as engine_module
from nemodiff.model import memory
from nemodiff.request import Request
from nemodiff.trace.events import MODES
from tests.helpers.checkpoints import EOS, MASK, open_engine, random_llama, write_llama
from tests.helpers.official import random_ministral
from tests.helpers.reference import Obvious, prompt_ids, speculation_beside_ar


@pytest.fixture(scope="module")
def llama_obvious():
    return Obvious(random_llama())


@pytest.fixture(scope="module")
def nvidia_obvious():
    return Obvious(random_ministral())


def run(engine, **settings):
    return engine.generate(Request(**settings))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 80), count=st.integers(1, 40))
def test_ar_equals_the_obvious_loop(llama_engine, llama_obvious, seed, length, count):
    prompt = prompt_ids(seed, length)
    lane = run(llama_engine, prompt_ids=prompt, modes=("ar",), max_new_tokens=count).lanes[0]
    assert lane.tokens == llama_obvious.told(llama_obvious.autoregressive, prompt, count, {EOS})
    assert lane.nfe == lane.nfe_counts()[-1] == len(lane.tokens)
    assert lane.forwards == len(lane.tokens) - 1
    assert lane.finish == ("eos" if lane.tokens[-1] == EOS else "length")


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    block_length=st.integers(2, 17),
    threshold=st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3, 0.9, 1.0]),
    count=st.integers(1, 40),
    ignore_eos=st.booleans(),
)
@pytest.mark.parametrize("order", ["best", "leftmost"])
@pytest.mark.parametrize("kind", ["llama", "nvidia"])
def test_diffusion_equals_the_obvious_loop(kind, order, request, seed, block_length, threshold, count, ignore_eos):
    engine, obvious = request.getfixturevalue(f"{kind}_engine"), request.getfixturevalue(f"{kind}_obvious")
    prompt = prompt_ids(seed, 60 if kind == "nvidia" else 12)  # nvidia: runs past the original context of 48
    lane = run(
        engine,
        prompt_ids=prompt,
        modes=("diffusion",),
        max_new_tokens=count,
        block_length=block_length,
        threshold=threshold,
        order=order,
        ignore_eos=ignore_eos,
    ).lanes[0]
    ends = set() if ignore_eos else {EOS}
    asked = (prompt, count, ends, block_length, threshold, order)
    tokens, steps, eos_seed = obvious.told(obvious.diffusion, *asked)
    assert lane.tokens == tokens
    assert lane.nfe == lane.nfe_counts()[-1] == sum(steps) + len(steps) + 2 * eos_seed
    assert sum(event.phase == "denoise" for event in lane.events) == sum(steps)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    block_length=st.integers(2, 33),
    count=st.integers(1, 60),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    adapter=st.booleans(),
)
@pytest.mark.parametrize("kind", ["llama", "nvidia"])
def test_self_speculation_equals_ar(kind, request, seed, block_length, count, temperature, adapter):
    engine = request.getfixturevalue(f"{kind}_engine")
    speculation = speculation_beside_ar(
        engine,
        kind,
        seed,
        max_new_tokens=count,
        block_length=block_length,
        temperature=temperature,
        adapter=adapter,
    )
    assert speculation.nfe == speculation.nfe_counts()[-1] == 1 + 2 * len(speculation.acceptance_lengths)


def test_drafts_of_an_untrained_model_are_sometimes_accepted(llama_engine):
    """So that the equality above is not carried by rejections alone."""
    lanes = [
        run(
            llama_engine, prompt_ids=prompt_ids(s), modes=("self-speculation",), max_new_tokens=60, ignore_eos=True
        ).lanes[0]
        for s in range(8)
    ]
    assert any(length > 1 for lane in lanes for length in lane.acceptance_lengths)


def test_the_adapter_changes_drafts_only(nvidia_engine):
    prompt = prompt_ids(3)
    drafts = []
    for adapter in (True, False):
        lane = run(
            nvidia_engine,
            prompt_ids=prompt,
            modes=("self-speculation",),
            max_new_tokens=24,
            adapter=adapter,
            block_length=8,
        ).lanes[0]
        drafts.append([[p.token for p in e.positions] for e in lane.events if e.phase == "draft"])
        tokens = lane.tokens
    assert drafts[0] != drafts[1]
    assert tokens == run(nvidia_engine, prompt_ids=prompt, modes=("ar",), max_new_tokens=24).lanes[0].tokens


def test_shifted_logits_read_the_row_before(tmp_path):
    """With shift_logits, one mask after the seed is read off the seed's own row: a causal model drafts AR's token."""
    folder = write_llama(random_llama(), tmp_path / "shifted", shift_logits=True)
    engine, obvious = open_engine(folder), Obvious(random_llama())
    prompt = list(prompt_ids(5))
    lane = run(
        engine, prompt_ids=tuple(prompt), modes=("self-speculation",), max_new_tokens=2, block_length=2, ignore_eos=True
    ).lanes[0]
    draft = next(event for event in lane.events if event.phase == "draft")
    logits = obvious.logits([*prompt, lane.tokens[0], MASK], len(prompt))
    logits[:, MASK] = -torch.inf
    assert draft.positions[0].token == int(logits[-2].argmax())


def test_seeds_decide_sampled_text(llama_engine):
    def text(seed):
        return (
            run(llama_engine, prompt_ids=prompt_ids(1), max_new_tokens=30, temperature=1.0, seed=seed, modes=("ar",))
            .lanes[0]
            .tokens
        )

    assert text(1) == text(1)
    assert len({tuple(text(seed)) for seed in range(4)}) > 1


@pytest.mark.parametrize("mode", MODES)
def test_every_token_is_set_once_and_for_good(llama_engine, mode):
    lane = run(
        llama_engine, prompt_ids=prompt_ids(4), modes=(mode,), max_new_tokens=50, threshold=0.05, ignore_eos=True
    ).lanes[0]
    kept = {}
    for event in lane.events:
        for position in event.positions:
            if position.state in ("committed", "accepted", "corrected", "bonus", "seed"):
                assert position.index not in kept
                kept[position.index] = position.token
                assert position.top and 0 <= position.confidence <= 1
    assert [kept[i] for i in range(50)] == lane.tokens
    assert [event.forward for event in lane.events] == list(range(len(lane.events)))
    clocks = [event.clock_ms for event in lane.events]
    assert clocks == sorted(clocks)


def test_peak_memory_is_the_runs_and_not_the_processs_since_its_start(llama_engine, monkeypatch):
    """As a GPU counts: bytes allocated now, and the most since the count was begun anew."""
    gpu = {"now": 100, "most": 100}

    def allocate(more: int) -> None:
        gpu["now"] += more
        gpu["most"] = max(gpu["most"], gpu["now"])

    monkeypatch.setattr(engine_module, "reset_peak", lambda device: gpu.update(most=gpu["now"]))
    monkeypatch.setattr(engine_module, "peak", lambda device: gpu["most"])

    def generate(more: int) -> list[int | None]:
        def on_event(event):
            if event.phase == "prefill":
                allocate(more)

        trace = llama_engine.generate(Request(prompt_ids=(1, 2), modes=("ar", "diffusion"), max_new_tokens=3), on_event)
        allocate(-2 * more)
        return [lane.peak_memory for lane in trace.lanes]

    assert generate(50) == [200, 200]
    assert generate(1) == [102, 102]  # the earlier run's 200 is not this one's


def test_peak_memory_is_asked_of_a_gpu_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(("reset", device.type)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: asked.append(("peak", device.type)) or 7)
    for kind, expected in (("cpu", None), ("cuda", 7)):
        memory.reset_peak(torch.device(kind))
        assert memory.peak(torch.device(kind)) == expected
    assert asked == [("reset", "cuda"), ("peak", "cuda")]
