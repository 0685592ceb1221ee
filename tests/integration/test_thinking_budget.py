"""A thinking budget ends once: where </think> comes by itself before the forced one, there is no second."""

import dataclasses

import pytest
import torch

from nemodiff.decode import DECODERS
from nemodiff.decode.lane import LaneRun, Settings
from nemodiff.decode.prefill import Prefill
from nemodiff.engine.loading import load
from nemodiff.model.output import Output
from nemodiff.request import Request
from nemodiff.samplers import confidence, fixed
from nemodiff.trace.events import Trace
from tests.helpers.official import END_THINK, random_ministral, write_nvidia

PROMPT = [5, 17, 42]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """One that often ends its thinking by itself."""
    model = random_ministral(frequent={END_THINK: 1.6, 100: 0.0})
    folder = write_nvidia(model, tmp_path_factory.mktemp("thinking") / "m", tokenizer=True)
    return load(str(folder), device="cpu", dtype="float32")


def lane_of(engine, mode="diffusion", **more):
    request = Request(prompt_ids=PROMPT, modes=(mode,), ignore_eos=True, max_new_tokens=24, **more)
    return engine.generate(request).lanes[0]


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.9])
def test_a_forced_end_of_thinking_comes_once_in_diffusion(engine, threshold):
    early = 0
    for seed in range(12):
        for budget in (3, 5, 6):
            lane = lane_of(
                engine,
                block_length=8,
                threshold=threshold,
                temperature=0.9,
                seed=seed,
                max_thinking_tokens=budget,
            )
            place = lane.tokens.index(END_THINK)
            assert place <= budget
            if place < budget:
                early += 1
                assert lane.tokens[budget] != END_THINK or place == 0
    assert early


class Scripted:
    """A lane whose denoising forwards propose </think> at the first masked place, everything else being equal."""

    def __init__(self, lane, offset):
        self._run, self._offset = lane.run, offset

    def __call__(self, tokens, *, causal, adapter=False, layout=None, rows=slice(None), few=1):
        output = self._run(tokens, causal=causal, adapter=adapter, layout=layout, rows=rows)
        if causal:
            return output
        logits = torch.zeros(len(tokens), output.logits.shape[1])
        logits[:, 7] = 1.0
        logits[self._offset, END_THINK] = 9.0
        return Output(logits[rows])


@pytest.mark.parametrize("sampler", [confidence(0.5), confidence(1.0), fixed(3)], ids=["quick", "serial", "fixed"])
@pytest.mark.parametrize("offset", [1, 2, 3])
def test_an_end_that_comes_by_itself_takes_the_forced_one_back(engine, sampler, offset):
    settings = Settings(
        max_new_tokens=6,
        block_length=6,
        sampler=sampler,
        temperature=0.0,
        seed=0,
        eos=frozenset(),
        adapter=False,
        alternatives=2,
        thinking=(4, END_THINK),
    )
    lane = LaneRun("diffusion", engine.model, Prefill(engine.model, PROMPT, 64), settings)
    lane.run = Scripted(lane, offset)
    events = list(DECODERS["diffusion"](lane))
    recorder = engine.recorder(Request(prompt_ids=PROMPT, modes=("diffusion",), max_new_tokens=6))
    for event in events:
        recorder.add(event)
    tokens = recorder.trace.lanes[0].tokens
    assert [index for index, token in enumerate(tokens) if token == END_THINK] == [offset]
    assert len(tokens) == 6
    read = Trace.from_json(recorder.trace.to_json()).lanes[0]
    assert read.tokens == tokens


def test_a_forced_end_that_stays_is_there_once(engine):
    settings = Settings(
        max_new_tokens=6,
        block_length=6,
        sampler=confidence(0.5),
        temperature=0.0,
        seed=0,
        eos=frozenset(),
        adapter=False,
        alternatives=0,
        thinking=(3, END_THINK),
    )
    for offset, places in ((4, [3, 4]), (5, [3, 5])):  # after it the model may write what it likes
        lane = LaneRun("diffusion", engine.model, Prefill(engine.model, PROMPT, 64), settings)
        lane.run = Scripted(lane, offset)
        kept = {}
        for event in DECODERS["diffusion"](lane):
            kept |= {p.index: p.token for p in event.positions if p.state in ("committed", "seed")}
        assert [index for index, token in sorted(kept.items()) if token == END_THINK] == places


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 4, 5])
def test_a_block_of_two_loses_no_token_to_the_budget(engine, budget):
    lane = lane_of(engine, block_length=2, threshold=0.9, max_thinking_tokens=budget)
    assert len(lane.tokens) == 24
    assert END_THINK in lane.tokens[: budget + 1]
    assert [event.start for event in lane.events if event.phase == "refresh"] == list(range(2, 24, 2))
    assert lane.nfe == sum(event.phase == "denoise" for event in lane.events) + 12


@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_speculative_sampling_forces_once_and_never_late(engine, draft):
    for seed in range(25):
        lane = lane_of(
            engine,
            "self-speculation",
            acceptance="sampling",
            temperature=1.3,
            seed=seed,
            draft=draft,
            block_length=4,
            max_thinking_tokens=6,
        )
        place = lane.tokens.index(END_THINK)
        assert place <= 6


def test_the_bonus_token_is_forced_by_the_drafts_that_stand(engine):
    """Which drafts are accepted decides whether thinking has ended before the verifier's own token."""
    from nemodiff.decode.acceptance import accept

    base = Settings(
        max_new_tokens=9,
        block_length=3,
        sampler=confidence(0.9),
        temperature=1.0,
        seed=0,
        eos=frozenset(),
        adapter=False,
        alternatives=0,
        acceptance="sampling",
    )
    logits = torch.zeros(3, engine.model.config.vocab_size)
    for drafted, own in (([8, END_THINK], 9), ([8, 8], END_THINK)):
        settings = dataclasses.replace(base, thinking=(2, END_THINK))
        lane = LaneRun("self-speculation", engine.model, Prefill(engine.model, PROMPT, 64), settings)
        verified = lane.choose(Output(logits.clone()), 0, causal=True)
        # The drafts are as probable to the verifier as to the drafter: they stand.
        peaked = logits.clone()
        for row, token in enumerate([*drafted, 9]):
            peaked[row, token] = 60.0
        verified = dataclasses.replace(verified, output=Output(peaked), made=(peaked, peaked.softmax(-1)))
        draft = dataclasses.replace(verified, tokens=drafted, made=(peaked[:2], peaked[:2].softmax(-1)))
        standing, now = accept(lane, draft, verified, 0)
        assert standing == 2
        assert now.tokens == [*drafted, own]
