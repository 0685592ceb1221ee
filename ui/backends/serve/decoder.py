"""Decoder: what a replica does: one model, one run at a time, its events as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

import nemodiff
from nemodiff.engine.interface import EngineInterface, steps
from nemodiff.errors import NemodiffError, RequestError
from ui.backends.remote import describe
from ui.wire import UNEXPECTED

logger = logging.getLogger(__name__)

#: Bytes of a request: the longest prompt, and token ids of a branch.
MAX_BODY = 4 * 2**20
#: Seconds without an event after which an empty line says that the replica is there.
BEAT = 5.0
#: Seconds that one forward may take before the replica counts as stuck and is replaced.
STUCK = 600.0


class Decoder:
    """A replica. checkpoint, options: as for `nemodiff.load`. threads: torch's. places: runs of all replicas at once.

    GET /describe: what a RemoteEngine has to know. POST /run: a Request as JSON, answered by a line an Event
    (with its mode), then {"end": {}}; or {"error": one sentence} wherever it could not go on. POST /ceiling: the same
    Request, with "budget" beside its fields, answered by lines of Progress.
    """

    def __init__(self, checkpoint: str, options: dict[str, Any], threads: int | None, places: int) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        logging.getLogger("nemodiff").setLevel(logging.INFO)
        self._begin(nemodiff.load(checkpoint, report=logger.info, **options), places)

    def _begin(self, engine: EngineInterface, places: int) -> None:
        self.engine, self._places = engine, places
        # The one thread that runs the model, and closes what it ran: so a closed run has ended before the next begins.
        self._model = ThreadPoolExecutor(1, "model")
        self._busy_since: float | None = None

    def check_health(self) -> None:
        """Asked by Ray Serve; raises when the model has been at one forward for too long."""
        if self._busy_since is not None and time.monotonic() - self._busy_since > STUCK:
            raise RuntimeError(f"one forward has taken more than {STUCK:.0f} s")

    async def __call__(self, request: HttpRequest) -> Response:
        path, post = request.url.path.rstrip("/"), request.method == "POST"
        if path.endswith("/describe") and not post:
            return JSONResponse(describe(self.engine, self._places))
        if not post or not path.endswith(("/run", "/ceiling")):
            return JSONResponse({"error": "There is nothing here: POST /run, POST /ceiling or GET /describe."}, 404)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return JSONResponse({"error": f"The request is larger than {MAX_BODY // 2**20} MB."}, 413)
        items = (self._run if path.endswith("/run") else self._ceiling)(bytes(body))
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}  # for a proxy in between
        return StreamingResponse(self._lines(items), media_type="application/x-ndjson", headers=headers)

    def _run(self, body: bytes) -> Generator[dict[str, Any] | None, None, None]:
        with closing(self.engine.stream(nemodiff.Request.from_json(_parsed(body)))) as events:
            for event in steps(events):
                yield {"mode": event.mode, **event.to_json()} if event else None

    def _ceiling(self, body: bytes) -> Generator[dict[str, Any] | None, None, None]:
        data = _parsed(body)
        budget = data.pop("budget", None)
        if budget is not None and type(budget) is not int:
            raise RequestError("budget must be a whole number of forwards.")
        with closing(self.engine.ceiling(nemodiff.Request.from_json(data), budget)) as steps_:
            for step in steps_:
                yield step.to_json() if step else None

    async def _lines(self, items: Generator[dict[str, Any] | None, None, None]) -> AsyncIterator[bytes]:
        """One JSON object per line, each made in the model's thread; of None an empty line. When the connection is
        closed, so is this: the forward that goes on then is the last one."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._busy_since = time.monotonic()
                step = loop.run_in_executor(self._model, _step, items)
                while not (await asyncio.wait({step}, timeout=BEAT))[0]:
                    yield b"\n"
                line = step.result()
                if line is None:
                    yield b"\n"
                    continue
                yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                if "end" in line or "error" in line:
                    return
        finally:
            self._busy_since = None
            self._model.submit(items.close)


def _step(items: Generator[dict[str, Any] | None, None, None]) -> dict[str, Any] | None:
    """The next line; errors become the last one."""
    try:
        return next(items, {"end": {}})
    except NemodiffError as error:
        return {"error": str(error)}
    except Exception:
        logger.exception("a run failed")
        return {"error": UNEXPECTED}


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise RequestError("The request must be a JSON object.")
    return data
