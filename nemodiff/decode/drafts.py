"""Drafts: what masks guess for the places behind a token, and what each guess makes of the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nemodiff.decode.lane import Guesses, LaneRun
from nemodiff.decode.tree_plan import BRANCHES, Behind, Ranked
from nemodiff.model.draft_head import CANDIDATES, PARENTS, Drawn, Guessed, WeighsDrafts
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
    trust: what the probabilities there still count.
    """

    ranked: Ranked
    drawn_from: Tensor | None = None
    given: Mapping[int, tuple[Sequence[int], Sequence[float]]] = field(default_factory=dict)
    trust: float = 1.0

    def share(self, token: int, otherwise: float) -> float:
        """What a token had as a draft."""
        return otherwise if self.drawn_from is None else float(self.drawn_from[token])

    @property
    def first(self) -> tuple[int, float]:
        token, probability = self.ranked[0]
        return token, self.share(token, probability)

    def behind(self, token: int) -> Drafts:
        """The drafts of this place where `token` stands before it."""
        return replace(self, ranked=self.ranked_behind(token)) if token in self.given else self

    def ranked_behind(self, token: int) -> Ranked:
        """`behind`, as pairs alone."""
        if token not in self.given:
            return self.ranked
        tokens, shares = self.given[token]
        if self.trust != 1:
            shares = [self.trust * share for share in shares]
        return list(zip(tokens, shares, strict=True))

    @property
    def branches(self) -> Ranked:
        """Those that may become candidates of a tree, however many the viewer wants to see."""
        return self.ranked[:BRANCHES]

    def outdated(self) -> Drafts:
        """The same, believed less: an earlier place has turned out to hold another token than these guesses saw."""
        ranked = [(token, _OUTDATED * share) for token, share in self.ranked]
        return replace(self, ranked=ranked, trust=_OUTDATED * self.trust)


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
    return lambda depth, token: drafts[depth - 1].ranked_behind(token)[:BRANCHES]


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
    """The drafts of a group's places, at the request's temperature, as the draft head weighs them, if there is one.
    Acceptance by the same noise: given that noise. Speculative sampling: drawn ones. To be called inside `timed`."""
    if not len(group.rows):
        return []
    if lane.settings.temperature:
        return _at_a_temperature(lane, group)
    return _likeliest(lane, group)


def _likeliest(lane: LaneRun, group: Group) -> list[Drafts]:
    own = guessed(group.rows, wanted(lane, _ranks(lane)), lane.model.config.mask)
    if head := lane.settings.draft_head:
        return _weighed(head, lane, group, own)
    return [Drafts(ranked) for ranked in _ranked(own.tokens, own.log_shares.exp())]


def _ranks(lane: LaneRun) -> int:
    """How many drafts of a place may be verified or shown."""
    return max(BRANCHES, lane.settings.alternatives)


def _weighed(head: WeighsDrafts, lane: LaneRun, group: Group, own: Guessed, drawn: Drawn | None = None) -> list[Drafts]:
    """A group's drafts as the draft head weighs them. own: its guesses; drawn: what noise makes of them."""
    count = _ranks(lane)
    predicted = guessed(group.predicted, CANDIDATES, None if group.causal else lane.model.config.mask)
    guesses = Guessed.join(predicted, own)
    best = (part.tolist() for part in head.drafts(guesses, group.older, group.newest, count, drawn))
    tokens, log_shares = (drawn.tokens, drawn.log_shares) if drawn else (own.tokens, own.log_shares)
    known = max(count, PARENTS)
    places = _ranked(tokens[:, :known], log_shares[:, :known].exp())
    drafts, parents = [], [group.newest]
    for ranked, *ranks in zip(places, *best, strict=True):
        given = dict(zip(parents, zip(*ranks, strict=True), strict=False))
        drafts.append(Drafts(ranked[:count], given=given))
        parents = [token for token, _ in ranked[:PARENTS]]
    return [drafts[0].behind(group.newest), *drafts[1:]]


def guessed(output: Output, count: int, mask: int | None) -> Guessed:
    """The `count` likeliest tokens of every row of a forward, or as many as there are. mask: the token that
    no row may propose, None for causal rows."""
    best = output.best
    if best is not None and best.tokens.shape[1] >= min(count, output.logits.shape[-1]):
        return Guessed(best.tokens[:, :count], best.logits[:, :count] - best.log_sums[:, None])
    log_shares = output.logits.float().log_softmax(-1)
    if mask is not None:
        log_shares[:, mask] = -torch.inf  # out of the choice, yet in the sum
    values, tokens = largest(log_shares, min(count, log_shares.shape[-1]))
    return Guessed(tokens, values)


def _ranked(tokens: Tensor, shares: Tensor) -> list[list[tuple[int, float]]]:
    return [list(zip(*place, strict=True)) for place in zip(tokens.tolist(), shares.tolist(), strict=True)]


def _at_a_temperature(lane: LaneRun, group: Group) -> list[Drafts]:
    logits, temperature = group.rows.logits.to(torch.float32, copy=True), lane.settings.temperature
    places = range(group.index, group.index + len(logits))
    logits[:, lane.model.config.mask] = -torch.inf
    drawn = logits / temperature
    if lane.settings.acceptance == "match":
        drawn += lane.noise.gumbel("token", places, logits)
    if head := lane.settings.draft_head:
        own = guessed(group.rows, CANDIDATES, lane.model.config.mask)
        log_shares, tokens = largest(drawn.log_softmax(-1), own.tokens.shape[1])
        plain = logits.log_softmax(-1).gather(-1, tokens)
        return _weighed(head, lane, group, own, Drawn(tokens, plain, log_shares, temperature))
    shares = drawn.softmax(-1)
    count = min(BRANCHES, logits.shape[-1])
    probabilities, tokens = largest(shares, count)
    if not draws_drafts(lane):
        return [Drafts(ranked) for ranked in _ranked(tokens, probabilities)]
    # Draws without replacement: the order of logits with noise (Gumbel top-k).
    order = largest(drawn + lane.noise.gumbel("draft", places, logits), count)[1]
    return [Drafts(ranked, shares[row]) for row, ranked in enumerate(_ranked(order, probabilities))]


def chained(lane: LaneRun, guesses: Guesses, group: Group) -> Guesses:
    """The guesses of a forward's last rows as a chain that the draft head weighs, where there is one: those of
    `group`, and before them as many as are there already. At a temperature probabilities stay what the forward said, as
    those that are weighed are of one draw. To be called inside `timed`."""
    if lane.settings.draft_head is None:
        return guesses
    ready = len(guesses.tokens) - len(group.rows)
    best = [place.ranked for place in chain(draft(lane, group))]
    tokens = [ranked[0][0] for ranked in best]
    guesses = replace(guesses, tokens=[*guesses.tokens[:ready], *tokens])
    if lane.settings.temperature:
        said = guesses.probabilities[ready:].gather(-1, torch.tensor(tokens, device=lane.model.device)[:, None])
        return replace(guesses, confidence=[*guesses.confidence[:ready], *said[:, 0].tolist()])
    return replace(
        guesses,
        confidence=[*guesses.confidence[:ready], *(ranked[0][1] for ranked in best)],
        top=[*lane.explain(guesses).top[:ready], *(list(ranked[: lane.settings.alternatives]) for ranked in best)],
    )


def firsts(lane: LaneRun, groups: Sequence[Group]) -> list[list[tuple[int, float]]]:
    """What every group drafts first, (token, probability) each: for the viewer, outside the clock."""
    if not lane.settings.alternatives:
        return []
    return [[place.first for place in chain(draft(lane, group))] for group in groups]
