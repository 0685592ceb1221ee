"""Turns: every use of the model by the page goes through here: in line, counted, and let go when it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from nemodiff.described import Described
from ui.line import Line, Refused, Ticket, Told
from ui.metrics import Metrics
from ui.runs import Run
from ui.settings import Settings
from ui.visitor import visitor_of

logger = logging.getLogger(__name__)

#: Seconds between two looks at the line while one waits: so fast is a closed tab noticed.
PATIENCE = 1.0
#: Pages whose Stop is remembered until they ask again.
HALTED = 1000

T = TypeVar("T")


class Turns:
    """The line of one page and what is counted of it. places: runs that the engine takes at once."""

    def __init__(self, settings: Settings, places: int = 1) -> None:
        self.line = Line(places, settings.queue, settings.visitor_runs, settings.visitor_rate, settings.time_limit)
        self.metrics = Metrics(self.line)
        self._proxies = settings.proxies
        self._asking: Counter[str | None] = Counter()  # sessions by the uses of the model they wait for or have
        self._halted: OrderedDict[str | None, None] = OrderedDict()
        self._lock = threading.Lock()
        #: The engine that the page runs on now, which /health tells of.
        self.engine: Callable[[], Described | None] = lambda: None

    def take(
        self,
        request: Any,
        work: Callable[[Ticket], Iterator[T]],
        waiting: Callable[[str, int], T],
        refused: Callable[[str], T],
    ) -> Iterator[T]:
        """Wait for the visitor's turn, then yield what `work` yields; closing it leaves the line.

        waiting: a message from a sentence and how many runs come first. refused: from a sentence. The place goes back
        when `work` ends, or before, when it leaves the ticket itself.
        """
        session = getattr(request, "session_hash", None)
        with self._lock:
            self._asking[session] += 1
            self._halted.pop(session, None)
        try:
            yield from self._taken(session, visitor_of(request, self._proxies), work, waiting, refused)
        finally:
            with self._lock:
                self._asking[session] -= 1
                self._asking += Counter()  # forget who is at zero

    def count(self, request: Any) -> None:
        """Count what a visitor has made of a trace as one of what may be started a minute. Raises Refused."""
        self.line.count(visitor_of(request, self._proxies))

    def halt(self, session: str | None) -> None:
        """Stop was pressed on a visitor's page."""
        with self._lock:
            self._halted[session] = None
            self._halted.move_to_end(session)
            while len(self._halted) > HALTED:
                self._halted.popitem(last=False)

    def lost(self, session: str | None) -> bool:
        """Whether a use of the model that Gradio calls failed was lost, and not just cut off by Stop or by another one:
        what is cut off while its generator is at work may count as failed, too."""
        with self._lock:
            return session not in self._halted and not self._asking[session]

    def _taken(
        self,
        session: str | None,
        visitor: str,
        work: Callable[[Ticket], Iterator[T]],
        waiting: Callable[[str, int], T],
        refused: Callable[[str], T],
    ) -> Iterator[T]:
        try:
            ticket = self.line.enter(visitor)
        except Refused as refusal:
            yield refused(str(refusal))
            return
        with ticket:
            patience = 0.0
            try:
                told = Told()
                while not ticket.wait(patience):
                    patience = PATIENCE
                    ahead, seconds = ticket.ahead()
                    if session in self._halted:
                        return
                    if ahead:
                        yield waiting(told(ahead, seconds), ahead)
            except Refused as refusal:
                yield refused(str(refusal))
                return
            yield from work(ticket)

    def ended(self, run: Run, asked: float) -> None:
        """Count and log a run that ended. asked: when it was asked for, on the monotonic clock."""
        lanes = run.recorder.trace.lanes
        finishes = {lane.finish for lane in lanes}
        finish = "error" if run.error else next((f for f in ("time", "stopped", "length") if f in finishes), "eos")
        self.metrics.runs.labels(finish).inc()
        for lane in lanes:
            self.metrics.tokens.labels(lane.mode).inc(len(lane.tokens))
            self.metrics.forwards.labels(lane.mode).inc(lane.forwards)
        seconds = time.monotonic() - run.began
        self.metrics.seconds.observe(seconds)
        if run.first is not None:
            self.metrics.first.observe(run.first - asked)
        figures = {
            "run": run.id,
            "modes": [lane.mode for lane in lanes],
            "tokens": sum(len(lane.tokens) for lane in lanes),
            "forwards": sum(lane.forwards for lane in lanes),
            "seconds": round(seconds, 3),
            "waited": round(run.began - asked, 3),
            "finish": finish,
        }
        logger.info("run ended", extra=figures)
