"""Sweep: one sweep over settings, made in its own thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import NemodiffError, RequestError
from nemodiff.evaluate.sweep import Point, sweep
from nemodiff.examples import EXAMPLES
from ui.live.fair_queue import Ticket
from ui.values import listed, whole
from ui.wire import UNEXPECTED

logger = logging.getLogger(__name__)

MAX_RUNS = 500
#: Seconds after which a waiting page is told that nothing is new, so that a closed tab is noticed.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to sweep, checked. labels: of the example prompts, in their order."""

    labels: tuple[str, ...]
    block_lengths: tuple[int, ...]
    thresholds: tuple[float, ...]
    max_new_tokens: int

    @property
    def runs(self) -> int:
        """AR once a prompt, diffusion with every pair, self-speculation with every block length."""
        return len(self.labels) * (1 + len(self.block_lengths) * (len(self.thresholds) + 1))

    @property
    def prompts(self) -> list[str]:
        return [one.prompt for one in EXAMPLES if one.label in self.labels]

    @classmethod
    def of(cls, labels: Sequence[str] | None, blocks: str, thresholds: str, tokens: float | None, most: int) -> Plan:
        """A plan from the page's fields. Raises RequestError with a sentence when it cannot be run."""
        known = [one.label for one in EXAMPLES if one.label in listed("prompts", labels)]
        if not known:
            raise RequestError("No prompt is chosen: choose at least one to sweep over.")
        try:
            count = whole("new tokens", tokens)
        except RequestError:
            count = None
        if count is None or not 1 <= count <= most:
            raise RequestError(f"New tokens must be a whole number from 1 to {most}.")
        plan = cls(
            tuple(known),
            _numbers("block lengths", blocks, int, 2, 64),
            _numbers("thresholds", thresholds, float, 0, 1),
            count,
        )
        if plan.runs > MAX_RUNS:
            raise RequestError(f"That would be {plan.runs} runs, at most {MAX_RUNS} are possible: choose fewer values.")
        return plan


def _numbers(name: str, text: str, kind: type, low: int, high: int) -> tuple:
    """Numbers that stand in a text field, each once, in order."""
    parts = str(text or "").replace(",", " ").split()
    try:
        values = sorted({kind(part) for part in parts})
    except ValueError:
        raise RequestError(f"The {name} must be numbers with commas between them, not {str(text)[:60]!r}.") from None
    if not values:
        raise RequestError(f"There are no {name}: give at least one.")
    if not all(low <= value <= high for value in values):
        raise RequestError(f"The {name} must be from {low} to {high}.")
    return tuple(values)


class _Ended(Exception):
    """Ends a sweep from within a forward."""


class Sweep:
    """A sweep that goes on in its own thread; `stop` ends it within one forward."""

    def __init__(self, engine: EngineInterface, plan: Plan, seconds: float, ticket: Ticket | None = None) -> None:
        """seconds: of wall time that it may take, without what it waits. ticket: its place in the line. Raises
        RequestError when the engine refuses the plan."""
        self.done, self.total = 0, plan.runs
        self.error = ""
        self.finished = self.ended = False
        self.began = time.monotonic()
        self._deadline = self.began + seconds
        self._seconds = seconds
        self._ticket = ticket
        self._points: list[Point] = []
        self._steps = sweep(engine, plan.prompts, plan.block_lengths, plan.thresholds, plan.max_new_tokens, self._check)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sweep", daemon=True)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask the model to stop. Sets a flag only, so it may be called from anywhere."""
        self._stopping.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def steps(self) -> Iterator[list[Point]]:
        """The points that are new, at least every PATIENCE seconds; starts the work, and stops it when closed."""
        self._thread.start()
        if self._ticket:
            self._ticket.hand_over(self.stop)
        taken = 0
        try:
            while not self.ended:
                with self._changed:
                    if not self.ended:
                        self._changed.wait(PATIENCE)
                points = self._points[taken:]
                taken += len(points)
                yield points
            if len(self._points) > taken:
                yield self._points[taken:]
        finally:
            self.stop()

    def _check(self, _event: object) -> None:
        if self._stopping.is_set():
            raise _Ended
        if time.monotonic() > self._deadline:
            self.error = f"The sweep reached this page's limit of {self._seconds:.0f} s and was ended."
            raise _Ended

    def _work(self) -> None:
        try:
            with closing(self._steps) as steps:
                for step in steps:
                    with self._changed:
                        self.done = step.done
                        if step.point:
                            self._points.append(step.point)
                        self._changed.notify_all()
                    if self._ticket:
                        self._deadline += self._ticket.give_way(self._stopping.is_set)
                    if self._stopping.is_set():
                        return
            self.finished = True
        except _Ended:
            pass
        except NemodiffError as error:
            self.error = str(error)
        except Exception:  # A visitor gets one sentence, the log gets the reason.
            logger.exception("a sweep failed")
            self.error = UNEXPECTED
        finally:
            if self._ticket:
                self._ticket.leave()
            with self._changed:
                self.ended = True
                self._changed.notify_all()
