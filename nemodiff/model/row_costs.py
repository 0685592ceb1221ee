"""What a forward costs by its rows, on this machine: measured once a model, when first asked for."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch

from nemodiff.model.layout import tree
from nemodiff.model.runner import ForwardShape, Runner

#: Row counts that are measured, times each; the costs between them lie on lines.
COUNTS, _TIMES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64), 3
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
    measured: list[float] = []
    for count in COUNTS:
        plain = (count + 1) // 2
        layout = tree((-1, *range(plain - 1)), (0,), count - plain, model.device)
        inputs = torch.zeros(count, dtype=torch.long, device=model.device)
        model.prepare(cache, [ForwardShape(count, adapter=True, layout=layout)])
        took = []
        for _ in range(_TIMES):
            begin = time.perf_counter()
            model.forward(inputs, cache, adapter=True, layout=layout, few=1)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            took.append((time.perf_counter() - begin) * 1000)
        measured.append(max(min(took), measured[-1] if measured else 0.0))
    return measured
