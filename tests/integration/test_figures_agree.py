"""Figures that stand beside each other can be reckoned from each other: every figure over prompts is of totals."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemodiff.bench import beyond, examples, quality, vision
from nemodiff.cli.generate import _print
from nemodiff.engine.local import Engine
from nemodiff.evaluate.agreement import Totals, speed_up
from nemodiff.evaluate.sweep import COUNTED, HEADS, Point, cells, sweep
from nemodiff.evaluate.sweep_results import Results
from nemodiff.examples import EXAMPLES
from nemodiff.trace.events import Event, Lane, Position, Trace
from ui.page import sweep_view
from ui.render.charts.compare import seconds_a_token
from ui.render.charts.figure import lane_figures
from ui.render.charts.tokens_over import tokens_over_forwards, tokens_over_seconds
from ui.render.frames import Frames
from ui.render.frames.lettering import Pen
from ui.render.trajectory import trajectory

MODES = ("ar", "diffusion", "self-speculation")


def lane(mode: str, tokens: int, forwards: int, seconds: float) -> Lane:
    """A finished lane with these figures: the prefill's token, then forwards that bring the rest."""
    phase = {"ar": "decode", "diffusion": "denoise", "self-speculation": "verify"}[mode]
    events = [Event(mode, 0, "prefill", 0.0, 0, 1, [Position(0, 1, "seed")])]
    for k in range(forwards):
        there = range(1 + k * (tokens - 1) // forwards, 1 + (k + 1) * (tokens - 1) // forwards)
        positions = [Position(i, 1, "accepted" if phase == "verify" else "committed") for i in there]
        events.append(Event(mode, k + 1, phase, 1000 * seconds * (k + 1) / forwards, 0, 1, positions))
    return Lane(mode, events, [1] * tokens, finish="length")


def trace_of(*lanes: Lane) -> Trace:
    request = {"draft": "linear", "block_length": 8, "threshold": 0.9, "max_new_tokens": 128}
    return Trace("made", "", "Test CPU", "float32", True, {}, request, list(lanes))


# (tokens, forwards, seconds) of AR, and of another mode, a prompt.
figures = st.tuples(st.integers(2, 512), st.integers(1, 511), st.floats(1e-3, 500))
prompts = st.lists(st.tuples(figures, figures), min_size=1, max_size=6)


class Made:
    """An engine whose lanes were made beforehand: the AR ones first, as a sweep asks for them."""

    def __init__(self, asked: list) -> None:
        self.lanes = [lane("ar", *ar) for ar, _ in asked]
        self.lanes += [lane("diffusion", *other) for _, other in asked]
        self.lanes += [lane("self-speculation", *other) for _, other in asked]

    def generate(self, request, on_event=None) -> Trace:
        made = self.lanes.pop(0)
        assert made.mode == request.modes[0]
        return trace_of(made)


def swept(asked: list) -> list[Point]:
    steps = sweep(Made(asked), [f"prompt {i}" for i in range(len(asked))], [8], [0.9], 512)
    return [step.point for step in steps if step.point]


def reckoned(row: list[str]) -> None:
    """A row's figures against each other, as a reader with a pocket calculator would."""
    shown = dict(zip(HEADS[1:], row, strict=True))
    seconds, ar, times = float(shown["s / token"]), float(shown["AR, s / token"]), float(shown["× AR"].rstrip("×"))
    # Rounded where it is shown, and so are both seconds: to four digits.
    assert times == pytest.approx(ar / seconds, abs=5.1e-3 + 1.1e-3 * times)
    tpf = float(shown["tokens / forward"])
    assert tpf == pytest.approx(int(shown["tokens"]) / int(shown["forwards"]), abs=5.1e-3)


@settings(max_examples=60, deadline=None)
@given(prompts)
def test_a_sweeps_speed_up_is_the_ratio_of_the_seconds_beside_it(asked: list) -> None:
    points = swept(asked)
    assert [point.mode for point in points] == list(MODES)
    for point in points:
        reckoned(cells(point))
    ar = HEADS.index("AR, s / token") - 1
    assert {cells(point)[ar] for point in points} == {cells(points[0])[ar - 1]}
    assert cells(points[0])[HEADS.index("× AR") - 1] == "1.00×"


def test_a_slower_mode_is_never_called_faster_for_its_short_answers() -> None:
    """Fast on a short answer and slow on a long one: the mean of the ratios would say 1.37×, the total says 0.55×."""
    points = swept([((10, 9, 2.0), (10, 9, 0.9)), ((100, 99, 20.0), (100, 99, 39.0))])
    assert [f"{point.speed_up:.2f}" for point in points] == ["1.00", "0.55", "0.55"]
    assert points[1].seconds == pytest.approx(39.9 / 110)


def test_the_pages_table_and_charts_show_the_same_figures_as_the_command_line() -> None:
    points = swept([((10, 9, 2.0), (10, 4, 0.9)), ((100, 99, 20.0), (80, 30, 39.0))])
    results = Results("tiny", "Test CPU", "float32", ("Sleep",), 8, points)
    html = sweep_view.table(Results.from_json(results.to_json()))
    for point in points:
        row = html.partition(f'data-mode="{point.mode}"')[2].partition("</tr>")[0]
        assert [cell.partition("</td>")[0] for cell in row.split("<td>")[1:]] == cells(point)
        hover = next(one for one in seconds_a_token(results).data if one.x[0] == point.agreement).hovertext[0]
        assert f"{point.seconds:#.4g} s per token, AR {points[0].seconds:#.4g}" in hover
        assert f"(NFE {point.nfe})" in hover
    assert COUNTED in html and "NFE" in html


def test_a_setting_of_an_earlier_sweep_keeps_the_ar_it_was_measured_beside() -> None:
    """AR is measured anew by every sweep; a setting that is not must not be held against it."""
    earlier = swept([((100, 99, 20.0), (100, 50, 10.0))])
    results = Results("tiny", "Test CPU", "float32", ("Sleep",), 8, list(earlier))
    results.add(swept([((100, 99, 5.0), (100, 50, 10.0))])[0])  # AR alone, on a quieter machine
    assert [one.seconds for one in results.of_mode("ar")] == [0.05]
    [kept] = results.of_mode("diffusion")
    assert (kept.ar_seconds, kept.speed_up) == (0.2, 2.0)
    reckoned(cells(kept))


def table_rows(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip("*"): row[1:] for row in rows[2:]}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(figures, figures, figures), min_size=len(EXAMPLES), max_size=len(EXAMPLES)))
def test_benchs_rows_of_several_prompts_are_totals_too(asked: list) -> None:
    engine = SimpleNamespace(checkpoint="made", device="Test CPU", dtype="float32", exact=True)
    traces = {
        example: trace_of(*(lane(mode, *one) for mode, one in zip(MODES, each, strict=True)))
        for example, each in zip(EXAMPLES, asked, strict=True)
    }
    rows = table_rows(examples.table(engine, traces))
    assert list(rows)[-3:] == ["structured, together", "open-ended, together", "all, together"]
    for row in rows.values():
        _, rate, _, d_rate, d_times, _, _, _, s_rate, s_times, _ = (float(cell.rstrip("×%")) for cell in row)
        for own, times in ((d_rate, d_times), (s_rate, s_times)):
            if min(own, rate) >= 20:  # rates have one digit after the point
                assert times == pytest.approx(own / rate, rel=6e-3, abs=6e-3)
    ar = Totals.of(trace["ar"] for trace in traces.values())
    assert (int(rows["all, together"][0]), rows["all, together"][1]) == (ar.tokens, f"{ar.rate:.1f}")


