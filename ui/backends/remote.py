"""RemoteEngine: the engine's interface over replicas elsewhere (`ui.backends.serve`). Its page loads no model."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

from nemodiff.checkpoints.tokenizer import Tokenizer
from nemodiff.engine.interface import Bounds, Defaults, EngineInterface
from nemodiff.errors import CheckpointError, NemodiffError, RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Event
from nemodiff.trace.oracle import Progress

logger = logging.getLogger(__name__)

#: Seconds between two looks at whether the stream was closed while nothing comes.
TICK = 0.2
#: Seconds without a line after which a replica counts as lost; it says something much more often.
SILENCE = 60.0
#: Seconds that a request may wait for a replica: one may have to be started and load its model.
START = 600.0
#: Seconds in which an answer to "are you there?" is believed.
FRESH = 5.0
AWAY = "No replica of the model can be reached: try again in a minute."
LOST = "The replica that wrote this answer was lost: start the run again."
#: What of a tokenizer's folder the page needs.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

T = TypeVar("T")


def describe(engine: EngineInterface, places: int) -> dict[str, Any]:
    """What a RemoteEngine has to know of an engine. places: runs that all replicas take at once, at most."""
    bounds, defaults, folder = engine.bounds, engine.defaults, engine.tokenizer.folder
    return {
        **{name: getattr(engine, name) for name in ("checkpoint", "device", "dtype", "attention", "exact", "versions")},
        "defaults": {name: getattr(defaults, name) for name in defaults.__slots__},
        "bounds": {name: getattr(bounds, name) for name in bounds.__slots__},
        "places": places,
        "tokenizer": {
            "name": engine.tokenizer.name,
            "files": {
                name: (folder / name).read_text(encoding="utf-8")
                for name in TOKENIZER_FILES
                if (folder / name).is_file()
            },
        },
    }


def connect(url: str, patience: float = START, stopped: Callable[[], bool] = lambda: False) -> RemoteEngine:
    """The engine at an address of `ui.backends.serve`. patience: seconds to wait for it. Raises CheckpointError."""
    deadline, told = time.monotonic() + patience, False
    while True:
        try:
            answer = httpx.get(f"{url}/describe", timeout=httpx.Timeout(10, read=max(1.0, patience)))
            answer.raise_for_status()
            return RemoteEngine(url, answer.json())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            if isinstance(error, httpx.InvalidURL) or time.monotonic() > deadline:
                raise CheckpointError(
                    f"No engine answers at {url}: start one with python -m ui.backends.serve."
                ) from error
            if not told:
                logger.info("waiting for the engine at %s", url)
                told = True
            time.sleep(0.5)


class RemoteEngine(EngineInterface):
    """Replicas behind one address, all of one checkpoint; any of them answers any request.

    description: what `describe` made. places: runs at once.
    """

    def __init__(self, url: str, description: dict[str, Any]) -> None:
        self.url = url
        for name in ("checkpoint", "device", "dtype", "attention", "versions"):
            setattr(self, name, description[name])
        self.defaults = Defaults(**description["defaults"])
        self._bounds = Bounds(**description["bounds"])
        self._exact, self._places = bool(description["exact"]), int(description["places"])
        with TemporaryDirectory() as folder:
            home = Path(folder) / Path(description["tokenizer"]["name"]).name
            home.mkdir()
            for name in TOKENIZER_FILES:
                if text := description["tokenizer"]["files"].get(name):
                    (home / name).write_text(text, encoding="utf-8")
            self.tokenizer = Tokenizer(home)
        self._seen, self._there = 0.0, True

    @property
    def bounds(self) -> Bounds:
        return self._bounds

    @property
    def exact(self) -> bool:
        return self._exact

    @property
    def places(self) -> int:
        return self._places

    def _prompt(self, request: Request) -> list[int]:
        if request.images:
            raise RequestError(
                "Pictures do not travel to replicas: leave them out, or load the checkpoint in the page."
            )
        return super()._prompt(request)

    def settle(self) -> None:
        """Replicas see to that themselves."""

    def close(self) -> None:
        """The replicas stay: others may use them."""

    @property
    def reachable(self) -> bool:
        """Whether the replicas' address answers, asked anew every few seconds."""
        if time.monotonic() - self._seen > FRESH:
            try:
                self._there = httpx.get(f"{self.url}/-/healthz", timeout=2).is_success
            except httpx.HTTPError:
                self._there = False
            self._seen = time.monotonic()
        return self._there

    def stream(self, request: Request) -> Generator[Event | None, None, None]:
        """As `Engine.stream`; besides, None where nothing has come for a moment, so that a stop is noticed meanwhile.

        Closing it closes the connection, and the replica stops within one forward.
        """
        self.encode(request)
        return self._lines("/run", request.to_json(), Event.from_json)

    def ceiling(self, request: Request, budget: int | None = None) -> Generator[Progress | None, None, None]:
        self.encode(request)
        return self._lines("/ceiling", request.to_json() | {"budget": budget}, Progress.from_json)

    def _lines(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> Generator[T | None, None, None]:
        """What a replica streams, one JSON object per line; {"end": …} or {"error": …} is the last one."""
        lines: SimpleQueue[str | Future[None]] = SimpleQueue()
        try:
            # The loop runs in a thread of its own: the one that closes this may run one already, as Gradio's does.
            with start_blocking_portal(name="replica") as portal:
                asking = portal.start_task_soon(self._ask, path, body, lines.put)
                asking.add_done_callback(lines.put)
                try:
                    while True:
                        try:
                            line = lines.get(timeout=TICK)
                        except Empty:
                            yield None
                            continue
                        if isinstance(line, Future):
                            line.result()
                            raise RequestError(LOST)
                        if not line:
                            continue
                        data = json.loads(line)
                        if "error" in data:
                            raise RequestError(str(data["error"]))
                        if "end" in data:
                            return
                        yield read(data)
                finally:
                    asking.cancel()  # which closes the connection
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.HTTPStatusError) as error:
            raise RequestError(AWAY) from error
        except RequestError:
            raise
        except (httpx.HTTPError, NemodiffError, TimeoutError, ValueError, KeyError, TypeError) as error:
            logger.warning("a replica was lost: %s", type(error).__name__)
            raise RequestError(LOST) from error

    async def _ask(self, path: str, body: dict[str, Any], tell: Callable[[str], None]) -> None:
        """Tell of every line of the answer. Raises TimeoutError after SILENCE."""
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(10, read=START)) as client,
            client.stream("POST", self.url + path, json=body) as response,
        ):
            response.raise_for_status()
            with anyio.fail_after(SILENCE) as patience:
                async for line in response.aiter_lines():
                    tell(line)
                    patience.deadline = anyio.current_time() + SILENCE
