"""The example prompts in all modes, in one run on one machine, as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from nemodiff import markdown
from nemodiff.bench.timing import exactness
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import Totals, agreement
from nemodiff.examples import EXAMPLES, Example
from nemodiff.request import Request
from nemodiff.trace.events import Trace

COLUMNS = (
    *("prompt", "AR tokens", "AR tokens/s", "diffusion TPF", "tokens/s", "× AR", "agrees with AR"),
    *("acceptance length", "self-spec. TPF", "tokens/s", "× AR", "identical to AR"),
)


def run(checkpoint: str, settings: dict[str, Any], *, texts: bool = False, **where: Any) -> Iterator[str]:
    """The table, then every answer where `texts` is asked for. settings: of every Request; where: as for `load`."""
    Request(prompt="-", **{name: value for name, value in settings.items() if value is not None})  # may be refused
    engine = load(checkpoint, **where)
    settings = settings | {"draft": settings.get("draft") or engine.defaults.draft}
    requests = {example: Request(prompt=example.prompt, alternatives=0, **settings) for example in EXAMPLES}
    traces: dict[Example, Trace] = {}
    for example, request in requests.items():
        print(f"{example.label} …", file=sys.stderr, flush=True)
        traces[example] = engine.generate(request)
    yield table(engine, traces)
    if texts:
        for example, trace in traces.items():
            yield from (f"\n## {example.label}, {lane.mode}\n{lane.text}" for lane in trace.lanes)


def table(engine: Engine, traces: dict[Example, Trace]) -> str:
    """A markdown table: a row per prompt, then rows of several prompts together, whose figures are ratios of totals;
    only agreement is a mean. Speed-ups are ratios of model seconds per token, against AR's."""
    request = next(iter(traces.values())).request
    settings = (
        f"{request['draft']} drafts, block {request['block_length']}, threshold {request['threshold']}, greedy, "
        f"at most {request['max_new_tokens']} new tokens"
    )
    where = f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · {settings}"
    rows = [_cells(example.label, [trace]) for example, trace in traces.items()]
    for name, kind in (("structured", True), ("open-ended", False), ("all", None)):
        chosen = [trace for example, trace in traces.items() if kind is None or example.structured is kind]
        rows.append(_cells(f"**{name}, together**", chosen))
    return f"{where}\n\n{markdown.table(COLUMNS, rows)}"


def _cells(label: str, traces: list[Trace]) -> list[str]:
    ar, diffusion, speculation = (
        Totals.of(trace[mode] for trace in traces) for mode in ("ar", "diffusion", "self-speculation")
    )
    agrees = fmean(agreement(trace["diffusion"], trace["ar"]) for trace in traces)
    same = fmean(trace["self-speculation"].tokens == trace["ar"].tokens for trace in traces)
    return [
        label,
        f"{ar.tokens}",
        f"{ar.rate:.1f}",
        f"{diffusion.tpf:.2f}",
        f"{diffusion.rate:.1f}",
        f"{diffusion.speed_up(ar) or 0:.2f}×",
        f"{agrees:.0%}",
        f"{speculation.acceptance:.2f}",
        f"{speculation.tpf:.2f}",
        f"{speculation.rate:.1f}",
        f"{speculation.speed_up(ar) or 0:.2f}×",
        f"{same:.0%}",
    ]
