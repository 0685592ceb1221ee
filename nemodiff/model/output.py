"""Output: the logits of a forward's rows, with what a runner has read off them already."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Best:
    """What a runner read off rows of logits, on the host; the mask is never among the tokens of bidirectional rows.

    tokens: int64 [rows, few], the most probable first, the first of equals; logits: theirs, float32. log_sums: float32
    [rows], the logarithm of the sum of all exponentials: exp(logits - log_sums) are probabilities.
    """

    tokens: Tensor
    logits: Tensor
    log_sums: Tensor

    @classmethod
    def empty(cls, rows: int, few: int) -> Best:
        return cls(torch.empty(rows, few, dtype=torch.long), torch.empty(rows, few), torch.empty(rows))

    def __getitem__(self, rows: slice) -> Best:
        return Best(self.tokens[rows], self.logits[rows], self.log_sums[rows])

    @property
    def probabilities(self) -> Tensor:
        """Of the tokens: [rows, few]."""
        return (self.logits - self.log_sums[:, None]).exp()

    def probability(self, logits: Tensor, row: int, token: int) -> float:
        """Of any token of a row; logits: the rows' [rows, vocab]."""
        return math.exp(float(logits[row, token]) - float(self.log_sums[row]))


@dataclass(frozen=True, slots=True)
class Output:
    """logits: [rows, vocab], float32 or the model's dtype. best: None where the runner reads nothing off them."""

    logits: Tensor
    best: Best | None = None

    def __len__(self) -> int:
        return self.logits.shape[0]

    def __getitem__(self, rows: slice) -> Output:
        return Output(self.logits[rows], None if self.best is None else self.best[rows])
