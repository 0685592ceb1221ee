"""ui.server and all of it together: a real page, asked over HTTP by visitors who are honest, many, slow or hostile."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder
from starlette.responses import StreamingResponse

from nemodiff.engine.local import Engine
from tests.helpers.checkpoints import open_engine
from tests.helpers.official import random_ministral, write_nvidia
from tests.helpers.served import LEAKS, WAIT, Visitor, free_port, sentence, serving, stage, values
from ui.live.desk import Desk
from ui.server import guard, launch
from ui.server.guard import UNANSWERED
from ui.server.launch import name_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvidia(random_ministral(0), tmp_path_factory.mktemp("serve") / "tiny", tokenizer=True, block_size=8)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return open_engine(folder)


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[tuple[str, Desk]]:
    with serving(engine, max_new_tokens=600, max_prompt=2000, visitor_runs=2, visitor_rate=0, queue=3) as one:
        yield one


@pytest.fixture
def address(served: tuple[str, Desk]) -> str:
    return served[0]


@pytest.fixture
def desk(served: tuple[str, Desk]) -> Desk:
    return served[1]


@pytest.fixture
def held(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Runs make three events, then wait for this one."""
    released, plain = threading.Event(), engine.stream

    def slow(request: Any) -> Iterator[Any]:
        events = plain(request)
        try:
            for k, event in enumerate(events):
                yield event
                if k >= 2:
                    released.wait(0.05)  # so that Stop is noticed
                    while not released.is_set() and k == 2:
                        released.wait(0.05)
                        yield event
        finally:
            events.close()

    monkeypatch.setattr(engine, "stream", slow)
    yield released
    released.set()


def until(true: Any) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


def counted(address: str, sample: str) -> float:
    for line in httpx.get(f"{address}/metrics").text.splitlines():
        if line.startswith(f"{sample} "):
            return float(line.split()[-1])
    return 0.0


