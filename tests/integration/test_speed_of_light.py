"""The oracle against brute force on tiny made-up blocks, and against serial denoising on a tiny model."""

import dataclasses
import itertools
import json
import random
from types import SimpleNamespace

import pytest

from nemodiff.cli.main import main
from nemodiff.decode.speed_of_light import Search
from nemodiff.errors import RequestError, TraceError
from nemodiff.request import Request
from nemodiff.trace.events import Trace
from nemodiff.trace.oracle import Ceiling
from tests.helpers.reference import prompt_ids

MASK, EOS = 9, 3


class MadeUp:
    """A lane whose forward is a random table: what it guesses depends on the block alone, and often on its tokens."""

    def __init__(self, seed, length, most=100, steady=0.6):
        self.settings = SimpleNamespace(block_length=length, eos=frozenset({EOS}), max_new_tokens=most)
        self.model = SimpleNamespace(config=SimpleNamespace(mask=MASK))
        self.seed, self.steady, self.forwards = seed, steady, 0

    def stops(self, token, index):
        return False

    def denoise(self, block, start):
        assert start == 0
        self.forwards += 1
        usual = random.Random(self.seed)
        now = random.Random(f"{self.seed} {block}")
        tokens, confidence = [], []
        for _ in block[1:]:
            token, other, draw = usual.randrange(4), now.randrange(4), now.random()
            tokens.append(token if draw < self.steady else other)
            confidence.append(now.random())
        return SimpleNamespace(tokens=tokens, confidence=confidence)


def ending(lane, state):
    """How many tokens stay once nothing masked stands before an ending, else None."""
    for i, token in enumerate(state):
        if token is None:
            return None
        if token == EOS or i + 1 >= lane.settings.max_new_tokens:
            return i + 1
    return len(state)


def guesses(lane, state):
    found = lane.denoise([MASK if token is None else token for token in state], 0)
    masked = [i for i, token in enumerate(state) if token is None]
    return {i: found.tokens[i - 1] for i in sorted(masked, key=lambda i: -found.confidence[i - 1])}


def commit(state, chosen):
    return tuple(chosen.get(i, token) for i, token in enumerate(state))


def serial(lane, state):
    while ending(lane, state) is None:
        state = commit(state, dict(list(guesses(lane, state).items())[:1]))
    return state[: ending(lane, state)]


def optimum(lane, state, goal):
    """The fewest forwards to `goal` over every choice of every subset of correct guesses at every step."""
    states, count = {state}, 0
    while not any(one[: len(goal)] == goal for one in states):
        count += 1
        after = set()
        for one in states:
            right = [(i, t) for i, t in guesses(lane, one).items() if i >= len(goal) or t == goal[i]]
            for size in range(1, len(right) + 1):
                after |= {commit(one, dict(chosen)) for chosen in itertools.combinations(right, size)}
        states = after
    return count


def solve(lane, budget=10**6):
    search = Search(lane, 0, 0, budget)
    for _ in search.run():
        pass
    return search.block


@pytest.mark.parametrize("steady", [0.3, 0.6, 0.9])
def test_against_brute_force(steady):
    better, early = 0, 0
    for seed in range(40):
        lane = MadeUp(seed, length=3 + seed % 3, most=100 if seed % 2 else 4, steady=steady)
        block = solve(lane)
        first = (0, *[None] * (lane.settings.block_length - 1))
        goal = serial(lane, first)
        assert block.tokens == goal
        assert block.refreshed == (EOS not in goal and len(goal) < lane.settings.max_new_tokens)
        state = first
        for step in block.commits:
            ranked = guesses(lane, state)
            right = {i: t for i, t in ranked.items() if i >= len(goal) or t == goal[i]}
            count = len(step)
            assert sorted(step) == sorted(list(right)[:count])  # the most confident of the correct ones
            if len(block.commits) == block.serial:
                assert count  # as good as serial denoising, or its very steps
                state = commit(state, dict(list(right.items())[:count]))
                continue

            ends = [serial(lane, commit(state, dict(list(right.items())[:size]))) for size in (count, count + 1)]
            assert ends[0] == goal
            assert count == len(right) or ends[1] != goal
            state = commit(state, dict(list(right.items())[:count]))
        assert state[: len(goal)] == goal
        assert optimum(lane, first, goal) <= len(block.commits) <= block.serial
        better += len(block.commits) < block.serial
        early += len(goal) < lane.settings.block_length
    assert better
    assert early


