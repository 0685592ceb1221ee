"""Quadratic self-speculation: its mask against small forwards, its rows' bits, its text, its drafts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.decode.quadratic import layouts
from nemodiff.errors import RequestError
from nemodiff.model.layout import groups
from nemodiff.request import Request
from nemodiff.trace.events import Trace
from tests.helpers.checkpoints import DTYPES, EOS, MASK, load_as, open_engine, random_llama, write_llama
from tests.helpers.reference import Obvious, prompt_ids, speculation_beside_ar

KINDS = ("aligned", "shifted", "nvidia")


@pytest.fixture(scope="module")
def engines(tmp_path_factory, nvidia_engine):
    """Both conventions of logits, and the released layout with its draft LoRA."""
    root = tmp_path_factory.mktemp("quadratic")
    made = {
        kind: open_engine(write_llama(random_llama(seed=3), root / kind, shift_logits=kind == "shifted"))
        for kind in ("aligned", "shifted")
    }
    return made | {"nvidia": nvidia_engine}


def prefilled(model, ids, room=300):
    cache = model.new_cache(len(ids) + room)
    model(ids, cache, causal=True)
    cache.keep(len(ids))
    return cache


def ids_of(count, seed=0):
    return torch.tensor(prompt_ids(seed, count))


def test_a_layout_is_what_the_paper_draws():
    aligned = groups(1, 2, again=False)
    assert aligned.positions.tolist() == [0, 1, 1, 2, 2, 3]
    assert aligned.visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
    ]
    again = groups(1, 1, again=True)
    assert again.positions.tolist() == [0, 1, 0, 1, 1, 2]
    assert again.visible.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 1, 1],
        [1, 0, 0, 0, 1, 1],
    ]
    for k in range(2, 17):  # the paper counts k(k + 1) rows where k tokens are verified
        assert groups(k - 1, k, again=False).rows == groups(k - 1, k - 1, again=True).rows == k * (k + 1)


@pytest.mark.parametrize("length", [2, 5, 16])
@pytest.mark.parametrize("ar_weight", [1.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_equals_a_loop_of_small_ones(engines, kind, length, ar_weight):
    """Every verified token alone and causally, every group alone after it: the same logits, the LoRA on groups only."""
    model = engines[kind].model
    adapter, shifted = kind == "nvidia", model.config.shift_logits
    ids = ids_of(60 + length)
    block = ids[60:].tolist()
    again = shifted and ar_weight < 1

    def group(token):
        return [token] * again + [MASK] * (length - shifted)

    rows = block + [row for token in block for row in group(token)]
    layout = layouts(model, length, ar_weight)[length - 1]
    together = model(torch.tensor(rows), prefilled(model, ids[:60]), causal=True, adapter=adapter, layout=layout)
    cache, alone, behind = prefilled(model, ids[:60]), [], []
    for token in block:
        one = torch.tensor([token])
        if again:
            behind.append(model(torch.tensor(group(token)), cache, causal=False, adapter=adapter))
        alone.append(model(one, cache, causal=True))
        cache.keep(1)
        if not again:
            behind.append(model(torch.tensor(group(token)), cache, causal=False, adapter=adapter))
    assert torch.equal(together[:length], torch.cat(alone))
    torch.testing.assert_close(together[length:], torch.cat(behind), rtol=1e-4, atol=1e-4)
    if adapter:
        without = model(torch.tensor(rows), prefilled(model, ids[:60]), causal=True, layout=layout)
        assert torch.equal(without[:length], together[:length])
        assert not torch.allclose(without[length:], together[length:], rtol=1e-3, atol=1e-3)


@settings(max_examples=12, deadline=None)
@given(
    prompt=st.integers(1, 280),
    length=st.integers(2, 16),
    dtype=st.sampled_from(DTYPES),
    again=st.booleans(),
)
def test_verified_rows_have_the_bits_of_one_row_forwards(llama_folder, prompt, length, dtype, again):
    model = load_as(llama_folder, dtype)
    ids = ids_of(prompt + length + 4, prompt)
    layout = groups(length - 1, length - again, again=again)
    cache = prefilled(model, ids[:prompt])
    rows = torch.cat((ids[prompt : prompt + length], torch.full((layout.rows - length,), MASK)))
    together = [model(rows, cache, causal=True, layout=layout)[:length]]
    cache.keep(length)  # what acceptance keeps: the next rows see these keys
    together += [model(token[None], cache, causal=True) for token in ids[prompt + length :][:1]]
    cache, alone = prefilled(model, ids[:prompt]), []
    for token in ids[prompt : prompt + length + 1]:
        alone.append(model(token[None], cache, causal=True))
        cache.keep(1)
    assert torch.equal(torch.cat(together), torch.cat(alone))


def run(engine, **more):
    return engine.generate(Request(draft="quadratic", **more))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    block_length=st.integers(2, 16),
    count=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    acceptance=st.sampled_from(["match", "independent"]),
    adapter=st.booleans(),
)
@pytest.mark.parametrize("kind", KINDS)
def test_its_text_is_ars(engines, kind, seed, block_length, count, temperature, acceptance, adapter):
    speculation = speculation_beside_ar(
        engines[kind],
        kind,
        seed,
        draft="quadratic",
        max_new_tokens=count,
        block_length=block_length,
        temperature=temperature,
        acceptance=acceptance,
        adapter=adapter,
    )
    assert speculation.forwards == len(speculation.acceptance_lengths)
    assert speculation.nfe == 1 + len(speculation.acceptance_lengths)


class Slow(Obvious):
    """Quadratic self-speculation with whole sequences and one group at a time."""

    def __init__(self, model, shifted):
        super().__init__(model)
        self.shifted = shifted

    def behind(self, ids, length, again):
        """Probabilities of the places after ids, by the group that stands there."""
        start = len(ids) - again
        logits = self.logits([*ids, *[MASK] * (length - self.shifted)], start)[start:].float()
        logits[:, MASK] = -torch.inf
        return logits.softmax(-1)

    def decode(self, prompt, count, length, ar_weight):
        """Returns (tokens, drafts of every cycle, tokens per cycle)."""
        again = self.shifted and ar_weight < 1
        answer, draft, drafts, lengths = [self.next(list(prompt))], [], [], []
        while answer[-1] != EOS and len(answer) < count:
            lengths.append(0)
            for expected in [*draft, None]:
                ids = [*prompt, *answer]
                p = ar_weight * self.logits(ids)[-1].float().softmax(-1)
                if ar_weight < 1:
                    p += (1 - ar_weight) * self.behind(ids, length, again)[0]
                answer.append(self.best(p))
                lengths[-1] += 1
                if answer[-1] != expected or answer[-1] == EOS or len(answer) == count:
                    break
            draft = [self.best(p) for p in self.behind([*prompt, *answer[:-1]], length, again)[1 - length :]]
            drafts.append(draft)
        return answer, drafts, lengths


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    block_length=st.integers(2, 9),
    count=st.integers(1, 30),
    ar_weight=st.sampled_from([1.0, 1.0, 0.6, 0.0]),
)
@pytest.mark.parametrize("kind", ["aligned", "shifted"])
def test_its_drafts_and_its_mix_are_those_of_a_slow_loop(engines, kind, seed, block_length, count, ar_weight):
    settings = {"modes": ("self-speculation",), "max_new_tokens": count, "ar_weight": ar_weight}
    lane = run(engines[kind], prompt_ids=prompt_ids(seed), block_length=block_length, **settings).lanes[0]
    slow = Slow(random_llama(seed=3), kind == "shifted")
    tokens, drafts, lengths = slow.told(slow.decode, prompt_ids(seed), count, block_length, ar_weight)
    assert lane.tokens == tokens
    assert lane.acceptance_lengths == lengths
    drafted = [[p.token for p in event.positions if p.state == "drafted"] for event in lane.events[1:]]
    assert drafted[:-1] == drafts[:-1]  # the last forward's would have been for no one
    assert not drafted or drafted[-1] == []


def test_drafts_of_an_untrained_model_are_sometimes_accepted(engines):
    """So that the equalities above are not carried by rejections alone."""
    for engine in engines.values():
        settings = {"modes": ("self-speculation",), "max_new_tokens": 40, "block_length": 4, "alternatives": 0}
        lanes = (run(engine, prompt_ids=prompt_ids(seed, 40), **settings).lanes[0] for seed in range(12))
        assert any(length > 1 for lane in lanes for length in lane.acceptance_lengths)


def test_eos_among_accepted_drafts_cuts_what_follows(engines):
    """Every place of the answer is made the EOS in turn: the text ends there, as AR's does."""
    engine = engines["shifted"]
    prompt = prompt_ids(8)
    settings = {"prompt_ids": prompt, "max_new_tokens": 24, "block_length": 4, "alternatives": 0}
    tokens = run(engine, modes=("ar",), ignore_eos=True, **settings).lanes[0].tokens
    config = engine.model.config
    try:
        for eos in set(tokens):
            object.__setattr__(config, "eos_token_ids", (eos,))
            lane = run(engine, modes=("self-speculation",), **settings).lanes[0]
            assert lane.tokens == tokens[: tokens.index(eos) + 1]
            assert lane.finish == "eos"
    finally:
        object.__setattr__(config, "eos_token_ids", (EOS,))


