"""Run: one live decoding, made in its own thread; Runs: the recent ones, so that a page can ask for what it missed."""

from __future__ import annotations

import contextvars
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from nemodiff.engine.interface import EngineInterface, steps
from nemodiff.errors import NemodiffError
from nemodiff.request import Request
from nemodiff.trace import answers
from nemodiff.trace.recorder import Recorder
from ui.wire import UNEXPECTED

logger = logging.getLogger(__name__)

#: Of a run that ended before its first token: a long prompt took all of its time.
LATE = "The prompt took longer to read than the {:g} s that a run may take here: shorten it."
#: Seconds that a run goes on for a page that is gone, which may come back: a broken connection, a reload.
GRACE = 15.0
#: The same while others wait. A page whose connection broke asks at once, but the server may see the break first.
HURRY = 3.0


def awaited(gone: float, asked: float, others: bool) -> bool:
    """Whether a page may still come back that is gone since `gone` and asked for its run last at `asked`, both on the
    monotonic clock. others: whether others wait for the model."""
    return time.monotonic() - max(gone, asked) <= (HURRY if others else GRACE)


class Run:
    """Events of one request as they come, numbered from 1. The model is stopped within one forward by `stop`.

    The engine's generator is advanced and closed by one thread alone; everything else reads what that thread left.
    """

    def __init__(
        self,
        engine: EngineInterface,
        request: Request,
        ended: Callable[[Run], None] = lambda run: None,
        wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """ended: called in the model's thread once the model is free again. wanted: whether others wait for the model.
        Raises RequestError when the engine refuses the request."""
        self.id = secrets.token_urlsafe(12)
        self.recorder: Recorder = engine.recorder(request)
        self.head = self.recorder.trace.head()
        self.special = list(self.recorder.trace.special)
        self.images = request.images
        # Beside the head and not in it: a trace holds them only where the visitor says so.
        self._pictures = [image.preview() for image in request.images]
        # Tokens that a branch was given stand in no event.
        given = self.recorder.trace.to_dict()
        self._given = {name: given[name] for name in ("tokens", "byte_pieces") if given.get(name)}
        self.error = ""
        self.began = time.monotonic()
        self.first: float | None = None  # when the first event came
        self._stream = steps(engine.stream(request))
        self._limit = request.time_limit
        self._tell, self._wanted = ended, wanted
        self._gone = math.inf  # when the page was lost
        self._asked = -math.inf  # when a page last asked for what it missed
        self._events: list[tuple[dict[str, Any], dict[str, dict[str, str]]]] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        # The context knows which visitor's request this is, which ZeroGPU's scheduler asks for.
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._work,), name=f"run-{self.id}", daemon=True)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the model to stop. Sets a flag only, so it may be called from anywhere."""
        self._stopping.set()

    def let_go(self, gone: float | None = None, asked: float = -math.inf) -> None:
        """The page that this is sent to is gone, and may ask for the rest: the run goes on for a while. Sets a flag.

        gone: since when, on the monotonic clock, by default since now; asked: when it asked for it before it began."""
        self._asked = max(self._asked, asked)  # first, since the model's thread looks at both
        self._gone = time.monotonic() if gone is None else gone

    def join(self, seconds: float) -> bool:
        """Wait for the run's end; False when it goes on after `seconds`."""
        return self._ended.wait(seconds)

    def wait(self, sent: int, seconds: float) -> int:
        """Wait until there are more than `sent` events or the run has ended; returns how many there are."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > sent or self.ended, seconds)
            return len(self._events)

    def batch(self, start: int, stop: int) -> dict[str, Any]:
        """Events start+1 … stop with the token table's entries that they need for the first time."""
        given = self._given if start == 0 else {}
        tokens: dict[str, str] = dict(given.get("tokens", {}))
        pieces: dict[str, str] = dict(given.get("byte_pieces", {}))
        events = []
        for wire, fresh in self._events[start:stop]:
            events.append(wire)
            tokens |= fresh["tokens"]
            pieces |= fresh["byte_pieces"]
        data: dict[str, Any] = {"run": self.id, "ev": events}
        if start == 0:
            data |= {"head": self.head, "special": self.special}
            if self._pictures:
                data["pictures"] = self._pictures
        if tokens:
            data["tokens"] = tokens
        if pieces:
            data["byte_pieces"] = pieces
        return data

    def answers(self) -> dict[str, Any]:
        """What each lane came to, once the run has ended."""
        marks = answers.for_stage(self.recorder.trace)
        return {
            lane.mode: {"tokens": lane.tokens, "text": lane.text, "finish": lane.finish, "marks": marks[lane.mode]}
            | ({} if lane.peak_memory is None else {"peak_memory": lane.peak_memory})
            for lane in self.recorder.trace.lanes
        }

    def end(self) -> dict[str, Any]:
        """The small last message: how each lane finished and how many events there were."""
        end = {
            "finish": {lane.mode: lane.finish for lane in self.recorder.trace.lanes},
            "events": len(self._events),
        }
        return {"run": self.id, "ev": [], "end": end} | ({"error": self.error} if self.error else {})

    def since(self, sent: int = 0) -> dict[str, Any]:
        """The run from event sent+1 on, in one message, for a page that asks for it; "full" from its beginning."""
        self._asked = time.monotonic()
        with self._changed:
            sent = sent if 0 < sent <= len(self._events) else 0
            data = self.batch(sent, len(self._events)) | ({} if sent else {"full": True})
            if self.ended:
                data |= {"lanes": self.answers()} | {k: v for k, v in self.end().items() if k in ("end", "error")}
        return data

    def _over(self) -> bool:
        """Whether the run has to end: Stop was pressed, or nobody wants it any more."""
        if self._stopping.is_set():
            return True
        return self._gone != math.inf and not awaited(self._gone, self._asked, self._wanted())

    def _work(self) -> None:
        reason = "time"
        try:
            with closing(self._stream) as stream:
                for event in stream:
                    if event is None:  # a piece of a long prompt is done, or a replica had nothing to say for a while
                        if self._over():
                            reason = "stopped"
                            break
                        continue
                    self.first = self.first or time.monotonic()
                    fresh = self.recorder.add(event)
                    with self._changed:
                        wire = {"q": len(self._events) + 1, "mode": event.mode, **event.to_json()}
                        self._events.append((wire, fresh))
                        self._changed.notify_all()
                    if self._over():
                        reason = "stopped"
                        break
            if reason == "time" and not self._events and self._limit is not None:
                self.error = LATE.format(self._limit)
        except NemodiffError as error:
            self.error, reason = str(error), "stopped"
        except Exception:  # A visitor gets one sentence, the log gets the reason.
            logger.exception("a run failed", extra={"run": self.id})
            self.error, reason = UNEXPECTED, "stopped"
        finally:
            with self._changed:
                self.recorder.finish(reason)
            try:
                self._tell(self)
            except Exception:
                logger.exception("a run's end was not counted", extra={"run": self.id})
            with self._changed:
                self._ended.set()
                self._changed.notify_all()


class Runs:
    """The recent runs, by their ids and by the names that they were asked for under."""

    def __init__(self, keep: int = 12) -> None:
        """keep: so many that have ended; one that goes on is never forgotten."""
        self._keep = keep
        self._runs: dict[str, tuple[Run, str]] = {}
        self._lock = threading.Lock()

    def add(self, run: Run, name: str = "") -> None:
        """Keep a run that was started. name: of the page's own making, which it may ask for before it knows the id."""
        with self._lock:
            self._runs[run.id] = run, name
            ended = [one for one, (kept, _) in self._runs.items() if kept.ended]
            for one in ended[: max(0, len(ended) - self._keep)]:
                del self._runs[one]

    def get(self, name: str) -> Run | None:
        """A run by its id, or by the name that it was asked for under."""
        with self._lock:
            found = self._runs.get(name)
            named = (run for run, given in reversed(self._runs.values()) if name and given == name)
            return found[0] if found else next(named, None)
