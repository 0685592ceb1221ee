"""ui.server.guard: bodies, file values, foreign sites and headers, in front of a bare application."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from ui.server import guard
from ui.server.guard import Guard, Refusal, Uploads

HERE = "http://127.0.0.1:7860"


def client(base: str = "http://page.example", **options: Any) -> TestClient:
    """A client of an application that answers a POST with the body it was given, anything else with "page"."""

    async def answer(request: Request) -> Response:
        body = await request.body()
        return Response(body, headers={"server": "old"}) if request.method == "POST" else PlainTextResponse("page")

    methods = ["GET", "POST", "OPTIONS"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    return TestClient(Guard(app, **options), base)


def file(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def test_a_body_that_holds_no_file_goes_through_as_it_came() -> None:
    body = b'{"data": ["\xc3\xa9", 1e400, {}]}  '
    assert client().post("/gradio_api/queue/join", content=body).content == body
    assert client().post("/x", content=b"no JSON FileData {").content == b"no JSON FileData {"


def test_a_body_is_refused_by_what_it_says_and_by_what_it_is() -> None:
    small = client(limit=2**20)
    sentence = {"error": "The request is larger than 1 MB: send less."}
    for body in (b"x" * (2**20 + 1), iter([b"x" * 2**19] * 3)):  # the second one has no Content-Length
        answer = small.post("/x", content=body)
        assert (answer.status_code, answer.json()) == (413, sentence)
    assert small.post("/x", content=b"x" * 2**20).status_code == 200
    assert small.post("/x", content=b"", headers={"content-length": "-5"}).status_code == 413


def test_an_upload_is_counted_while_it_comes() -> None:
    small = client(limit=2**20)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert small.post("/gradio_api/upload", content=iter([b"x" * 2**19] * 3), headers=headers).status_code == 413
    assert small.post("/gradio_api/upload", content=iter([b"x" * 2**19] * 2), headers=headers).status_code == 200


def test_uploads_have_room_again_when_old_ones_are_gone() -> None:
    now = [0.0]
    uploads = Uploads(4 * guard.LEAST, clock=lambda: now[0])
    uploads.admit(0)
    uploads.count(2 * guard.LEAST)
    uploads.admit(0)
    with pytest.raises(Refusal, match="holds too many files"):
        uploads.admit(0)
    now[0] = guard.KEPT + 1
    uploads.admit(3 * guard.LEAST)
    with pytest.raises(Refusal):
        uploads.admit(4 * guard.LEAST)


def test_many_uploads_are_refused_with_a_sentence() -> None:
    page = client(uploads=guard.LEAST)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert page.post("/gradio_api/upload", content=b"x", headers=headers).status_code == 200
    answer = page.post("/gradio_api/upload", content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["error"][:41]) == (503, "The server holds too many files just now:")


def test_addresses_are_taken_out_of_file_values_wherever_they_are() -> None:
    uploaded = f"{get_upload_folder()}/abc/trace.json"
    sent = {"data": [file(uploaded, url="http://169.254.169.254/"), {"deep": [file(uploaded, url="file:///etc")]}]}
    answer = client().post("/x", json=sent).json()
    assert answer == {"data": [file(uploaded), {"deep": [file(uploaded)]}]}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "http://169.254.169.254/latest",
        "trace.json",
        f"{get_upload_folder()}/../../etc/passwd",
        f"{get_upload_folder()}x/trace.json",
        f"{get_upload_folder()}/a\0b",
        None,
        ["x"],
        {"a": 1},
    ],
)
def test_a_file_that_was_not_uploaded_is_refused(path: Any) -> None:
    plain = json.dumps({"data": [file(path)]})
    hidden = plain.replace("gradio.FileData", "gradio.F\\u0069leData")
    for body in (plain, hidden):
        answer = client().post("/x", content=body)
        assert answer.status_code == 400
        assert answer.json() == {"error": "A file in the request was not uploaded to this server: upload it first."}


def test_a_deep_body_with_a_file_is_refused() -> None:
    deep = '{"a":' * 300 + json.dumps(file("/etc/passwd")) + "}" * 300
    assert client().post("/x", content=deep).json() == {"error": "The request is nested too deeply."}
    assert client().post("/x", content="[" * 100_000 + '"FileData"').status_code == 200  # no JSON: Gradio refuses it


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://x/",
        "/gradio_api/process_recording",
        "/gradio_api/vibe-edit/",
        "/gradio_api/dev/reload",
        "/gradio_api/runs/",
        "/gradio_api/run-history/buckets",
        "/gradio_api/deep_link",
        "/monitoring/summary",
        "/login",
    ],
)
def test_routes_that_the_page_does_not_use_are_not_there(path: str) -> None:
    for answer in (client().get(path), client().post(path)):
        assert (answer.status_code, answer.json()) == (404, {"error": "There is nothing here."})


def test_routes_that_the_page_uses_are_there() -> None:
    for path in ("/", "/config", "/gradio_api/run/generate", "/gradio_api/queue/data", "/gradio_api/upload"):
        assert client().get(path).text == "page"
    assert client().post("/gradio_api/component_server", content=b"x").text == "x"


def test_no_new_run_while_the_server_goes_down() -> None:
    closed = client(closed=lambda: True)
    answer = closed.post("/gradio_api/queue/join", json={})
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        "The server is being restarted: try again in a minute.",
    )
    assert closed.get("/gradio_api/queue/data").status_code == 200  # runs that go on are listened to
    assert closed.post("/gradio_api/cancel", json={}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": HERE}, 200),
        ({"origin": "http://localhost:7860"}, 200),
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"host": "elsewhere.example"}, 403),  # a name that was made to point here
        ({"host": "elsewhere.example", "origin": "http://elsewhere.example"}, 403),
    ],
)
def test_a_private_page_answers_its_own_machine_alone(headers: dict[str, str], status: int) -> None:
    private = client(HERE, private=True)
    assert private.post("/x", content=b"x", headers=headers).status_code == status
    assert private.get("/x", headers=headers).status_code == status
    assert private.get("/health", headers=headers).status_code == 200
    assert client(HERE).post("/x", content=b"x", headers=headers).status_code == 200


def test_every_answer_has_the_headers_once() -> None:
    page = client(limit=1)
    for answer in (page.get("/"), page.post("/x", content=b"xx"), page.get("/login")):
        for name, value in guard.HEADERS:
            assert answer.headers.get_list(name.decode()) == [value.decode()]
        assert "server" not in answer.headers
    assert "frame-ancestors 'self' https://huggingface.co" in page.get("/").headers["content-security-policy"]
    assert "http:" not in guard.POLICY


def test_an_answer_that_breaks_off_ends_and_says_nothing() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/at-once":
            raise RuntimeError("secret")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("secret")

    assert TestClient(Guard(broken)).get("/").text == "half"
    answer = TestClient(Guard(broken)).get("/at-once")
    assert (answer.status_code, answer.json()) == (500, {"error": guard.UNANSWERED})


@pytest.mark.parametrize(
    ("method", "path", "error", "status"),
    [
        ("POST", "/gradio_api/queue/join", TypeError("secret"), 400),
        ("DELETE", "/gradio_api/reset", KeyError("secret"), 400),
        ("POST", "/gradio_api/call/none", KeyError("secret"), 404),
        ("POST", "/gradio_api/run/predict", FnIndexInferError("secret"), 404),
        ("POST", "/gradio_api/queue/join", OSError("secret"), 500),
        ("GET", "/gradio_api/info", TypeError("secret"), 500),
        ("POST", "/metrics", TypeError("secret"), 500),
    ],
)
def test_what_gradio_cannot_read_is_the_senders_fault(method: str, path: str, error: Exception, status: int) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise error

    answer = TestClient(Guard(broken)).request(method, path)
    assert answer.status_code == status and "secret" not in answer.text and answer.json()["error"].endswith(".")
