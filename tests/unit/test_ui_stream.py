"""ui.wire and ui.live.run: what goes to the page, with a made engine in place of a model."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from nemodiff.errors import TraceError
from nemodiff.request import Request
from nemodiff.trace.events import Event, Position
from nemodiff.trace.opening import read_trace
from tests.helpers.engines import WAIT, MadeEngine, messages, streamed
from ui import wire
from ui.live import stage
from ui.live.run import GRACE, HURRY, Runs, awaited
from ui.page.shelf import Shelf
from ui.wire import UNEXPECTED


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


def asked(prompt: str = "hello") -> Request:
    return Request(prompt=prompt, modes=("ar",))


def test_a_run_that_its_page_lost_goes_on_for_a_while_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, finish in ((-1.0, "stopped"), (math.inf, "length")):
        monkeypatch.setattr("ui.live.run.GRACE", seconds)
        engine, runs = MadeEngine(9, hold=3), Runs()
        batches = streamed(engine, asked(), runs)
        run = runs.get(json.loads(next(batches))["run"])
        batches.close()
        engine.released.set()
        assert run.join(WAIT) and engine.closed.is_set()
        assert run.end()["end"]["finish"] == {"ar": finish}
        assert engine.made == (4 if finish == "stopped" else 9)  # within one forward


def test_the_seconds_of_a_page_that_was_gone_before_its_run_began_are_counted() -> None:
    for since, finish in ((GRACE + 1, "stopped"), (0.0, "length")):
        engine, runs = MadeEngine(9, hold=3), Runs()
        batches = streamed(engine, asked(), runs)
        run = runs.get(json.loads(next(batches))["run"])
        batches.close()
        run.let_go(time.monotonic() - since)
        engine.released.set()
        assert run.join(WAIT)
        assert run.end()["end"]["finish"] == {"ar": finish}


def test_where_others_wait_a_lost_run_goes_on_for_a_shorter_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon the server sees that the connection broke, its page has that long to ask."""
    for seconds, asks, finish in ((-1.0, False, "stopped"), (math.inf, False, "length"), (math.inf, True, "length")):
        monkeypatch.setattr("ui.live.run.HURRY", seconds)
        engine, runs = MadeEngine(9, hold=3), Runs()
        batches = streamed(engine, asked(), runs, wanted=lambda: True)
        run = runs.get(json.loads(next(batches))["run"])
        batches.close()
        if asks:
            assert len(json.loads(stage.resync(runs, run.id))["ev"]) <= 3
        engine.released.set()
        assert run.join(WAIT)
        assert run.end()["end"]["finish"] == {"ar": finish}


def test_who_asks_for_a_run_again_prolongs_it_and_who_does_not_loses_it_sooner_where_others_wait() -> None:
    now = time.monotonic()
    for gone, last, alone, busy in (
        (now, -math.inf, True, True),
        (now - HURRY - 1, -math.inf, True, False),
        (now - HURRY - 1, now, True, True),
        (now - GRACE - 1, now - HURRY - 1, True, False),
        (now - GRACE - 1, -math.inf, False, False),
    ):
        assert (awaited(gone, last, others=False), awaited(gone, last, others=True)) == (alone, busy)


