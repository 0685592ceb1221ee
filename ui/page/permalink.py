"""Prompt and settings as a URL's query and back. What a URL says is untrusted: a value that is off is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from nemodiff.errors import RequestError
from nemodiff.request import MAX_PROMPT_CHARACTERS, whole_characters
from nemodiff.setting_kinds import Texts, Whole
from nemodiff.settings import Setting, offered
from nemodiff.trace.events import MODES
from nemodiff.trace.values import MAX_WHOLE
from ui.page import conversation

#: The name of an example picture stands beside the fields: a picture of one's own is in no link.
PICTURE = "picture"
#: Characters of a query that browsers and proxies still carry.
MAX_QUERY = 6_000


class _Modes:
    def read(self, text: str) -> list[str]:
        chosen = text.split(",")
        if not set(chosen) <= set(MODES):
            raise ValueError
        return [mode for mode in MODES if mode in chosen]

    @staticmethod
    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) and one in MODES for one in value)

    write = staticmethod(",".join)


class _Prompt:
    def read(self, text: str) -> str:
        if not text.strip() or len(text) > MAX_PROMPT_CHARACTERS:
            raise ValueError
        return text

    @staticmethod
    def holds(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= MAX_PROMPT_CHARACTERS

    write = staticmethod(str)


class _System(_Prompt):
    """A system prompt; it may be empty."""

    def read(self, text: str) -> str:
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise ValueError
        return text


class _History:
    def read(self, text: str) -> str:
        if any(message.images for message in conversation.read(text)[0]):
            raise ValueError
        return text

    @staticmethod
    def holds(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= conversation.MAX_TEXT

    write = staticmethod(str)


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting of the table."""

    setting: Setting

    def read(self, text: str) -> Any:
        value = self.setting.kind.parse(text)
        self.setting.check(value)
        if isinstance(value, int) and value > MAX_WHOLE:
            raise ValueError
        return text if isinstance(self.setting.kind, Texts) else value  # as its field holds it

    def holds(self, value: Any) -> bool:
        return self.setting.kind.is_like(value)

    def write(self, value: Any) -> str:
        return self.setting.kind.write(value)


def _is_nothing(field: Any, value: Any) -> bool:
    """Whether it is the 0 that Gradio shows in an empty field of whole numbers, where 0 is none of its values."""
    kind = field.setting.kind if isinstance(field, _Setting) else None
    return value == 0 and isinstance(kind, Whole) and kind.low > 0


_SETTINGS = {setting.key: setting for setting in offered("page")}
#: What the page calls a field, where that is not its name in a URL.
LABELS = {key: setting.label for key, setting in _SETTINGS.items() if setting.label != key} | {
    "system": "system prompt",
    "history": "conversation",
}
#: Fields under "More": a link that sets one of them opens it.
MORE = frozenset(key for key, setting in _SETTINGS.items() if setting.more) | {"system"}

#: In the order of the page's fields: the name in a URL, and how its value reads.
FIELDS: dict[str, Any] = {
    "prompt": _Prompt(),
    "modes": _Modes(),
    "system": _System(),
    "history": _History(),
    **{key: _Setting(setting) for key, setting in _SETTINGS.items()},
}
#: The place of the conversation among them.
HISTORY = list(FIELDS).index("history")


def query(values: list[Any], defaults: list[Any], picture: str | None = None) -> str:
    """The query of the fields' values, in the order of FIELDS; what is as by default, or empty, is left out.

    The prompt always stands in it. picture: the name of an example. Raises RequestError when it does not fit a URL.
    """
    for value in values:
        if isinstance(value, str):
            whole_characters(value)
    if any(message.images for message in conversation.read(values[HISTORY])[0]):
        raise RequestError(
            "A link carries no picture of a conversation: let it go, or save the trace and share that file."
        )
    pairs = [
        (name, field.write(value))
        for (name, field), value, default in zip(FIELDS.items(), values, defaults, strict=True)
        if value not in (None, []) and (name == "prompt" or (value != default and not _is_nothing(field, value)))
    ]
    if picture:
        pairs.append((PICTURE, picture))
    text = urlencode(pairs)
    if len(text) > MAX_QUERY:
        before = " with what comes before it" if dict(pairs).keys() & {"system", "history"} else ""
        raise RequestError(f"The prompt{before} is too long for a link: save the trace and share that file.")
    return text


def restored(text: Any) -> dict[str, Any]:
    """The fields' values as a browser kept them, in JSON, which is untrusted: what cannot be a field's value is left
    out. A field may hold what a request would refuse: it says so when it is asked."""
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {name: data[name] for name, field in FIELDS.items() if name in data and field.holds(data[name])}


def read(parameters: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A URL's parameters → values by the names of FIELDS, and the names whose values are not usable."""
    values: dict[str, Any] = {}
    wrong = []
    for name, field in FIELDS.items():
        if name in parameters:
            try:
                values[name] = field.read(parameters[name])
            except ValueError:
                wrong.append(name)
    return values, wrong
