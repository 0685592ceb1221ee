"""Sweeps of the Compare tab: what is asked, what is kept, how one is stopped, what is drawn."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from nemodiff.errors import RequestError
from nemodiff.evaluate.prompt_file import Asked
from nemodiff.evaluate.sweep import HEADS, Point, cells
from nemodiff.evaluate.sweep_results import Kept, Results
from nemodiff.trace.events import Event, Lane, Position, Trace
from tests.helpers.checkpoints import open_engine
from tests.helpers.engines import WithText
from ui.live.fair_queue import Line
from ui.live.sweep_plan import Pace, Plan, short_run
from ui.live.sweep_run import Sweep
from ui.page import sweep_view
from ui.render.charts.compare import seconds_a_token, tokens_a_forward
from ui.render.charts.figure import COLOURS


def point(mode="diffusion", block=4, threshold=0.9, tpf=2.0, agreement=0.5, seconds=0.02) -> Point:
    return Point(mode, block, threshold, 2, int(100 * tpf), 100, 150, seconds, 0.03, agreement, 0.25)


AR = point("ar", None, None, 1.0, 1.0, 0.03)


def results(*points: Point, device: str = "Test CPU") -> Results:
    return Results("tiny", device, "float32", ("Sleep",), 8, list(points))


def test_a_plan_counts_its_runs_and_sorts_its_values() -> None:
    plan = Plan.of(["Sleep", "Blue sky"], "8 4,4", ".9, 0.5", 16.0, 64)
    assert (plan.labels, plan.axes.block_lengths) == (("Blue sky", "Sleep"), (4, 8))
    assert plan.axes.thresholds == (0.5, 0.9)
    assert plan.runs == 2 * (1 + 2 * 2 + 2)
    assert [one.prompt[:7] for one in plan.asked] == ["Explain", "Give me"]


def test_every_axis_multiplies_only_what_uses_it() -> None:
    chosen = {"drafts": ["linear", "quadratic", "tree"], "samplers": ["confidence", "fixed"]}
    chosen |= {"orders": ["best", "leftmost"], "rows": "auto, 24", "temperatures": "0, 0.7", "repeats": 3}
    own = '{"prompt": "2 + 2", "expected": "4"}\nSay hi'
    plan = Plan.of(["Sleep"], "4, 32", "0.8, 0.9", 8, 64, own=own, **chosen)
    counts = {mode: sum(one.mode == mode for one in plan.variants) for mode in ("ar", "diffusion", "self-speculation")}
    # Diffusion: two orders of two blocks, with two thresholds or none; quadratic drafts fill no block of 32.
    assert counts == {"ar": 2, "diffusion": 2 * 2 * 2 * (2 + 1), "self-speculation": 2 * (2 + 1 + 2)}
    assert plan.runs == 3 * 3 * sum(counts.values())
    assert [one.expected for one in plan.asked] == [None, "4", None]
    words = [one.words for one in plan.variants]
    assert {
        "temperature 0.7",
        "block 4, threshold 0.8, best first",
        "tree, 24 rows",
        "quadratic, block 4",
        "tree",
    } <= set(words)
    assert len(set(plan.variants)) == len(plan.variants)
    for one in plan.variants:
        assert one.request("hi", 4).modes == (one.mode,)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (([], "4", "0.9", 8), "No prompt is chosen"),
        (([], "4", "0.9", 8, {"own": "  \n"}), "No prompt is chosen"),
        ((["Sleep"], "4", "0.9", 8, {"drafts": []}), "No drafts are chosen"),
        ((["Sleep"], "4", "0.9", 8, {"drafts": ["other"]}), "No drafts are chosen"),
        ((["Sleep"], "4", "0.9", 8, {"samplers": "confidence"}), "must be a list of names"),
        ((["Sleep"], "4", "0.9", 8, {"repeats": 0}), "Repeats must be a whole number from 1 to 10"),
        ((["Sleep"], "4", "0.9", 8, {"rows": "1"}), "rows must be from 2 to 64"),
        ((["Sleep"], "4", "0.9", 8, {"temperatures": "-1"}), "temperatures must be from 0 to 10"),
        ((["Sleep"], "4", "0.9", 8, {"own": "x" * 200_001}), "more than 200,000 characters"),
        ((["Sleep"], "4", "0.9", 8, {"own": "x\n" * 65}), "There are 65 prompts, at most 64"),
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
        Plan.of(*fields[:4], most=64, **(fields[4] if len(fields) > 4 else {}))


def test_results_survive_the_browser_and_nothing_else_does() -> None:
    kept = results(AR, point())
    assert Results.from_json(kept.to_json()) == kept
    odd = results(AR, replace(point(), ar_seconds=0.02 * 0.9249999999))  # would be 0.93× if it were rounded twice
    assert sweep_view.table(Results.from_json(odd.to_json())) == sweep_view.table(odd)
    data = json.loads(kept.to_json())
    for damage in (
        {"points": [data["points"][0] | {"mode": "<b>"}]},
        {"points": [data["points"][0] | {"seconds": "Infinity"}]},
        {"points": [data["points"][0] | {"tokens": 10**400}]},
        {"points": [data["points"][0] | {"nfe": -1}]},
        {"points": [{name: value for name, value in data["points"][0].items() if name != "ar_seconds"}]},
        {"points": []},
        {"labels": 3},
        {"points": [data["points"][0] | {"draft": "<b>"}]},
        {"points": [data["points"][0] | {"rows": -1}]},
        {"max_new_tokens": 0},
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
    return Plan.of(["Sleep"], "4", " ".join(map(str, thresholds)), tokens, 64)


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


def test_a_sweep_whose_checkpoint_was_exchanged_while_it_gave_way_says_so(llama_folder) -> None:
    engine, line = open_engine(llama_folder), Line()
    sweep = Sweep(WithText(engine), plan(), seconds=60, ticket=line.enter("sweep"))
    other = line.enter("who loads another checkpoint")

    def swap() -> None:
        assert other.wait(20)
        engine.close()
        other.leave()

    swapping = threading.Thread(target=swap)
    swapping.start()
    points = [point for batch in sweep.steps() for point in batch]
    swapping.join(20)
    assert [one.mode for one in points] == ["ar"] and not sweep.finished
    assert sweep.error == "Another checkpoint was loaded meanwhile, so the sweep ended."
    assert f"{sweep.error} What was measured is kept." in sweep_view.end(sweep)


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


def test_a_sweep_goes_on_with_what_is_missing_and_begins_anew_when_nothing_is(llama_engine) -> None:
    asked = plan()
    first = [point for batch in Sweep(WithText(llama_engine), asked, seconds=60).steps() for point in batch]
    kept = Kept()
    results = kept.begun(Results.of(llama_engine, asked.labels, asked.max_new_tokens, asked.asked))
    for point in first[:2]:
        results.add(point)
    left = asked.without(results.measured(asked.repeats))
    assert left == {first[1].variant}
    assert "1 setting of these are measured" not in sweep_view.planned(asked, None, None)
    assert "1 setting of these is measured already" in sweep_view.planned(asked, results, None)
    sweep = Sweep(WithText(llama_engine), asked, seconds=60, without=left)
    rest = [point for batch in sweep.steps() for point in batch]
    assert [one.variant for one in rest] == [first[0].variant, *(one.variant for one in first[2:])]  # AR runs again
    assert (sweep.total, sweep.done, sweep.finished) == (3, 3, True)
    for point in rest:
        results.add(point)
    assert asked.without(results.measured(asked.repeats)) == set()  # all were measured: it begins anew
    assert asked.without(results.measured(2)) == set()
    again = Kept.from_json(kept.to_json())
    assert (
        again.begun(Results.of(llama_engine, asked.labels, asked.max_new_tokens, asked.asked)).points == results.points
    )
    other = Results.of(llama_engine, asked.labels, asked.max_new_tokens, [Asked("another text")])
    assert again.begun(other).points == [] and len(again.sweeps) == 2


def test_repeats_go_round_by_round_and_tell_their_spread(llama_engine) -> None:
    asked = replace(plan(thresholds=(0.9,)), repeats=3)
    points = [point for batch in Sweep(WithText(llama_engine), asked, seconds=60).steps() for point in batch]
    assert [(point.mode, point.repeats) for point in points] == [
        (mode, count) for count in (1, 2, 3) for mode in ("ar", "diffusion", "self-speculation")
    ]
    for point in points[-3:]:
        assert point.fastest <= point.seconds <= point.slowest and point.tokens == 3 * points[0].tokens
        assert "–" in cells(point)[HEADS.index("spread") - 1]
    assert points[-1].identical == 1.0
    assert "error_y" in seconds_a_token(results(*points[-3:])).to_json()


def test_at_a_temperature_each_repeat_has_its_own_seed_and_is_held_against_ars(llama_engine) -> None:
    seeds: list[tuple[str, int]] = []

    class Watched(WithText):
        def generate(self, request, on_event=None):
            seeds.append((request.modes[0], request.seed))
            return super().generate(request, on_event)

    asked = Plan.of(["Sleep"], "4", "0.9", 6, 64, temperatures="0.8", repeats=2)
    points = [point for batch in Sweep(Watched(llama_engine), asked, seconds=60).steps() for point in batch]
    assert seeds == [(mode, seed) for seed in (0, 1) for mode in ("ar", "diffusion", "self-speculation")]
    assert [point.temperature for point in points] == [0.8] * 6
    assert points[-1].identical == 1.0  # the same noise: AR's text at any temperature


def test_an_expected_answer_is_held_against_what_was_written(llama_engine) -> None:
    engine = WithText(llama_engine)
    wrote = engine.generate(plan().variants[0].request("two", 6)).lanes[0].text
    own = json.dumps({"prompt": "two", "expected": f"  {wrote}\n"}) + '\n{"prompt": "two", "expected": "no"}\none'
    asked = Plan.of([], "4", "0.9", 6, 64, own=own)
    points = [point for batch in Sweep(engine, asked, seconds=60).steps() for point in batch]
    assert [point.right for point in points if point.mode != "diffusion"] == [0.5, 0.5]
    assert cells(points[0])[-1] == "50%" and points[0].prompts == 3


class Written:
    """An engine of made answers, which the test may choose by mode."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts

    def generate(self, request, on_event=None):
        [mode] = request.modes
        event = Event(mode, 1, "decode", 10.0, 0, 1, [Position(0, 1, "committed")])
        name = mode.replace("-", "_")
        lane = Lane(mode, [event], [len(self.texts[name])], self.texts[name], self.texts.get(f"{name}_finish", "eos"))
        return Trace("made", "", "", "", None, {}, {}, [lane])


