"""`python -m nemodiff bench --beyond`: what the paper describes and nobody released, and what goes beyond it, in one
run: quadratic drafts and trees against linear drafts, the samplers and their orders, the speed of light."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from nemodiff.bench import orders as bench_orders
from nemodiff.bench import samplers
from nemodiff.bench import trees as bench_trees
from nemodiff.bench.timing import exactness, milliseconds
from nemodiff.decode import Prefill, quadratic_layouts
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate import speed_of_light
from nemodiff.evaluate.agreement import Totals
from nemodiff.evaluate.ranking_metrics import auc, calibration_error, recall_at
from nemodiff.examples import EXAMPLES, Example
from nemodiff.markdown import head, row, table
from nemodiff.request import Request
from nemodiff.samplers.trained import TrainedSampler
from nemodiff.training.sampler import collect, scores
from nemodiff.training.sampler_run import PRECISIONS, prompts_of

#: Block lengths of quadratic drafts, and of the speed of light.
LENGTHS, LIGHT_LENGTHS = (2, 3, 4, 6, 8, 16), (4, 8, 16, 32)
#: Block lengths and most new tokens of the orders.
ORDER_LENGTHS, ORDER_TOKENS = (8, 32), 48
#: Most new tokens of a held-out prompt and of a speed-of-light search.
HELD_OUT_TOKENS, LIGHT_TOKENS = 96, 64
#: Positions kept before the forwards that are timed.
CONTEXT = 128
KINDS = {"structured": True, "open-ended": False}


@dataclass(frozen=True, slots=True)
class Drafts:
    """Self-speculation of one prompt with one way to draft: what it took, what AR took in the same run, whether the
    text is AR's."""

    example: Example
    draft: str
    block_length: int
    own: Totals
    ar: Totals
    identical: bool


def _together(rows: Sequence[Drafts]) -> tuple[Totals, float]:
    """What several rows took in all, and AR's model seconds per token beside them over theirs."""
    own, ar = Totals.sum(one.own for one in rows), Totals.sum(one.ar for one in rows)
    return own, own.speed_up(ar) or 0.0


