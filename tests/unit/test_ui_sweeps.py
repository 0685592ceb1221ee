"""Sweeps of the Compare tab: what is asked, what is kept, how one is stopped, what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nemodiff.errors import RequestError
from nemodiff.evaluate.sweep import Point
from nemodiff.evaluate.sweep_results import Results
from tests.helpers.engines import WithText
from ui.live.sweep_run import Plan, Sweep
from ui.page import compare
from ui.render.charts.compare import seconds_a_token, tokens_a_forward
from ui.render.charts.figure import COLOURS


def point(mode="diffusion", block=4, threshold=0.9, tpf=2.0, agreement=0.5, seconds=0.02) -> Point:
    return Point(mode, block, threshold, 2, int(100 * tpf), 100, 150, seconds, 0.03, agreement, 0.25)


AR = point("ar", None, None, 1.0, 1.0, 0.03)


def results(*points: Point, device: str = "Test CPU") -> Results:
    return Results("tiny", device, "float32", ("Sleep",), 8, list(points))


def test_a_plan_counts_its_runs_and_sorts_its_values() -> None:
    plan = Plan.of(["Sleep", "Blue sky"], "8 4,4", ".9, 0.5", 16.0, 64)
    assert (plan.labels, plan.block_lengths, plan.thresholds) == (("Blue sky", "Sleep"), (4, 8), (0.5, 0.9))
    assert plan.runs == 2 * (1 + 2 * 2 + 2)
    assert [prompt[:7] for prompt in plan.prompts] == ["Explain", "Give me"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (([], "4", "0.9", 8), "No prompt is chosen"),
        ((["other"], "4", "0.9", 8), "No prompt is chosen"),
        ((["Sleep"], "four", "0.9", 8), "block lengths must be numbers"),
        ((["Sleep"], "1", "0.9", 8), "block lengths must be from 2 to 64"),
        ((["Sleep"], "1" + "0" * 400, "0.9", 8), "block lengths must be from 2 to 64"),
        ((["Sleep"], "4", "inf", 8), "thresholds must be from 0 to 1"),
        ((["Sleep"], "4", "", 8), "There are no thresholds"),
        ((["Sleep"], "4", "nan", 8), "thresholds must be from 0 to 1"),
        ((["Sleep"], "4", "0.9", 65), "whole number from 1 to 64"),
        ((["Sleep"], "4", "0.9", 1.5), "whole number from 1 to 64"),
        ((["Sleep"], "4", "0.9", None), "whole number from 1 to 64"),
        ((["Sleep"], ",".join(map(str, range(2, 60))), "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9", 8), "at most 500"),
    ],
)
def test_a_plan_refuses_in_a_sentence(fields: tuple, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        Plan.of(*fields, most=64)


def test_results_survive_the_browser_and_nothing_else_does() -> None:
    kept = results(AR, point())
    assert Results.from_json(kept.to_json()) == kept
    odd = results(AR, replace(point(), ar_seconds=0.02 * 0.9249999999))  # would be 0.93× if it were rounded twice
    assert compare.table(Results.from_json(odd.to_json())) == compare.table(odd)
    data = json.loads(kept.to_json())
    for damage in (
        {"points": [data["points"][0] | {"mode": "<b>"}]},
        {"points": [data["points"][0] | {"seconds": "Infinity"}]},
        {"points": [data["points"][0] | {"tokens": 10**400}]},
        {"points": [data["points"][0] | {"nfe": -1}]},
        {"points": [{name: value for name, value in data["points"][0].items() if name != "ar_seconds"}]},
        {"points": []},
        {"labels": 3},
    ):
        assert Results.from_json(json.dumps(data | damage)) is None
    for text in (None, "", "{", "[]", "3", [1]):
        assert Results.from_json(text) is None


def test_results_of_the_same_conditions_grow_and_a_setting_measured_anew_replaces() -> None:
    earlier = results(AR, point(tpf=2.0), point(threshold=0.8))
    again = results().resume(earlier)
    again.add(point(tpf=3.0))
    assert [(one.threshold, one.tpf) for one in again.of_mode("diffusion")] == [(0.8, 2.0), (0.9, 3.0)]
    assert results(device="Another CPU").resume(earlier).points == []
    assert results().resume(None).points == []


def plan(thresholds: tuple = (0.5, 0.9), tokens: int = 6) -> Plan:
    return Plan(("Sleep",), (4,), thresholds, tokens)


def test_a_sweep_gives_every_point_once_and_says_that_it_is_done(llama_engine) -> None:
    sweep = Sweep(WithText(llama_engine), plan(), seconds=60)
    points = [point for batch in sweep.steps() for point in batch]
    assert [(one.mode, one.threshold) for one in points] == [
        ("ar", None),
        ("diffusion", 0.5),
        ("diffusion", 0.9),
        ("self-speculation", None),
    ]
    assert (sweep.done, sweep.total, sweep.finished, sweep.error) == (4, 4, True, "")


class Endless(WithText):
    """An engine whose every forward the test may watch; it stops the sweep in the third."""

    forwards = 0
    sweep: Sweep

    def generate(self, request, on_event=None):
        def watch(event):
            self.forwards += 1
            if self.forwards == 3:
                self.sweep.stop()
            on_event(event)

        return super().generate(request, watch)


def test_stop_ends_a_sweep_in_the_forward_under_way(llama_engine) -> None:
    engine = Endless(llama_engine)
    engine.sweep = Sweep(engine, plan(tokens=64), seconds=60)
    assert [batch for batch in engine.sweep.steps() if batch] == []
    assert (engine.forwards, engine.sweep.done, engine.sweep.finished) == (3, 0, False)
    assert "Stopped after 0 of 4 runs" in compare.end(engine.sweep)


def test_a_page_that_goes_away_stops_the_sweep(llama_engine) -> None:
    sweep = Sweep(WithText(llama_engine), plan(tuple(n / 100 for n in range(50, 100)), tokens=64), seconds=60)
    steps = sweep.steps()
    next(steps)
    steps.close()
    sweep.join(60)
    assert sweep.ended and not sweep.finished


def test_a_sweep_ends_at_the_pages_limit_and_says_so(llama_engine) -> None:
    sweep = Sweep(WithText(llama_engine), plan(), seconds=-1)
    list(sweep.steps())
    assert "limit of" in sweep.error and not sweep.finished


def test_an_unexpected_error_is_a_sentence(llama_engine) -> None:
    class Broken:
        def generate(self, request, on_event=None):
            raise RuntimeError("secret")

    sweep = Sweep(Broken(), plan(), seconds=60)
    list(sweep.steps())
    assert sweep.error.startswith("Something went wrong") and "secret" not in compare.end(sweep)


def test_the_charts_show_every_point_once() -> None:
    verified = point("self-speculation", 8, None, 2.5, 1.0, 0.01)
    kept = results(AR, point(), point(threshold=0.8, agreement=0.4), point(block=8), verified)
    for chart, heights in ((tokens_a_forward, [2.0, 2.0]), (seconds_a_token, [0.02, 0.02])):
        figure = chart(kept)
        traces = {trace.name: trace for trace in figure.data}
        assert list(traces) == ["AR", "diffusion, block 4", "diffusion, block 8", "self-spec., block 8"]
        curve = traces["diffusion, block 4"]
        assert (list(curve.x), list(curve.y), list(curve.text)) == ([0.4, 0.5], heights, ["0.8", "0.9"])
        assert traces["diffusion, block 8"].marker.symbol == traces["self-spec., block 8"].marker.symbol
        assert traces["self-spec., block 8"].marker.color == COLOURS["self-speculation"]
    assert "Test CPU · float32" in seconds_a_token(kept).layout.title.subtitle.text
    assert "50% of AR's tokens" in traces["diffusion, block 8"].hovertext[0]


def test_charts_and_table_show_names_as_text() -> None:
    kept = results(AR, device="<img src=x>")
    assert "<img" not in seconds_a_token(kept).to_json().replace("\\u003c", "<")
    assert "<img" not in compare.table(kept)
    assert "press Sweep" in tokens_a_forward(results()).layout.annotations[0].text


def test_the_table_has_every_figure() -> None:
    row = compare.table(results(AR, point())).partition('data-mode="diffusion"')[2]
    cells = [cell.partition("</td>")[0] for cell in row.split("<td>")[1:]]
    assert cells == ["4", "0.9", "200", "100", "2.00", "150", "0.02000", "0.03000", "1.50×", "50%", "25%"]
