"""ui.api: the examples of docs/programs.md, run as they stand against a real server; its errors and its streaming."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from nemodiff.engine.interface import EngineInterface
from nemodiff.request import Request
from nemodiff.trace.events import MODES, Event, Trace
from tests.helpers.checkpoints import open_engine
from tests.helpers.replicas import one_replica
from ui import api
from ui.backends.remote import connect
from ui.live.desk import Desk
from ui.page import build
from ui.server import launch
from ui.settings import Settings

PROGRAMS = (Path(__file__).parents[2] / "docs" / "programs.md").read_text(encoding="utf-8")
SECTION = PROGRAMS.partition("\n## For programs\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", SECTION, re.DOTALL)
DAYS = "List the days of the week as a JSON array."


@pytest.fixture(scope="module", params=["the default checkpoint here", "a tiny one on a replica"])
def engine(request) -> Iterator[EngineInterface]:
    with contextlib.ExitStack() as replica:
        if request.param == "the default checkpoint here":
            yield request.getfixturevalue("real_engine")
        else:
            tiny = open_engine(request.getfixturevalue("chat_folder"))
            yield connect(replica.enter_context(one_replica(tiny)))


@pytest.fixture(scope="module")
def page(engine) -> Iterator[tuple[str, Desk]]:
    """The address of a page and its line."""
    settings = Settings(max_new_tokens=400, visitor_runs=2)
    desk = Desk(settings)
    demo = build.build(engine, settings, desk=desk)
    launch.launch(demo, desk, settings, server_port=None, prevent_thread_lock=True, quiet=True)
    yield demo.local_url.rstrip("/"), desk
    demo.close()


@pytest.fixture(scope="module")
def client(page) -> Client:
    return Client(page[0], verbose=False)


@pytest.fixture(scope="module")
def days(engine) -> str:
    return engine.generate(Request(prompt=DAYS, modes=("self-speculation",), max_new_tokens=128)).lanes[0].text


def run_example(kind: str, code: str, address: str) -> str:
    code = code.replace("http://127.0.0.1:7860", address)
    command = [sys.executable, "-c", code] if kind == "python" else ["sh", "-ec", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_readmes_gradio_client_examples(page, days) -> None:
    (first, one), (second, two) = EXAMPLES[:2]
    assert (first, second) == ("python", "python")
    lines = run_example("python", one + two, page[0]).splitlines()
    assert lines[0] == days
    assert re.fullmatch(r"\d+ forwards, [\d.]+ tokens per forward, \d+ events", lines[1])
    assert lines[-1].startswith("done ") and {line.split()[0] for line in lines[2:-1]} == {"running"}


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl here")
def test_the_readmes_curl_example(page, days) -> None:
    kind, code = EXAMPLES[2]
    assert kind == "sh"
    events = run_example(kind, code, page[0]).strip().split("\n\n")
    assert [event.partition("\n")[0] for event in events][-1] == "event: complete"
    [answer] = json.loads(events[-1].partition("data: ")[2])
    assert answer["state"] == "done" and answer["text"] == days and answer["trace"] is None


def test_the_readmes_mcp_example(page, days) -> None:
    pytest.importorskip("mcp", reason="it comes with gradio[mcp]")
    kind, code = EXAMPLES[3]
    assert run_example(kind, code, page[0]).strip() == days
    assert len(EXAMPLES) == 4


def test_mcp_offers_one_tool_and_errors_are_sentences(page) -> None:
    pytest.importorskip("mcp", reason="it comes with gradio[mcp]")
    code = EXAMPLES[3][1].partition("        answer = ")[0]
    code += "        print([tool.name for tool in (await session.list_tools()).tools])\n"
    code += '        answer = await session.call_tool("generate", {"prompt": "Hi", "max_new_tokens": 401})\n'
    code += "        print(answer.isError, answer.content[0].text)\n\n\nasyncio.run(main())\n"
    assert run_example("python", code, page[0]).splitlines() == [
        "['generate']",
        "True This page makes up to 400 new tokens per run: ask for no more than that.",
    ]


def test_the_answer_is_typed_and_its_trace_can_be_opened(client) -> None:
    answer = client.predict(DAYS, mode="all", max_new_tokens=12, ignore_eos=True, trace=True, api_name="/generate")
    trace = Trace.from_json(json.dumps(answer["trace"]))
    assert [lane.mode for lane in trace.lanes] == list(MODES)
    assert answer["figures"] == trace.figures()
    assert answer["text"] == trace.lane("ar").text
    info = client.view_api(return_format="dict")["named_endpoints"]
    assert set(info) == {"/generate"}
    assert [one["parameter_name"] for one in info["/generate"]["parameters"]] == list(api.NAMES)


def test_answers_so_far_grow_into_the_last_one(client, engine, monkeypatch) -> None:
    """However fast the model is: after every twelve tokens it waits until an answer has been given."""
    given, stream, answer = threading.Semaphore(0), engine.stream, api._answer

    def held(request: Request) -> Iterator[Event | None]:
        for i, event in enumerate(stream(request), 1):
            yield event
            if i % 12 == 0:
                given.acquire(timeout=10)

    def told(*args: Any, **more: Any) -> dict[str, Any]:
        given.release()
        return answer(*args, **more)

    monkeypatch.setattr(engine, "stream", held)
    monkeypatch.setattr(api, "_answer", told)
    *before, last = client.submit(prompt="Count from 1 to 30.", mode="ar", max_new_tokens=60, api_name="/generate")
    assert last["state"] == "done"
    texts = [answer["text"] for answer in before]
    assert len(set(texts)) > 2
    assert all(last["text"].startswith(text) for text in texts)
    assert all(answer["figures"] is None for answer in before)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": ["a"]}, "The prompt is empty"),
        ({"prompt": "a", "mode": "fast"}, "Unknown mode 'fast'"),
        ({"prompt": "a", "mode": ["ar"]}, "Unknown mode"),
        ({"prompt": "a", "max_new_tokens": 401}, "This page makes up to 400 new tokens"),
        ({"prompt": "a" * 12_001}, "This page takes prompts of up to 12,000 characters"),
        ({"prompt": "a", "seed": "x"}, "seed must be a whole number"),
        ({"prompt": "a", "temperature": {}}, "temperature must be a number"),
        ({"prompt": "a", "block_length": 1}, "block_length must be a whole number from 2"),
    ],
)
def test_errors_are_one_sentence(client, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AppError, match=f"^{sentence}") as caught:
        client.predict(**given, api_name="/generate")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("v2/generate", b'{"promt": "a"}', 422, "There is no argument 'promt'"),
        ("v2/generate", b"{}", 422, "The argument prompt is missing."),
        ("v2/generate", b"[1]", 422, "The body must be a JSON object."),
        ("v2/generate", b"{", 422, "The body is no valid JSON."),
        ("generate", b'{"data": ["a"]}', 422, "The body must be"),
        ("generate/", b'{"data": {}}', 422, "The body must be"),
        ("nothing", b'{"data": []}', 404, "There is no endpoint of that name"),
        ("v2/nothing", b"{}", 404, "There is no endpoint of that name"),
        ("v2/watch", b"{}", 404, "There is no endpoint of that name"),
    ],
)
def test_calls_that_cannot_be_read(page, path: str, body: bytes, status: int, sentence: str) -> None:
    answer = httpx.post(f"{page[0]}/gradio_api/call/{path}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"].startswith(sentence)


def test_a_program_waits_in_the_pages_line_and_is_told_so(page, client) -> None:
    ticket = page[1].line.enter("somebody else")
    try:
        job = client.submit(prompt=DAYS, max_new_tokens=4, api_name="/generate")
        answers = iter(job)
        first = next(answers)
        assert first == {"state": "waiting", "text": "", "figures": None, "trace": None, "ahead": 1} | {
            "message": "Waiting for the model: 1 run comes first."
        } or first["message"].startswith("Waiting for the model: 1 run comes first, about")
        assert page[1].line.waiting == 1
    finally:
        ticket.leave()
    assert list(answers)[-1]["state"] == "done"


def test_a_closed_connection_frees_the_model(page, client) -> None:
    free = threading.Event()
    desk = page[1]
    ended, finishes = desk.ended, []

    def note(run, asked) -> None:
        finishes.extend(lane.finish for lane in run.recorder.trace.lanes)
        ended(run, asked)
        free.set()

    desk.ended = note
    try:
        body = {"prompt": DAYS, "mode": "ar", "max_new_tokens": 400, "ignore_eos": True}
        number = httpx.post(f"{page[0]}/gradio_api/call/v2/generate", json=body).json()["event_id"]
        with httpx.stream("GET", f"{page[0]}/gradio_api/call/generate/{number}", timeout=60) as events:
            next(line for line in events.iter_lines() if "running" in line)
        assert free.wait(60)
    finally:
        desk.ended = ended
    assert finishes == ["stopped"]
    assert desk.line.running == 0
