"""Speed of light over prompts: what the oracle of `nemodiff.decode.speed_of_light` comes to, as figures and lines."""

from __future__ import annotations

import time

from tqdm import tqdm

from nemodiff import markdown
from nemodiff.engine.interface import EngineInterface
from nemodiff.evaluate.agreement import agreement
from nemodiff.request import Request
from nemodiff.trace.events import Lane
from nemodiff.trace.oracle import Ceiling

_HEAD = """\
{engine.checkpoint} · {engine.device} · {engine.dtype} · {prompts} prompts, at most {tokens} new tokens; sampler: \
confidence >= {threshold}, order best
TPF: tokens per forward; a prompt's first token is the prefill's, which counts as no forward.
"""
_COLUMNS = (
    *(
        "block",
        "serial TPF",
        "sampler TPF",
        "ceiling TPF",
        "sampler / ceiling",
        "ceiling, tokens per denoising forward",
    ),
    *("simulated forwards per block", "searches cut", "sampler agrees with serial", "seconds"),
)


def heading(engine: EngineInterface, prompts: int, tokens: int, threshold: float | None) -> str:
    """What stands above the lines."""
    said = _HEAD.format(engine=engine, prompts=prompts, tokens=tokens, threshold=threshold)
    return f"{said}\n{markdown.head(_COLUMNS)}"


def row(engine: EngineInterface, length: int, requests: list[Request], budget: int | None) -> dict[str, float]:
    """Sums over the prompts, as figures of one block length."""
    begin = time.perf_counter()
    ceilings, lanes = [], []
    bar = tqdm(requests, desc=f"block {length}", unit="prompt", leave=False, disable=None)
    for request in bar:
        ceiling = Ceiling()
        for step in engine.ceiling(request, budget):
            if step is None:
                continue
            if step.block:
                ceiling.blocks.append(step.block)
            bar.set_postfix(tokens=step.tokens, forwards=step.forwards)
        ceilings.append(ceiling)
        lanes.append(engine.generate(request).lanes[0])
    blocks = [block for ceiling in ceilings for block in ceiling.blocks]
    tokens = sum(len(ceiling.tokens) for ceiling in ceilings)
    sampled = sum(len(lane.tokens) for lane in lanes) / max(sum(lane.forwards for lane in lanes), 1)
    reached = tokens / max(sum(ceiling.forwards for ceiling in ceilings), 1)
    return {
        "block_length": length,
        "serial_tpf": round(tokens / max(sum(ceiling.serial for ceiling in ceilings), 1), 4),
        "sampler_tpf": round(sampled, 4),
        "ceiling_tpf": round(reached, 4),
        "share": round(sampled / reached, 4),
        "ceiling_per_denoising": round(tokens / max(sum(ceiling.denoising for ceiling in ceilings), 1), 4),
        "simulated": round(sum(block.simulated for block in blocks) / len(blocks), 2),
        "exhausted": round(sum(block.exhausted for block in blocks) / len(blocks), 4),
        "agreement": round(sum(_agreement(*pair) for pair in zip(lanes, ceilings, strict=True)) / len(ceilings), 4),
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _agreement(lane: Lane, ceiling: Ceiling) -> float:
    return agreement(lane, Lane("diffusion", tokens=ceiling.tokens))


def line(row: dict[str, float]) -> str:
    """A row of the table."""
    cells = (
        f"{row['block_length']}",
        *(f"{row[name]:.2f}" for name in ("serial_tpf", "sampler_tpf", "ceiling_tpf")),
        f"{row['share']:.0%}",
        f"{row['ceiling_per_denoising']:.2f}",
        f"{row['simulated']:.0f}",
        *(f"{row[name]:.0%}" for name in ("exhausted", "agreement")),
        f"{row['seconds']:.0f}",
    )
    return markdown.row(cells)
