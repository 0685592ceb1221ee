"""A trace from a file costs what it weighs: reading it, every chart and every export, whatever its shape. Instructions
are counted, not seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemodiff.errors import RequestError, TraceError
from nemodiff.evaluate.sweep_results import MAX_KEPT, Results
from nemodiff.request import Request
from nemodiff.trace import reading, replay
from nemodiff.trace.adapters.trajectory import from_trajectory
from nemodiff.trace.events import MODES, Trace
from nemodiff.trace.reading import MAX_EVENTS, MAX_IDS, MAX_INDEX, MAX_POSITIONS, MAX_TEXT, MAX_TOKENS, MAX_TOP
from tests.helpers import hostile
from tests.helpers.hostile import SHAPES, Part, worst
from ui import wire
from ui.live import oracle
from ui.render import charts, frames, poster, trajectory
from ui.render.positions import Cells

#: What is done with a trace: instructions that it may take whatever the trace, and a byte of it.
WORK: dict[str, tuple[Callable[[Trace], object], int, int]] = {
    "tokens over seconds": (charts.tokens_over_seconds, 400_000, 6),
    "tokens over forwards": (charts.tokens_over_forwards, 400_000, 6),
    "commit order": (charts.commit_order, 6_000_000, 6),  # 400 blocks of 256 places
    "acceptance lengths": (charts.acceptance_lengths, 400_000, 6),
    "confidence": (charts.confidence_agreement, 400_000, 6),
    "what stands": (lambda trace: [Cells(lane).advance(len(lane.events)) for lane in trace.lanes], 400_000, 6),
    "replay": (replay.replay_html, 400_000, 6),
    "stage": (wire.replay, 400_000, 6),
    # 12 pictures, 100,000 characters
    "pictures": (lambda trace: sum(1 for _ in frames.Frames(trace, max_frames=12).draw()), 12_000_000, 40),
    "poster": (lambda trace: (poster.poster_png(trace), poster.poster_svg(trace)), 30_000_000, 60),
    "trajectory": (lambda trace: trajectory.trajectory(trace, trace.lanes[-1].mode), 20_000_000, 6),  # 2 million ids
}


def check(trace: dict[str, Any], *names: str) -> None:
    text = json.dumps(trace)
    run, taken = hostile.steps(lambda: Trace.from_json(text))
    assert taken <= 50_000 + 12 * len(text)
    for name in names or WORK:
        work, fixed, a_byte = WORK[name]
        try:
            _, taken = hostile.steps(lambda work=work: work(run))
        except TraceError as error:
            assert str(error).endswith(".")
            continue
        assert taken <= fixed + a_byte * len(text), (name, taken, len(text))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_once_cost_a_square_costs_what_it_weighs(shape: str) -> None:
    mode, *parts = worst()[shape]
    check(hostile.trace(mode, *parts, text=20, answer=50))


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(MODES),
    parts=st.lists(hostile.parts(), min_size=1, max_size=3),
    text=st.sampled_from([1, 20, MAX_TEXT]),
    answer=st.sampled_from([0, 3, 2000]),
)
def test_a_trace_of_any_shape_costs_what_it_weighs(mode: str, parts: list[Part], text: int, answer: int) -> None:
    check(
        hostile.trace(mode, *parts, text=text, answer=answer),
        *(name for name in WORK if name not in ("pictures", "poster", "trajectory")),
    )


@pytest.mark.parametrize("text", [1, MAX_TEXT])
def test_pictures_of_long_tokens_are_bounded(text: int) -> None:
    check(hostile.trace("diffusion", Part("denoise", 300, 8, at="next"), text=text), "pictures", "poster")


def of(**changes: Any) -> dict[str, Any]:
    return hostile.trace("ar", Part("decode", 1, 1)) | changes


def lane(**changes: Any) -> dict[str, Any]:
    made = of()
    made["lanes"][0] |= changes
    return made


def event(**changes: Any) -> dict[str, Any]:
    made = of()
    made["lanes"][0]["events"][0] |= changes
    return made


def position(**changes: Any) -> dict[str, Any]:
    made = of()
    made["lanes"][0]["events"][0]["positions"][0] |= changes
    return made


EVENT = {"forward": 1, "phase": "draft", "clock_ms": 0, "start": 0, "length": 1, "positions": []}
SPOT = {"index": 0, "token": 1, "state": "masked"}
HALF = MAX_POSITIONS // 2 + 1
BOUNDS: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "forwards": (lambda: lane(events=[EVENT] * (MAX_EVENTS + 1)), f"holds more than {MAX_EVENTS:,} forwards"),
    "positions": (
        lambda: lane(events=[EVENT | {"positions": [SPOT] * HALF}] * 2),
        f"holds more than {MAX_POSITIONS:,} positions",
    ),
    "tokens": (lambda: lane(tokens=[1] * (MAX_TOKENS + 1)), f"holds more than {MAX_TOKENS:,} tokens"),
    "lanes": (lambda: of(lanes=of()["lanes"] * 4), "lanes is missing or not as expected"),
    "a token": (lambda: of(tokens={"1": "a" * (MAX_TEXT + 1)}), f"holds a token of more than {MAX_TEXT:,} characters"),
    "a place": (lambda: position(index=MAX_INDEX + 1), "positions[0].index is"),
    "alternatives": (lambda: position(top=[[1, 0.1]] * (MAX_TOP + 1)), "positions[0].top is"),
    "groups": (lambda: event(groups=[[]] * (MAX_TOP + 1)), "groups is"),
    "a group": (lambda: event(groups=[[[1, 0.1]] * (MAX_TOP + 1)]), "groups is"),
    "a block": (lambda: event(length=2**31), "length is"),
    "rows": (lambda: event(rows=2**31), "rows is"),
    "a start": (lambda: event(start=2**31), "start is"),
    "what a branch began with": (
        lambda: of(request={"answer_ids": [1] * (MAX_IDS + 1)}),
        f"holds more than {MAX_IDS:,} tokens that the run began with",
    ),
    "no list": (lambda: of(request={"answer_ids": {"length": 10**9}}), "request.answer_ids is"),
    "no ids": (lambda: of(request={"prompt_ids": ["a"]}), "request.prompt_ids is"),
    "no prompt": (lambda: of(request={"prompt": [[[]]]}), "request.prompt is"),
    "no number": (lambda: of(request={"block_length": "9" * 999}), "request.block_length is"),
    "no modes": (lambda: of(request={"modes": [["ar"]]}), "request.modes is"),
    "versions": (lambda: of(versions={"a": [["b"]]}), "versions is"),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_every_bound_is_a_sentence(bound: str) -> None:
    made, says = BOUNDS[bound]
    with pytest.raises(TraceError) as refused:
        Trace.from_json(json.dumps(made()))
    sentence = str(refused.value)
    assert says in sentence and sentence.endswith(".") and "\n" not in sentence


def test_too_many_are_refused_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("made")

    monkeypatch.setattr(reading, "_event", never)
    for name in ("forwards", "positions", "tokens"):
        with pytest.raises(TraceError, match="holds more than"):
            Trace.from_json(json.dumps(BOUNDS[name][0]()))


def test_a_trace_at_its_bounds_is_read() -> None:
    for made in (position(index=MAX_INDEX), lane(tokens=[1] * MAX_TOKENS), of(tokens={"1": "a" * MAX_TEXT})):
        assert Trace.from_json(json.dumps(made)).lanes
    nothing = of(request={"prompt": None, "prompt_ids": None, "answer_ids": [], "threshold": None, "modes": ["ar"]})
    assert Trace.from_json(json.dumps(nothing)).request["prompt"] is None


def frames_of(changes: int) -> dict[str, Any]:
    """A trajectory in which every frame changes every place."""
    length = 1000
    steps = [{"step": k, "ids": [1 + k % 2] * length} for k in range(changes)]
    return {"frames": steps, "gen_length": length, "block_length": 8192, "vocab": {"1": "a", "2": "b"}}


def test_a_trajectory_is_bounded_as_a_trace_is(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = from_trajectory(frames_of(3))
    assert {event.length for event in trace.lanes[0].events} == {1000}  # no block is longer than the answer
    assert Trace.from_json(trace.to_json()).lanes[0].events == trace.lanes[0].events
    monkeypatch.setattr(reading, "MAX_POSITIONS", 5000)
    with pytest.raises(TraceError, match="holds more than 5,000 positions"):
        from_trajectory(frames_of(6))
    with pytest.raises(TraceError, match="holds a token of more than 1,024 characters"):
        from_trajectory(frames_of(3) | {"vocab": {"1": "a" * 1025}})


def test_many_rejected_drafts_do_not_fill_a_hover() -> None:
    trace = Trace.from_json(json.dumps(hostile.trace("self-speculation", Part("verify", 1, 500, states=("rejected",)))))
    figure = charts.acceptance_lengths(trace)
    assert isinstance(figure, go.Figure) and len(figure.data[0].hovertext[0]) < 2000


def test_a_deep_value_is_not_written_out_in_its_refusal() -> None:
    class Inside:
        def __repr__(self) -> str:
            raise AssertionError("written out")

    deep: Any = [Inside()]
    for _ in range(150):
        deep = [deep]
    for name in ("sampler", "seed", "temperature", "draft"):
        with pytest.raises(RequestError) as refused:
            Request(**{"prompt": "a", name: deep})
        assert len(str(refused.value)) < 200


def test_what_is_too_long_to_be_asked_or_kept_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(json, "loads", never)
    assert Results.from_json("[" * (MAX_KEPT + 1)) is None
    progress = oracle.progress("[" * 200_001)
    monkeypatch.undo()
    assert json.loads(progress)["light"]["id"] == 0