def test_answers_with_a_fault_count_as_such_and_cut_ones_do_not() -> None:
    asked = Plan.of([], "4", "0.9", 6, 64, own="Write JSON.")
    engine = Written(ar='{"a": 1}', diffusion='{"a"', self_speculation='{"a": 1}')
    points = [point for batch in Sweep(engine, asked, seconds=60).steps() for point in batch]
    assert [point.holds for point in points] == [1.0, 0.0, 1.0]
    assert cells(points[1])[HEADS.index("holds") - 1] == "0%"
    engine = Written(ar="Hello", diffusion='{"a"', diffusion_finish="length", self_speculation="Hello")
    points = [point for batch in Sweep(engine, asked, seconds=60).steps() for point in batch]
    assert [point.holds for point in points] == [None, None, None]


def test_a_short_run_tells_how_long_a_sweep_takes_at_most(llama_engine) -> None:
    asked = plan(tokens=64)
    pace = Pace.of(WithText(llama_engine).generate(short_run(asked)))
    assert set(pace.a_token) == {"ar", "diffusion", "self-speculation"} and all(pace.a_token.values())
    made = Pace(0.5, {"ar": 0.1, "diffusion": 0.2, "self-speculation": 0.05})
    assert made.seconds(asked.runs_of(), 10) == pytest.approx(4 * 0.5 + 10 * (0.1 + 2 * 0.2 + 0.05))
    assert "4 runs of at most 64 tokens · up to about" in sweep_view.planned(asked, None, made)
    assert [sweep_view.duration(one) for one in (0.2, 89.0, 100.0, 7200.0)] == ["1 s", "89 s", "2 min", "2.0 h"]
    sweep = Sweep(WithText(llama_engine), asked, seconds=60, pace=made)
    assert sweep.seconds_left() == pytest.approx(made.seconds(asked.runs_of(), 64))
    assert Sweep(WithText(llama_engine), asked, seconds=60).seconds_left() is None
    list(sweep.steps())
    assert sweep.seconds_left() == 0


