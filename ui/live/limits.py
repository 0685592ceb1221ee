"""How much a visitor may ask for."""

from __future__ import annotations

from nemodiff.engine.interface import EngineInterface
from nemodiff.errors import RequestError
from nemodiff.request import Request
from ui.settings import Settings


def within(request: Request, settings: Settings, engine: EngineInterface) -> None:
    """The check of everything that the model is asked, whichever way it came: the page, a branch, a search, a sweep, a
    program. Raises RequestError when a request is longer than this page allows, or cannot be run at all.

    What costs is counted: tokens, as the model will read them. A branch brings ids instead of text, pictures become
    hundreds of tokens each.
    """
    if request.max_new_tokens > settings.max_new_tokens:
        raise RequestError(
            f"This page makes up to {settings.max_new_tokens} new tokens per run: ask for no more than that."
        )
    if len(request.prompt) > settings.max_prompt:
        raise RequestError(f"This page takes prompts of up to {settings.max_prompt:,} characters: shorten yours.")
    if request.characters > settings.max_prompt:
        shorten = "let the conversation go, or shorten what you ask" if request.history else "shorten one of the two"
        raise RequestError(
            f"This page takes up to {settings.max_prompt:,} characters, and what comes before the prompt counts: "
            f"together they have {request.characters:,}. To go on, {shorten}."
        )
    if (tokens := len(engine.encode(request))) > settings.max_prompt_tokens:
        raise RequestError(
            f"This page reads up to {settings.max_prompt_tokens:,} tokens before it writes, and these are {tokens:,}: "
            "shorten the prompt."
        )
