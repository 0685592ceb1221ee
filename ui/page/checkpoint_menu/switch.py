"""The header's choice of a checkpoint: fetch its files, wait for the model, load it in place of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ui.live.desk import Desk
from ui.live.messages import Finished, Refused, Waiting
from ui.live.models import Checkpoints

CHOSEN = "() => document.querySelector('#checkpoint').chosen"
FAILED = "() => document.querySelector('#checkpoint').failed()"


class Switch:
    """Only where the owner lets visitors choose: nothing is there else.

    shows: the header, then the fields whose defaults are the checkpoint's.
    """

    def __init__(self, checkpoints: Checkpoints, desk: Desk, shows: list[Any]) -> None:
        self._checkpoints, self._desk, self._shows = checkpoints, desk, shows

    def wire(self, held: Any, model: dict[str, Any], quiet: dict[str, Any]) -> Any:
        """Returns the event after which another one may run. held: a component that lends its place among the inputs;
        model, quiet: options of events that use the model, and of others."""
        switch = gr.Button("Load", visible="hidden", elem_id="switch")
        halt = gr.Button("Cancel", visible="hidden", elem_id="cancel-switch")
        alone: dict[str, Any] = {"concurrency_id": "checkpoint", "concurrency_limit": 1, "trigger_mode": "multiple"}
        fetching = switch.click(self.fetch, held, self._shows[0], js=CHOSEN, **alone, **quiet)
        swapping = fetching.then(self.swap, None, self._shows, **model)
        for part in (fetching, swapping):
            # Without a word of the server, which may be what is missing.
            part.failure(None, js=FAILED, queue=False, **quiet)
        halt.click(self.cancel, None, self._shows[0], queue=False, **quiet)
        return swapping

    def fetch(self, name: str, visitor: gr.Request) -> Iterator[str]:
        yield from self._checkpoints.fetch(name, visitor.session_hash)

    def swap(self, visitor: gr.Request) -> Iterator[list[Any]]:
        checkpoints, session = self._checkpoints, visitor.session_hash
        same = [gr.skip()] * (len(self._shows) - 1)
        if not checkpoints.ready(session):
            yield [gr.skip(), *same]  # for Gradio a generator that yields nothing has emptied the fields
            return
        before = checkpoints.engine
        for message in self._desk.take(visitor, lambda _: checkpoints.swap(session), (_name(visitor),)):
            match message:
                case Waiting():
                    state = checkpoints.waits(session)
                case Refused(sentence):
                    state = checkpoints.state(error=sentence)
                case Finished():
                    state = checkpoints.state()
                case str():
                    state = message
            yield [state, *(checkpoints.defaults.values() if checkpoints.engine is not before else same)]

    def cancel(self, visitor: gr.Request) -> str:
        self._desk.halt(_name(visitor))
        return self._checkpoints.cancel(visitor.session_hash)


def _name(visitor: gr.Request) -> str:
    """What the line knows this page's switch by."""
    return f"checkpoint {visitor.session_hash}"
