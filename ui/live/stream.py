"""A run's events as they come, at the pace that its page takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ui.live.messages import Batch, Finished
from ui.live.run import Run

#: Seconds between two batches while the model is faster than that.
PAUSE = 0.04
#: A batch at least this often, so that a closed tab or Stop is noticed while a forward is long.
PATIENCE = 1.0
#: Messages that a page may be behind; one that is slower gets no events until it has caught up.
BEHIND = 24
#: Seconds after a run's end that such a page is given; then it gets the end, sees what it missed and asks for it.
LINGER = 20.0


def follow(run: Run, behind: Callable[[], int] = lambda: 0) -> Iterator[Batch | Finished]:
    """Batches of a run that was started, until it has finished.

    behind: messages that were yielded and that the page has not taken yet. The model never waits for the page: it
    writes to the Run, whose length the request bounds.
    """
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
                yield Batch(run, 0, 0)  # so that a page that is gone is noticed
            continue
        if there > sent or not run.ended:
            yield Batch(run, sent, there)
            sent = there
        if run.ended and run.wait(sent, 0) == sent:
            break
        time.sleep(PAUSE)
    yield Finished(run, sent)
