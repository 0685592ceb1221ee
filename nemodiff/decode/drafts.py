"""Drafts: what masks guess for the places behind a token, and what each guess makes of the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import BRANCHES, Behind, Ranked
from nemodiff.model.draft_head import CANDIDATES, DraftHead, Guessed, weighed
from nemodiff.model.output import Output
from nemodiff.samplers.topk import largest

#: How far guesses are still believed once an earlier place has turned out to hold another token than they saw.
_OUTDATED = 0.5


@dataclass(frozen=True, slots=True)
class Drafts:
    """Drafts of one place: (token, probability), best first.

    drawn_from: of speculative sampling, the distribution [vocab] that they were drawn from without replacement, in
    their order. Their probabilities are then those of the likeliest tokens, whichever were drawn: were the shape of a
    tree to depend on the draw, what is verified would no longer be a draw from that distribution.
    given: with a draft head, by the token in the place before: (tokens, probabilities) of the drafts behind it.
    """

    ranked: Ranked
    drawn_from: Tensor | None = None
    given: Mapping[int, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)

    def share(self, token: int, otherwise: float) -> float:
        """What a token had as a draft."""
        return otherwise if self.drawn_from is None else float(self.drawn_from[token])

    @property
    def first(self) -> tuple[int, float]:
        token, probability = self.ranked[0]
        return token, self.share(token, probability)

    def behind(self, token: int) -> Drafts:
        """The drafts of this place where `token` stands before it."""
        if token not in self.given:
            return self
        return replace(self, ranked=list(zip(*self.given[token], strict=True)))

    @property
    def branches(self) -> Ranked:
        """Those that may become candidates of a tree, however many the viewer wants to see."""
        return self.ranked[:BRANCHES]

    def outdated(self) -> Drafts:
        """The same, believed less: an earlier place has turned out to hold another token than these guesses saw."""
        given = {token: (tokens, _believed(shares)) for token, (tokens, shares) in self.given.items()}
        tokens, shares = zip(*self.ranked, strict=True)
        return replace(self, ranked=list(zip(tokens, _believed(shares), strict=True)), given=given)


def _believed(shares: Sequence[float]) -> list[float]:
    return [_OUTDATED * share for share in shares]


def chain(drafts: Sequence[Drafts]) -> list[Drafts]:
    """The drafts of successive places, each behind the likeliest one before it; of the first as they are."""
    found: list[Drafts] = []
    for place in drafts:
        found.append(place.behind(found[-1].first[0]) if found else place)
    return found


def behind(drafts: Sequence[Drafts]) -> Behind | None:
    """The branches of a distance behind a candidate of the one before, where they depend on it."""
    if not any(place.given for place in drafts):
        return None
    return lambda depth, token: drafts[depth - 1].behind(token).branches


@dataclass(frozen=True, slots=True)
class Group:
    """Masks that draft. rows: what they guess for successive places, the first at answer position `index`. predicted:
    the row that gave the token before that place, `newest`, and whether it is causal; older: the token before that
    one."""

    rows: Output
    predicted: Output
    older: int
    newest: int
    index: int
    causal: bool = True


def wanted(lane: LaneRun, otherwise: int) -> int:
    """How many of the best tokens a forward that drafts should read; otherwise: without a draft head."""
    return CANDIDATES if lane.settings.draft_head else otherwise


def draws_drafts(lane: LaneRun) -> bool:
    """Whether drafts are draws, for speculative sampling."""
    return lane.settings.acceptance == "sampling" and lane.settings.temperature > 0


@torch.inference_mode()
def draft(lane: LaneRun, group: Group) -> list[Drafts]:
    """The drafts of a group's places, at the request's temperature. At 0 the draft head weighs them, if there is one.
    Acceptance by the same noise: given that noise. Speculative sampling: drawn ones. To be called inside `timed`."""
    if not len(group.rows):
        return []
    if lane.settings.temperature:
        return _at_a_temperature(lane, group)
    with _one_thread(lane.model.device):
        return _likeliest(lane, group)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """So little work that to wake a second thread of torch's takes longer than the work."""
    count = torch.get_num_threads() if device.type == "cpu" else 1
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _likeliest(lane: LaneRun, group: Group) -> list[Drafts]:
    head, mask, count = lane.settings.draft_head, lane.model.config.mask, max(BRANCHES, lane.settings.alternatives)
    own = guessed(group.rows, wanted(lane, count), mask)
    drafts = [Drafts(ranked) for ranked in _ranked(own.tokens[:, :count], own.log_shares[:, :count].exp())]
    if head is None:
        return drafts
    predicted = guessed(group.predicted, CANDIDATES, None if group.causal else mask)
    tokens, log_shares = _weighed(head, own, predicted, group)
    values, order = log_shares.topk(min(count, log_shares.shape[-1]), dim=-1)
    chosen = own.tokens[:, None].expand_as(log_shares).gather(-1, order)
    lists = zip(tokens.tolist(), zip(chosen.tolist(), values.exp().tolist(), strict=True), strict=True)
    given = [dict(zip(parents, zip(*ranks, strict=True), strict=True)) for parents, ranks in lists]
    drafts = [replace(place, given=found) for place, found in zip(drafts, given, strict=True)]
    return [drafts[0].behind(group.newest), *drafts[1:]]


