"""Functions for Gradio whose parameters follow from a table: Gradio reads a function's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

EMPTY = inspect.Parameter.empty


def parameter(name: str, kind: Any, default: Any = EMPTY) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)


def sign(function: Callable[..., Any], parameters: Sequence[inspect.Parameter], gives: Any = EMPTY) -> None:
    """Make a function of `*values` look like one of these parameters; gives: the type of what it returns or yields."""
    function.__signature__ = inspect.Signature(parameters, return_annotation=gives)  # type: ignore[attr-defined]
    function.__annotations__ = {one.name: one.annotation for one in parameters if one.annotation is not EMPTY}
    if gives is not EMPTY:
        function.__annotations__["return"] = gives
