"""Prompt and settings as a URL's query and back. What a URL says is untrusted: a value that is off is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from nemodiff.errors import RequestError
from nemodiff.request import (
    ACCEPTANCES,
    DRAFTS,
    MAX_BLOCK_LENGTH,
    MAX_NEW_TOKENS,
    MAX_PROMPT_CHARACTERS,
    MAX_TREE_ROWS,
    ORDERS,
    SAMPLERS,
    whole_characters,
)
from nemodiff.trace.events import MODES

#: The name of an example picture stands beside the fields: a picture of one's own is in no link.
PICTURE = "picture"
#: Characters of a query that browsers and proxies still carry.
MAX_QUERY = 6_000


@dataclass(frozen=True, slots=True)
class _Number:
    low: float
    high: float
    whole: bool = True

    def read(self, text: str) -> float | int:
        value = int(text) if self.whole else float(text)
        if not self.low <= value <= self.high:  # also refuses nan
            raise ValueError
        return value

    @staticmethod
    def holds(value: Any) -> bool:
        return value is None or (type(value) in (int, float) and abs(value) <= 2**63)

    def write(self, value: Any) -> str:
        whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else str(value)


@dataclass(frozen=True, slots=True)
class _Choice:
    allowed: tuple[str, ...]

    def read(self, text: str) -> str:
        if text not in self.allowed:
            raise ValueError
        return text

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.allowed

    write = staticmethod(str)


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


class _Flag:
    def read(self, text: str) -> bool:
        if text not in ("0", "1"):
            raise ValueError
        return text == "1"

    @staticmethod
    def holds(value: Any) -> bool:
        return isinstance(value, bool)

    def write(self, value: bool) -> str:
        return str(int(value))


class _Prompt:
    def read(self, text: str) -> str:
        if not text.strip() or len(text) > MAX_PROMPT_CHARACTERS:
            raise ValueError
        return text

    @staticmethod
    def holds(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= MAX_PROMPT_CHARACTERS

    write = staticmethod(str)


#: What the page calls a field, where that is not its name in a URL.
LABELS = {
    "entropy": "entropy bound",
    "steps": "steps a block",
    "tokens": "new tokens",
    "go_on": "go on after EOS",
    "raw": "raw prompt",
    "draft": "drafts",
    "acceptance": "drafts at a temperature",
    "ar_weight": "AR's weight in the verifier",
}
#: Fields under "More": a link that sets one of them opens it.
MORE = frozenset({"seed", "go_on", "raw", "acceptance", "ar_weight"})

#: In the order of the page's fields: the name in a URL, and how its value reads.
FIELDS: dict[str, Any] = {
    "prompt": _Prompt(),
    "modes": _Modes(),
    "block": _Number(2, MAX_BLOCK_LENGTH),
    "sampler": _Choice(SAMPLERS),
    "threshold": _Number(0, 1, whole=False),
    "entropy": _Number(0, 100, whole=False),
    "steps": _Number(1, MAX_BLOCK_LENGTH),
    "temperature": _Number(0, 10, whole=False),
    "seed": _Number(0, 2**53 - 1),  # a number field's exact integers
    "tokens": _Number(1, MAX_NEW_TOKENS),
    "go_on": _Flag(),
    "raw": _Flag(),
    "draft": _Choice(DRAFTS),
    "acceptance": _Choice(ACCEPTANCES),
    "ar_weight": _Number(0, 1, whole=False),
    "order": _Choice(ORDERS),
    "rows": _Number(2, MAX_TREE_ROWS),
}


def query(values: list[Any], defaults: list[Any], picture: str | None = None) -> str:
    """The query of the fields' values, in the order of FIELDS; what is as by default, or empty, is left out.

    The prompt always stands in it. picture: the name of an example. Raises RequestError when it does not fit a URL.
    """
    for value in values:
        if isinstance(value, str):
            whole_characters(value)
    pairs = [
        (name, field.write(value))
        for (name, field), value, default in zip(FIELDS.items(), values, defaults, strict=True)
        if value not in (None, []) and (name == "prompt" or value != default)
    ]
    if picture:
        pairs.append((PICTURE, picture))
    text = urlencode(pairs)
    if len(text) > MAX_QUERY:
        raise RequestError("The prompt is too long for a link: save the trace and share that file.")
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
