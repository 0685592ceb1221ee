"""Sweep: one sweep over settings, made in its own thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import NemodiffError, RequestError
from nemodiff.evaluate.sweep import Point, measure
from nemodiff.evaluate.variants import Variant
from ui.live.fair_queue import Ticket
from ui.live.sweep_plan import Pace, Plan
from ui.wire import UNEXPECTED

logger = logging.getLogger(__name__)

#: Seconds after which a waiting page is told that nothing is new, so that a closed tab is noticed.
PATIENCE = 1.0
EXCHANGED = "Another checkpoint was loaded meanwhile, so the sweep ended."


class _Ended(Exception):
    """Ends a sweep from within a forward."""


class Sweep:
    """A sweep that goes on in its own thread; `stop` ends it within one forward."""

    def __init__(
        self,
        engine: EngineInterface,
        plan: Plan,
        seconds: float,
        ticket: Ticket | None = None,
        *,
        without: Collection[Variant] = (),
        pace: Pace | None = None,
    ) -> None:
        """seconds: of wall time that it may take, without what it waits. ticket: its place in the line. without:
        settings that were measured before. pace: of this engine, where it is known. Raises RequestError when the engine
        refuses the plan."""
        self._engine, self._plan, self._pace = engine, plan, pace
        self._left = plan.runs_of(without)
        self._took: dict[str, float] = {}  # by mode: seconds of the runs that are done
        self._ran: Counter[str] = Counter()
        self.done, self.total = 0, self._left.total()
        self.error = ""
        self.finished = self.ended = False
        self.began = time.monotonic()
        self._deadline = self.began + seconds
        self._seconds = seconds
        self._ticket = ticket
        self._points: list[Point] = []
        self._steps = measure(
            engine,
            plan.asked,
            plan.variants,
            plan.max_new_tokens,
            repeats=plan.repeats,
            without=without,
            on_event=self._check,
        )
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

    def seconds_left(self) -> float | None:
        """About how long the runs that are left take: each as long as those of its mode did so far; before the first of
        its mode as its pace says, or as the others. None before anything is known."""
        done = sum(self._ran.values())
        left = 0.0
        for mode, count in self._left.items():
            if self._ran[mode]:
                left += count * self._took[mode] / self._ran[mode]
            elif self._pace:
                left += self._pace.seconds({mode: count}, self._plan.max_new_tokens)
            elif done:
                left += count * sum(self._took.values()) / done
            elif count:
                return None
        return left

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

    def _exchanged(self) -> bool:
        try:
            _ = self._engine.bounds
        except RequestError:
            return True
        return False

    def _work(self) -> None:
        try:
            with closing(self._steps) as steps:
                since = time.monotonic()
                for step in steps:
                    with self._changed:
                        self.done = step.done
                        self._took[step.mode] = self._took.get(step.mode, 0.0) + time.monotonic() - since
                        self._ran[step.mode] += 1
                        self._left[step.mode] -= 1
                        if step.point:
                            self._points.append(step.point)
                        self._changed.notify_all()
                    if self._ticket:
                        self._deadline += self._ticket.give_way(self._stopping.is_set)
                    if self._stopping.is_set():
                        return
                    if self._ticket and self.done < self.total and self._exchanged():  # while others had their turn
                        self.error = EXCHANGED
                        return
                    since = time.monotonic()
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
