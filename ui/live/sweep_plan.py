"""What a sweep is to measure, from the page's fields, which nobody trusts; and how long that takes at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import RequestError
from nemodiff.evaluate.prompt_file import Asked, read_prompts
from nemodiff.evaluate.variants import Axes, Variant
from nemodiff.examples import OFFERED
from nemodiff.request import DRAFTS, MAX_TREE_ROWS, ORDERS, SAMPLERS, Request
from nemodiff.trace.events import MODES, Trace
from ui.values import listed, whole

MAX_RUNS, MAX_REPEATS = 500, 10
#: Of a field of numbers: its characters, and what stands for "as the engine decides".
MAX_TEXT, AUTO = 1000, "auto"
#: New tokens of the run that tells how fast this machine is.
SHORT = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What to sweep, checked. labels: names of the prompts, in their order. left_out: a sentence for each line of the
    visitor's own prompts that is none."""

    labels: tuple[str, ...]
    asked: tuple[Asked, ...]
    axes: Axes
    max_new_tokens: int
    repeats: int = 1
    left_out: tuple[str, ...] = ()

    @property
    def variants(self) -> list[Variant]:
        return self.axes.variants()

    @property
    def runs(self) -> int:
        return sum(self.runs_of().values())

    def runs_of(self, without: Collection[Variant] = ()) -> Counter[str]:
        """How many runs each mode has. without: settings that were measured before; AR is run all the same."""
        left = Counter(one.mode for one in self.variants if one.mode == "ar" or one not in without)
        return Counter({mode: count * len(self.asked) * self.repeats for mode, count in left.items()})

    def without(self, measured: Collection[Variant]) -> set[Variant]:
        """Which of its settings a sweep goes on without, since they were measured; none where all were: then it begins
        anew."""
        rest = {one for one in self.variants if one.mode != "ar"}
        done = rest & set(measured)
        return done if done < rest else set()

    @classmethod
    def of(
        cls,
        labels: Sequence[str] | None,
        blocks: str,
        thresholds: str,
        tokens: float | None,
        most: int,
        *,
        own: str = "",
        drafts: Sequence[str] | None = ("linear",),
        repeats: float | None = 1,
        samplers: Sequence[str] | None = ("confidence",),
        orders: Sequence[str] | None = (),
        rows: str = AUTO,
        temperatures: str = "0",
    ) -> Plan:
        """A plan from the page's fields. Raises RequestError with a sentence when it cannot be run."""
        known = [one for one in OFFERED if one.label in listed("prompts", labels)]
        mine, wrong = read_prompts(own)
        if not known and not mine:
            raise RequestError("No prompt is chosen: choose at least one to sweep over.")
        count = _count("New tokens", tokens, most)
        axes = Axes(
            block_lengths=_numbers("block lengths", blocks, int, 2, 64),
            thresholds=_numbers("thresholds", thresholds, float, 0, 1),
            samplers=_chosen("samplers", samplers, SAMPLERS),
            orders=_chosen("orders", orders, ORDERS) if orders else (None,),
            drafts=_chosen("drafts", drafts, DRAFTS),
            rows=_rows(rows),
            temperatures=_numbers("temperatures", temperatures, float, 0, 10),
        )
        plan = cls(
            labels=tuple([one.label for one in known] + [one.label for one in mine]),
            asked=tuple([Asked(one.prompt) for one in known] + mine),
            axes=axes,
            max_new_tokens=count,
            repeats=_count("Repeats", repeats, MAX_REPEATS),
            left_out=tuple(wrong),
        )
        if plan.runs > MAX_RUNS:
            raise RequestError(f"That would be {plan.runs} runs, at most {MAX_RUNS} are possible: choose fewer values.")
        return plan


def _count(name: str, sent: Any, most: int) -> int:
    try:
        count = whole(name, sent)
    except RequestError:
        count = None
    if count is None or not 1 <= count <= most:
        raise RequestError(f"{name} must be a whole number from 1 to {most}.")
    return count


def _numbers(name: str, text: Any, kind: type, low: int, high: int) -> tuple:
    """Numbers that stand in a text field, each once, in order."""
    text = str(text or "")
    if len(text) > MAX_TEXT:
        raise RequestError(f"The {name} are longer than {MAX_TEXT} characters: choose fewer.")
    parts = text.replace(",", " ").split()
    try:
        values = sorted({kind(part) for part in parts})
    except ValueError:
        raise RequestError(f"The {name} must be numbers with commas between them, not {text[:60]!r}.") from None
    if not values:
        raise RequestError(f"There are no {name}: give at least one.")
    if not all(low <= value <= high for value in values):
        raise RequestError(f"The {name} must be from {low} to {high}.")
    return tuple(values)


def _rows(text: Any) -> tuple[int | None, ...]:
    """Numbers of rows; "auto" among them is the engine's own choice."""
    words = str(text or "")[: MAX_TEXT + 1].lower().replace(",", " ").split()
    numbers = [word for word in words if word != AUTO]
    found: list[int | None] = [None] if AUTO in words or not words else []
    return tuple(found) + (_numbers("rows", " ".join(numbers), int, 2, MAX_TREE_ROWS) if numbers else ())


def _chosen(name: str, sent: Any, known: tuple[str, ...]) -> tuple:
    chosen = tuple(one for one in known if one in listed(name, list(sent) if isinstance(sent, tuple) else sent))
    if not chosen:
        raise RequestError(f"No {name} are chosen: choose at least one.")
    return chosen


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a model wrote on this machine, of one short run: seconds of the prefill, and of a token in each mode."""

    prefill: float
    a_token: Mapping[str, float]

    @classmethod
    def of(cls, trace: Trace) -> Pace:
        lanes = [lane for lane in trace.lanes if lane.tokens]
        return cls(
            max((lane.prefill_seconds for lane in lanes), default=0.0),
            {lane.mode: (lane.seconds - lane.prefill_seconds) / max(len(lane.tokens) - 1, 1) for lane in lanes},
        )

    def seconds(self, runs: Mapping[str, int], tokens: int) -> float:
        """For so many runs of each mode, all of them as long as they may be."""
        slowest = max(self.a_token.values(), default=0.0)
        return sum(count * (self.prefill + tokens * self.a_token.get(mode, slowest)) for mode, count in runs.items())


def short_run(plan: Plan) -> Request:
    """The run that a Pace is made of: the first prompt in all modes."""
    axes = plan.axes
    return Request(
        prompt=plan.asked[0].prompt,
        modes=MODES,
        block_length=axes.block_lengths[len(axes.block_lengths) // 2],
        threshold=axes.thresholds[-1],
        max_new_tokens=min(SHORT, plan.max_new_tokens),
        ignore_eos=True,
        alternatives=0,
    )
