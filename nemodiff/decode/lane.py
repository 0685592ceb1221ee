"""LaneRun: what a mode needs while it decodes: model, cache, clock, and reading tokens off logits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nemodiff.decode.noise import Noise
from nemodiff.decode.prefill import Prefill, synchronise
from nemodiff.decode.stops import StopFinder, Stops
from nemodiff.decode.tree_plan import MOST_ROWS
from nemodiff.errors import RequestError
from nemodiff.model.draft_head import WeighsDrafts
from nemodiff.model.layout import Layout
from nemodiff.model.output import Best, Output
from nemodiff.model.runner import Runner
from nemodiff.request import COLDEST
from nemodiff.samplers import Sampler
from nemodiff.samplers.topk import best, largest
from nemodiff.trace.events import Event, Position, Stop

#: Devices from which a forward's alternatives come in one copy with its tokens, inside the clock.
TOGETHER = {"cuda"}

#: Probabilities [rows, vocab] → a figure per row [rows], for a sampler to rank by.
Measure = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """A Request with the checkpoint's defaults filled in. eos: ids that end an answer, empty to ignore them.

    thinking: (answer position at which thinking must have ended, id of </think>), None without a budget.
    draft, acceptance, ar_weight, rows: see Request. draft_head: what weighs drafts, if anything does. stops: strings
    that end an answer, None without any. A temperature below COLDEST becomes 0.
    """

    max_new_tokens: int
    block_length: int
    sampler: Sampler
    temperature: float
    seed: int
    eos: frozenset[int]
    adapter: bool
    alternatives: int
    thinking: tuple[int, int] | None = None
    draft: str = "linear"
    acceptance: str = "match"
    ar_weight: float = 1.0
    rows: int | None = None
    stops: Stops | None = None
    draft_head: WeighsDrafts | None = None

    def __post_init__(self) -> None:
        if self.temperature < COLDEST:
            object.__setattr__(self, "temperature", 0.0)

    @property
    def most_rows(self) -> int:
        """Rows of the largest forward after the prefill."""
        length = self.block_length
        return {"quadratic": length * (length + 1), "tree": max(length, self.rows or MOST_ROWS)}.get(self.draft, length)


@dataclass(frozen=True, slots=True)
class Guesses:
    """Tokens read off some rows of logits, as plain values: one list entry per row.

    confidence: probability of the token at temperature 1, of the mixture where two distributions are mixed. measured:
    what `measure` made of it. top: alternatives.
    output: the rows of the forward. made: (logits, probabilities) of them [rows, vocab] in fp32, with -inf and 0 for a
    mask that may not be proposed; None where the runner read the tokens off itself.
    """

    tokens: list[int]
    confidence: list[float]
    measured: list[float]
    top: list[list[tuple[int, float]]]
    output: Output
    made: tuple[Tensor, Tensor] | None = None

    @property
    def logits(self) -> Tensor:
        """[rows, vocab] in fp32."""
        return self.output.logits.float() if self.made is None else self.made[0]

    @property
    def probabilities(self) -> Tensor:
        """[rows, vocab] in fp32, at temperature 1."""
        return self.logits.softmax(-1) if self.made is None else self.made[1]

    def position(self, row: int, index: int, state: str, **more: Any) -> Position:
        return Position(index, self.tokens[row], state, self.confidence[row], top=self.top[row], **more)


class LaneRun:
    """One mode's run after a prompt. Its clock counts model time alone: the forward and reading its tokens.

    Making Events, alternatives, text and the page are outside the clock.
    """

    def __init__(self, mode: str, model: Runner, prefill: Prefill, settings: Settings) -> None:
        self.mode = mode
        self.model = model
        self.settings = settings
        self.cache = prefill.copy_cache(mode)
        self._prefill = prefill
        self.clock_ms = 0.0
        self.forwards = 0
        self.noise = Noise(settings.seed)
        self._thought = settings.thinking is None
        self._finder = StopFinder(settings.stops) if settings.stops else None
        self._stop: Stop | None = None

    def first(self) -> Guesses:
        """The prompt's own prediction: position 0 of the answer. Counts the prefill's time, not as a forward."""
        self.clock_ms = self._prefill.ms
        return self._read(lambda: self._prefill.output, 0, causal=True)

    def forward(
        self,
        tokens: list[int],
        index: int,
        *,
        causal: bool,
        adapter: bool = False,
        rows: slice = slice(None),
        measure: Measure | None = None,
        barred: tuple[int, int] | None = None,
    ) -> Guesses:
        """Run token ids after the kept cache and read `rows` of the logits; the first read row predicts answer
        position `index`. Bidirectional forwards never propose the mask itself, nor the token of `barred` (row, token)
        in its row; causal ones force </think> where the thinking budget ends."""
        few = 0 if measure or barred else 1  # a measure wants all probabilities, `barred` other tokens than the best

        def run() -> Output:
            return self.run(tokens, causal=causal, adapter=adapter, rows=rows, few=few)

        return self._read(run, index, causal=causal, measure=measure, barred=barred)

    def run(
        self,
        tokens: list[int],
        *,
        causal: bool = True,
        adapter: bool = False,
        layout: Layout | None = None,
        rows: slice = slice(None),
        few: int = 1,
    ) -> Output:
        """One forward over token ids after the kept cache: `rows` of what it says, with at least the `few` best tokens
        of each where the runner reads them; none where `few` is 0 or noise chooses. To be called inside `timed`."""
        self.forwards += 1
        few = max(few, self.settings.alternatives) if few and not self.settings.temperature else 0
        inputs = torch.tensor(tokens, device=self.model.device)
        return self.model.forward(inputs, self.cache, causal=causal, adapter=adapter, layout=layout, rows=rows, few=few)

    @property
    def guessing(self) -> slice:
        """The rows of a bidirectional forward over a block that guess its positions behind the first."""
        return slice(0, -1) if self.model.config.shift_logits else slice(1, None)

    def denoise(
        self,
        block: list[int],
        start: int,
        *,
        adapter: bool = False,
        measure: Measure | None = None,
        barred: tuple[int, int] | None = None,
    ) -> Guesses:
        """One bidirectional forward over a block whose first token stands at answer position `start`.

        Returns guesses for positions start + 1 and on (len(block) - 1 rows), whichever row the checkpoint reads them
        off: the position's own, or the one before it (`shift_logits`). barred: see `forward`.
        """
        return self.forward(
            block, start + 1, causal=False, adapter=adapter, rows=self.guessing, measure=measure, barred=barred
        )

    def event(self, phase: str, start: int, length: int, positions: list[Position], finish: str | None = None) -> Event:
        event = Event(self.mode, self.forwards, phase, self.clock_ms, start, length, positions, finish)
        if phase == "prefill":
            event.image_ms = self._prefill.image_ms
        if finish == "stop":
            event.stop = self._stop
        return event

    def ends(self, token: int, index: int) -> str | None:
        """Why an answer whose last token is `token`, at `index`, is finished; None when it goes on.

        Called for every token of the answer in its order, so it also sees thinking end.
        """
        if self.settings.thinking and token == self.settings.thinking[1]:
            self._thought = True
        if token in self.settings.eos:
            return "eos"
        if self.stops(token, index):
            return "stop"
        return "length" if index + 1 >= self.settings.max_new_tokens else None

    def stops(self, token: int, index: int) -> bool:
        """Whether a token at answer position `index` completes a stop string. Called in the answer's order, as `ends`;
        from an earlier place anew where tokens there were guessed anew."""
        self._stop = self._finder.find(token, index) if self._finder else None
        return self._stop is not None

    def forced(self, first: int, count: int) -> tuple[int, int] | None:
        """(offset, </think>) if the thinking budget ends unmet at one of `count` answer positions from `first` on."""
        if self._thought or self.settings.thinking is None:
            return None
        at, end = self.settings.thinking
        return (at - first, end) if first <= at < first + count else None

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What runs inside counts as model time."""
        synchronise(self.model.device)
        begin = time.perf_counter()
        yield
        self.clock_ms += (time.perf_counter() - begin) * 1000

    def _read(
        self,
        run: Callable[[], Output],
        index: int,
        *,
        causal: bool,
        measure: Measure | None = None,
        barred: tuple[int, int] | None = None,
    ) -> Guesses:
        with self.timed():
            guesses = self.choose(run(), index, causal=causal, measure=measure, barred=barred)
        return self.explain(guesses)

    @torch.inference_mode()
    def choose(
        self,
        output: Output,
        index: int,
        *,
        causal: bool,
        measure: Measure | None = None,
        barred: tuple[int, int] | None = None,
        places: Sequence[int] | None = None,
    ) -> Guesses:
        """The tokens that rows of a forward propose for answer positions `index` and on, without alternatives (see
        `explain`). To be called inside `timed`. places: the rows' answer positions where they do not follow each other,
        as in a tree; </think> is then the caller's to force. barred: see `forward`.

        Raises RequestError when the logits are no numbers: the model cannot go on.
        """
        if output.best is not None and not self.settings.temperature and measure is None and barred is None:
            return self._take_best(output, output.best, index, causal=causal and places is None)
        logits = output.logits.to(torch.float32, copy=not causal)  # written to below, and the caller's
        probabilities = logits.softmax(-1)
        if not causal:
            # Out of the choice, yet in the sum: a probability is the model's own, as released.
            mask = self.model.config.mask
            logits[:, mask], probabilities[:, mask] = -torch.inf, 0
            if barred:
                logits[barred], probabilities[barred] = -torch.inf, 0
        # Every mode draws with the same noise at a position, so self-speculation draws AR's very tokens at any
        # temperature, and drafts drawn alike are accepted more often; unless acceptance asks for other draws.
        purpose = "token" if causal or self.settings.acceptance == "match" else "draft"
        tokens = self.drawn(logits, places or range(index, index + len(logits)), purpose)
        if causal and places is None and (forced := self._forced_among(tokens.tolist(), index)):
            tokens[forced[0]] = forced[1]
        chosen = [probabilities.gather(-1, tokens[:, None])[:, 0]]
        if measure:
            chosen.append(measure(probabilities))
        # One copy to the host for all figures of the forward; it also waits for the device. From a GPU the alternatives
        # come with it: another copy for them would cost more.
        count = self.settings.alternatives if logits.device.type in TOGETHER else 0
        kept = _largest(probabilities, count) if count else []
        figures = torch.stack([tokens.double(), *(part.double() for part in chosen), *kept]).tolist()
        self._refuse_nan(figures[1], index)
        most = len(kept) // 2
        return Guesses(
            tokens=[int(token) for token in figures[0]],
            confidence=figures[1],
            measured=figures[2] if measure else [],
            top=_ranked(figures[len(figures) - 2 * most :], most) if most else [],
            output=output,
            made=(logits, probabilities),
        )

    def drawn(self, logits: Tensor, places: Sequence[int], purpose: str) -> Tensor:
        """A token per row [rows] of logits [rows, vocab] for the rows' answer positions: the best, or at a temperature
        one that the noise for `purpose` draws."""
        if not self.settings.temperature:
            return best(logits)
        noise = self.noise.gumbel(purpose, places, logits)
        return best(logits / self.settings.temperature + noise)

    def _take_best(self, output: Output, best: Best, index: int, *, causal: bool) -> Guesses:
        """`choose` where a runner has read the best tokens off the rows."""
        tokens, confidence = best.tokens[:, 0].tolist(), best.probabilities[:, 0].tolist()
        if causal and (forced := self._forced_among(tokens, index)):
            row, token = forced
            tokens[row], confidence[row] = token, best.probability(output.logits, row, token)
        self._refuse_nan(confidence, index)
        return Guesses(tokens, confidence, [], [], output)

    def _refuse_nan(self, confidence: list[float], index: int) -> None:
        if any(map(math.isnan, confidence)):
            raise RequestError(
                f"The model's forward in {self.model.dtype_name} gave no numbers for token {index + 1} of the answer: "
                "its weights are too large for that dtype or damaged. Load it in float32, or choose another checkpoint."
            )

    def _forced_among(self, tokens: list[int], index: int) -> tuple[int, int] | None:
        """(row, </think>) if the thinking budget ends at one of the rows, and none before it ended thinking."""
        forced = self.forced(index, len(tokens))
        return None if forced is None or forced[1] in tokens[: forced[0]] else forced

    def explain(self, guesses: Guesses) -> Guesses:
        """The guesses with their alternatives: for the viewer, outside the clock."""
        count = self.settings.alternatives
        if guesses.top:
            return guesses
        if guesses.made is None and guesses.output.best is not None:
            return replace(guesses, top=_pairs(guesses.output.best, count))
        return replace(guesses, top=_top(guesses.probabilities, count))


