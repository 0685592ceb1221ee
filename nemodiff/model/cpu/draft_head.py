"""The draft head in the compiled kernels: one call for a group, where torch takes fifty small steps."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemodiff.model.cpu.pack import padded, spread
from nemodiff.model.cpu.plan import HeadPlan
from nemodiff.model.draft_head import AROUND, CANDIDATES, DISTANCES, FLOOR, MOST, PARENTS, DraftHead, Drawn, Guessed

if TYPE_CHECKING:
    from nemodiff.model.cpu.build import Kernels

#: Lanes of a vector: widths here are multiples of it.
_LANES = 16
#: What the plan of a group points to, in the order in which `CpuDraftHead.drafts` has it.
_GROUP = ("tokens", "log_shares", "own_tokens", "own_plain", "own_shares", "best_tokens", "best_shares")


class CpuDraftHead:
    """What a DraftHead makes of one group, computed by the kernels. Tables of tokens are bfloat16, all else float32."""

    def __init__(self, head: DraftHead, kernels: Kernels) -> None:
        config, self._kernels, self._lock = head.config, kernels, threading.Lock()
        plan = self._plan = HeadPlan()
        plan.components, plan.width, plan.rank = (
            padded(size, _LANES) for size in (config.components, config.width, config.rank)
        )
        plan.distances, plan.row = DISTANCES, padded(CANDIDATES, _LANES)
        plan.scale, plan.floor, plan.most = config.rank**-0.5, FLOOR, MOST
        self._held: list[Tensor] = []
        tables = head.tables
        tables["pair"] += head.out.bias
        for name, table in tables.items():
            setattr(plan, name, self._hold(spread(table.bfloat16(), None, padded(table.shape[1], _LANES), 1)))
        around = head.around.weight.view(-1, config.components)
        around = spread(around, None, plan.components, 1).view(config.width, -1)
        plan.around, plan.out = self._blocks(around), self._blocks(spread(head.out.weight, None, plan.width, 1))
        for name, rows in (("distance", head.distance.weight), ("figures", head.figures.weight.t())):
            setattr(plan, name, self._hold(spread(rows.contiguous(), None, plan.width, 1)))
        self._places, self._buffers = 0, {}

    def drafts(
        self, guesses: Guessed, older: int, newest: int, count: int, drawn: Drawn | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `WeighsDrafts`."""
        plan, places, candidates = self._plan, len(guesses.tokens) - 1, guesses.tokens.shape[1]
        if candidates > CANDIDATES:
            raise ValueError(f"{candidates} guesses of a place, where the kernel weighs {CANDIDATES}")
        count, parents = min(count, candidates), min(PARENTS, candidates)
        tokens = torch.empty(places, parents, count, dtype=torch.long)
        shares = torch.empty(places, parents, count)
        all_tokens, all_shares = guesses.tokens.contiguous(), guesses.log_shares.contiguous()
        own = (all_tokens[1:], all_shares[1:], all_shares[1:])
        if drawn:
            own = (drawn.tokens.contiguous(), drawn.plain.contiguous(), drawn.log_shares.contiguous())
        plan_of = dict(zip(_GROUP, (all_tokens, all_shares, *own, tokens, shares), strict=True))
        with self._lock:
            self._fit(places)
            plan.places, plan.parents, plan.candidates, plan.count = places, parents, candidates, count
            plan.older, plan.newest, plan.colder = older, newest, 1 / drawn.temperature if drawn else 1
            for name, part in plan_of.items():
                setattr(plan, name, part.data_ptr())
            self._kernels.weigh(ctypes.addressof(plan))
        return tokens, shares

    def _fit(self, places: int) -> None:
        """Buffers for groups of so many places."""
        if places <= self._places:
            return
        plan, self._places = self._plan, places
        self._buffers = {
            "said": torch.zeros((1 + places) * plan.components),
            "around_rows": torch.zeros(places * AROUND * plan.components),
            "place_rows": torch.zeros(places * plan.width),
            "hidden": torch.zeros(PARENTS * plan.width),
            "pairs": torch.zeros(PARENTS * plan.rank),
            "weighed": torch.zeros(plan.row),
        }
        for name, buffer in self._buffers.items():
            setattr(plan, name, buffer.data_ptr())

    def _blocks(self, weight: Tensor) -> int:
        """A matrix [outputs, inputs] as the kernel reads it: [outputs / lanes, inputs, lanes]."""
        weight = spread(weight, None, padded(len(weight), _LANES), 0)
        return self._hold(weight.unflatten(0, (-1, _LANES)).transpose(1, 2))

    def _hold(self, tensor: Tensor) -> int:
        self._held.append(tensor.contiguous())
        return self._held[-1].data_ptr()
