"""The rules: confidence threshold, fixed steps, entropy bound, trained network. Each is made once per run and
called once per forward.

Every rule has two orders. best: what is surest goes first, wherever it lies (as released). leftmost: the longest run
from the left end of the masked part that meets the same bound, and always its first position, so that nothing is fixed
before what is to its left is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from nemodiff.samplers.trained import TrainedSampler, entropies


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one denoising forward proposes for the positions of a block that are still masked.

    confidence: probability of each position's proposed token, from left to right. measured: what the sampler's
    `measure` made of each position (empty without one). step: denoising forwards already run on this block.
    block_masks: masks that the block started with.
    """

    confidence: list[float]
    measured: list[float]
    step: int
    block_masks: int


@dataclass(frozen=True, slots=True)
class Sampler:
    """choose: Proposal → indices to commit (at least one).

    measure: what the rule ranks by, where that is not the confidence: (probabilities [positions, vocab] of all guessed
    positions of the block, which of them are masked) → figures [positions]. It runs on the model's device and counts as
    model time.
    """

    name: str
    choose: Callable[[Proposal], list[int]]
    measure: Callable[[Tensor, list[bool]], Tensor] | None = None


def confidence(threshold: float, order: str = "best") -> Sampler:
    """Commit every position whose confidence >= threshold, and always the single best (the released rule)."""

    def choose(proposal: Proposal) -> list[int]:
        if order == "leftmost":
            return _leading_run(p >= threshold for p in proposal.confidence)
        best = _best_first(proposal.confidence)[0]
        return [i for i, p in enumerate(proposal.confidence) if p >= threshold or i == best]

    return Sampler("confidence", choose)


def fixed(steps: int, order: str = "best") -> Sampler:
    """Fill a block in `steps` forwards: an even number of commits per forward, in `order`, the remainder early."""

    def choose(proposal: Proposal) -> list[int]:
        each, extra = divmod(proposal.block_masks, steps)
        count = max(each + (proposal.step < extra), 1)
        if order == "leftmost":
            return list(range(min(count, len(proposal.confidence))))
        return sorted(_best_first(proposal.confidence)[:count])

    return Sampler("fixed", choose)


def entropy(bound: float, order: str = "best") -> Sampler:
    """Commit the longest low-entropy prefix whose entropies, the largest left out, sum to at most `bound` nats.

    The entropy-bound rule of arXiv 2505.24857: it bounds what committing positions independently can cost. Leftmost,
    the same sum bounds the longest run from the left.
    """

    def choose(proposal: Proposal) -> list[int]:
        if order == "leftmost":
            return _leading_run(within <= bound for within in _sums_without_largest(proposal.measured))
        first, *rest = _best_first([-h for h in proposal.measured])
        chosen, before = [first], proposal.measured[first]
        for i in rest:
            if before > bound:
                break
            chosen.append(i)
            before += proposal.measured[i]
        return sorted(chosen)

    def measure(probabilities: Tensor, masked: list[bool]) -> Tensor:
        return entropies(probabilities)

    return Sampler("entropy", choose, measure)


def trained(network: TrainedSampler, threshold: float, order: str = "best") -> Sampler:
    """Commit every position whose top-1 is final with probability >= threshold, and always the most confident one.

    So the strictest threshold leaves serial denoising in order of confidence, whose results the network learnt to
    foresee. The network judges the model's top-1; at a temperature a position may propose another token.
    """

    def choose(proposal: Proposal) -> list[int]:
        if order == "leftmost":
            return _leading_run(p >= threshold for p in proposal.measured)
        best = _best_first(proposal.confidence)[0]
        return [i for i, p in enumerate(proposal.measured) if p >= threshold or i == best]

    return Sampler("trained", choose, network.score)


def _best_first(values: list[float]) -> list[int]:
    """Indices by falling value; equal values keep their order."""
    return sorted(range(len(values)), key=lambda i: -values[i])


def _leading_run(meets: Iterable[bool]) -> list[int]:
    """The indices of the longest run of True from the left, and always the first."""
    count = 0
    for good in meets:
        if not good:
            break
        count += 1
    return list(range(max(count, 1)))


def _sums_without_largest(values: list[float]) -> Iterable[float]:
    """Of every run from the left, longer by one each time, the sum without its largest value."""
    total, largest = 0.0, 0.0
    for value in values:
        total += min(value, largest)
        largest = max(largest, value)
        yield total
