"""ZeroGPU: decoding in the process that the GPU is lent to. State set there does not come back; only what is yielded.

So the engine's generator yields Events from there, and the Run in the page's own process records and relays them: Stop
closes the generator here, which ends it there at its next yield, and a resync is answered from what was relayed.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import gradio as gr

from nemodiff.engine.interface import Bounds, EngineInterface, steps
from nemodiff.errors import NemodiffError, RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Event
from nemodiff.trace.oracle import Progress
from ui.backends.zero_refusals import AWAY, Less, sentence
from ui.wire import explain

logger = logging.getLogger(__name__)

#: Seconds of a lent GPU: before the first forward, and a new token of a lane. A guess that was never measured on one.
START, TOKEN = 15.0, 0.06
#: The same for a search for a ceiling that has no time limit.
SEARCH = 120.0
COMPARE = (
    "A sweep needs the model for minutes, which ZeroGPU does not lend: duplicate this Space on hardware of its own."
)

T = TypeVar("T")
#: duration → decorator: `spaces.GPU`.
Lend = Callable[..., Callable[[Callable], Callable]]


def duration(request: Request) -> int:
    """Seconds of GPU that a request is given, its time limit at most."""
    wanted = START + TOKEN * request.max_new_tokens * len(request.modes)
    return math.ceil(min(wanted, request.time_limit or wanted))


def _search_duration(request: Request, _: int | None) -> float:
    return request.time_limit or SEARCH


def less(request: Request) -> Less:
    """What of a request to lower so that a GPU for fewer seconds is enough."""
    others = " or choose fewer modes" if len(request.modes) > 1 else ""

    def lower(seconds: float | None) -> str | None:
        if seconds is None:
            return f"lower the new tokens{others}"
        tokens = int((seconds - START) / (TOKEN * len(request.modes)))
        return f"lower the new tokens to {tokens}{others}" if tokens > 0 else None

    return lower


class LentEngine(EngineInterface):
    """An engine of this process whose model works where the GPU is lent to. lend: `spaces.GPU`; it is used here, since
    ZeroGPU wants it before the page is launched."""

    def __init__(self, engine: EngineInterface, lend: Lend) -> None:
        self._engine = engine
        self.checkpoint, self.device, self.dtype = engine.checkpoint, engine.device, engine.dtype
        self.attention, self.versions = engine.attention, engine.versions
        self.tokenizer, self.defaults = engine.tokenizer, engine.defaults
        self._settled: set[int] = set()
        self._events = self._lent(lend, duration, lambda request: steps(engine.stream(request)), less)
        self._search = self._lent(lend, _search_duration, lambda request, budget: engine.ceiling(request, budget))

    @property
    def exact(self) -> bool:
        return self._engine.exact

    @property
    def bounds(self) -> Bounds:
        return self._engine.bounds

    @property
    def sees(self) -> bool:
        return self._engine.sees

    @property
    def weight_bytes(self) -> int:
        return self._engine.weight_bytes

    def settle(self) -> None:
        self._engine.settle()

    def close(self) -> None:
        self._engine.close()

    def encode(self, request: Request) -> list[int]:
        return self._engine.encode(request)

    def grids(self, request: Request) -> list[tuple[int, int]]:
        return self._engine.grids(request)

    def stream(self, request: Request) -> Generator[Event | None, None, None]:
        self.encode(request)
        return self._events(dataclasses.replace(request, time_limit=float(duration(request))))

    def ceiling(self, request: Request, budget: int | None = None) -> Generator[Progress | None, None, None]:
        self.encode(request)
        return self._search(request, budget)

    def _lent(
        self,
        lend: Lend,
        seconds: Callable[..., float],
        work: Callable[..., Iterator[T]],
        less: Callable[..., Less] = lambda *_: lambda _: None,
    ) -> Callable[..., Generator[T, None, None]]:
        """A generator function whose work is done in the process that a GPU is lent to for `seconds` of the same
        arguments, of which `less` says what could be lowered. It raises RequestError.

        Rows that round alike are found anew there: the ones found on loading are another machine's.
        """

        @lend(duration=seconds)
        def on_gpu(*values: Any) -> Iterator[T | str]:
            try:
                if os.getpid() not in self._settled:
                    self._settled.add(os.getpid())
                    self._engine.settle()
                yield from work(*values)
            except Exception as error:  # noqa: BLE001 - the class would come back, the sentence would not
                yield explain(error)

        def run(*values: Any) -> Generator[T, None, None]:
            with told(less(*values), seconds(*values)), closing(on_gpu(*values)) as items:
                for item in items:
                    if isinstance(item, str):
                        raise RequestError(item)
                    yield item

        return run


@contextmanager
def told(less: Less, seconds: float) -> Iterator[None]:
    """What ZeroGPU refuses with (no GPU, no quota left, aborted) as a RequestError. seconds: that were asked for."""
    try:
        yield
    except NemodiffError:
        raise
    except gr.Error as error:
        raise RequestError(sentence(error.title, error.message, less, seconds)) from error
    except Exception as error:
        logger.exception("ZeroGPU failed")
        raise RequestError(AWAY) from error
