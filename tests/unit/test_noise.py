"""Noise: every seed that a request may set draws its own numbers, and those that were drawn before stay the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.decode.noise import Noise
from nemodiff.request import Request

LIKE = torch.zeros(1, 64)


def drawn(seed, purpose="token", place=0):
    return Noise(seed).gumbel(purpose, [place], LIKE)[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**63 - 1), st.integers(1, 2**31 - 1))
def test_seeds_that_differ_by_multiples_of_2_to_32_draw_differently(seed, times):
    other = (seed + times * 2**32) % 2**63
    assert not torch.equal(drawn(seed), drawn(other))
    assert Noise(seed).uniform("accept", 3) != Noise(other).uniform("accept", 3)


@pytest.mark.parametrize("seed", [2**32, 2**32 + 1, 2**53 + 1, 2**63 - 1])
def test_large_seeds_draw_by_place_and_purpose_alone(seed):
    assert torch.equal(drawn(seed, place=7), drawn(seed, place=7))
    assert not torch.equal(drawn(seed, place=7), drawn(seed, place=8))
    assert not torch.equal(drawn(seed), drawn(seed, "draft"))
    assert not torch.equal(drawn(seed), drawn(seed - 1))
    assert drawn(seed).isfinite().all()


def test_large_seeds_draw_gumbel_noise():
    noise = Noise(2**40).gumbel("token", range(150), torch.zeros(1, 1000))
    assert noise.mean() == pytest.approx(0.5772, abs=0.01)
    assert noise.var() == pytest.approx(1.6449, abs=0.03)
    uniform = torch.tensor([Noise(2**40 + i).uniform("accept", 0) for i in range(2000)])
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.03)


def test_seeds_of_recorded_runs_draw_what_they_drew():
    def before(seed, place, purpose):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + place + purpose * 0x9E3779B9) % 2**63)
        return torch.empty(64).exponential_(generator=generator).log_().neg_()

    for seed in (0, 1, 12345, 2**32 - 1):
        assert torch.equal(drawn(seed, "token", 5), before(seed, 5, 0))
        assert torch.equal(drawn(seed, "residual", 9), before(seed, 9, 3))


def test_seeds_reach_the_answer(llama_engine):
    def text(seed):
        settings = {"prompt_ids": (5, 6, 7), "modes": ("ar",), "max_new_tokens": 12, "temperature": 1.5}
        return llama_engine.generate(Request(seed=seed, ignore_eos=True, **settings)).lanes[0].tokens

    assert len({tuple(text(3 + times * 2**32)) for times in range(4)}) == 4
