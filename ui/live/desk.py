"""Desk: every use of the model goes through here: it waits in line, is counted, and is let go when it ends."""

from __future__ import annotations

import contextvars
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, TypeVar

from nemodiff.engine.interface import EngineInterface
from nemodiff.request import Request
from ui import wire
from ui.live import stage, tickets
from ui.live.fair_queue import Line, Ticket, Told, TurnedAway, sentence
from ui.live.limits import within
from ui.live.messages import Batch, Finished, Message, Place, Refused, Waiting
from ui.live.metrics import Metrics
from ui.live.run import Run, Runs, awaited
from ui.live.stream import follow
from ui.live.visitor import visitor_of
from ui.settings import Settings
from ui.wire import explain

logger = logging.getLogger(__name__)

#: Seconds between two looks at the line while one waits: so fast is a closed tab noticed.
PATIENCE = 1.0
#: Names whose Stop came before what it stops; the oldest are forgotten.
EARLY = 1000

T = TypeVar("T")


class Desk:
    """The line of one page and what is counted of it. places: runs that the engine takes at once."""

    def __init__(self, settings: Settings, places: int = 1) -> None:
        self.line = Line(places, settings.queue, settings.visitor_runs, settings.visitor_rate, settings.time_limit)
        self.metrics = Metrics(self.line)
        self.runs = Runs()
        self.server = secrets.token_urlsafe(8)  # another one after a restart: so a page knows that its server is gone
        self._settings = settings
        self._tickets: dict[str, list[Ticket]] = {}  # by the names that they were asked for under
        self._early: OrderedDict[str, None] = OrderedDict()  # names that were halted before they came
        self._lock = threading.Lock()
        #: The engine that the page runs on now, which /health tells of.
        self.engine: Callable[[], EngineInterface | None] = lambda: None
        #: Whether the page's first engine is still being loaded.
        self.loading: Callable[[], bool] = lambda: False

    def run(
        self,
        request: Request,
        visitor: Any,
        engine: Callable[[], EngineInterface],
        *,
        ticket: str = "",
        behind: Callable[[], int] = lambda: 0,
        keeps: bool = True,
    ) -> Generator[Message, None, None]:
        """A run from asking to its end; closing this lets go of it. Nothing is raised: what cannot be run is Refused.

        engine: what is loaded when the turn comes; it raises RequestError where nothing is. ticket: the page's name for
        the request, which `halt` and `resync` know it by. behind: as for `follow`. keeps: whether the page may come
        back for its place in the line and for what it missed; a run without one ends with its stream.
        """
        asked, names = time.monotonic(), tickets.names(ticket, visitor.session_hash)
        context = contextvars.copy_context()  # whose request this is, for a run that begins when the page is gone

        def begin(place: Ticket) -> Run:
            def ended(run: Run) -> None:
                place.leave()
                self.ended(run, asked)

            run = Run(engine(), request, ended, lambda: self.line.waiting > 0)
            run.start()
            if keeps:
                self.runs.add(run, ticket)
            place.hand_over(run.stop)
            return run

        def work(place: Ticket) -> Generator[Batch | Finished | Refused, None, None]:
            run = begin(place)
            try:
                yield from follow(run, behind)
            finally:
                run.let_go() if keeps else run.stop()

        def hold(place: Ticket) -> None:
            if keeps and ticket:
                self._hold(place, names, lambda: context.run(begin, place))

        # A stage shows one run: what its page asked for before ends, a search too. A branch lets its own run end.
        replaces = names[-1] if names and not request.answer_ids else ""
        try:
            within(request, self._settings, engine())  # what cannot run need not wait
            yield from self.take(visitor, work, names, replaces, hold)
        except Exception as error:  # noqa: BLE001 - whoever asked gets a sentence whatever happened
            yield Refused(explain(error))

    def take(
        self,
        visitor: Any,
        work: Callable[[Ticket], Generator[T, None, None]],
        names: Sequence[str] = (),
        replaces: str = "",
        hold: Callable[[Ticket], object] = lambda ticket: None,
    ) -> Generator[T | Place, None, None]:
        """Wait for the visitor's turn, then yield what `work` yields; closing it leaves the line.

        names: what `halt` knows the ticket by. replaces: a name whose tickets are halted first. hold: called when this
        is closed before the turn has come. The place goes back when `work` ends, or by who took it over
        (`Ticket.hand_over`).
        """
        if replaces:
            self.halt(replaces)
        try:
            ticket = self.line.enter(visitor_of(visitor, self._settings.proxies))
        except TurnedAway as refusal:
            yield Refused(str(refusal))
            return
        with ticket, self._known(ticket, names):
            try:
                yield from self._wait(ticket)
            except TurnedAway as refusal:
                yield Refused(str(refusal))
                return
            except GeneratorExit:
                hold(ticket)
                raise
            if ticket.halted:
                yield Finished(None)
                return
            with closing(work(ticket)) as messages:
                for message in messages:
                    if ticket.cut_off():
                        return
                    yield message

    def _wait(self, ticket: Ticket) -> Iterator[Waiting]:
        """Until the turn has come, or never will. Raises TurnedAway when the line was closed."""
        told, patience = Told(), 0.0
        while not ticket.wait(patience) and not ticket.halted:
            patience = PATIENCE
            ahead, seconds = ticket.ahead()
            if ahead:
                yield Waiting(told(ahead, seconds), ahead)

    def _hold(self, ticket: Ticket, names: Sequence[str], begin: Callable[[], Run]) -> None:
        """Keep the place of a page that is gone for as long as it may come back, in a thread; begin its run if its turn
        comes meanwhile."""
        gone, known = time.monotonic(), ExitStack()
        known.enter_context(self._known(ticket, names))
        ticket.hand_over(lambda: None)

        def wait() -> None:
            with known:
                try:
                    while awaited(gone, ticket.asked, others=False) and not ticket.halted:
                        if ticket.wait(PATIENCE):
                            break
                    if ticket.mine and not ticket.halted and awaited(gone, ticket.asked, self.line.waiting > 0):
                        begin().let_go(gone, ticket.asked)
                        return
                except TurnedAway:
                    pass  # the server is being restarted, which the page will see
                except Exception:
                    logger.exception("a run that was waited for did not begin")
                ticket.leave()

        threading.Thread(target=wait, name="hold", daemon=True).start()

    def count(self, request: Any) -> None:
        """Count what a visitor has made of a trace as one of what may be started per minute. Raises Refused."""
        self.line.count(visitor_of(request, self._settings.proxies))

    def halt(self, name: str, early: bool = False) -> bool:
        """Stop was pressed for the tickets of a name; False when there are none. What is asked for later is none of
        them, except with `early`: then the name is a single ticket's that may still be on its way here."""
        with self._lock:
            found = tuple(self._tickets.get(name, ()))
            if early and not found:
                self._early[name] = None
                while len(self._early) > EARLY:
                    self._early.popitem(last=False)
        for ticket in found:
            ticket.halt()
        return bool(found)

    def standing(self, name: str) -> str:
        """The message of how the ticket of a name stands, for a page that asks; "" when there is none, or Stop was
        pressed for it."""
        with self._lock:
            ticket = next((one for one in self._tickets.get(name, ()) if not one.halted), None)
        if ticket is None:
            return ""
        ticket.asked = time.monotonic()
        ahead, seconds = ticket.ahead()
        return wire.waiting(sentence(ahead, seconds), ahead) if ahead else wire.begun()

    def resync(self, name: str, after: int) -> str:
        """What a page missed of a run: events after `after`; or how it waits; or that it is not here (`gone`)."""
        if text := stage.resync(self.runs, name, after):
            return text
        if standing := self.standing(tickets.own(name)):
            return wire.named(name, standing)
        return wire.pack({"gone": self.server})

    @contextmanager
    def _known(self, ticket: Ticket, names: Sequence[str]) -> Iterator[None]:
        with self._lock:
            for name in names:
                self._tickets.setdefault(name, []).append(ticket)
            early = [name for name in names if name in self._early]
            for name in early:
                del self._early[name]
        if early:
            ticket.halt()
        try:
            yield
        finally:
            with self._lock:
                for name in names:
                    self._tickets[name].remove(ticket)
                    if not self._tickets[name]:
                        del self._tickets[name]

    def ended(self, run: Run, asked: float) -> None:
        """Count and log a run that ended. asked: when it was asked for, on the monotonic clock."""
        lanes = run.recorder.trace.lanes
        finishes = {lane.finish for lane in lanes}
        finish = (
            "error" if run.error else next((f for f in ("time", "stopped", "length", "stop") if f in finishes), "eos")
        )
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
