"""Values of the page's fields as they were sent: anything at all, until it was checked here or by a Request."""

from __future__ import annotations

from typing import Any

from nemodiff.errors import RequestError


def whole(name: str, value: Any) -> int | None:
    """A number field's value as an int; None stays None. Raises RequestError when it is no whole number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} must be a whole number.")
    if isinstance(value, float) and not value.is_integer():
        raise RequestError(f"{name} must be a whole number, not {value}.")
    return int(value)


def given(name: str, value: Any) -> Any:
    """Raises RequestError when a field was left empty."""
    if value is None:
        raise RequestError(f"{name} is empty: give a number.")
    return value


def listed(name: str, value: Any) -> list[str]:
    """A field of several choices; None is none of them. Raises RequestError when it is no list of strings."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RequestError(f"{name} must be a list of names.")
    return value
