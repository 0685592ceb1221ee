"""What several benches time alike: a call, and transformers' own generate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nemodiff.decode.prefill import synchronise
from nemodiff.engine.interface import EngineInterface
from nemodiff.request import Request
from nemodiff.trace.events import Lane


def exactness(engine: EngineInterface) -> str:
    """What the head of a table says of a token's logits alone and in a block."""
    return "exact" if engine.exact else "not exact"


def timed_ar(engine: EngineInterface, request: Request) -> tuple[Lane, float, float]:
    """One AR run: (its lane, seconds of wall time after the prefill, model seconds after the prefill). What the first
    has beyond the second is what tracing costs."""
    recorder, begin = engine.recorder(request), 0.0
    for event in filter(None, engine.stream(request)):
        recorder.add(event)
        if event.phase == "prefill":
            begin = time.perf_counter()
    wall = time.perf_counter() - begin
    lane = recorder.finish("stopped").lanes[0]
    return lane, wall, lane.seconds - lane.prefill_seconds


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """The median time of twenty calls, or of as many as ten seconds take, after three that do not count."""
    times: list[float] = []
    while len(times) < 3 or (len(times) < 23 and sum(times) < 10_000):
        synchronise(device)
        begin = time.perf_counter()
        call()
        synchronise(device)
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[3:] or times[-1:])


def generate_rate(reference: Any, ids: Tensor, new_tokens: int) -> float:
    """Tokens/s of a transformers model's `generate`, greedy, from ids [1, tokens]; prefill taken out."""
    how = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}

    def seconds(tokens: int) -> float:
        synchronise(ids.device)
        begin = time.perf_counter()
        reference.eval().generate(ids, min_new_tokens=tokens, max_new_tokens=tokens, **how)
        synchronise(ids.device)
        return time.perf_counter() - begin

    seconds(2)  # so that nothing is set up while it is timed
    first = seconds(1)
    return (new_tokens - 1) / max(seconds(new_tokens) - first, 1e-9)
