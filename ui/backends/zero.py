"""ZeroGPU: decoding in the process that the GPU is lent to. State set there does not come back; only what is yielded.

So the lent generator yields Events, and the Run in the page's own process records and relays them: Stop closes the
generator here, which ends it there at its next yield, and a resync is answered from what was relayed.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gradio as gr

from nemodiff.engine.interface import Described, steps
from nemodiff.errors import NemodiffError, RequestError
from nemodiff.request import Request
from nemodiff.trace.events import Event
from ui.backends.zero_refusals import AWAY, Less, sentence
from ui.live.run import Decode
from ui.wire import explain

logger = logging.getLogger(__name__)

#: Seconds of a lent GPU: before the first forward, and a new token of a lane. A guess that was never measured on one.
START, TOKEN = 15.0, 0.06
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


def less(request: Request) -> Less:
    """What of a request to lower so that a GPU for fewer seconds is enough."""
    others = " or choose fewer modes" if len(request.modes) > 1 else ""

    def lower(seconds: float | None) -> str | None:
        if seconds is None:
            return f"lower the new tokens{others}"
        tokens = int((seconds - START) / (TOKEN * len(request.modes)))
        return f"lower the new tokens to {tokens}{others}" if tokens > 0 else None

    return lower


def decoder(engine: Callable[[], Described], lend: Lend) -> Decode:
    """`engine().stream` on a lent GPU: Events, None where it can be stopped before one, or a sentence as the last value
    where it could not go on."""

    def stream(request: Request) -> Iterator[Event | str | None]:
        try:
            yield from steps(engine().stream(request))
        except Exception as error:  # noqa: BLE001 - the class would come back, the sentence would not
            yield explain(error)

    on_gpu = lent(engine, lend, duration, stream, less)

    def decode(request: Request) -> Generator[Event | str | None, None, None]:
        yield from on_gpu(dataclasses.replace(request, time_limit=float(duration(request))))

    return decode


def lent(
    engine: Callable[[], Described],
    lend: Lend,
    seconds: Callable[..., float],
    work: Callable[..., Iterator[T]],
    less: Callable[..., Less] = lambda *_: lambda _: None,
) -> Callable[..., Iterator[T]]:
    """A generator function, run in the process that a GPU is lent to for `seconds` of the same arguments, of which
    `less` says what could be lowered.

    Rows that round alike are found anew there: the ones found on loading are another machine's. lend: `spaces.GPU`; it
    is used here, since ZeroGPU wants it before the page is launched. What is made raises RequestError.
    """
    settled: set[int] = set()

    @lend(duration=seconds)
    def on_gpu(*values: Any) -> Iterator[T]:
        if os.getpid() not in settled:
            settled.add(os.getpid())
            engine().settle()
        yield from work(*values)

    def run(*values: Any) -> Iterator[T]:
        with told(less(*values), seconds(*values)):
            yield from on_gpu(*values)

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
