"""Traces survive a round trip, figures follow their definitions, and untrusted files are refused in one sentence."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemodiff.errors import TraceError
from nemodiff.request import Request
from nemodiff.trace.events import SCHEMA, Event, Lane, Position, Trace, first_difference
from nemodiff.trace.limits import MAX_BYTES
from nemodiff.trace.recorder import Recorder

HOSTILE = {1: "<img onerror=alert(1)>", 2: "${alert(1)}", 3: "</script>", 4: "\u2028 \x00"}


def head() -> Trace:
    return Trace("tiny", "tiny", "test", "float32", True, {"torch": "0"}, Request(prompt="hi").to_json())


def record(events: list[Event], finish: str = "stopped") -> Trace:
    def piece(token: int) -> str | bytes:
        return b"\xe2\x9c" if token == 9 else HOSTILE.get(token, f" t{token}")

    recorder = Recorder(head(), sorted({event.mode for event in events}), lambda ids: " ".join(map(str, ids)), piece)
    for event in events:
        recorder.add(event)
    return recorder.finish(finish)


def speculation() -> list[Event]:
    def at(state, index, token, **more):
        return Position(index, token, state, 0.5, top=[(token, 0.5), (9, 0.25)], **more)

    mode = "self-speculation"
    return [
        Event(mode, 0, "prefill", 10.0, 0, 1, [at("seed", 0, 1)]),
        Event(mode, 1, "draft", 20.0, 0, 4, [at("drafted", i, 10 + i) for i in (1, 2, 3)]),
        Event(
            mode,
            2,
            "verify",
            30.0,
            0,
            4,
            [at("accepted", 1, 11), at("rejected", 2, 12, verifier=2), at("corrected", 2, 2), at("discarded", 3, 13)],
        ),
        Event(mode, 3, "draft", 40.0, 2, 4, [at("drafted", i, 10 + i) for i in (3, 4, 5)]),
        Event(
            mode,
            4,
            "verify",
            50.0,
            2,
            4,
            [at("accepted", 3, 13), at("accepted", 4, 14), at("accepted", 5, 15), at("bonus", 6, 3)],
            "length",
        ),
    ]


def test_figures_follow_their_definitions():
    lane = record(speculation()).lanes[0]
    assert lane.tokens == [1, 11, 2, 13, 14, 15, 3]
    assert lane.acceptance_lengths == [2, 4]
    assert (lane.forwards, lane.nfe, lane.seconds, lane.prefill_seconds) == (4, 5, 0.05, 0.01)
    assert lane.tpf == 7 / 4
    shown = lane.figures()
    assert (shown["forwards"], shown["nfe"], shown["tpf"], shown["tokens_per_second"]) == (4, 5, 1.75, 140.0)


def test_nfe_is_counted_event_by_event_and_only_where_a_prefill_tells_how_the_lane_was_made():
    lane = record(speculation()).lanes[0]
    assert lane.nfe_counts() == [1, 2, 3, 4, 5]
    del lane.events[0]
    assert lane.nfe_counts() == [None] * 4
    assert Lane("ar").nfe_counts() == []


def test_a_stopped_block_keeps_the_text_before_its_first_hole():
    events = [
        Event("diffusion", 0, "prefill", 1.0, 0, 1, [Position(0, 5, "seed")]),
        Event(
            "diffusion",
            1,
            "denoise",
            2.0,
            0,
            4,
            [Position(1, 6, "committed"), Position(2, 7, "masked"), Position(3, 8, "committed")],
        ),
    ]
    lane = record(events).lanes[0]
    assert (lane.tokens, lane.finish) == ([5, 6], "stopped")


def test_nfe_of_diffusion_counts_one_refresh_a_block():
    lane = Lane(
        "diffusion",
        [
            Event("diffusion", i, p, i, s, 4)
            for i, (p, s) in enumerate([("prefill", 0), ("denoise", 0), ("denoise", 0), ("refresh", 4), ("denoise", 4)])
        ],
    )
    assert lane.nfe == 3 + 2


def test_round_trip_keeps_everything_hostile_text_included():
    trace = record(speculation())
    text = trace.to_json()
    again = Trace.from_json(text)
    assert again == trace
    assert again.to_json() == text
    assert again.vocabulary[1] == HOSTILE[1]
    assert again.byte_pieces == {9: "e29c"}


@given(a=st.lists(st.integers(0, 3), max_size=6), b=st.lists(st.integers(0, 3), max_size=6))
def test_first_difference(a, b):
    place = first_difference(a, b)
    if place is None:
        assert a == b
    else:
        assert a[:place] == b[:place]
        assert a[place : place + 1] != b[place : place + 1]


def paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from paths(item, (*path, index))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[1, 2]]),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_changed_trace_is_read_or_refused_never_crashes(data):
    trace = json.loads(record(speculation()).to_json())
    path = data.draw(st.sampled_from([p for p in paths(trace) if p]))
    target = trace
    for key in path[:-1]:
        target = target[key]
    if data.draw(st.booleans()):
        target[path[-1]] = data.draw(JUNK)
    else:
        del target[path[-1]]
    try:
        again = Trace.from_json(json.dumps(trace))
    except TraceError as error:
        assert str(error).endswith(".")
    else:
        text = again.to_json()  # which rounds
        assert Trace.from_json(text).to_json() == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "nul",
        '{"schema": "other/1"}',
        json.dumps({"schema": SCHEMA}),
        "[" * 100_000,
        '{"schema": NaN}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_trace_is_refused(text):
    with pytest.raises(TraceError):
        Trace.from_json(text)


@pytest.mark.parametrize("value", ["1" + "0" * 400, "-1", "1e999", "true"])
def test_a_clock_out_of_range_is_refused_and_named(value):
    event = {"forward": 0, "phase": "decode", "start": 0, "length": 1, "positions": [], "clock_ms": "CLOCK"}
    lane = {"mode": "ar", "events": [event], "tokens": [], "finish": "length"}
    text = json.dumps({"schema": SCHEMA, "checkpoint": "c", "request": {}, "tokens": {}, "lanes": [lane]})
    Trace.from_json(text.replace('"CLOCK"', "1.5"))
    with pytest.raises(TraceError, match=r"events\[0\].clock_ms"):
        Trace.from_json(text.replace('"CLOCK"', value))


def test_a_huge_trace_is_refused_before_it_is_parsed():
    with pytest.raises(TraceError, match="larger than"):
        Trace.from_json("x" * (MAX_BYTES + 1))