def _pairs(best: Best, count: int) -> list[list[tuple[int, float]]]:
    """The first `count` (token, probability) pairs of every row."""
    columns = best.tokens[:, :count].tolist(), best.probabilities[:, :count].tolist()
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def _top(probabilities: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """The `count` most probable (token, probability) pairs of every row [rows, vocab], best first."""
    if not count:
        return [[] for _ in range(probabilities.shape[0])]
    kept = _largest(probabilities, count)
    return _ranked(torch.stack(kept).tolist(), len(kept) // 2)


def _largest(probabilities: Tensor, count: int) -> list[Tensor]:
    """Of every row of probabilities [rows, vocab]: the most probable token, the second and so on, then what they have;
    each float64 [rows]."""
    values, tokens = largest(probabilities, min(count, probabilities.shape[-1]))
    return [*tokens.double().unbind(1), *values.double().unbind(1)]


def _ranked(columns: list[list[float]], count: int) -> list[list[tuple[int, float]]]:
    """(token, probability) pairs of every row, of what `_largest` gave as plain values."""
    tokens, values = list(zip(*columns[:count], strict=True)), list(zip(*columns[count:], strict=True))
    return [
        [(int(token), value) for token, value in zip(*row, strict=True)] for row in zip(tokens, values, strict=True)
    ]
