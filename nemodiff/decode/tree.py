"""Self-speculation over a tree of candidates: every forward verifies one and drafts the next."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nemodiff.decode.acceptance import accept_in_tree
from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import BRANCHES, Planner, Tree
from nemodiff.model.layout import tree as tree_layout
from nemodiff.model.output import Output
from nemodiff.model.row_costs import row_costs
from nemodiff.samplers.topk import largest
from nemodiff.trace.events import Event, Position

#: How far guesses are still believed once an earlier place has turned out to hold another token than they saw.
_OUTDATED = 0.5


@dataclass(frozen=True, slots=True)
class Drafts:
    """Drafts of one place: (token, probability), best first.

    drawn_from: of speculative sampling, the distribution [vocab] that they were drawn from without replacement, in
    their order. Their probabilities are then those of the likeliest tokens, whichever were drawn: were the shape of a
    tree to depend on the draw, what is verified would no longer be a draw from that distribution.
    """

    ranked: list[tuple[int, float]]
    drawn_from: Tensor | None = None

    def share(self, token: int, otherwise: float) -> float:
        """What a token had as a draft."""
        return otherwise if self.drawn_from is None else float(self.drawn_from[token])

    @property
    def first(self) -> tuple[int, float]:
        token, probability = self.ranked[0]
        return token, self.share(token, probability)

    def outdated(self) -> Drafts:
        return replace(self, ranked=[(token, _OUTDATED * probability) for token, probability in self.ranked])


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
            plan = planner.plan([place.ranked for place in drafts], settings.max_new_tokens - index - 1)
            layout = tree_layout(plan.parents, tuple(plan.behind), plan.masks, lane.model.device)
            tokens = [newest, *(node.token for node in plan.nodes)]
            masks = [lane.model.config.mask] * (layout.rows - layout.plain)
            output = lane.run(tokens + masks, adapter=settings.adapter, layout=layout, few=BRANCHES)
            verified = _verify(lane, output[: layout.plain], plan, index)
            if _draws_drafts(lane):
                drawn_from = [place.drawn_from for place in drafts if place.drawn_from is not None]
                path, verified = accept_in_tree(lane, plan.nodes, drawn_from, verified, index)
            else:
                path = _accepted(plan, verified)
            lane.cache.keep(path)
            planner.learn(plan, len(drafts), len(path) - 1)
        if _draws_drafts(lane):
            plan = _shown(plan, drafts)
        positions, finish = _verdict(lane, plan, lane.explain(verified), path, index)
        last, behind = index + len(path), _behind(output, plan, shifted)
        drafts = [place.outdated() for place in drafts[len(path) :]]
        if finish is None and path[-1] in plan.behind:
            survivor = behind[plan.behind.index(path[-1])]
            with lane.timed():
                drafts = _drafts(lane, survivor, last + 1)
            positions += [_drafted(place, last + 1 + row, settings.alternatives) for row, place in enumerate(drafts)]
        event = lane.event("verify", index, 1 + max((node.depth for node in plan.nodes), default=0), positions, finish)
        event.rows, event.expected = layout.rows, plan.expected
        event.tree = [(node.token, node.share) for node in plan.nodes]
        event.parents, event.behind = [node.parent for node in plan.nodes], list(plan.behind)
        event.groups = _guessed(lane, behind, plan, index)
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


def _behind(output: Output, plan: Tree, shifted: bool) -> list[Output]:
    """Of every group the rows whose guesses can become drafts: not that of the place which the verifier decides."""
    first, own = 1 + len(plan.nodes), plan.masks
    starts = range(first, first + own * len(plan.behind), max(own, 1))
    return [output[start + (not shifted) : start + own] for start in starts]


@torch.inference_mode()
def _drafts(lane: LaneRun, group: Output, index: int) -> list[Drafts]:
    """The likeliest tokens for answer positions `index` and on, at the request's temperature. Acceptance by the same
    noise: given that noise. Speculative sampling: drawn ones. To be called inside `timed`."""
    temperature, sampled = lane.settings.temperature, None
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
        if _draws_drafts(lane):
            sampled = shares
            tokens = largest(_drawn(lane, logits, index), min(BRANCHES, logits.shape[-1]))[1]
    ranked = zip(tokens[:, :BRANCHES].tolist(), probabilities[:, :BRANCHES].tolist(), strict=True)
    return [
        Drafts(list(zip(*row, strict=True)), None if sampled is None else sampled[place])
        for place, row in enumerate(ranked)
    ]


def _drawn(lane: LaneRun, logits: Tensor, index: int) -> Tensor:
    """Logits whose order is that of draws without replacement (Gumbel top-k), for answer positions `index` and on."""
    return logits + lane.noise.gumbel("draft", range(index, index + len(logits)), logits)


def _draws_drafts(lane: LaneRun) -> bool:
    return lane.settings.acceptance == "sampling" and lane.settings.temperature > 0


def _drafted(place: Drafts, index: int, alternatives: int) -> Position:
    """A place as the viewer sees it, its alternatives likeliest first."""
    token, probability = place.first
    shares = [(token, place.share(token, share)) for token, share in place.ranked[:alternatives]]
    return Position(index, token, "drafted", probability, top=sorted(shares, key=lambda one: -one[1]))


def _guessed(lane: LaneRun, behind: list[Output], plan: Tree, index: int) -> list[list[tuple[int, float]]]:
    """What every group drafts first, (token, probability) each: for the viewer, outside the clock."""
    if not lane.settings.alternatives:
        return []
    depths = [0, *(node.depth for node in plan.nodes)]
    return [
        [place.first for place in _drafts(lane, group, index + 2 + depths[row])]
        for row, group in zip(plan.behind, behind, strict=True)
    ]