def test_stop_ends_a_run_and_its_stream_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the last forward takes: the end is sent when it has come, not when somebody lost patience."""
    monkeypatch.setattr("ui.live.stream.PATIENCE", 0.001)
    engine, runs = MadeEngine(1000, hold=3), Runs()
    batches = streamed(engine, asked(), runs, "ticket")
    sent = [json.loads(next(batches))]
    runs.get("ticket").stop()
    sent += [json.loads(next(batches)) for _ in range(20)]  # the forward goes on, and the stream with it
    while not (runs.get("ticket").wait(0, 0) == 3 and sum(len(one.get("ev", ())) for one in sent) == 3):
        sent.append(json.loads(next(batches)))
    engine.released.set()
    sent += map(json.loads, batches)
    assert sent[-1]["end"] == {"finish": {"ar": "stopped"}, "events": 4}
    assert engine.closed.is_set() and engine.made == 4


def test_resync_returns_a_recent_run_and_nothing_for_others() -> None:
    runs = Runs(keep=1)
    first = messages(MadeEngine(), runs=runs)[0]["run"]
    whole = json.loads(stage.resync(runs, first))
    assert whole["full"] and [event["q"] for event in whole["ev"]] == [1, 2, 3, 4, 5]
    assert whole["lanes"]["ar"]["finish"] == "length" and whole["end"]["events"] == 5
    rest = json.loads(stage.resync(runs, "visitor", 3))  # by the name that it was asked for under
    assert [event["q"] for event in rest["ev"]] == [4, 5]
    assert rest["end"] == whole["end"] and rest.keys().isdisjoint(("full", "head"))
    assert json.loads(stage.resync(runs, first, 5))["ev"] == []
    for strange in (-1, 6, "3", None):  # from the beginning
        assert json.loads(stage.resync(runs, first, strange)).get("full")
    messages(MadeEngine(), runs=runs)
    assert stage.resync(runs, first) == ""
    assert stage.resync(runs, None) == stage.resync(runs, "") == stage.resync(runs, [1]) == ""


def test_a_run_that_goes_on_is_not_forgotten_however_many_there_are() -> None:
    engines, runs = [MadeEngine(5, hold=2) for _ in range(4)], Runs(keep=1)
    streams = [streamed(engine, asked(), runs, f"ticket {k}") for k, engine in enumerate(engines)]
    for one in streams:
        next(one)
    for k in range(3):
        messages(MadeEngine(), runs=runs)
        assert all(stage.resync(runs, f"ticket {k}") for k in range(4))
    for one, engine in zip(streams, engines, strict=True):
        engine.released.set()
        assert json.loads(list(one)[-1])["end"]["events"] == 5
    messages(MadeEngine(), runs=runs)
    assert len(runs._runs) <= 2  # those that ended may go


def test_a_resync_of_a_run_without_events_says_how_it_stands() -> None:
    engine, runs = MadeEngine(5, hold=0), Runs()
    batches = streamed(engine, asked(), runs, "ticket")
    assert next(batches)
    assert json.loads(stage.resync(runs, "ticket")).keys() == {"n"}  # nothing yet
    engine.released.set()
    list(batches)
    assert json.loads(stage.resync(runs, "ticket"))["full"]
    messages(MadeEngine(0), runs=runs)
    assert json.loads(stage.resync(runs, "visitor"))["error"] == wire.STOPPED


def test_a_run_whose_turn_has_come_says_so_until_its_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that waited in the line shows no longer how many come first."""
    monkeypatch.setattr("ui.live.stream.PATIENCE", 0.01)
    engine = MadeEngine(5, hold=0)
    batches = streamed(engine, asked())
    said = json.loads(next(batches))
    assert said["wait"] == "This run's turn has come: waiting for its first token…" and "ahead" not in said
    engine.released.set()
    assert json.loads(list(batches)[-1])["end"]["events"] == 5


def test_a_run_that_ends_early_without_being_stopped_ran_out_of_time() -> None:
    engine = MadeEngine(5)
    engine.stream = lambda request: (Event("ar", i, "decode", i, i, 1, [Position(i, i, "committed")]) for i in range(2))
    assert messages(engine)[-1]["end"]["finish"] == {"ar": "time"}


def test_errors_are_one_sentence() -> None:
    assert messages(MadeEngine(), "refuse")[0]["error"] == "This prompt is refused."
    [*_, last] = messages(MadeEngine(fail=RuntimeError("secret path")))
    assert last["error"] == UNEXPECTED
    assert last["end"]["events"] == 2
    assert wire.failure("x") != wire.failure("x")
    assert wire.explain(RuntimeError("secret")) == UNEXPECTED


def test_read_trace_refuses_what_is_too_large_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("{" * 100, encoding="utf-8")
    with pytest.raises(TraceError, match="larger than"):
        read_trace(path, limit=50)
    with pytest.raises(TraceError, match="no valid JSON"):
        read_trace(path)
    with pytest.raises(TraceError, match="could not be read"):
        read_trace(tmp_path / "none.json")


def test_recording_skips_what_cannot_be_read(tmp_path: Path) -> None:
    assert Shelf(tmp_path).first() is None
    assert Shelf(tmp_path / "missing").first() is None
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    engine = MadeEngine()
    recorder = engine.recorder(Request(prompt="hello", modes=("ar",)))
    for event in engine.stream(Request(prompt="hello", modes=("ar",))):
        recorder.add(event)
    (tmp_path / "b.json").write_text(recorder.finish("time").to_json(), encoding="utf-8")
    data = json.loads(Shelf(tmp_path).first() or "")
    assert data["kind"] == "recorded"
    assert data["trace"]["lanes"][0]["tokens"] == [0, 1, 2, 3, 4]
