"""Graph: a forward captured as a CUDA graph. Not run by this project: there was no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Graph:
    """`forward`, which takes its inputs from and leaves its results in buffers of its own, recorded and replayed.

    pool: memory that graphs share. What a graph computes on the way lies there, and another graph's replay overwrites
    it; so nothing that is read afterwards may lie there.
    """

    def __init__(self, forward: Callable[[], None], device: torch.device, pool: Any) -> None:
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # libraries set themselves up in the first calls, which a graph must not hold
            for _ in range(3):
                forward()
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # What another thread does with the device meanwhile is none of this graph's.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            forward()

    def __call__(self) -> None:
        self._graph.replay()