def run(
    checkpoint: str,
    *,
    max_new_tokens: int = 128,
    prompts: int = 16,
    block_length: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> Iterator[str]:
    """The tables as markdown, each as soon as it is measured. prompts: held-out ones, for the samplers. Raises
    CheckpointError, RequestError."""
    asked = Request(prompt_ids=(0,), block_length=block_length, max_new_tokens=max_new_tokens)
    engine = load(checkpoint, device=device, dtype=dtype)
    length = engine.defaults.block_length_of(asked)
    yield f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · greedy"
    yield "**Quadratic drafts**"
    yield drafts_report(measure_drafts(engine, EXAMPLES, length, LENGTHS, max_new_tokens), max_new_tokens)
    yield costs(engine, length, LENGTHS)
    yield "**Trees of drafts**"
    trees = bench_trees.measure(engine, EXAMPLES, max_new_tokens)
    yield bench_trees.report(trees, max_new_tokens)
    yield bench_trees.calibration(trees)
    yield "**Orders**"
    orders = bench_orders.measure(engine, EXAMPLES, ORDER_LENGTHS, min(max_new_tokens, ORDER_TOKENS))
    yield bench_orders.report(orders, min(max_new_tokens, ORDER_TOKENS))
    yield "**Samplers**"
    if engine.sampler:
        yield ranking(engine, engine.sampler, prompts, length)
        yield sampler_cost(engine, engine.sampler, length)
    yield samplers.compare(engine, prompts, length, min(max_new_tokens, HELD_OUT_TOKENS))
    yield "**Speed of light**"
    yield light(engine, EXAMPLES, LIGHT_LENGTHS, min(max_new_tokens, LIGHT_TOKENS))


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure_drafts(
    engine: Engine, examples: Sequence[Example], block_length: int, lengths: Sequence[int], max_new_tokens: int
) -> list[Drafts]:
    """Linear drafts in blocks of `block_length`, then quadratic ones of every length, each in a race against AR."""
    ways = [("linear", block_length), *(("quadratic", length) for length in lengths)]
    measured = []
    for example in examples:
        _progress(f"drafts: {example.label} …")
        for draft, length in ways:
            request = Request(
                prompt=example.prompt,
                modes=("ar", "self-speculation"),
                draft=draft,
                block_length=length,
                max_new_tokens=max_new_tokens,
                alternatives=0,
            )
            ar, lane = engine.generate(request).lanes
            same = lane.tokens == ar.tokens
            measured.append(Drafts(example, draft, length, Totals.of([lane]), Totals.of([ar]), same))
    return measured


def drafts_report(measured: Sequence[Drafts], max_new_tokens: int) -> str:
    """Every way to draft over the structured and over the open-ended prompts, together; then every prompt at the
    fastest length."""
    ways = list(dict.fromkeys((one.draft, one.block_length) for one in measured))
    by_way = {way: [one for one in measured if (one.draft, one.block_length) == way] for way in ways}
    linear = ways[0]
    kinds = {name: kind for name, kind in KINDS.items() if any(one.example.structured is kind for one in measured)}
    columns = ["acceptance length", "TPF", "× linear's", "× AR", "× linear", "identical to AR"]
    lines = [
        f"Self-speculation on the example prompts, at most {max_new_tokens} new tokens; × in model seconds per token, "
        "all prompts of a row together, every way to draft in a race against AR (× linear: one such ratio over the "
        "other).",
        "",
        head(["prompts", "drafts, block", *columns]),
    ]
    for name, kind in kinds.items():
        base = [one for one in by_way[linear] if one.example.structured is kind]
        for way, rows in by_way.items():
            chosen = [one for one in rows if one.example.structured is kind]
            lines.append(row([name, f"{way[0]}, {way[1]}", *_cells(chosen, base)]))
    quadratic = ways[1:]
    if quadratic:
        best = max(quadratic, key=lambda way: _together(by_way[way])[1])
        pairs = zip(by_way[best], by_way[linear], strict=True)
        own = [(one.example.label, *_cells([one], [other])) for one, other in pairs]
        lines += ["", table([f"prompt, {best[0]} drafts, block {best[1]}", *columns], own)]
    return "\n".join(lines)


def _cells(rows: Sequence[Drafts], base: Sequence[Drafts]) -> list[str]:
    (own, speed_up), (linear, linear_speed_up) = _together(rows), _together(base)
    return [
        f"{own.acceptance:.2f}",
        f"{own.tpf:.2f}",
        f"{own.tpf / max(linear.tpf, 1e-9):.2f}×",
        f"{speed_up:.2f}×",
        f"{speed_up / max(linear_speed_up, 1e-9):.2f}×",
        f"{fmean(one.identical for one in rows):.0%}",
    ]


def costs(engine: Engine, block_length: int, lengths: Sequence[int]) -> str:
    """Milliseconds of forwards after CONTEXT kept positions: one row, linear verify and draft, every quadratic one."""
    _progress("forwards …")
    model = engine.model
    most = max(block_length, *(length * (length + 1) for length in lengths))
    tokens = [token % model.config.vocab_size for token in range(max(CONTEXT, most))]
    cache = Prefill(model, tokens[:CONTEXT], CONTEXT + most).copy_cache("bench")

    def forward(rows: int, **how: Any) -> float:
        inputs = torch.tensor(tokens[:rows], device=model.device)
        return milliseconds(lambda: model.forward(inputs, cache, **how), model.device)

    measured = [("one token (AR)", 1, forward(1, causal=True))]
    measured.append((f"linear verify, block {block_length}", block_length, forward(block_length, causal=True)))
    measured.append(
        (f"linear draft, block {block_length}", block_length, forward(block_length, causal=False, adapter=True))
    )
    for length in lengths:
        layout = quadratic_layouts(model, length)[length - 1]
        ms = forward(layout.rows, causal=True, adapter=True, layout=layout)
        measured.append((f"quadratic, block {length}", layout.rows, ms))
    rows = [(label, count, f"{ms:.1f}", f"{ms / measured[0][2]:.2f}") for label, count, ms in measured]
    return table([f"forward, after {CONTEXT} tokens", "rows", "ms", "× one row"], rows)


def ranking(
    engine: Engine, sampler: TrainedSampler, prompts: int, block_length: int, max_new_tokens: int = HELD_OUT_TOKENS
) -> str:
    """How well a trained sampler and raw confidence tell final guesses from others, on trajectories of held-out
    prompts (others than those it was calibrated on)."""
    _progress("ranking: trajectories …")
    chosen = prompts_of(prompts, seed=1, held_out=True)
    states = collect(engine, chosen, block_length, sampler.compressed, max_new_tokens=max_new_tokens)
    logits, confidence, right = scores(sampler, states)
    return ranking_table({"trained": torch.sigmoid(logits), "confidence": confidence}, right)


def ranking_table(scores_of: dict[str, torch.Tensor], right: torch.Tensor) -> str:
    """AUC, expected calibration error and recall by precision of every score [n], against bool [n]."""
    names = ["score", "AUC", "calibration error", *(f"recall at precision {p:g}" for p in PRECISIONS)]
    rows = [
        (
            name,
            f"{auc(score, right):.4f}",
            f"{calibration_error(score, right):.4f}",
            *(f"{recall_at(score, right, precision):.1%}" for precision in PRECISIONS),
        )
        for name, score in scores_of.items()
    ]
    said = f"{len(right):,} guesses on the way, {float(right.float().mean()):.0%} of them final"
    return f"{said}\n\n{table(names, rows)}"


def sampler_cost(engine: Engine, sampler: TrainedSampler, block_length: int) -> str:
    """What the trained sampler adds to a denoising forward of a block."""
    model = engine.model
    cache = Prefill(model, list(range(CONTEXT)), CONTEXT + block_length).copy_cache("bench")
    inputs = torch.zeros(block_length, dtype=torch.long, device=model.device)
    forward = milliseconds(lambda: model.forward(inputs, cache, causal=False), model.device)
    probabilities = model.forward(inputs, cache, causal=False).logits[1:].float().softmax(-1)
    masked = [True] * (block_length - 1)
    score = milliseconds(lambda: sampler.score(probabilities, masked), model.device)
    count = sum(parameter.numel() for parameter in sampler.parameters())
    return (
        f"The trained sampler has {count:,} parameters and takes {score:.2f} ms per forward, {score / forward:.1%} of "
        f"the {forward:.1f} ms of a denoising forward of {block_length} rows."
    )


def light(engine: Engine, examples: Sequence[Example], lengths: Sequence[int], max_new_tokens: int) -> str:
    """The table of `speed-of-light` over the example prompts."""
    rows = []
    for length in lengths:
        _progress(f"speed of light: block {length} …")
        requests = [
            Request(
                prompt=example.prompt,
                modes=("diffusion",),
                order="best",
                block_length=length,
                max_new_tokens=max_new_tokens,
                alternatives=0,
            )
            for example in examples
        ]
        rows.append(speed_of_light.line(speed_of_light.row(engine, length, requests, None)))
    head = speed_of_light.heading(engine, len(examples), max_new_tokens, engine.defaults.threshold)
    return "\n".join((head, *rows))
