"""Other engines' runs, on tiny random weights: the trace says what the engine wrote, and how."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from nemodiff.trace import Position, Recorder, Trace
from nemodiff.trace.adapters.canvas import Canvas
from nemodiff.trace.adapters.cycle import add_cycle
from nemodiff.trace.adapters.log import from_log
from nemodiff.trace.adapters.streamer import TraceStreamer
from nemodiff.trace.adapters.trajectory import from_trajectory
from tests.helpers import other_engines
from ui.render.trajectory import trajectory

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "trace.schema.json").read_text(encoding="utf-8"))


def checked(trace: Trace) -> Trace:
    """The trace, as it comes back from its file."""
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(trace.to_json()))
    again = Trace.from_json(trace.to_json())
    assert again.to_json() == trace.to_json()
    return again


def test_a_loop_of_masks_is_followed_token_by_token() -> None:
    trace, written = other_engines.masked_loop()
    lane = checked(trace)["diffusion"]
    assert lane.tokens == written and lane.finish == "length"
    assert lane.forwards == len(lane.events) == 6  # two of four masks per forward, three blocks
    assert [event.start for event in lane.events] == [0, 0, 4, 4, 8, 8]
    states = [[position.state for position in event.positions] for event in lane.events]
    assert all(sorted(one) in (["committed"] * 2 + ["masked"] * 2, ["committed"] * 2) for one in states)
    assert all(0 <= position.confidence <= 1 for event in lane.events for position in event.positions)


def test_a_loop_may_mask_again_and_rewrite() -> None:
    recorder = Recorder.of_run("dream", "diffusion", str, special=[0])
    canvas = Canvas(recorder, 0)
    for ids in ([5, 0, 0], [5, 6, 0], [5, 0, 7], [8, 6, 7]):
        canvas.step([ids])
    events = recorder.finish("length")["diffusion"].events
    said = [[(p.index, p.token, p.state) for p in event.positions] for event in events]
    assert said[2] == [(1, 0, "masked"), (2, 7, "committed")]
    assert said[3] == [(0, 8, "committed"), (1, 6, "committed")]
    assert recorder.trace["diffusion"].tokens == [8, 6, 7]
    with pytest.raises(ValueError, match="one length"):
        canvas.step([1, 2])
    with pytest.raises(ValueError, match="a batch of 2"):
        canvas.step([[1, 2, 3], [1, 2, 3]])


@pytest.mark.parametrize("confidences", [True, False])
def test_transformers_text_diffusion_is_streamed_into_a_trace(confidences: bool) -> None:
    trace, written = other_engines.text_diffusion(confidences)
    lane = checked(trace)["diffusion"]
    assert lane.tokens == written and len(written) == 16 and lane.finish == "length"
    assert [event.start for event in lane.events if event.positions[0].state == "committed"] == [0, 8]
    drafts = [event for event in lane.events if event.positions[0].state == "masked"]
    assert 2 <= len(drafts) <= 10
    assert lane.forwards == len(drafts) + 1  # the second canvas begins with a forward that reads the first
    assert all((p.confidence is not None) == confidences for event in drafts for p in event.positions)


def test_what_a_canvas_holds_behind_the_end_is_discarded() -> None:
    recorder = Recorder.of_run("m", "diffusion", str, special=[2])
    streamer = TraceStreamer(recorder, eos=[2])
    streamer.put([[1, 1]])
    streamer.put_draft(value=[[5, 6, 7, 8]])
    streamer.put([[5, 2, 0, 0]])
    streamer.end()
    lane = checked(recorder.finish())["diffusion"]
    assert (lane.tokens, lane.finish, lane.forwards) == ([5, 2], "eos", 1)
    assert [p.state for p in lane.events[-1].positions] == ["committed", "committed", "discarded", "discarded"]


def test_any_model_is_streamed_a_token_a_forward() -> None:
    trace, written = other_engines.plain_decoding()
    lane = checked(trace)["ar"]
    assert lane.tokens == written and lane.forwards == len(written) - 1
    assert lane.seconds > 0 and lane.finish == "length"


@pytest.mark.parametrize("lookup", [False, True])
def test_assisted_generation_is_recorded_cycle_by_cycle(lookup: bool) -> None:
    trace, written = other_engines.assisted(lookup)
    lane = checked(trace)["self-speculation"]
    assert lane.tokens == written and lane.finish == "length"
    assert sum(lane.acceptance_lengths) == len(written) and lane.forwards == len(lane.acceptance_lengths)
    verified = [event for event in lane.events if event.phase == "verify"]
    drafted = {event.forward: event.positions for event in lane.events if event.phase == "draft"}
    for event in verified:
        accepted = [p.token for p in event.positions if p.state == "accepted"]
        assert accepted == [p.token for p in drafted.get(event.forward, [])][: len(accepted)]
        assert all(
            len(p.top) == 3 and p.top[0][0] == p.token for p in event.positions if p.state in ("bonus", "accepted")
        )
    if not lookup:
        assert any(p.state == "rejected" for event in verified for p in event.positions)
        assert any(p.state == "accepted" for event in verified for p in event.positions)
        assert all(p.confidence is not None for positions in drafted.values() for p in positions)


def test_a_model_is_as_it_was_after_it_was_watched() -> None:
    trace, _ = other_engines.assisted()
    again, _ = other_engines.assisted()
    assert trace["self-speculation"].tokens == again["self-speculation"].tokens


def test_a_log_of_an_engine_says_what_it_wrote() -> None:
    text, written = other_engines.logged()
    lane = checked(from_log(text))["self-speculation"]
    assert lane.tokens == written and lane.finish == "length" and lane.note == "Drafts what it wrote before."
    assert lane.text == "".join(map(other_engines.word, written))
    assert from_log(text.encode()) == from_log(text)


def test_a_loops_trace_goes_to_diffusers_and_back() -> None:
    trace, written = other_engines.masked_loop()
    again = from_trajectory(json.dumps(trajectory(trace, "diffusion")))
    assert again["diffusion"].tokens == written
    assert again["diffusion"].text == trace["diffusion"].text


def places(tokens: list[int], start: int = 3) -> list[Position]:
    return [Position(start + i, token, "") for i, token in enumerate(tokens)]


@pytest.mark.parametrize(
    ("draft", "tokens", "states"),
    [
        ([4, 5], [4, 5, 6], ["accepted", "accepted", "bonus"]),
        ([4, 5, 6], [4, 7], ["accepted", "rejected", "corrected", "discarded"]),
        ([4, 5], [7], ["rejected", "corrected", "discarded"]),
        ([4, 5], [4], ["accepted", "discarded"]),  # cut by the limit
        ([], [4], ["bonus"]),
    ],
)
def test_a_cycle_is_told_by_its_drafts_and_tokens(draft: list[int], tokens: list[int], states: list[str]) -> None:
    recorder = Recorder.of_run("m", "self-speculation", str)
    add_cycle(recorder, 3, places(draft), places(tokens), ms=1.0)
    *drafts, verify = recorder.trace["self-speculation"].events
    assert [p.state for p in verify.positions] == states
    assert {event.forward for event in (*drafts, verify)} == {1} and bool(drafts) == bool(draft)
    kept = [p.token for p in verify.positions if p.state in ("accepted", "corrected", "bonus")]
    assert kept == tokens


def test_numbers_alone_tell_a_cycle_too() -> None:
    recorder = Recorder.of_run("m", "self-speculation", str)
    add_cycle(recorder, 0, [], places([4, 5], 0), accepted=1, drafted=3)
    add_cycle(recorder, 2, [], places([4, 5], 2), accepted=1, drafted=1)
    states = [[p.state for p in event.positions] for event in recorder.trace["self-speculation"].events]
    assert states == [["accepted", "corrected"], ["accepted", "bonus"]]
