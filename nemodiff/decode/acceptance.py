"""Acceptance: which drafts are accepted, and the verifier's own token after them.

match: a draft is accepted while it equals the verifier's token at its place; the text is AR's. independent: the same,
with drafts drawn by noise of their own (as released). sampling: speculative sampling (arXiv 2211.17192): a draft x
drawn from q is accepted with probability min(1, p(x) / q(x)), else the residual max(p - q, 0) is drawn from, so that
the text is distributed as AR's and more drafts are accepted. At temperature 0 all three are the same.

Over a tree the candidates of a place were drawn from q without replacement, and are tested in that order: after one
that is not accepted, the residual takes the place of p, and q loses the candidate (arXiv 2402.14160, 2402.12374).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import Node


@torch.inference_mode()
def accept(lane: LaneRun, draft: Guesses | None, verified: Guesses, index: int) -> tuple[int, Guesses]:
    """How many of the k drafts (None: there are none) for answer positions `index` and on are accepted, and `verified`
    (k + 1 rows) with the tokens that now hold those positions. To be called inside `timed`."""
    if draft is None:
        return 0, verified
    if lane.settings.acceptance != "sampling" or lane.settings.temperature == 0:
        return matches(draft.tokens, verified.tokens), verified
    p = (verified.logits / lane.settings.temperature).softmax(-1)
    q = (draft.logits / lane.settings.temperature).softmax(-1)
    tokens = list(verified.tokens)
    end_of_thinking = lane.settings.thinking[1] if lane.settings.thinking else None
    given = torch.tensor(draft.tokens, device=p.device)[:, None]
    # One copy to the host for all drafts: what both distributions give them.
    shares = torch.stack((p[: len(given)].gather(1, given), q.gather(1, given)))[..., 0].tolist()
    accepted = 0
    for row, token in enumerate(draft.tokens):
        verifier, drafter = shares[0][row], shares[1][row]
        forced = lane.forced(index + row, 1) if end_of_thinking not in tokens[:row] else None
        if forced:
            # The verifier is sure of </think> here: p is 1 at it, and so is the residual.
            p[row] = torch.nn.functional.one_hot(torch.tensor(forced[1]), p.shape[-1]).to(p)
            verifier = float(token == forced[1])
        if is_accepted(verifier, drafter, lane.noise.uniform("accept", index + row)):
            tokens[row] = token
            accepted += 1
            continue
        noise = lane.noise.gumbel("residual", [index + row], p)[0]
        tokens[row] = int((residual(p[row], q[row]).log() + noise).argmax())
        break
    else:
        # Which drafts are accepted decides whether thinking has ended before the verifier's own token.
        forced = lane.forced(index + accepted, 1) if end_of_thinking not in tokens[:accepted] else None
        own = lane.drawn(verified.logits[accepted:], [index + accepted], "token")
        tokens[accepted] = forced[1] if forced else int(own)
    return accepted, _with_tokens(verified, tokens)


@torch.inference_mode()
def accept_in_tree(
    lane: LaneRun, nodes: Sequence[Node], drawn_from: Sequence[Tensor], verified: Guesses, index: int
) -> tuple[list[int], Guesses]:
    """Speculative sampling over a tree: the accepted rows, that of the newest token (answer position `index`) first,
    and `verified` (a row for it and one for every node) with the tokens that now follow them. To be called inside
    `timed`.

    nodes: those of one parent in the order in which they were drawn. drawn_from: q [vocab] of every distance. In
    `verified` </think> is forced already where it has to be.
    """
    below: dict[int, list[int]] = defaultdict(list)
    for row, node in enumerate(nodes, 1):
        below[node.parent].append(row)
    tokens, path = list(verified.tokens), [0]
    end_of_thinking = lane.settings.thinking[1] if lane.settings.thinking else None
    shares = (verified.logits / lane.settings.temperature).softmax(-1)
    while children := below[path[-1]]:
        row, place = path[-1], index + len(path)
        thought = any(nodes[other - 1].token == end_of_thinking for other in path[1:])
        p, forced = shares[row], None if thought else lane.forced(place, 1)
        if forced:  # the verifier is sure of </think> here
            p = torch.nn.functional.one_hot(torch.tensor(forced[1]), p.shape[-1]).to(p)
        candidates = [nodes[child - 1].token for child in children]
        chosen, p = _first_accepted(lane, candidates, p, drawn_from[len(path) - 1], place)
        if chosen == len(candidates):
            tokens[row] = int((p.log() + lane.noise.gumbel("residual", [place], p[None])[0]).argmax())
            break
        tokens[row] = candidates[chosen]
        path.append(children[chosen])
    return path, _with_tokens(verified, tokens)


def _first_accepted(lane: LaneRun, candidates: list[int], p: Tensor, q: Tensor, place: int) -> tuple[int, Tensor]:
    """(which candidate is accepted, their number if none is; what is left of p [vocab] behind those that are not)."""
    for rank, token in enumerate(candidates):
        uniform = lane.noise.uniform(f"accept {rank}" if rank else "accept", place)
        drafted = float(q[token])
        if not drafted:  # q has nothing left to draw
            break
        if is_accepted(float(p[token]), drafted, uniform):
            return rank, p
        p, q = residual(p, q), q.index_fill(0, torch.tensor([token], device=q.device), 0)
        p, q = p / p.sum(), q / q.sum().clamp_min(1e-30)
    return len(candidates), p


def _with_tokens(verified: Guesses, tokens: list[int]) -> Guesses:
    chosen = torch.tensor(tokens, device=verified.logits.device)[:, None]
    confidence = verified.probabilities.gather(-1, chosen)[:, 0]
    return replace(verified, tokens=tokens, confidence=confidence.tolist())


def matches(draft: list[int], verified: list[int]) -> int:
    """How many drafts equal the verifier's tokens, from the left."""
    count = 0
    while count < len(draft) and draft[count] == verified[count]:
        count += 1
    return count


def is_accepted(p: float, q: float, uniform: float) -> bool:
    """Whether a token, drawn where it had probability q, is accepted where it has p: with probability min(1, p / q)."""
    return uniform * q < p


def residual(p: Tensor, q: Tensor) -> Tensor:
    """What p [vocab] holds beyond q [vocab], not normalised: what a rejected draft is replaced from."""
    rest = (p - q).clamp_min(0)
    # p and q equal up to rounding: a rejection was then chance among equals.
    return rest if float(rest.sum()) > 0 else p
