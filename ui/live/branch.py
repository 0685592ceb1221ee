"""From a token on the stage to a run that goes on from it with another one."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from nemodiff.errors import RequestError
from nemodiff.request import Request
from nemodiff.trace.values import seed_of
from ui.live.run import Runs

MAX_CHARACTERS = 200_000
_UNREADABLE = "The branch could not be read; reload the page and try again."
_KNOWN = {field.name for field in fields(Request)} - {"time_limit"}


def request_of(text: str, checkpoint: str, time_limit: float, runs: Runs | None = None) -> Request:
    """The request of a branch: {"run", "checkpoint", "request" (of the run on the stage), "answer_ids"}, all untrusted.

    checkpoint: the loaded one; another one's token ids mean other words. runs: recent ones, which still have their
    pictures. Raises RequestError.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS:
        raise RequestError(_UNREADABLE)
    try:
        asked = json.loads(text)
        given = asked["request"]
        made_by = asked["checkpoint"]
        settings = {name: value for name, value in given.items() if name in _KNOWN}
        if "seed" in settings:
            settings["seed"] = seed_of(settings["seed"])
        settings["answer_ids"] = _ids(asked["answer_ids"])
        settings["modes"] = tuple(given["modes"])
        if settings.get("prompt_ids") is not None:
            settings["prompt_ids"] = _ids(settings["prompt_ids"])
        earlier = runs.get(str(asked.get("run"))) if runs else None
        # Without the pictures their sizes go to the request, which says what is missing.
        settings["images"] = earlier.images if earlier else tuple(given.get("images", ()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(_UNREADABLE) from error
    if made_by != checkpoint:
        raise RequestError(f"This run was made by another checkpoint, so {checkpoint} cannot go on from it.")
    try:
        return Request(**settings, time_limit=time_limit)
    except TypeError as error:  # a field of a type that no comparison takes
        raise RequestError(_UNREADABLE) from error


def _ids(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise TypeError
    return tuple(values)
