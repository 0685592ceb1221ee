"""Speculative sampling leaves AR's distribution as it is: chi-square tests, which a wrong rule fails."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemodiff.decode import acceptance
from nemodiff.decode.acceptance import is_accepted, residual
from nemodiff.decode.noise import Noise
from nemodiff.engine.loading import load
from nemodiff.request import Request
from tests.helpers.checkpoints import SHAPE, open_engine, write_llama
from tests.helpers.official import END_THINK, random_ministral, spread, write_nvidia
from tests.helpers.reference import prompt_ids

WORDS = 7
WORD_SHAPE = SHAPE | {"vocab_size": WORDS, "num_hidden_layers": 1}  # thousands of answers are drawn: one layer will do
PROMPT = (1, 4, 2, 2, 5, 0, 3)


def surprise(counts: Counter, expected: dict, draws: int) -> float:
    """How far counts are from their expectation, in standard deviations (Wilson-Hilferty's normal form of chi-square).

    Cells that expect fewer than five counts are taken together.
    """
    rare = [cell for cell, p in expected.items() if p * draws < 5]
    cells = [(counts[cell], p * draws) for cell, p in expected.items() if cell not in rare]
    if rare:
        cells.append((sum(counts[cell] for cell in rare), max(sum(expected[cell] for cell in rare) * draws, 1e-9)))
    assert sum(seen for seen, _ in cells) == draws
    statistic, free = sum((seen - mean) ** 2 / mean for seen, mean in cells), len(cells) - 1
    return ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))


@pytest.fixture(scope="module")
def word_model():
    torch.manual_seed(5)
    rope = {"rope_type": "default", "rope_theta": 1e4}
    return spread(LlamaForCausalLM(LlamaConfig(**WORD_SHAPE, rope_parameters=rope)))


@pytest.fixture(scope="module", params=["aligned", "shifted"])
def engine(request, word_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words") / request.param
    shape = WORD_SHAPE | {"mask_token_id": 6, "eos_token_id": 5, "tie_word_embeddings": False}
    return open_engine(write_llama(word_model, folder, shift_logits=request.param == "shifted", **shape))


@pytest.fixture(scope="module")
def expected(word_model):
    """AR's distribution of the last two of three tokens."""
    return distribution(word_model, 3)


def distribution(model, length):
    """AR's distribution of the last two tokens of an answer, as a product of softmaxes over all beginnings."""
    temperature, pairs = 1.4, Counter()
    sequences = torch.tensor(list(itertools.product(range(WORDS), repeat=length - 1)))
    ids = torch.cat((torch.tensor([PROMPT]).expand(len(sequences), -1), sequences), 1)
    with torch.no_grad():
        shares = model(ids).logits[:, -length:].div(temperature).softmax(-1)
    before = shares[:, :-1].gather(-1, sequences[:, :, None])[..., 0].prod(-1)
    for sequence, chance, last in zip(sequences.tolist(), before.tolist(), shares[:, -1].tolist(), strict=True):
        for word, share in enumerate(last):
            pairs[sequence[-1], word] += chance * share
    assert sum(pairs.values()) == pytest.approx(1, abs=1e-4)
    return pairs


def draw(engine, draft, draws, length=3, **more):
    """The last two tokens of many answers, and how many drafts were accepted."""
    counts, accepted = Counter(), 0
    for seed in range(draws):
        request = Request(
            prompt_ids=PROMPT,
            modes=("self-speculation",),
            draft=draft,
            acceptance="sampling",
            block_length=3,
            max_new_tokens=length,
            temperature=1.4,
            seed=seed,
            ignore_eos=True,
            alternatives=0,
            **more,
        )
        lane = engine.generate(request).lanes[0]
        counts[tuple(lane.tokens[-2:])] += 1
        accepted += sum(p.state == "accepted" for event in lane.events for p in event.positions)
    return counts, accepted


@pytest.mark.parametrize("draft", ["linear", "quadratic"])
def test_text_is_distributed_as_ars(engine, expected, draft):
    draws = 900
    counts, accepted = draw(engine, draft, draws)
    assert surprise(counts, expected, draws) < 3.5
    assert accepted > draws / 10  # else it says nothing of acceptance


def test_text_over_trees_is_distributed_as_ars(engine, word_model):
    """Of five tokens: behind several candidates of a place, several places deep, drafts of an earlier forward too."""
    draws = 700
    counts, accepted = draw(engine, "tree", draws, length=5, rows=14)
    assert surprise(counts, distribution(word_model, 5), draws) < 3.5
    assert accepted > draws / 5


def test_a_wrong_rule_is_noticed(engine, expected, monkeypatch):
    monkeypatch.setattr(acceptance, "residual", lambda p, q: p)
    assert surprise(draw(engine, "linear", 900)[0], expected, 900) > 6


def test_one_position_follows_p_and_accepts_what_p_and_q_share():
    generator = torch.Generator().manual_seed(1)
    p, q = torch.rand(2, 6, generator=generator).pow(2).unbind()
    p, q = p / p.sum(), q / q.sum()
    draws, counts, accepted = 6000, Counter(), 0
    for place in range(draws):
        noise = Noise(place % 7)
        token = int((q.log() + noise.gumbel("draft", [place], q)[0]).argmax())
        if is_accepted(float(p[token]), float(q[token]), noise.uniform("accept", place)):
            accepted += 1
        else:
            token = int((residual(p, q).log() + noise.gumbel("residual", [place], q)[0]).argmax())
        counts[token] += 1
    assert surprise(counts, dict(enumerate(p.tolist())), draws) < 3.5
    assert accepted / draws == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.025)


