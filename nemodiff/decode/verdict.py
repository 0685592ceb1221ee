"""The verdict on a cycle's drafts, as the positions of an Event."""

from __future__ import annotations

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.trace.events import Position


def verdict(
    lane: LaneRun, draft: Guesses | None, verified: Guesses, accepted: int, first: int
) -> tuple[list[Position], str | None]:
    """What became of every draft (None: there were none), the first at answer position `first`, and why the answer
    ended, if it did. accepted: how many drafts; verified holds what is now at each place, the verifier's own last."""
    drafts = len(draft.tokens) if draft else 0  # where there are none, none is rejected or discarded
    own = "bonus" if accepted == drafts else "corrected"
    positions: list[Position] = []
    finish = None
    for row in range(accepted + 1):
        place = first + row
        if finish:
            positions.append(verified.position(row, place, "discarded"))
            continue
        if draft and row == accepted and own == "corrected":
            positions.append(draft.position(row, place, "rejected", verifier=verified.tokens[row]))
        positions.append(verified.position(row, place, "accepted" if row < accepted else own))
        finish = lane.ends(verified.tokens[row], place)
    if draft:
        positions += [draft.position(row, first + row, "discarded") for row in range(accepted + 1, drafts)]
    return positions, finish
