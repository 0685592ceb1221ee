"""The desk, its visitors, logs and the slow page: who waits, who is counted, what a log holds, when memory ends."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nemodiff.engine.local import Engine
from nemodiff.request import Request
from tests.helpers.engines import MadeEngine, messages, streamed
from ui import wire
from ui.live import backlog, stage
from ui.live import stream as live_stream
from ui.live import tickets as asking
from ui.live.desk import Desk
from ui.live.messages import Finished, Refused, Waiting
from ui.live.run import Runs
from ui.live.visitor import visitor_of
from ui.server import logs
from ui.settings import Settings

WAIT = 20


def visitor(session: str = "s", host: str | None = "203.0.113.7", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(session_hash=session, client=SimpleNamespace(host=host), headers=named)


def take(desk: Desk, who: Any, work: Any, *names: str, replaces: str = "") -> Iterator[Any]:
    for message in desk.take(who, lambda ticket: (one for one in work(ticket)), names, replaces):
        match message:
            case Waiting(sentence, ahead):
                yield "waits", sentence, ahead
            case Refused(sentence):
                yield "refused", sentence
            case Finished():
                yield "halted"
            case _:
                yield message


@pytest.mark.parametrize(
    ("host", "proxies", "forwarded", "name"),
    [
        ("203.0.113.7", 0, None, "203.0.113.7"),
        ("203.0.113.7", 0, "198.51.100.1", "203.0.113.7"),  # nobody's word is taken
        ("10.0.0.1", 1, "1.2.3.4, 8.8.8.8", "8.8.8.8"),  # what comes before was sent by the visitor
        ("10.0.0.1", 2, "9.9.9.9, 8.8.8.8, 10.1.1.1", "8.8.8.8"),
        ("10.0.0.1", 3, "8.8.8.8", "session"),
        ("10.0.0.1", 1, "10.9.8.7", "session"),  # a proxy behind the one that was told of: it stands for all
        ("127.0.0.1", 0, None, "session"),
        ("172.17.0.1", 0, None, "session"),
        ("2001:4860:4860:1:2:3:4:5", 0, None, "2001:4860:4860:1::/64"),
        ("testclient", 0, None, "session"),
        (None, 1, "not an address", "session"),
    ],
)
def test_a_visitor_is_an_address_or_a_session(host: str, proxies: int, forwarded: str | None, name: str) -> None:
    if host == "203.0.113.7":  # a network for examples is not global
        host, name = "9.9.9.9", name.replace("203.0.113.7", "9.9.9.9")
    headers = {"x_forwarded_for": forwarded} if forwarded else {}
    assert visitor_of(visitor("session", host, **headers), proxies) == name


def test_a_visitor_without_anything_is_nobody() -> None:
    assert visitor_of(SimpleNamespace(), 1) == "nobody"
    assert len(visitor_of(visitor("x" * 999, None), 0)) == 64


def test_who_waits_is_told_and_comes_when_the_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.live.desk.PATIENCE", 0.01)
    desk = Desk(Settings())
    first = take(desk, visitor("a"), lambda _: iter(["one", "two"]))
    assert next(first) == "one"
    second = take(desk, visitor("b"), lambda _: iter(["three"]))
    assert next(second) == ("waits", "Waiting for the model: 1 run comes first.", 1)
    assert list(first) == ["two"]
    assert list(second) == ["three"]
    assert (desk.line.running, desk.line.waiting) == (0, 0)


def test_a_closed_page_leaves_the_line_wherever_it_stands() -> None:
    desk = Desk(Settings())
    first, second = (take(desk, visitor(name), lambda _: iter([1, 2])) for name in "ab")
    next(first)
    next(second)
    assert (desk.line.running, desk.line.waiting) == (1, 1)
    second.close()
    assert (desk.line.running, desk.line.waiting) == (1, 0)
    first.close()
    assert (desk.line.running, desk.line.waiting) == (0, 0)


def test_stop_takes_who_waits_out_of_the_line_and_says_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.live.desk.PATIENCE", 0.01)
    desk = Desk(Settings())
    first, second = (take(desk, visitor(name), lambda _: iter([1, 2]), name) for name in "ab")
    next(first)
    next(second)
    assert desk.halt("b")
    assert list(second) == ["halted"]
    assert (desk.line.running, desk.line.waiting) == (1, 0)
    assert list(first) == [2]
    assert not desk.halt("b")


def test_stop_stops_what_it_names_and_nothing_that_is_asked_for_later() -> None:
    desk = Desk(Settings())
    first = take(desk, visitor(), lambda _: iter([1, 2]), "first", "page")
    sweep = take(desk, visitor(), lambda _: iter([3]), "sweep")
    assert next(first) == 1
    assert next(sweep)[0] == "waits"
    assert desk.halt("page")
    assert list(first) == []  # cut off, and its place is free
    later = take(desk, visitor(), lambda _: iter([4]), "later", "page")
    assert list(sweep) == [3] and list(later) == [4]  # neither the same page's sweep nor its next run


def test_a_stop_that_overtakes_what_it_stops_is_remembered_and_so_are_only_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ui.live.desk.EARLY", 3)
    desk = Desk(Settings())
    for k in range(9):
        desk.halt(f"ticket {k}", early=True)
    assert list(take(desk, visitor(), lambda _: iter([1]), "ticket 8", "page")) == ["halted"]
    assert list(take(desk, visitor(), lambda _: iter([1]), "ticket 0", "page")) == [1]
    assert list(desk._early) == ["ticket 6", "ticket 7"]
    assert not desk._tickets


def test_a_page_that_asks_anew_waits_once() -> None:
    desk = Desk(Settings())
    other = take(desk, visitor("other"), lambda _: iter([1]))
    next(other)
    waiting = [take(desk, visitor(), lambda _, k=k: iter([k]), f"ticket {k}", "page", replaces="page") for k in "abc"]
    for one in waiting:
        assert next(one)[0] == "waits"
    assert desk.line.waiting == 1
    assert list(other) == []
    assert [list(one) for one in waiting] == [["halted"], ["halted"], ["c"]]


def test_a_turn_that_was_handed_over_lasts_until_its_thread_has_ended() -> None:
    """Whether or not the page still listens: two runs at once would be two on one model."""
    desk, stopped, tickets = Desk(Settings()), [], []

    def work(ticket: Any) -> Iterator[str]:
        tickets.append(ticket)
        ticket.hand_over(lambda: stopped.append(True))
        yield "first"
        yield "last"

    run = take(desk, visitor(), work, "ticket", "page")
    next(run)
    second = take(desk, visitor("b"), lambda _: iter([1]))
    next(second)
    desk.halt("ticket")
    assert stopped == [True] and list(run) == ["last"]  # the run itself says how it ended
    assert (desk.line.running, desk.line.waiting) == (1, 1)
    tickets[0].leave()
    assert list(second) == [1]
    desk.halt("early", early=True)
    assert list(take(desk, visitor(), work, "early")) == ["halted"] and len(tickets) == 1


def test_a_stopped_run_does_not_count_for_its_visitors_limit() -> None:
    desk = Desk(Settings(visitor_runs=1))

    def work(ticket: Any) -> Iterator[int]:
        ticket.hand_over(lambda: None)
        yield from (1, 2)

    run = take(desk, visitor(), work, "first")
    next(run)
    [refused] = take(desk, visitor(), lambda _: iter([1]))
    assert refused[0] == "refused"
    desk.halt("first")  # it has its forward to end
    assert next(take(desk, visitor(), lambda _: iter([1])))[0] == "waits"


def test_what_a_page_missed_is_its_run_its_place_in_the_line_or_that_it_is_not_here() -> None:
    desk = Desk(Settings())
    assert json.loads(desk.resync("unknown", 0)) == {"gone": desk.server}
    first = take(desk, visitor("a"), lambda _: iter([1, 2]), asking.own("the-first-ticket"))
    next(first)
    told = json.loads(desk.resync("the-first-ticket", 0))  # as while its run is being begun
    assert told["wait"] == wire.TURN and "ahead" not in told
    second = take(desk, visitor("b"), lambda _: iter([1]), asking.own("a-ticket-of-the-page"))
    next(second)
    told = json.loads(desk.resync("a-ticket-of-the-page", 0))
    assert (told["ahead"], told["ticket"]) == (1, "a-ticket-of-the-page") and "1 run comes first" in told["wait"]
    messages(MadeEngine(), runs=desk.runs)
    assert json.loads(desk.resync("visitor", 4))["end"]["events"] == 5
    assert Desk(Settings()).server != desk.server


TICKET = "0123456789abcdef"
REQUEST = Request(prompt="x", prompt_ids=(5, 6), modes=("ar",), max_new_tokens=4, ignore_eos=True)


@pytest.fixture
def held(llama_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Iterator[Any]]]:
    """A desk whose model is in use, and what uses it; somebody else's page waited and is gone."""
    monkeypatch.setattr("ui.live.desk.PATIENCE", 0.01)
    desk = Desk(Settings())
    first = take(desk, visitor("a"), lambda _: iter([1, 2]))
    assert next(first) == 1
    second = desk.run(REQUEST, visitor("b"), lambda: llama_engine, ticket=TICKET)
    assert isinstance(next(second), Waiting)
    second.close()
    yield desk, first