def test_bad_lines_of_own_prompts_are_told_in_the_plan() -> None:
    asked = Plan.of([], "4", "0.9", 6, 64, own='hi\n{"prompt": 3}\n{<b>')
    shown = sweep_view.planned(asked, None, None)
    assert "Line 2 was left out: it has no text under" in shown and "Line 3 was left out: it begins as JSON" in shown
    assert "<b>" not in shown and len(asked.asked) == 1


def test_stop_ends_a_sweep_in_the_forward_under_way(llama_engine) -> None:
    engine = Endless(llama_engine)
    engine.sweep = Sweep(engine, plan(tokens=64), seconds=60)
    assert [batch for batch in engine.sweep.steps() if batch] == []
    assert (engine.forwards, engine.sweep.done, engine.sweep.finished) == (3, 0, False)
    assert "Stopped after 0 of 4 runs" in sweep_view.end(engine.sweep)


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
    assert sweep.error.startswith("Something went wrong") and "secret" not in sweep_view.end(sweep)


def test_the_charts_show_every_point_once() -> None:
    verified = replace(point("self-speculation", 8, None, 2.5, 1.0, 0.01), draft="linear")
    kept = results(AR, point(), point(threshold=0.8, agreement=0.4), point(block=8), verified)
    for chart, heights in ((tokens_a_forward, [2.0, 2.0]), (seconds_a_token, [0.02, 0.02])):
        figure = chart(kept)
        traces = {trace.name: trace for trace in figure.data}
        assert list(traces) == ["AR", "diffusion, block 4", "diffusion, block 8", "self-spec., linear, block 8"]
        curve = traces["diffusion, block 4"]
        assert (list(curve.x), list(curve.y), list(curve.text)) == ([0.4, 0.5], heights, ["0.8", "0.9"])
        assert traces["diffusion, block 8"].marker.symbol == traces["self-spec., linear, block 8"].marker.symbol
        assert traces["self-spec., linear, block 8"].marker.color == COLOURS["self-speculation"]
    assert "Test CPU · float32" in seconds_a_token(kept).layout.title.subtitle.text
    assert "50% of AR's tokens" in traces["diffusion, block 8"].hovertext[0]


def test_charts_and_table_show_names_as_text() -> None:
    kept = results(AR, device="<img src=x>")
    assert "<img" not in seconds_a_token(kept).to_json().replace("\\u003c", "<")
    assert "<img" not in sweep_view.table(kept)
    assert "press Sweep" in tokens_a_forward(results()).layout.annotations[0].text


def test_the_table_has_every_figure() -> None:
    row = sweep_view.table(results(AR, point())).partition('data-mode="diffusion"')[2]
    cells = [cell.partition("</td>")[0] for cell in row.partition("</tr>")[0].split("<td>")[1:]]
    figures = ["200", "100", "2.00", "150", "0.02000", "0.03000", "1.50×", "", "50%", "25%", "", ""]
    assert cells == ["block 4, threshold 0.9", *figures]
