"""What a forward costs by its rows, on this machine: measured when first asked for, and anew where the machine has
turned out to be faster than that, as one that was busy then does."""

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
#: Seconds until a run looks again whether the costs still hold, and the share of them below which they do not.
_AGAIN, _FASTER = 30.0, 0.8
#: Best tokens that are read off every row, as a tree's forward asks for.
_FEW = 10
#: Positions kept before them.
_CONTEXT = 64
_known: WeakKeyDictionary[Runner, RowCosts] = WeakKeyDictionary()


class RowCosts:
    """Milliseconds of a forward by its rows: `measured` at `counts`, ascending, and on lines between and beyond.

    padded: to which of these rows are filled up, where a runner does so. least: what one more row costs at least.
    looked: when they were last compared with the machine, in seconds of the monotonic clock.
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
        steps = [after - before for before, after in zip(self._table[1:], self._table[2:], strict=False)]
        self.least = max(min([self._slope, *steps]), 0.0)
        self.looked = time.monotonic()

    def of(self, rows: int) -> float:
        """Milliseconds of a forward of so many rows."""
        if rows < len(self._table):
            return self._table[rows]
        return self._table[-1] + self._slope * (rows - len(self._table) + 1)


def row_costs(model: Runner) -> RowCosts:
    """A model's costs, measured at the first call: about a second for a small model on a CPU."""
    if model not in _known:
        _known[model] = RowCosts(COUNTS, _measure(model, COUNTS, _ROUNDS), model.padded)
    return _known[model]


def look_again(model: Runner) -> None:
    """Measure a model's costs anew if one row or the most rows are clearly faster now than they were; what is slower
    now may be so because the machine is busy. At most every _AGAIN seconds, and two forwards where nothing changed."""
    known = row_costs(model)
    if time.monotonic() - known.looked < _AGAIN:
        return
    known.looked = time.monotonic()
    ends = (COUNTS[0], COUNTS[-1])
    if any(now < _FASTER * known.of(rows) for rows, now in zip(ends, _measure(model, ends, 1), strict=True)):
        _known[model] = RowCosts(COUNTS, _measure(model, COUNTS, _ROUNDS), model.padded)


@torch.inference_mode()
def _measure(model: Runner, counts: Sequence[int], rounds: int) -> list[float]:
    """Milliseconds at every one of `counts`, the fastest of a few: half of the rows are verified, half are masks. More
    rows never count for less."""
    prompt = model.new_cache(_CONTEXT + counts[-1])
    model.forward(torch.zeros(_CONTEXT, dtype=torch.long, device=model.device), prompt)
    prompt.keep(_CONTEXT)
    cache = model.lane_cache(prompt, "costs")
    layouts = [tree((-1, *range((count + 1) // 2 - 1)), (0,), count // 2, model.device) for count in counts]
    for count, layout in zip(counts, layouts, strict=True):
        model.prepare(cache, [ForwardShape(count, adapter=True, layout=layout)])
    fastest = [math.inf] * len(counts)
    for _ in range(rounds):
        for place, (count, layout) in enumerate(zip(counts, layouts, strict=True)):
            inputs = torch.zeros(count, dtype=torch.long, device=model.device)
            begin = time.perf_counter()
            model.forward(inputs, cache, adapter=True, layout=layout, few=_FEW)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            fastest[place] = min(fastest[place], 1000 * (time.perf_counter() - begin))
    return [max(fastest[: place + 1]) for place in range(len(counts))]