def until(said: Callable[[], bool]) -> None:
    for _ in range(100 * WAIT):
        if said():
            return
        threading.Event().wait(0.01)
    pytest.fail("It did not come to that.")


def test_a_page_that_is_gone_while_it_waits_keeps_its_place_and_its_run_begins_when_it_asked(held: Any) -> None:
    desk, first = held
    third = take(desk, visitor("c"), lambda _: iter([3]))
    assert next(third)[2] == 2  # behind who is gone
    assert json.loads(desk.resync(TICKET, 0))["ahead"] == 1
    assert list(first) == [2]
    until(lambda: desk.runs.get(TICKET) is not None)
    assert desk.runs.get(TICKET).join(WAIT)
    assert json.loads(desk.resync(TICKET, 0))["end"]["finish"] == {"ar": "length"}
    assert list(third) == [3]
    until(lambda: not desk._tickets)


def test_a_page_that_is_gone_and_does_not_ask_gives_way_to_who_waits(
    held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.live.run.HURRY", -1.0)
    desk, first = held
    third = take(desk, visitor("c"), lambda _: iter([3]))
    assert next(third)[2] == 2
    assert list(first) == [2]
    assert list(third)[-1] == 3
    assert desk.runs.get(TICKET) is None
    assert json.loads(desk.resync(TICKET, 0)) == {"gone": desk.server}


def test_a_page_whose_turn_comes_before_it_could_ask_has_its_run(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait, and the server saw that the connection broke before the page did."""
    monkeypatch.setattr("ui.live.run.HURRY", math.inf)
    desk, first = held
    third = take(desk, visitor("c"), lambda _: iter([3]))
    assert next(third)[2] == 2
    assert list(first) == [2]
    assert list(third)[-1] == 3  # after the run of who is gone
    assert desk.runs.get(TICKET).join(WAIT)
    assert json.loads(desk.resync(TICKET, 0))["end"]["finish"] == {"ar": "length"}


def test_a_page_that_is_gone_for_longer_leaves_the_line(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, _ = held
    assert desk.line.waiting == 1
    monkeypatch.setattr("ui.live.run.GRACE", 0.0)
    until(lambda: desk.line.waiting == 0 and not desk._tickets)
    assert desk.line.running == 1


def test_stop_ends_the_wait_of_a_page_that_was_gone(held: Any) -> None:
    desk, first = held
    assert desk.halt(asking.own(TICKET))
    assert desk.line.waiting == 0
    assert json.loads(desk.resync(TICKET, 0)) == {"gone": desk.server}
    assert list(first) == [2]
    until(lambda: not desk._tickets)
    assert desk.runs.get(TICKET) is None and desk.line.running == 0


def test_a_ticket_is_the_first_line_of_what_was_sent_and_only_if_it_can_be_one() -> None:
    name = "0123456789abcdef0123456789abcdef"
    assert asking.ticket_of(f"{name}\n/a/path") == (name, "/a/path")
    assert asking.ticket_of(f"{name}\n") == (name, "")
    for value in ("/a/path", "", "short\n/a/path", "sweep of somebody\nx", None, 5, f"{name}{name}x\nx"):
        assert asking.ticket_of(value) == ("", value)
    assert asking.names_of(json.dumps([name, "x y", 7, name])) == [name, name]
    for value in ("", "{", "5", None, "[" * 5000):
        assert asking.names_of(value) == []
    assert asking.names("", "session") == ()


def test_a_refusal_and_a_closing_are_sentences() -> None:
    desk = Desk(Settings(visitor_runs=1))
    first = take(desk, visitor(), lambda _: iter([1, 2]))
    next(first)
    [refused] = take(desk, visitor(), lambda _: iter([1]))
    assert refused == ("refused", "You have a run going or waiting: let one end, or stop it, first.")
    second = take(desk, visitor("b", "9.9.9.9"), lambda _: iter([1]))
    next(second)
    desk.line.close()
    assert list(second) == [("refused", "The server is being restarted: try again in a minute.")]
    assert list(first) == [2]


def test_a_run_is_counted_and_logged_without_what_was_asked(
    llama_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    desk, runs = Desk(Settings()), Runs()
    request = Request(prompt="my secret", prompt_ids=(5, 6), modes=("ar",), max_new_tokens=4, ignore_eos=True)
    with caplog.at_level(logging.INFO, "ui.live.desk"):
        list(streamed(llama_engine, request, runs, ended=lambda run: desk.ended(run, run.began)))
    [record] = caplog.records
    line = json.loads(logs.JsonLines().format(record))
    assert line["message"] == "run ended" and line["finish"] == "length"
    assert (line["modes"], line["tokens"], line["forwards"]) == (["ar"], 4, 3)
    assert "secret" not in json.dumps(line) + logs.Text("%(message)s").format(record)
    text = desk.metrics.text().decode()
    for sample in (
        'nemodiff_runs_total{finish="length"} 1.0',
        'nemodiff_tokens_total{mode="ar"} 4.0',
        'nemodiff_forwards_total{mode="ar"} 3.0',
        "nemodiff_run_seconds_count 1.0",
        "nemodiff_first_event_seconds_count 1.0",
        "nemodiff_running 0.0",
        'nemodiff_refused_total{reason="full"} 0.0',
    ):
        assert sample in text.splitlines()
    assert "secret" not in text


def test_an_error_is_logged_without_its_text() -> None:
    try:
        raise ValueError("my secret at /home/someone")
    except ValueError as error:
        given = (type(error), error, error.__traceback__)
    record = logging.LogRecord("ui.live.run", logging.ERROR, __file__, 1, "a run failed", None, given)
    line = json.loads(logs.JsonLines().format(record))
    assert (line["level"], line["error"]) == ("error", "ValueError")
    assert line["at"][-1].startswith("tests/unit/test_ui_turns.py:")
    assert "secret" not in json.dumps(line)
    foreign = logging.LogRecord("uvicorn", logging.ERROR, __file__, 1, "asked for %s", ("my secret",), None)
    assert "secret" not in logs.JsonLines().format(foreign)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_running_out_of_memory_ends_one_run_and_the_next_one_works(
    llama_engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    desk, runs = Desk(Settings()), Runs()
    request = Request(prompt_ids=(5, 6), max_new_tokens=8, ignore_eos=True)

    def ask() -> list[dict]:
        def work(ticket: Any) -> Iterator[str]:
            def ended(run: Any) -> None:
                ticket.leave()
                desk.ended(run, run.began)

            return streamed(llama_engine, request, runs, ended=ended)

        return [json.loads(text) for text in take(desk, visitor(), work)]

    whole = ask()
    model, left = type(llama_engine.model), 6
    forward = model.forward

    def failing(*values: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return forward(*values, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", failing)
        last = ask()[-1]
    sentence = "There is not enough memory to decode 2 + 8 tokens; choose something smaller or free some."
    assert last["error"] == sentence
    assert last["end"]["finish"] == dict.fromkeys(("ar", "diffusion", "self-speculation"), "stopped")
    again = ask()
    assert {mode: lane["tokens"] for mode, lane in again[-2]["lanes"].items()} == {
        mode: lane["tokens"] for mode, lane in whole[-2]["lanes"].items()
    }
    assert 'nemodiff_runs_total{finish="error"} 1.0' in desk.metrics.text().decode()


def test_a_page_that_takes_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model goes to its end; the page is sent the events once it has caught up."""
    monkeypatch.setattr(live_stream, "PATIENCE", 0.001)
    engine, runs, held = MadeEngine(50, hold=20), Runs(), [live_stream.BEHIND]
    free = threading.Event()
    batches = streamed(
        engine,
        Request(prompt="hello", modes=("ar",)),
        runs,
        "visitor",
        ended=lambda run: free.set(),
        behind=lambda: held[0],
    )
    sent = []
    for text in batches:
        sent.append(json.loads(text))
        if len(sent) == 1:
            engine.released.set()
            assert free.wait(WAIT)  # the model is free, though the page has got no event
            assert "ev" not in sent[0]
            held[0] = 0
    assert [event["q"] for message in sent for event in message.get("ev", [])] == list(range(1, 51))
    assert sent[-1]["end"]["events"] == 50


def test_a_page_that_never_takes_anything_gets_the_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stream, "PATIENCE", 0.001)
    monkeypatch.setattr(live_stream, "LINGER", 0.005)
    runs = Runs()
    request = Request(prompt="hello", modes=("ar",))
    sent = [json.loads(text) for text in streamed(MadeEngine(50), request, runs, "v", behind=lambda: 10**6)]
    assert not [message for message in sent if message.get("ev")]
    assert sent[-1]["end"]["events"] == 50  # so that it sees what it missed, and asks for it
    assert len(json.loads(stage.resync(runs, sent[-1]["run"]))["ev"]) == 50


def test_how_far_a_page_is_behind_is_what_gradio_holds_for_it() -> None:
    queue = SimpleNamespace(pending_messages_per_session={"s": SimpleNamespace(qsize=lambda: 3)})
    page = SimpleNamespace(_queue=queue)
    assert backlog.behind(page, "s")() == 3
    assert backlog.behind(page, "other")() == backlog.behind(page, None)() == backlog.behind(None, "s")() == 0
