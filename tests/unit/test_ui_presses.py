"""ui.live under presses in any order: of several pages, each with its Generate, Stop and Sweep."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ui.live.desk import Desk
from ui.live.fair_queue import Ticket
from ui.settings import Settings

PAGES = st.sampled_from(("a", "b", "c"))


class Asked:
    """One use of the model that a page asked for, and the stream of its messages."""

    def __init__(self, desk: Desk, page: str, number: int, kind: str) -> None:
        self.page, self.kind, self.stopped, self.over = page, kind, False, False
        self.ticket: Ticket | None = None
        self.name = f"{kind} {number}"
        self.group = f"{kind} of {page}"
        self.work_asked_to_stop = False
        who = SimpleNamespace(session_hash=page)
        names = (self.name, self.group)
        self.messages = desk.take(who, self.work, names, self.group)

    def work(self, ticket: Ticket) -> Iterator[str]:
        """As a Run is: handed over to a thread, which leaves when it has ended."""
        self.ticket = ticket
        ticket.hand_over(lambda: setattr(self, "work_asked_to_stop", True))
        while not self.over:
            yield "works"

    def step(self) -> None:
        next(self.messages, None)


class Presses(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patience = patch("ui.live.desk.PATIENCE", 0.0)
        self.patience.start()
        self.desk = Desk(Settings())
        self.asked: list[Asked] = []

    def press(self, page: str, kind: str) -> None:
        self.asked.append(Asked(self.desk, page, len(self.asked), kind))
        self.asked[-1].step()

    @rule(page=PAGES)
    def generate(self, page: str) -> None:
        self.press(page, "stage")

    @rule(page=PAGES)
    def sweep(self, page: str) -> None:
        self.press(page, "sweep")

    @rule(page=PAGES, kind=st.sampled_from(("stage", "sweep")))
    def stop(self, page: str, kind: str) -> None:
        self.desk.halt(f"{kind} of {page}")
        for one in self.asked:
            one.stopped |= one.page == page and one.kind == kind

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def forward(self, data: st.DataObject) -> None:
        """A stream is read on, or a model makes a forward: which ends the run that was asked to stop."""
        one = data.draw(st.sampled_from(self.asked))
        one.step()
        if one.ticket and one.work_asked_to_stop:
            one.over = True
            one.ticket.leave()

    @precondition(lambda self: any(one.ticket and one.ticket.mine for one in self.asked))
    @rule(closes=st.booleans())
    def end(self, closes: bool) -> None:
        [one] = [one for one in self.asked if one.ticket and one.ticket.mine]
        if closes:
            one.messages.close()  # the page is gone; its run keeps the place until it has ended
            assert one.ticket.mine
        one.over = True
        one.ticket.leave()

    @invariant()
    def one_runs_and_nobody_waits_for_a_free_place(self) -> None:
        line = self.desk.line
        assert line.running <= 1
        assert line.running or not line.waiting

    @invariant()
    def a_page_waits_for_one_thing_of_a_kind(self) -> None:
        waiting = [(one.visitor, name) for name, one in self.waiting()]
        assert len(waiting) == len(set(waiting)), waiting

    def waiting(self) -> list[tuple[str, Ticket]]:
        groups = {name: tickets for name, tickets in self.desk._tickets.items() if " of " in name}
        queue = self.desk.line._waiting
        return [(name, ticket) for name, tickets in groups.items() for ticket in tickets if ticket in queue]

    @invariant()
    def what_was_stopped_does_not_wait(self) -> None:
        queue = self.desk.line._waiting
        assert not [ticket for ticket in queue if ticket.halted]

    def teardown(self) -> None:
        """Whatever was pressed: each last press that was not stopped gets its turn, and nothing is left behind."""
        last = {one.group: one for one in self.asked}
        for _ in range(3 * len(self.asked) + 3):
            for one in self.asked:
                one.step()
                if one.ticket and one.ticket.mine:
                    one.over = True
                    one.ticket.leave()
        for one in last.values():
            assert one.ticket or one.stopped, one.name
        for one in self.asked:
            assert next(one.messages, None) is None
        assert (self.desk.line.running, self.desk.line.waiting) == (0, 0)
        assert not self.desk._tickets and not self.desk._early
        self.patience.stop()


TestPresses = Presses.TestCase
TestPresses.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
