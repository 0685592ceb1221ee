"""Linear self-speculation: one bidirectional forward drafts a block, one causal forward verifies it."""

from __future__ import annotations

from collections.abc import Iterator

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.trace import Event, Position


def self_speculation(lane: LaneRun) -> Iterator[Event]:
    """Yield the prefill (which gives the first token), then a draft and a verify event a cycle.

    As released: a draft runs [newest token, MASK × (B - 1)] with the adapter on; the verify runs the drafted block
    causally with it off. n drafts that equal AR's tokens give n + 1 new ones, the last the verifier's own; the cache
    keeps the block's first n + 1 inputs. The text is AR's.
    """
    length, mask = lane.settings.block_length, lane.model.config.mask_token_id
    index, guess = 0, lane.first()
    newest = guess.tokens[0]
    finish = lane.ends(newest, 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    while finish is None:
        draft = lane.denoise([newest, *[mask] * (length - 1)], index, adapter=lane.settings.adapter)
        drafted = [draft.position(row, index + 1 + row, "drafted") for row in range(length - 1)]
        yield lane.event("draft", index, length, drafted)
        verified = lane.forward([newest, *draft.tokens], index + 1, causal=True)
        matches = _matches(draft.tokens, verified.tokens)
        lane.cache.keep(matches + 1)
        positions, finish = _outcome(lane, draft, verified, matches, index)
        yield lane.event("verify", index, length, positions, finish)
        index += matches + 1
        newest = verified.tokens[matches]


def _matches(draft: list[int], verified: list[int]) -> int:
    """How many drafts equal the verifier's tokens, from the left."""
    count = 0
    while count < len(draft) and draft[count] == verified[count]:
        count += 1
    return count


def _outcome(
    lane: LaneRun, draft: Guesses, verified: Guesses, matches: int, index: int
) -> tuple[list[Position], str | None]:
    """What a verify made of every draft, and why the answer ended, if it did."""
    own = "bonus" if matches == len(draft.tokens) else "corrected"
    positions: list[Position] = []
    finish = None
    for row in range(matches + 1):
        place = index + 1 + row
        if finish:
            positions.append(verified.position(row, place, "discarded"))
            continue
        if row == matches and own == "corrected":
            positions.append(draft.position(row, place, "rejected", verifier=verified.tokens[row]))
        positions.append(verified.position(row, place, "accepted" if row < matches else own))
        finish = lane.ends(verified.tokens[row], place)
    for row in range(matches + 1, len(draft.tokens)):
        positions.append(draft.position(row, index + 1 + row, "discarded"))
    return positions, finish
