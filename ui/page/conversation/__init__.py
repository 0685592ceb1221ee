"""The conversation that the next prompt goes on from: its field, what shows it, and how a link carries it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from nemodiff.conversation import Message, conversation
from nemodiff.errors import RequestError
from nemodiff.pictures import Picture
from nemodiff.request import MAX_PROMPT_CHARACTERS
from ui.live.run import Runs

FILES = Path(__file__).parent
STYLE = FILES / "conversation.css"
#: Characters of a conversation as a field holds it: JSON may write one as six.
MAX_TEXT = 6 * MAX_PROMPT_CHARACTERS


def field() -> gr.Textbox:
    """Holds the messages as JSON, or {"run", "messages"} where an earlier run has their pictures, "" without any;
    nobody types into it."""
    return gr.Textbox("", visible="hidden", elem_id="history")


def view() -> gr.HTML:
    """Shows the messages above the stage, and lets go of them."""
    return gr.HTML(
        html_template=(FILES / "conversation.html").read_text(encoding="utf-8"),
        js_on_load=(FILES / "conversation.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="talk-host",
        min_width=40,
    )


def read(text: Any) -> tuple[tuple[Message, ...], str]:
    """The messages of the field's text, which is untrusted, and the run whose pictures they brought, "" without any.
    Raises RequestError."""
    if not text:
        return (), ""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise RequestError("The conversation is too long to go on with: let it go.")
    try:
        data = json.loads(text)
        run, messages = (data.get("run", ""), data.get("messages")) if isinstance(data, dict) else ("", data)
        return conversation(messages), run if isinstance(run, str) else ""
    except (ValueError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("The conversation cannot be read: let it go and ask on anew.") from error


def pictures(text: Any, runs: Runs) -> tuple[Picture, ...]:
    """The pictures that the messages of the field's text brought, of the recent run that has them. Raises
    RequestError."""
    messages, run = read(text)
    if not (brought := sum(message.images for message in messages)):
        return ()
    earlier = runs.get(run)
    if earlier is None or len(earlier.images) < brought:
        raise RequestError(
            "The picture of this conversation is no longer kept here: let the conversation go, and ask about the "
            "picture again."
        )
    return earlier.images[:brought]
