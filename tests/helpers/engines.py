"""Engines for tests of what lies above them."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Event, Position, Trace
from nemodiff.trace.recorder import Recorder
from ui import wire
from ui.live.run import Run, Runs
from ui.live.stage import packed
from ui.live.stream import follow


class WithText:
    """The tiny engine takes ids only; this gives each prompt text its ids."""

    def __init__(self, engine):
        self._engine = engine

    @property
    def bounds(self):
        return self._engine.bounds

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


def sent(name: str, values: tuple[Any, ...]) -> list[Any]:
    """What one of the page's functions is called with: of the stage's own events, the event's data."""
    if name in ("branch", "speed_of_light", "draw"):
        return [gr.EventData(None, value) for value in values]
    return list(values)


def streamed(
    engine: Any,
    request: Request,
    runs: Runs | None = None,
    name: str = "",
    *,
    ended: Callable[[Run], None] = lambda run: None,
    wanted: Callable[[], bool] = lambda: False,
    behind: Callable[[], int] = lambda: 0,
) -> Iterator[str]:
    """What the stage is sent of a run that has waited in no line."""
    run = None
    try:
        run = Run(engine, request, ended, wanted)
        run.start()
        (runs or Runs()).add(run, name)
        for message in follow(run, behind):
            yield from packed(message)
    except RequestError as error:
        yield wire.failure(str(error))
    finally:
        if run is not None:
            run.let_go()


def messages(engine: MadeEngine, prompt: str = "hello", runs: Runs | None = None) -> list[dict]:
    request = Request(prompt=prompt, modes=("ar",))
    return [json.loads(text) for text in streamed(engine, request, runs, "visitor")]
