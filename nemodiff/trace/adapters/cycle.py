"""Cycles of drafting and verifying, whoever drafts: what of a draft was accepted, as two events of one forward."""

from __future__ import annotations

from collections.abc import Sequence

from nemodiff.trace.events import Position
from nemodiff.trace.recorder import Recorder

MODE = "self-speculation"


def add_cycle(
    recorder: Recorder,
    start: int,
    draft: Sequence[Position],
    tokens: Sequence[Position],
    *,
    draft_ms: float = 0.0,
    ms: float | None = None,
    accepted: int | None = None,
    drafted: int | None = None,
    finish: str | None = None,
) -> None:
    """Write down a cycle. It counts as one forward, the verifier's: what drafts is smaller, or no model at all.

    start: the answer's length before it. draft: what was drafted from there on; its states do not matter. tokens: what
    the cycle added, the accepted drafts first. accepted, drafted: how many drafts were accepted and how many there
    were, where the drafts themselves are not known.
    """
    same = 0
    while same < min(len(draft), len(tokens)) and draft[same].token == tokens[same].token:
        same += 1
    kept = same if draft or accepted is None else min(accepted, len(tokens))
    had = len(draft) if draft or drafted is None else drafted
    number = recorder.next_forward(MODE)
    length = max(len(draft), len(tokens), 1)
    if draft:
        proposed = [_as(one, "drafted") for one in draft]
        recorder.forward(MODE, "draft", proposed, ms=draft_ms, start=start, length=length, forward=number)
    verified = [_as(one, "accepted") for one in tokens[:kept]]
    if kept < len(tokens):
        own = tokens[kept]
        if kept < len(draft):
            lost = draft[kept]
            verified.append(Position(lost.index, lost.token, "rejected", lost.confidence, verifier=own.token))
        verified += [_as(own, "corrected" if kept < had else "bonus")]
        verified += [_as(one, "bonus") for one in tokens[kept + 1 :]]
    verified += [_as(one, "discarded") for one in draft[kept + (kept < len(tokens)) :]]
    recorder.forward(MODE, "verify", verified, ms=ms, start=start, length=length, forward=number, finish=finish)


def _as(position: Position, state: str) -> Position:
    return Position(position.index, position.token, state, position.confidence, top=position.top)
