"""How far one mode's text agrees with AR's, and how fast it was beside it. Both lanes come from one run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nemodiff.trace.events import Lane, first_difference


def agreement(lane: Lane, reference: Lane) -> float:
    """Share of the reference's tokens before the first that differs; 1.0 when the answers are identical, and only then.

    Of an answer that goes on after the whole reference it is the reference's share of that answer. Strict on purpose:
    after one other token both answers are different texts, and comparing them place by place would reward chance.
    """
    place = first_difference(lane.tokens, reference.tokens)
    if place is None:
        return 1.0
    return place / (len(reference.tokens) if place < len(reference.tokens) else len(lane.tokens))


@dataclass(frozen=True, slots=True)
class Totals:
    """What lanes took together. Every figure over several prompts is a ratio of totals, so that figures that stand
    beside each other can be reckoned from each other. seconds: model time, prefills included. lengths: acceptance
    lengths, all cycles'."""

    tokens: int
    forwards: int
    nfe: int
    seconds: float
    lengths: tuple[int, ...] = ()

    @classmethod
    def of(cls, lanes: Iterable[Lane]) -> Totals:
        return cls.sum(
            cls(len(lane.tokens), lane.forwards, lane.nfe, lane.seconds, tuple(lane.acceptance_lengths))
            for lane in lanes
        )

    @classmethod
    def sum(cls, parts: Iterable[Totals]) -> Totals:
        parts = list(parts)
        return cls(
            tokens=sum(one.tokens for one in parts),
            forwards=sum(one.forwards for one in parts),
            nfe=sum(one.nfe for one in parts),
            seconds=sum(one.seconds for one in parts),
            lengths=tuple(length for one in parts for length in one.lengths),
        )

    @property
    def tpf(self) -> float:
        """Tokens per forward, 0 without a forward. The prefill gives a token and is no forward: AR is above 1."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def seconds_a_token(self) -> float:
        return self.seconds / max(self.tokens, 1)

    @property
    def rate(self) -> float:
        """Tokens per second, 0 without time."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def acceptance(self) -> float:
        """New tokens per draft-verify cycle, 1 without one."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else 1.0

    def speed_up(self, reference: Totals) -> float | None:
        """The reference's seconds per token over these; None when either has no tokens or no time."""
        if not (self.tokens and reference.tokens and self.seconds and reference.seconds):
            return None
        return reference.seconds_a_token / self.seconds_a_token


def speed_up(lane: Lane, reference: Lane) -> float | None:
    """The reference's model seconds per token over the lane's; None when either has no tokens or no time."""
    return Totals.of([lane]).speed_up(Totals.of([reference]))


def repeated_share(ids: list[int], n: int = 4) -> float:
    """Share of the n-grams of `ids` that occurred before in it: 0 for text that never repeats, near 1 for a loop."""
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
