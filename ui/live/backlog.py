"""How far a page is behind what was sent to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def behind(page: Any, session: str | None) -> Callable[[], int]:
    """A function that counts the messages which Gradio holds for a visitor's page, 0 where it cannot be known.

    Gradio's queue of a page has no bound and no public length, so its own table is looked at.
    """

    def count() -> int:
        waiting = getattr(getattr(page, "_queue", None), "pending_messages_per_session", None)
        messages = waiting.get(session) if waiting is not None and session else None
        return messages.qsize() if messages is not None else 0

    return count
