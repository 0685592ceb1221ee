"""Trees of drafts and the order from the left with the default checkpoint, as it loads here."""

from statistics import fmean

import pytest

import nemodiff
from nemodiff.examples import EXAMPLES
from nemodiff.request import Request

PROMPTS = [example.prompt for example in EXAMPLES if example.label in ("JSON person", "Blue sky")]


@pytest.fixture(scope="module")
def engine():
    return nemodiff.load()


@pytest.mark.parametrize("rows", [8, 64, None])
def test_a_trees_text_is_ars_and_takes_fewer_forwards(engine, rows):
    for prompt in PROMPTS:
        request = Request(
            prompt=prompt, modes=("ar", "self-speculation"), draft="tree", rows=rows, max_new_tokens=24, alternatives=0
        )
        ar, lane = engine.generate(request).lanes
        assert lane.tokens == ar.tokens
        assert lane.forwards <= ar.forwards
        if rows:
            assert max(event.rows for event in lane.events[1:]) <= rows


def test_what_a_tree_expects_is_about_what_it_gets(engine):
    """The marginals are probabilities of the right size: no more is promised than half again what comes."""
    expected, got = [], []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, modes=("self-speculation",), draft="tree", rows=24, max_new_tokens=48)
        lane = engine.generate(request).lanes[0]
        expected += [event.expected for event in lane.events[1:]]
        got += lane.acceptance_lengths
    assert 0.67 < fmean(expected) / fmean(got) < 1.5


def test_from_the_left_each_forward_extends_what_is_there(engine):
    request = Request(prompt=PROMPTS[1], modes=("diffusion",), order="leftmost", max_new_tokens=24, ignore_eos=True)
    held: set[int] = set()
    for event in engine.generate(request).lanes[0].events:
        held |= {position.index for position in event.positions if position.state in ("committed", "seed")}
        assert held == set(range(len(held)))
