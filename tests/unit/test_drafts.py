"""Drafts by their distance: which were accepted, and which were thrown away although they were right."""

from __future__ import annotations

import json

from nemodiff.evaluate.drafts import behind_rejections, outcomes
from nemodiff.trace.events import Event, Position, Trace
from tests.helpers.traces import record, speculation, trace_of
from ui.render.charts import drafts_accepted

MODE = "self-speculation"


def cycle(*positions: tuple[int, int, str]) -> Event:
    return Event(MODE, 2, "verify", 30.0, 0, 5, [Position(i, t, state, 0.5) for i, t, state in positions])


def test_a_draft_behind_a_rejection_is_right_where_the_answer_has_it_in_the_end() -> None:
    thrown = [(1, 2, "accepted"), (2, 6, "rejected"), (2, 3, "corrected"), (3, 4, "discarded"), (4, 6, "discarded")]
    after = [(3, 4, "accepted"), (4, 5, "accepted"), (5, 7, "bonus"), (6, 6, "discarded")]
    first, *_ = speculation()
    run = record([first, cycle(*thrown), cycle(*after)])
    lane = run[MODE]
    assert lane.tokens == [1, 2, 3, 4, 5, 7]
    assert behind_rejections(lane) == [(3, True), (4, False)]  # none behind the end: nothing was rejected there
    assert [found[3] for found in outcomes(lane.events[1])] == [True, False]
    names = {bar.name: list(bar.y) for bar in drafts_accepted(run).data if bar.type == "bar"}
    assert names["thrown away, right after all"] == [1.0, 0.0]


def test_without_a_rejection_nothing_was_thrown_away() -> None:
    data = trace_of({"1": "a", "2": "b", "3": "c"}, [1, 2, 3])
    run = Trace.from_json(json.dumps(data))
    assert behind_rejections(run[MODE]) == []
    assert "thrown away, right after all" not in [bar.name for bar in drafts_accepted(run).data]
