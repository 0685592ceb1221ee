"""The rules: confidence threshold, fixed steps, entropy bound. Each is made once a run and called once a forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proposal:
    """What one denoising forward proposes for the positions of a block that are still masked.

    confidence: probability of each position's proposed token. entropy: of each position's distribution, in nats
    (empty unless the sampler asks for it). step: denoising forwards already run on this block. block_masks: masks
    that the block started with.
    """

    confidence: list[float]
    entropy: list[float]
    step: int
    block_masks: int


@dataclass(frozen=True, slots=True)
class Sampler:
    """choose: Proposal → indices to commit (at least one). score: what the rule ranks by, None for confidence."""

    name: str
    choose: Callable[[Proposal], list[int]]
    score: Callable[[Proposal], list[float]] | None = None
    needs_entropy: bool = False


def confidence(threshold: float) -> Sampler:
    """Commit every position whose confidence >= threshold, and always the single best (the released rule)."""

    def choose(proposal: Proposal) -> list[int]:
        best = _best_first(proposal.confidence)[0]
        return [i for i, p in enumerate(proposal.confidence) if p >= threshold or i == best]

    return Sampler("confidence", choose)


def fixed(steps: int) -> Sampler:
    """Fill a block in `steps` forwards: an even number of commits a forward, best first, the remainder early."""

    def choose(proposal: Proposal) -> list[int]:
        each, extra = divmod(proposal.block_masks, steps)
        count = each + (proposal.step < extra)
        return sorted(_best_first(proposal.confidence)[: max(count, 1)])

    return Sampler("fixed", choose)


def entropy(bound: float) -> Sampler:
    """Commit the longest low-entropy prefix whose entropies, the largest left out, sum to at most `bound` nats.

    The entropy-bound rule of arXiv 2505.24857: it bounds what committing positions independently can cost.
    """

    def choose(proposal: Proposal) -> list[int]:
        order = _best_first([-h for h in proposal.entropy])
        chosen, before = [order[0]], proposal.entropy[order[0]]
        for i in order[1:]:
            if before > bound:
                break
            chosen.append(i)
            before += proposal.entropy[i]
        return sorted(chosen)

    return Sampler("entropy", choose, score=lambda proposal: proposal.entropy, needs_entropy=True)


def _best_first(values: list[float]) -> list[int]:
    """Indices by falling value; equal values keep their order."""
    return sorted(range(len(values)), key=lambda i: -values[i])
