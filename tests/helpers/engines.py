"""Engines for tests of what lies above them."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator

from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.recorder import Recorder
from ui.live import stream as live_stream
from ui.live.run import Runs


class WithText:
    """The tiny engine takes ids only; this gives each prompt text its ids."""

    def __init__(self, engine):
        self._engine = engine

    def generate(self, request, on_event=None):
        ids = tuple(1 + ord(character) % 90 for character in request.prompt)
        return self._engine.generate(dataclasses.replace(request, prompt_ids=ids), on_event)


WAIT = 20


class MadeEngine:
    """Emits `count` AR events; waits at `hold` until released; notes how its generator ended."""

    def __init__(self, count: int = 5, hold: int | None = None, fail: Exception | None = None) -> None:
        self.count, self.hold, self.fail = count, hold, fail
        self.released, self.closed, self.made = threading.Event(), threading.Event(), 0

    def recorder(self, request: Request) -> Recorder:
        if request.prompt == "refuse":
            raise RequestError("This prompt is refused.")
        head = Trace("made", "words", "cpu", "float32", True, {}, request.to_json(), special=[0])
        token_text = lambda token: b"\xe2" if token == 3 else f"w{token} "  # noqa: E731
        return Recorder(head, request.modes, lambda ids: " ".join(map(str, ids)), token_text)

    def stream(self, request: Request) -> Iterator[Event]:
        try:
            for i in range(self.count):
                if i == self.hold:
                    assert self.released.wait(WAIT)
                if self.fail and i == 2:
                    raise self.fail
                self.made += 1
                finish = "length" if i == self.count - 1 else None
                yield Event(
                    "ar", i, "decode", 10.0 * i, i, 1, [Position(i, i, "committed", 0.5, top=[(9, 0.1)])], finish
                )
        finally:
            self.closed.set()


def messages(engine: MadeEngine, prompt: str = "hello", runs: Runs | None = None) -> list[dict]:
    request = Request(prompt=prompt, modes=("ar",))
    return [json.loads(text) for text in live_stream.stream(engine, request, runs or Runs(), "visitor")]
