"""How far one mode's text agrees with AR's, and how fast it was beside it. Both lanes come from one run."""

from __future__ import annotations

from nemodiff.trace import Lane, first_difference


def agreement(lane: Lane, reference: Lane) -> float:
    """Share of the reference's tokens before the first that differs; 1.0 when the answers are identical, and only then.

    Of an answer that goes on after the whole reference it is the reference's share of that answer. Strict on purpose:
    after one other token both answers are different texts, and comparing them place by place would reward chance.
    """
    place = first_difference(lane.tokens, reference.tokens)
    if place is None:
        return 1.0
    return place / (len(reference.tokens) if place < len(reference.tokens) else len(lane.tokens))


def speed_up(lane: Lane, reference: Lane) -> float | None:
    """The reference's model seconds a token over the lane's; None when either has no tokens or no time."""
    if not (lane.tokens and reference.tokens and lane.seconds and reference.seconds):
        return None
    return (reference.seconds / len(reference.tokens)) / (lane.seconds / len(lane.tokens))
