"""Which kinds of forwards a mode runs, so that a runner that records them can do so before the clock starts."""

from __future__ import annotations

from collections.abc import Iterable

from nemodiff.decode.lane import Settings
from nemodiff.decode.quadratic import layouts
from nemodiff.model.layout import tree
from nemodiff.model.runner import ForwardShape, Runner


def shapes(mode: str, model: Runner, settings: Settings) -> Iterable[ForwardShape]:
    """The shapes of a mode's forwards after the prefill. Of a tree: one for each number of rows that runs differ in."""
    length, adapter = settings.block_length, settings.adapter
    if mode == "ar":
        return [ForwardShape(1)]
    if mode == "diffusion":
        return [ForwardShape(length, causal=False), ForwardShape(length)]
    if settings.draft == "linear":
        return [ForwardShape(length, causal=False, adapter=adapter), ForwardShape(length)]
    if settings.draft == "quadratic":
        made = layouts(model, length, settings.ar_weight).values()
        return [ForwardShape(layout.rows, adapter=adapter, layout=layout) for layout in made]
    most = settings.most_rows
    counts = {model.padded(rows): rows for rows in range(1, most + 1)}.values()
    chains = [tree((-1, *range(rows - 1)), device=model.device) for rows in counts]
    return [ForwardShape(chain.rows, adapter=adapter, layout=chain) for chain in chains]
