"""ui.live.fair_queue: who comes next, who is refused, and what a waiting visitor is told; on a clock of our own."""

from __future__ import annotations

import threading

import pytest

from ui.live.fair_queue import Line, Ticket, TurnedAway, sentence


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def order(line: Line, tickets: dict[str, Ticket]) -> list[str]:
    """The names in the order in which they are let in, each leaving in its turn."""
    names, left = [], dict(tickets)
    while left:
        name = next(name for name, ticket in left.items() if ticket.mine)
        names.append(name)
        left.pop(name).leave()
    return names


def test_one_at_a_time_in_the_order_of_coming() -> None:
    line = Line()
    first, second = line.enter("a"), line.enter("b")
    assert first.mine and not second.mine
    assert (line.running, line.waiting) == (1, 1)
    assert not second.wait(0)
    first.leave()
    assert second.wait(0)
    second.leave()
    second.leave()
    assert (line.running, line.waiting) == (0, 0)


def test_a_visitors_second_run_comes_after_everybodys_first() -> None:
    line = Line()
    tickets = {name: line.enter(name[0]) for name in ("a1", "a2", "a3", "b1", "c1", "b2")}
    assert order(line, tickets) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_was_away_gains_nothing_by_it() -> None:
    line = Line()
    for _ in range(5):
        line.enter("a").leave()
    tickets = {name: line.enter(name[0]) for name in ("x1", "a1", "b1", "a2")}
    assert order(line, tickets) == ["x1", "a1", "b1", "a2"]


def test_two_places_take_two() -> None:
    line = Line(places=2)
    a, b, c = (line.enter(name) for name in "abc")
    assert a.mine and b.mine and not c.mine
    b.leave()
    assert c.mine


def test_who_leaves_while_waiting_is_passed_over() -> None:
    line = Line()
    a, b, c = (line.enter(name) for name in "abc")
    b.leave()
    a.leave()
    assert c.mine


def test_refusals_say_why_and_are_counted() -> None:
    clock = Clock()
    line = Line(most=2, visitor_runs=2, visitor_rate=3, clock=clock)
    a = line.enter("a")
    line.enter("a")
    with pytest.raises(TurnedAway, match="You have 2 runs going or waiting"):
        line.enter("a")
    line.enter("b")
    with pytest.raises(TurnedAway, match="2 runs are waiting already"):
        line.enter("c")
    a.leave()
    line.enter("a").leave()
    with pytest.raises(TurnedAway, match="You started 3 within a minute, as many as one may"):
        line.enter("a")
    clock.now += 61
    line.enter("a")
    line.close()
    with pytest.raises(TurnedAway, match="being restarted"):
        line.enter("d")
    assert line.refused == {"full": 1, "visitor": 1, "rate": 1, "closed": 1}


def test_no_limit_is_zero() -> None:
    line = Line(most=100)
    assert len([line.enter("a") for _ in range(100)]) == 100


def test_the_expected_wait_is_the_mean_of_past_runs() -> None:
    clock = Clock()
    line = Line(longest=60, clock=clock)
    running = line.enter("a")
    second = line.enter("b")
    assert second.ahead() == (1, None)
    clock.now += 10
    running.leave()  # it took 10 s
    third, fourth = line.enter("c"), line.enter("d")
    clock.now += 4
    assert second.ahead() == (0, 0.0)
    assert third.ahead() == (1, 6.0)
    assert fourth.ahead() == (2, 16.0)
    clock.now += 20
    assert third.ahead() == (1, 24.0)  # longer than any run before: perhaps as long again
    clock.now += 30
    assert third.ahead() == (1, 6.0)  # but no run is longer than the limit
    second.leave()
    assert third.ahead() == (0, 0.0)
    assert fourth.ahead() == (1, 32.0)  # the mean of 10 s and 54 s


def test_closing_lets_who_runs_end_and_sends_away_who_waits() -> None:
    line = Line()
    a, b = line.enter("a"), line.enter("b")
    line.close()
    assert a.wait(0)
    with pytest.raises(TurnedAway):
        b.wait(20)
    b.leave()
    assert not line.drain(0)
    threading.Timer(0.05, a.leave).start()
    assert line.drain(20)


def test_long_work_lets_others_go_first_and_goes_on() -> None:
    line = Line()
    sweep, other = line.enter("sweep"), line.enter("other")
    back = threading.Thread(target=sweep.give_way, args=(lambda: False,))
    back.start()
    assert other.wait(20)
    assert not sweep.mine
    late = line.enter("late")
    other.leave()
    back.join(20)
    assert sweep.mine and not late.mine
    sweep.leave()
    assert late.mine


def test_giving_way_ends_when_it_is_stopped() -> None:
    line = Line()
    sweep, other = line.enter("sweep"), line.enter("other")
    sweep.give_way(lambda: True)
    assert other.mine and not sweep.mine
    sweep.leave()
    assert line.waiting == 0


def test_giving_way_to_nobody_is_nothing() -> None:
    line = Line()
    sweep = line.enter("sweep")
    assert sweep.give_way(lambda: False) == 0.0
    assert sweep.mine


@pytest.mark.parametrize(
    ("ahead", "seconds", "text"),
    [
        (1, None, "Waiting for the model: 1 run comes first."),
        (3, 20.4, "Waiting for the model: 3 runs come first, about 20 s."),
        (9, 300.0, "Waiting for the model: 9 runs come first, about 5 min."),
        (1, 0.0, "Waiting for the model: 1 run comes first, about 1 s."),
    ],
)
def test_what_a_waiting_visitor_reads(ahead: int, seconds: float | None, text: str) -> None:
    assert sentence(ahead, seconds) == text


def test_who_has_left_does_not_give_way() -> None:
    line = Line()
    sweep, other = line.enter("sweep"), line.enter("other")
    sweep.leave()  # its page is gone, and its thread finds out at its next forward
    assert other.mine
    waiting = line.enter("third")
    assert sweep.give_way(lambda: False) == 0.0
    assert other.mine and not waiting.mine and not sweep.mine
    assert not sweep.wait(20)  # at once: its turn never comes


def test_who_leaves_while_giving_way_is_let_go() -> None:
    line = Line()
    sweep, other = line.enter("sweep"), line.enter("other")
    back = threading.Thread(target=sweep.give_way, args=(lambda: False,))
    back.start()
    assert other.wait(20)
    sweep.halt()
    back.join(20)
    assert not back.is_alive() and not sweep.mine
    assert (line.running, line.waiting) == (1, 0)
