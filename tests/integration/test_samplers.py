"""Properties that every sampler keeps, whatever the model proposes."""

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from nemodiff.samplers import Proposal, confidence, entropy, fixed, trained

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def proposal(confidences, measured=(), step=0, block_masks=None):
    return Proposal(list(confidences), list(measured), step, block_masks or len(confidences))


@given(probabilities, st.floats(0, 1))
def test_confidence_commits_all_above_the_threshold_and_always_the_best(confidences, threshold):
    chosen = confidence(threshold).choose(proposal(confidences))
    above = {i for i, p in enumerate(confidences) if p >= threshold}
    assert above <= set(chosen)
    assert len(chosen) == max(len(above), 1)
    assert max(confidences[i] for i in chosen) == max(confidences)


@given(st.integers(1, 63), st.integers(1, 63), st.randoms())
def test_fixed_fills_a_block_in_its_steps_with_even_counts(masks, steps, random):
    left, counts, step = masks, [], 0
    while left:
        chosen = fixed(steps).choose(proposal([random.random() for _ in range(left)], step=step, block_masks=masks))
        assert len(set(chosen)) == len(chosen) <= left
        counts.append(len(chosen))
        left -= len(chosen)
        step += 1
    assert len(counts) == min(steps, masks)
    assert max(counts) - min(counts) <= 1


@given(st.lists(st.floats(0, 11), min_size=1, max_size=40), st.floats(0, 20))
def test_entropy_commits_the_longest_prefix_within_the_bound(entropies, bound):
    chosen = entropy(bound).choose(proposal([0.5] * len(entropies), entropies))
    ordered = sorted(entropies)
    values = sorted(entropies[i] for i in chosen)
    assert values == ordered[: len(values)]
    assert len(values) == 1 or math.fsum(values[:-1]) <= bound + 1e-9
    if len(values) < len(entropies):
        assert math.fsum(values) > bound - 1e-9


def test_exact_choices():
    assert confidence(0.9).choose(proposal([0.95, 0.2, 0.9, 0.89])) == [0, 2]
    assert confidence(0.9).choose(proposal([0.1, 0.3, 0.2])) == [1]
    assert fixed(3).choose(proposal([0.1, 0.9, 0.5, 0.7], step=0, block_masks=7)) == [1, 2, 3]
    assert fixed(3).choose(proposal([0.1, 0.9, 0.5, 0.7], step=1, block_masks=7)) == [1, 3]
    assert entropy(0.3).choose(proposal([0.5] * 4, [0.2, 2.0, 0.05, 0.3])) == [0, 2, 3]


def longest(values, meets):
    """The longest run from the left that `meets`, at least the first: by trying every length."""
    return list(range(max([1, *(n for n in range(1, len(values) + 1) if meets(values[:n]))])))


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=1, max_size=12), st.sampled_from([0, 0.5, 0.9, 1]))
def test_leftmost_commits_the_longest_run_that_is_sure(values, threshold):
    def sure(run):
        return all(value >= threshold for value in run)

    assert confidence(threshold, "leftmost").choose(proposal(values)) == longest(values, sure)
    scored = trained(SimpleNamespace(score=None), threshold, "leftmost")
    assert scored.choose(proposal([0.5] * len(values), values)) == longest(values, sure)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 60))
def test_leftmost_commits_the_longest_run_within_the_bound(quarters, bound):
    # Quarters add up exactly, so that no rounding blurs the bound.
    entropies = [quarter / 4 for quarter in quarters]
    chosen = entropy(bound / 4, "leftmost").choose(proposal([0.5] * len(entropies), entropies))
    assert chosen == longest(entropies, lambda run: sum(sorted(run)[:-1]) <= bound / 4)


@given(st.integers(1, 63), st.integers(1, 63))
def test_leftmost_fills_a_block_in_its_steps(masks, steps):
    left, counts, step = masks, [], 0
    while left:
        chosen = fixed(steps, "leftmost").choose(proposal([0.5] * left, step=step, block_masks=masks))
        assert chosen == list(range(len(chosen)))
        counts.append(len(chosen))
        left, step = left - len(chosen), step + 1
    assert len(counts) == min(steps, masks) and max(counts) - min(counts) <= 1


def test_exact_choices_from_the_left():
    assert confidence(0.9, "leftmost").choose(proposal([0.95, 0.2, 0.99, 0.98])) == [0]
    assert confidence(0.9, "leftmost").choose(proposal([0.95, 0.9, 0.99, 0.5])) == [0, 1, 2]
    assert confidence(0.9, "leftmost").choose(proposal([0.1, 0.99])) == [0]
    assert fixed(3, "leftmost").choose(proposal([0.1, 0.9, 0.5, 0.7], step=0, block_masks=7)) == [0, 1, 2]
    assert entropy(0.3, "leftmost").choose(proposal([0.5] * 4, [0.2, 2.0, 0.05, 0.3])) == [0, 1, 2]
