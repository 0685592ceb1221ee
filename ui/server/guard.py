"""Guard: what no request gets past, whichever route it asks for. An ASGI middleware in front of Gradio's routes."""

from __future__ import annotations

import json
import logging
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gradio.route_utils import FnIndexInferError
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.settings import LOOPBACK
from ui.values import UNREAD, uploaded

logger = logging.getLogger(__name__)

#: Bytes of a body. The largest honest one is a trace inside a JSON string.
MAX_BODY = 48 * 2**20
#: Levels and values of JSON; no honest body comes near them, since a trace travels as one string.
MAX_DEPTH, MAX_VALUES = 200, 200_000
#: Bytes of uploads within KEPT seconds, after which Gradio has deleted them (`delete_cache`); each costs LEAST besides.
MAX_UPLOADS, KEPT, LEAST = 2 * 2**30, 7200.0, 2**16
#: The one route that takes a form; everything else that the page is sent is JSON.
UPLOAD = "/gradio_api/upload"
#: Gradio's routes that this page does not use.
UNUSED = re.compile(
    r"(/gradio_api)?/(proxy=|stream/|dev/|vibe|undo-vibe|process_recording|run-history|runs\b|deep_link|profiling"
    r"|custom_component|monitoring|login/?$|logout|token/?$)"
)
#: Gradio's own scripts are inline, and gr.HTML makes functions of strings: so much a policy for it has to allow.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co https://*.hf.space",
    )
)
#: What anybody may ask of a private page: a container's own check comes by any name.
OPEN = ("/health",)
NO_UTF8 = "The request is not UTF-8: send JSON in UTF-8."
FULL = "The server holds too many files just now: try again in an hour."
UNKNOWN = "There is no endpoint of that name: see /gradio_api/info."
UNANSWERED = "The request could not be answered: it may not be one of this page's."
UNREADABLE = "The request is not of the form that this address takes: see /gradio_api/info."
#: What Gradio's own routes raise while they read a body; what the page's functions raise never comes this way.
MISREADINGS = (AssertionError, AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
#: On a stream of events: proxies must neither gather it nor rewrite it, or a run arrives in one piece at its end.
STREAMED = ((b"cache-control", b"no-cache, no-transform"), (b"x-accel-buffering", b"no"))
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)


class Refusal(Exception):
    """A request that goes no further: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """Bounds bodies before anything parses them, keeps addresses and foreign paths out of file values, and sets
    headers.

    closed: asked before every new run; True once the server is going down. private: the page is for the machine's own
    people, so only its own pages may ask, by a loopback name: no foreign site, and no name made to point here.
    misread: what is wrong with a POST's path and the value of its body (UNREAD where it is no JSON), as a sentence,
    where something is. Paths are looked at without the prefix of a sub-path, as the router does.
    """

    def __init__(
        self,
        app: ASGIApp,
        closed: Callable[[], bool] = lambda: False,
        private: bool = False,
        misread: Callable[[str, Any], str | None] = lambda path, value: None,
        limit: int = MAX_BODY,
        uploads: int = MAX_UPLOADS,
    ) -> None:
        self._app, self._closed, self._private, self._misread = app, closed, private, misread
        self._limit, self._uploads = limit, Uploads(uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = ended = False
        path, upload = get_route_path(scope), Upload()

        async def answer(message: Message) -> None:
            nonlocal started, ended
            started = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                kind = _first(headers, b"content-type").lower()
                ours = HEADERS + (STREAMED if kind.startswith(b"text/event-stream") else ())
                taken = {name for name, _ in ours} | {b"server"}
                message = {**message, "headers": [*(pair for pair in headers if pair[0].lower() not in taken), *ours]}
            await send(message)

        try:
            if UNUSED.match(path):
                raise Refusal(404, "There is nothing here.")
            if self._private and path not in OPEN:
                _own(scope)
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                receive = await self._checked(scope, path, receive, upload)
            await self._app(scope, receive, answer)
        except Refusal as refusal:
            if not started:
                await _refuse(answer, refusal)
        except Exception as error:  # Gradio's own checks fail in many ways; a log of them would hold what was sent
            logger.warning("a request could not be answered: %s", type(error).__name__)
            if not started:
                await _refuse(answer, _refusal_of(error, path, scope["method"]))
            elif not ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._uploads.end(upload)

    async def _checked(self, scope: Scope, path: str, receive: Receive, upload: Upload) -> Receive:
        if self._closed() and ("/call/" in path or path.rstrip("/").endswith("/queue/join")):
            raise Refusal(503, "The server is being restarted: try again in a minute.")
        length = _first(scope["headers"], b"content-length") or b"0"
        if not length.isdigit() or int(length) > self._limit:
            raise Refusal(413, f"The request is larger than {self._limit // 2**20} MB: send less.")
        if _first(scope["headers"], b"content-type").lower().startswith(b"multipart/"):
            if path != UPLOAD:
                raise Refusal(415, "This address takes JSON: only a file may be sent as a form.")
            self._uploads.admit(int(length), upload)
            return self._counted(receive, upload)
        body = await self._body(receive)
        value = _parsed(body)
        if sentence := self._misread(path, value):
            raise Refusal(422, sentence)
        return _again(json.dumps(value).encode() if _clean(value) else body, receive)

    async def _body(self, receive: Receive) -> bytes:
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "The request ended early.")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limit:
                raise Refusal(413, f"The request is larger than {self._limit // 2**20} MB: send less.")
            more = message.get("more_body", False)
        return b"".join(parts)

    def _counted(self, receive: Receive, upload: Upload) -> Receive:
        """An upload streams to disk; Gradio bounds each file, this the whole."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            # The application is at work already, and knows these errors.
            if size > self._limit:
                raise HTTPException(413, f"The request is larger than {self._limit // 2**20} MB: send less.")
            if not self._uploads.count(len(message.get("body", b"")), upload):
                raise HTTPException(503, FULL)
            return message

        return counted


