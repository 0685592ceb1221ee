"""Line: who may use the model now, and who comes next. One place per model; the order is fair between visitors."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from statistics import fmean
from typing import Any

from nemodiff.errors import RequestError

#: Past runs that the expected wait is a mean of.
REMEMBERED = 20
#: Visitors whose starts are remembered for the limit a minute; those that came longest ago are forgotten first.
VISITORS = 10_000
MINUTE = 60.0


class TurnedAway(RequestError):
    """A run that may not even wait. reason: full, visitor, rate or closed."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Line:
    """Start-time fair queueing with a run as the unit: a visitor's second waiting run comes after everybody's first.

    places: runs at once. most: how many may wait. visitor_runs: of one visitor, running and waiting; visitor_rate: that
    one visitor may ask for a minute; 0 is no limit. longest: seconds that a run may take.
    """

    def __init__(
        self,
        places: int = 1,
        most: int = 32,
        visitor_runs: int = 0,
        visitor_rate: int = 0,
        longest: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._longest = longest
        self._places, self._most = places, most
        self._visitor_runs, self._visitor_rate = visitor_runs, visitor_rate
        self._clock = clock
        self._changed = threading.Condition()
        self._running: list[Ticket] = []
        self._waiting: list[Ticket] = []
        self._round = 0  # of the run that was let in last
        self._count = 0
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()
        self.closed = False
        self.refused: dict[str, int] = dict.fromkeys(("full", "visitor", "rate", "closed"), 0)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def enter(self, visitor: str) -> Ticket:
        """A place in the line, to be left with `Ticket.leave`. Raises TurnedAway."""
        with self._changed:
            try:
                self._admit(visitor)
            except TurnedAway as refusal:
                self.refused[refusal.reason] += 1
                raise
            ticket = Ticket(self, visitor)
            self._join(ticket)
            return ticket

    def count(self, visitor: str) -> None:
        """Count what needs no place, as drawing does, among what a visitor starts a minute. Raises TurnedAway."""
        with self._changed:
            try:
                self._rate(visitor)
            except TurnedAway as refusal:
                self.refused[refusal.reason] += 1
                raise
            self._note(visitor)

    def close(self) -> None:
        """Take nobody any more; who waits is sent away, who runs may end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until nobody runs; False when somebody still does after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def _admit(self, visitor: str) -> None:
        if self.closed:
            raise TurnedAway("closed", "The server is being restarted: try again in a minute.")
        self._rate(visitor)
        mine = sum(one.visitor == visitor and not one.halted for one in (*self._running, *self._waiting))
        if self._visitor_runs and mine >= self._visitor_runs:
            runs = "a run" if mine == 1 else f"{mine} runs"
            raise TurnedAway("visitor", f"You have {runs} going or waiting: let one end, or stop it, first.")
        if len(self._waiting) >= self._most:
            raise TurnedAway("full", f"{self._most} runs are waiting already: try again in a few minutes.")
        self._note(visitor)

    def _rate(self, visitor: str) -> None:
        if self._visitor_rate and self._recent(visitor) >= self._visitor_rate:
            raise TurnedAway(
                "rate", f"You started {self._visitor_rate} within a minute, as many as one may: wait a little."
            )

    def _note(self, visitor: str) -> None:
        if self._visitor_rate:
            self._asked.setdefault(visitor, deque(maxlen=self._visitor_rate)).append(self._clock())
            self._asked.move_to_end(visitor)
            while len(self._asked) > VISITORS:
                self._asked.popitem(last=False)

    def _recent(self, visitor: str) -> int:
        asked = self._asked.get(visitor, ())
        return sum(self._clock() - then < MINUTE for then in asked)

    def _join(self, ticket: Ticket) -> None:
        """Queue a ticket one round after the visitor's last one. The lock is held."""
        others = [one.round for one in (*self._running, *self._waiting) if one.visitor == ticket.visitor]
        self._count += 1
        ticket.round, ticket.number = max([self._round, *(one + 1 for one in others)]), self._count
        self._waiting.append(ticket)
        self._waiting.sort(key=lambda one: (one.round, one.number))
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and len(self._running) < self._places and not self.closed:
            ticket = self._waiting.pop(0)
            ticket.since = self._clock()
            self._round = max(self._round, ticket.round)
            self._running.append(ticket)
        self._changed.notify_all()

    def _leave(self, ticket: Ticket) -> None:
        if ticket in self._running:
            self._running.remove(ticket)
            self._took.append(self._clock() - ticket.since)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        self._let_in()

    def _expected(self, position: int) -> float | None:
        """Seconds until the ticket at `position` (1 is next) is let in, going by recent runs; None before the first."""
        if not self._took:
            return None
        mean, now = fmean(self._took), self._clock()
        left = sorted(self._left(now - ticket.since) for ticket in self._running)
        rounds, place = divmod(position - 1, self._places)
        return (left[place] if place < len(left) else 0.0) + rounds * mean

    def _left(self, since: float) -> float:
        """Seconds that a run goes on which began `since` seconds ago: as past ones did that lasted longer than that;
        without one, as long again, up to the limit of a run."""
        longer = [seconds for seconds in self._took if seconds > since]
        return fmean(longer) - since if longer else max(0.0, min(since, self._longest - since))


class Ticket:
    """One visitor's place in the line. halted: Stop was pressed for it, so it gets no turn or ends it."""

    def __init__(self, line: Line, visitor: str) -> None:
        self.visitor = visitor
        self.round = self.number = 0
        self.since = 0.0
        self.asked = -math.inf  # when its page last asked for it by another way than its stream, on the monotonic clock
        self.halted = self.handed = False
        self._line = line
        self._stop: Callable[[], object] | None = None

    @property
    def mine(self) -> bool:
        """Whether it is this one's turn."""
        return self in self._line._running

    def wait(self, seconds: float) -> bool:
        """Wait for the turn; False when it has not come after `seconds`, and at once when it never will. Raises
        TurnedAway when the line was closed."""
        line = self._line
        with line._changed:
            line._changed.wait_for(lambda: self.mine or line.closed or self not in line._waiting, seconds)
            if line.closed and self in line._waiting:
                line.refused["closed"] += 1
                raise TurnedAway("closed", "The server is being restarted: try again in a minute.")
            return self.mine

    def ahead(self) -> tuple[int, float | None]:
        """How many runs come before this one, running ones too, and seconds until its turn, if they can be guessed."""
        line = self._line
        with line._changed:
            if self not in line._waiting:
                return 0, 0.0
            position = line._waiting.index(self) + 1
            return position - 1 + len(line._running), line._expected(position)

    def leave(self) -> None:
        """Give the place back. May be called from anywhere, and twice."""
        with self._line._changed:
            self._line._leave(self)

    def hand_over(self, stop: Callable[[], object]) -> None:
        """Another thread has the turn now and leaves when it has ended. stop: asks it to; called at once where Stop was
        pressed already."""
        with self._line._changed:
            self.handed, self._stop = True, stop
            halted = self.halted
        if halted:
            stop()

    def cut_off(self) -> bool:
        """Whether Stop was pressed and nobody has the turn who would end it."""
        return self.halted and not self.handed

    def halt(self) -> None:
        """Stop was pressed: who waits leaves; who runs is asked to end and no longer counts for its visitor's limit."""
        line = self._line
        with line._changed:
            self.halted, stop = True, self._stop
            if self in line._waiting:
                line._leave(self)
        if stop:
            stop()

    def give_way(self, stopped: Callable[[], bool], seconds: float = 0.2) -> float:
        """Between two parts of long work: let those who wait go first. Returns the seconds until it was on again; at
        once for who has left.

        stopped: asked every `seconds`; True ends the wait without a turn. Raises TurnedAway when the line was closed.
        """
        line = self._line
        with line._changed:
            if not line._waiting or line.closed or self not in line._running:
                return 0.0
            line._running.remove(self)
            self._round_after_all()
        began = line._clock()
        while not self.wait(seconds):
            if stopped() or self not in line._waiting:
                break
        return line._clock() - began

    def _round_after_all(self) -> None:
        line = self._line
        line._round = max(line._round, *(one.round for one in line._waiting))
        line._join(self)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: Any) -> None:
        if not self.handed:
            self.leave()


class Told:
    """What one waiting visitor is told, look after look. A wait never grows while nobody new comes first: where a run
    takes longer than was thought, that is said instead of a number."""

    def __init__(self) -> None:
        self._ahead, self._least = 0, math.inf

    def __call__(self, ahead: int, seconds: float | None) -> str:
        if ahead > self._ahead:
            self._least = math.inf
        self._ahead = ahead
        if seconds is not None and round(seconds) > self._least:
            return sentence(ahead, None, late=True)
        self._least = self._least if seconds is None else round(seconds)
        return sentence(ahead, seconds)


def sentence(ahead: int, seconds: float | None, late: bool = False) -> str:
    """What a waiting visitor reads. late: it goes on for longer than was said before."""
    runs = "1 run comes first" if ahead == 1 else f"{ahead} runs come first"
    if late:
        return f"Waiting for the model: {runs}, and it takes longer than usual."
    if seconds is None:
        return f"Waiting for the model: {runs}."
    about = f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
    return f"Waiting for the model: {runs}, about {about}."
