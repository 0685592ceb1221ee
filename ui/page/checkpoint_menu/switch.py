"""The header's choice of a checkpoint: fetch its files, wait for the model, load it in place of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from ui.live.desk import Desk
from ui.live.messages import Finished, Refused, Waiting
from ui.live.models import Checkpoints
from ui.page.form import Form

FAILED = "() => document.querySelector('#checkpoint').failed()"


class Switch:
    """Only where the owner lets visitors choose: nothing is there else. top: the page's header."""

    def __init__(self, checkpoints: Checkpoints, desk: Desk, top: Any, form: Form) -> None:
        self._checkpoints, self._desk, self._top, self._form = checkpoints, desk, top, form

    def wire(self, model: dict[str, Any], quiet: dict[str, Any]) -> Any:
        """Returns the event after which another one may run. model, quiet: options of events that use the model, and of
        others."""
        top, shows = self._top, [self._top, *self._form.of_checkpoint]
        alone: dict[str, Any] = {"concurrency_id": "checkpoint", "concurrency_limit": 1, "trigger_mode": "multiple"}
        fetching = top.choose(self.fetch, None, top, **alone, **quiet)
        swapping = fetching.then(self.swap, None, shows, **model)
        for part in (fetching, swapping):
            # Without a word of the server, which may be what is missing.
            part.failure(None, js=FAILED, queue=False, **quiet)
        top.cancel(self.cancel, None, top, queue=False, **quiet)
        return swapping

    def fetch(self, event: gr.EventData, visitor: gr.Request) -> Iterator[str]:
        yield from self._checkpoints.fetch(event._data, visitor.session_hash)

    def swap(self, visitor: gr.Request) -> Iterator[list[Any]]:
        checkpoints, session = self._checkpoints, visitor.session_hash
        same = [gr.skip()] * len(self._form.of_checkpoint)
        if not checkpoints.ready(session):
            yield [gr.skip(), *same]  # for Gradio a generator that yields nothing has emptied the fields
            return
        before = checkpoints.engine
        swap = lambda _: checkpoints.swap(session)  # noqa: E731
        with closing(self._desk.take(visitor, swap, (_name(visitor),))) as messages:
            for message in messages:
                match message:
                    case Waiting():
                        state = checkpoints.waits(session)
                    case Refused(sentence):
                        state = checkpoints.state(error=sentence)
                    case Finished():
                        state = checkpoints.state()
                    case str():
                        state = message
                yield [state, *(self._form.shown() if checkpoints.engine is not before else same)]

    def cancel(self, visitor: gr.Request) -> str:
        self._desk.halt(_name(visitor))
        return self._checkpoints.cancel(visitor.session_hash)


def _name(visitor: gr.Request) -> str:
    """What the line knows this page's switch by."""
    return f"checkpoint {visitor.session_hash}"
