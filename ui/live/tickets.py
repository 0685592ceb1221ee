"""What a page asks for is a ticket: a name of the page's own making, unguessable, by which it can be stopped and found
again, from a reloaded page, too."""

from __future__ import annotations

import json
import re
from typing import Any

#: As `crypto.randomUUID` and the like write it.
_NAME = re.compile(r"[\w-]{16,64}")


def ticket_of(sent: Any) -> tuple[str, Any]:
    """The ticket and the rest of a value that begins with one and a newline; "" and the value itself without one."""
    if not isinstance(sent, str):
        return "", sent
    name, newline, rest = sent.partition("\n")
    return (name, rest) if newline and _NAME.fullmatch(name) else ("", sent)


def names_of(asked: Any) -> list[str]:
    """The tickets that a page wants to be stopped: a list in JSON, untrusted."""
    try:
        names = json.loads(asked)
    except (ValueError, TypeError, RecursionError):
        return []
    if not isinstance(names, list):
        return []
    return [name for name in names[:8] if isinstance(name, str) and _NAME.fullmatch(name)]


def own(name: str) -> str:
    """A page's ticket as the line knows it: apart from the names that are made here."""
    return f"ticket {name}"


def names(name: str, session: str | None) -> tuple[str, ...]:
    """What the line knows a use of the model for a stage by: its ticket, and all of this page's."""
    return (own(name), f"stage {session}") if name else ()
