"""Self-speculation over a tree of candidates: every forward verifies one and drafts the next."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from nemodiff.decode.acceptance import accept_in_tree
from nemodiff.decode.drafts import Drafts, Group, behind, chain, draft, draws_drafts, firsts, wanted
from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import BRANCHES, Planner, Tree
from nemodiff.model.layout import tree as tree_layout
from nemodiff.model.output import Output
from nemodiff.model.row_costs import row_costs
from nemodiff.trace.events import Event, Position


def tree(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives the first token), then a verify event per forward.

    A forward holds the newest token, a tree of candidates behind it, and groups of masks behind the rows where
    verification is likeliest to end. From the root the path of candidates that equal the verifier's tokens is accepted,
    and the verifier's own token follows it; the cache keeps the path's rows. The group behind the path's last row, if
    there is one, has then drafted what comes after the verifier's own token: its marginals make the next tree. Without
    one the marginals of before, for the places further on, make a small one, believed less, and the next forward
    drafts. `tree_plan` chooses all sizes. The text is AR's.
    """
    settings, shifted = lane.settings, lane.model.config.shift_logits
    planner = Planner(row_costs(lane.model), settings.rows, spare=0 if shifted else 1)
    index, guess = 0, lane.first()
    newest = guess.tokens[0]
    finish = lane.ends(newest, 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    drafts: list[Drafts] = []  # by distance from the newest token
    while finish is None:
        with lane.timed():
            plan = planner.plan(
                [place.branches for place in drafts], settings.max_new_tokens - index - 1, behind(drafts)
            )
            layout = tree_layout(plan.parents, tuple(plan.behind), plan.masks, lane.model.device)
            tokens = [newest, *(node.token for node in plan.nodes)]
            masks = [lane.model.config.mask] * (layout.rows - layout.plain)
            few = wanted(lane, BRANCHES) if masks else 1
            output = lane.run(tokens + masks, adapter=settings.adapter, layout=layout, few=few)
            verified = _verify(lane, output[: layout.plain], plan, index)
            if draws_drafts(lane):
                drawn_from = [place.drawn_from for place in drafts if place.drawn_from is not None]
                path, verified = accept_in_tree(lane, plan.nodes, drawn_from, verified, index)
            else:
                path = _accepted(plan, verified)
            lane.cache.keep(path)
            planner.learn(plan, len(drafts), len(path) - 1)
        if draws_drafts(lane):
            plan = _shown(plan, drafts)
        positions, finish = _verdict(lane, plan, lane.explain(verified), path, index)
        last, groups = index + len(path), _groups(output, plan, tokens, verified, index, shifted)
        if finish is None and path[-1] in plan.behind:
            with lane.timed():
                drafts = draft(lane, groups[plan.behind.index(path[-1])])
            positions += [
                _drafted(place, last + 1 + row, settings.alternatives) for row, place in enumerate(chain(drafts))
            ]
        else:
            drafts = [place.outdated() for place in drafts[len(path) :]]
            drafts[:1] = [place.behind(verified.tokens[path[-1]]) for place in drafts[:1]]
        event = lane.event("verify", index, 1 + max((node.depth for node in plan.nodes), default=0), positions, finish)
        event.rows, event.expected = layout.rows, plan.expected
        event.tree = [(node.token, node.share) for node in plan.nodes]
        event.parents, event.behind = [node.parent for node in plan.nodes], list(plan.behind)
        event.groups = firsts(lane, groups)
        yield event
        index, newest = last, verified.tokens[path[-1]]


def _shown(plan: Tree, drafts: list[Drafts]) -> Tree:
    """The tree with what its candidates had in the distribution that they were drawn from, for the viewer."""
    nodes = [replace(node, share=drafts[node.depth - 1].share(node.token, node.share)) for node in plan.nodes]
    return replace(plan, nodes=nodes)


def _verify(lane: LaneRun, output: Output, plan: Tree, index: int) -> Guesses:
    """The verifier's token behind every row. </think> is forced where the thinking budget ends, unless it stands on the
    way there."""
    depths = [0, *(node.depth for node in plan.nodes)]
    verified = lane.choose(output, index + 1, causal=True, places=[index + 1 + depth for depth in depths])
    if lane.settings.thinking is None:
        return verified
    thought = [False]
    for node in plan.nodes:
        thought.append(thought[node.parent] or node.token == lane.settings.thinking[1])
    for row, depth in enumerate(depths):
        if not thought[row] and (forced := lane.forced(index + 1 + depth, 1)):
            token = verified.tokens[row] = forced[1]
            verified.confidence[row] = float(verified.probabilities[row, token])
    return verified


def _accepted(plan: Tree, verified: Guesses) -> list[int]:
    """The accepted rows, the newest token first: each the candidate that the verifier names after the one before."""
    candidates = {(node.parent, node.token): row for row, node in enumerate(plan.nodes, 1)}
    path = [0]
    while following := candidates.get((path[-1], verified.tokens[path[-1]])):
        path.append(following)
    return path


def _verdict(
    lane: LaneRun, plan: Tree, verified: Guesses, path: list[int], index: int
) -> tuple[list[Position], str | None]:
    """What now holds the places after `index`, and why the answer ended, if it did. The likeliest candidate in the
    place of the verifier's own token is the rejected one."""
    positions: list[Position] = []
    finish = None
    refused = next((node for node in plan.nodes if node.parent == path[-1]), None)
    for step, row in enumerate(path, 1):
        state = "accepted" if step < len(path) else "corrected" if refused else "bonus"
        if finish:
            state = "discarded"
        elif state == "corrected" and refused:
            own = verified.tokens[row]
            positions.append(Position(index + step, refused.token, "rejected", refused.share, verifier=own))
        positions.append(verified.position(row, index + step, state))
        finish = finish or lane.ends(verified.tokens[row], index + step)
    return positions, finish


def _groups(output: Output, plan: Tree, tokens: list[int], verified: Guesses, index: int, shifted: bool) -> list[Group]:
    """Of every group the rows whose guesses can become drafts: not that of the place which the verifier decides.
    tokens: of the verified rows."""
    depths, found = [0, *(node.depth for node in plan.nodes)], []
    for count, row in enumerate(plan.behind):
        start = len(tokens) + count * plan.masks
        rows, predicted = output[start + (not shifted) : start + plan.masks], output[row : row + 1]
        found.append(Group(rows, predicted, tokens[row], verified.tokens[row], index + 2 + depths[row]))
    return found


def _drafted(place: Drafts, index: int, alternatives: int) -> Position:
    """A place as the viewer sees it, its alternatives likeliest first."""
    token, probability = place.first
    shares = [(token, place.share(token, share)) for token, share in place.ranked[:alternatives]]
    return Position(index, token, "drafted", probability, top=sorted(shares, key=lambda one: -one[1]))
