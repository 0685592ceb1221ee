"""A real page over HTTP: what bodies, files made of a trace, sub-paths and a proxy in front of it do."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nemodiff.engine.local import Engine
from tests.helpers.checkpoints import open_engine
from tests.helpers.served import WAIT, Visitor, free_port, serving, values
from tests.helpers.traces import trace_of
from ui.server import guard

TRACE = json.dumps(trace_of({"1": "a", "2": "<b>"}, [1, 2, 1]))


@pytest.fixture(scope="module")
def engine(chat_folder: Path) -> Engine:
    return open_engine(chat_folder)


@pytest.fixture(scope="module")
def address(engine: Engine) -> Iterator[str]:
    with serving(engine, visitor_rate=0, max_new_tokens=600) as (address, _):
        yield address


def make(visitor: Visitor, asked: str) -> dict[str, Any]:
    """What the stage's menu asks for: the file's size, or why there is none."""
    kind, _, trace = asked.partition("\n")
    answer = visitor.client.post("/file", json={"kind": kind, "trace": trace, "page": "s"})
    assert answer.status_code in (200, 422), answer.text
    return answer.json() if answer.status_code == 422 else {"data": len(answer.content)}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_the_queue_takes_no_address_in_another_encoding(address: str, encoding: str) -> None:
    visitor = Visitor(address)
    for path in ("/etc/passwd", "http://127.0.0.1:1/x"):
        sent = {"path": path, "url": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}
        body = {"fn_index": visitor.functions["open_trace"]["id"], "session_hash": "s", "data": [sent]}
        headers = {"content-type": "application/json"}
        for route in ("queue/join", "run/open_trace", "call/open_trace", "component_server"):
            answer = visitor.client.post(
                f"/gradio_api/{route}", content=json.dumps(body).encode(encoding), headers=headers
            )
            assert (answer.status_code, answer.json()) == (400, {"error": guard.NO_UTF8})


def test_a_form_reaches_no_function_of_the_page(address: str) -> None:
    visitor = Visitor(address)
    fields = {"component_id": "1", "session_hash": "s", "fn_name": "make", "path": "/etc/passwd"}
    answer = visitor.client.post("/gradio_api/component_server", data=fields, files={"a": ("a", b"b")})
    assert answer.status_code == 415
    [path] = visitor.client.post("/gradio_api/upload", files={"files": ("a.json", TRACE.encode())}).json()
    assert path.endswith("a.json")


def test_files_are_counted_for_the_visitor_who_asks(engine: Engine) -> None:
    with serving(engine, visitor_rate=2) as (address, _):
        one, other = Visitor(address, address="8.8.8.1"), Visitor(address, address="8.8.8.2")
        assert [sorted(make(one, f"html\n{TRACE}")) for _ in range(3)] == [["data"]] * 2 + [["error"]]
        assert "data" in make(other, f"html\n{TRACE}")


def test_a_sub_path_works_and_keeps_closed_what_is_closed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/demo")
    with serving(engine, visitor_rate=0) as (address, _):
        for prefix in ("", "/demo"):  # a proxy may take the prefix off, or leave it on
            assert httpx.get(f"{address}{prefix}/health").json()["status"] == "ready"
            visitor = Visitor(address + prefix)
            messages = visitor.generate(tokens=3)
            assert messages[-1]["end"]["finish"] == {"ar": "length"}
        for path in ("/monitoring/summary", "/gradio_api/deep_link", "/login"):
            for prefix in ("", "/demo", "/demo/demo"):
                assert httpx.get(address + prefix + path).status_code == 404


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {address}; proxy_set_header X-Forwarded-For $remote_addr; }}
  }}
}}
"""


@pytest.fixture
def nginx(address: str, tmp_path: Path) -> Iterator[str]:
    """The page behind nginx as Debian installs it: it gathers what it passes on, and compresses it."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed; the headers that it obeys are tested without it")
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, address=address))
    proxy = subprocess.Popen([program, "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        while True:
            assert proxy.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(WAIT)


def test_events_come_one_by_one_through_a_proxy_that_gathers_and_compresses(
    nginx: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model makes its second event only when the first one has come through."""
    came, plain = threading.Event(), engine.stream

    def slow(request: Any) -> Iterator[Any]:
        for k, event in enumerate(plain(request)):
            if k:
                assert came.wait(WAIT)
            yield event

    monkeypatch.setattr(engine, "stream", slow)
    visitor = Visitor(nginx)
    assert visitor.join("watch", values(tokens=3)).status_code == 200
    asked = {"session_hash": visitor.session}
    seen = b""
    with visitor.client.stream("GET", "/gradio_api/queue/data", params=asked) as stream:
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS) if stream.headers.get("content-encoding") == "gzip" else None
        for part in stream.iter_raw():
            seen += unpack.decompress(part) if unpack else part
            if b'\\"ev\\"' in seen and not came.is_set():
                assert b"process_completed" not in seen
                came.set()
            if b"process_completed" in seen:
                break
    assert came.is_set()
    # What is a whole is compressed.
    assert visitor.client.get("/config").headers.get("content-encoding") in ("gzip", "br")
