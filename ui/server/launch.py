"""Around the page: /health and /metrics, what guards every route, and a shutdown that lets running answers end."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nemodiff.checkpoints.catalogue import folder_of
from ui import api
from ui.live import metrics
from ui.live.desk import Desk
from ui.live.fair_queue import Line
from ui.page import build, files
from ui.server.guard import Guard
from ui.server.hang_ups import HangUps
from ui.settings import Settings
from ui.wire import explain

logger = logging.getLogger(__name__)

#: Seconds after the last run in which its end still reaches the page.
GRACE = 1.0
#: Visitors of whom Gradio keeps a copy of the page's configuration (0.15 MB each, and what their components last held);
#: this page keeps nothing there that it needs.
SESSIONS = 128


def name_of(checkpoint: str) -> str:
    """A checkpoint's name for strangers: of a folder only its last part."""
    return Path(checkpoint).name if folder_of(checkpoint).is_absolute() or checkpoint[:1] == "~" else checkpoint


def extras(page: gr.Blocks, desk: Desk, settings: Settings) -> dict[str, Any]:
    """What `launch(app_kwargs=…)` gets: routes, and what comes before them."""
    line = desk.line

    def health(_: Request) -> JSONResponse:
        engine = desk.engine()
        there = "ready" if engine else "loading" if desk.loading() else "failed"
        status = "stopping" if line.closed else there
        if status == "ready" and engine and not engine.reachable:
            status = "unreachable"
        name = engine.checkpoint if engine else name_of(settings.checkpoint)
        return JSONResponse({"status": status, "checkpoint": name}, 200 if status == "ready" else 503)

    def numbers(_: Request) -> Response:
        return Response(desk.metrics.text(), headers={"content-type": metrics.CONTENT_TYPE})

    async def resync(asked: Request) -> Response:
        """What a page missed of a run: {"run": its id or ticket, "after": the last event that it has}."""
        try:
            body = await asked.body()
            data: dict[str, Any] = json.loads(body) if len(body) < 1000 else {}
            name, after = str(data["run"]), int(data["after"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return JSONResponse({"error": "The request is not of the form that this address takes."}, 400)
        text = await run_in_threadpool(desk.resync, name, after)
        return Response(text, media_type="application/json", headers={"cache-control": "no-store"})

    async def file(asked: Request) -> Response:
        """A file made of a trace: {"kind", "trace": its text, "page": a name of the page's own}; 422 and one sentence
        where it cannot be made."""
        try:
            data: dict[str, Any] = json.loads(await asked.body())
            kind, trace, name = (data.get(key) for key in ("kind", "trace", "page"))
        except (ValueError, AttributeError, RecursionError):
            return JSONResponse({"error": "The request is not of the form that this address takes."}, 400)
        visitor = SimpleNamespace(client=asked.client, headers=asked.headers, session_hash=name)
        try:
            form, made = await run_in_threadpool(files.make, kind, trace, lambda: desk.count(visitor))
        except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
            return JSONResponse({"error": explain(error)}, 422)
        headers = {"content-disposition": f'attachment; filename="nemodiff.{form.ending}"', "cache-control": "no-store"}
        return Response(made, media_type=form.media, headers=headers)

    posts = {"/resync": resync, "/file": file}
    routes = [Route("/health", health), *(Route(path, post, methods=["POST"]) for path, post in posts.items())]
    routes += [Route("/metrics", numbers)] if settings.metrics else []
    return {
        "routes": routes,
        "middleware": [
            Middleware(Guard, misread=api.misread, closed=lambda: line.closed, private=settings.private),
            Middleware(HangUps, page=page),
        ],
        "docs_url": None,
        "redoc_url": None,
        "openapi_url": None,
    }


def launch(page: gr.Blocks, desk: Desk, settings: Settings, **more: Any) -> None:
    """Open the page to the network as the settings say. more: options of `Blocks.launch` besides."""
    # Seconds between two signs of life of a page's stream, by which the page knows that the connection still stands.
    os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", "3")
    page.queue(max_size=settings.queue + 16, default_concurrency_limit=4, api_open=False)
    options: dict[str, Any] = {
        "server_name": settings.host,
        "server_port": settings.port,
        "max_threads": settings.queue + 40,
        "theme": build.theme(),
        "css_paths": build.STYLES,
        "footer_links": [],
        "show_error": False,
        "max_file_size": "32mb",
        "allowed_paths": [],
        "strict_cors": True,
        "enable_monitoring": False,
        "run_history": False,
        "state_session_capacity": SESSIONS,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": True,
        "app_kwargs": extras(page, desk, settings),
    }
    try:
        page.launch(**options | more)
    except KeyboardInterrupt:  # SIGTERM between two of Gradio's own waits
        page.close()


def end_gracefully(line: Line, seconds: float) -> None:
    """On SIGTERM: take no more runs, let those that run end within `seconds`, then end as Ctrl-C does. A second
    SIGTERM ends at once, and is what ends it: SIGINT is ignored in what a shell started in the background."""

    def wait() -> None:
        ended = line.drain(seconds)
        logger.info("ending", extra={"reason": "all runs ended" if ended else f"a run went on after {seconds:g} s"})
        threading.Event().wait(GRACE)
        signal.raise_signal(signal.SIGTERM)

    def on_signal(number: int, _: Any) -> None:
        busy = line.running
        if line.closed or not busy:
            line.close()
            raise KeyboardInterrupt
        logger.info("SIGTERM: %d running, no new ones", busy, extra={"signal": number})
        line.close()
        threading.Thread(target=wait, name="drain", daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)
