"""What a forward costs by its rows, on this machine: measured once a model, when first asked for."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch

from nemodiff.model.layout import tree
from nemodiff.model.runner import ForwardShape, Runner

#: Row counts that are measured; the costs between them lie on lines.
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
#: Rounds over all of them. A moment in which the machine was busy with something else then spoils no count.
_ROUNDS = 6
#: Best tokens that are read off every row, as a tree's forward asks for.
_FEW = 10
#: Positions kept before them.
_CONTEXT = 64
_known: WeakKeyDictionary[Runner, RowCosts] = WeakKeyDictionary()


class RowCosts:
    """Milliseconds of a forward by its rows: `measured` at `counts`, ascending, and on lines between and beyond.

    padded: to which of these rows are filled up, where a runner does so.
    """

    def __init__(
        self, counts: Sequence[int], measured: Sequence[float], padded: Callable[[int], int] = lambda rows: rows
    ) -> None:
        self._table = [0.0]
        for rows in map(padded, range(1, counts[-1] + 1)):
            right = bisect_left(counts, rows)
            left = max(right - 1, 0)
            step = (measured[right] - measured[left]) / max(counts[right] - counts[left], 1)
            self._table.append(measured[left] + step * (rows - counts[left]))
        self._slope = (measured[-1] - measured[0]) / max(counts[-1] - counts[0], 1)

    def of(self, rows: int) -> float:
        """Milliseconds of a forward of so many rows."""
        if rows < len(self._table):
            return self._table[rows]
        return self._table[-1] + self._slope * (rows - len(self._table) + 1)


def row_costs(model: Runner) -> RowCosts:
    """A model's costs, measured at the first call: about a second for a small model on a CPU."""
    if model not in _known:
        _known[model] = RowCosts(COUNTS, _measure(model), model.padded)
    return _known[model]


@torch.inference_mode()
def _measure(model: Runner) -> list[float]:
    """Milliseconds at every one of COUNTS, the fastest of a few: half of the rows are verified, half are masks. More
    rows never count for less."""
    prompt = model.new_cache(_CONTEXT + COUNTS[-1])
    model.forward(torch.zeros(_CONTEXT, dtype=torch.long, device=model.device), prompt)
    prompt.keep(_CONTEXT)
    cache = model.lane_cache(prompt, "costs")
    layouts = [tree((-1, *range((count + 1) // 2 - 1)), (0,), count // 2, model.device) for count in COUNTS]
    for count, layout in zip(COUNTS, layouts, strict=True):
        model.prepare(cache, [ForwardShape(count, adapter=True, layout=layout)])
    fastest = [math.inf] * len(COUNTS)
    for _ in range(_ROUNDS):
        for place, (count, layout) in enumerate(zip(COUNTS, layouts, strict=True)):
            inputs = torch.zeros(count, dtype=torch.long, device=model.device)
            begin = time.perf_counter()
            model.forward(inputs, cache, adapter=True, layout=layout, few=_FEW)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            fastest[place] = min(fastest[place], 1000 * (time.perf_counter() - begin))
    return [max(fastest[: place + 1]) for place in range(len(COUNTS))]
