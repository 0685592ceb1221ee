"""A real server in this process, and a visitor who speaks Gradio's queue protocol, well or badly."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from tests.helpers.replicas import free_port
from ui.live.desk import Desk
from ui.page import build
from ui.server import launch
from ui.settings import Settings

WAIT = 240  # s: the machine that runs this may be busy
#: What no answer may hold: a traceback, a module's file, a folder of the machine, an environment.
LEAKS = re.compile(r"Traceback|File \\?\"|\.py\b|site-packages|/root|/home|/usr/|/etc|NEMODIFF_|OMP_NUM")


@contextlib.contextmanager
def serving(engine: Any, behind: Any = None, **options: Any) -> Iterator[tuple[str, Desk]]:
    """The address of a public page (one proxy in front of it) with an engine, and its desk. behind: loads the engine
    behind the open page."""
    settings = Settings().model_copy(update={"port": free_port(), "proxies": 1, "tour": False, **options})
    desk = Desk(settings)
    page = build.build(engine, settings, desk=desk, behind=behind)
    launch.launch(page, desk, settings, prevent_thread_lock=True, quiet=True)
    try:
        yield f"http://127.0.0.1:{settings.port}", desk
    finally:
        page.close(verbose=False)


@contextlib.contextmanager
def serving_apart(engine: Any, **options: Any) -> Iterator[tuple[str, Desk]]:
    """As `serving`, from a thread of its own: Playwright keeps an event loop in the test's."""
    started, ended, found = threading.Event(), threading.Event(), []

    def serve() -> None:
        with serving(engine, **options) as served:
            found.append(served)
            started.set()
            ended.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert started.wait(WAIT)
        yield found[0]
    finally:
        ended.set()
        thread.join()


class Visitor:
    """One browser session. address: where it says to come from, in the words of the proxy."""

    def __init__(self, server: str, session: str = "s1", address: str = "8.8.4.4") -> None:
        self.server, self.session = server, session
        self.client = httpx.Client(base_url=server, timeout=WAIT, headers={"X-Forwarded-For": address})
        config = self.client.get("/config").json()
        self.functions = {one["api_name"]: one for one in config["dependencies"]}

    def join(self, name: str, data: list[Any]) -> httpx.Response:
        body = {"fn_index": self.functions[name]["id"], "session_hash": self.session, "data": data}
        return self.client.post("/gradio_api/queue/join", json=body)

    @contextlib.contextmanager
    def listen(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Messages of the session's events as they come; leaving it closes the connection, as a closed tab does."""
        with self.client.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            yield (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))

    def ask(self, name: str, data: list[Any]) -> list[dict[str, Any]]:
        """All messages of one event."""
        joined = self.join(name, data)
        assert joined.status_code == 200, joined.text
        found = []
        with self.listen() as messages:
            for message in messages:
                found.append(message)
                if message["msg"] in ("process_completed", "unexpected_error"):
                    break
        return found

    def generate(self, **fields: Any) -> list[dict[str, Any]]:
        """What the stage gets of a run."""
        return stage(self.ask("watch", values(**fields)))


def values(**fields: Any) -> list[Any]:
    """The fields of the page, in its order."""
    defaults: dict[str, Any] = {
        "prompt": "w1 w2",
        "modes": ["ar"],
        "system": "",
        "history": "",
        "block": 8,
        "sampler": "confidence",
        "threshold": 0.9,
        "bound": 0.3,
        "steps": 4,
        "temperature": 0,
        "seed": 0,
        "tokens": 8,
        "ignore_eos": True,
        "raw": False,
        "draft": "linear",
        "acceptance": "match",
        "weight": 1,
        "order": "best",
        "rows": None,
        "stop": "",
        "draft_head": True,
        "picture": "",
    }
    assert fields.keys() <= defaults.keys()
    return list((defaults | fields).values())


def stage(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The strings that the stage was given, each of Gradio's diffs applied, as JSON."""
    found: list[dict[str, Any]] = []
    last: list[Any] = []
    for message in messages:
        if message["msg"] not in ("process_generating", "process_completed") or not message["success"]:
            continue
        data = message["output"].get("data") or []
        if message["msg"] == "process_generating" and last and data and isinstance(data[0], list):
            data = [patched(last[0], data[0])]
        last = data or last
        if data and isinstance(data[0], str):
            found.append(json.loads(data[0]))
    return found


def patched(before: Any, diff: list[Any]) -> Any:
    for action, path, value in diff:
        if not path:
            before = before + value if action == "append" else value
    return before


def sentence(messages: list[dict[str, Any]]) -> str:
    """The one sentence that a run came to."""
    [error] = {message["error"] for message in messages if "error" in message}  # Gradio sends the last one twice
    return error
