"""Messages to the page: flat JSON strings, sentences for errors among them."""

from __future__ import annotations

import json
import logging
from itertools import count
from typing import Any

from nemodiff.errors import NemodiffError
from nemodiff.trace import answers
from nemodiff.trace.events import Trace
from nemodiff.trace.values import for_browser

logger = logging.getLogger(__name__)

TURN = "This run's turn has come: waiting for its first token…"
STOPPED = "The run was stopped before its first token."
#: Characters of a sentence: some repeat what was sent.
MAX_SENTENCE = 400

#: What was not expected goes to the log; a person reads this.
UNEXPECTED = "Something went wrong on the server; the run was ended. Try again, or with other settings."

_numbers = count(1)


def fresh() -> str:
    """A message that says nothing but that the run goes on."""
    return pack({"n": next(_numbers)})


def begun() -> str:
    """A run's turn has come, and no token of it yet: in place of what was said of the line."""
    return pack({"wait": TURN, "n": next(_numbers)})


def pack(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def failure(sentence: str) -> str:
    """One sentence for the stage's message line. Numbered, so that the same one twice is two messages."""
    return pack({"error": sentence, "n": next(_numbers)})


def waiting(sentence: str, ahead: int) -> str:
    """A run's place in the line, for the stage. ahead: how many runs come first."""
    return pack({"wait": sentence, "ahead": ahead, "n": next(_numbers)})


def explain(error: Exception) -> str:
    """A person's sentence for any error; what was not expected goes to the log instead."""
    if isinstance(error, NemodiffError):
        text = str(error)
        return text if len(text) <= MAX_SENTENCE else f"{text[:MAX_SENTENCE]}…"
    logger.error("unexpected error", exc_info=error)
    return UNEXPECTED


def named(name: str, message: str) -> str:
    """A message that says which of a page's requests it answers."""
    return f'{message[:-1]},"ticket":{json.dumps(name)}}}' if name else message


def replay(trace: Trace, kind: str = "replay") -> str:
    """A whole trace for the stage; kind: replay (a visitor's file) or recorded (one that comes with the page)."""
    data = {"kind": kind, "trace": for_browser(trace.to_dict()), "marks": answers.for_stage(trace)}
    return pack({"run": f"{kind}-{next(_numbers)}"} | data)
