"""Values out of an untrusted trace file: each is checked for type and range, and named when it is off."""

from __future__ import annotations

import re
from typing import Any

from nemodiff.errors import TraceError

SCHEMA = "nemodiff.trace/1"
#: A browser's JavaScript holds no larger whole number exactly.
MAX_WHOLE = 2**53 - 1


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def broken(where: str) -> TraceError:
    return TraceError(f"The file is not a {SCHEMA} trace: {where} is missing or not as expected.")


def take(data: Any, key: str, kind: type | tuple[type, ...], where: str, default: Any = ...) -> Any:
    if not isinstance(data, dict):
        raise broken(where)
    value = data.get(key, default)
    if value is default and default is not ...:
        return default
    if value is ... or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise broken(f"{where}.{key}")
    return value


def number(data: Any, key: str, where: str, low: float, high: float, default: Any = ...) -> Any:
    value = take(data, key, (int, float), where, default)
    if value is not None and not low <= value <= high:  # nan is in no range; isfinite would fail at huge integers
        raise broken(f"{where}.{key}")
    return value


def integer(data: Any, key: str, where: str, default: Any = ..., high: int = 2**31) -> Any:
    value = take(data, key, int, where, default)
    if value is not None and not 0 <= value <= high:
        raise broken(f"{where}.{key}")
    return value


def one_of(data: Any, key: str, allowed: tuple[str, ...], where: str, default: Any = ...) -> Any:
    value = take(data, key, str, where, default)
    if value is not None and value not in allowed:
        raise broken(f"{where}.{key}")
    return value


def table(data: dict, key: str, where: str) -> dict[int, str]:
    table = take(data, key, dict, where, {})
    if not all(is_id(id_) and isinstance(text, str) for id_, text in table.items()):
        raise broken(f"{where}.{key}")
    return {int(id_): text for id_, text in table.items()}


def is_id(text: str) -> bool:
    """Whether a key of a table is a token id: a whole number under 2**31, as the ids of lanes and frames are."""
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**31


def for_browser(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace's JSON as a browser may read and write it: a seed that it would round is a text there, which `seed_of`
    takes for the number again."""
    request = trace["request"]
    seed = request.get("seed")
    if type(seed) is not int or seed <= MAX_WHOLE:
        return trace
    return trace | {"request": request | {"seed": str(seed)}}


def seed_of(value: Any) -> Any:
    """A seed that JavaScript would round is a text in what a browser writes: the number; any other value as it is."""
    digits = isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{15,18}", value)
    return int(value) if digits else value


def is_hex(text: str) -> bool:
    return re.fullmatch(r"([0-9a-f]{2}){1,64}", text) is not None