def test_health_says_what_runs_and_nothing_of_where(address: str, desk: Desk, monkeypatch: Any) -> None:
    answer = httpx.get(f"{address}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "checkpoint": "tiny"})
    monkeypatch.setattr(desk, "engine", lambda: None)
    answer = httpx.get(f"{address}/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "failed")
    monkeypatch.setattr(desk.line, "closed", True)
    assert httpx.get(f"{address}/health").json()["status"] == "stopping"
    assert name_of("/srv/models/mine") == "mine" and name_of("owner/name") == "owner/name"


def test_a_run_is_answered_and_counted(address: str) -> None:
    before = counted(address, 'nemodiff_tokens_total{mode="ar"}')
    messages = Visitor(address).generate(tokens=9)
    assert messages[-1]["end"] == {"finish": {"ar": "length"}, "events": 9}
    assert [event["q"] for message in messages for event in message.get("ev", [])] == list(range(1, 10))
    assert counted(address, 'nemodiff_tokens_total{mode="ar"}') == before + 9


def test_every_answer_has_the_headers_and_no_documentation_of_routes(address: str) -> None:
    for path in ("/", "/config", "/health", "/metrics", "/nowhere", "/gradio_api/info"):
        headers = httpx.get(address + path).headers
        for name, value in guard.HEADERS:
            assert headers[name.decode()] == value.decode()
    for path in ("/docs", "/redoc", "/openapi.json", "/monitoring", "/monitoring/summary", "/gradio_api/deep_link"):
        assert httpx.get(address + path).status_code == 404


def test_no_cookie_is_set_so_that_another_site_gains_nothing(address: str) -> None:
    for path in ("/", "/config"):
        answer = httpx.get(address + path, headers={"Origin": "https://elsewhere.example"})
        assert "set-cookie" not in answer.headers


def test_the_page_tells_strangers_nothing_of_the_machine(address: str, folder: Path) -> None:
    for path in ("/config", "/gradio_api/info"):
        text = httpx.get(address + path).text
        assert str(folder.parent) not in text and str(ROOT) not in text


MALFORMED: list[tuple[str, str, bytes]] = [
    ("POST", path, body)
    for path in ("queue/join", "run/generate", "call/generate", "cancel", "component_server", "reset", "upload")
    for body in (b"", b"{", b"[" * 5000, b"null", b"[]", b'{"data": 5}', b'{"data": [[]], "fn_index": 0}', b"\xff\xfe")
] + [
    ("POST", "queue/join", b'{"data": [], "fn_index": 99999, "session_hash": "x"}'),
    ("POST", "queue/join", b'{"data": [], "fn_index": "a", "session_hash": 5}'),
    ("POST", "queue/join", b'{"data": {"a": 1}, "fn_index": 0, "session_hash": "x"}'),
    ("POST", "component_server", b'{"data": "x", "component_id": -1, "fn_name": "__class__", "session_hash": "x"}'),
    ("GET", "queue/data", b""),
    ("GET", "queue/data?session_hash=nobody", b""),
    ("GET", "call/generate/none", b""),
    ("GET", "file=/etc/passwd", b""),
    ("GET", "file=../../etc/passwd", b""),
    ("GET", "file=https://example.invalid/", b""),
    ("GET", "file=app.py", b""),
    ("GET", "upload_progress?upload_id=x", b""),
    ("PUT", "queue/join", b"{}"),
]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_malformed_requests_end_without_a_trace_of_the_server(address: str, kind: str) -> None:
    with httpx.Client(base_url=f"{address}/gradio_api/", timeout=WAIT) as client:
        for method, path, body in MALFORMED:
            if "upload_progress" in path:
                continue  # a stream that waits for an upload
            answer = client.request(method, path, content=body, headers={"Content-Type": kind})
            said = answer.text.replace(path.removeprefix("file="), "")  # what was asked for may be said again
            assert not LEAKS.search(said), (method, path, body, said)
            assert answer.status_code in (200, 400, 403, 404, 405, 415, 422, 500), (path, answer.status_code)
            if answer.status_code == 500:
                assert answer.json()["error"] == UNANSWERED
    assert httpx.get(f"{address}/health").status_code == 200


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": {"a": ["w1"]}}, "prompt"),
    ({"prompt": "w1 " * 1000}, "takes prompts of up to 2,000 characters"),
    ({"modes": "ar"}, "modes must be a list of names"),
    ({"modes": []}, "mode"),
    ({"block": "8"}, "block must be a whole number"),
    ({"block": 10**400}, "block must be a whole number from 2 to"),
    ({"threshold": "high"}, "threshold"),
    ({"temperature": None}, "temperature is empty"),
    ({"temperature": [1]}, "temperature"),
    ({"seed": 1.5}, "seed must be a whole number"),
    ({"tokens": 601}, "makes up to 600 new tokens"),
    ({"tokens": -1}, "new tokens"),
    ({"sampler": ["confidence"]}, "sampler"),
    ({"sampler": "__import__"}, "sampler"),
    ({"draft": {"a": "linear"}}, "draft"),
    ({"acceptance": 5}, "acceptance"),
]


@pytest.mark.parametrize(("fields", "says"), WRONG)
def test_every_wrong_value_is_one_sentence(address: str, fields: dict[str, Any], says: str) -> None:
    said = sentence(Visitor(address).generate(**fields))
    assert says in said and said.endswith((".", "…")) and "\n" not in said
    assert not LEAKS.search(said)


def test_too_few_and_too_many_values_fail_without_a_word_of_the_server(address: str) -> None:
    for data in ([], [1] * 40):
        last = Visitor(address).ask("watch", data)[-1]
        assert last["msg"] == "process_completed"
        assert not LEAKS.search(json.dumps(last))


def test_a_file_of_the_server_is_not_opened_and_an_address_not_fetched(address: str) -> None:
    visitor, meta = Visitor(address), {"_type": "gradio.FileData"}
    for path in ("/etc/passwd", "http://127.0.0.1:1/x", str(ROOT / "app.py")):
        answer = visitor.join("open_trace", [{"path": path, "meta": meta}])
        assert (answer.status_code, answer.json()["error"]) == (
            400,
            "A file in the request was not uploaded to this server: upload it first.",
        )
        for value in ({"path": path}, path, [path]):  # no file value in Gradio's eyes
            messages = visitor.ask("open_trace", [value])
            assert not LEAKS.search(json.dumps(messages)), messages
            assert "root:" not in json.dumps(messages)


def test_an_uploaded_trace_is_opened_and_a_damaged_one_is_a_sentence(address: str) -> None:
    visitor = Visitor(address)
    [path] = visitor.client.post("/gradio_api/upload", files={"files": ("../../a.json", b'{"frames": ')}).json()
    assert ".." not in path
    folder = Path(get_upload_folder())
    before = {one for one in folder.iterdir() if one.is_file()}
    messages = stage(visitor.ask("open_trace", [{"path": path, "meta": {"_type": "gradio.FileData"}}]))
    assert sentence(messages).endswith(".")
    assert {one for one in folder.iterdir() if one.is_file()} <= before  # gr.UploadButton would leave an empty file


def test_who_waits_reads_how_many_come_first_and_goes_on(address: str, desk: Desk, held: threading.Event) -> None:
    first, second = Visitor(address, "one", "8.8.8.1"), Visitor(address, "two", "8.8.8.2")
    first.join("watch", values(tokens=8))
    until(lambda: desk.line.running == 1)
    second.join("watch", values(tokens=8))
    with second.listen() as messages:
        seen = []
        for message in messages:
            seen.append(message)
            if "1 run comes first" in json.dumps(message):
                held.set()
            if message["msg"] == "process_completed":
                break
    waiting, *_ = (message for message in stage(seen) if "wait" in message)
    assert waiting["ahead"] == 1 and waiting["wait"].startswith("Waiting for the model: 1 run comes first")
    assert stage(seen)[-1]["end"]["finish"] == {"ar": "length"}
    until(lambda: desk.line.running == 0)


def test_a_visitor_and_the_line_have_their_limits(address: str, desk: Desk, held: threading.Event) -> None:
    one, other = Visitor(address, "a", "8.8.8.1"), Visitor(address, "b", "8.8.8.1")
    for session in ("a1", "a2"):
        one.session = session
        one.join("watch", values())
    until(lambda: desk.line.running + desk.line.waiting == 2)
    assert "You have 2 runs going or waiting" in sentence(other.generate())
    for k in (2, 3):
        Visitor(address, f"c{k}", f"8.8.8.{k}").join("watch", values())
    until(lambda: desk.line.waiting == 3)
    assert "3 runs are waiting already" in sentence(Visitor(address, "d", "8.8.8.9").generate())
    held.set()
    until(lambda: desk.line.running + desk.line.waiting == 0)
    # None of these pages ever listened, and none held up the model.
    assert Visitor(address, "e", "8.8.8.9").generate()[-1]["end"]["finish"] == {"ar": "length"}


def test_a_closed_tab_frees_the_model(
    address: str, desk: Desk, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.live.run.GRACE", 1.0)
    before = counted(address, 'nemodiff_runs_total{finish="stopped"}')
    visitor = Visitor(address, "leaving")
    visitor.join("watch", values(tokens=600))
    with visitor.listen() as messages:
        for message in messages:
            if message["msg"] == "process_generating":
                break
    until(lambda: counted(address, 'nemodiff_runs_total{finish="stopped"}') == before + 1)
    assert desk.line.running == 0 and not held.is_set()


def test_a_tab_that_closes_while_it_waits_leaves_the_line(address: str, desk: Desk, held: threading.Event) -> None:
    first, second = Visitor(address, "stays", "8.8.8.1"), Visitor(address, "leaves", "8.8.8.2")
    first.join("watch", values())
    until(lambda: desk.line.running == 1)
    second.join("watch", values())
    with second.listen() as messages:
        for message in messages:
            if "comes first" in json.dumps(message):
                break
    until(lambda: desk.line.waiting == 0)
    held.set()
    until(lambda: desk.line.running == 0)


@pytest.mark.parametrize("state", ["waits", "runs"])
def test_a_tab_that_closes_while_a_message_is_being_sent_leaves_the_line(
    address: str, desk: Desk, held: threading.Event, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """The stream is cancelled there, and Gradio's own code for it lets go of nothing."""
    monkeypatch.setattr("ui.live.run.GRACE", 1.0)
    closing, sending, plain = threading.Event(), threading.Event(), StreamingResponse.stream_response

    async def held_up(self: StreamingResponse, send: Any) -> None:
        async def slow(message: Any) -> None:
            if closing.is_set() and message.get("body"):
                sending.set()
                await asyncio.sleep(WAIT)
            await send(message)

        await plain(self, slow)

    first, second = Visitor(address, "stays", "8.8.8.1"), Visitor(address, "leaves", "8.8.8.2")
    if state == "waits":
        first.join("watch", values())
        until(lambda: desk.line.running == 1)
    monkeypatch.setattr(StreamingResponse, "stream_response", held_up)
    second.join("watch", values(tokens=600))
    with second.listen() as messages:
        for message in messages:
            if ("comes first" if state == "waits" else "process_generating") in json.dumps(message):
                break
        closing.set()
        assert sending.wait(WAIT)
    until(lambda: desk.line.waiting == 0 and desk.line.running == (state == "waits"))
    held.set()
    until(lambda: desk.line.running == 0)


def test_the_time_limit_ends_a_run_and_keeps_what_was_made(engine: Engine) -> None:
    with serving(engine, time_limit=0.0001, max_new_tokens=600) as (address, _):
        messages = Visitor(address).generate(tokens=600)
    assert messages[-1]["end"]["finish"] == {"ar": "time"}
    assert messages[-1]["end"]["events"] < 600


def test_visitors_who_are_gone_leave_nothing_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SESSIONS", 4)

    def states() -> int:
        gc.collect()
        return sum(type(one) is SessionState for one in gc.get_objects())

    before = states()
    with serving(engine, visitor_rate=0) as (address, _):
        for k in range(12):
            assert Visitor(address, f"gone {k}").generate(tokens=1)[-1]["end"]
        assert states() and states() - before <= 5  # others' may go meanwhile


def test_metrics_can_be_closed(engine: Engine) -> None:
    with serving(engine, metrics=False) as (address, _):
        assert httpx.get(f"{address}/metrics").status_code == 404
        assert httpx.get(f"{address}/health").status_code == 200


def test_sigterm_lets_a_running_answer_end_and_takes_no_more(folder: Path, tmp_path: Path) -> None:
    """The app as a shell starts it in the background, SIGINT ignored, from its loading to its end."""
    port = free_port()
    settings = {"NEMODIFF_CHECKPOINT": str(folder), "NEMODIFF_DEVICE": "cpu", "NEMODIFF_DTYPE": "float32"}
    settings |= {"GRADIO_SERVER_PORT": str(port), "NEMODIFF_LOG": "json", "NEMODIFF_RECORDINGS": str(tmp_path)}
    settings |= {"NEMODIFF_MAX_NEW_TOKENS": "1500", "GRADIO_ANALYTICS_ENABLED": "False", "NEMODIFF_THREADS": "1"}
    log = (tmp_path / "log").open("wb")
    app = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$0" app.py', sys.executable],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        seen = set()

        def ready() -> bool:
            assert app.poll() is None
            try:
                answer = httpx.get(f"{address}/health", timeout=WAIT)
            except httpx.HTTPError:
                return False
            seen.add((answer.status_code, answer.json()["status"]))
            assert answer.headers["content-security-policy"] == guard.POLICY
            return answer.status_code == 200

        until(ready)
        assert (200, "ready") in seen
        assert seen <= {(503, "loading"), (200, "ready")}
        visitor = Visitor(address)
        visitor.join("watch", values(tokens=700, modes=["ar", "self-speculation"]))
        got: list[dict[str, Any]] = []
        refused: list[httpx.Response] = []
        with visitor.listen() as messages:
            for message in messages:
                if message["msg"] == "process_generating" and not refused:
                    app.send_signal(signal.SIGTERM)
                    until(lambda: httpx.get(f"{address}/health").json()["status"] == "stopping")
                    refused.append(visitor.join("watch", values()))
                got.append(message)
                if message["msg"] == "process_completed":
                    break
        assert [(one.status_code, "being restarted" in one.text) for one in refused] == [(503, True)]
        assert stage(got)[-1]["end"]["finish"] == {"ar": "length", "self-speculation": "length"}
        assert app.wait(WAIT) == 0
    finally:
        app.kill()
        log.close()
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line["finish"] for line in told if line["message"] == "run ended"] == ["length"]
    assert [line["reason"] for line in told if line["message"] == "ending"] == ["all runs ended"]
    assert "Traceback" not in "\n".join(lines)
