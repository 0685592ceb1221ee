"""Which tree of candidates a forward verifies, and behind which of them it drafts again: chosen before the forward, so
that expected new tokens a millisecond are most.

A candidate's probability is the product of its drafts' marginal ones on the way to it. That makes the trees of every
size one sequence, best first (OPT-Tree, arXiv 2406.17276): no tree of so many nodes expects more accepted ones.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemodiff.model.row_costs import RowCosts

#: Drafts of a place: (token, probability), best first.
Ranked = Sequence[tuple[int, float]]
#: The drafts of a distance (1 first) behind a token at the distance before.
Behind = Callable[[int, int], Ranked]

#: Drafts of a distance that may become nodes; distances that a group may draft; groups and nodes of one forward.
BRANCHES, MOST_MASKS, MOST_GROUPS, MOST_NODES = 10, 8, 8, 48
#: Most rows of a forward whose rows nobody fixed.
MOST_ROWS = 64
#: What is tried of each.
_NODES = frozenset((0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40))
_GROUPS, _MASKS = frozenset((1, 2, 3, 4, 5, 6, 8)), frozenset((1, 2, 3, 4, 6, 8))
#: How often drafts of a distance are accepted, before a run has seen any; how many cycles that counts for, and how much
#: of what a run has seen it still counts one cycle later.
_EXPECTED, _WEIGHT, _MEMORY = (0.6, 0.4, 0.3, 0.22, 0.17, 0.13, 0.1, 0.08), 2.0, 0.9


@dataclass(frozen=True, slots=True)
class Node:
    """A candidate. parent: its row in the forward, 0 the newest token; node i is row i + 1. depth: places after the
    newest token. share: probability of the token at its distance. probability: of all on the way to it, too."""

    token: int
    parent: int
    depth: int
    share: float
    probability: float


@dataclass(frozen=True, slots=True)
class Tree:
    """What one forward runs: nodes, each behind its parent, and `masks` masks behind each of the rows `behind`.

    expected: new tokens that it is expected to give, the verifier's own included. ready: how likely the next one has
    drafts.
    """

    nodes: list[Node]
    behind: list[int]
    masks: int
    expected: float
    ready: float

    @property
    def parents(self) -> tuple[int, ...]:
        """Of every row that is verified, as `nemodiff.model.layout.tree` takes them."""
        return (-1, *(node.parent for node in self.nodes))

    @property
    def rows(self) -> int:
        """Rows of the forward."""
        return 1 + len(self.nodes) + len(self.behind) * self.masks


def grow(drafts: Sequence[Ranked], most: int, behind: Behind | None = None, least: float = 0.0) -> list[Node]:
    """The `most` likeliest candidates, best first, so that every one comes after its parent.

    drafts: by distance from the newest token, 1 first. behind: what they are behind a certain candidate, where they
    depend on it. least: no candidate is less probable.
    """
    nodes: list[Node] = []
    following = [drafts[0] if drafts else ()]  # of every row the drafts of the place behind it
    heap: list[tuple[float, int, int, int, int, float]] = []  # -probability, order, parent, depth, rank, parent's

    def offer(parent: int, depth: int, rank: int, before: float) -> None:
        if rank < len(following[parent]):
            probability = before * following[parent][rank][1]
            if probability > 0:
                heapq.heappush(heap, (-probability, len(heap) + len(nodes) * 64, parent, depth, rank, before))

    offer(0, 1, 0, 1.0)
    while heap and len(nodes) < most:
        minus, _, parent, depth, rank, before = heapq.heappop(heap)
        if -minus < least:
            break
        token, share = following[parent][rank]
        nodes.append(Node(token, parent, depth, share, -minus))
        deeper = () if depth == len(drafts) else behind(depth + 1, token) if behind else drafts[depth]
        following.append(deeper)
        offer(len(nodes), depth + 1, 0, -minus)
        offer(parent, depth, rank + 1, before)
    return nodes


class Planner:
    """Chooses the sizes of one lane's forwards.

    rows: the most rows of a forward; None where the milliseconds that `costs` names decide. spare: masks of a group
    whose guess nothing uses (1 where logits are aligned: the first guesses the verifier's own place).
    """

    def __init__(self, costs: RowCosts, rows: int | None, spare: int) -> None:
        self._costs, self._rows, self._spare = costs, rows, spare
        self._most = rows or MOST_ROWS
        self._tried = [_WEIGHT] * MOST_MASKS
        self._accepted = [_WEIGHT * share for share in _EXPECTED]
        # Tokens and milliseconds so far, the newest most: what a millisecond is worth. As if some had been before.
        self._tokens, self._ms = 6.0, 4 * costs.of(6)
        self._nodes = 4.0

    def plan(self, drafts: Sequence[Ranked], left: int, behind: Behind | None = None) -> Tree:
        """The next forward. drafts, behind: what the group behind the newest token guessed, as for `grow`; empty where
        there was none. left: places of the answer that are still open, the verifier's own included."""
        worth = 0.0 if self._rows else self._tokens / self._ms
        # A candidate that is less probable than its row is worth pays in no tree, nor does any behind it.
        most, least = min(MOST_NODES, self._most - 1), worth * self._costs.least
        nodes = grow(drafts[: max(left - 1, 0)], most, behind, least)
        groups_of = self._values(worth, left)
        ends, accepted, best, sizes = [1.0], 0.0, -math.inf, (0, 0, 0)
        for count in range(len(nodes) + 1):
            if count:
                node = nodes[count - 1]
                ends[node.parent] -= node.probability
                ends.append(node.probability)
                accepted += node.probability
            if count not in _NODES and count != len(nodes):
                continue
            gain = accepted - worth * self._costs.of(1 + count)
            if gain > best:
                best, sizes = gain, (count, 0, 0)
            ready = 0.0
            for groups, end in enumerate(sorted(ends, reverse=True)[:MOST_GROUPS], 1):
                ready += end
                for masks, value in groups_of if groups in _GROUPS else ():
                    rows = 1 + count + groups * masks
                    if rows > self._most:
                        continue
                    gain = accepted + ready * value - worth * self._costs.of(rows)
                    if gain > best:
                        best, sizes = gain, (count, groups, masks)
        return _tree(nodes[: sizes[0]], *sizes[1:])

    def learn(self, tree: Tree, depth: int, accepted: int) -> None:
        """What a forward came to. depth: distances that had drafts. accepted: how many candidates were."""
        self._tokens = self._tokens * _MEMORY + accepted + 1
        self._ms = self._ms * _MEMORY + self._costs.of(tree.rows)
        if depth:
            self._nodes = self._nodes * _MEMORY + len(tree.nodes) * (1 - _MEMORY)
        # Without drafts nothing is seen, and what was seen fades: so that they are tried again.
        for distance in range(MOST_MASKS):
            prior = _WEIGHT * (1 - _MEMORY)
            self._tried[distance] = self._tried[distance] * _MEMORY + prior + (distance < depth)
            self._accepted[distance] = (
                self._accepted[distance] * _MEMORY + prior * _EXPECTED[distance] + (distance < min(depth, accepted))
            )

    def _values(self, worth: float, left: int) -> list[tuple[int, float]]:
        """(masks of a group, tokens that being ready with their drafts is worth), where it is worth something."""
        values, gain = [], 0.0
        for distance in range(min(MOST_MASKS, left - 2)):
            gain += self._accepted[distance] / self._tried[distance]
            candidates = min(round(self._nodes), 2 * (distance + 1))
            value = gain - worth * (self._costs.of(1 + candidates) - self._costs.of(1))
            if value > 0 and distance + 1 in _MASKS:
                values.append((distance + 1 + self._spare, value))
        return values


def _tree(nodes: list[Node], groups: int, masks: int) -> Tree:
    ends = [1.0]
    for node in nodes:
        ends[node.parent] -= node.probability
        ends.append(node.probability)
    behind = sorted(sorted(range(len(ends)), key=lambda row: -ends[row])[:groups])
    expected = 1 + sum(node.probability for node in nodes)
    return Tree(nodes, behind, masks, expected, sum(ends[row] for row in behind))