def test_a_cycle_is_one_event_that_shows_every_group(engines):
    lane = run(
        engines["shifted"], prompt_ids=prompt_ids(2), modes=("self-speculation",), max_new_tokens=30, ignore_eos=True
    ).lanes[0]
    first, *rest = lane.events[1:]
    assert (first.phase, first.rows, len(first.groups)) == ("verify", 1 + 7, 1)
    for event in rest:
        assert (event.phase, event.rows, event.length) == ("verify", 8 * 8, 8)
        assert [len(group) for group in event.groups] == [7] * 8
    for event in lane.events[1:-1]:
        standing = sum(p.state in ("accepted", "corrected", "bonus") for p in event.positions)
        drafted = [p for p in event.positions if p.state == "drafted"]
        assert [(p.token, p.confidence) for p in drafted] == event.groups[standing - 1]
        assert [p.index for p in drafted] == [event.start + standing + 1 + i for i in range(7)]


def test_groups_survive_a_trace_file_and_bad_ones_do_not(engines):
    trace = run(engines["aligned"], prompt_ids=prompt_ids(2), modes=("self-speculation",), max_new_tokens=9)
    text = trace.to_json()
    assert Trace.from_json(text).to_json() == text
    event = trace.to_dict()["lanes"][0]["events"][2]
    assert event["rows"] == 72
    assert Trace.from_json(text).lanes[0].events[2].groups[7][6][0] == event["groups"][7][6][0]
    for bad in ('"groups":[[["x",0.5]]]', '"groups":[5]', '"groups":{}', '"groups":[[[3,1.5]]]'):
        with pytest.raises(ValueError, match="groups"):
            Trace.from_json(text.replace('"groups":', bad + ',"x":'))


def test_settings_that_do_not_go_together_are_refused_in_a_sentence():
    for asked, says in (
        ({"draft": "quadratic", "block_length": 17}, "up to 16"),
        ({"ar_weight": 0.5}, "draft quadratic"),
        ({"draft": "quadratic", "ar_weight": 1.1}, "ar_weight"),
        ({"acceptance": "maybe"}, "acceptance"),
    ):
        with pytest.raises(RequestError, match=says):
            Request(prompt="hello", **asked)


def test_a_default_block_longer_than_16_is_shortened(engines, tmp_path):
    engine = open_engine(write_llama(random_llama(), tmp_path / "long"), block_length=32)
    lane = run(engine, prompt_ids=prompt_ids(1), modes=("self-speculation",), max_new_tokens=5).lanes[0]
    assert lane.events[1].length == 16
