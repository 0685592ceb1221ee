"""How much a visitor may ask for."""

from __future__ import annotations

from nemodiff.errors import RequestError
from nemodiff.request import Request
from ui.settings import Settings


def within(request: Request, settings: Settings) -> None:
    """Raises RequestError when a request is longer than this page allows."""
    if request.max_new_tokens > settings.max_new_tokens:
        raise RequestError(
            f"This page makes up to {settings.max_new_tokens} new tokens a run: ask for no more than that."
        )
    if len(request.prompt) > settings.max_prompt:
        raise RequestError(f"This page takes prompts of up to {settings.max_prompt:,} characters: shorten yours.")
