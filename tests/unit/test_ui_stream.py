"""ui.stream and ui.runs: what goes to the page, with a made engine in place of a model."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from nemodiff.errors import TraceError
from nemodiff.request import Request
from nemodiff.trace import Event, Position
from tests.helpers.engines import WAIT, MadeEngine, messages
from ui import stream
from ui.runs import UNEXPECTED, Runs


def test_batches_carry_every_event_once_numbered_from_one_and_end_small() -> None:
    sent = messages(MadeEngine(50))
    events = [event for message in sent for event in message.get("ev", [])]
    assert [event["q"] for event in events] == list(range(1, 51))
    assert all(event["mode"] == "ar" and "positions" in event for event in events)
    assert sent[0]["head"]["checkpoint"] == "made"
    assert sent[0]["special"] == [0]
    tokens = {id_: text for message in sent for id_, text in message.get("tokens", {}).items()}
    assert tokens["9"] == "w9 "
    assert any(message.get("byte_pieces") == {"3": "e2"} or "3" in message.get("byte_pieces", {}) for message in sent)
    assert sent[-2]["lanes"]["ar"]["tokens"] == list(range(50))
    assert sent[-1] == {"run": sent[0]["run"], "ev": [], "end": {"finish": {"ar": "length"}, "events": 50}}
    assert len(json.dumps(sent[-1])) < 300


def test_closing_the_stream_stops_the_model_within_one_forward() -> None:
    engine = MadeEngine(1000, hold=3)
    batches = stream.stream(engine, Request(prompt="hello", modes=("ar",)), Runs())
    next(batches)
    batches.close()
    engine.released.set()
    assert engine.closed.wait(WAIT)
    assert engine.made <= 4


def test_stop_ends_a_run_and_returns_all_of_it() -> None:
    engine, runs = MadeEngine(1000, hold=3), Runs()
    batches = stream.stream(engine, Request(prompt="hello", modes=("ar",)), runs, "visitor")
    next(batches)
    threading.Timer(0.05, engine.released.set).start()
    whole = json.loads(stream.stop(runs, "visitor", WAIT))
    assert whole["full"]
    assert whole["end"] == {"finish": {"ar": "stopped"}, "events": len(whole["ev"])}
    assert 3 <= len(whole["ev"]) <= 4
    assert engine.closed.is_set()
    assert json.loads(stream.stop(runs, "someone else")).keys() == {"unwait", "n"}


def test_resync_returns_a_recent_run_and_nothing_for_others() -> None:
    runs = Runs(keep=1)
    first = messages(MadeEngine(), runs=runs)[0]["run"]
    whole = json.loads(stream.resync(runs, first))
    assert [event["q"] for event in whole["ev"]] == [1, 2, 3, 4, 5]
    assert whole["lanes"]["ar"]["finish"] == "length"
    messages(MadeEngine(), runs=runs)
    assert stream.resync(runs, first) == ""
    assert stream.resync(runs, None) == ""


def test_a_run_that_ends_early_without_being_stopped_ran_out_of_time() -> None:
    engine = MadeEngine(5)
    engine.stream = lambda request: (Event("ar", i, "decode", i, i, 1, [Position(i, i, "committed")]) for i in range(2))
    assert messages(engine)[-1]["end"]["finish"] == {"ar": "time"}


def test_errors_are_one_sentence() -> None:
    assert messages(MadeEngine(), "refuse")[0]["error"] == "This prompt is refused."
    [*_, last] = messages(MadeEngine(fail=RuntimeError("secret path")))
    assert last["error"] == UNEXPECTED
    assert last["end"]["events"] == 2
    assert stream.failure("x") != stream.failure("x")
    assert stream.explain(RuntimeError("secret")) == UNEXPECTED


def test_read_trace_refuses_what_is_too_large_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("{" * 100, encoding="utf-8")
    with pytest.raises(TraceError, match="larger than"):
        stream.read_trace(path, limit=50)
    with pytest.raises(TraceError, match="no valid JSON"):
        stream.read_trace(path)
    with pytest.raises(TraceError, match="could not be read"):
        stream.read_trace(tmp_path / "none.json")


def test_recording_skips_what_cannot_be_read(tmp_path: Path) -> None:
    assert stream.recording(tmp_path) is None
    assert stream.recording(tmp_path / "missing") is None
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    engine = MadeEngine()
    recorder = engine.recorder(Request(prompt="hello", modes=("ar",)))
    for event in engine.stream(Request(prompt="hello", modes=("ar",))):
        recorder.add(event)
    (tmp_path / "b.json").write_text(recorder.finish("time").to_json(), encoding="utf-8")
    data = json.loads(stream.recording(tmp_path))
    assert data["kind"] == "recorded"
    assert data["trace"]["lanes"][0]["tokens"] == [0, 1, 2, 3, 4]