@dataclass(slots=True)
class Upload:
    """One upload: when it began, its bytes so far, and those that it announced and that have not come yet."""

    began: float = 0.0
    bytes: int = 0
    announced: int = 0


class Uploads:
    """How many bytes were uploaded lately, so what may lie on the disk. Room is held for what an upload announces, from
    its beginning to its end: those that come at once would each find it free else."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._lately: deque[Upload] = deque()
        self._sum = 0

    def admit(self, announced: int, upload: Upload | None = None) -> None:
        """Raises Refusal when there is no room for another upload."""
        while self._lately and self._clock() - self._lately[0].began > KEPT:
            old = self._lately.popleft()
            self._sum -= old.bytes + old.announced
            old.announced = 0
        if self._sum + max(announced, LEAST) > self._most:
            raise Refusal(503, FULL)
        upload = upload or Upload()
        upload.began, upload.bytes, upload.announced = self._clock(), LEAST, announced
        self._lately.append(upload)
        self._sum += LEAST + announced

    def count(self, size: int, upload: Upload | None = None) -> bool:
        """Bytes that came, of the newest upload by default; False when there is no more room for them."""
        upload = upload or self._lately[-1]
        more = max(0, size - upload.announced)
        upload.bytes, upload.announced = upload.bytes + size, max(0, upload.announced - size)
        self._sum += more
        return not more or self._sum <= self._most

    def end(self, upload: Upload) -> None:
        """What was announced and did not come takes no room any more."""
        self._sum -= upload.announced
        upload.announced = 0


def _own(scope: Scope) -> None:
    """Raises Refusal unless a request names this machine by a loopback name and comes from one of its own pages."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get("origin")
    if _name(f"//{headers.get('host', '')}") not in LOOPBACK or (origin is not None and _name(origin) not in LOOPBACK):
        raise Refusal(
            403,
            "This page answers its own machine alone. If it stands behind a proxy, set NEMODIFF_PROXIES to how many.",
        )


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """A header's value, of several the first, as Starlette reads it; empty without one."""
    return next((value for key, value in headers if key.lower() == name), b"")


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once more, then what the connection goes on to say."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


def _parsed(body: bytes) -> Any:
    """The value of a body; UNREAD for none, or for one that is no JSON, which Gradio refuses.

    Gradio's parser takes UTF-16 and UTF-32, too: only what is UTF-8 is read here and there as the same value. Raises
    Refusal. (A body too deep for the parser here is too deep there, where the stack is longer.)
    """
    if not body:
        return UNREAD
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refusal(400, NO_UTF8) from None
    if "\0" in text:  # UTF-16 and UTF-32 of plain letters are UTF-8, too, with zeros between
        raise Refusal(400, NO_UTF8)
    if _values(body) > MAX_VALUES:
        raise Refusal(413, f"The request holds more than {MAX_VALUES:,} values: send less.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return UNREAD


def _values(body: bytes) -> int:
    """At least how many values of JSON a body holds, without making them: what separates them, outside strings."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    quotes = bare.count(b'"')
    if quotes > 4 * MAX_VALUES:
        return quotes // 2
    return 1 + sum(part.count(b",") + part.count(b"[") + part.count(b"{") for part in bare.split(b'"')[::2])


def _clean(data: Any) -> bool:
    """Take addresses out of every file value in place, so that Gradio fetches none: it would for any component.
    Whether there was a file value. Raises Refusal for a file that was not uploaded to this server."""
    found = False
    waiting = [(data, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Refusal(400, "The request is nested too deeply.")
        if isinstance(value, dict):
            meta = value.get("meta")
            if isinstance(meta, dict) and meta.get("_type") == "gradio.FileData":
                found = True
                value.pop("url", None)
                if not uploaded(value.get("path")):
                    raise Refusal(400, "A file in the request was not uploaded to this server: upload it first.")
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
    return found


def _refusal_of(error: Exception, path: str, method: str) -> Refusal:
    """What the sender of a request is told that Gradio could not answer."""
    if isinstance(error, FnIndexInferError) or ("/call/" in path and isinstance(error, KeyError)):
        return Refusal(404, UNKNOWN)
    if path.startswith("/gradio_api/") and method != "GET" and isinstance(error, MISREADINGS):
        return Refusal(400, UNREADABLE)
    return Refusal(500, UNANSWERED)


async def _refuse(send: Callable[[Message], Awaitable[None]], refusal: Refusal) -> None:
    body = json.dumps({"error": refusal.sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
