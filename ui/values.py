"""Values of the page's fields as they were sent: anything at all, until it was checked here or by a Request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from nemodiff.errors import RequestError, SettingError
from nemodiff.settings import offered
from nemodiff.trace.values import MAX_WHOLE

#: The value of a body that is no JSON, which Gradio refuses.
UNREAD = object()
#: A Request's settings as the page calls them.
NAMES = {"modes": "modes", **{setting.name: setting.label for setting in offered("page")}}


def worded(error: Exception) -> Exception:
    """An error about a setting in the page's words; any other as it is."""
    if isinstance(error, SettingError) and error.setting in NAMES:
        return RequestError(error.named(NAMES[error.setting]))
    return error


def whole(name: str, value: Any) -> int | None:
    """A number field's value as an int; None stays None. Raises RequestError when it is no whole number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} must be a whole number.")
    if isinstance(value, float) and not value.is_integer():
        raise RequestError(f"{name} must be a whole number, not {value}.")
    return int(value)


def new_tokens(value: Any, most: int) -> int:
    """The field's value, of which this page allows so many. Raises RequestError."""
    number = int(given("new tokens", whole("new tokens", value)))
    if number < 1:
        raise RequestError(f"new tokens must be a whole number from 1 to {most}, not {number}.")
    if number > most:
        raise RequestError(f"This page makes up to {most} new tokens per run: ask for no more than that.")
    return number


def exact_whole(name: str, value: Any) -> int:
    """The value of a field whose numbers may be larger than a browser holds, where it is the one that was typed. Raises
    RequestError."""
    number = int(given(name, whole(name, value)))
    if not 0 <= number <= MAX_WHOLE:
        raise RequestError(
            f"{name} must be a whole number from 0 to {MAX_WHOLE}: a browser holds no larger one exactly."
        )
    return number


def check_length(prompt: Any, most: int) -> None:
    """Raises RequestError when a prompt has more characters than this page takes."""
    if isinstance(prompt, str) and len(prompt) > most:
        raise RequestError(f"This page takes prompts of up to {most:,} characters: shorten yours.")


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


def uploaded(path: Any) -> bool:
    """Whether a path names something in the folder of uploads; only its text is looked at, nothing is opened."""
    if not isinstance(path, str) or "\0" in path or ".." in Path(path).parts:
        return False
    return Path(path).is_absolute() and Path(path).is_relative_to(Path(get_upload_folder()).absolute())
