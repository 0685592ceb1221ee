"""What is asked of the engine: a Request, checked once when it is made."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from nemodiff.errors import RequestError, SettingError, shown
from nemodiff.pictures import Picture
from nemodiff.settings import (
    ACCEPTANCES,
    DRAFTS,
    MAX_BLOCK_LENGTH,
    MAX_NEW_TOKENS,
    MAX_QUADRATIC_LENGTH,
    MAX_TREE_ROWS,
    ORDERS,
    SAMPLERS,
    SETTINGS,
    Decoding,
    one_of,
)
from nemodiff.trace.events import MODES

__all__ = [
    "ACCEPTANCES",
    "DRAFTS",
    "MAX_BLOCK_LENGTH",
    "MAX_IMAGES",
    "MAX_NEW_TOKENS",
    "MAX_PROMPT_CHARACTERS",
    "MAX_QUADRATIC_LENGTH",
    "MAX_TREE_ROWS",
    "ORDERS",
    "SAMPLERS",
    "Request",
    "whole_characters",
]

MAX_PROMPT_CHARACTERS = 100_000
MAX_IMAGES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Decoding):
    """A prompt and how to decode it: the settings of `Decoding` besides what stands here. Settings left None take the
    checkpoint's defaults.

    prompt: the user's text, put through the chat template unless `raw`. Control tokens that are written out in it stay
    text, unless `raw`; the mask's stays text always. prompt_ids: token ids instead of text, taken as they are.
    images: pictures of the user's message, before its text, for checkpoints that see; with `prompt_ids` their
    placeholders stand in the ids already.
    answer_ids: tokens that the answer begins with (a branch of another run): decoding goes on after them, and
    positions count from the first new token.
    modes: any of ar, diffusion, self-speculation.
    Raises RequestError when a value is out of range.
    """

    prompt: str = ""
    prompt_ids: tuple[int, ...] | None = None
    images: tuple[Picture, ...] = ()
    answer_ids: tuple[int, ...] = ()
    modes: tuple[str, ...] = MODES

    def __post_init__(self) -> None:
        if self.prompt_ids is None:
            _text(self.prompt)
        else:
            object.__setattr__(self, "prompt_ids", _ids("prompt_ids", self.prompt_ids))
            if not self.prompt_ids:
                raise RequestError("The prompt has no token ids: give at least one.")
        object.__setattr__(self, "answer_ids", _ids("answer_ids", self.answer_ids))
        for name in ("images", "modes"):
            _list(name, getattr(self, name))
        if not all(isinstance(image, Picture) for image in self.images):
            raise RequestError("A saved run holds the sizes of its pictures only: give the pictures themselves again.")
        if len(self.images) > MAX_IMAGES:
            raise RequestError(f"A prompt takes up to {MAX_IMAGES} pictures, not {len(self.images)}: leave some out.")
        for mode in self.modes:
            one_of("mode", mode, MODES)
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise RequestError(f"Choose at least one mode, each once: {', '.join(MODES)}.")
        for setting in SETTINGS:
            setting.check(getattr(self, setting.name))
        self._check_drafts()

    def _check_drafts(self) -> None:
        """What one way of drafting cannot do. Raises RequestError."""
        if self.draft == "tree" and self.acceptance == "sampling" and self.temperature > 0:
            raise RequestError("Speculative sampling does not run over a tree of drafts: choose acceptance match.")
        if self.draft == "quadratic" and (self.block_length or 0) > MAX_QUADRATIC_LENGTH:
            wanted = f"may be up to {MAX_QUADRATIC_LENGTH} with quadratic drafts, not {self.block_length}."
            raise SettingError("block_length", wanted)
        for setting in SETTINGS:
            if setting.of and setting.of[0] == "draft" and not setting.used_by(self):
                if getattr(self, setting.name) == setting.default:
                    continue
                unset = "leave it out" if setting.default is None else f"leave it at {setting.default}"
                raise RequestError(f"{setting.name} needs draft {' or '.join(setting.of[1])}: choose it or {unset}.")

    @classmethod
    def from_json(cls, data: Any) -> Request:
        """The way back from `to_json`, checked. Raises RequestError."""
        if not isinstance(data, dict):
            raise RequestError("The request must be a JSON object.")
        lists = {name: tuple(data[name]) for name in _LISTS if isinstance(data.get(name), list)}
        try:
            return cls(**data | lists)
        except TypeError as error:  # an unknown field
            raise RequestError("The request has fields that cannot be read.") from error

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values, as a Trace carries them; of pictures their [width, height] alone."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["images"] = [[image.width, image.height] for image in self.images]
        data["modes"] = list(self.modes)
        data["answer_ids"] = list(self.answer_ids)
        data["prompt_ids"] = None if self.prompt_ids is None else list(self.prompt_ids)
        return data


_LISTS = ("modes", "prompt_ids", "answer_ids", "images")


def _text(prompt: Any) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError("The prompt is empty: write something for the model to answer.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise RequestError(
            f"The prompt has {len(prompt):,} characters; shorten it to {MAX_PROMPT_CHARACTERS:,} or fewer."
        )
    whole_characters(prompt)


def whole_characters(prompt: str) -> None:
    """Raises RequestError for a prompt with half of a UTF-16 pair, or a byte that was no UTF-8 on a command line."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"The prompt's character {error.start + 1:,} ({ascii(prompt[error.start])}) is no whole character: "
            "take it out or write it anew, in UTF-8."
        ) from error


def _ids(name: str, values: Any) -> tuple[int, ...]:
    """Token ids as plain integers, whichever integers they were (numpy's, say)."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise RequestError(f"{name} must be a list of token ids, not {shown(values)}.")
    ids = []
    for value in values:
        try:
            ids.append(operator.index(value))
        except TypeError:
            ids.append(-1)
        if isinstance(value, bool) or not 0 <= ids[-1] < 2**31:
            raise RequestError(f"{name} must hold whole numbers from 0 to {2**31 - 1}, not {shown(value)}.")
    return tuple(ids)


def _list(name: str, values: Any) -> None:
    if not isinstance(values, tuple | list):
        raise RequestError(f"{name} must be a tuple or a list, not {shown(values)}.")
