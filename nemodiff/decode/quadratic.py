"""Quadratic self-speculation: every forward verifies the current drafts and drafts again after each of them."""

from __future__ import annotations

from collections.abc import Generator

import torch

from nemodiff.decode.acceptance import accept
from nemodiff.decode.drafts import Group, chained, wanted
from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.verdict import verdict
from nemodiff.model.layout import Layout, groups
from nemodiff.model.output import Output
from nemodiff.model.runner import Runner
from nemodiff.trace.events import Event


def quadratic(lane: LaneRun) -> Generator[Event, None, None]:
    """Yield the prefill (which gives the first token), then a verify event per forward.

    The paper's scheme, for a block of B: the newest token and k = B - 1 drafts are verified causally; after each of
    these B tokens stands a group of masks that guesses the places behind it. Wherever verification ends, the drafts
    that follow the verifier's own token are there already: the last k guesses of the group behind the last accepted
    token. The first forward has no drafts to verify.

    Logits aligned: a group is B masks, and its first guess, of the place that the verifier decides, is p_diffusion,
    which `ar_weight` below 1 mixes in. These are the paper's k(k+1) rows, whose k counts the newest token too. Logits
    shifted: B - 1 masks guess the k drafts; for p_diffusion the group's token comes once more before them.
    """
    length = lane.settings.block_length
    index, guess = 0, lane.first()
    newest, draft = guess.tokens[0], None
    finish = lane.ends(newest, 0)
    yield lane.event("prefill", 0, 1, [guess.position(0, 0, "seed")], finish)
    shapes = layouts(lane.model, length, lane.settings.ar_weight)
    while finish is None:
        tokens = [newest, *(draft.tokens if draft else [])]
        layout = shapes[len(tokens) - 1]
        with lane.timed():
            rows = _rows(lane, tokens, layout)
            output = lane.run(rows, adapter=lane.settings.adapter, layout=layout, few=wanted(lane, 1))
            own = layout.masks + layout.again
            behind = [output[start : start + own] for start in range(len(tokens), layout.rows, own)]
            verified = lane.choose(_mixed(lane, output[: len(tokens)], behind), index + 1, causal=True)
            accepted, verified = accept(lane, draft, verified, index + 1)
        lane.cache.keep(accepted + 1)
        positions, finish = verdict(lane, draft, lane.explain(verified), accepted, index + 1)
        survivor = None
        if finish is None:
            with lane.timed():
                survivor = _drafts(lane, _group(lane, output, behind, tokens, verified, accepted, index))
            survivor = lane.explain(survivor)
            places = range(index + accepted + 2, index + accepted + 1 + length)
            positions += [survivor.position(row, place, "drafted") for row, place in enumerate(places)]
        event = lane.event("verify", index, length, positions, finish)
        event.rows, event.again = layout.rows, layout.again
        event.groups = []
        if lane.settings.alternatives:  # for the viewer, outside the clock
            made = [_group(lane, output, behind, tokens, verified, row, index) for row in range(len(tokens))]
            event.groups = [_pairs(_drafts(lane, group)) for group in made]
        yield event
        index += accepted + 1
        newest, draft = verified.tokens[accepted], survivor


def layouts(model: Runner, length: int, ar_weight: float = 1.0) -> dict[int, Layout]:
    """The layouts of a block of `length`, by how many drafts are verified: none at first, then length - 1."""
    shifted = model.config.shift_logits
    masks, again = length - shifted, shifted and ar_weight < 1
    return {drafts: groups(drafts, masks=masks, again=again, device=model.device) for drafts in (0, length - 1)}


def _rows(lane: LaneRun, tokens: list[int], layout: Layout) -> list[int]:
    """Input ids of a forward: the tokens to verify, then the group behind each."""
    masks = [lane.model.config.mask] * layout.masks
    return tokens + [row for token in tokens for row in ([token] if layout.again else []) + masks]


@torch.inference_mode()
def _mixed(lane: LaneRun, ar: Output, behind: list[Output]) -> Output:
    """Logits of ar_weight · p_AR + (1 - ar_weight) · p_diffusion, at temperature 1; p_diffusion is the first guess
    behind each token.

    A temperature then acts on the mixture as it does on any logits: the lower it is, the nearer to the mixture's most
    probable token. A confidence is the mixture's probability, at temperature 1 as everywhere.
    """
    weight = lane.settings.ar_weight
    if weight == 1:
        return ar
    diffusion = torch.stack([group.logits[0] for group in behind]).float()
    diffusion[:, lane.model.config.mask] = -torch.inf
    return Output((weight * ar.logits.float().softmax(-1) + (1 - weight) * diffusion.softmax(-1)).log())


def _group(
    lane: LaneRun, output: Output, behind: list[Output], tokens: list[int], verified: Guesses, row: int, index: int
) -> Group:
    """The masks behind a verified row which guess the places after the verifier's own token there."""
    rows = behind[row][1 - lane.settings.block_length :]
    return Group(rows, output[row : row + 1], tokens[row], verified.tokens[row], index + row + 2)


def _drafts(lane: LaneRun, group: Group) -> Guesses:
    return chained(lane, lane.choose(group.rows, group.index, causal=False), group)


def _pairs(guesses: Guesses) -> list[tuple[int, float]]:
    return list(zip(guesses.tokens, guesses.confidence, strict=True))
