"""Which drafts were accepted, by their distance from the newest token and by their rank."""

from __future__ import annotations

from collections import defaultdict

from nemodiff.trace.events import Event, Lane, Position


def outcomes(event: Event) -> list[tuple[int, int, float, bool]]:
    """(distance, rank, probability at its distance, whether it was accepted) of every candidate of a verify event whose
    parent was accepted. Rank 1 is a parent's likeliest; without a tree every draft has rank 1, and those behind the
    first that was rejected do not count."""
    kept = [position.token for position in event.positions if position.state == "accepted"]
    if not event.tree:
        found = [(step, 1, p.confidence or 0.0, True) for step, p in enumerate(_of(event, "accepted"), 1)]
        refused = _of(event, "rejected")
        return found + [(len(found) + 1, 1, refused[0].confidence or 0.0, False)] if refused else found
    path, depth, found = {0: 0}, {0: 0}, []
    seen: dict[int, int] = defaultdict(int)
    for row, ((token, share), parent) in enumerate(zip(event.tree, event.parents, strict=True), 1):
        depth[row] = depth[parent] + 1
        seen[parent] += 1
        if parent not in path:
            continue
        step = path[parent]
        accepted = step < len(kept) and kept[step] == token
        if accepted:
            path[row] = step + 1
        found.append((depth[row], seen[parent], share, accepted))
    return found


def behind_rejections(lane: Lane) -> list[tuple[int, bool]]:
    """(distance, whether the answer has the same token at the same place in the end) of every draft that was thrown
    away behind one that was rejected. Of trees there are none: their candidates hang on each other."""
    found = []
    for event in lane.events:
        refused = _of(event, "rejected")
        if event.phase != "verify" or event.tree or not refused:
            continue
        step = len(_of(event, "accepted")) + 1 - refused[0].index
        for position in _of(event, "discarded"):
            right = position.index < len(lane.tokens) and lane.tokens[position.index] == position.token
            found.append((step + position.index, right))
    return found


def _of(event: Event, state: str) -> list[Position]:
    return [position for position in event.positions if position.state == state]
