"""Released checkpoints decode to the letter: tokens and NFE against a slow loop over transformers' Ministral3Model."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.__main__ import main
from nemodiff.engine import Engine
from nemodiff.loading import load
from nemodiff.request import Request
from nemodiff.trace import MODES
from tests.official import ALPHA, END_THINK, EOS, MASK, RANK, VOCABULARY, draft_lora, random_ministral, write_nvidia

#: The mask is never the best guess here, as in a trained model; EOS and </think> come often enough to matter.
FREQUENT = {MASK: 0.0, EOS: 1.3, END_THINK: 1.2}


class Released:
    """The released decoding (card and paper), as slowly as possible: no cache, the whole sequence every forward."""

    def __init__(self, lora: bool) -> None:
        reference = random_ministral(frequent=FREQUENT)
        self.encoder, self.head = reference.model, reference.lm_head
        self.factors = draft_lora() if lora else {}
        self.block_start: int | None = None
        for index, layer in enumerate(self.encoder.layers):
            layer.self_attn.o_proj.register_forward_hook(self._hook(index))

    def _hook(self, index: int):
        def add(_module, inputs, output):
            if self.block_start is None or not self.factors:
                return output
            stem = f"base_model.model.encoder.layers.{index}.self_attn.o_proj.lora_"
            a, b = self.factors[f"{stem}A.weight"], self.factors[f"{stem}B.weight"]
            update = F.linear(F.linear(inputs[0], a), b) * (ALPHA / RANK)
            update[:, : self.block_start] = 0  # what came before was run without the adapter
            return output + update

        return add

    @torch.no_grad()
    def logits(self, ids: list[int], bidirectional_from: int | None = None, adapter: bool = False) -> torch.Tensor:
        """[len(ids), vocabulary]: causal, but for a last block in which all positions see each other."""
        sees = torch.ones(len(ids), len(ids)).tril().bool()
        if bidirectional_from is not None:
            sees[bidirectional_from:, bidirectional_from:] = True
        self.block_start = bidirectional_from if adapter else None
        hidden = self.encoder(torch.tensor(ids)[None], attention_mask=sees[None, None]).last_hidden_state
        self.block_start = None
        return self.head(hidden)[0].float()

    def guess(self, ids: list[int], start: int, adapter: bool = False) -> tuple[list[int], list[float]]:
        """Tokens and probabilities of a bidirectional block; the mask is never a token."""
        logits = self.logits(ids, start, adapter)[start:]
        probabilities = logits.softmax(-1)
        logits[:, MASK] = -torch.inf
        tokens = logits.argmax(-1)
        return tokens.tolist(), probabilities[range(len(tokens)), tokens].tolist()

    def ar_token(self, prompt: list[int], answer: list[int], budget: int | None) -> int:
        if budget is not None and len(answer) == budget and END_THINK not in answer:
            return END_THINK
        return int(self.logits(prompt + answer)[-1].argmax())

    def ar(self, prompt, count, eos, budget):
        answer = []
        while len(answer) < count and not (answer and answer[-1] in eos):
            answer.append(self.ar_token(prompt, answer, budget))
        return answer, len(answer)

    def diffusion(self, prompt, count, eos, budget, length, threshold=None, steps=None):
        answer, nfe = [], 0
        while True:
            block = [self.ar_token(prompt, answer, budget)] + [MASK] * (length - 1)
            if len(answer) + 1 >= count and block[0] not in eos:
                return answer + block[:1], nfe
            if budget is not None and END_THINK not in answer + block and 0 < budget - len(answer) < length:
                block[budget - len(answer)] = END_THINK
            masks, step = block.count(MASK), 0
            while MASK in block:
                tokens, confidence = self.guess(prompt + answer + block, len(prompt) + len(answer))
                nfe += 1
                order = sorted((i for i in range(length) if block[i] == MASK), key=lambda i: -confidence[i])
                if steps is None:
                    commit = [i for i in order if i == order[0] or confidence[i] >= threshold]
                else:
                    commit = order[: max(1, masks // steps + (step < masks % steps))]
                for i in commit:
                    block[i] = tokens[i]
                step += 1
                head = block[: block.index(MASK)] if MASK in block else block
                if any(token in eos for token in head) or len(answer) + len(head) >= count:
                    break
            nfe += 1  # the refresh
            for token in block[: block.index(MASK)] if MASK in block else block:
                answer.append(token)
                if token in eos or len(answer) == count:
                    return answer, nfe

    def linear(self, prompt, count, eos, budget, length):
        answer, nfe = [self.ar_token(prompt, [], budget)], 1
        while answer[-1] not in eos and len(answer) < count:
            known = prompt + answer[:-1]
            drafted, _ = self.guess(known + answer[-1:] + [MASK] * (length - 1), len(known), adapter=True)
            nfe += 2
            for draft in [*drafted[1:], None]:
                answer.append(self.ar_token(prompt, answer, budget))
                if answer[-1] != draft or answer[-1] in eos or len(answer) == count:
                    break
        return answer, nfe


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
