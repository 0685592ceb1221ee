"""What a checkpoint is worth: held-out tasks and prompts decoded in every mode, scored against the truth and AR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import agreement, repeated_share
from nemodiff.request import Request
from nemodiff.tasks.open_prompts.prompts import HELD_OUT_PROMPTS
from nemodiff.tasks.structured.families import (
    HELD_OUT_FAMILIES,
    HELD_OUT_FAR_FAMILIES,
    TRAINED_FAMILIES,
    instance,
    is_exact,
)
from nemodiff.trace.events import Lane, Trace

#: Groups of tasks, in the order of the tables.
GROUPS = ("instances", "phrasings", "families", "far families", "open")
BLOCKS = (4, 8, 16, 32)
THRESHOLDS = (0.7, 0.8, 0.9, 0.95, 0.97, 0.99)
#: Every how many-th task also runs the settings that are not the default.
SPARSE = 3
MAX_STRUCTURED, MAX_OPEN = 160, 96


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to measure on. answer: the exact right one, None for an open prompt. full: runs every setting."""

    group: str
    name: str
    prompt: str
    answer: str | None
    full: bool


@dataclass(slots=True)
class Result:
    """One mode of one task at one setting. threshold is None but for diffusion, block_length None for AR.

    lengths: acceptance lengths, a cycle each. exact: the answer is the right one; None where there is none.
    agreement: share of AR's tokens before the first that differs.
    """

    group: str
    name: str
    mode: str
    block_length: int | None
    threshold: float | None
    tokens: int
    forwards: int
    seconds: float
    exact: bool | None
    agreement: float
    repeated: float
    lengths: list[int] = field(default_factory=list)
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def tasks(per_family: int = 1, per_held_out: int = 6, prompts: int = len(HELD_OUT_PROMPTS)) -> list[Task]:
    """Held-out instances of the trained families, their held-out phrasings (every third family), held-out families and
    held-out open prompts; the same list every time."""
    made = []
    for i, name in enumerate(TRAINED_FAMILIES):
        for seed in range(per_family):
            made.append(Task("instances", name, *instance(name, f"quality-{seed}", held_out=True), i % SPARSE == 0))
    for name in TRAINED_FAMILIES[::SPARSE]:
        made.append(Task("phrasings", name, *instance(name, "quality", new_phrasing=True, held_out=True), False))
    for group, names in (("families", HELD_OUT_FAMILIES), ("far families", HELD_OUT_FAR_FAMILIES)):
        for name in names:
            for seed in range(per_held_out):
                made.append(Task(group, name, *instance(name, f"quality-{seed}", held_out=True), False))
    for i, prompt in enumerate(HELD_OUT_PROMPTS[:prompts]):
        made.append(Task("open", f"open {i + 1}", prompt, None, i % (2 * SPARSE) == 0))
    return made


def measure(engine: Engine, task: Task, *, block_length: int, threshold: float) -> Iterator[Result]:
    """Decode one task in all modes at the given setting; a `full` one at every block length and threshold too."""
    common: dict[str, Any] = {
        "prompt": task.prompt,
        "draft": "linear",
        "max_new_tokens": MAX_OPEN if task.answer is None else MAX_STRUCTURED,
        "alternatives": 0,
    }
    trace = engine.generate(Request(**common, block_length=block_length, threshold=threshold))
    ar = trace["ar"]
    for lane in trace.lanes:
        yield result_of(task, lane, ar, trace)
    if not task.full:
        return
    for length in BLOCKS:
        if length != block_length:
            trace = engine.generate(Request(**common, modes=("self-speculation",), block_length=length))
            yield result_of(task, trace.lanes[0], ar, trace)
    for bound in THRESHOLDS:
        if bound != threshold:
            request = Request(**common, modes=("diffusion",), block_length=block_length, threshold=bound)
            trace = engine.generate(request)
            yield result_of(task, trace.lanes[0], ar, trace)


def result_of(task: Task, lane: Lane, ar: Lane, trace: Trace) -> Result:
    """A finished lane of a trace as a result of its task; `ar` is the lane that it is held against."""
    return Result(
        group=task.group,
        name=task.name,
        mode=lane.mode,
        block_length=None if lane.mode == "ar" else trace.request["block_length"],
        threshold=trace.request["threshold"] if lane.mode == "diffusion" else None,
        tokens=len(lane.tokens),
        forwards=lane.forwards,
        seconds=lane.seconds,
        exact=None if task.answer is None else is_exact(lane.text, task.answer),
        agreement=agreement(lane, ar),
        repeated=repeated_share(lane.tokens),
        lengths=lane.acceptance_lengths,
        text=lane.text,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """Results of one mode and setting together. tpf and acceptance: all tokens over all forwards or cycles.

    exact and identical: shares of the tasks (exact None without right answers). speed_up: AR's model seconds per token
    over this mode's, over the same tasks, None without AR beside it. repeated: mean share of repeated 4-grams.
    """

    tasks: int
    tpf: float
    acceptance: float | None
    exact: float | None
    identical: float
    agreement: float
    speed_up: float | None
    repeated: float


def figures(results: Sequence[Result], references: Sequence[Result]) -> Figures:
    """Figures of results (of one mode and setting) against AR's results, which hold at least the same tasks."""
    ar = {(one.group, one.name): one for one in references}
    beside = [ar[one.group, one.name] for one in results]
    lengths = [length for one in results for length in one.lengths]
    tokens, seconds = sum(one.tokens for one in results), sum(one.seconds for one in results)
    exact = [one.exact for one in results if one.exact is not None]
    ar_seconds = sum(one.seconds for one in beside) / max(1, sum(one.tokens for one in beside))
    return Figures(
        tasks=len(results),
        tpf=tokens / max(1, sum(one.forwards for one in results)),
        acceptance=fmean(lengths) if lengths else None,
        exact=fmean(exact) if exact else None,
        identical=fmean(one.agreement == 1.0 for one in results),
        agreement=fmean(one.agreement for one in results),
        speed_up=ar_seconds / (seconds / tokens) if tokens and seconds else None,
        repeated=fmean(one.repeated for one in results),
    )