@pytest.mark.parametrize(("exact", "said"), [(True, " · exact · "), (False, " · not exact · ")])
def test_every_bench_says_exact_only_of_an_engine_that_is(
    exact: bool, said: str, llama_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "exact", exact)
    monkeypatch.setattr(Engine, "sees", True)
    for bench in (beyond, quality, vision):
        monkeypatch.setattr(bench, "load", lambda *_, **__: llama_engine)
    monkeypatch.setattr(quality, "tasks", lambda **_: [])  # nothing is asked: the heading is what matters
    monkeypatch.setattr(quality, "_drift", lambda *_: "")
    monkeypatch.setattr(vision, "_aims", lambda *_: "")
    traces = {example: trace_of(*(lane(mode, 4, 3, 1.0) for mode in MODES)) for example in EXAMPLES}
    texts = (
        examples.table(llama_engine, traces),
        quality.run("made", workers=1),
        vision.run("made", scenes=0),
        next(beyond.run("made")),
    )
    for text in texts:
        assert said in text.splitlines()[0]


def test_one_prompts_speed_up_is_the_same_figure() -> None:
    ar, fast = lane("ar", 10, 9, 2.0), lane("self-speculation", 12, 6, 1.2)
    assert speed_up(fast, ar) == pytest.approx(2.0) == Totals.of([fast]).speed_up(Totals.of([ar]))
    assert speed_up(lane("ar", 2, 1, 0.0), ar) is None


def test_a_lanes_figures_name_the_prefill_and_the_released_codes_count() -> None:
    ar = lane("ar", 2, 1, 0.5)
    assert lane_figures(ar) == "2 tokens in prefill + 1 forward (NFE 2), 0.50 s"
    del ar.events[0]
    assert lane_figures(ar) == "2 tokens in 1 forward, 0.50 s"  # another program's lane, whose prefill is not told of
    trace = trace_of(lane("ar", 2, 1, 0.5), lane("diffusion", 9, 4, 0.5))
    for chart in (tokens_over_forwards, tokens_over_seconds):
        assert "2 tokens in prefill + 1 forward (NFE 2), 0.50 s" in chart(trace).data[0].name
    assert tokens_over_forwards(trace).layout.xaxis.title.text == "forwards after the prefill"
    assert trajectory(trace, "diffusion")["subtitle"] == ("9 tokens in prefill + 4 forwards (NFE 5), 0.50 s, Test CPU")


def test_pictures_and_videos_show_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = Pen.write
    monkeypatch.setattr(
        Pen, "write", lambda self, at, text, *more: (written.append(text), write(self, at, text, *more))[1]
    )
    list(Frames(trace_of(lane("ar", 4, 3, 0.5))).draw())
    assert "prefill + 3 forwards · 0.50 s" in written
    assert "1.33 tokens / forward · NFE 4 · 8.0 tokens / s" in written


def test_the_command_line_says_what_its_figures_count(capsys: pytest.CaptureFixture[str]) -> None:
    _print(trace_of(lane("ar", 4, 3, 0.5), lane("self-speculation", 4, 2, 0.4)))
    said = capsys.readouterr().out
    assert "counts as no forward; NFE is what the released code counts" in said
    assert "── ar: 4 tokens, 3 forwards, 1.33 tokens/forward, NFE 4, 0.50 s" in said
    assert "1.25× AR" in said
