"""Layout: where the rows of one forward stand and which of each other they see, when they are no plain block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Rows that all see the kept cache, and of each other what `visible` says.

    positions: [rows] int64, counted from the cache's kept length; they may repeat. visible: [rows, rows] bool, row i
    sees row j; what a row sees stands in its logical order. plain: how many rows at the start are tokens to verify:
    they run without the draft LoRA, even in a forward with the adapter on. masks, again: what a group behind a token is
    made of (see `groups`). parents: of a tree, each plain row's parent row, -1 for the first (see `tree`).
    """

    positions: Tensor
    visible: Tensor
    plain: int
    masks: int
    again: bool = False
    parents: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.positions)

    @cached_property
    def paths(self) -> list[list[int]]:
        """Of a tree: the rows from the first to every leaf, so that each plain row lies on at least one. None else."""
        inner = set(self.parents)
        return [_ancestry(self.parents, row) for row in range(len(self.parents)) if row not in inner]

    @cached_property
    def seen_counts(self) -> Tensor:
        """How many rows each row sees: int32 [rows]."""
        return self.visible.sum(1, dtype=torch.int32)

    @cached_property
    def seen(self) -> Tensor:
        """The rows that each row sees, in ascending order and then filled up: int32 [rows, rows]."""
        return self.visible.to(torch.uint8).argsort(dim=1, descending=True, stable=True).int()


def groups(drafts: int, masks: int, *, again: bool, device: torch.device | str = "cpu") -> Layout:
    """The rows of one quadratic self-speculation forward (paper, "Nemotron-Labs-Diffusion": quadratic decoding).

    First [newest token, d1 … dk] (k = `drafts`), causal and contiguous: their keys lie in the cache where AR would
    have put them, so that keeping the first n + 1 is all that acceptance needs. Then a group after each of these
    k + 1 tokens: its `masks` masks at the positions that follow, and before them the token itself, if it comes `again`.
    A group's rows see each other and the causal rows before it: up to its token, or before it when the token comes
    again.
    """
    own = masks + again
    rows, tokens = (drafts + 1) * (1 + own), drafts + 1
    places = torch.arange(tokens)
    offsets = torch.arange(own) + (0 if again else 1)
    positions = torch.cat((places, (places[:, None] + offsets).flatten()))
    visible = torch.zeros(rows, rows, dtype=torch.bool)
    visible[:tokens, :tokens] = torch.ones(tokens, tokens).tril().bool()
    for group in range(tokens):
        part = slice(tokens + group * own, tokens + (group + 1) * own)
        visible[part, : group + (not again)] = True
        visible[part, part] = True
    return Layout(positions.to(device), visible.to(device), tokens, masks, again)


@lru_cache(maxsize=256)
def tree(
    parents: Sequence[int], behind: Sequence[int] = (), masks: int = 0, device: torch.device | str = "cpu"
) -> Layout:
    """The rows of one forward over a tree of candidates, with groups of masks behind some of them. Tuples, not lists.

    parents: each token's parent row, -1 for the first and an earlier row for any other. A token stands one position
    after its parent and sees its ancestors and itself. behind: the rows behind which a group of `masks` masks stands,
    at the positions that follow; a group sees what its token sees, and all of itself.

    Raises ValueError where a parent is no earlier row.
    """
    if not parents or parents[0] != -1 or not all(0 <= parent < row for row, parent in enumerate(parents) if row):
        raise ValueError("a tree's first row has parent -1, any other one a row before it")
    lines = [_ancestry(parents, row) for row in range(len(parents))]
    positions = [len(line) - 1 for line in lines]
    for row in behind:
        group = list(range(len(lines), len(lines) + masks))
        positions += [len(lines[row]) + offset for offset in range(masks)]
        lines += [lines[row] + group] * masks
    visible = torch.zeros(len(lines), len(lines), dtype=torch.bool)
    rows = [row for row, line in enumerate(lines) for _ in line]
    visible[rows, [seen for line in lines for seen in line]] = True
    return Layout(torch.tensor(positions).to(device), visible.to(device), len(parents), masks, parents=tuple(parents))


def _ancestry(parents: Sequence[int], row: int) -> list[int]:
    """The rows from the first to `row`."""
    line = []
    while row >= 0:
        line.append(row)
        row = parents[row]
    return line[::-1]