@pytest.mark.parametrize("drawn", [True, False])
def test_candidates_of_one_place_leave_p_as_it_is_if_they_were_drawn(drawn):
    """The likeliest ones are no draw, and to test them as one makes what is likely likelier."""
    generator = torch.Generator().manual_seed(1)
    p, q = torch.rand(2, 6, generator=generator).pow(2).unbind()
    p, q = p / p.sum(), q / q.sum()
    draws, counts, firsts = 6000, Counter(), 0
    for place in range(draws):
        lane = SimpleNamespace(noise=Noise(place % 7))
        order = q.log() + lane.noise.gumbel("draft", [place], q)[0] * drawn
        candidates = order.topk(3).indices.tolist()
        chosen, left = acceptance._first_accepted(lane, candidates, p, q, place)
        firsts += chosen == 0
        residue = int((left.log() + lane.noise.gumbel("residual", [place], p)[0]).argmax())
        counts[candidates[chosen] if chosen < 3 else residue] += 1
    if not drawn:
        assert surprise(counts, dict(enumerate(p.tolist())), draws) > 6
        return
    assert surprise(counts, dict(enumerate(p.tolist())), draws) < 3.5
    assert firsts / draws == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.025)


def test_equal_distributions_reject_nothing():
    p = torch.tensor([0.2, 0.5, 0.3])
    assert all(is_accepted(share, share, 1 - 1e-7) for share in p.tolist())
    assert torch.equal(residual(p, p), p)


def settings_of(**more):
    return {"prompt_ids": prompt_ids(4), "modes": ("self-speculation",), "max_new_tokens": 30} | more


def test_at_temperature_0_every_rule_is_the_same(llama_engine):
    def events(rule):
        trace = llama_engine.generate(Request(acceptance=rule, **settings_of()))
        return [[position.to_json() for position in event.positions] for event in trace.lanes[0].events]

    assert events("match") == events("independent") == events("sampling")


def test_rules_differ_in_what_they_draw(llama_engine):
    def lane(rule):
        return llama_engine.generate(Request(acceptance=rule, temperature=1.0, seed=3, **settings_of())).lanes[0]

    match, independent, sampling = map(lane, ("match", "independent", "sampling"))
    assert match.tokens == independent.tokens  # AR's text in both
    assert sampling.tokens != match.tokens

    def first_draft(run):
        return [position.token for position in run.events[1].positions]

    assert first_draft(match) != first_draft(independent)
    assert first_draft(independent) == first_draft(sampling)


@pytest.mark.parametrize("draft", ["linear", "quadratic", "tree"])
def test_the_thinking_budget_holds_while_sampling(tmp_path_factory, draft):
    folder = tmp_path_factory.mktemp("thinking") / "m"
    engine = load(str(write_nvidia(random_ministral(), folder, tokenizer=True)), device="cpu", dtype="float32")
    for seed in range(4):
        settings = settings_of(acceptance="sampling", temperature=1.2, seed=seed, ignore_eos=True, draft=draft)
        lane = engine.generate(Request(max_thinking_tokens=9, block_length=6, **settings)).lanes[0]
        assert END_THINK in lane.tokens[:10]
