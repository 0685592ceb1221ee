"""Released checkpoints decode to the letter: tokens and NFE against a slow loop over transformers' Ministral3Model."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.cli.main import main
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.request import Request
from nemodiff.trace.events import MODES
from tests.helpers.official import (
    END_THINK,
    EOS,
    VOCABULARY,
    random_ministral,
    write_nvidia,
)
from tests.helpers.released import FREQUENT, Released


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "lora"])
def pair(request, tmp_path_factory) -> tuple[Engine, Released]:
    """An engine on a folder (the one with LoRA in shards) and the slow loop on the same weights."""
    lora = request.param
    folder = tmp_path_factory.mktemp("nvidia") / "model"
    model = random_ministral(frequent=FREQUENT)
    write_nvidia(model, folder, lora=lora, shards=3 if lora else 1, tokenizer=True)
    return load(str(folder), device="cpu", dtype="float32"), Released(lora)


def prompt_of(seed: int, length: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def decode(engine: Engine, prompt: list[int], mode: str, **more) -> tuple[list[int], int]:
    lane = engine.generate(Request(prompt_ids=tuple(prompt), modes=(mode,), **more)).lanes[0]
    return lane.tokens, lane.nfe


def eos_of(ignored: bool) -> set[int]:
    return set() if ignored else {EOS}


CASE = {
    "seed": st.integers(0, 10**6),
    "length": st.integers(1, 110),
    "count": st.integers(1, 70),
    "ignored": st.booleans(),
    "budget": st.none() | st.integers(0, 40),
}
BLOCKS = st.sampled_from([2, 3, 4, 7, 8, 16, 31, 32, 33])


def exact(examples: int):
    return settings(max_examples=examples, deadline=None, derandomize=True)


@exact(20)
@given(**CASE)
def test_ar(pair, seed, length, count, ignored, budget):
    engine, released = pair
    prompt = prompt_of(seed, length)
    got = decode(engine, prompt, "ar", max_new_tokens=count, ignore_eos=ignored, max_thinking_tokens=budget)
    assert got == released.ar(prompt, count, eos_of(ignored), budget)


@exact(40)
@given(**CASE, block=BLOCKS, threshold=st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 1.0]))
def test_diffusion(pair, seed, length, count, ignored, budget, block, threshold):
    engine, released = pair
    prompt = prompt_of(seed, length)
    got = decode(
        engine,
        prompt,
        "diffusion",
        max_new_tokens=count,
        block_length=block,
        threshold=threshold,
        ignore_eos=ignored,
        max_thinking_tokens=budget,
    )
    assert got == released.diffusion(prompt, count, eos_of(ignored), budget, block, threshold=threshold)


@exact(15)
@given(**CASE, block=BLOCKS, steps=st.integers(1, 32))
def test_diffusion_in_even_steps(pair, seed, length, count, ignored, budget, block, steps):
    engine, released = pair
    prompt, steps = prompt_of(seed, length), min(steps, block - 1)
    got = decode(
        engine,
        prompt,
        "diffusion",
        max_new_tokens=count,
        block_length=block,
        sampler="fixed",
        steps=steps,
        ignore_eos=ignored,
        max_thinking_tokens=budget,
    )
    assert got == released.diffusion(prompt, count, eos_of(ignored), budget, block, steps=steps)


@exact(40)
@given(**CASE, block=BLOCKS)
def test_linear_self_speculation(pair, seed, length, count, ignored, budget, block):
    engine, released = pair
    prompt = prompt_of(seed, length)
    got = decode(
        engine,
        prompt,
        "self-speculation",
        max_new_tokens=count,
        block_length=block,
        ignore_eos=ignored,
        max_thinking_tokens=budget,
    )
    assert got == released.linear(prompt, count, eos_of(ignored), budget, block)
    assert got[0] == released.ar(prompt, count, eos_of(ignored), budget)[0]


def test_the_grid_meets_what_it_is_for(pair):
    """Ends by EOS and by length, seeds that are EOS, and drafts accepted: else the equalities above say little."""
    engine, _ = pair
    lanes = []
    for seed in range(40):
        settings = {"modes": ("diffusion", "self-speculation"), "block_length": 4, "threshold": 0.1, "alternatives": 0}
        request = Request(prompt_ids=tuple(prompt_of(seed, 60)), max_new_tokens=48, **settings)
        lanes += engine.generate(request).lanes
    assert {lane.finish for lane in lanes} == {"eos", "length"}
    assert any(lane.mode == "diffusion" and lane.events[-1].phase == "refresh" for lane in lanes)
    assert any(length > 1 for lane in lanes for length in lane.acceptance_lengths)


def test_without_adapter_the_lora_is_off(tmp_path):
    model = random_ministral(frequent=FREQUENT)
    engine = load(str(write_nvidia(model, tmp_path / "m", lora=True)), device="cpu", dtype="float32")
    drafts = {}
    for adapter in (True, False):
        nfe = []
        for seed in range(6):
            prompt = prompt_of(seed, 30)
            got = decode(engine, prompt, "self-speculation", max_new_tokens=40, block_length=8, adapter=adapter)
            assert got == Released(adapter).linear(prompt, 40, {EOS}, None, 8)
            nfe.append(got[1])
        drafts[adapter] = nfe
    assert drafts[True] != drafts[False]


def test_sampling_is_ars_in_self_speculation_past_the_original_context(pair):
    engine, _ = pair
    for seed in range(5):
        settings = {"max_new_tokens": 40, "temperature": 1.2, "seed": seed, "max_thinking_tokens": 9}
        prompt = prompt_of(seed, 90)
        assert decode(engine, prompt, "ar", **settings)[0] == decode(engine, prompt, "self-speculation", **settings)[0]


@pytest.mark.parametrize("mode", MODES)
def test_the_command_line_gives_tokens_and_nfe(tmp_path, capsys, mode):
    folder = write_nvidia(random_ministral(frequent=FREQUENT), tmp_path / "m", lora=True, shards=2)
    prompt = prompt_of(5, 70)
    arguments = ["generate", "--checkpoint", str(folder), "--prompt-ids", ",".join(map(str, prompt)), "--mode", mode]
    assert main([*arguments, "--max-new-tokens", "40", "--dtype", "float32", "--device", "cpu", "--json"]) == 0
    lane = json.loads(capsys.readouterr().out)["lanes"][mode]
    released = Released(lora=True)
    expected = {
        "ar": lambda: released.ar(prompt, 40, {EOS}, None),
        "diffusion": lambda: released.diffusion(prompt, 40, {EOS}, None, 32, threshold=0.9),  # the card's defaults
        "self-speculation": lambda: released.linear(prompt, 40, {EOS}, None, 32),
    }[mode]()
    assert (lane["tokens"], lane["nfe"]) == expected


def test_tokenizer_and_chat_template_of_the_checkpoint(pair):
    engine, _ = pair
    assert engine.encode(Request(prompt="w5 w6")) == [5, 6, 76]
    trace = engine.generate(Request(prompt="w5 w6", modes=("ar",), max_new_tokens=5, max_thinking_tokens=2))
    assert trace.lanes[0].tokens.index(END_THINK) <= 2
    assert trace.vocabulary[END_THINK] == "</think>"


def test_a_branch_has_the_rest_of_the_budget(pair):
    engine, released = pair
    prompt = prompt_of(3, 20)
    for mode in MODES:
        settings = {"modes": (mode,), "ignore_eos": True, "max_new_tokens": 20, "max_thinking_tokens": 9}
        lane = engine.generate(Request(prompt_ids=tuple(prompt), answer_ids=(1, 2, 3), **settings)).lanes[0]
        assert END_THINK in lane.tokens[:7]
        over = engine.generate(Request(prompt_ids=tuple(prompt), answer_ids=(5,) * 12, **settings)).lanes[0]
        assert over.tokens[0] == END_THINK
    done = Request(prompt_ids=tuple(prompt), answer_ids=(END_THINK,), **settings | {"modes": ("ar",)})
    assert engine.generate(done).lanes[0].tokens == released.ar([*prompt, END_THINK], 20, set(), None)[0]
