"""`python -m nemodiff bench --beyond`: in which order diffusion commits, by sampler and threshold, beside AR."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import agreement, repeated_share, speed_up
from nemodiff.examples import Example
from nemodiff.markdown import table
from nemodiff.request import ORDERS, Request
from nemodiff.trace.events import Lane

THRESHOLDS, ENTROPY_BOUNDS = (0.6, 0.8, 0.9, 0.95), (0.1, 0.3, 1.0)
#: Lengths of the n-grams whose repetition is counted.
_GRAM = 4


@dataclass(frozen=True, slots=True)
class OrderRun:
    """Diffusion of one prompt at one setting, beside AR in the same process: tokens per forward, AR's model seconds
    per token over its own, agreement with AR, the share of 4-grams that came before, and the surprise: nats per token
    of the model's own AR pass over the finished text. Text that falls apart is what AR finds surprising."""

    example: Example
    sampler: str
    order: str
    setting: float
    block_length: int
    tpf: float
    speed_up: float
    agreement: float
    repeated: float
    surprise: float


def measure(
    engine: Engine, examples: Sequence[Example], block_lengths: Sequence[int], max_new_tokens: int
) -> list[OrderRun]:
    """AR once per prompt (as sampler "ar"), then every sampler in every order at every setting and block length."""
    samplers = ["confidence", "entropy", *(["trained"] if engine.sampler else [])]
    found = []
    for example in examples:
        print(f"orders: {example.label} …", file=sys.stderr, flush=True)
        common: dict[str, Any] = {"prompt": example.prompt, "max_new_tokens": max_new_tokens, "alternatives": 0}
        ar = engine.generate(Request(modes=("ar",), **common)).lanes[0]
        found.append(_run(engine, example, ("ar", "", 0.0, 0), ar, ar))
        for length in block_lengths:
            for sampler in samplers:
                name, values = ("entropy_bound", ENTROPY_BOUNDS) if sampler == "entropy" else ("threshold", THRESHOLDS)
                for order in ORDERS:
                    for value in values:
                        setting = {"sampler": sampler, "order": order, "block_length": length, name: value}
                        lane = engine.generate(Request(modes=("diffusion",), **common | setting)).lanes[0]
                        found.append(_run(engine, example, (sampler, order, value, length), lane, ar))
    return found


def _run(engine: Engine, example: Example, setting: tuple[str, str, float, int], lane: Lane, ar: Lane) -> OrderRun:
    return OrderRun(
        example,
        *setting,
        tpf=lane.tpf or 0.0,
        speed_up=speed_up(lane, ar) or 0.0,
        agreement=agreement(lane, ar),
        repeated=repeated_share(lane.tokens, _GRAM),
        surprise=surprise(engine, example.prompt, lane.tokens),
    )


@torch.inference_mode()
def surprise(engine: Engine, prompt: str, tokens: Sequence[int]) -> float:
    """Mean negative log-likelihood, in nats, of an answer's tokens in one causal forward; 0 of an empty answer."""
    if not tokens:
        return 0.0
    asked = engine.encode(Request(prompt=prompt, max_new_tokens=len(tokens)))
    ids = torch.tensor([*asked, *tokens], device=engine.model.device)
    logits = engine.model.forward(ids[:-1], engine.model.new_cache(len(ids))).logits[len(asked) - 1 :].float()
    return -float(logits.log_softmax(-1).gather(1, ids[len(asked) :, None]).mean())


def report(found: Sequence[OrderRun], max_new_tokens: int) -> str:
    """Means by setting, for structured and for open-ended prompts, AR's own first."""
    said = (
        f"Diffusion on the example prompts, at most {max_new_tokens} new tokens. × AR: model seconds per token, same "
        "process. Agreement: tokens equal to AR's before the first that differs. Repeated: 4-grams that came before. "
        "Surprise: nats per token of the model's AR pass over the finished text; AR's own text is the reference."
    )
    names = ["prompts", "block", "sampler", "order", "setting", "TPF", "× AR", "agreement", "repeated", "surprise"]
    rows = []
    for name, structured in (("structured", True), ("open-ended", False)):
        mine = [run for run in found if run.example.structured is structured]
        for key in dict.fromkeys((run.block_length, run.sampler, run.order, run.setting) for run in mine):
            runs = [run for run in mine if (run.block_length, run.sampler, run.order, run.setting) == key]
            length, sampler, order, setting = key
            cells = [
                name,
                length or "",
                sampler,
                order,
                f"{setting:g}" if order else "",
                f"{fmean(run.tpf for run in runs):.2f}",
                f"{fmean(run.speed_up for run in runs):.2f}×",
                f"{fmean(run.agreement for run in runs):.0%}",
                f"{fmean(run.repeated for run in runs):.1%}",
                f"{fmean(run.surprise for run in runs):.2f}",
            ]
            rows.append(cells)
    return f"{said}\n\n{table(names, rows)}"
