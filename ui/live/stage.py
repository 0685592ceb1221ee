"""Messages as the flat JSON strings that the stage takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ui.live.messages import Batch, Finished, Message, Refused, Waiting
from ui.live.run import Run, Runs
from ui.wire import STOPPED, begun, failure, fresh, named, pack, waiting


def packed(message: Message, ticket: str = "") -> Iterator[str]:
    """A message of a run; ticket: what its page knows the request by."""
    match message:
        case Waiting(sentence, ahead):
            texts = [waiting(sentence, ahead)]
        case Refused(sentence):
            texts = [failure(sentence)]
        case Batch(run, start, stop) if stop > start:
            texts = [pack(run.batch(start, stop))]
        case Batch(run, start):
            texts = [pack({"run": run.id, "ev": []}) if start else begun()]
        case Finished(run, sent):
            texts = _end(run, sent) if run else [failure(STOPPED)]
    for text in texts:
        yield named(ticket, text)


def _end(run: Run, sent: int) -> list[str]:
    """Each lane's answer, then a small last message; a page that missed events asks for all of it."""
    there = run.wait(0, 0)
    if not there:
        return [failure(run.error or STOPPED)]
    answers = [pack({"run": run.id, "ev": [], "lanes": run.answers()})] if there == sent else []
    return [*answers, pack(run.end())]


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
