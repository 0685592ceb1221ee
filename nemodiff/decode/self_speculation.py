"""Self-speculation: the diffusion pass drafts, the AR pass verifies."""

from __future__ import annotations

from collections.abc import Generator

from nemodiff.decode.acceptance import accept
from nemodiff.decode.drafts import Group, chained, wanted
from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.quadratic import quadratic
from nemodiff.decode.tree import tree
from nemodiff.decode.verdict import verdict
from nemodiff.trace.events import Event


def self_speculation(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives the first token), then the events of the draft that was asked for."""
    return {"linear": linear, "quadratic": quadratic, "tree": tree}[lane.settings.draft](lane)


def linear(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives the first token), then a draft and a verify event per cycle.

    As released: a draft runs [newest token, MASK × (B - 1)] with the adapter on; the verify runs the drafted block
    causally with it off. n accepted drafts give n + 1 new tokens, the last the verifier's own; the cache keeps the
    block's first n + 1 inputs. The text is AR's. Beyond the release: a draft head weighs what the draft pass says.
    """
    length, mask = lane.settings.block_length, lane.model.config.mask
    index, guess = 0, lane.first()
    newest = guess.tokens[0]
    finish = lane.ends(newest, 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    while finish is None:
        draft = _draft(lane, [newest, *[mask] * (length - 1)], index)
        drafted = [draft.position(row, index + 1 + row, "drafted") for row in range(length - 1)]
        yield lane.event("draft", index, length, drafted)
        accepted, verified = _verify(lane, [newest, *draft.tokens], draft, index + 1)
        lane.cache.keep(accepted + 1)
        positions, finish = verdict(lane, draft, verified, accepted, index + 1)
        yield lane.event("verify", index, length, positions, finish)
        index += accepted + 1
        newest = verified.tokens[accepted]


def _draft(lane: LaneRun, block: list[int], index: int) -> Guesses:
    """The draft pass; what it says of a place is weighed by the place before it, where there is a draft head."""
    adapter = lane.settings.adapter
    with lane.timed():
        output = lane.run(block, causal=False, adapter=adapter, rows=lane.guessing, few=wanted(lane, 1))
        draft = lane.choose(output, index + 1, causal=False)
        group = Group(output[1:], output[:1], block[0], draft.tokens[0], index + 2, causal=False)
        draft = chained(lane, draft, group)
    return lane.explain(draft)


def _verify(lane: LaneRun, block: list[int], draft: Guesses, index: int) -> tuple[int, Guesses]:
    with lane.timed():
        verified = lane.choose(lane.run(block), index, causal=True)
        accepted, verified = accept(lane, draft, verified, index)
    return accepted, lane.explain(verified)
