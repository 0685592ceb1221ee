"""Autoregressive decoding: causal prefill, then one token per forward."""

from __future__ import annotations

from collections.abc import Generator

from nemodiff.decode.lane import LaneRun
from nemodiff.trace.events import Event


def autoregressive(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives token 0), then a decode event per token."""
    guess = lane.first()
    finish = lane.ends(guess.tokens[0], 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "committed")], finish)
    index = 0
    while finish is None:
        index += 1
        guess = lane.forward(guess.tokens, index, causal=True)
        lane.cache.keep(1)
        finish = lane.ends(guess.tokens[0], index)
        yield lane.event("decode", index, 1, [guess.position(0, index, "committed")], finish)
