"""Turns: every use of the model by the page goes through here: in line, counted, and let go when it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ui.line import Line, Refused, Ticket, sentence
from ui.metrics import Metrics
from ui.runs import Run
from ui.settings import Settings
from ui.visitor import visitor_of

logger = logging.getLogger(__name__)

#: Seconds between two looks at the line while one waits: so fast is a closed tab noticed.
PATIENCE = 1.0

T = TypeVar("T")


class Turns:
    """The line of one page and what is counted of it. places: runs that the engine takes at once."""

    def __init__(self, settings: Settings, places: int = 1) -> None:
        self.line = Line(places, settings.queue, settings.visitor_runs, settings.visitor_rate)
        self.metrics = Metrics(self.line)
        self._proxies = settings.proxies
        #: The engine that the page runs on now, which /health tells of.
        self.engine: Callable[[], Any] = lambda: None

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
        try:
            ticket = self.line.enter(visitor_of(request, self._proxies))
        except Refused as refusal:
            yield refused(str(refusal))
            return
        with ticket:
            patience = 0.0
            try:
                while not ticket.wait(patience):
                    patience = PATIENCE
                    ahead, seconds = ticket.ahead()
                    if ahead:
                        yield waiting(sentence(ahead, seconds), ahead)
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
