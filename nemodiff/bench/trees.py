"""`python -m nemodiff bench drafts`, and part of `bench beyond`: trees of drafts against chains, and whether trees get
what they expect."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nemodiff.bench.timing import exactness
from nemodiff.engine.loading import load
from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import speed_up
from nemodiff.evaluate.drafts import outcomes
from nemodiff.examples import EXAMPLES, Example
from nemodiff.markdown import table
from nemodiff.request import Request
from nemodiff.trace.events import Lane

#: Budgets of rows; None: what rows cost here decides.
ROWS = (8, 12, 16, 24, 32, 64, None)
#: What a way without the checkpoint's draft head is called besides.
_WITHOUT = ", no head"
#: Distances and ranks that the table of calibration names.
_DISTANCES, _RANKS = 6, 3


@dataclass(frozen=True, slots=True)
class TreeRun:
    """Self-speculation of one prompt, beside AR in the same run: tokens per forward, rows per forward, the share of
    forwards that had drafts to verify, AR's model seconds per token over its own, new tokens a tree expected and got,
    whether the text is AR's."""

    example: Example
    way: str
    tpf: float
    rows: float
    ready: float
    speed_up: float
    expected: float | None
    got: float
    identical: bool
    lane: Lane


def run(
    checkpoint: str, *, max_new_tokens: int = 128, device: str | None = None, dtype: str | None = None
) -> Iterator[str]:
    """The tables as Markdown. Raises CheckpointError, RequestError."""
    engine = load(checkpoint, device=device, dtype=dtype)
    yield f"{engine.checkpoint} · {engine.device} · {engine.dtype} · {exactness(engine)} · greedy"
    found = measure(engine, EXAMPLES, max_new_tokens)
    yield report(found, max_new_tokens)
    yield calibration(found)


def measure(
    engine: Engine, examples: Sequence[Example], max_new_tokens: int, rows: Sequence[int | None] = ROWS
) -> list[TreeRun]:
    """Linear drafts of 8, quadratic ones of 4 and 8, and a tree at every budget, each in a race against AR; where there
    is a draft head, with it and without."""
    ways: list[tuple[str, dict[str, Any]]] = [
        ("linear, block 8", {"draft": "linear", "block_length": 8}),
        *((f"quadratic, block {length}", {"draft": "quadratic", "block_length": length}) for length in (4, 8)),
        *((f"tree, {budget or 'auto'}", {"draft": "tree", "rows": budget}) for budget in rows),
    ]
    if engine.defaults.draft_head:
        ways += [(f"{way}{_WITHOUT}", {**options, "draft_head": False}) for way, options in ways]
    found = []
    for example in examples:
        print(f"trees: {example.label} …", file=sys.stderr, flush=True)
        for way, options in ways:
            request = Request(
                prompt=example.prompt,
                modes=("ar", "self-speculation"),
                max_new_tokens=max_new_tokens,
                alternatives=0,
                **options,
            )
            ar, lane = engine.generate(request).lanes
            events = lane.events[1:]
            trees = [event.expected for event in events if event.expected is not None]
            found.append(
                TreeRun(
                    example,
                    way,
                    tpf=lane.tpf or 0.0,
                    rows=fmean([event.rows or event.length for event in events] or [1]),
                    ready=fmean([bool(event.tree) for event in events] or [0]),
                    speed_up=speed_up(lane, ar) or 0.0,
                    expected=fmean(trees) if trees else None,
                    got=fmean(lane.acceptance_lengths or [1]),
                    identical=lane.tokens == ar.tokens,
                    lane=lane,
                )
            )
    return found


def report(found: Sequence[TreeRun], max_new_tokens: int) -> str:
    """Means by way to draft, for structured and for open-ended prompts."""
    said = (
        f"Self-speculation on the example prompts, at most {max_new_tokens} new tokens, every way in a race against "
        "AR; × AR in model seconds per token, the slowest prompt in brackets."
    )
    names = ["prompts", "drafts", "TPF", "rows per forward", "drafts ready", "× AR", "expected", "got"]
    rows = []
    for name, structured in (("structured", True), ("open-ended", False)):
        for way in dict.fromkeys(run.way for run in found):
            runs = [run for run in found if run.way == way and run.example.structured is structured]
            if not runs:
                continue
            expected = [run.expected for run in runs if run.expected is not None]
            cells = [
                name,
                way,
                f"{fmean(run.tpf for run in runs):.2f}",
                f"{fmean(run.rows for run in runs):.1f}",
                f"{fmean(run.ready for run in runs):.0%}" if expected else "",
                f"{fmean(run.speed_up for run in runs):.2f}× ({min(run.speed_up for run in runs):.2f}×)",
                f"{fmean(expected):.2f}" if expected else "",
                f"{fmean(run.got for run in runs):.2f}",
                f"{fmean(run.identical for run in runs):.0%}",
            ]
            rows.append(cells)
    return f"{said}\n\n{table([*names, 'identical to AR'], rows)}"


def calibration(found: Sequence[TreeRun]) -> str:
    """By distance and rank: how probable candidates were said to be once their parent was accepted, and how often they
    were."""
    cells: dict[tuple[int, int], list[tuple[float, bool]]] = defaultdict(list)
    for run in found:
        for event in () if run.way.endswith(_WITHOUT) else run.lane.events:
            for distance, rank, share, accepted in outcomes(event):
                cells[min(distance, _DISTANCES), min(rank, _RANKS)].append((share, accepted))
    rows = []
    for distance in range(1, _DISTANCES + 1):
        row = [f"{distance}{' and on' if distance == _DISTANCES else ''}"]
        for rank in range(1, _RANKS + 1):
            pairs = cells[distance, rank]
            said, held = fmean(share for share, _ in pairs or [(0.0, False)]), [accepted for _, accepted in pairs]
            row.append(f"{said:.2f} / {fmean(held):.2f} ({len(pairs)})" if pairs else "")
        rows.append(row)
    heading = (
        "Candidates whose parent was accepted: how probable each was said to be / how often it was accepted (how many)."
    )
    names = ["distance", *(f"rank {rank}" for rank in range(1, _RANKS)), f"rank {_RANKS} and on"]
    return f"{heading}\n\n{table(names, rows)}"
