"""Sweep: threshold and block length over prompts, against AR in the same run on the same machine."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from nemodiff.engine.interface import EngineInterface
from nemodiff.evaluate.agreement import Totals, agreement
from nemodiff.request import Request
from nemodiff.trace.events import Event, Lane

#: Of the tables, here and on the page.
HEADS = (
    *("mode", "block", "threshold", "tokens", "forwards", "tokens / forward", "NFE"),
    *("s / token", "AR, s / token", "× AR", "agreement", "identical"),
)
#: What the figures count, said where they stand.
COUNTED = (
    "All prompts together. A prompt's first token is the prefill's, which counts as no forward, so AR has a little "
    "more than 1 token a forward; NFE is what the released code counts. × AR: AR's seconds a token over the setting's."
)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting over all prompts together. AR has no block length, and only diffusion a threshold. nfe: what the
    released code counts. seconds, ar_seconds: model seconds a token, and AR's over the same prompts in the same sweep.

    agreement: mean of `nemodiff.evaluate.agreement`'s; identical: share of prompts whose text is AR's.
    """

    mode: str
    block_length: int | None
    threshold: float | None
    prompts: int
    tokens: int
    forwards: int
    nfe: int
    seconds: float
    ar_seconds: float
    agreement: float
    identical: float

    @property
    def tpf(self) -> float:
        """Tokens per forward. The prefill gives a prompt's first token and is no forward: AR is above 1."""
        return self.tokens / max(self.forwards, 1)

    @property
    def speed_up(self) -> float:
        """AR's seconds a token over this setting's."""
        return self.ar_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        # Not rounded: a figure read back and printed must look as it did before.
        return asdict(self) | {"tpf": self.tpf, "speed_up": self.speed_up}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: runs done of all, and the point that was finished by this run, if one was."""

    done: int
    total: int
    point: Point | None = None


def sweep(
    engine: EngineInterface,
    prompts: Sequence[str],
    block_lengths: Sequence[int],
    thresholds: Sequence[float],
    max_new_tokens: int = 96,
    on_event: Callable[[Event], None] | None = None,
) -> Generator[Progress, None, None]:
    """Run AR once a prompt, then every setting of diffusion and self-speculation; yields after every run.

    Close the generator to stop within one run. on_event: called after every forward; what it raises ends the sweep
    at once. Raises RequestError before the first run when a setting is invalid.
    """
    settings: list[dict[str, Any]] = [
        {"modes": ("diffusion",), "block_length": length, "threshold": threshold}
        for length in block_lengths
        for threshold in thresholds
    ] + [{"modes": ("self-speculation",), "block_length": length, "draft": "linear"} for length in block_lengths]
    common: dict[str, Any] = {"max_new_tokens": max_new_tokens, "alternatives": 0}
    plan = [[Request(prompt=prompt, **setting, **common) for prompt in prompts] for setting in settings]
    first = [Request(prompt=prompt, modes=("ar",), **common) for prompt in prompts]
    return _run(engine, [first, *plan], on_event)


def _run(
    engine: EngineInterface, plan: list[list[Request]], on_event: Callable[[Event], None] | None
) -> Generator[Progress, None, None]:
    total = sum(map(len, plan))
    done = 0
    references: list[Lane] = []
    for requests in plan:
        lanes: list[Lane] = []
        references = references or lanes  # the first of the plan is AR itself
        for request in requests:
            lanes.append(engine.generate(request, on_event).lanes[0])
            done += 1
            point = _point(requests[0], lanes, references) if len(lanes) == len(requests) else None
            yield Progress(done, total, point)


def _point(request: Request, lanes: list[Lane], references: list[Lane]) -> Point:
    agreements = [agreement(lane, reference) for lane, reference in zip(lanes, references, strict=True)]
    own = Totals.of(lanes)
    return Point(
        mode=request.modes[0],
        block_length=None if request.modes == ("ar",) else request.block_length,
        threshold=request.threshold,
        prompts=len(lanes),
        tokens=own.tokens,
        forwards=own.forwards,
        nfe=own.nfe,
        seconds=own.seconds_a_token,
        ar_seconds=Totals.of(references).seconds_a_token,
        agreement=fmean(agreements),
        identical=fmean(share == 1.0 for share in agreements),
    )


def cells(point: Point) -> list[str]:
    """A point's figures as texts, in the order of HEADS after the mode. Seconds have four digits, so that their ratio
    is the speed-up beside them."""
    return [
        "" if point.block_length is None else str(point.block_length),
        "" if point.threshold is None else f"{point.threshold:g}",
        str(point.tokens),
        str(point.forwards),
        f"{point.tpf:.2f}",
        str(point.nfe),
        f"{point.seconds:#.4g}",
        f"{point.ar_seconds:#.4g}",
        f"{point.speed_up:.2f}×",
        f"{point.agreement:.0%}",
        f"{point.identical:.0%}",
    ]