def _weighed(head: DraftHead, own: Guessed, predicted: Guessed, group: Group) -> tuple[Tensor, Tensor]:
    """(tokens that may stand before each place [places, count], log shares of its drafts behind each of them)."""
    device, places = own.tokens.device, len(own.tokens)
    before = Guessed.join(predicted, own[:-1])
    tokens = before.tokens.clone()
    tokens[0] = group.newest
    older = torch.tensor([group.older, *[-1] * (places - 1)], device=device)
    distance = torch.arange(1, places + 1, device=device)
    return tokens, weighed(own, head(tokens, before, own, older, distance))


def guessed(output: Output, count: int, mask: int | None) -> Guessed:
    """The `count` likeliest tokens of every row of a forward, or as many as the runner has read. mask: the token that
    no row may propose, None for causal rows."""
    if output.best is not None:
        return Guessed(output.best.tokens, output.best.logits - output.best.log_sums[:, None])
    log_shares = output.logits.float().log_softmax(-1)
    if mask is not None:
        log_shares[:, mask] = -torch.inf  # out of the choice, yet in the sum
    values, tokens = largest(log_shares, min(count, log_shares.shape[-1]))
    return Guessed(tokens, values)


def _ranked(tokens: Tensor, shares: Tensor) -> list[list[tuple[int, float]]]:
    return [list(zip(*place, strict=True)) for place in zip(tokens.tolist(), shares.tolist(), strict=True)]


def _at_a_temperature(lane: LaneRun, group: Group) -> list[Drafts]:
    logits = group.rows.logits.to(torch.float32, copy=True)
    places = range(group.index, group.index + len(logits))
    logits[:, lane.model.config.mask] = -torch.inf
    logits /= lane.settings.temperature
    if lane.settings.acceptance == "match":
        logits += lane.noise.gumbel("token", places, logits)
    shares = logits.softmax(-1)
    count = min(BRANCHES, logits.shape[-1])
    probabilities, tokens = largest(shares, count)
    if not draws_drafts(lane):
        return [Drafts(ranked) for ranked in _ranked(tokens, probabilities)]
    # Draws without replacement: the order of logits with noise (Gumbel top-k).
    drawn = largest(logits + lane.noise.gumbel("draft", places, logits), count)[1]
    return [Drafts(ranked, shares[row]) for row, ranked in enumerate(_ranked(drawn, probabilities))]


def chained(lane: LaneRun, guesses: Guesses, group: Group) -> Guesses:
    """The guesses of a forward's last rows as a chain that the draft head weighs, where there is one: those of
    `group`, and before them as many as are there already. To be called inside `timed`."""
    if lane.settings.draft_head is None:
        return guesses
    ready = len(guesses.tokens) - len(group.rows)
    best = [place.ranked for place in chain(draft(lane, group))]
    tops = [list(ranked[: lane.settings.alternatives]) for ranked in best]
    return replace(
        guesses,
        tokens=[*guesses.tokens[:ready], *(ranked[0][0] for ranked in best)],
        confidence=[*guesses.confidence[:ready], *(ranked[0][1] for ranked in best)],
        top=[*lane.explain(guesses).top[:ready], *tops],
    )


def firsts(lane: LaneRun, groups: Sequence[Group]) -> list[list[tuple[int, float]]]:
    """What every group drafts first, (token, probability) each: for the viewer, outside the clock."""
    if not lane.settings.alternatives:
        return []
    return [[place.first for place in chain(draft(lane, group))] for group in groups]
