"""HangUps: whoever closes a stream of events is let go of, whatever the stream is doing at that moment.

Gradio lets go of a page's events where it waits for the next message. Where it is just sending one, its stream is
cancelled there and lets go of nothing: a run of a closed tab would go on, or wait for its turn, for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A page's stream, and that of a call by the API, which is its own session.
STREAM, CALL = "/queue/data", "/call/"


class HangUps:
    """page: the gr.Blocks whose queue it is."""

    def __init__(self, app: ASGIApp, page: Any) -> None:
        self._app, self._page = app, page
        self._cleaning: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = _session(scope)
        if not session:
            await self._app(scope, receive, send)
            return
        gone = ended = False

        async def heard() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect" and not ended
            return message

        async def sent(message: Message) -> None:
            nonlocal ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, heard, sent)
        finally:
            if gone:  # in a task of its own: this one may be cancelled
                task = asyncio.create_task(self._page._queue.clean_events(session_hash=session))
                self._cleaning.add(task)
                task.add_done_callback(self._cleaning.discard)


def _session(scope: Scope) -> str:
    """Whose stream a request opens; an empty string where it opens none."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return ""
    path = get_route_path(scope).rstrip("/")
    if path.endswith(STREAM):
        return parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[-1]
    return path.rpartition("/")[2] if CALL in path else ""
