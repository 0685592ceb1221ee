"""ui.live.fair_queue: what a waiting visitor is told never counts up."""

from __future__ import annotations

import re

from ui.live.fair_queue import Line, Told


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def numbers(said: list[str]) -> list[int]:
    """The seconds that were told, of those sentences that tell some."""
    return [int(found[1]) for text in said if (found := re.search(r"about (\d+) s", text))]


def test_a_wait_that_was_told_never_grows() -> None:
    clock = Clock()
    line = Line(longest=120, clock=clock)
    first = line.enter("a")
    clock.now += 10
    first.leave()  # the one run that is known took 10 s
    line.enter("b")
    waits, told, said = line.enter("c"), Told(), []
    for _ in range(100):
        said.append(told(*waits.ahead()))
        clock.now += 1
    assert said[0] == "Waiting for the model: 1 run comes first, about 10 s."
    assert numbers(said) == sorted(numbers(said), reverse=True)
    assert said[40] == "Waiting for the model: 1 run comes first, and it takes longer than usual."


def test_short_and_long_runs_before_do_not_make_it_grow_either() -> None:
    clock = Clock()
    line = Line(longest=600, clock=clock)
    for seconds in (1, 1, 1, 1, 60):
        ticket = line.enter("a")
        clock.now += seconds
        ticket.leave()
    line.enter("b")
    waits, told, said = line.enter("c"), Told(), []
    for _ in range(200):
        said.append(told(*waits.ahead()))
        clock.now += 0.5
    assert numbers(said) == sorted(numbers(said), reverse=True)


def test_a_run_that_comes_first_anew_is_told_of() -> None:
    told = Told()
    assert told(1, 10.0).endswith("about 10 s.")
    assert told(2, 20.0).endswith("2 runs come first, about 20 s.")
    assert told(1, 21.0).endswith("1 run comes first, and it takes longer than usual.")
    assert told(1, 19.0).endswith("about 19 s.")
    assert told(1, None) == "Waiting for the model: 1 run comes first."
