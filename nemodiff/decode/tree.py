"""Self-speculation over a tree of candidates: every forward verifies one and drafts the next."""

from __future__ import annotations

from collections.abc import Generator

import torch

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import BRANCHES, Planner, Tree
from nemodiff.model.layout import tree as tree_layout
from nemodiff.model.output import Output
from nemodiff.model.row_costs import row_costs
from nemodiff.samplers.topk import largest
from nemodiff.trace.events import Event, Position

#: Drafts by distance from the newest token: (token, probability), best first.
Drafts = list[list[tuple[int, float]]]
#: How far guesses are still believed once an earlier place has turned out to hold another token than they saw.
_OUTDATED = 0.5


def tree(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives the first token), then a verify event a forward.

    A forward holds the newest token, a tree of candidates behind it, and groups of masks behind the rows where
    verification is likeliest to end. From the root the path of candidates that equal the verifier's tokens stands, and
    the verifier's own token follows it; the cache keeps the path's rows. The group behind the path's last row, if there
    is one, has then drafted what comes after the verifier's own token: its marginals make the next tree. Without one
    the marginals of before, for the places further on, make a small one, believed less, and the next forward drafts.
    `tree_plan` chooses all sizes. The text is AR's.
    """
    settings, shifted = lane.settings, lane.model.config.shift_logits
    planner = Planner(row_costs(lane.model), settings.rows, spare=0 if shifted else 1)
    index, guess = 0, lane.first()
    newest = guess.tokens[0]
    finish = lane.ends(newest, 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    drafts: Drafts = []
    while finish is None:
        with lane.timed():
            plan = planner.plan(drafts, settings.max_new_tokens - index - 1)
            layout = tree_layout(plan.parents, tuple(plan.behind), plan.masks, lane.model.device)
            tokens = [newest, *(node.token for node in plan.nodes)]
            masks = [lane.model.config.mask] * (layout.rows - layout.plain)
            output = lane.run(tokens + masks, adapter=settings.adapter, layout=layout, few=BRANCHES)
            verified = _verify(lane, output[: layout.plain], plan, index)
            path = _accepted(plan, verified)
            lane.cache.keep(path)
            planner.learn(plan, len(drafts), len(path) - 1)
        positions, finish = _verdict(lane, plan, lane.explain(verified), path, index)
        last, behind = index + len(path), _behind(output, plan, shifted)
        drafts = _outdated(drafts[len(path) :])
        if finish is None and path[-1] in plan.behind:
            survivor = behind[plan.behind.index(path[-1])]
            with lane.timed():
                drafts = _drafts(lane, survivor, last + 1)
            positions += [
                Position(last + 1 + row, *_first(ranked), top=ranked[: settings.alternatives])
                for row, ranked in enumerate(drafts)
            ]
        event = lane.event("verify", index, 1 + max((node.depth for node in plan.nodes), default=0), positions, finish)
        event.rows, event.expected = layout.rows, plan.expected
        event.tree = [(node.token, node.share) for node in plan.nodes]
        event.parents, event.behind = [node.parent for node in plan.nodes], list(plan.behind)
        event.groups = _guessed(lane, behind, plan, index)
        yield event
        index, newest = last, verified.tokens[path[-1]]


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
    """The rows that stand, the newest token first: each the candidate that the verifier names after the one before."""
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


def _outdated(drafts: Drafts) -> Drafts:
    return [[(token, _OUTDATED * probability) for token, probability in row] for row in drafts]


def _behind(output: Output, plan: Tree, shifted: bool) -> list[Output]:
    """Of every group the rows whose guesses can become drafts: not that of the place which the verifier decides."""
    first, own = 1 + len(plan.nodes), plan.masks
    starts = range(first, first + own * len(plan.behind), max(own, 1))
    return [output[start + (not shifted) : start + own] for start in starts]


@torch.inference_mode()
def _drafts(lane: LaneRun, group: Output, index: int) -> Drafts:
    """The likeliest tokens for answer positions `index` and on, at the request's temperature. Acceptance by the same
    noise: given that noise. To be called inside `timed`."""
    temperature = lane.settings.temperature
    if group.best is not None and temperature == 0:
        tokens, probabilities = group.best.tokens, group.best.probabilities
    else:
        logits = group.logits.to(torch.float32, copy=True)
        if temperature:
            logits[:, lane.model.config.mask] = -torch.inf
            logits /= temperature
            if lane.settings.acceptance == "match":
                logits += lane.noise.gumbel("token", range(index, index + len(logits)), logits)
        shares = logits.softmax(-1)
        shares[:, lane.model.config.mask] = 0  # out of the choice, yet in the sum
        probabilities, tokens = largest(shares, min(BRANCHES, logits.shape[-1]))
    ranked = zip(tokens[:, :BRANCHES].tolist(), probabilities[:, :BRANCHES].tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in ranked]


def _first(ranked: list[tuple[int, float]]) -> tuple[int, str, float]:
    token, probability = ranked[0]
    return token, "drafted", probability


def _guessed(lane: LaneRun, behind: list[Output], plan: Tree, index: int) -> list[list[tuple[int, float]]]:
    """What every group drafts first, (token, probability) each: for the viewer, outside the clock."""
    if not lane.settings.alternatives:
        return []
    depths = [0, *(node.depth for node in plan.nodes)]
    return [
        [ranked[0] for ranked in _drafts(lane, group, index + 2 + depths[row])]
        for row, group in zip(plan.behind, behind, strict=True)
    ]
