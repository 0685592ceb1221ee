"""A conversation before a prompt: what was asked and answered in earlier turns, as chat messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemodiff.errors import RequestError, shown

ROLES = ("user", "assistant")
#: Messages before a prompt, two per turn.
MAX_MESSAGES = 64
#: Pictures of one message.
MAX_PICTURES = 8
_FORM = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}, …]'


@dataclass(frozen=True, slots=True)
class Message:
    """What a user asked or the assistant answered. role: one of ROLES. images: pictures that a user's message brought:
    so many of the request's own, in their order, the first message first."""

    role: str
    content: str
    images: int = 0

    def to_json(self) -> dict[str, Any]:
        pictures = {"images": self.images} if self.images else {}
        return {"role": self.role, "content": self.content} | pictures


def conversation(values: Any) -> tuple[Message, ...]:
    """The messages of Message objects or their JSON, the oldest first. Raises RequestError where they do not take
    turns, the user first and the assistant last: a prompt follows them."""
    if not isinstance(values, tuple | list):
        raise RequestError(f"history must be a list of messages, {_FORM}, not {shown(values)}.")
    if len(values) > MAX_MESSAGES:
        raise RequestError(
            f"A conversation goes on for up to {MAX_MESSAGES} messages before a prompt, and these are "
            f"{len(values):,}: leave the oldest turns out, or let the conversation go."
        )
    messages = tuple(_message(value, number) for number, value in enumerate(values))
    if len(messages) % 2:
        raise RequestError("history must end with an answer of the assistant's: the prompt follows it.")
    return messages


def _message(value: Any, number: int) -> Message:
    role = ROLES[number % 2]
    if isinstance(value, Message):
        value = value.to_json()
    if not isinstance(value, Mapping) or set(value) - {"images"} != {"role", "content"}:
        raise RequestError(f"history must be a list of messages, {_FORM}; message {number + 1} is {shown(value)}.")
    content = value["content"]
    if isinstance(content, list):
        raise RequestError(
            f"history holds texts, and message {number + 1} has parts: give its pictures with the prompt's, before "
            'them, and say how many they are ("images": 1).'
        )
    if value["role"] != role:
        raise RequestError(
            f"history must take turns, the user first: message {number + 1} must be the {role}'s, "
            f"not {shown(value['role'])}."
        )
    if not isinstance(content, str) or (role == "user" and not content.strip()):
        raise RequestError(f"Message {number + 1} of history is empty: leave that turn out.")
    images = value.get("images", 0)
    if type(images) is not int or not 0 <= images <= (MAX_PICTURES if role == "user" else 0):
        raise RequestError(f"Message {number + 1} of history cannot have brought {shown(images)} pictures.")
    return Message(role, content, images)
