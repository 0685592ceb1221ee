"""Sweep: settings of decoding over prompts, against AR in the same run on the same machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean
from typing import Any

from nemodiff.engine.interface import EngineInterface
from nemodiff.evaluate.agreement import Totals, agreement
from nemodiff.evaluate.prompt_file import Asked, is_expected
from nemodiff.evaluate.variants import Axes, Variant
from nemodiff.trace.answers import marks
from nemodiff.trace.events import Event, Lane

#: Of the tables, here and on the page.
HEADS = (
    *("mode", "setting", "tokens", "forwards", "tokens / forward", "NFE"),
    *("s / token", "AR, s / token", "× AR", "spread", "agreement", "identical", "holds", "as expected"),
)
#: What the figures count, said where they stand.
COUNTED = (
    "All prompts together. A prompt's first token is the prefill's, which counts as no forward, so AR has a little "
    "more than 1 token per forward; NFE is what the released code counts. × AR: AR's seconds per token over the "
    "setting's. Spread: from the slowest to the fastest repeat. Holds: answers that show no fault, such as JSON that "
    "does not parse, of those that ended and of which that can be told. As expected: answers that are the expected "
    "ones, word by word."
)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting over all prompts together, the fields of a `Variant` among its own. nfe: what the released code
    counts. seconds, ar_seconds: model seconds per token, and AR's over the same prompts at the same temperature in the
    same sweep. tokens, forwards, nfe: of all repeats.

    agreement: mean of `nemodiff.evaluate.agreement`'s; identical: share of answers whose text is AR's. fastest,
    slowest: seconds per token of the repeats. holds: share of answers without a fault (`nemodiff.trace.answers`), of
    those that can be judged; right: share of the expected answers. Both are None where there is none.
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
    sampler: str | None = None
    order: str | None = None
    draft: str | None = None
    rows: int | None = None
    temperature: float = 0.0
    repeats: int = 1
    fastest: float | None = None
    slowest: float | None = None
    right: float | None = None
    holds: float | None = None

    @property
    def variant(self) -> Variant:
        return Variant(**{one.name: getattr(self, one.name) for one in fields(Variant)})

    @property
    def tpf(self) -> float:
        """Tokens per forward. The prefill gives a prompt's first token and is no forward: AR is above 1."""
        return self.tokens / max(self.forwards, 1)

    @property
    def speed_up(self) -> float:
        """AR's seconds per token over this setting's."""
        return self.ar_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        # Not rounded: a figure read back and printed must look as it did before.
        return asdict(self) | {"tpf": self.tpf, "speed_up": self.speed_up}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: runs done of all, the mode of the last one, and the point that it finished, if it did."""

    done: int
    total: int
    point: Point | None = None
    mode: str = "ar"


def sweep(
    engine: EngineInterface,
    prompts: Sequence[str | Asked],
    block_lengths: Sequence[int],
    thresholds: Sequence[float],
    max_new_tokens: int = 96,
    on_event: Callable[[Event], None] | None = None,
) -> Generator[Progress, None, None]:
    """`measure` for thresholds and block lengths alone."""
    axes = Axes(block_lengths=tuple(block_lengths), thresholds=tuple(thresholds))
    return measure(engine, prompts, axes.variants(), max_new_tokens, on_event=on_event)


def measure(
    engine: EngineInterface,
    prompts: Sequence[str | Asked],
    variants: Sequence[Variant],
    max_new_tokens: int,
    *,
    repeats: int = 1,
    without: Collection[Variant] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Generator[Progress, None, None]:
    """Run every prompt under every variant, all of them once before any is repeated, so that a slow moment of the
    machine is no variant's alone; yields after every run, and a variant's point after each of its rounds.

    variants: AR's at every temperature of the others come first. repeats: at a temperature each has its own seed.
    without: variants that were measured before; AR is run all the same, for the others' sake. Close the generator to
    stop within one run. on_event: called after every forward; what it raises ends the sweep at once. Raises
    RequestError before the first run when a setting is invalid.
    """
    asked = [one if isinstance(one, Asked) else Asked(one) for one in prompts]
    chosen = [one for one in variants if one.mode == "ar" or one not in without]
    for variant in chosen:
        for one in asked:
            variant.request(one.prompt, max_new_tokens)
    return _run(engine, asked, chosen, max_new_tokens, repeats, on_event)


def _run(
    engine: EngineInterface,
    asked: list[Asked],
    variants: list[Variant],
    max_new_tokens: int,
    repeats: int,
    on_event: Callable[[Event], None] | None,
) -> Generator[Progress, None, None]:
    total, done = len(variants) * len(asked) * repeats, 0
    lanes: dict[Variant, list[list[Lane]]] = {variant: [] for variant in variants}
    for repeat in range(repeats):
        for variant in variants:
            own: list[Lane] = []
            for one in asked:
                request = variant.request(one.prompt, max_new_tokens, repeat)
                own.append(engine.generate(request, on_event).lanes[0])
                done += 1
                point = None
                if len(own) == len(asked):
                    lanes[variant].append(own)
                    reference = lanes[Variant(mode="ar", temperature=variant.temperature)]
                    point = _point(variant, asked, lanes[variant], reference)
                yield Progress(done, total, point, variant.mode)


def _point(variant: Variant, asked: list[Asked], rounds: list[list[Lane]], reference: list[list[Lane]]) -> Point:
    pairs = [
        pair for own, ar in zip(rounds, reference, strict=False) for pair in zip(own, ar, strict=True)
    ]  # AR's rounds are ahead
    agreements = [agreement(lane, ar) for lane, ar in pairs]
    together = Totals.of(lane for own in rounds for lane in own)
    times = [Totals.of(own).seconds_a_token for own in rounds]
    judged = [
        is_expected(lane.text, one.expected)
        for own in rounds
        for lane, one in zip(own, asked, strict=True)
        if one.expected is not None
    ]
    sound = [
        held
        for own, ar in zip(rounds, reference, strict=False)
        for lane, beside, one in zip(own, ar, asked, strict=True)
        if (held := _holds(one, lane, beside)) is not None
    ]
    setting = {one.name: getattr(variant, one.name) for one in fields(Variant)}
    return Point(
        **setting,
        prompts=len(asked),
        tokens=together.tokens,
        forwards=together.forwards,
        nfe=together.nfe,
        seconds=together.seconds_a_token,
        ar_seconds=Totals.of(lane for own in reference[: len(rounds)] for lane in own).seconds_a_token,
        agreement=fmean(agreements),
        identical=fmean(share == 1.0 for share in agreements),
        repeats=len(rounds),
        fastest=min(times),
        slowest=max(times),
        right=fmean(judged) if judged else None,
        holds=fmean(sound) if sound else None,
    )


def _holds(one: Asked, lane: Lane, ar: Lane) -> bool | None:
    """Whether an answer shows no fault; None of one that was cut, or that shows nothing that could be judged."""
    if lane.finish != "eos":
        return None
    found = marks(one.prompt, lane.text, ar=ar.text if ar is not lane and ar.finish == "eos" else None)
    return all(mark.holds for mark in found) if found else None


def cells(point: Point) -> list[str]:
    """A point's figures as texts, in the order of HEADS after the mode. Seconds have four digits, so that their ratio
    is the speed-up beside them."""
    slowest, fastest = point.slowest or point.seconds, point.fastest or point.seconds
    spread = [f"{point.ar_seconds / seconds:.2f}" if seconds else "0.00" for seconds in (slowest, fastest)]
    return [
        point.variant.words,
        str(point.tokens),
        str(point.forwards),
        f"{point.tpf:.2f}",
        str(point.nfe),
        f"{point.seconds:#.4g}",
        f"{point.ar_seconds:#.4g}",
        f"{point.speed_up:.2f}×",
        "–".join(spread) + "×" if point.repeats > 1 else "",
        f"{point.agreement:.0%}",
        f"{point.identical:.0%}",
        "" if point.holds is None else f"{point.holds:.0%}",
        "" if point.right is None else f"{point.right:.0%}",
    ]