def test_a_spent_budget_costs_forwards_never_the_target():
    cut = 0
    for seed in range(30):
        lane = MadeUp(seed, length=7, steady=0.5)
        free, tight = solve(lane), solve(lane, budget=2)
        assert tight.tokens == free.tokens
        assert tight.simulated <= 2 + len(tight.commits)
        cut += tight.exhausted
        assert not free.exhausted
    assert cut


def request(**more):
    return Request(**{"prompt_ids": prompt_ids(4), "max_new_tokens": 30, "block_length": 6} | more)


def ceiling_of(engine, asked):
    steps = list(engine.ceiling(asked))
    return Ceiling([step.block for step in steps if step.block]), steps


@pytest.mark.parametrize("ignore_eos", [True, False])
@pytest.mark.parametrize("kind", ["llama", "nvidia"])
def test_the_target_is_serial_denoising(kind, request, ignore_eos):
    engine = request.getfixturevalue(f"{kind}_engine")
    for seed in range(3):
        asked = Request(
            prompt_ids=prompt_ids(seed, 30),
            modes=("diffusion",),
            max_new_tokens=26,
            block_length=6,
            ignore_eos=ignore_eos,
        )
        ceiling, steps = ceiling_of(engine, asked)
        lane = engine.generate(dataclasses.replace(asked, sampler="fixed", steps=5)).lanes[0]
        assert ceiling.tokens == lane.tokens
        assert ceiling.serial == lane.forwards
        assert ceiling.forwards <= lane.forwards
        committed = [i for block in ceiling.blocks for step in block.commits for i in step]
        seeds = [block.start for block in ceiling.blocks]
        assert ceiling.kept_counts()[-1] == len(ceiling.tokens)
        assert len(ceiling.kept_counts()) == ceiling.forwards + 1
        assert set(range(len(ceiling.tokens))) <= {*committed, *seeds}
        assert len(committed) == len(set(committed))
        assert [step.forwards for step in steps] == sorted(step.forwards for step in steps)


def test_closing_stops_it_and_frees_the_engine(llama_engine):
    steps = llama_engine.ceiling(request())
    next(steps)
    steps.close()
    assert llama_engine.generate(request(modes=("ar",), max_new_tokens=2)).lanes[0].tokens


def test_bad_input_is_refused_before_it_starts(llama_engine):
    with pytest.raises(RequestError, match="budget"):
        llama_engine.ceiling(request(), budget=0)
    with pytest.raises(RequestError, match="context"):
        llama_engine.ceiling(request(max_new_tokens=4000))


def test_the_command_prints_a_row_a_block_length(nvidia_folder, capsys, tmp_path):
    from tests.helpers.official import random_ministral, write_nvidia

    folder = write_nvidia(random_ministral(), tmp_path / "m", tokenizer=True)
    arguments = ["speed-of-light", "--checkpoint", str(folder), "--dtype", "float32", "--max-new-tokens", "12"]
    assert main([*arguments, "--prompts", "2", "--block-lengths", "3,4", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["block_length"] for row in rows] == [3, 4]
    assert all(row["serial_tpf"] <= row["ceiling_tpf"] <= row["ceiling_per_denoising"] for row in rows)
    assert main([*arguments, "--prompt", "w5 w6", "--block-lengths", "4"]) == 0
    assert "| 4 | " in capsys.readouterr().out
    assert main([*arguments, "--prompts", "99"]) == 2
    assert main([*arguments, "--block-lengths", "4,x"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_ceiling_is_read_back_and_a_bad_one_is_not(llama_engine):
    ceiling, _ = ceiling_of(llama_engine, request())
    data = json.loads(json.dumps(ceiling.to_json()))
    assert Ceiling.from_json(data) == ceiling
    block = data["blocks"][0]
    for bad in ({}, {"blocks": []}, {"blocks": [5]}, {"blocks": [block | {"tokens": ["<b>"]}]}):
        with pytest.raises(ValueError, match="no "):
            Ceiling.from_json(bad)
    for name in ("commits", "serial", "refreshed", "start"):
        with pytest.raises(ValueError, match="no "):
            Ceiling.from_json({"blocks": [block | {name: None}]})


def test_a_trace_carries_its_ceiling(llama_engine):
    trace = llama_engine.generate(request(modes=("diffusion",)))
    trace.lanes[0].ceiling, _ = ceiling_of(llama_engine, request())
    assert Trace.from_json(trace.to_json()).lanes[0].ceiling == trace.lanes[0].ceiling
    with pytest.raises(TraceError, match="ceiling"):
        Trace.from_json(trace.to_json().replace('"ceiling":{"blocks":[', '"ceiling":{"blocks":[7,'))
