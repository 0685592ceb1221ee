"""Temperatures down to 0: the colder, the nearer to the greedy text, whatever draws."""

import pytest
import torch

from nemodiff.decode.lane import LaneRun, Settings
from nemodiff.decode.prefill import Prefill
from nemodiff.decode.quadratic import _mixed
from nemodiff.model.output import Output
from nemodiff.request import COLDEST, Request
from nemodiff.samplers import confidence
from nemodiff.trace.events import MODES
from tests.helpers.checkpoints import VOCABULARY

PROMPT = (5, 17, 42, 7)
COLD = [5e-324, 1e-300, 1e-46, 1e-40, 1e-38, 1e-30, 1e-12, 9e-7]


def lanes(engine, **more):
    request = Request(prompt_ids=PROMPT, max_new_tokens=24, block_length=4, seed=3, ignore_eos=True, **more)
    return {lane.mode: lane for lane in engine.generate(request).lanes}


@pytest.mark.parametrize("acceptance", ["match", "independent", "sampling"])
@pytest.mark.parametrize("temperature", COLD)
def test_tiny_temperatures_write_the_greedy_text(llama_engine, acceptance, temperature):
    greedy, cold = lanes(llama_engine), lanes(llama_engine, temperature=temperature, acceptance=acceptance)
    for mode in MODES:
        assert cold[mode].tokens == greedy[mode].tokens
        shown = [p.confidence for event in cold[mode].events for p in event.positions if p.confidence is not None]
        assert all(0 <= confidence <= 1 for confidence in shown)


@pytest.mark.parametrize("acceptance", ["match", "sampling"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_tiny_temperatures_write_the_greedy_text_of_a_quadratic_draft(llama_engine, acceptance, weight):
    settings = {"modes": ("self-speculation",), "draft": "quadratic", "ar_weight": weight}
    greedy = lanes(llama_engine, **settings)
    for temperature in (1e-300, 1e-38, 1e-9):
        cold = lanes(llama_engine, temperature=temperature, acceptance=acceptance, **settings)
        assert cold["self-speculation"].tokens == greedy["self-speculation"].tokens


def test_the_coldest_temperature_that_draws_has_finite_quotients():
    assert (torch.tensor([1e4, -1e4]) / COLDEST).isfinite().all()


def mixed(lane, ar, diffusion):
    """Logits of the mixture of two rows' logits [rows, vocab] each."""
    behind = [Output(row[None]) for row in diffusion.clone()]
    return _mixed(lane, Output(ar.clone()), behind)


def lane_at(engine, temperature, weight):
    settings = Settings(
        max_new_tokens=8,
        block_length=4,
        sampler=confidence(0.9),
        temperature=temperature,
        seed=0,
        eos=frozenset(),
        adapter=False,
        alternatives=0,
        draft="quadratic",
        ar_weight=weight,
    )
    return LaneRun("self-speculation", engine.model, Prefill(engine.model, list(PROMPT), 64), settings)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.9])
def test_a_mixture_changes_continuously_with_the_temperature(llama_engine, weight):
    generator = torch.Generator().manual_seed(1)
    ar, diffusion = (torch.randn(3, VOCABULARY, generator=generator) * 3 for _ in range(2))

    def distribution(temperature):
        lane = lane_at(llama_engine, temperature, weight)
        return (mixed(lane, ar, diffusion).logits / temperature).softmax(-1)

    greedy = mixed(lane_at(llama_engine, 0.0, weight), ar, diffusion).logits
    for temperature in (1.0, 0.5, 0.1, 0.01):
        torch.testing.assert_close(distribution(temperature), distribution(temperature * 1.0001), atol=2e-3, rtol=0)
    assert torch.equal(distribution(1e-4).argmax(-1), greedy.argmax(-1))
    assert distribution(1e-4).amax(-1).min() > 0.99


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_a_mixtures_confidence_is_the_mixtures_probability(llama_engine, temperature):
    generator = torch.Generator().manual_seed(2)
    ar, diffusion = (torch.randn(2, VOCABULARY, generator=generator) for _ in range(2))
    lane = lane_at(llama_engine, temperature, 0.25)
    hidden = diffusion.clone()
    hidden[:, llama_engine.model.config.mask] = -torch.inf
    expected = 0.25 * ar.softmax(-1) + 0.75 * hidden.softmax(-1)
    guesses = lane.choose(mixed(lane, ar, diffusion), 0, causal=True)
    for row, (token, shown) in enumerate(zip(guesses.tokens, guesses.confidence, strict=True)):
        assert shown == pytest.approx(float(expected[row, token]), rel=1e-4)


def test_an_ar_weight_near_one_draws_what_one_draws(llama_engine):
    settings = {"modes": ("self-speculation",), "draft": "quadratic", "temperature": 0.7}
    near, one = (lanes(llama_engine, ar_weight=weight, **settings) for weight in (1 - 1e-9, 1.0))
    assert near["self-speculation"].tokens == one["self-speculation"].tokens
