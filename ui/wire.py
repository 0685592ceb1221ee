"""Runs and traces as the flat JSON strings that the stage takes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from nemodiff.engine.interface import Described
from nemodiff.errors import NemodiffError, TraceError
from nemodiff.request import Request
from nemodiff.trace.events import MAX_BYTES, SCHEMA, Trace
from ui.live.run import UNEXPECTED, Decode, Run, Runs
from ui.page.form import for_browser
from ui.render.trajectory import from_trajectory

logger = logging.getLogger(__name__)

#: Seconds between two yields while the model is faster than that.
PAUSE = 0.04
#: A yield at least this often, so that a closed tab or Stop is noticed while a forward is long.
PATIENCE = 1.0
#: Messages that a page may be behind; one that is slower gets no events until it has caught up.
BEHIND = 24
#: Seconds after a run's end that such a page is given; then it gets the end, sees what it missed and asks for it.
LINGER = 20.0
STOPPED = "The run was stopped before its first token."
#: Characters of a sentence: some repeat what was sent.
MAX_SENTENCE = 400

_numbers = count(1)


def pack(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def failure(sentence: str) -> str:
    """One sentence for the stage's message line. Numbered, so that the same one twice is two messages."""
    return pack({"error": sentence, "n": next(_numbers)})


def waiting(sentence: str, ahead: int) -> str:
    """How a run stands in the line, for the stage. ahead: how many runs come first."""
    return pack({"wait": sentence, "ahead": ahead, "n": next(_numbers)})


def explain(error: Exception) -> str:
    """A person's sentence for any error; what was not expected goes to the log instead."""
    if isinstance(error, NemodiffError):
        text = str(error)
        return text if len(text) <= MAX_SENTENCE else f"{text[:MAX_SENTENCE]}…"
    logger.error("unexpected error", exc_info=error)
    return UNEXPECTED


def stream(
    engine: Described,
    request: Request,
    runs: Runs,
    name: str = "",
    *,
    decode: Decode | None = None,
    started: Callable[[Run], None] = lambda run: None,
    ended: Callable[[Run], None] = lambda run: None,
    wanted: Callable[[], bool] = lambda: False,
    behind: Callable[[], int] = lambda: 0,
) -> Iterator[str]:
    """Decode a request; yields batches of events, then each lane's answer, then a small end message.

    Closing this generator lets go of the run, which ends soon unless a page asks for the rest of it. Errors are yielded
    as one sentence, never raised. decode, ended, wanted: see Run. started: called once the run goes on in its thread.
    name: what `resync` finds the run by, besides its id. behind: messages that were yielded and that the page has not
    taken yet. The model never waits for the page: it writes to the Run, whose length the request bounds.
    """
    run = None
    try:
        run = Run(engine, request, decode, ended, wanted)
        run.start()
        runs.add(run, name)
        started(run)
        yield from _batches(run, behind)
    except Exception as error:  # noqa: BLE001 - the page shows a sentence whatever happened
        yield failure(explain(error))
    finally:
        if run is not None:
            run.let_go()


def _batches(run: Run, behind: Callable[[], int]) -> Iterator[str]:
    sent, patience = 0, LINGER
    while True:
        there = run.wait(sent, PATIENCE)
        slow = behind() >= BEHIND
        if slow and run.ended:
            if patience <= 0:
                break
            patience -= PATIENCE
        if slow:
            time.sleep(PATIENCE)
            if not run.ended:
                yield pack({"n": next(_numbers)})  # so that a page that is gone is noticed
            continue
        if there > sent:
            yield pack(run.batch(sent, there))
            sent = there
        elif not run.ended:
            yield pack({"run": run.id, "ev": []} if sent else {"n": next(_numbers)})
        if run.ended and run.wait(sent, 0) == sent:
            break
        time.sleep(PAUSE)
    if not run.wait(0, 0):
        yield failure(run.error or STOPPED)
        return
    if run.wait(sent, 0) == sent:
        yield pack({"run": run.id, "ev": [], "lanes": run.answers()})
    yield pack(run.end())


def resync(runs: Runs, name: Any, after: Any = 0) -> str:
    """A recent run from event after+1 on, by its id or the name that it was asked for under; an empty string when it is
    not kept any more."""
    found = runs.get(name) if isinstance(name, str) else None
    if found is None:
        return ""
    data = found.since(after if type(after) is int else 0)
    if data["ev"] or after:
        return pack(data)
    return failure(found.error or STOPPED) if found.ended else pack({"n": next(_numbers)})


def named(name: str, message: str) -> str:
    """A message that says which of a page's requests it answers."""
    return f'{message[:-1]},"ticket":{json.dumps(name)}}}' if name else message


def replay(trace: Trace, kind: str = "replay") -> str:
    """A whole trace for the stage; kind: replay (a visitor's file) or recorded (one that comes with the page)."""
    return pack({"run": f"{kind}-{next(_numbers)}", "kind": kind, "trace": for_browser(trace.to_dict())})


def read_trace(path: str | Path, limit: int = MAX_BYTES) -> Trace:
    """A run from an untrusted file: a trace, or diffusers' sampling trajectory. Raises TraceError."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise TraceError("The file could not be read; load it again.") from error
    if len(data) > limit:
        raise TraceError(f"The trace is larger than {limit // 2**20} MB; load a shorter run.")
    if b'"frames"' in data and SCHEMA.encode() not in data:
        return from_trajectory(data)
    return Trace.from_json(data)


def recording(folder: Path) -> str | None:
    """The first recorded run in a folder, ready for the stage; None when there is none that can be read."""
    for path in sorted(folder.glob("*.json")):
        try:
            return replay(read_trace(path), "recorded")
        except NemodiffError as error:
            logger.warning("%s: %s", path.name, error)
    return None
