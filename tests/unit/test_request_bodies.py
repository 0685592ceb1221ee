"""ui.server.guard: a body's encoding, form and size do not change what is checked; uploads; sub-paths; streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gradio.utils import get_upload_folder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from ui import api
from ui.server import guard
from ui.server.guard import Guard, Refusal, Upload, Uploads

FOREIGN = {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}
HERE = {"data": [{"path": f"{get_upload_folder()}/a/b.json", "url": "http://x/", "meta": {"_type": "gradio.FileData"}}]}
FORM = {"content-type": "multipart/form-data; boundary=b"}


def client(**options: Any) -> TestClient:
    """A client of an application that parses every body as Gradio does, and says what it found."""

    async def answer(request: Request) -> Response:
        if request.method == "GET":
            return PlainTextResponse(request.url.path)
        if request.headers.get("content-type", "").startswith("multipart"):
            return PlainTextResponse(f"{len(await request.body())}")
        return Response(json.dumps(await request.json()))

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT"])])
    return TestClient(Guard(app, **options), "http://page.example", raise_server_exceptions=False)


ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/octet-stream", None])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_that_is_not_utf_8_is_refused_whatever_it_says(encoding: str, kind: str | None) -> None:
    page = client()
    for value in (FOREIGN, HERE, {"data": ["é"]}, 7):
        headers = {"content-type": kind} if kind else {}
        answer = page.post("/gradio_api/queue/join", content=json.dumps(value).encode(encoding), headers=headers)
        assert (answer.status_code, answer.json()) == (400, {"error": "The request is not UTF-8: send JSON in UTF-8."})


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"a": "\xe9"}', b'{"data"\0: 1}'])
def test_bytes_that_are_no_text_are_refused(body: bytes) -> None:
    assert client().post("/gradio_api/call/generate", content=body).json() == {"error": guard.NO_UTF8}


@pytest.mark.parametrize("path", ["queue/join", "component_server", "call/x", "run/x", "upload", "cancel"])
def test_a_foreign_path_is_refused_however_its_json_is_written(path: str) -> None:
    plain = json.dumps(FOREIGN).encode()
    escaped = "".join(f"\\u{ord(c):04x}" for c in "gradio.FileData").encode()
    for body in (plain, b"\xef\xbb\xbf" + plain, b"\n\t " + plain, plain.replace(b"gradio.FileData", escaped)):
        answer = client().post(f"/gradio_api/{path}", content=body)
        assert (answer.status_code, "was not uploaded to this server" in answer.text) == (400, True)


def test_what_is_passed_on_is_what_was_checked() -> None:
    page = client()
    for mark in (b"", b"\xef\xbb\xbf"):
        found = page.post("/x", content=mark + json.dumps(HERE).encode()).json()
        assert found == {"data": [{"path": HERE["data"][0]["path"], "meta": {"_type": "gradio.FileData"}}]}
        assert page.post("/x", content=mark + '{"a": ["é", "\\ud800"]}'.encode()).json() == {"a": ["é", "\ud800"]}


def test_a_form_is_taken_where_files_are_uploaded_and_nowhere_else() -> None:
    page = client()
    for path in ("queue/join", "component_server", "call/generate", "run/x", "upload/more", "mcp", "cancel"):
        answer = page.post(f"/gradio_api/{path}", content=b"--b--", headers=FORM)
        assert answer.status_code == 415
        assert answer.json() == {"error": "This address takes JSON: only a file may be sent as a form."}
    assert page.post("/gradio_api/upload", content=b"--b--", headers=FORM).text == "5"
    answer = page.post("/gradio_api/cancel", content=b"x", headers={"content-type": "MultiPart/Form-Data; boundary=b"})
    assert answer.status_code == 415
    two = [("content-type", "multipart/form-data; boundary=b"), ("content-type", "application/json")]
    assert page.post("/gradio_api/cancel", content=b"{}", headers=two).status_code == 415


@pytest.mark.parametrize(
    "body", ["[" + "[]," * 120_000 + "0]", "[" + "0," * 300_000 + "0]", json.dumps(["a"] * 450_000)]
)
def test_a_body_of_very_many_values_is_refused_before_they_are_made(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("parsed")

    page = client()
    with monkeypatch.context() as patch:
        patch.setattr(guard.json, "loads", never)
        answer = page.post("/x", content=body)
    assert answer.status_code == 413
    assert answer.json() == {"error": "The request holds more than 200,000 values: send less."}


def test_a_long_trace_in_a_string_is_one_value() -> None:
    trace = json.dumps({"lanes": [{"events": [[{"a": "\\"}] * 5] * 20_000}]})
    assert client().post("/x", content=json.dumps({"data": [trace]})).json() == {"data": [trace]}


def test_what_is_no_json_is_a_sentence_at_the_endpoint_and_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    page = client(misread=api.misread)
    assert page.post("/gradio_api/call/generate", content=b"{").json() == {"error": "The body is no valid JSON."}
    assert page.post("/gradio_api/call/v2/generate").json() == {"error": "The body is no valid JSON."}
    counted, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda *a, **k: counted.append(1) or loads(*a, **k))
    page.post("/gradio_api/call/v2/generate", content=b'{"prompt": "a"}')
    assert len(counted) == 2  # here and in the application


def test_uploads_that_come_at_once_do_not_share_the_same_room() -> None:
    uploads = Uploads(2 * 2**30)
    admitted = []
    for _ in range(60):
        try:
            uploads.admit(47 * 2**20, upload := Upload())
        except Refusal:
            break
        admitted.append(upload)
    assert sum(one.announced for one in admitted) <= 2 * 2**30 and len(admitted) == 43
    for one in admitted:
        assert uploads.count(2**20, one)
        uploads.end(one)  # the rest of it never came
    uploads.admit(47 * 2**20, Upload())


def test_an_upload_that_announces_nothing_ends_where_the_room_does() -> None:
    page = client(uploads=4 * guard.LEAST)
    parts = iter([b"x" * guard.LEAST] * 9)
    answer = page.post("/gradio_api/upload", content=parts, headers=FORM)
    assert (answer.status_code, guard.FULL) == (503, answer.text)


def test_an_upload_that_was_cut_off_gives_its_room_back() -> None:
    page = client(uploads=6 * guard.LEAST)
    for _ in range(3):  # answered before the body was read
        answer = page.put("/gradio_api/upload", content=b"", headers=FORM | {"content-length": str(3 * guard.LEAST)})
        assert answer.status_code == 200


SUB = ["/monitoring", "/demo/monitoring", "/gradio_api/deep_link", "/demo/gradio_api/deep_link", "/demo/login"]


@pytest.mark.parametrize("path", SUB)
def test_closed_routes_stay_closed_under_a_sub_path(path: str) -> None:
    """Gradio's application sets the sub-path itself; the router takes it off a path once, if it is there."""
    inner = Guard(Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("open"))]))

    async def at_demo(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/demo"}, receive, send)

    page = TestClient(at_demo)
    assert page.get(path).status_code == 404
    assert page.get("/demo/gradio_api/info").text == "open"


def test_forms_and_health_are_known_by_their_paths_under_a_sub_path() -> None:
    inner = Guard(
        Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("open"), methods=["POST", "GET"])])
    )
    private = Guard(Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("open"))]), private=True)

    def under(app: Any) -> TestClient:
        async def at_demo(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "root_path": "/demo"}, receive, send)

        return TestClient(at_demo, "http://elsewhere.example")

    assert under(inner).post("/demo/gradio_api/upload", content=b"--b--", headers=FORM).text == "open"
    assert under(inner).post("/demo/gradio_api/cancel", content=b"--b--", headers=FORM).status_code == 415
    assert under(private).get("/demo/health").text == "open"
    assert under(private).get("/demo/config").status_code == 403


@pytest.mark.parametrize("kind", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"])
def test_streams_of_events_are_neither_gathered_nor_rewritten_on_their_way(kind: str) -> None:
    def stream(request: Request) -> Response:
        headers = {"content-type": kind, "cache-control": "no-store"}
        return StreamingResponse(iter(["data: 1\n\n"]), headers=headers)

    def page(request: Request) -> Response:
        return PlainTextResponse("page", headers={"cache-control": "max-age=9"})

    app = TestClient(Guard(Starlette(routes=[Route("/stream", stream), Route("/page", page)])))
    answer = app.get("/stream")
    assert answer.headers.get_list("cache-control") == ["no-cache, no-transform"]
    assert answer.headers.get_list("x-accel-buffering") == ["no"]
    assert app.get("/page").headers["cache-control"] == "max-age=9"
    assert "x-accel-buffering" not in app.get("/page").headers
