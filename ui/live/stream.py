"""Runs as the messages that the stage takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from nemodiff.engine.interface import EngineInterface
from nemodiff.request import Request
from ui.live.run import Run, Runs
from ui.wire import STOPPED, explain, failure, fresh, pack

#: Seconds between two yields while the model is faster than that.
PAUSE = 0.04
#: A yield at least this often, so that a closed tab or Stop is noticed while a forward is long.
PATIENCE = 1.0
#: Messages that a page may be behind; one that is slower gets no events until it has caught up.
BEHIND = 24
#: Seconds after a run's end that such a page is given; then it gets the end, sees what it missed and asks for it.
LINGER = 20.0


def stream(
    engine: EngineInterface,
    request: Request,
    runs: Runs,
    name: str = "",
    *,
    started: Callable[[Run], None] = lambda run: None,
    ended: Callable[[Run], None] = lambda run: None,
    wanted: Callable[[], bool] = lambda: False,
    behind: Callable[[], int] = lambda: 0,
) -> Iterator[str]:
    """Decode a request; yields batches of events, then each lane's answer, then a small end message.

    Closing this generator lets go of the run, which ends soon unless a page asks for the rest of it. Errors are yielded
    as one sentence, never raised. ended, wanted: see Run. started: called once the run goes on in its thread.
    name: what `resync` finds the run by, besides its id. behind: messages that were yielded and that the page has not
    taken yet. The model never waits for the page: it writes to the Run, whose length the request bounds.
    """
    run = None
    try:
        run = Run(engine, request, ended, wanted)
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
                yield fresh()  # so that a page that is gone is noticed
            continue
        if there > sent:
            yield pack(run.batch(sent, there))
            sent = there
        elif not run.ended:
            yield pack({"run": run.id, "ev": []}) if sent else fresh()
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
    return failure(found.error or STOPPED) if found.ended else fresh()
